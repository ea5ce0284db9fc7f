"""The metrics by name, and many of them measured at once on one batch."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from sscam_jax._support import choose
from sscam_jax.metrics import curves, faithfulness, localization, overlap
from sscam_jax.metrics.base import Case, Metric
from sscam_jax.metrics.complexity import adcc, coherency, complexity, sparseness
from sscam_jax.metrics.faithfulness import Confidence
from sscam_jax.metrics.holes import infidelity
from sscam_jax.metrics.imputation import Road, road
from sscam_jax.metrics.robustness import max_sensitivity

# The protocols of Average Drop and its relatives: the ending of the metric's name, and the arguments of `confidence`.
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


def _confidence(case: Case, variant: str) -> Confidence:
    # Drop, increase and gain of a protocol share their passes, which are all that costs time.
    colours = dict(mean=case.mean, std=case.std)
    return case.once(
        ("confidence", variant), lambda: case.seen(faithfulness.confidence, **_CONFIDENCES[variant], **colours)
    )


def _of_confidence(
    function: Callable[[Confidence], Float[Array, "m b"]], variant: str, case: Case
) -> Float[Array, "m b"]:
    return function(_confidence(case, variant))


def _confidence_rows() -> Iterator[tuple[str, Metric]]:
    kinds: list[tuple[str, Literal["higher", "lower"], Callable[[Confidence], Float[Array, "m b"]]]] = [
        ("drop", "lower", faithfulness.average_drop),
        ("increase", "higher", faithfulness.average_increase),
        ("gain", "higher", faithfulness.average_gain),
    ]
    for variant, seen in _SEEN.items():
        for kind, better, function in kinds:
            if (kind, variant) == ("gain", "-authors"):
                continue  # gain is a share of 1 − Y, which has no meaning for a logit
            title = f"Average {kind.capitalize()}" + (f" ({variant[1:]})" if variant else "")
            values = functools.partial(_of_confidence, function, variant)
            metric = Metric(values, better, title, "%", "faithfulness", f"confidence given {seen}")
            # Few images gain, so few hold the mean of the gain.
            fewest = 40 if kind == "gain" else metric.fewest
            yield f"average-{kind}{variant}", dataclasses.replace(metric, hits=kind == "increase", fewest=fewest)


def _road(case: Case) -> Road:
    # Three columns show one computation: two orders of every percentile.
    return case.once("road", lambda: case.seen(road, key=case.key, ids=case.ids))


def _iou(case: Case, regions: overlap.Regions) -> Float[Array, "m b t"]:
    return case.once(("iou", regions), lambda: overlap.box_iou(case.maps, case.boxes, regions=regions))


def _tolerance(maps: Float[Array, "m b h w"]) -> float:
    """15 pixels for images of 224 × 224. The authors take 15 pixels of the photograph in its own size."""
    return 15 * max(maps.shape[-2:]) / 224


def _found(ious: Float[Array, "m b t"], least: float, prefix: str) -> dict[str, Float[Array, "m b"]]:
    """Which images' objects are found, one column per threshold; NaN without a box."""
    # A data set's MaxBoxAcc is the largest mean over images, not the mean of each image's best, so no threshold is
    # chosen here.
    found = overlap.hits(ious, least)
    return {f"{prefix}{threshold:.2f}": found[..., t] for t, threshold in enumerate(overlap.THRESHOLDS)}


def _found_by_demand(case: Case) -> dict[str, Float[Array, "m b"]]:
    columns: dict[str, Float[Array, "m b"]] = {}
    for iou in (0.3, 0.5, 0.7):  # the δ of MaxBoxAccV2
        columns |= _found(_iou(case, "all"), iou, f"@{iou:.2f}@")
    return columns


def _coherency(case: Case) -> Float[Array, "m b"]:
    def correlate() -> Float[Array, "m b"]:
        explained = case.explain(faithfulness.explained_inputs(case.images, case.maps))
        return coherency(case.maps, explained, spatial_axes=case.maps.ndim - 2)

    # Once, because it explains all images again, and ADCC takes it too.
    return case.once("coherency", correlate)


def _complexity(case: Case) -> Float[Array, "m b"]:
    return complexity(case.maps, spatial_axes=case.maps.ndim - 2)


def _adcc(case: Case) -> Float[Array, "m b"]:
    # Poppi et al. take the drop of M ⊙ X, which is the protocol without an ending.
    return adcc(_coherency(case), _complexity(case), faithfulness.average_drop(_confidence(case, "")))


_faithful = functools.partial(Metric, family="faithfulness")
_located = functools.partial(Metric, family="localisation", needs_boxes=True)
_regional = functools.partial(_located, on_host=True)
_complex = functools.partial(Metric, family="complexity")

