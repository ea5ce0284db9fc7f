"""The definition of a metric, and of the case that it measures.

A map that is zero everywhere scores 0 on every metric where higher is better. If lower is better, it gets the value of
the formula. Ties between pixels break in row-major order.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeVar

from jaxtyping import Array, Float, Int, Key

from sscam_jax.metrics.robustness import Explain
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Apply, Params

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """The input of a metric: a batch of images, and the maps of all methods for it.

    Attributes:
        apply: the network.
        params: its parameters.
        images: as the network takes them.
        labels: the class that the maps explain.
        boxes: k boxes per image, y0, x0, y1, x1 as shares; a row of -1 holds no box.
        maps: m methods' maps of each image, in [0, 1].
        key: the key of all random numbers; the same for every batch.
        ids: one integer per image, which seeds its random numbers.
        explain: runs the methods again, for metrics that do so (`Metric.reruns`).
        mean: the mean that was subtracted from each channel of the images.
        std: the standard deviation that each channel was then divided by.
        chunk_size: the largest number of network inputs in memory; None: what suits the device.
    """

    apply: Apply
    params: Params
    images: Float[Array, "b *space c"]
    labels: Int[Array, " b"]
    boxes: Float[Array, "b k 4"]
    maps: Float[Array, "m b *space"]
    key: Key[Array, ""]
    ids: Int[Array, " b"]
    explain: Explain
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    chunk_size: int | None = None

    # A cached property, because the dataclass is frozen. `eq=False` keeps a case hashable although it holds arrays.
    @functools.cached_property
    def _known(self) -> dict[Hashable, Any]:
        return {}

    def once(self, name: Hashable, compute: Callable[[], _T]) -> _T:
        """Compute a value once for all metrics that need it.

        Args:
            name: a name for the value, with everything that it depends on except the case.
            compute: a function that computes it.

        Returns:
            The value, computed when it is first asked for.
        """
        if name not in self._known:
            self._known[name] = compute()
        return self._known[name]

    def seen(self, function: Callable[..., _T], **options: Any) -> _T:
        """`function(apply, params, images, labels, maps, chunk_size=…, **options)` of this case."""
        arguments = (self.apply, self.params, self.images, self.labels, self.maps)
        return function(*arguments, chunk_size=self.chunk_size, **options)


Columns = Float[Array, "m b"] | dict[str, Float[Array, "m b"]]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric: its function, and how tables describe it.

    Attributes:
        values: a function from a `Case` to one value per method and image [m, b], or to several such columns by the
            suffixes of their names.
        better: "higher" or "lower".
        title: the heading of its column; empty: the metric's name.
        unit: "%" or "".
        family: the property that it measures.
        summary: one line.
        needs_boxes: whether only images with boxes have a value; others have NaN.
        reruns: whether it runs the methods again on other images.
        hits: whether its values are 0 or 100 (or between them, where a hit counts in part). Then the unit is "%", and
            intervals follow the rule for hits.
        on_host: whether it is faster outside of compiled code where the device is a CPU.
        fewest: the fewest images for an interval: more than 12 where few images hold most of the mean.

    Example:
        >>> import jax.numpy as jnp
        >>> peak = Metric(lambda case: case.maps.max((-2, -1)), "higher", unit="")
        >>> peak.better, peak.needs_boxes
        ('higher', False)
    """

    values: Callable[[Case], Columns]
    better: Literal["higher", "lower"]
    title: str = ""
    unit: Literal["%", ""] = ""
    family: Literal["faithfulness", "localisation", "complexity", "robustness", "other"] = "other"
    summary: str = ""
    needs_boxes: bool = False
    reruns: bool = False
    hits: bool = False
    on_host: bool = False
    fewest: int = 12
