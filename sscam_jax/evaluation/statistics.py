"""From one value an image to what is said of a data set: means, their intervals, paired differences.

NumPy, in float64. Images are what is resampled: an interval says how far the mean would move on other images of
the same kind, not how exactly one image was measured.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

LEVEL = 0.95
"""The share of resamples that an interval covers."""


class Results(NamedTuple):
    """What was measured: one value for every noise key, method, image and metric.

    Attributes:
        names: the n images.
        methods: the m methods.
        metrics: the columns. `name@τ` holds a metric at the operating point τ, `name@δ@τ` one at τ for the
            demand δ; see `bootstrap` for how they become one value.
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


class Bootstrap(NamedTuple):
    """Means over a data set, and the same means over resampled images.

    Attributes:
        metrics: the k metrics; the columns of one metric have become one.
        weights: every image's share in a metric's mean, adding up to 1; 0 for images without a value.
        means: of every method and metric; NaN where a method has no value at all.
        samples: the means over s resamples of the images, the same for all methods; NaN where there are fewer
            than two images, or a class with fewer than two in a mean over classes.
    """

    metrics: tuple[str, ...]
    weights: Float[np.ndarray, "n k"]
    means: Float[np.ndarray, "m k"]
    samples: Float[np.ndarray, "s m k"]


