"""Intervals and tests: against SciPy and formulas by hand, and how often they hold on simulated data sets."""

import numpy as np
import pytest
from scipy import stats

from sscam_jax.evaluation import intervals, statistics
from sscam_jax.evaluation.intervals import Values
from sscam_jax.metrics import METRICS
from tests.evaluation.test_statistics import results

KINDS = {"drop": Values(), "deletion": Values(), **METRICS}


def found_of(values: np.ndarray, name: str = "drop", **options) -> statistics.Sample:
    """Methods' values [m, n] of one metric."""
    per_class = [name] if "labels" in options else []
    return statistics.sample(results(values[None, ..., None], [name], **options), per_class=per_class)


def test_symmetric_values_have_students_interval():
    values = np.arange(24.0)[None]
    low, high = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    estimates = intervals.intervals(found_of(values), KINDS)
    assert (estimates.low.item(), estimates.high.item()) == pytest.approx((low, high))


def test_skewed_values_have_a_wider_one():
    values = np.random.default_rng(0).exponential(1, (1, 30))
    estimates = intervals.intervals(found_of(values), KINDS)
    skew = stats.skew(np.float32(values)[0].astype(float))
    half = stats.t.ppf(0.975, 29) * values.std(ddof=1) / 30**0.5 * (1 + 2.5 * skew**2 / 30)
    assert estimates.high.item() - estimates.values.item() == pytest.approx(half, rel=1e-5)


def test_hits_have_agresti_and_coulls_interval():
    """18 of 20: p̃ = 20 / 24."""
    values = np.where(np.arange(20) < 18, 100.0, 0.0)[None]
    estimates = intervals.intervals(found_of(values, "pointing"), KINDS)
    half = 1.959964 * (20 / 24 * 4 / 24 / 24) ** 0.5
    assert estimates.low.item() == pytest.approx(100 * (20 / 24 - half), rel=1e-5)
    assert estimates.high.item() == pytest.approx(100 * (20 / 24 + half), rel=1e-5)
    sure = intervals.intervals(found_of(np.full((1, 20), 100.0), "pointing"), KINDS)
    assert sure.values.item() == sure.high.item() == 100 and 75 < sure.low.item() < 90


def test_a_difference_of_hits_has_bonett_and_prices_interval():
    """Of 20 images 5 are won and 1 lost: (6 − 2) / 22."""
    first, second = np.zeros((2, 20))
    second[:5] = first[5] = 100
    difference = intervals.differences(found_of(np.stack([first, second]), "pointing"), KINDS, np.array([0])).estimates
    centre = (6 - 2) / 22
    half = 1.959964 * ((6 / 22 + 2 / 22 - centre**2) / 22) ** 0.5
    assert difference.values[1].item() == pytest.approx(20)
    assert (difference.low[1].item(), difference.high[1].item()) == pytest.approx(
        (100 * (centre - half), 100 * (centre + half)), rel=1e-5
    )


def test_examples_of_one_photograph_count_once():
    """Every photograph twice, with the same value: the interval of the photographs alone."""
    values = np.arange(24.0)[None]
    alone = intervals.intervals(found_of(values), KINDS)
    twice = statistics.sample(
        results(np.repeat(values, 2, 1)[None, ..., None], ["drop"])._replace(
            names=tuple(f"{i // 2}:{i % 2}" for i in range(48))
        )
    )
    together = intervals.intervals(twice, KINDS)
    assert together.low.item() == pytest.approx(alone.low.item()) and together.high.item() == pytest.approx(
        alone.high.item()
    )


def test_a_mean_over_classes_has_each_classs_variance():
    """Variance (s₁² / 8 + s₂² / 16) / 4, 22 degrees of freedom; symmetric, so not widened."""
    values, labels = np.concatenate([np.linspace(0, 7, 8), np.linspace(10, 40, 16)]), np.repeat([3, 5], [8, 16])
    estimates = intervals.intervals(found_of(values[None], labels=labels), KINDS)
    error = ((values[:8].var(ddof=1) / 8 + values[8:].var(ddof=1) / 16) / 4) ** 0.5
    assert estimates.values.item() == pytest.approx((3.5 + 25) / 2)
    assert estimates.high.item() - estimates.values.item() == pytest.approx(stats.t.ppf(0.975, 22) * error, rel=1e-5)


