"""The metrics by name, and many of them measured at once.

A map that is zero everywhere scores 0 on every metric where higher is better. Where lower is better it gets what comes
out: the drop of an empty image, no complexity, the deletion and the ROAD of pixels in their order of reading.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sscam_jax.metrics import boxes, curves, faithfulness, localization
from sscam_jax.metrics.complexity import adcc, coherency, complexity, sparseness
from sscam_jax.metrics.faithfulness import Confidence
from sscam_jax.metrics.holes import infidelity
from sscam_jax.metrics.imputation import Road, road
from sscam_jax.metrics.robustness import Explain, max_sensitivity
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Apply, Params


class Case(NamedTuple):
    """What a metric may look at: a batch of images and the maps that the methods gave of it.

    Attributes:
        apply: the network.
        params: its parameters.
        images: as the network takes them.
        labels: the class that the maps explain.
        boxes: k boxes an image, y0, x0, y1, x1 as shares; a row of -1 holds no box.
        maps: m methods' maps of each image, in [0, 1].
        key: what random numbers are drawn from; the same key for every batch.
        ids: an integer an image that its random numbers belong to.
        explain: the methods run again, for metrics that do so (`Metric.reruns`).
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


@dataclasses.dataclass(frozen=True)
class Metric:
    """What is known of a metric before it is measured.

    Attributes:
        name: as on the command line.
        title: as in a table's head.
        better: "higher" or "lower".
        family: the property that it measures.
        summary: one line.
        unit: "%" or "", after its values.
        needs_boxes: it is defined only for images with boxes, and NaN for others.
        reruns: it runs the methods again, on other images.
    """

    name: str
    title: str
    better: Literal["higher", "lower"]
    family: Literal["faithfulness", "localisation", "complexity", "robustness"]
    summary: str
    unit: Literal["%", ""] = ""
    needs_boxes: bool = False
    reruns: bool = False


class _Run:
    """One batch being measured: what several metrics share is computed when the first asks for it."""

    def __init__(self, case: Case, mean: tuple[float, ...], std: tuple[float, ...], chunk_size: int | None) -> None:
        self.case = case
        self.colours = dict(mean=mean, std=std)
        self.chunk_size = chunk_size
        self.space = case.maps.ndim - 2
        self.random: dict[str, Any] = dict(key=case.key, ids=case.ids)
        self._confidences: dict[str, Confidence] = {}
        self._ious: dict[str, Float[Array, "m b t"]] = {}

    def seen(self, function: Callable[..., Any], **options: Any) -> Any:
        """A function of the network, the images and the maps, with the case's arguments."""
        apply, params, images, labels = self.case[:4]
        return function(apply, params, images, labels, self.case.maps, chunk_size=self.chunk_size, **options)

    def confidence(self, variant: str) -> Confidence:
        if variant not in self._confidences:
            self._confidences[variant] = self.seen(faithfulness.confidence, **_CONFIDENCES[variant], **self.colours)
        return self._confidences[variant]

    def box_iou(self, regions: boxes.Regions) -> Float[Array, "m b t"]:
        if regions not in self._ious:
            self._ious[regions] = boxes.box_iou(self.case.maps, self.case.boxes, regions=regions)
        return self._ious[regions]

    @functools.cached_property
    def road(self) -> Road:
        return self.seen(road, **self.random)

    @functools.cached_property
    def coherency(self) -> Float[Array, "m b"]:
        explained = self.case.explain(faithfulness.explained_inputs(self.case.images, self.case.maps))
        return coherency(self.case.maps, explained, spatial_axes=self.space)

    @functools.cached_property
    def complexity(self) -> Float[Array, "m b"]:
        return complexity(self.case.maps, spatial_axes=self.space)


_Values = Callable[[_Run], Float[Array, "m b"] | dict[str, Float[Array, "m b"]]]

