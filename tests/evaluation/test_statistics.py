"""Means, intervals and differences, against values worked out by hand, plain loops and simulated data sets."""

import time

import numpy as np
import pytest

from sscam_jax.evaluation import statistics
from sscam_jax.evaluation.statistics import Results

NAN = float("nan")


def results(values, metrics=None, labels=None) -> Results:
    """Results with the given values [r, m, n, columns] and nothing remarkable else."""
    values = np.asarray(values, np.float32)
    r, m, n, columns = values.shape
    labels = np.zeros(n, int) if labels is None else np.asarray(labels)
    return Results(
        names=tuple(f"image{i}" for i in range(n)),
        methods=tuple(f"method{j}" for j in range(m)),
        metrics=tuple(metrics or [f"metric{k}" for k in range(columns)]),
        values=values,
        flat=np.zeros((r, m, n), bool),
        passes=np.ones((r, m, n), int),
        labels=labels,
        predicted=labels,
        single=np.ones(n, bool),
    )


def random_values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


def test_means_go_over_keys_then_images():
    """A method without noise has one key; its images count no less for that."""
    found = statistics.bootstrap(
        results([[[[1], [2]], [[10], [20]]], [[[3], [6]], [[NAN], [NAN]]]]),
        resamples=10,
    )
    assert found.means.tolist() == [[3.0], [15.0]]


def test_images_without_a_value_for_a_method_are_left_out_for_all():
    found = statistics.bootstrap(results([[[[1, 1], [2, 2], [6, 6]], [[5, 4], [NAN, 4], [7, 4]]]]), resamples=50)
    assert found.means.tolist() == [[3.5, 3.0], [6.0, 4.0]]
    assert (found.weights > 0).sum(0).tolist() == [2, 3]
    np.testing.assert_allclose(found.weights.sum(0), 1)
    assert set(found.samples[:, 1, 0]) == {5.0, 6.0, 7.0}, "the left-out image is never drawn"


def test_a_method_without_any_value_spoils_nothing():
    found = statistics.bootstrap(results([[[[1], [3]], [[NAN], [NAN]]]]), resamples=20)
    assert found.means[0, 0] == 2 and np.isnan(found.means[1, 0])
    estimates = statistics.intervals(found)
    assert np.isfinite(estimates.low[0, 0]) and np.isnan(estimates.low[1, 0]) and np.isnan(estimates.high[1, 0])


def test_a_metric_without_any_value_is_nan():
    found = statistics.bootstrap(results([[[[1, NAN], [3, NAN]]]]), resamples=20)
    assert np.isnan(found.means[0, 1]) and np.isnan(found.samples[..., 1]).all() and not found.weights[:, 1].any()


def test_one_image_has_no_interval():
    estimates = statistics.intervals(statistics.bootstrap(results([[[[4]]]]), resamples=20))
    assert estimates.values.item() == 4 and np.isnan(estimates.low.item()) and np.isnan(estimates.high.item())


def test_operating_points_become_one_value():
    """max over τ of the means, not the mean of the maxima: 0.5 and 0.5 here, where each image alone reaches 1."""
    hits = [[[[1, 0, 1], [0, 1, 1]]]]
    found = statistics.bootstrap(results(hits, ["acc@0.20", "acc@0.30", "drop"]), resamples=200)
    assert found.metrics == ("acc", "drop")
    assert found.means.tolist() == [[0.5, 1.0]]
    assert set(found.samples[:, 0, 0]) == {0.5, 1.0}, "a resample chooses its own operating point"


def test_demands_are_averaged_after_their_maxima():
    values = [[[[1, 3, 10, 2], [3, 3, 20, 2]]]]
    names = ["v2@0.30@0.1", "v2@0.30@0.2", "v2@0.50@0.1", "v2@0.50@0.2"]
    assert statistics.bootstrap(results(values, names), resamples=10).means.tolist() == [[(3 + 15) / 2]]


def test_mean_per_class():
    """Class 7 has three images, class 2 two: (mean(1, 2, 3) + mean(10, 20)) / 2."""
    values = [[[[1, 1], [10, 10], [2, 2], [20, 20], [3, 3]]]]
    found = statistics.bootstrap(
        results(values, ["hit", "drop"], labels=[7, 2, 7, 2, 7]), per_class=["hit"], resamples=3000
    )
    assert found.means[0].tolist() == pytest.approx([8.5, 7.2])
    hit = found.samples[:, 0, 0]
    assert hit.min() == pytest.approx((1 + 10) / 2) and hit.max() == pytest.approx((3 + 20) / 2)
    assert hit.var() == pytest.approx((2 / 3 / 3 + 25 / 2) / 4, rel=0.1), "variance of the mean of the two means"


