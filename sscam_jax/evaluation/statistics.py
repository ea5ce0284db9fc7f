"""From one value per image to the mean of a data set. NumPy, in float64.

`intervals` says how far such a mean would move on other images of the same kind.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int


class Results(NamedTuple):
    """What was measured: one value for every noise key, method, image and metric.

    Attributes:
        names: the n images.
        methods: the m methods.
        metrics: the columns. `name@τ` holds a metric at the operating point τ, `name@δ@τ` one at τ for the
            demand δ; see `sample` for how they become one value.
        values: NaN where a metric does not apply to an image, and, for methods that draw no random numbers, at all
            keys but the first (the same values again are understood too).
        flat: whether the map says nothing.
        passes: forward passes of the network that the map took.
        labels: the class that the data set gives, -1 where it gives none.
        predicted: the class that the network gives.
        single: whether the image is of the subset with one box that covers at most half of it.
    """

    names: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    values: Float32[np.ndarray, "r m n columns"]
    flat: Bool[np.ndarray, "r m n"]
    passes: Int[np.ndarray, "r m n"]
    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    single: Bool[np.ndarray, " n"]


class Sample(NamedTuple):
    """One value per image, method and metric, and each image's share in the mean.

    Attributes:
        metrics: the k metrics; the columns of one metric have become one.
        values: mean over noise keys, at the operating point of the method; 0 where an image is not used.
        weights: every image's share in a metric's mean. They add up to 1; 0 for images without a value.
        means: of every method and metric; NaN where a method has no value at all.
        classes: the class of each image, by its number from 0, for metrics that are means over classes; otherwise 0.
        photographs: the photograph of each image, by its number from 0. VOC gives an example for each class of one.
    """

    metrics: tuple[str, ...]
    values: Float[np.ndarray, "m n k"]
    weights: Float[np.ndarray, "n k"]
    means: Float[np.ndarray, "m k"]
    classes: Int[np.ndarray, "n k"]
    photographs: Int[np.ndarray, " n"]


def subset(results: Results, keep: Bool[np.ndarray, " n"]) -> Results:
    """The results of some of the images.

    Args:
        results: those of all n images.
        keep: which images.

    Returns:
        The results of the images where `keep` is true, in the same order.

    Example:
        >>> one = np.zeros((1, 1, 2), bool)
        >>> both = Results(("a", "b"), ("cam",), ("drop",), np.float32([[[[1], [2]]]]), one, one.astype(int),
        ...                np.array([3, 4]), np.array([3, 3]), one[0, 0])
        >>> subset(both, both.labels == both.predicted).names
        ('a',)
    """
    return results._replace(
        names=tuple(name for name, kept in zip(results.names, keep, strict=True) if kept),
        values=results.values[:, :, keep],
        flat=results.flat[:, :, keep],
        passes=results.passes[:, :, keep],
        labels=results.labels[keep],
        predicted=results.predicted[keep],
        single=results.single[keep],
    )


def over_keys(values: Float[np.ndarray, "r *rest"]) -> Float[np.ndarray, "*rest"]:
    """Means over the noise keys that have a value.

    Args:
        values: [r, ...], NaN where there is no value.

    Returns:
        The means [...] in float64; NaN where no key has a value.

    Example:
        >>> over_keys(np.array([[1.0, 5.0, np.nan], [3.0, np.nan, np.nan]])).tolist()
        [2.0, 5.0, nan]
    """
    there = ~np.isnan(values)
    count = there.sum(0)
    total = np.where(there, values, 0).sum(0, dtype=np.float64)  # differences need the digits that float32 rounds off
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _columns(metrics: Sequence[str]) -> dict[str, list[list[int]]]:
    """Each metric's columns, those of one demand together."""
    found: dict[str, dict[str, list[int]]] = {}
    for column, metric in enumerate(metrics):
        found.setdefault(metric.partition("@")[0], {}).setdefault(metric.rpartition("@")[0], []).append(column)
    return {name: list(demands.values()) for name, demands in found.items()}