_CONFIDENCES: Mapping[str, Mapping[str, str]] = {
    "": {},
    "-pixel": dict(mask_space="pixel"),
    "-top50": dict(keep="top50"),
    "-authors": dict(protocol="authors"),
}
_SEEN = {
    "": "M ⊙ the normalised image",
    "-pixel": "M ⊙ the pixels: what is hidden is black",
    "-top50": "the more important half of the pixels",
    "-authors": "the thresholded map as a picture, largest logit: what the paper's Table 1 measured",
}


def _of_confidence(
    function: Callable[[Confidence], Float[Array, "m b"]], variant: str, run: _Run
) -> Float[Array, "m b"]:
    return function(run.confidence(variant))


def _confidence_rows() -> Iterator[tuple[Metric, _Values]]:
    kinds: list[tuple[str, Literal["higher", "lower"], Callable[[Confidence], Float[Array, "m b"]]]] = [
        ("drop", "lower", faithfulness.average_drop),
        ("increase", "higher", faithfulness.average_increase),
        ("gain", "higher", faithfulness.average_gain),
    ]
    for variant, seen in _SEEN.items():
        for kind, better, function in kinds:
            if (kind, variant) == ("gain", "-authors"):
                continue  # the share of a missing probability: a logit lacks none
            title = f"Average {kind.capitalize()}" + (f" ({variant[1:]})" if variant else "")
            yield (
                Metric(f"average-{kind}{variant}", title, better, "faithfulness", f"confidence given {seen}", "%"),
                functools.partial(_of_confidence, function, variant),
            )


def _tolerance(maps: Float[Array, "m b h w"]) -> float:
    """15 pixels at 224 a side, where the pointing game's authors take 15 of the photograph in its own size."""
    return 15 * max(maps.shape[-2:]) / 224


def _found(ious: Float[Array, "m b t"], least: float, prefix: str) -> dict[str, Float[Array, "m b"]]:
    """Which images' objects are found, a column a threshold; NaN without a box."""
    found = jnp.where(jnp.isnan(ious), jnp.nan, jnp.where(ious >= least, 100.0, 0.0))
    return {f"{prefix}{threshold:.2f}": found[..., t] for t, threshold in enumerate(boxes.THRESHOLDS)}


_ROWS: list[tuple[Metric, _Values]] = [
    *_confidence_rows(),
    (
        Metric("insertion", "Insertion", "higher", "faithfulness", "area under the probability as pixels sharpen"),
        lambda run: run.seen(curves.insertion).auc,
    ),
    (
        Metric("deletion", "Deletion", "lower", "faithfulness", "area under the probability as pixels vanish"),
        lambda run: run.seen(curves.deletion).auc,
    ),
    (
        Metric("road-morf", "ROAD, most relevant first", "lower", "faithfulness", "probability without those pixels"),
        lambda run: run.road.morf,
    ),
    (
        Metric("road-lerf", "ROAD, least relevant first", "higher", "faithfulness", "probability without those pixels"),
        lambda run: run.road.lerf,
    ),
    (
        Metric("road", "ROAD", "higher", "faithfulness", "half the difference of the two orders: chance is 0"),
        lambda run: run.road.combined,
    ),
    (
        Metric("energy", "Energy in the box", "higher", "localisation", "energy-based pointing game", "%", True),
        lambda run: localization.energy_in_box(run.case.maps, run.case.boxes),
    ),
    (
        Metric(
            "energy-over-area",
            "Energy ÷ area",
            "higher",
            "localisation",
            "energy in the box over the box's share of the image: chance is 1",
            needs_boxes=True,
        ),
        lambda run: localization.energy_over_area(run.case.maps, run.case.boxes),
    ),
    (
        Metric("pointing", "Pointing game", "higher", "localisation", "maximum inside a box, 15 pixels off", "%", True),
        lambda run: localization.pointing_game(run.case.maps, run.case.boxes, tolerance=_tolerance(run.case.maps)),
    ),
    (
        Metric("iou", "IoU", "higher", "localisation", "best box at any threshold, against the object's", "", True),
        lambda run: run.box_iou("all").max(-1),
    ),
    (
        Metric("max-box-acc", "MaxBoxAcc", "higher", "localisation", "largest region found, IoU ≥ 0.5", "%", True),
        lambda run: _found(run.box_iou("largest"), 0.5, "@"),
    ),
    (
        Metric("max-box-acc-v2", "MaxBoxAccV2", "higher", "localisation", "any region, IoU ≥ 0.3, 0.5, 0.7", "%", True),
        lambda run: {
            column: values
            for iou in (0.3, 0.5, 0.7)
            for column, values in _found(run.box_iou("all"), iou, f"@{iou:.2f}@").items()
        },
    ),
    (
        Metric("complexity", "Complexity", "lower", "complexity", "mean of the map", "%"),
        lambda run: run.complexity,
    ),
    (
        Metric("sparseness", "Sparseness", "higher", "complexity", "Gini index of the map"),
        lambda run: sparseness(run.case.maps, spatial_axes=run.space),
    ),
    (
        Metric("coherency", "Coherency", "higher", "complexity", "correlation with its own map", "%", reruns=True),
        lambda run: run.coherency,
    ),
    (
        Metric("adcc", "ADCC", "higher", "complexity", "drop, coherency and complexity in one", "%", reruns=True),
        lambda run: adcc(run.coherency, run.complexity, faithfulness.average_drop(run.confidence(""))),
    ),
    (
        Metric(
            "max-sensitivity",
            "Max-sensitivity",
            "lower",
            "robustness",
            "largest relative change of the map under slight noise",
            reruns=True,
        ),
        lambda run: max_sensitivity(run.case.explain, run.case.images, run.case.maps, **run.random),
    ),
    (
        Metric(
            "infidelity", "Infidelity", "lower", "faithfulness", "what the map predicts of holes, and what they cost"
        ),
        lambda run: run.seen(infidelity, **run.random),
    ),
]

