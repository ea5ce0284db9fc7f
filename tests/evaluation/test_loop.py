"""The evaluation loop on a small network: every number is what its method and metric give by themselves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams, metrics
from sscam_jax.evaluation import loop, pictures
from sscam_jax.evaluation.plan import plan
from sscam_jax.metrics import overlap
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Batch
from tests import toy

pytestmark = pytest.mark.xdist_group("loop")

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


def run(given, methods=METHODS, names=METRICS, apply=toy.MLP, tell=lambda *_: None, **options):
    """All parts as one; the maps as they are drawn."""
    given = list(given)
    chosen = dict(key=KEY, colours=(IMAGENET_MEAN, IMAGENET_STD)) | options
    controls = dict(controls=False)
    of = plan(apply, PARAMS, given[0], methods, names, **controls, **chosen)
    parts = [loop.measure(of, batch, tell) for batch in given]
    axes = dict(values=2, flat=2, passes=2)
    fields = {
        name: np.concatenate([getattr(part, name) for part in parts], axes.get(name, 0))
        for name in parts[0]._fields[1:]
        if name != "maps"
    }
    space = IMAGES.shape[1:-1]
    drawn = [[pictures.decoded(kept.reshape(-1, *kept.shape[2:]), space).reshape(*kept.shape[:2], *space)
              for kept in part.maps] for part in parts if len(part.ids)]  # fmt: skip
    maps = tuple(np.concatenate(each, 1) for each in zip(*drawn, strict=True))
    return parts[0]._replace(**fields, maps=maps)


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
        lambda inputs: inputs[..., 0],
    )
    expected = metrics.measure(METRICS, case)
    assert whole.columns == tuple(expected)
    for k, column in enumerate(whole.columns):
        np.testing.assert_allclose(whole.values[r, m, :, k], expected[column][0], rtol=1e-4, atol=1e-4, err_msg=column)
    np.testing.assert_array_equal(whole.passes[r, m], saliency.passes)
    np.testing.assert_array_equal(whole.flat[r, m], saliency.flat)
    np.testing.assert_allclose(whole.maps[m][r], saliency.maps, atol=1 / 255)


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


@pytest.mark.parametrize(
    "size,devices", [(4, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(4, 1), (1, 1), (3, 8)])]
)
def test_batches_and_devices_change_rounding_only(whole, size, devices):
    other = run(batches(size), keys=2, devices=jax.devices()[:devices])
    assert other.columns == whole.columns
    np.testing.assert_array_equal(other.ids, whole.ids)
    np.testing.assert_allclose(other.values, whole.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(other.passes, whole.passes)


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
    np.testing.assert_allclose(part.maps[0][0], expected.maps, atol=1e-5)
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
    with pytest.raises(
        ValueError, match="class 4 of the data set is out of range: the network has 4 classes. Explain the predicted"
    ):
        run([batch])
    batch.labels[3] = 0
    broken = dataclasses.replace(toy.MLP, head=lambda *given: toy.MLP.head(*given) * jnp.nan)
    with pytest.raises(ValueError, match=r"logits that are not finite for images \[0, 1, .*: check params and"):
        run([batch], {"uniform": cams.uniform_map}, ("energy",), apply=broken)
    batch.images[2] = np.nan
    with pytest.raises(ValueError, match=r"images of ids \[2\] hold NaN or ∞, expected finite numbers: leave them out"):
        run([batch])


BATCH = next(batches(6))
REFUSED = [
    (dict(images=(255 * IMAGES).astype(np.uint8)), "images are uint8, expected floats as the network takes them"),
    (dict(labels=LABELS.astype(np.float32)), "labels are float32, expected integers: convert them with .astype"),
    (dict(ids=np.zeros(6, np.int32)), r"ids \[0, 0, 0, 0, 0, 0\] of a batch are not different numbers from 0 on"),
    (dict(ids=np.arange(5)), "a batch's fields have .*'ids': 5, .* rows, expected the same number: one row per image"),
    (
        dict(boxes=224 * np.abs(BOXES)),
        r"box \[0.0, 44.*\] of image 0 is not one: expected y0 < y1 .*divide pixels by",
    ),
    (dict(boxes=BOXES[..., ::-1].copy()), "of image 0 is not one: expected y0 < y1 and x0 < x1 as shares of the input"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_batches_that_are_none_are_refused(as_users_run_it, fields, message):
    with pytest.raises(ValueError, match=message):
        run([BATCH._replace(**fields)])


def own(apply, params, images, labels):
    """Maps by JAX, without any network."""
    return jnp.abs(images).max(-1) / 10


WRONG = [
    (lambda a, p, x, y: own(a, p, x, y) * np.nan, "gave a map of image 0 with values from nan to nan, expected finite"),
    (lambda a, p, x, y: own(a, p, x, y) + 1, r"image 0 with values from 1\.\d+ to 1\.\d+, expected .* in \[0, 1\]"),
    (
        lambda a, p, x, y: own(a, p, x, y)[:, :4],
        r"gave maps of shape \(6, 4, 10\), expected \(6, 8, 10\): one per image",
    ),
    (lambda a, p, x, y: "map", "gave str, expected a Saliency or an array of maps"),
]


@pytest.mark.parametrize(("method", "message"), WRONG)
def test_maps_that_are_none_are_refused(as_users_run_it, method, message):
    with pytest.raises(ValueError, match=f"method 'mine' {message}" if message.startswith("gave") else message):
        run([BATCH], {"mine": method}, ("complexity",), devices=jax.devices()[:1])


def in_numpy(apply, params, images, labels):
    return np.abs(np.asarray(images)).max(-1) / 10


def looked_at(method):
    """A wrapper as many write them: it passes on whatever it gets."""

    def wrapped(apply, params, images, labels, **options):
        return method(apply, params, images, labels, **options)

    return wrapped


def test_methods_of_every_kind_in_one_mapping():
    layers = [sscam.Apply(lambda p, x: (x, ()), lambda p, a, c: toy.mlp_head(p, toy.features(p, a)[0], c))]
    every = {
        "text": "grad-cam",
        "array": own,
        "numpy": in_numpy,
        "wrapped": looked_at(sscam.grad_cam),
        "wrapped-noise": looked_at(functools.partial(sscam.ss_cam, n_samples=1)),
        "layers": functools.partial(cams.over_layers, sscam.grad_cam, layers=layers),
        "noisy-layers": functools.partial(cams.over_layers, functools.partial(sscam.ss_cam, n_samples=1), layers=[]),
    }
    part = run(batches(4), every, ("complexity",), devices=jax.devices()[:2])
    found = dict(zip(every, part.maps, strict=True))
    images, ids = jnp.asarray(IMAGES), jnp.arange(6, dtype=jnp.int32)
    np.testing.assert_allclose(found["wrapped"], found["text"], atol=1e-5)
    np.testing.assert_allclose(found["numpy"], found["array"], atol=1e-5)
    np.testing.assert_allclose(found["array"][0], own(None, None, images, None), atol=1 / 255)
    noisy = sscam.ss_cam(toy.MLP, PARAMS, images, LABELS, key=jax.random.fold_in(KEY, 0), ids=ids, n_samples=1).maps
    for name in ("wrapped-noise", "noisy-layers"):
        np.testing.assert_allclose(found[name][0], noisy, atol=1 / 255)
    merged = cams.over_layers(sscam.grad_cam, toy.MLP, PARAMS, images, LABELS, layers=layers).maps
    np.testing.assert_allclose(found["layers"][0], merged, atol=1 / 255)
    np.testing.assert_allclose(
        part.values[0, 2, :, 0], 100 * in_numpy(None, None, images, None).mean((1, 2)), rtol=1e-4
    )
    assert (part.passes[0, 1] == -1).all() and (part.passes[0, 0] == 1).all()  # of an array nobody knows


def test_custom_metrics_in_jax_and_in_numpy():
    own = {"peak": metrics.Metric(lambda case: case.maps.max((-2, -1)), "higher"),
           "numpy": metrics.Metric(lambda case: np.asarray(case.maps).max((-2, -1)), "higher")}  # fmt: skip
    part = run(batches(4), {"grad-cam": sscam.grad_cam}, own, devices=jax.devices()[:2])
    assert part.columns == ("peak", "numpy")
    np.testing.assert_array_equal(part.values[..., 0], part.values[..., 1])


def test_scipy_finds_the_regions_on_a_cpu(monkeypatch):
    """It takes an eighth of the time of compiled code."""
    found = []
    real = overlap.boxes_on_host
    monkeypatch.setattr(overlap, "boxes_on_host", lambda *given: found.append(1) or real(*given))
    part = run(batches(6), {"uniform": cams.uniform_map}, ("energy", "max-box-acc"), devices=jax.devices()[:1])
    assert part.columns[:2] == ("energy", "max-box-acc@0.00") and len(found) == 500  # five images with a box
    assert np.isnan(part.values[0, 0, 4]).all() and np.isfinite(np.delete(part.values[0, 0], 4, 0)).all()


def test_what_is_drawn_is_what_was_measured():
    """RISE's and the controls' maps do not follow from a map at the layer's resolution."""
    methods = {
        "rise": functools.partial(sscam.rise, n_samples=8),
        "gaussian": cams.gaussian_map,
        "grad-cam": sscam.grad_cam,
    }
    part = run([BATCH], methods, ("complexity",), devices=jax.devices()[:1])
    for m, kept in enumerate(part.maps):
        np.testing.assert_allclose(100 * kept[0].mean((1, 2)), part.values[0, m, :, 0], atol=0.2)
