"""The metrics by name: what is listed, what is shared, what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from tests import toy

# In one process, which compiles everything once.
pytestmark = pytest.mark.xdist_group("metrics")

PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=2))
LABELS = jnp.array([2, 1], jnp.int32)
MAPS = jnp.asarray(np.random.default_rng(5).uniform(size=(3, *IMAGES.shape[:-1])), jnp.float32)
BOXES = jnp.array([[[0.0, 0.5, 0.5, 1.0], [-1.0] * 4], [[-1.0] * 4] * 2])
COLUMNS = {
    *(f"max-box-acc@{t / 100:.2f}" for t in range(100)),
    *(f"max-box-acc-v2@{iou:.2f}@{t / 100:.2f}" for iou in (0.3, 0.5, 0.7) for t in range(100)),
}


def case(**changes) -> metrics.Case:
    given = metrics.Case(
        apply=toy.MLP,
        params=PARAMS,
        images=IMAGES,
        labels=LABELS,
        boxes=BOXES,
        maps=MAPS,
        key=jax.random.key(0),
        ids=jnp.array([7, 8], jnp.int32),
        explain=lambda inputs: jnp.abs(inputs[..., 0]),
    )
    return dataclasses.replace(given, **changes)


@pytest.fixture(scope="module")
def measured():
    return metrics.measure(metrics.METRICS, case(chunk_size=4))


def test_every_metric_is_measured(measured):
    for column, values in measured.items():
        metric = metrics.METRICS[column.partition("@")[0]]
        assert values.shape == (3, 2), column
        assert jnp.isfinite(values[:, 0]).all(), column
        assert jnp.isnan(values[:, 1]).all() == metric.needs_boxes, column  # the second image has no box
    plain = set(metrics.METRICS) - {"max-box-acc", "max-box-acc-v2"}
    assert set(measured) == plain | COLUMNS


def test_what_is_listed():
    names = """
        average-drop average-increase average-gain average-drop-pixel average-increase-pixel average-gain-pixel
        average-drop-top50 average-increase-top50 average-gain-top50 average-drop-authors average-increase-authors
        insertion deletion road-morf road-lerf road energy energy-over-area pointing iou max-box-acc max-box-acc-v2
        complexity sparseness coherency adcc max-sensitivity infidelity
    """
    assert list(metrics.METRICS) and set(metrics.METRICS) == set(names.split())
    lower = {name for name, metric in metrics.METRICS.items() if metric.better == "lower"}
    assert lower == {
        *(name for name in metrics.METRICS if name.startswith("average-drop")),
        *("deletion", "road-morf", "complexity", "max-sensitivity", "infidelity"),
    }
    reruns = {name for name, metric in metrics.METRICS.items() if metric.reruns}
    assert reruns == {"coherency", "adcc", "max-sensitivity"}
    for metric in metrics.METRICS.values():
        assert metric.summary and metric.title and metric.family != "other"
    assert len({metric.title for metric in metrics.METRICS.values()}) == len(metrics.METRICS)


def test_names_are_the_functions(measured):
    given = toy.MLP, PARAMS, IMAGES, LABELS, MAPS
    authors = metrics.confidence(*given, protocol="authors")
    np.testing.assert_allclose(measured["average-drop-authors"], metrics.average_drop(authors), rtol=1e-4)
    pixel = metrics.confidence(*given, mask_space="pixel")
    np.testing.assert_allclose(measured["average-gain-pixel"], metrics.average_gain(pixel), rtol=1e-3)
    top = metrics.confidence(*given, keep="top50")
    np.testing.assert_allclose(measured["average-drop-top50"], metrics.average_drop(top), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(measured["insertion"], metrics.insertion(*given).auc, rtol=1e-4)
    drop = measured["average-drop"]
    explained = jnp.abs(IMAGES[None, ..., 0] * MAPS)
    np.testing.assert_allclose(measured["coherency"], metrics.coherency(MAPS, explained), rtol=1e-5)
    combined = metrics.adcc(measured["coherency"], measured["complexity"], drop)
    np.testing.assert_allclose(measured["adcc"], combined, rtol=1e-5)
    found = jnp.where(measured["iou"][:, 0] >= 0.3, 100.0, 0.0)
    over_thresholds = jnp.stack([measured[f"max-box-acc-v2@0.30@{t / 100:.2f}"][:, 0] for t in range(100)])
    np.testing.assert_array_equal(over_thresholds.max(0), found)


def test_the_mean_colour_of_other_networks():
    options = dict(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    found = metrics.measure(["average-drop-pixel"], case(**options))["average-drop-pixel"]
    wanted = metrics.confidence(toy.MLP, PARAMS, IMAGES, LABELS, MAPS, mask_space="pixel", **options)
    np.testing.assert_allclose(found, metrics.average_drop(wanted), rtol=1e-4)
    assert abs(found - metrics.measure(["average-drop-pixel"], case())["average-drop-pixel"]).max() > 1e-3


def test_the_pointing_games_tolerance_is_of_the_image():
    """15 of 224 pixels: half a pixel of 8."""
    maps = jnp.zeros((2, 2, 8, 8)).at[0, :, 4, 4].set(1.0).at[1, :, 4, 3].set(1.0)
    boxes = jnp.array([[[0.0, 5 / 8, 1.0, 1.0]]] * 2)
    found = metrics.measure(["pointing"], case(images=jnp.zeros((2, 8, 8, 3)), maps=maps, boxes=boxes))["pointing"]
    assert found.tolist() == [[100.0, 100.0], [0.0, 0.0]]


def test_what_is_shared_is_computed_once():
    passes, reruns = [], []

    def head(params, activations, carry):
        jax.debug.callback(lambda size: passes.append(int(size)), activations.shape[0])
        return toy.mlp_head(params, activations, carry)

    def explain(inputs):
        reruns.append(inputs.shape)
        return jnp.abs(inputs[..., 0])

    names = ["average-drop", "average-increase", "average-gain", "coherency", "adcc"]
    found = metrics.measure(names, case(apply=sscam.Apply(toy.features, head), explain=explain, chunk_size=4))
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert sum(passes) == 2 * (3 + 1)  # 3 maps of 2 images, and the images
    assert reruns == [(3, 2, 8, 10, 3)]


@functools.partial(jax.jit, static_argnames=("names", "apply"))
def traced(names, apply, params, images, labels, boxes, maps, key, ids):
    def explain(inputs):
        return jnp.abs(inputs[..., 0])

    return metrics.measure(names, metrics.Case(apply, params, images, labels, boxes, maps, key, ids, explain))


@pytest.mark.slow
def test_jit_gives_the_same(measured):
    names = tuple(metrics.METRICS)
    given = case()
    arrays = (given.params, given.images, given.labels, given.boxes, given.maps, given.key, given.ids)
    found = traced(names, toy.MLP, *arrays)
    for column, values in measured.items():
        np.testing.assert_allclose(found[column], values, rtol=1e-3, atol=1e-3, err_msg=column)


def test_images_do_not_mix(measured):
    """The first image's values, when the second is another, and when the two change places."""
    other = case(
        images=IMAGES.at[1].set(0.5),
        labels=LABELS.at[1].set(3),
        maps=MAPS.at[:, 1].set(0.1).at[:, 1, 2, 3].set(1.0),
        boxes=BOXES.at[1].set(BOXES[0, ::-1]),
        ids=jnp.array([7, 100], jnp.int32),
        chunk_size=4,
    )
    turned = {name: getattr(other, name)[::-1] for name in ("images", "labels", "boxes", "ids")}
    swapped = dataclasses.replace(other, **turned, maps=other.maps[:, ::-1])
    for given, first in ((other, 0), (swapped, 1)):
        for column, values in metrics.measure(metrics.METRICS, given).items():
            wanted = measured[column][:, 0]
            np.testing.assert_allclose(values[:, first], wanted, rtol=1e-3, atol=1e-3, err_msg=column)


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank):
    images = jnp.asarray(toy.images(rank))
    maps = jnp.asarray(np.random.default_rng(5).uniform(size=(3, *images.shape[:-1])), jnp.float32)
    names = ["average-drop", "complexity", "sparseness", "coherency", "adcc", "max-sensitivity"]
    found = metrics.measure(names, case(images=images, maps=maps))
    for name in names:
        assert found[name].shape == (3, 2) and jnp.isfinite(found[name]).all(), name
    np.testing.assert_allclose(found["complexity"], 100 * np.mean(maps, axis=tuple(range(2, 2 + rank))), rtol=1e-5)


