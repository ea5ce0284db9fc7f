"""Methods compared on the same images: with a baseline and with controls.

Marks are corrected for the number of comparisons in a table (Benjamini and Hochberg).
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from sscam_jax.cams.registry import CONTROLS
from sscam_jax.evaluation import intervals, statistics
from sscam_jax.evaluation.intervals import Estimates, Kind
from sscam_jax.evaluation.statistics import Results

MARGIN = {"%": 1.0, "": 0.01}
"""Differences below these, by a metric's unit, are too small to matter: 1 point of a percentage, 0.01 of a share."""

_SIGN = {"higher": 1, "lower": -1}


@runtime_checkable
class Spec(Kind, Protocol):
    """What a table needs to know of a metric; a `Metric` of the registry is one.

    Attributes:
        title: the column's heading.
        unit: "%" or "".
        better: "higher" or "lower".
        needs_boxes: whether it is defined only for images with boxes.
        hits: whether its values are 0 or 100, see `intervals.Kind`.
        fewest: how many images an interval needs.
    """

    @property
    def title(self) -> str: ...

    @property
    def unit(self) -> str: ...

    @property
    def better(self) -> str: ...

    @property
    def needs_boxes(self) -> bool: ...


class Section(NamedTuple):
    """Some of the images: what m methods reach on k metrics.

    Attributes:
        title: which images.
        images: how many.
        metrics: what is said of the metrics, by their names.
        n: how many of the images have a value.
        means: the means with their intervals.
        to_baseline: paired differences to the baseline.
        p: p-values of these, not corrected; NaN where there is no test.
        clear: whether a difference is not 0, by Benjamini and Hochberg over all tests of this section.
        alike: whether a difference is smaller than `MARGIN`, by two one-sided tests, corrected in the same way.
        comparisons: how many differences were tested.
        best: the method, not a control, with the best mean; -1 where none has a mean.
        winner: the best control, where it is at least as good as the best method, else -1.
        spread: standard deviations over noise keys.
        flat: images with a value whose map is flat, for any key; they are in the mean, as what a flat map gets.
        flat_maps: the same, whether there is a value or not.
        passes: forward passes a map, the mean.
    """

    title: str
    images: int
    metrics: Mapping[str, Spec]
    n: Int[np.ndarray, " k"]
    means: Estimates
    to_baseline: Estimates
    p: Float[np.ndarray, "m k"]
    clear: Bool[np.ndarray, "m k"]
    alike: Bool[np.ndarray, "m k"]
    comparisons: int
    best: Int[np.ndarray, " k"]
    winner: Int[np.ndarray, " k"]
    spread: Float[np.ndarray, "m k"]
    flat: Int[np.ndarray, "m k"]
    flat_maps: Int[np.ndarray, " m"]
    passes: Float[np.ndarray, " m"]


class Comparison(NamedTuple):
    """All that tables say.

    Attributes:
        methods: the m methods.
        baseline: the method that the others are compared with.
        per_class: the metrics that are means over classes.
        keys: how many noise keys.
        accuracy: the percentage of labelled images that the network classifies as labelled; NaN without labels.
        unreadable: images that can't be read.
        without_class: images without a class to explain.
        boxes_changed: images whose boxes the crop, or an error in the annotation, changed.
        unfinished: images that are not measured yet.
        sections: all images, and a subset.
    """

    methods: tuple[str, ...]
    baseline: str
    per_class: tuple[str, ...]
    keys: int
    accuracy: float
    unreadable: tuple[str, ...]
    without_class: tuple[str, ...]
    boxes_changed: tuple[str, ...]
    unfinished: tuple[str, ...]
    sections: tuple[Section, ...]


def is_control(method: str) -> bool:
    """Whether a method, as named on the command line, is a control of the registry.

    Args:
        method: its name, with or without settings.

    Returns:
        Whether it is.

    Example:
        >>> is_control("gaussian:sigma=0.2"), is_control("ss-cam:paper")
        (True, False)
    """
    return method.partition(":")[0] in CONTROLS


def _best(score: Float[np.ndarray, "m k"], among: Bool[np.ndarray, " m"]) -> Int[np.ndarray, " k"]:
    """The highest score's position among some methods, -1 where none of them has one."""
    # -∞, because `argmax` takes NaN for the largest.
    score = np.where(among[:, None] & ~np.isnan(score), score, -np.inf)
    return np.where(np.isinf(score).all(0), -1, score.argmax(0))


