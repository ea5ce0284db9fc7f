"""What any implementation of SS-CAM must satisfy, whatever its code looks like."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from tests import toy

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(5)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=2))
LABELS = jnp.array([1, 2])


def ss_cam(apply=toy.MLP, params=PARAMS, images=IMAGES, **options):
    return sscam.ss_cam(apply, params, images, LABELS, key=KEY, **(dict(n_samples=3, chunk_size=4) | options))


@pytest.mark.parametrize("noise_on", ["masked_input", "mask"])
@pytest.mark.parametrize("preset", sscam.SCORE_CAM_PRESETS)
def test_without_noise_it_is_score_cam(noise_on, preset):
    """1. std = 0, N = 1, no prior: exactly Score-CAM with the same score, baseline and channel softmax."""
    plain = sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS, preset=preset)
    quiet = ss_cam(noise_on=noise_on, sigma=0.0, n_samples=1, **sscam.SCORE_CAM_PRESETS[preset])
    for a, b in zip(plain, quiet, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_with_equal_scores_the_prior_makes_grad_cam():
    """2. Grad-CAM's α in mask and sum, all scores equal: exactly Grad-CAM."""

    def one(logits, label):
        return jnp.ones_like(logits[0])

    even = ss_cam(prior="grad_cam", prior_in_sum=True, score=one)
    wanted = sscam.grad_cam(toy.MLP, PARAMS, IMAGES, LABELS)
    np.testing.assert_allclose(even.maps, wanted.maps, atol=1e-6)
    np.testing.assert_allclose(even.raw, wanted.raw, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise", ["independent", "common"])
def test_maximum_never_falls_with_more_samples(noise):
    """3. The first draws do not change when N grows."""
    weights = [ss_cam(n_samples=n, noise=noise).weights for n in (1, 2, 5)]
    rounding = 1e-6
    assert (weights[1] >= weights[0] - rounding).all() and (weights[2] >= weights[1] - rounding).all()
    assert (weights[2] > weights[0] + rounding).any()


@pytest.mark.parametrize("noise", ["independent", "common"])
@pytest.mark.parametrize("chunk_size", [1, 5, 6, 12, 1000])
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
    assert len(np.unique(independent)) == 6
    assert (weights(key=jax.random.key(6)) != independent).all()
    np.testing.assert_array_equal(weights(ids=jnp.array([4, 4]))[0], weights(ids=jnp.array([4, 4]))[1])
    assert len(np.unique(weights(noise="common"))) == 1


def test_a_constant_channel_changes_nothing():
    """5. A channel that is constant adds nothing to the map, and gets no weight."""

    def with_constant(params, x):
        activations, carry = toy.features(params, x)
        return jnp.concatenate([activations, jnp.full_like(activations[..., :1], 7.0)], axis=-1), carry

    def ignoring_it(params, activations, carry):
        return toy.mlp_head(params, activations[..., :-1], carry)

    more = sscam.Apply(with_constant, ignoring_it)
    for preset in sscam.SS_CAM_PRESETS:
        a, b = ss_cam(preset=preset), ss_cam(more, preset=preset)
        np.testing.assert_allclose(a.maps, b.maps, atol=1e-5, err_msg=preset)
        assert not b.weights[:, -1].any()


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


def test_scaling_an_activation_leaves_its_mask():
    """6. A channel scaled by a positive constant, which the head undoes, has the same score."""
    scales = jnp.array([1.0, 3.0, 0.2, 1.0, 10.0, 1.0])

    def scaled(params, x):
        activations, carry = toy.features(params, x)
        return activations * scales, carry

    apply = sscam.Apply(scaled, lambda params, a, carry: toy.mlp_head(params, a / scales, carry))
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(ss_cam(apply).weights, ss_cam().weights, rtol=1e-4)


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