METRICS: Mapping[str, Metric] = {
    **dict(_confidence_rows()),
    "insertion": _faithful(
        lambda case: case.seen(curves.insertion).auc,
        "higher",
        "Insertion",
        summary="area under the probability as pixels sharpen",
    ),
    "deletion": _faithful(
        lambda case: case.seen(curves.deletion).auc,
        "lower",
        "Deletion",
        summary="area under the probability as pixels vanish",
    ),
    "road-morf": _faithful(
        lambda case: _road(case).morf,
        "lower",
        "ROAD, most relevant first",
        summary="probability without those pixels",
        fewest=200,  # few images keep any probability, and hold most of the mean
    ),
    "road-lerf": _faithful(
        lambda case: _road(case).lerf,
        "higher",
        "ROAD, least relevant first",
        summary="probability without those pixels",
    ),
    "road": _faithful(
        lambda case: _road(case).combined,
        "higher",
        "ROAD",
        summary="half the difference of the two orders: chance is 0",
    ),
    "infidelity": _faithful(
        lambda case: case.seen(infidelity, key=case.key, ids=case.ids),
        "lower",
        "Infidelity",
        summary="whether the map inside a hole predicts what the hole costs",
        fewest=20,
    ),
    "energy": _located(
        lambda case: localization.energy_in_box(case.maps, case.boxes),
        "higher",
        "Energy in the box",
        "%",
        summary="energy-based pointing game",
    ),
    "energy-over-area": _located(
        lambda case: localization.energy_over_area(case.maps, case.boxes),
        "higher",
        "Energy ÷ area",
        summary="energy in the box over the box's share of the image: chance is 1",
        fewest=20,
    ),
    "pointing": _located(
        lambda case: localization.pointing_game(case.maps, case.boxes, tolerance=_tolerance(case.maps)),
        "higher",
        "Pointing game",
        "%",
        summary="maximum inside a box, 15 pixels off",
        hits=True,
    ),
    "iou": _regional(
        lambda case: _iou(case, "all").max(-1),
        "higher",
        "IoU",
        summary="best box at any threshold, against the object's",
    ),
    "max-box-acc": _regional(
        lambda case: _found(_iou(case, "largest"), 0.5, "@"),
        "higher",
        "MaxBoxAcc",
        "%",
        summary="largest region found, IoU ≥ 0.5",
        hits=True,
    ),
    "max-box-acc-v2": _regional(
        _found_by_demand,
        "higher",
        "MaxBoxAccV2",
        "%",
        summary="any region, IoU ≥ 0.3, 0.5, 0.7",
        hits=True,
    ),
    "complexity": _complex(_complexity, "lower", "Complexity", "%", summary="mean of the map"),
    "sparseness": _complex(
        lambda case: sparseness(case.maps, spatial_axes=case.maps.ndim - 2),
        "higher",
        "Sparseness",
        summary="Gini index of the map",
    ),
    "coherency": _complex(_coherency, "higher", "Coherency", "%", summary="correlation with its own map", reruns=True),
    "adcc": _complex(_adcc, "higher", "ADCC", "%", summary="drop, coherency and complexity in one", reruns=True),
    "max-sensitivity": Metric(
        lambda case: max_sensitivity(case.explain, case.images, case.maps, key=case.key, ids=case.ids),
        "lower",
        "Max-sensitivity",
        family="robustness",
        summary="largest relative change of the map under slight noise",
        reruns=True,
        fewest=20,
    ),
}
"""Every metric by its name on the command line."""


def named(names: Iterable[str]) -> dict[str, Metric]:
    """The metrics of these names.

    Args:
        names: of `METRICS`.

    Returns:
        The metrics, in the order of the names.

    Raises:
        ValueError: a name is not known.

    Example:
        >>> named(["energy"])["energy"].unit
        '%'
    """
    found = {}
    for name in names:
        choose("metric", name, METRICS)
        found[name] = METRICS[name]
    return found


def measure(metrics: Mapping[str, Metric] | Iterable[str], case: Case) -> dict[str, Float[Array, "m b"]]:
    """Measure several metrics on one batch; what they share is computed once.

    Traceable by `jax.jit` with the metrics and the case's functions fixed; metrics that run the methods again are
    traceable where `case.explain` is. Everything is per image: batches and their order change rounding only.

    Args:
        metrics: names of `METRICS`, or metrics by name.
        case: the batch.

    Returns:
        A column [m, b] for each metric, in their order. MaxBoxAcc gives one for each threshold τ of the map, `name@τ`,
        and its second version one for each demand δ on the overlap and threshold, `name@δ@τ`: a data set's value is
        the largest mean over τ, or the mean over δ of these.

    Raises:
        ValueError: an unknown name, arrays of the case that do not fit one another, or a metric whose values do not
            have the shape [m, b].

    Example:
        >>> import jax
        >>> from sscam_jax.types import Apply
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> case = Case(apply, (), jnp.ones((1, 2, 2, 3)), jnp.array([0]), jnp.array([[[0.0, 0.0, 1.0, 0.5]]]),
        ...             jnp.array([[[[1.0, 0.0], [1.0, 0.0]]]]), jax.random.key(0), jnp.array([0]), lambda x: x[..., 0])
        >>> {name: values.tolist() for name, values in measure(["energy", "average-drop"], case).items()}
        {'energy': [[100.0]], 'average-drop': [[0.0]]}
        >>> measure({"peak": Metric(lambda case: case.maps.max((-2, -1)), "higher")}, case)["peak"].tolist()
        [[1.0]]
    """
    if not isinstance(metrics, Mapping):
        metrics = named(metrics)
    columns: dict[str, Float[Array, "m b"]] = {}
    for name, metric in metrics.items():
        values = metric.values(case)
        for suffix, column in values.items() if isinstance(values, dict) else [("", values)]:
            shape = getattr(column, "shape", type(column).__name__)
            if shape != case.maps.shape[:2]:
                raise ValueError(
                    f"metric '{name}' gave values of shape {shape}, expected an array of {case.maps.shape[:2]}: one "
                    "value per method and image"
                )
            columns[name + suffix] = jnp.asarray(column)
    return columns