def test_empty_maps_are_never_nan_and_score_nothing():
    found = metrics.measure(metrics.METRICS, case(maps=0 * MAPS, boxes=BOXES[:1].repeat(2, 0), chunk_size=4))
    for column, values in found.items():
        assert jnp.isfinite(values).all(), column
        if metrics.METRICS[column.partition("@")[0]].better == "higher":
            assert not values.any(), column


def test_unknown_names():
    with pytest.raises(ValueError, match="metric 'drop' is not known; choose from 'average-drop', 'average-increase'"):
        metrics.measure(["energy", "drop"], case())


def test_a_function_is_a_metric():
    """It may give one column or several, and must give one value per method and image."""

    def peaks(given):
        return {"@low": given.maps.min((-2, -1)), "@high": given.maps.max((-2, -1))}

    own = {"spread": metrics.Metric(lambda given: jnp.ptp(given.maps, (-2, -1)), "higher"),
           "peak": metrics.Metric(peaks, "higher")}  # fmt: skip
    found = metrics.measure(own, case())
    assert list(found) == ["spread", "peak@low", "peak@high"]
    np.testing.assert_allclose(found["spread"], np.ptp(MAPS, (-2, -1)), rtol=1e-6)
    np.testing.assert_allclose(found["peak@high"] - found["peak@low"], found["spread"], rtol=1e-6)
    flat = {"mean": metrics.Metric(lambda given: given.maps.mean(), "higher")}
    with pytest.raises(ValueError, match=r"metric 'mean' gave values of shape \(\), expected an array of \(3, 2\)"):
        metrics.measure(flat, case())