def test_a_class_of_one_image_leaves_no_interval():
    found = statistics.bootstrap(results([[[[1], [2], [3]]]], ["hit"], [0, 0, 1]), per_class=["hit"], resamples=10)
    assert found.means.item() == 2.25 and np.isnan(found.samples).all()


def test_the_interval_is_the_quantiles_of_means_of_resamples():
    """A plain loop over resamples gives the same interval, but for the random numbers."""
    values = random_values(1, 1, 60, 1) ** 2
    found = statistics.intervals(statistics.bootstrap(results(values)))
    rng = np.random.default_rng(1)
    means = sorted(rng.choice(values.ravel(), 60).mean() for _ in range(4000))
    assert found.low.item() == pytest.approx(means[100], abs=0.006)
    assert found.high.item() == pytest.approx(means[3900], abs=0.006)


def test_the_interval_covers_the_truth():
    """Of 400 simulated data sets of 50 images, about 95 % of the intervals hold the true mean."""
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(400):
        values = rng.gamma(4.0, 0.25, (1, 1, 50, 1))
        found = statistics.intervals(statistics.bootstrap(results(values), resamples=400, seed=seed))
        covered.append(found.low.item() <= 1 <= found.high.item())
    assert 0.91 <= np.mean(covered) <= 0.98


def test_paired_differences_are_narrower_where_images_agree():
    rng = np.random.default_rng(0)
    image = rng.normal(50, 20, 100)
    values = np.stack([image, image + 1 + rng.normal(0, 1, 100)])[None, ..., None]
    found = statistics.bootstrap(results(values), resamples=2000)
    difference = statistics.differences(found, np.array([0]))
    mean = statistics.intervals(found)
    unpaired = np.hypot(*(mean.high - mean.low)[:, 0])
    paired = (difference.high - difference.low)[1, 0]
    assert paired < unpaired / 10
    assert 0 < difference.low[1, 0] < 1 < difference.high[1, 0] < 2
    assert (difference.values[0, 0], difference.low[0, 0], difference.high[0, 0]) == (0, 0, 0)


def test_differences_take_their_own_reference_for_each_metric():
    found = statistics.bootstrap(results([[[[1, 10], [1, 10]], [[4, 70], [4, 70]]]]), resamples=10)
    difference = statistics.differences(found, np.array([0, 1]))
    assert difference.values.tolist() == [[0, -60], [3, 0]]
    assert difference.low.tolist() == difference.high.tolist() == [[0, -60], [3, 0]]


def test_draws_depend_on_the_seed_and_the_images_alone():
    values = random_values(1, 3, 40, 2)
    every = statistics.bootstrap(results(values), resamples=100)
    alone = statistics.bootstrap(results(values[:, 1:2, :, 1:]), resamples=100)
    np.testing.assert_allclose(every.samples[:, 1, 1], alone.samples[:, 0, 0], rtol=1e-12)
    other = statistics.bootstrap(results(values), resamples=100, seed=1)
    assert not np.allclose(every.samples, other.samples, rtol=1e-6)
    again = statistics.bootstrap(results(values), resamples=100)
    np.testing.assert_array_equal(every.samples, again.samples)


def test_spread_over_keys():
    """Means over images 2 and 5 for the keys: their standard deviation is √4.5. The other method has one key."""
    found = results([[[[1], [3]], [[1], [2]]], [[[4], [6]], [[NAN], [NAN]]]])
    spread = statistics.key_spread(found, statistics.bootstrap(found, resamples=10))
    assert spread[0, 0] == pytest.approx(4.5**0.5) and np.isnan(spread[1, 0])
    one = found._replace(values=found.values[:1])
    assert np.isnan(statistics.key_spread(one, statistics.bootstrap(one, resamples=10))).all()


def test_subset():
    found = results(random_values(2, 3, 4, 5), labels=[5, 6, 7, 8])
    part = statistics.subset(found, np.array([False, True, False, True]))
    assert part.names == ("image1", "image3") and part.labels.tolist() == [6, 8]
    np.testing.assert_array_equal(part.values, found.values[:, :, 1::2])
    assert part.flat.shape == part.passes.shape == (2, 3, 2) and part.single.shape == part.predicted.shape == (2,)


def test_refuses():
    found = results(random_values(1, 1, 2, 2), ["acc@0.20", "acc@0.30"])
    with pytest.raises(ValueError, match="there is no image in the results"):
        statistics.bootstrap(statistics.subset(found, np.zeros(2, bool)))
    with pytest.raises(ValueError, match="metric 'hit' is not in the results; choose from 'acc'"):
        statistics.bootstrap(found, per_class=["hit"])


def test_a_large_evaluation_takes_seconds():
    """2000 images, 12 methods and 40 columns: resampled in a few products of matrices, not in a Python loop."""
    values = random_values(1, 12, 2000, 40)
    began = time.process_time()
    statistics.bootstrap(results(values), resamples=1000)
    assert time.process_time() - began < 3