class Estimates(NamedTuple):
    """Values with the ends of their intervals, NaN where there is none.

    Attributes:
        values: of every method and metric.
        low: the intervals' lower ends.
        high: the intervals' upper ends.
    """

    values: Float[np.ndarray, "m k"]
    low: Float[np.ndarray, "m k"]
    high: Float[np.ndarray, "m k"]


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
    total = np.where(there, values, 0).sum(0, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _columns(metrics: Sequence[str]) -> dict[str, list[list[int]]]:
    """Each metric's columns, those of one demand together."""
    found: dict[str, dict[str, list[int]]] = {}
    for column, metric in enumerate(metrics):
        found.setdefault(metric.partition("@")[0], {}).setdefault(metric.rpartition("@")[0], []).append(column)
    return {name: list(demands.values()) for name, demands in found.items()}


def _of_data_set(means: Float[np.ndarray, "*some columns"], demands: list[list[int]]) -> Float[np.ndarray, "*some"]:
    """One metric from the means of its columns: the best operating point, the mean over demands."""
    return np.mean([means[..., points].max(-1) for points in demands], axis=0)


def _weights(used: Bool[np.ndarray, " n"], groups: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Weights that give the mean over groups of the means over each group's images."""
    _, inverse = np.unique(groups[used], return_inverse=True)
    sizes = np.bincount(inverse)
    weights = np.zeros(len(used))
    weights[used] = 1 / (len(sizes) * sizes[inverse])
    return weights


def _counts(groups: Int[np.ndarray, " n"], resamples: int, seed: int) -> Iterator[Int[np.ndarray, "some n"]]:
    """How often every image is drawn in each resample; a group's images are replaced by images of the group."""
    n = len(groups)
    order = np.argsort(groups, kind="stable")
    _, starts, inverse, sizes = np.unique(groups[order], return_index=True, return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    # A few million draws at a time: ten thousand resamples of a whole data set do not fit into memory.
    step = max(1, 2**22 // n)
    for begin in range(0, resamples, step):
        some = min(step, resamples - begin)
        drawn = order[starts[inverse] + rng.integers(sizes[inverse], size=(some, n))]
        yield np.bincount((drawn + n * np.arange(some)[:, None]).ravel(), minlength=some * n).reshape(some, n)


def bootstrap(
    results: Results, *, per_class: Collection[str] = (), resamples: int = 10_000, seed: int = 0
) -> Bootstrap:
    """Means over keys and then over images, and the same over resamples of the images.

    Every column of the table speaks of the same images: those at which each method has a value. A method
    without any value for a metric does not count in this. Columns `name@τ` become the maximum over τ of the mean
    over images (one operating point for the data set, as MaxBoxAcc has it), `name@δ@τ` the mean over δ of these
    maxima (MaxBoxAccV2). A resample draws as many images as there are, with replacement, the same for all methods,
    so that differences between methods are paired.

    Args:
        results: what was measured.
        per_class: metrics that are averaged over each class's images first and then over classes; images are then
            resampled within their class.
        resamples: how many resamples s.
        seed: of the draws. The same images get the same draws, whatever the methods and metrics.

    Returns:
        `Bootstrap`.

    Raises:
        ValueError: there is no image, or `per_class` names an unknown metric.

    Example:
        >>> none = np.zeros((1, 1, 3), bool)
        >>> values = np.float32([0, 1, np.nan]).reshape(1, 1, 3, 1)
        >>> results = Results(("a", "b", "c"), ("cam",), ("hit",), values, none, none.astype(int),
        ...                   np.zeros(3, int), np.zeros(3, int), none[0, 0])
        >>> found = bootstrap(results, resamples=100)
        >>> found.means.tolist(), found.weights[:, 0].tolist(), np.unique(found.samples).tolist()
        ([[0.5]], [0.5, 0.5, 0.0], [0.0, 0.5, 1.0])

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; Choe et al., Evaluating Weakly
        Supervised Object Localization Methods Right (CVPR 2020), section 4.1.
    """
    if not results.names:
        raise ValueError("there is no image in the results")
    columns = _columns(results.metrics)
    for name in per_class:
        if name not in columns:
            raise ValueError(f"metric '{name}' is not in the results; choose from {', '.join(map(repr, columns))}")
    values = over_keys(results.values)
    m, n = values.shape[:2]
    absent = np.isnan(values).all(1, keepdims=True)
    used = ~(np.isnan(values) & ~absent).any(0) & ~absent.all(0)
    weights = np.zeros((n, len(columns)))
    means = np.full((m, len(columns)), np.nan)
    samples = np.full((resamples, m, len(columns)), np.nan)
    # Metrics of the same images share their resamples: they are drawn once.
    shared: dict[tuple[bytes, bool], list[int]] = {}
    for k, (name, demands) in enumerate(columns.items()):
        mask = used[:, np.concatenate(demands)].all(1)
        weights[mask, k] = 1
        shared.setdefault((mask.tobytes(), name in per_class), []).append(k)
    every = list(columns.values())
    for (_, classes), ks in shared.items():
        mask = weights[:, ks[0]] > 0
        if not mask.any():
            continue
        groups = results.labels if classes else np.zeros(n, int)
        share = _weights(mask, groups)
        weights[:, ks] = share[:, None]
        # [n, m, columns]: images first, so that a resample is one product of matrices.
        there = values[:, mask].transpose(1, 0, 2)
        weighted = (share[mask, None, None] * there).reshape(mask.sum(), -1)
        mean = weighted.sum(0).reshape(m, -1)
        means[:, ks] = np.stack([_of_data_set(mean, every[k]) for k in ks], -1)
        if np.unique(groups[mask], return_counts=True)[1].min() < 2:
            continue
        begin = 0
        for counts in _counts(groups[mask], resamples, seed):
            resampled = (counts.astype(np.float64) @ weighted).reshape(len(counts), m, -1)
            samples[begin : begin + len(counts)][..., ks] = np.stack(
                [_of_data_set(resampled, every[k]) for k in ks], -1
            )
            begin += len(counts)
    return Bootstrap(tuple(columns), weights, means, samples)


def _estimates(values: Float[np.ndarray, "m k"], samples: Float[np.ndarray, "s m k"]) -> Estimates:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Estimates(values, low, high)


def intervals(found: Bootstrap) -> Estimates:
    """The means with their 95 % percentile intervals.

    An interval is from the 2.5 % to the 97.5 % quantile of the means over resamples. Where all images have the same
    value it has no width, and with few images it is somewhat too narrow: read it beside n.

    Args:
        found: means and resamples, of `bootstrap`.

    Returns:
        `Estimates` of the means.

    Example:
        >>> samples = np.arange(41.0)[:, None, None]
        >>> found = Bootstrap(("hit",), np.ones((1, 1)), np.array([[20.0]]), samples)
        >>> [round(part.item(), 3) for part in intervals(found)]
        [20.0, 1.0, 39.0]
    """
    return _estimates(found.means, found.samples)


def differences(found: Bootstrap, reference: Int[np.ndarray, " k"]) -> Estimates:
    """Paired differences of each method to a reference method, with their 95 % percentile intervals.

    Both methods are resampled together, so what makes an image easy or hard for both cancels: the interval is
    narrower than two separate ones suggest.

    Args:
        found: means and resamples, of `bootstrap`.
        reference: for every metric the position of the method that the others are compared with.

    Returns:
        `Estimates` of method − reference; 0 without width for the reference itself.

    Example:
        >>> values = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
        >>> found = Bootstrap(("hit",), np.ones((1, 1)), values.mean(0), values)
        >>> [part.ravel().tolist() for part in differences(found, np.array([0]))]
        [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    index = reference[None]
    return _estimates(
        found.means - np.take_along_axis(found.means, index, 0),
        found.samples - np.take_along_axis(found.samples, index[None], 1),
    )


def key_spread(results: Results, found: Bootstrap) -> Float[np.ndarray, "m k"]:
    """How much the data set's values depend on the noise key: their standard deviation over keys.

    Args:
        results: what was measured, with r keys.
        found: their means, of `bootstrap`.

    Returns:
        The standard deviations (divisor r − 1) [m, k]: 0 where all keys give the same, NaN where a method has
        values for one key only.

    Example:
        >>> none = np.zeros((2, 1, 1), bool)
        >>> results = Results(("a",), ("ss-cam",), ("hit",), np.float32([1, 3]).reshape(2, 1, 1, 1), none,
        ...                   none.astype(int), np.zeros(1, int), np.zeros(1, int), none[0, 0])
        >>> key_spread(results, bootstrap(results, resamples=10)).round(3).tolist()
        [[1.414]]
    """
    keys = len(results.values)
    if keys < 2:
        return np.full(found.means.shape, np.nan)
    spread = []
    for weights, demands in zip(found.weights.T, _columns(results.metrics).values(), strict=True):
        used = weights > 0
        means = np.einsum("n,rmnc->rmc", weights[used], results.values[:, :, used].astype(np.float64))
        spread.append(_of_data_set(means, demands).std(0, ddof=1))
    return np.stack(spread, -1)