METRICS: Mapping[str, Metric] = {metric.name: metric for metric, _ in _ROWS}
"""Every metric by its name on the command line."""

_VALUES = {metric.name: values for metric, values in _ROWS}


def measure(
    names: Iterable[str],
    case: Case,
    *,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    chunk_size: int | None = None,
) -> dict[str, Float[Array, "m b"]]:
    """Measure several metrics on one batch; what they share is computed once.

    Traceable by `jax.jit` with `names` and the case's functions fixed, but for metrics that run the methods again,
    where that depends on `case.explain`. Everything is per image: batches and their order change rounding only.

    Args:
        names: of `METRICS`.
        case: the batch.
        mean: the mean that was subtracted from each channel; `average-…-pixel` and `average-…-authors` read it.
        std: the standard deviation that each channel was then divided by.
        chunk_size: network inputs held at once; None: what suits the device.

    Returns:
        A column [m, b] for each name, in their order. MaxBoxAcc gives one for each threshold τ of the map, `name@τ`,
        and its second version one for each demand δ on the overlap and threshold, `name@δ@τ`: a data set's value is
        the largest mean over τ, or the mean over δ of these.

    Raises:
        ValueError: an unknown name, or arrays of the case that do not fit one another.

    Example:
        >>> import jax
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> case = Case(apply, (), jnp.ones((1, 2, 2, 3)), jnp.array([0]), jnp.array([[[0.0, 0.0, 1.0, 0.5]]]),
        ...             jnp.array([[[[1.0, 0.0], [1.0, 0.0]]]]), jax.random.key(0), jnp.array([0]), lambda x: x[..., 0])
        >>> {name: values.tolist() for name, values in measure(["energy", "average-drop"], case).items()}
        {'energy': [[100.0]], 'average-drop': [[0.0]]}
    """
    names = list(names)
    for name in names:
        if name not in METRICS:
            raise ValueError(f"metric {name!r} is not known; choose from {', '.join(map(repr, METRICS))}")
    run = _Run(case, mean, std, chunk_size)
    columns: dict[str, Float[Array, "m b"]] = {}
    for name in names:
        values = _VALUES[name](run)
        if not isinstance(values, dict):
            values = {"": values}
        columns |= {name + suffix: column for suffix, column in values.items()}
    return columns
