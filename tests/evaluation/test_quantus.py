"""Quantus 0.6.0 with our networks, maps and methods; needs the extra `quantus`."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from sscam_jax.evaluation import quantus as adapter
from tests import toy
from tests.golden import metrics_quantus

PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=3, size=16))
LABELS = jnp.arange(3)
pytestmark = [pytest.mark.xdist_group("quantus"), pytest.mark.usefixtures("as_users_run_it")]


@pytest.fixture(scope="module")
def quantus():
    module = pytest.importorskip("quantus", reason="the extra quantus is not installed")
    assert module.__version__ == "0.6.0"
    return module


@pytest.fixture(scope="module")
def maps():
    return np.asarray(sscam.grad_cam(toy.MLP, PARAMS, IMAGES, LABELS).maps)


def measured(named, maps, boxes=None):
    boxes = np.full((len(maps), 1, 4), -1, np.float32) if boxes is None else boxes
    images = np.zeros((*maps.shape, 3), np.float32) if len(maps) != len(IMAGES) else IMAGES
    labels = np.zeros(len(maps), np.int32) if len(maps) != len(IMAGES) else LABELS
    case = metrics.Case(toy.MLP, PARAMS, images, labels, boxes, maps[None], None, np.arange(len(maps)), None)
    return {name: np.asarray(values)[0] for name, values in metrics.measure(named, case).items()}


def test_their_metrics_on_our_maps_are_our_metrics(quantus):
    """Sparseness, and mass and maximum in the object, agree where both packages define the same."""
    maps, boxes = metrics_quantus.maps().astype(np.float32), metrics_quantus.boxes()
    theirs = {
        "sparseness-q": adapter.metric(quantus.Sparseness),
        "mass": adapter.metric(quantus.RelevanceMassAccuracy, needs_boxes=True),
        "pointing-q": adapter.metric(quantus.PointingGame, needs_boxes=True),
    }
    found = measured(theirs | metrics.named(["sparseness", "energy"]), maps, boxes)
    # Quantus adds 1e-7 to every pixel, which shows where all but one are zero.
    np.testing.assert_allclose(found["sparseness-q"], found["sparseness"], atol=2e-4)
    np.testing.assert_allclose(100 * found["mass"], found["energy"], rtol=1e-4)
    exact = metrics.pointing_game(maps[None], boxes, tolerance=0)[0]
    np.testing.assert_array_equal(100 * found["pointing-q"], exact)
    assert (theirs["mass"].better, theirs["mass"].title) == ("higher", "RelevanceMassAccuracy (Quantus)")
    assert adapter.metric(quantus.Complexity).better == "lower"


def test_flat_maps_and_images_without_a_box_have_no_value(quantus):
    maps = metrics_quantus.maps().astype(np.float32)
    maps[1] = 0
    boxes = metrics_quantus.boxes()
    boxes[2] = -1
    named = {
        "s": adapter.metric(quantus.Sparseness),
        "m": adapter.metric(quantus.RelevanceMassAccuracy, needs_boxes=True),
    }
    found = measured(named, maps, boxes)
    assert np.isnan(found["s"]).tolist() == [False, True, False, False, False, False]
    assert np.isnan(found["m"]).tolist() == [False, True, True, False, False, False]


def test_they_see_our_network(quantus, maps):
    """Pixel flipping by hand: the probability as the numbers of the most important pixels become 0."""
    flipping = quantus.PixelFlipping(
        features_in_step=72, perturb_baseline=0.0, abs=False, normalise=False, disable_warnings=True
    )
    found = np.array(adapter.scores(flipping, toy.MLP, PARAMS, IMAGES, LABELS, maps=maps))
    for i, curve in enumerate(found):
        order = np.argsort(-np.repeat(maps[i][None], 3, 0).reshape(-1))  # every pixel has three numbers
        x = np.ascontiguousarray(np.moveaxis(np.asarray(IMAGES[i]), -1, 0)).copy()
        for step, value in enumerate(curve):
            x.reshape(-1)[order[: 72 * (step + 1)]] = 0.0
            logits = np.asarray(toy.MLP(PARAMS, np.moveaxis(x, 0, -1)[None]))[0]
            assert value == pytest.approx(np.exp(logits[LABELS[i]]) / np.exp(logits).sum(), rel=1e-4)


def test_our_methods_explain_for_them(quantus):
    """Max-sensitivity draws its noise in NumPy; the same noise by hand gives the same value."""
    explain = adapter.explain_func(sscam.layer_cam, toy.MLP, PARAMS)
    quiet = dict(abs=False, normalise=False, disable_warnings=True)
    np.random.seed(0)
    found = adapter.scores(
        quantus.MaxSensitivity(nr_samples=2, lower_bound=0.2, **quiet), toy.MLP, PARAMS, IMAGES, LABELS, explain=explain
    )
    assert len(found) == 3 and all(value > 0 for value in found)
    own = np.asarray(sscam.layer_cam(toy.MLP, PARAMS, IMAGES, LABELS).maps)
    seen = explain(None, np.moveaxis(IMAGES, -1, 1), LABELS)
    np.testing.assert_array_equal(seen, own)


def test_their_randomisation_goes_through_our_layers(quantus):
    """The last layer's weights do not change the mean of the activations; the first layer's do."""
    explain = adapter.explain_func(sscam.cams.mean_activation, toy.MLP, PARAMS)
    test = quantus.MPRT(disable_warnings=True, abs=False, normalise=False, return_average_correlation=False)
    found = adapter.scores(test, toy.MLP, PARAMS, IMAGES, LABELS, explain=explain, layers=("out", "conv"))
    np.testing.assert_allclose(found["out"], 1, atol=1e-4)
    assert (np.array(found["conv"]) < 0.99).all()


def test_in_an_evaluation(quantus, tmp_path):
    batches = sscam.data.from_arrays(IMAGES, labels=LABELS, batch_size=2)
    sparse = {"sparseness": metrics.METRICS["sparseness"], "theirs": adapter.metric(quantus.Sparseness)}
    found = sscam.evaluate(toy.MLP, PARAMS, batches, ["grad-cam"], sparse, out=tmp_path)
    assert found["grad-cam", "theirs"].mean == pytest.approx(found["grad-cam", "sparseness"].mean, abs=1e-5)
    other = sparse | {"theirs": adapter.metric(quantus.Sparseness, normalise=True)}
    with pytest.raises(ValueError, match="metrics.theirs.code: .* there, .* now"):
        sscam.evaluate(toy.MLP, PARAMS, batches, ["grad-cam"], other, out=tmp_path)


def test_what_cannot_be_measured_is_refused(quantus, maps):
    with pytest.raises(ValueError, match="maps and explain are both None, expected one of them: explain=explain_func"):
        adapter.scores(quantus.Sparseness(disable_warnings=True), toy.MLP, PARAMS, IMAGES, LABELS)
    for wrong in (max, quantus.Sparseness(disable_warnings=True)):
        with pytest.raises(
            ValueError, match="is not a class that states the direction of its scores, expected one such"
        ):
            adapter.metric(wrong)
    with pytest.raises(ValueError, match=r"metric is the class Sparseness, expected an object of it: Sparseness\(\)"):
        adapter.scores(quantus.Sparseness, toy.MLP, PARAMS, IMAGES, LABELS, maps=maps)
    with pytest.raises(
        ValueError, match=r"maps have shape \(3, 4, 18\) for .*, expected \(3, 16, 18\): sscam_jax.ops.re"
    ):
        adapter.scores(quantus.Sparseness(disable_warnings=True), toy.MLP, PARAMS, IMAGES, LABELS, maps=maps[:, :4])
    curves = adapter.metric(quantus.PixelFlipping, features_in_step=72)
    with pytest.raises(ValueError, match=r"PixelFlipping gave values of shape \(3, \d+\), expected one per image"):
        measured({"curves": curves}, maps)
    shift = quantus.InputInvariance(disable_warnings=True)
    explain = adapter.explain_func(sscam.grad_cam, toy.MLP, PARAMS)
    with pytest.raises(NotImplementedError, match="does not say which of its parameters that is: choose another"):
        adapter.scores(shift, toy.MLP, PARAMS, IMAGES, LABELS, explain=explain)


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "quantus", None)
    with pytest.raises(ImportError, match=r"package 'quantus' is not installed: run pip install '.\[quantus\]' in a"):
        adapter.scores(lambda **_: None, toy.MLP, PARAMS, IMAGES, LABELS, maps=IMAGES[..., 0])
