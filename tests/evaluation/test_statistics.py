"""Means over keys, images and classes, against values worked out by hand."""

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
    found = statistics.sample(results([[[[1], [2]], [[10], [20]]], [[[3], [6]], [[NAN], [NAN]]]]))
    assert found.means.tolist() == [[3.0], [15.0]]


def test_images_without_a_value_for_a_method_are_left_out_for_all():
    found = statistics.sample(results([[[[1, 1], [2, 2], [6, 6]], [[5, 4], [NAN, 4], [7, 4]]]]))
    assert found.means.tolist() == [[3.5, 3.0], [6.0, 4.0]]
    assert (found.weights > 0).sum(0).tolist() == [2, 3]
    np.testing.assert_allclose(found.weights.sum(0), 1)


def test_a_method_without_any_value_spoils_nothing():
    found = statistics.sample(results([[[[1], [3]], [[NAN], [NAN]]]]))
    assert found.means[0, 0] == 2 and np.isnan(found.means[1, 0])


def test_a_metric_without_any_value_is_nan():
    found = statistics.sample(results([[[[1, NAN], [3, NAN]]]]))
    assert np.isnan(found.means[0, 1]) and not found.weights[:, 1].any()


def test_operating_points_become_one_value():
    """max over τ of the means, not the mean of the maxima: 0.5 and 0.5 here, where each image alone reaches 1."""
    hits = [[[[1, 0, 1], [0, 1, 1]]]]
    found = statistics.sample(results(hits, ["acc@0.20", "acc@0.30", "drop"]))
    assert found.metrics == ("acc", "drop")
    assert found.means.tolist() == [[0.5, 1.0]]
    assert found.values[0, :, 0].tolist() == [1, 0], "of the first of two points as good"


def test_demands_are_averaged_after_their_maxima():
    values = [[[[1, 3, 10, 2], [3, 3, 20, 2]]]]
    names = ["v2@0.30@0.1", "v2@0.30@0.2", "v2@0.50@0.1", "v2@0.50@0.2"]
    assert statistics.sample(results(values, names)).means.tolist() == [[(3 + 15) / 2]]


def test_mean_per_class():
    """Class 7 has three images, class 2 two: (mean(1, 2, 3) + mean(10, 20)) / 2."""
    values = [[[[1, 1], [10, 10], [2, 2], [20, 20], [3, 3]]]]
    found = statistics.sample(results(values, ["hit", "drop"], labels=[7, 2, 7, 2, 7]), per_class=["hit"])
    assert found.means[0].tolist() == pytest.approx([8.5, 7.2])


def test_spread_over_keys():
    """Means over images 2 and 5 for the keys: their standard deviation is √4.5. The other method has one key."""
    found = results([[[[1], [3]], [[1], [2]]], [[[4], [6]], [[NAN], [NAN]]]])
    spread = statistics.key_spread(found, statistics.sample(found))
    assert spread[0, 0] == pytest.approx(4.5**0.5) and np.isnan(spread[1, 0])
    one = found._replace(values=found.values[:1])
    assert np.isnan(statistics.key_spread(one, statistics.sample(one))).all()


def test_subset():
    found = results(random_values(2, 3, 4, 5), labels=[5, 6, 7, 8])
    part = statistics.subset(found, np.array([False, True, False, True]))
    assert part.names == ("image1", "image3") and part.labels.tolist() == [6, 8]
    np.testing.assert_array_equal(part.values, found.values[:, :, 1::2])
    assert part.flat.shape == part.passes.shape == (2, 3, 2) and part.single.shape == part.predicted.shape == (2,)


def test_refuses():
    found = results(random_values(1, 1, 2, 2), ["acc@0.20", "acc@0.30"])
    with pytest.raises(
        ValueError, match="there is no image in the results, expected at least one: see the table's list"
    ):
        statistics.sample(statistics.subset(found, np.zeros(2, bool)))
    with pytest.raises(ValueError, match="metric 'hit' is not in the results; choose from 'acc'"):
        statistics.sample(found, per_class=["hit"])


def test_examples_of_one_photograph_are_told_by_their_names():
    found = results(random_values(1, 1, 4, 1))._replace(names=("000012:car", "000012:dog", "000013:car", "a"))
    assert statistics.sample(found).photographs.tolist() == [0, 0, 1, 2]