def _section(
    title: str, results: Results, specs: Mapping[str, Spec], baseline: int, per_class: Collection[str]
) -> Section:
    found = statistics.sample(results, per_class=per_class)
    columns, control = np.arange(len(specs)), np.array([is_control(method) for method in results.methods])
    score = np.array([_SIGN[spec.better] for spec in specs.values()])[None] * found.means
    best, first = _best(score, ~control), _best(score, control)
    # A control that is only as good counts too: then the metric does not tell the method from it.
    wins = (first >= 0) & (best >= 0) & (score[first, columns] >= score[best, columns])
    margins = np.array([MARGIN[spec.unit] for spec in specs.values()])
    difference = intervals.differences(found, specs, np.full(len(specs), baseline), margins)
    flat, used = results.flat.any(0).astype(int), (found.weights > 0).astype(int)
    return Section(
        title=title,
        images=len(results.names),
        metrics=specs,
        n=used.sum(0),
        means=intervals.intervals(found, specs),
        to_baseline=difference.estimates,
        p=difference.p,
        clear=intervals.discoveries(difference.p),
        alike=intervals.discoveries(difference.p_apart),
        comparisons=int((~np.isnan(difference.p)).sum()),
        best=best,
        winner=np.where(wins, first, -1),
        spread=statistics.key_spread(results, found),
        flat=flat @ used,
        flat_maps=flat.sum(1),
        passes=results.passes[0].mean(1),  # at the other keys methods without noise did not run
    )


def _sections(
    results: Results, specs: Mapping[str, Spec], baseline: int, per_class: Collection[str]
) -> Iterator[Section]:
    """All images, and those with a single box where they are not all."""

    def section(title: str, some: Results, per_class: Collection[str]) -> Section:
        chosen = {name: specs[name] for name in (metric.partition("@")[0] for metric in some.metrics)}
        return _section(title, some, chosen, baseline, per_class)

    yield section("All images", results, per_class)
    boxed = np.array([specs[metric.partition("@")[0]].needs_boxes for metric in results.metrics])
    # Where all images have one box, this section would repeat the first.
    if boxed.any() and 0 < results.single.sum() < len(results.single):
        part = statistics.subset(results, results.single)
        part = part._replace(
            metrics=tuple(metric for metric, kept in zip(part.metrics, boxed, strict=True) if kept),
            values=part.values[..., boxed],
        )
        title = "Images with a single box, which covers at most half of them"
        yield section(title, part, [name for name in per_class if specs[name].needs_boxes])


def compare(
    results: Results,
    specs: Mapping[str, Spec],
    *,
    baseline: str,
    per_class: Collection[str] = (),
    unreadable: Sequence[str] = (),
    without_class: Sequence[str] = (),
    boxes_changed: Sequence[str] = (),
    unfinished: Sequence[str] = (),
) -> Comparison:
    """Compare methods on the images that were measured.

    Where some, but not all, images are `single`, metrics that need boxes get a second section on these.

    Args:
        results: what was measured.
        specs: what is said of the metrics, by their names without `@…`.
        baseline: the method that the others are compared with.
        per_class: metrics that are averaged over classes, see `statistics.sample`.
        unreadable: images that can't be read, to be named.
        without_class: images without a class to explain, to be named.
        boxes_changed: images whose boxes were changed, to be named.
        unfinished: images that are not measured yet, to be named.

    Returns:
        `Comparison`.

    Raises:
        ValueError: the baseline or a metric is not known, or there is no image.

    Example:
        >>> from sscam_jax.metrics import METRICS
        >>> no = np.zeros((1, 2, 2), bool)
        >>> values = np.float32([[[[1], [2]], [[3], [5]]]])
        >>> results = Results(("a", "b"), ("grad-cam", "uniform"), ("average-drop",), values, no, no.astype(int),
        ...                   np.array([3, 4]), np.array([3, 3]), no[0, 0])
        >>> found = compare(results, METRICS, baseline="grad-cam")
        >>> found.accuracy, found.sections[0].to_baseline.values.tolist()
        (50.0, [[0.0], [2.5]])
    """
    if baseline not in results.methods:
        raise ValueError(
            f"baseline '{baseline}' is not among the methods; choose from {', '.join(map(repr, results.methods))}"
        )
    for metric in results.metrics:
        if (name := metric.partition("@")[0]) not in specs:
            raise ValueError(f"metric '{name}' is not known; choose from {', '.join(map(repr, specs))}")
    # Of what has a label: a data set may give it to some images only.
    labelled = results.labels >= 0
    right = results.labels[labelled] == results.predicted[labelled]
    return Comparison(
        methods=results.methods,
        baseline=baseline,
        per_class=tuple(per_class),
        keys=len(results.values),
        accuracy=float(100 * right.mean()) if right.size else math.nan,
        unreadable=tuple(unreadable),
        without_class=tuple(without_class),
        boxes_changed=tuple(boxes_changed),
        unfinished=tuple(unfinished),
        sections=tuple(_sections(results, specs, results.methods.index(baseline), per_class)),
    )
