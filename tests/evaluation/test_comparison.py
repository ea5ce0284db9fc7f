"""Methods compared: the best, what can't be told from it, controls, and images that are left out."""

import numpy as np
import pytest

from sscam_jax.evaluation import comparison
from sscam_jax.evaluation.statistics import Results
from tests.evaluation.test_statistics import NAN, random_values, results


class Spec:
    def __init__(self, title: str, *, unit: str = "%", better: str = "higher", needs_boxes: bool = False):
        self.title, self.unit, self.better, self.needs_boxes = title, unit, better, needs_boxes
        self.hits, self.fewest = False, 12


SPECS = {
    "drop": Spec("Average Drop", better="lower"),
    "energy": Spec("Energy", needs_boxes=True),
    "acc": Spec("MaxBoxAcc", needs_boxes=True),
    "road": Spec("ROAD", unit=""),
}


def measured(values, metrics: list[str], methods: list[str], **others) -> Results:
    return results(values, metrics)._replace(methods=tuple(methods), **others)


def clear_cut() -> Results:
    """Twenty images; drop: b best, uniform better still; energy: a best, c close to it in the mean, not certain."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (1, 1, 20, 2)) + rng.normal(0, 0.1, (1, 4, 20, 2))
    values = noise + np.array([[30.0, 80.0], [10.0, 60.0], [29.0, 79.5], [2.0, 40.0]])[None, :, None]
    values[:, 2, :, 1] += np.tile([5, -5], 10)
    return measured(values, ["drop", "energy"], ["a", "b", "c:sigma=1", "uniform"])


def test_the_best_follows_the_direction_and_is_no_control():
    [section] = comparison.compare(clear_cut(), SPECS, baseline="a").sections
    assert section.best.tolist() == [1, 0]
    assert section.winner.tolist() == [3, -1]
    assert section.clear.tolist() == [[False, False], [True, True], [True, False], [True, True]]
    assert section.comparisons == 6
    np.testing.assert_allclose(section.to_baseline.values[:, 0], [0, -20, -1, -28], atol=0.1)


def test_a_control_as_good_as_the_best_wins():
    values = np.full((1, 3, 4, 1), 7.0)
    [section] = comparison.compare(measured(values, ["drop"], ["a", "b", "fake-cam"]), SPECS, baseline="a").sections
    assert section.best.tolist() == [0] and section.winner.tolist() == [2]


def test_controls_alone_have_no_best():
    values = random_values(1, 2, 4, 1)
    [section] = comparison.compare(measured(values, ["drop"], ["random", "uniform"]), SPECS, baseline="random").sections
    assert section.best.tolist() == section.winner.tolist() == [-1]
    assert not section.alike.any()


def test_the_best_is_found_beside_methods_without_a_value():
    values = [[[[NAN], [NAN]], [[3], [5]], [[1], [2]]]]
    [section] = comparison.compare(measured(values, ["drop"], ["a", "b", "c"]), SPECS, baseline="b").sections
    assert section.best.tolist() == [2]


def test_with_one_image_nothing_is_marked():
    [section] = comparison.compare(measured([[[[1]], [[9]]]], ["drop"], ["a", "b"]), SPECS, baseline="a").sections
    assert (
        section.best.tolist() == [0]
        and not section.alike.any()
        and not section.clear.any()
        and section.comparisons == 0
    )


def test_alike_is_tested_and_nan_is_not_alike():
    """Within a point of the baseline: surely, perhaps (a wide interval around 0), and without any value."""
    image = np.random.default_rng(0).normal(50, 5, 60)
    wide = 20.0 * np.tile([1, -1], 30)
    values = np.stack([image, image + 0.1 * np.tile([1, 0.5], 30), image + wide, np.full(60, NAN)])
    [section] = comparison.compare(
        measured(values[None, :, :, None], ["drop"], ["a", "b", "c", "d"]), SPECS, baseline="a"
    ).sections
    assert section.alike[:, 0].tolist() == [False, True, False, False]
    assert section.clear[:, 0].tolist() == [False, True, False, False], "a small difference can be certain"


def test_a_class_of_one_image_is_not_alike():
    """Too few images per class for a test: no mark."""
    found = measured(random_values(1, 2, 13, 1), ["energy"], ["a", "b"], labels=np.arange(13) // 2)
    [section] = comparison.compare(found, SPECS, baseline="a", per_class=["energy"]).sections
    assert section.comparisons == 0 and not section.alike.any() and np.isfinite(section.means.values).all()


def test_random_signs_give_few_marks():
    """Differences whose signs are drawn: 120 tables of 45 comparisons, of which intervals alone mark most."""
    rng = np.random.default_rng(0)
    marked = uncorrected = 0
    for _ in range(120):
        difference = rng.gamma(0.5, 10, (3, 40, 15)) * rng.choice([-1, 1], (40, 1))[None]
        values = np.concatenate([np.zeros((1, 40, 15)), difference * rng.choice([-1, 1], (3, 40, 15))])
        names = [f"m{k}" for k in range(15)]
        found = measured(values[None], names, list("abcd"))
        [section] = comparison.compare(found, {name: Spec(name) for name in names}, baseline="a").sections
        assert section.comparisons == 45
        marked += section.clear.any()
        uncorrected += (section.p < 0.05).any()
    assert marked <= 12 and uncorrected >= 70


def test_single_box_images_get_a_section_for_metrics_of_boxes():
    values = random_values(1, 2, 6, 4)
    single = np.array([True, False, True, True, False, True])
    found = comparison.compare(
        measured(values, ["drop", "acc@0.2", "acc@0.3", "energy"], ["a", "b"], single=single), SPECS, baseline="a"
    )
    every, part = found.sections
    assert list(every.metrics) == ["drop", "acc", "energy"] and every.images == 6
    assert list(part.metrics) == ["acc", "energy"] and part.images == 4
    np.testing.assert_allclose(part.means.values[:, 1], values[0][:, single, 3].mean(1), rtol=1e-6)
    np.testing.assert_allclose(part.means.values[:, 0], values[0][:, single, 1:3].mean(1).max(-1), rtol=1e-6)


@pytest.mark.parametrize("metrics, single", [(["drop"], [True, False]), (["energy"], [True, True])])
def test_no_section_that_says_nothing_new(metrics, single):
    found = measured(random_values(1, 1, 2, 1), metrics, ["a"], single=np.array(single))
    assert len(comparison.compare(found, SPECS, baseline="a").sections) == 1


def test_counts():
    """Flat maps are counted, whatever the key; of those, the ones with a value; images without one are left out."""
    values = random_values(2, 2, 4, 2)
    values[:, :, 3, 1] = NAN
    flat = np.zeros((2, 2, 4), bool)
    flat[0, 1, 0] = flat[1, 1, 0] = flat[1, 1, 2] = flat[:, 1, 3] = True
    passes = np.broadcast_to(np.array([[10], [513]]), (2, 2, 4))
    found = comparison.compare(
        measured(values, ["drop", "energy"], ["a", "b"], flat=flat, passes=passes), SPECS, baseline="a"
    )
    [section] = found.sections
    assert section.n.tolist() == [4, 3]
    assert section.flat_maps.tolist() == [0, 3] and section.flat.tolist() == [[0, 0], [3, 2]]
    assert section.passes.tolist() == [10, 513] and found.keys == 2


def test_accuracy_is_over_labelled_images():
    found = measured(random_values(1, 1, 4, 1), ["drop"], ["a"], labels=np.array([3, -1, 5, 6]))
    right = found._replace(predicted=np.array([3, 4, 9, 6]))
    assert comparison.compare(right, SPECS, baseline="a").accuracy == pytest.approx(200 / 3)
    unlabelled = found._replace(labels=np.full(4, -1))
    assert np.isnan(comparison.compare(unlabelled, SPECS, baseline="a").accuracy)


def test_per_class_reaches_the_statistics():
    """Of the metrics of the subset too, which lacks `drop`."""
    values = [[[[0, 1], [0, 1], [9, 4], [9, 4]]]]
    found = measured(
        values, ["drop", "energy"], ["a"], labels=np.array([1, 1, 1, 2]), single=np.array([True, True, False, True])
    )
    every, part = comparison.compare(found, SPECS, baseline="a", per_class=["drop", "energy"]).sections
    assert every.means.values[0].tolist() == pytest.approx([6, 3]) and part.means.values[0].tolist() == [2.5]


def test_refuses():
    found = measured(random_values(1, 2, 3, 1), ["drop"], ["a", "b"])
    with pytest.raises(ValueError, match="baseline 'c' is not among the methods; choose from 'a', 'b'"):
        comparison.compare(found, SPECS, baseline="c")
    with pytest.raises(ValueError, match="metric 'hit' is not known; choose from 'drop', 'energy', 'acc', 'road'"):
        comparison.compare(found._replace(metrics=("hit@0.5",)), SPECS, baseline="a")
    with pytest.raises(ValueError, match="metric 'hit' is not in the results; choose from 'drop'"):
        comparison.compare(found, SPECS, baseline="a", per_class=["hit"])