@pytest.mark.parametrize(
    "name, n, there", [("drop", 11, False), ("drop", 12, True), ("average-gain", 39, False), ("average-gain", 40, True),
                       ("energy-over-area", 19, False), ("energy-over-area", 20, True), ("infidelity", 19, False),
                       ("infidelity", 20, True), ("max-sensitivity", 19, False), ("max-sensitivity", 20, True),
                       ("pointing", 12, True), ("road-morf", 199, False), ("road-morf", 200, True)],
)  # fmt: skip
def test_too_few_images_have_no_interval(name, n, there):
    values = np.random.default_rng(0).random((1, n))
    assert np.isfinite(intervals.intervals(found_of(values, name), KINDS).low.item()) == there


@pytest.mark.parametrize("hits", [False, True])
def test_values_that_are_nearly_all_zero_have_no_interval(hits):
    """A gain that five of 60 images have: the sixth could be any. Hits have their own rule."""
    values = np.zeros((2, 60))
    values[0, :5] = values[1, :6] = 100
    estimates = intervals.intervals(found_of(values, "average-increase" if hits else "average-gain"), KINDS)
    assert np.isfinite(estimates.low[:, 0]).tolist() == np.isfinite(estimates.high[:, 0]).tolist() == [hits, True]


def test_differences_that_are_nearly_all_zero_keep_theirs():
    """Five of 60 images differ a little: the two methods are alike, by the test."""
    values = np.stack([np.full(60, 50.0), np.where(np.arange(60) < 5, 50.1, 50.0)])
    difference = intervals.differences(found_of(values), KINDS, np.array([0]))
    assert np.isfinite(difference.estimates.low[1, 0]) and difference.p_apart[1, 0] < 1e-6


def test_the_examples_of_one_photograph_are_one_that_is_not_zero():
    values = np.zeros((1, 1, 60, 1))
    values[..., :6, :] = 1
    names = tuple(f"{i // 2}:{i % 2}" for i in range(60))
    found = statistics.sample(results(values, ["drop"])._replace(names=names))
    assert np.isnan(intervals.intervals(found, KINDS).low.item())


def test_fewer_than_three_images_per_class_have_no_interval():
    values = np.random.default_rng(0).random((1, 30))
    for classes, there in ((10, True), (11, False)):
        estimates = intervals.intervals(found_of(values, labels=np.arange(30) % classes), KINDS)
        assert np.isfinite(estimates.low.item()) == there


def test_equal_values_have_no_interval():
    assert np.isnan(intervals.intervals(found_of(np.full((1, 20), 7.0)), KINDS).low.item())


def test_differences_are_paired_and_rounding_is_none():
    rng = np.random.default_rng(0)
    image = rng.normal(50, 20, 100)
    found = found_of(np.stack([image, image + 1 + rng.normal(0, 1, 100), image * (1 + 1e-6)]))
    difference = intervals.differences(found, KINDS, np.array([0]))
    assert 0 < difference.estimates.low[1, 0] < 1 < difference.estimates.high[1, 0] < 2
    assert difference.p[1, 0] < 1e-6 and np.isnan(difference.p[[0, 2], 0]).all()


def test_p_values_agree_with_the_interval():
    rng = np.random.default_rng(0)
    values = np.stack([np.zeros(30), *(rng.gamma(1, 1, (200, 30)) - 0.6)])
    difference = intervals.differences(found_of(values), KINDS, np.array([0]))
    apart = (difference.estimates.low > 0) | (difference.estimates.high < 0)
    np.testing.assert_array_equal(apart[1:], difference.p[1:] < 0.05)
    assert 0.1 < apart.mean() < 0.9


def test_holm_and_benjamini_hochberg_by_hand():
    p = np.array([0.01, 0.02, 0.03, np.nan, 0.9])
    np.testing.assert_allclose(intervals.holm(p), [0.04, 0.06, 0.06, np.nan, 0.9])
    assert intervals.discoveries(p).tolist() == [True, True, True, False, False]
    assert not intervals.discoveries(np.full(3, np.nan)).any()


DRAWN = {
    "drop": lambda rng, shape: 100 * rng.beta(0.4, 0.6, shape),
    "energy": lambda rng, shape: 100 * rng.beta(3, 2, shape),
    "deletion": lambda rng, shape: rng.beta(0.7, 8, shape),
    "pointing": lambda rng, shape: 100.0 * (rng.random(shape) < 0.8),
}


@pytest.mark.parametrize("n", [12, 40])
@pytest.mark.parametrize("name", DRAWN)
def test_intervals_hold_what_they_promise(name, n):
    """2000 data sets as 2000 methods: at least 92 % of the intervals hold the mean, and not all of them."""
    truth = DRAWN[name](np.random.default_rng(1), 1_000_000).mean()
    estimates = intervals.intervals(found_of(DRAWN[name](np.random.default_rng(0), (2000, n)), name), KINDS)
    held = np.mean((estimates.low <= truth) & (truth <= estimates.high))
    assert 0.92 <= held <= 0.985
