"""Chunks, devices and memory change no map, draws belong to key and id, and dead channels cost no pass."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from tests import toy
from tests.cams.explained import IMAGES, KEY, LABELS, PARAMS, explain, same, ss_cam
from tests.marks import quick


@pytest.mark.parametrize(
    ("noise", "chunk_size"),
    quick(
        [("independent", 5), ("independent", 1000), ("common", 1)],
        itertools.product(["independent", "common"], [1, 5, 6, 12, 1000]),
    ),
)
def test_chunks_change_nothing(noise, chunk_size):
    """4. The noise of (image, channel, sample) depends on the key and these indices only."""
    whole, cut = ss_cam(n_samples=4, noise=noise), ss_cam(n_samples=4, noise=noise, chunk_size=chunk_size)
    np.testing.assert_allclose(whole.weights, cut.weights, rtol=1e-5, atol=1e-7)


def test_noise_belongs_to_image_channel_and_sample():
    """4. Another key, id, channel or sample is other noise; common noise is shared by images and channels."""
    flat = sscam.Apply(
        lambda params, x: (jnp.stack([x[..., 0]] * 3, axis=-1), ()),
        lambda params, a, carry: jnp.stack([a[..., 0].mean((1, 2)), a[..., 0].mean((1, 2))], axis=-1),
    )
    twins = jnp.concatenate([IMAGES[:1], IMAGES[:1]])

    def weights(key=KEY, **options):
        options = dict(n_samples=1, score="logit", sigma_mode="std", sigma=1.0) | options
        return sscam.ss_cam(flat, None, twins, [0, 0], key=key, **options).weights

    independent = weights()
    assert np.diff(np.sort(independent, axis=None)).min() > 1e-5
    assert (weights(key=jax.random.key(6)) != independent).all()
    same_id = weights(ids=jnp.array([4, 4]))
    np.testing.assert_allclose(same_id[0], same_id[1], atol=1e-6)
    assert np.ptp(weights(noise="common")) < 1e-6


def test_constant_channels_get_no_pass():
    """Passes are counted where they happen: dead chunks run nothing."""
    passes = []

    def head(params, activations, carry):
        jax.debug.callback(lambda: passes.append(activations.shape[0]))
        return toy.mlp_head(params, activations, carry)

    half_dead = PARAMS | dict(conv=PARAMS["conv"].at[:, 2:].set(0.0))
    for params, live in ((PARAMS, 6), (half_dead, 2)):
        passes.clear()
        saliency = ss_cam(sscam.Apply(toy.features, head), params, IMAGES[:1].repeat(2, 0), chunk_size=2, n_samples=5)
        jax.effects_barrier()
        assert (saliency.weights != 0).sum() == 2 * live
        # 2 passes for the logits of the images as they are, then channels × samples.
        assert sum(passes) == 2 + 2 * live * 5


@pytest.mark.slow
def test_memory_does_not_grow_with_samples():
    """The compiled program's temporary memory at N = 100 is that of N = 10, within 5 %."""

    def temporary_bytes(n):
        def explain(params, images):
            return sscam.ss_cam(toy.MLP, params, images, LABELS, key=KEY, n_samples=n, chunk_size=12)

        images = jnp.asarray(toy.images(size=32))
        return jax.jit(explain).lower(PARAMS, images).compile().memory_analysis().temp_size_in_bytes

    few, many = temporary_bytes(10), temporary_bytes(100)
    assert few > 0
    assert many <= 1.05 * few


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


WALKED = {
    "ablation_cam": {},
    "recipro_cam": {},
    "group_cam": dict(groups=3),
    "is_cam": dict(n_samples=3),
    "occlusion": dict(window=4, stride=3),
    "rise": dict(n_samples=10, cells=3, key=KEY),
}


@pytest.mark.parametrize("name", quick(["ablation_cam", "rise"], WALKED))
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
