"""What must hold of the CAMs beside Score-CAM and Grad-CAM, whatever their code looks like."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from sscam_jax.cams import _run, eigen
from tests import toy

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(5)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=2))
LABELS = jnp.array([1, 2])


def explain(method, apply=toy.MLP, images=IMAGES, **options):
    return method(apply, PARAMS, images, LABELS, **options)


def same(left, right, fields=("maps", "raw", "weights"), tolerance=1e-5):
    for name in fields:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=tolerance, atol=tolerance)


def test_xgrad_cam_is_grad_cam_where_the_gradient_is_the_same_everywhere():
    same(explain(cams.xgrad_cam, toy.LINEAR), explain(cams.grad_cam, toy.LINEAR))


def test_hires_cam_sums_to_the_logit_of_an_affine_head():
    saliency = explain(cams.hires_cam, toy.LINEAR)
    np.testing.assert_allclose(saliency.raw.sum((1, 2)), saliency.logits[jnp.arange(2), LABELS], rtol=1e-4, atol=1e-5)


def test_layer_cam_is_never_negative():
    assert explain(cams.layer_cam).raw.min() >= 0


@pytest.mark.parametrize("method", [cams.eigen_cam, cams.eigen_grad_cam])
def test_eigen_cams_need_no_lapack(method):
    """Which never ends on a CPU with as many devices as cores: each waits in a thread that the other needs."""
    lowered = jax.jit(method, static_argnums=0).lower(toy.MLP, PARAMS, IMAGES, jnp.array([0, 1]))
    assert "custom_call" not in lowered.as_text()


@pytest.mark.parametrize("shape", [(49, 512), (512, 49), (6, 6)])
def test_eigen_cams_vector_is_the_first_singular_one(shape):
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    rows[:, 0] *= 1.5
    for factor in (1.0, 1e-12, 1e12):
        vector = np.asarray(eigen._first_singular_vector(jnp.asarray(rows * factor)), np.float64)
        expected = np.linalg.svd(rows.astype(np.float64))[2][0]
        np.testing.assert_allclose(vector * np.sign(vector @ expected), expected, atol=1e-4)


def test_eigen_cam_knows_no_class():
    first, second = (cams.eigen_cam(toy.MLP, PARAMS, IMAGES, labels) for labels in ([0, 1], [3, 2]))
    np.testing.assert_array_equal(first.maps, second.maps)
    one_grad, other_grad = (cams.eigen_grad_cam(toy.MLP, PARAMS, IMAGES, labels) for labels in ([0, 1], [3, 2]))
    assert abs(one_grad.maps - other_grad.maps).max() > 0.05


def test_finer_cam_without_comparison_is_grad_cam():
    same(explain(cams.finer_cam, gamma=0.0), explain(cams.grad_cam))
    # All three other classes, as many as there are.
    same(explain(cams.finer_cam, n_references=99), explain(cams.finer_cam, n_references=3))


def test_shapley_cam_without_curvature_is_grad_cam():
    same(explain(cams.shapley_cam, utility="logit"), explain(cams.grad_cam))
    assert abs(explain(cams.shapley_cam).maps - explain(cams.grad_cam).maps).max() > 1e-3


def test_shapley_cams_utility_may_be_a_function():
    def logit(logits, label):
        return logits[label]

    same(explain(cams.shapley_cam, utility=logit), explain(cams.shapley_cam, utility="logit"))


def test_smooth_grad_cam_pp_without_noise_is_grad_cam_pp():
    same(explain(cams.smooth_grad_cam_pp, key=KEY, sigma=0.0), explain(cams.grad_cam_pp), tolerance=1e-4)


def test_ablation_of_a_linear_head():
    """Without A_k the logit of average pooling and a linear layer loses w_k GAP(A_k)."""
    saliency = explain(cams.ablation_cam, toy.LINEAR)
    activations, _ = toy.features(PARAMS, IMAGES)
    lost = activations.mean((1, 2)) * PARAMS["linear"].T[LABELS]
    whole = saliency.logits[jnp.arange(2), LABELS].reshape(2, 1)
    np.testing.assert_allclose(saliency.weights, lost / abs(whole), rtol=1e-3, atol=1e-5)


def test_dead_channels_are_not_ablated():
    passes = []

    def head(params, activations, carry):
        jax.debug.callback(lambda: passes.append(activations.shape[0]))
        return toy.mlp_head(params, activations, carry)

    dead = PARAMS | dict(bias=PARAMS["bias"].at[1:].set(-1e6))
    saliency = cams.ablation_cam(sscam.Apply(toy.features, head), dead, IMAGES, LABELS, chunk_size=2)
    jax.effects_barrier()
    # The batch once, then channel 0 and the whole of each image.
    assert sum(passes) == 2 + 2 * 2 and not saliency.weights[:, 1:].any()


def test_recipro_cam_of_a_linear_head_is_cam():
    recipro, cam = (explain(cams.recipro_cam, toy.LINEAR, score="logit"), explain(cams.cam, toy.LINEAR))
    np.testing.assert_allclose(recipro.raw * 20, cam.raw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(recipro.maps, sscam.ops.unit(sscam.ops.resize(cam.raw, (8, 10))), atol=1e-5)


def test_is_cam_of_one_step_is_score_cam():
    same(explain(cams.is_cam, n_samples=1), explain(cams.score_cam))
    same(explain(cams.is_cam, preset="torchcam", n_samples=1), explain(cams.score_cam, preset="torchcam"))


def test_group_cam_of_one_group_is_grad_cam_without_its_weak_positions():
    """α of a single group scales the map only."""
    group = explain(cams.group_cam, groups=1, percentile=0.0)
    positive = jax.nn.relu(explain(cams.grad_cam).raw)
    raw = jnp.where(positive > positive.min((1, 2), keepdims=True), positive, 0.0)
    for i in np.flatnonzero(group.weights[:, 0] > 0):
        wanted = sscam.ops.unit(sscam.ops.resize(raw, (8, 10)))[i]
        np.testing.assert_allclose(group.maps[i], wanted, atol=1e-4)
    assert (group.weights == group.weights[:, :1]).all()


@pytest.mark.parametrize("name", ["rise", "smooth_grad_cam_pp"])
def test_draws_belong_to_key_and_id(name):
    options = dict(n_samples=8, cells=3) if name == "rise" else dict(sigma=1.0)
    twins = jnp.concatenate([IMAGES[:1], IMAGES[:1]])

    def raw(key=KEY, ids=(0, 1)):
        method = functools.partial(getattr(cams, name), toy.MLP, PARAMS, twins, [1, 1])
        return method(key=key, ids=jnp.array(ids), **options).raw

    first, second = raw()
    assert abs(first - second).max() > 1e-3
    np.testing.assert_allclose(*raw(ids=(7, 7)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(raw(ids=(1, 0))[1], first, rtol=1e-5, atol=1e-7)
    assert abs(raw(key=jax.random.key(6))[0] - first).max() > 1e-3


def test_rise_finds_the_pixel_that_counts():
    """On a network that reads one pixel, the expected map is highest there."""
    reads = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a[:, 2, 7])
    saliency = cams.rise(reads, None, jnp.ones((1, 8, 10, 3)), [0], key=KEY, n_samples=400, cells=4, score="logit")
    y, x = np.unravel_index(saliency.maps[0].argmax(), (8, 10))
    assert abs(y - 2) <= 1 and abs(x - 7) <= 1
    assert saliency.passes.tolist() == [401]


def test_occlusion_of_a_linear_network_by_hand():
    """Windows side by side: each loses its own pixels."""
    total = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a.sum((1, 2)))
    saliency = cams.occlusion(total, None, IMAGES, [0, 1], window=2, stride=2, score="logit")
    for i in range(2):
        blocks = np.asarray(IMAGES[i, ..., i]).reshape(4, 2, 5, 2).sum((1, 3))
        np.testing.assert_allclose(saliency.raw[i], blocks.repeat(2, 0).repeat(2, 1), rtol=1e-4, atol=1e-5)
    assert saliency.passes.tolist() == [22, 22]


WALKED = {
    "ablation_cam": {},
    "recipro_cam": {},
    "group_cam": dict(groups=3),
    "is_cam": dict(n_samples=3),
    "occlusion": dict(window=4, stride=3),
    "rise": dict(n_samples=10, cells=3, key=KEY),
}


@pytest.mark.parametrize("name", WALKED)
def test_chunks_and_devices_change_nothing(name):
    method = functools.partial(explain, getattr(cams, name), **WALKED[name])
    whole = method()
    for options in (dict(chunk_size=1), dict(chunk_size=1000), dict(chunk_size=2, devices=jax.devices()[:4])):
        same(whole, method(**options))


def test_memory_does_not_grow_with_masks():
    """Ten times the masks are ten times as many scores, and nothing of the images' size."""

    def temporary_bytes(n):
        method = functools.partial(cams.rise, toy.MLP, key=KEY, n_samples=n, chunk_size=10)
        images = jnp.asarray(toy.images(size=32))
        lowered = jax.jit(lambda params, images: method(params, images, LABELS)).lower(PARAMS, images)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporary_bytes(100), temporary_bytes(1000)
    assert 0 < many - few <= 900 * 4 * 10


