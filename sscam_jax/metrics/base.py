"""What a metric is, and what it may look at.

A map that is zero everywhere scores 0 on every metric where higher is better. Where lower is better it gets the value
that the formula gives; ties between pixels break in row-major order.
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
    """What a metric may look at: a batch of images and the maps that the methods gave of it.

    Attributes:
        apply: the network.
        params: its parameters.
        images: as the network takes them.
        labels: the class that the maps explain.
        boxes: k boxes per image, y0, x0, y1, x1 as shares; a row of -1 holds no box.
        maps: m methods' maps of each image, in [0, 1].
        key: what random numbers are drawn from; the same key for every batch.
        ids: one integer per image, which its random numbers belong to.
        explain: runs the methods again, for metrics that do so (`Metric.reruns`).
        mean: the mean that was subtracted from each channel of the images.
        std: the standard deviation that each channel was then divided by.
        chunk_size: network inputs held at once; None: what suits the device.
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

    @functools.cached_property
    def _known(self) -> dict[Hashable, Any]:
        return {}

    def once(self, name: Hashable, compute: Callable[[], _T]) -> _T:
        """What `compute` returns; metrics that ask for the same name share it.

        Args:
            name: what is computed, with everything that it depends on beside the case.
            compute: computes it.

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
    """A metric: its function, and what a table says of it.

    Attributes:
        values: from a `Case` to one value per method and image [m, b], or several such columns by the suffixes of
            their names.
        better: "higher" or "lower".
        title: as in a table's head; empty: the metric's name.
        unit: "%" or "", after its values.
        family: the property that it measures.
        summary: one line.
        needs_boxes: it is defined only for images with boxes, and NaN for others.
        reruns: it runs the methods again, on other images.

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