def _weights(used: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Weights that give the mean over groups of the means over each group's images."""
    _, inverse = np.unique(groups[used], return_inverse=True)
    sizes = np.bincount(inverse)
    weights = np.zeros(len(used))
    weights[used] = 1 / (len(sizes) * sizes[inverse])
    return weights


def _at_best(
    values: Float[np.ndarray, "m n columns"], weights: Float[np.ndarray, " n"], demands: list[list[int]]
) -> Float[np.ndarray, "m n"]:
    """Each image's value of one metric, at each method's best operating point; the mean over demands."""
    found = []
    for points in demands:
        some = values[..., points]
        best = np.einsum("n,mnp->mp", weights, some).argmax(-1)
        found.append(np.take_along_axis(some, best[:, None, None], -1)[..., 0])
    return np.mean(found, axis=0)


def sample(results: Results, *, per_class: Collection[str] = ()) -> Sample:
    """Means over keys and then over images, with the values that they are means of.

    Every column of the table speaks of the same images: those at which each method has a value. A method
    without any value for a metric does not count in this. Columns `name@τ` become the one with the largest mean
    over images (one operating point for the data set, as MaxBoxAcc has it), `name@δ@τ` the mean over δ of these
    (MaxBoxAccV2).

    Args:
        results: what was measured. Names that agree up to a colon are examples of one photograph.
        per_class: metrics that are averaged over each class's images first and then over classes.

    Returns:
        `Sample`.

    Raises:
        ValueError: there is no image, or `per_class` names an unknown metric.

    Example:
        >>> none = np.zeros((1, 1, 3), bool)
        >>> values = np.float32([0, 1, np.nan]).reshape(1, 1, 3, 1)
        >>> results = Results(("a", "b", "c"), ("cam",), ("hit",), values, none, none.astype(int),
        ...                   np.zeros(3, int), np.zeros(3, int), none[0, 0])
        >>> found = sample(results)
        >>> found.means.tolist(), found.weights[:, 0].tolist()
        ([[0.5]], [0.5, 0.5, 0.0])

    References:
        Choe et al., Evaluating Weakly Supervised Object Localization Methods Right (CVPR 2020), section 4.1.
    """
    if not results.names:
        raise ValueError(
            "there is no image in the results, expected at least one: see the table's list of unreadable images"
        )
    columns = _columns(results.metrics)
    for name in per_class:
        if name not in columns:
            raise ValueError(f"metric '{name}' is not in the results; choose from {', '.join(map(repr, columns))}")
    values = over_keys(results.values)
    # Means of one column are compared, so they are of the same images: those at which every method has a value, except
    # methods that have none at all.
    absent = np.isnan(values).all(1)
    used = ~(np.isnan(values) & ~absent[:, None]).any(0) & ~absent.all(0)
    known = np.unique(results.labels, return_inverse=True)[1]
    weights, one_value, means, classes = [], [], [], []
    for name, demands in columns.items():
        points = np.concatenate(demands)
        groups = known if name in per_class else np.zeros_like(known)
        share = _weights(used[:, points].all(1), groups)
        # 0 · NaN is NaN: an image that does not count needs a number too.
        there = np.where(share[:, None] > 0, values, 0)
        each = _at_best(there, share, demands)
        weights.append(share)
        one_value.append(np.nan_to_num(each))
        means.append(np.where(share.any() & ~np.isnan(each).any(1), np.nan_to_num(each) @ share, np.nan))
        classes.append(groups)
    # VOC's examples are named photograph:class.
    photographs = np.unique([each.partition(":")[0] for each in results.names], return_inverse=True)[1]
    each_image, shares, mean, class_of = (np.stack(each, -1) for each in (one_value, weights, means, classes))
    return Sample(tuple(columns), each_image, shares, mean, class_of, photographs)


def key_spread(results: Results, found: Sample) -> Float[np.ndarray, "m k"]:
    """How much the data set's values depend on the noise key: their standard deviation over keys.

    Args:
        results: what was measured, with r keys.
        found: their means, of `sample`.

    Returns:
        The standard deviations (divisor r − 1) [m, k]: 0 where all keys give the same, NaN where a method has
        values for one key only.

    Example:
        >>> none = np.zeros((2, 1, 1), bool)
        >>> results = Results(("a",), ("ss-cam",), ("hit",), np.float32([1, 3]).reshape(2, 1, 1, 1), none,
        ...                   none.astype(int), np.zeros(1, int), np.zeros(1, int), none[0, 0])
        >>> key_spread(results, sample(results)).round(3).tolist()
        [[1.414]]
    """
    keys = len(results.values)
    if keys < 2:
        return np.full(found.means.shape, np.nan)
    spread = []
    for weights, demands in zip(found.weights.T, _columns(results.metrics).values(), strict=True):
        used = weights > 0
        means = np.einsum("n,rmnc->rmc", weights[used], results.values[:, :, used].astype(np.float64))
        # Every key at its own best operating point, as if it were the only one.
        spread.append(np.mean([means[..., points].max(-1) for points in demands], axis=0).std(0, ddof=1))
    return np.stack(spread, -1)
