"""Controls: what they draw, and what must hold of them as of every method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from tests import toy

KEY = jax.random.key(3)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=4))
LABELS = jnp.array([0, 1, 2, 3])

FIXED = {name: getattr(cams, name) for name in ("uniform_map", "gaussian_map", "fake_cam")}
CONTROLS = FIXED | dict(mean_activation=cams.mean_activation, random_map=functools.partial(cams.random_map, key=KEY))
every_control = pytest.mark.parametrize("name", CONTROLS)


def close(left: sscam.Saliency, right: sscam.Saliency) -> None:
    for name, a, b in zip(left._fields, left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


@every_control
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_result_for_any_spatial_rank(name, rank):
    images = jnp.asarray(toy.images(rank))
    saliency = CONTROLS[name](toy.MLP, PARAMS, images, [0, 1])
    assert saliency.maps.shape == images.shape[:-1]
    assert saliency.raw.shape == (2, *(side // 2 for side in images.shape[1:-1]))
    assert saliency.weights.shape == (2, toy.CHANNELS)
    assert [array.dtype.name for array in saliency] == ["float32"] * 4 + ["bool", "int32"]
    assert saliency.maps.min() >= 0 and 1 - 1e-6 <= saliency.maps.max() <= 1
    assert not saliency.flat.any() and (saliency.passes == 1).all()
    np.testing.assert_allclose(saliency.logits, toy.MLP(PARAMS, images), rtol=1e-5)


@every_control
def test_jit_is_eager_and_labels_change_nothing(name):
    control = functools.partial(CONTROLS[name], toy.MLP)
    saliency = control(PARAMS, IMAGES, LABELS)
    close(jax.jit(control)(PARAMS, IMAGES, LABELS), saliency)
    close(control(PARAMS, IMAGES, None), saliency)
    close(control(PARAMS, IMAGES, [3, 3, 3, 3]), saliency)


@every_control
def test_ensemble_by_vmap_over_params(name):
    members = [PARAMS, toy.on_device(toy.params(seed=5))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.vmap(lambda params: CONTROLS[name](toy.MLP, params, IMAGES, LABELS))(stacked)
    for i, params in enumerate(members):
        row = jax.tree.map(lambda array, i=i: array[i], together)
        close(row, CONTROLS[name](toy.MLP, params, IMAGES, LABELS))


@every_control
def test_dead_activations_are_finite(name):
    saliency = CONTROLS[name](toy.MLP, PARAMS | dict(bias=jnp.full(toy.CHANNELS, -1e6)), IMAGES, None)
    assert all(bool(jnp.isfinite(array).all()) for array in saliency)
    np.testing.assert_array_equal(saliency.flat, np.full(4, name == "mean_activation"))
    np.testing.assert_array_equal(saliency.flat, saliency.maps.max((1, 2)) == 0)


@every_control
def test_errors(name, as_users_run_it):
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), expected \(4,\): one class index per image"):
        CONTROLS[name](toy.MLP, PARAMS, IMAGES, LABELS[:2])
    with pytest.raises(ValueError, match=r"labels \[4\] are not classes of this network; choose from 0 to 3"):
        CONTROLS[name](toy.MLP, PARAMS, IMAGES, [0, 4, 1, 1])


def test_uniform_map_is_one_everywhere():
    saliency = cams.uniform_map(toy.MLP, PARAMS, IMAGES, None)
    assert (saliency.maps == 1).all() and (saliency.raw == 1).all() and not saliency.weights.any()


def test_fake_cam_lacks_one_pixel():
    maps = np.asarray(cams.fake_cam(toy.MLP, PARAMS, IMAGES, None).maps)
    assert (maps[:, 0, 0] == 0).all() and (maps.sum((1, 2)) == 8 * 10 - 1).all()


@pytest.mark.parametrize("name", FIXED)
def test_one_pixel(name):
    """There is nothing to draw on a single pixel: all but the uniform map are zero there, and say so."""
    apply = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a.mean((1, 2)))
    saliency = FIXED[name](apply, PARAMS, jnp.ones((2, 1, 1, 3)), None)
    np.testing.assert_array_equal(saliency.flat, np.full(2, name != "uniform_map"))
    np.testing.assert_array_equal(saliency.maps[:, 0, 0], np.full(2, name == "uniform_map"))


def test_gaussian_map_by_hand():
    maps = np.asarray(cams.gaussian_map(toy.MLP, PARAMS, IMAGES, None).maps)
    y, x = np.meshgrid((np.arange(8) - 3.5) / 2, (np.arange(10) - 4.5) / 2.5, indexing="ij")
    gaussian = np.exp(-(y**2 + x**2) / 2)
    expected = (gaussian - gaussian.min()) / np.ptp(gaussian)
    np.testing.assert_allclose(maps, np.broadcast_to(expected, maps.shape), atol=1e-6)
    np.testing.assert_array_equal(maps, maps[:, ::-1, ::-1])


def test_mean_activation_by_hand():
    activations, _ = toy.features(toy.params(), toy.images(batch=4))
    saliency = cams.mean_activation(toy.MLP, PARAMS, IMAGES, None)
    np.testing.assert_allclose(saliency.raw, activations.mean(-1), rtol=1e-5)
    np.testing.assert_allclose(saliency.weights, np.full((4, toy.CHANNELS), 1 / toy.CHANNELS), rtol=1e-6)
    enlarged = np.asarray(sscam.ops.resize(saliency.raw, (8, 10)))
    low, high = enlarged.min((1, 2), keepdims=True), enlarged.max((1, 2), keepdims=True)
    np.testing.assert_allclose(saliency.maps, (enlarged - low) / (high - low), atol=1e-5)


def test_noise_belongs_to_key_and_id():
    """Batch, order and composition change no image's noise; key and id do."""
    random_map = functools.partial(cams.random_map, toy.MLP, PARAMS)
    maps = np.asarray(random_map(IMAGES, None, key=KEY, ids=jnp.array([7, 8, 9, 7])).maps)
    np.testing.assert_allclose(maps[0], maps[3], atol=1e-6)
    alone = random_map(IMAGES[1:2], None, key=KEY, ids=jnp.array([9])).maps[0]
    np.testing.assert_allclose(alone, maps[2], atol=1e-6)
    counted = random_map(IMAGES, None, key=KEY, ids=jnp.arange(4)).maps
    np.testing.assert_allclose(random_map(IMAGES, None, key=KEY).maps, counted, atol=1e-6)
    others = np.asarray(random_map(IMAGES, None, key=jax.random.key(4), ids=jnp.array([7, 8, 9, 7])).maps)
    flat = np.concatenate([maps[:3], others[:3]]).reshape(6, -1)
    correlation = np.corrcoef(flat) - np.eye(6)
    assert np.abs(correlation).max() < 0.8