def test_out_of_memory_halves_the_chunk():
    tried = []

    def small_device(*arguments):
        tried.append(arguments[-1].chunk_size)
        if tried[-1] > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return cams.grad_cam(toy.MLP, PARAMS, IMAGES, LABELS)

    arguments = (toy.MLP, PARAMS, IMAGES, LABELS, (), None)
    with pytest.warns(RuntimeWarning, match="out of memory: going on with chunk_size=") as warned:
        _run.run(small_device, *arguments, 12, None)
    assert tried == [12, 6, 3] and len(warned) == 2

    def broken_device(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

    with pytest.raises(jax.errors.JaxRuntimeError, match="the device is gone"):
        _run.run(broken_device, *arguments, 12, None)


def test_a_constant_map_says_nothing():
    """Interpolation rounds 0.123456 apart when enlarging it; that is no map."""
    apply = sscam.Apply(
        lambda params, x: (jnp.full((x.shape[0], 7, 7, 1), 0.123456), ()), lambda params, a, carry: a.sum((1, 2))
    )
    saliency = cams.grad_cam(apply, None, jnp.zeros((1, 224, 224, 3)), [0])
    assert sscam.ops.value_range(sscam.ops.resize(saliency.raw, (224, 224))) > 0
    assert saliency.flat.all() and not saliency.maps.any() and saliency.raw.all()


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("ablation_cam", dict(score="prob"), "score='prob' is not a choice; choose from 'probability', 'logit'"),
        ("recipro_cam", dict(chunk_size=0), "chunk_size=0 is too small, expected at least 1"),
        ("group_cam", dict(groups=0), "groups=0 is too small, expected at least 1"),
        ("rise", dict(key=KEY, n_samples=0), "n_samples=0 is too small, expected at least 1"),
        ("rise", dict(key=KEY, cells=0), "cells=0 is too small, expected at least 1"),
        ("rise", dict(key=KEY, ids=jnp.arange(3)), r"ids have shape \(3,\), expected \(2,\): one integer an image"),
        ("rise", dict(key=jax.random.key(0, impl="rbg")), "key is of kind 'rbg', whose draws depend on the batch"),
        ("smooth_grad_cam_pp", dict(key=KEY, n_samples=0), "n_samples=0 is too small, expected at least 1"),
        ("occlusion", dict(window=9), r"window=\(9, 9\) and stride=\(5, 5\) do not fit images of \(8, 10\): expected"),
        ("occlusion", dict(window=2, stride=3), "expected 1 ≤ stride ≤ window ≤ side along every axis"),
        ("occlusion", dict(window=(2, 2, 2)), r"window=\(2, 2, 2\) has 3 axes, expected 2: one a spatial axis"),
        ("finer_cam", dict(n_references=0), "n_references=0 is too small, expected at least 1"),
        ("shapley_cam", dict(utility="rest"), "utility='rest' is not a choice; choose from 'residual_softmax', 'prob"),
        ("is_cam", dict(preset="paper"), "preset 'paper' is not one of is_cam; choose from 'straight', 'torchcam'"),
        ("is_cam", dict(path="curved"), "path='curved' is not a choice; choose from 'straight', 'running_sum'"),
    ],
)
def test_choices_are_checked(name, given, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        explain(getattr(cams, name), **given)


def test_finer_cam_needs_another_class():
    one = sscam.Apply(toy.features, lambda params, a, carry: toy.linear_head(params, a, carry)[:, :1])
    with pytest.raises(ValueError, match="this network has one class, so Finer-CAM has none to tell it from"):
        cams.finer_cam(one, PARAMS, IMAGES, [0, 0])
