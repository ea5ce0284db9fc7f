"""The evaluation loop on a small network: every number is what its method and metric give by themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams, metrics
from sscam_jax.evaluation.loop import measured
from sscam_jax.types import Batch
from tests import toy

pytestmark = [pytest.mark.usefixtures("quick_compilation"), pytest.mark.xdist_group("loop")]

PARAMS = toy.on_device(toy.params())
KEY = jax.random.key(7)
IMAGES = toy.images(batch=6)
LABELS = np.array([0, 1, 2, 3, 0, 1], np.int32)
BOXES = np.full((6, 2, 4), -1, np.float32)
BOXES[:, 0] = [[0.1 * i, 0.2, 0.1 * i + 0.4, 0.9] for i in range(6)]
BOXES[4] = -1  # nothing is boxed in this one
METHODS = {
    "grad-cam": sscam.grad_cam,  # first: with the second key the others keep their places
    "ss-cam": functools.partial(sscam.ss_cam, n_samples=2, sigma=1.0),
    "random": cams.random_map,
    "score-cam": sscam.score_cam,
    "uniform": cams.uniform_map,
}
METRICS = ("energy", "average-drop", "max-box-acc", "infidelity")


def batches(size, rows=range(6)):
    """The images in batches of a size, the last one padded."""
    rows = list(rows)
    for start in range(0, len(rows), size):
        some = np.array(rows[start : start + size])
        fill = size - len(some)

        def padded(field, empty, some=some, fill=fill):
            return np.concatenate([field[some], np.full((fill, *field.shape[1:]), empty, field.dtype)])

        yield Batch(
            images=padded(IMAGES, 0),
            labels=padded(LABELS, -1),
            boxes=padded(BOXES, -1),
            ids=padded(np.arange(6, dtype=np.int32), -1),
            mask=padded(np.ones(6, bool), False),
        )


def run(given, methods=METHODS, names=METRICS, apply=toy.MLP, **options):
    """All parts as one."""
    parts = list(measured(apply, PARAMS, given, methods, names, key=KEY, **options))
    axes = dict(values=2, flat=2, passes=2, raw=2)
    fields = {
        name: np.concatenate([getattr(part, name) for part in parts], axes.get(name, 0))
        for name in parts[0]._fields[1:]
    }
    return parts[0]._replace(**fields)


@pytest.fixture(scope="module")
def whole():
    return run(batches(6), keys=2, devices=jax.devices()[:1])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("r", [0, 1])
def test_values_are_those_of_the_method_and_the_metric(whole, name, r):
    method, m = METHODS[name], list(METHODS).index(name)
    takes_key = name in ("ss-cam", "random")
    if r and not takes_key:
        assert np.isnan(whole.values[r, m]).all() and (whole.passes[r, m] == 0).all()
        return
    ids = jnp.arange(6, dtype=jnp.int32)
    options = dict(key=jax.random.fold_in(KEY, r), ids=ids) if takes_key else {}
    saliency = method(toy.MLP, PARAMS, jnp.asarray(IMAGES), LABELS, **options)
    case = metrics.Case(
        toy.MLP,
        PARAMS,
        jnp.asarray(IMAGES),
        jnp.asarray(LABELS),
        jnp.asarray(BOXES),
        saliency.maps[None],
        KEY,
        ids,
        None,
    )
    expected = metrics.measure(METRICS, case)
    assert whole.columns == tuple(expected)
    for k, column in enumerate(whole.columns):
        np.testing.assert_allclose(whole.values[r, m, :, k], expected[column][0], rtol=1e-4, atol=1e-4, err_msg=column)
    np.testing.assert_array_equal(whole.passes[r, m], saliency.passes)
    np.testing.assert_array_equal(whole.flat[r, m], saliency.flat)
    np.testing.assert_allclose(whole.raw[r, m], saliency.raw, atol=1e-5)


def test_what_goes_with_the_values(whole):
    logits = np.asarray(toy.MLP(PARAMS, jnp.asarray(IMAGES)))
    np.testing.assert_array_equal(whole.ids, np.arange(6))
    np.testing.assert_array_equal(whole.labels, LABELS)
    np.testing.assert_array_equal(whole.predicted, logits.argmax(1))
    np.testing.assert_allclose(whole.probability, np.asarray(jax.nn.softmax(logits))[np.arange(6), LABELS], rtol=1e-5)
    np.testing.assert_array_equal(whole.single, metrics.single_box(jnp.asarray(BOXES)))
    energy = whole.columns.index("energy")
    assert (
        np.isnan(whole.values[0, :, 4, energy]).all()
        and not np.isnan(whole.values[0][:, [0, 1, 2, 3, 5], energy]).any()
    )


@pytest.mark.parametrize("size,devices", [(4, 1), (1, 1), (4, 2), (3, 8)])
def test_batches_and_devices_change_rounding_only(whole, size, devices):
    other = run(batches(size), keys=2, devices=jax.devices()[:devices])
    assert other.columns == whole.columns
    np.testing.assert_array_equal(other.ids, whole.ids)
    np.testing.assert_allclose(other.values, whole.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(other.passes, whole.passes)


def test_begins_with_any_batch(whole):
    late = run(batches(2), first=2, devices=jax.devices()[:1])
    np.testing.assert_array_equal(late.ids, [4, 5])
    np.testing.assert_allclose(late.values[0], whole.values[0, :, 4:], rtol=1e-3, atol=1e-3)


def test_unreadable_and_unlabelled_images_are_left_out():
    [batch] = batches(6)
    batch.mask[1], batch.labels[2] = False, -1
    batch.images[1] = np.nan  # nobody may look at it
    part = run([batch], {"grad-cam": sscam.grad_cam}, ("average-drop",))
    np.testing.assert_array_equal(part.ids, [0, 3, 4, 5])
    np.testing.assert_array_equal(part.skipped, [2])
    assert np.isfinite(part.values).all()


def test_the_predicted_class_needs_no_label():
    [batch] = batches(6)
    batch.labels[:] = -1
    part = run([batch], {"score-cam": sscam.score_cam}, ("average-drop",), target="predicted")
    expected = sscam.score_cam(toy.MLP, PARAMS, jnp.asarray(IMAGES), None)
    np.testing.assert_allclose(part.raw[0, 0], expected.raw, atol=1e-5)
    assert len(part.skipped) == 0 and (part.labels == -1).all()


def test_a_batch_of_nothing_is_measured_as_such():
    [batch] = batches(6)
    batch.mask[:] = False
    part = run([batch], {"score-cam": sscam.score_cam, "grad-cam": sscam.grad_cam}, ("average-drop",))
    assert len(part.ids) == 0 and part.values.shape[:3] == (1, 2, 0)


def test_metrics_that_run_the_methods_again():
    methods = {"grad-cam": sscam.grad_cam, "score-cam": sscam.score_cam}
    part = run(batches(6), methods, ("coherency", "energy"))
    images = jnp.asarray(IMAGES)
    assert part.columns == ("coherency", "energy")
    for m, method in enumerate(methods.values()):
        maps = method(toy.MLP, PARAMS, images, LABELS).maps
        again = method(toy.MLP, PARAMS, images * maps[..., None], LABELS).maps
        np.testing.assert_allclose(part.values[0, m, :, 0], metrics.coherency(maps, again), rtol=1e-3, atol=1e-2)


def test_progress_counts_maps_and_passes(whole):
    told = []
    methods = {name: METHODS[name] for name in ("ss-cam", "grad-cam")}
    part = run(batches(4), methods, ("energy",), keys=2, tell=lambda maps, passes: told.append((maps, passes)))
    assert sum(maps for maps, _ in told) == 6 * 3
    assert sum(passes for _, passes in told) == part.passes.sum()


def test_wrong_input_is_refused(as_users_run_it):
    [batch] = batches(6)
    with pytest.raises(ValueError, match="metric 'drop' is not known; choose from 'average-drop', "):
        run([batch], names=("drop",))
    with pytest.raises(ValueError, match="target 'label' is not known; choose from 'truth', 'predicted'"):
        run([batch], target="label")
    with pytest.raises(ValueError, match="no methods"):
        run([batch], {})
    with pytest.raises(ValueError, match="keys is 0"):
        run([batch], keys=0)
    batch.labels[3] = toy.CLASSES
    with pytest.raises(ValueError, match="class 4 of the data set is none of the network's 4: explain the predicted"):
        run([batch])
    batch.labels[3] = 0
    batch.images[2] = np.nan
    with pytest.raises(ValueError, match=r"answer to images \[2\] is not finite"):
        run([batch])