def test_noise_is_uniform():
    raw = np.asarray(cams.random_map(toy.MLP, PARAMS, jnp.zeros((2, 128, 128, 3)), None, key=KEY).raw)
    quantiles = np.quantile(raw, [0.1, 0.5, 0.9], axis=(1, 2))
    np.testing.assert_allclose(quantiles, np.broadcast_to([[0.1], [0.5], [0.9]], (3, 2)), atol=0.03)


def test_vmap_over_keys():
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key: cams.random_map(toy.MLP, PARAMS, IMAGES, LABELS, key=key).maps)(keys)
    for i in range(3):
        apart = cams.random_map(toy.MLP, PARAMS, IMAGES, LABELS, key=keys[i]).maps
        np.testing.assert_allclose(together[i], apart, atol=1e-6)


def test_random_map_errors(as_users_run_it):
    with pytest.raises(ValueError, match="key is of kind 'rbg', whose draws depend on the batch"):
        cams.random_map(toy.MLP, PARAMS, IMAGES, None, key=jax.random.key(0, impl="rbg"))
    with pytest.raises(ValueError, match=r"ids have shape \(3,\), expected \(4,\): one integer per image"):
        cams.random_map(toy.MLP, PARAMS, IMAGES, None, key=KEY, ids=jnp.arange(3))
