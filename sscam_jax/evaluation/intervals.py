"""95 % intervals and tests for means over images, and for paired differences of them.

Two rules; `tests/bench/coverage.py` measures how often they hold the truth.

* A mean of values: Student's t, widened where the values are skewed. Of half-widths q · s / √n the interval takes
  (1 + 2.5 g² / n) times as much, where g is the skewness. The classic t interval covers too little there.
* A mean of hits (0 or 100): two images at 0 and two at 100 are added, then the normal interval (Agresti and Coull).
  A difference of hits gets one image at −100 and one at +100 (Bonett and Price).

Examples of one photograph count as one observation. A mean over classes takes each class's own variance.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats  # type: ignore[import-untyped]

from sscam_jax.evaluation.statistics import Sample

LEVEL = 0.95
"""How often an interval holds the true mean."""

_PER_CLASS = 3
# If fewer images than this have a value at all, the next one can change their mean by more than any interval says: of
# a gain that 7 % of the images have, intervals held the mean in .69 of the data sets of 40 images. Differences are
# another matter: where nearly all of them are 0, two methods are alike, and the test of that needs its interval.
_NOT_ZERO = 6
# Chosen by `tests/bench/coverage.py`; 0 is the classic interval, too narrow for skewed values.
_SKEW = 2.5
# Values are float32 and rounding depends on the batch: what differs by less than this is equal.
_ROUNDING = 1e-4


@runtime_checkable
class Kind(Protocol):
    """Which rule a metric's values follow; a `Metric` is one.

    Attributes:
        hits: its values are 0 or 100.
        fewest: the fewest images at which the interval was measured to hold.
    """

    @property
    def hits(self) -> bool: ...

    @property
    def fewest(self) -> int: ...


class Values(NamedTuple):
    """The kind of a metric of values."""

    hits: bool = False
    fewest: int = 12


class Estimates(NamedTuple):
    """Values with the ends of their intervals. The ends are NaN where there is no interval.

    Attributes:
        values: of every method and metric.
        low: the intervals' lower ends.
        high: the intervals' upper ends.
    """

    values: Float[np.ndarray, "m k"]
    low: Float[np.ndarray, "m k"]
    high: Float[np.ndarray, "m k"]


class Differences(NamedTuple):
    """Paired differences with their intervals and tests. NaN where there is no interval.

    Attributes:
        estimates: the differences.
        p: p-values of the hypothesis that a difference is 0.
        p_apart: p-values of the hypothesis that a difference is at least the margin (two one-sided tests).
    """

    estimates: Estimates
    p: Float[np.ndarray, "m k"]
    p_apart: Float[np.ndarray, "m k"]


class _Spread(NamedTuple):
    """Where an interval has its centre, its standard error and degrees of freedom; one per method."""

    centre: Float[np.ndarray, " m"]
    error: Float[np.ndarray, " m"]
    freedom: float

    def interval(self, level: float) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        half = stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        return self.centre - half, self.centre + half


def _none(m: int) -> _Spread:
    return _Spread(np.full(m, np.nan), np.full(m, np.nan), 1.0)


def _residuals(
    values: Float[np.ndarray, "m n"], weights: Float[np.ndarray, " n"], classes: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "m n"], Float[np.ndarray, " m"]]:
    """What each image adds to the mean's error, and the variance from classes of one image.

    The residuals of a class of n images are n / (n − 1) too small in their squares, hence the factor. A class of one
    image has no variance of its own: it takes that of the others.
    """
    sizes = np.bincount(classes)
    own = values - np.stack([np.bincount(classes, row) / sizes for row in values])[:, classes]
    pooled = (own**2).sum(1) / (len(classes) - len(sizes))
    alone = sizes[classes] == 1
    # 1.5 keeps 1 / 0 out of the branch that `alone` does not take.
    factor = np.where(alone, 0.0, weights / np.sqrt(1 - 1 / np.maximum(sizes[classes], 1.5)))
    return own * factor, pooled * (weights[alone] ** 2).sum()


def _spread(found: Sample, values: Float[np.ndarray, "m n"], k: int, fewest: int, ends: tuple[float, ...]) -> _Spread:
    """The spread of the means of metric k, or of differences of it."""
    m, used = len(values), found.weights[:, k] > 0
    if not used.any():
        return _none(m)
    weights, values = found.weights[used, k], values[:, used]
    classes = np.unique(found.classes[used, k], return_inverse=True)[1]
    photographs = np.unique(found.photographs[used], return_inverse=True)[1]
    n, count, groups = len(weights), photographs.max() + 1, classes.max() + 1
    if count < max(fewest, _PER_CLASS * groups if groups > 1 else 0):
        return _none(m)
    errors, more = _residuals(values, weights, classes)
    together = np.stack([np.bincount(photographs, row, minlength=count) for row in errors])
    # Photographs are the observations: their number replaces that of the examples in n / (n − 1).
    scale = (count / (count - 1)) / (n / (n - 1)) if groups == 1 else 1.0
    variance = scale * (together**2).sum(1) + more
    mean = values @ weights
    if ends:
        # Agresti and Coull divide by n, not by n − 1. Where classes differ in size, n is that of equal images which
        # would give this variance.
        return _with_ends(
            mean, variance * (count - 1) / count, 1 / (np.bincount(photographs, weights) ** 2).sum(), np.array(ends)
        )
    square = (together**2).sum(1)
    skew = (together**3).sum(1) / np.where(square > 0, square, 1.0) ** 1.5
    error = np.where(variance > 0, np.sqrt(variance) * (1 + _SKEW * skew**2), np.nan)
    return _Spread(mean, error, float(count - groups))  # the mean of every class takes a degree of freedom


def _not_zero(found: Sample, k: int) -> Int[np.ndarray, " m"]:
    """How many photographs have a value of metric k other than 0."""
    there = (found.values[..., k] != 0) & (found.weights[:, k] > 0)
    return np.array([len(np.unique(found.photographs[row])) for row in there])


def _with_ends(
    mean: Float[np.ndarray, " m"], variance: Float[np.ndarray, " m"], n: float, ends: Float[np.ndarray, " e"]
) -> _Spread:
    """The spread of hits, with images added at both ends."""
    total = n + len(ends)
    centre = (n * mean + ends.sum()) / total
    apart = n * (mean - centre) ** 2 + ((ends[:, None] - centre) ** 2).sum(0)
    return _Spread(centre, np.sqrt((n / total) ** 2 * variance + apart / total**2), np.inf)


def intervals(found: Sample, kinds: Mapping[str, Kind]) -> Estimates:
    """The means with their 95 % intervals.

    There is no interval where all images have the same value, and where there are fewer images than the rules were
    measured to hold for: `fewest` of the metric, six whose value is not 0 (hits may all be 0), and three per class in a
    mean over classes.

    Args:
        found: values and means, of `statistics.sample`.
        kinds: the kind of every metric, as `METRICS` has it.

    Returns:
        `Estimates` of the means.

    Example:
        >>> values, zero = np.arange(20.0).reshape(1, 20, 1), np.zeros((20, 1), int)
        >>> found = Sample(("drop",), values, np.full((20, 1), 0.05), np.array([[9.5]]), zero, np.arange(20))
        >>> [round(part.item(), 2) for part in intervals(found, {"drop": Values()})]
        [9.5, 6.73, 12.27]

    References:
        Johnson, Modified t Tests and Confidence Intervals for Asymmetrical Populations (JASA 1978); Agresti and
        Coull, Approximate Is Better than "Exact" (The American Statistician 1998); MacKinnon and White, Some
        Heteroskedasticity-Consistent Covariance Matrix Estimators (Journal of Econometrics 1985), HC2.
    """
    low, high = np.full_like(found.means, np.nan), np.full_like(found.means, np.nan)
    for k, name in enumerate(found.metrics):
        kind = kinds[name]
        ends = (0.0, 0.0, 100.0, 100.0) if kind.hits else ()
        low[:, k], high[:, k] = _spread(found, found.values[..., k], k, kind.fewest, ends).interval(LEVEL)
        if ends:  # the normal interval can leave what shares can be
            low[:, k], high[:, k] = np.clip(low[:, k], 0, 100), np.clip(high[:, k], 0, 100)
        else:
            low[_not_zero(found, k) < _NOT_ZERO, k] = np.nan
    absent = np.isnan(found.means) | np.isnan(low)
    return Estimates(found.means, np.where(absent, np.nan, low), np.where(absent, np.nan, high))


def differences(
    found: Sample,
    kinds: Mapping[str, Kind],
    reference: Int[np.ndarray, " k"],
    margins: Float[np.ndarray, " k"] | None = None,
) -> Differences:
    """Paired differences of each method to a reference method on the same images.

    What makes an image easy or hard for both methods cancels. So the interval is narrower than two separate ones
    suggest. Differences below float32's rounding count as 0.

    Args:
        found: values and means, of `statistics.sample`.
        kinds: the kind of every metric, as `METRICS` has it.
        reference: for every metric the position of the method that the others are compared with.
        margins: for every metric the difference (> 0) that would matter; None: 1.

    Returns:
        `Differences` of method − reference; without interval and tests for the reference itself.

    Example:
        >>> values = np.stack([np.zeros((20, 1)), np.arange(20.0)[:, None]])
        >>> zero = np.zeros((20, 1), int)
        >>> found = Sample(("drop",), values, np.full((20, 1), 0.05), np.array([[0.0], [9.5]]), zero, np.arange(20))
        >>> difference = differences(found, {"drop": Values()}, np.array([0]))
        >>> difference.estimates.values.tolist(), bool(difference.p[1, 0] < 0.001)
        ([[0.0], [9.5]], True)

    References:
        Bonett and Price, Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired
        Data (Journal of Educational and Behavioral Statistics 2012); Schuirmann, A Comparison of the Two One-Sided
        Tests Procedure and the Power Approach (Journal of Pharmacokinetics and Biopharmaceutics 1987).
    """
    values = found.means - np.take_along_axis(found.means, reference[None], 0)
    low, high, p, apart = (np.full_like(values, np.nan) for _ in range(4))
    for k, name in enumerate(found.metrics):
        other = found.values[reference[k], :, k]
        each = found.values[..., k] - other
        size = np.maximum(np.abs(found.values[..., k]), np.abs(other))
        each = np.where(np.abs(each) <= _ROUNDING * size, 0.0, each)
        margin = 1.0 if margins is None else margins[k]
        kind = kinds[name]
        spread = _spread(found, each, k, kind.fewest, (-100.0, 100.0) if kind.hits else ())
        low[:, k], high[:, k] = spread.interval(LEVEL)
        p[:, k] = 2 * stats.t.sf(np.abs(spread.centre) / spread.error, spread.freedom)
        # The larger of the two one-sided p-values is that of the nearer margin.
        apart[:, k] = stats.t.sf((margin - np.abs(spread.centre)) / spread.error, spread.freedom)
    # The reference minus itself is 0 without an error: there is nothing to test.
    itself = (np.arange(len(values))[:, None] == reference) | np.isnan(values)
    low, high, p, apart = (np.where(itself, np.nan, part) for part in (low, high, p, apart))
    return Differences(Estimates(values, low, high), p, apart)


def holm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """p-values corrected by Holm: the chance of any wrong claim among all of them. NaN stays and does not count.

    Args:
        p: p-values.

    Returns:
        Corrected ones, in the same order.

    Example:
        >>> holm(np.array([0.01, 0.04, np.nan, 0.03])).round(3).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    corrected, there = np.full(p.shape, np.nan), ~np.isnan(p)
    order = np.argsort(p[there])
    raised = np.maximum.accumulate(p[there][order] * np.arange(there.sum(), 0, -1))
    inverse = np.argsort(order)
    corrected[there] = np.minimum(raised, 1)[inverse]
    return corrected


def discoveries(p: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
    """Which hypotheses are rejected so that at most 5 % of the rejections are expected to be wrong.

    Args:
        p: p-values, NaN where there is no test.

    Returns:
        Whether Benjamini and Hochberg reject; False where there is no test.

    Example:
        >>> discoveries(np.array([0.001, 0.04, np.nan])).tolist()
        [True, True, False]

    References:
        Benjamini and Hochberg, Controlling the False Discovery Rate (Journal of the Royal Statistical Society B 1995).
    """
    found, there = np.zeros(p.shape, bool), ~np.isnan(p)
    if there.any():
        found[there] = stats.false_discovery_control(p[there]) <= 1 - LEVEL
    return found
