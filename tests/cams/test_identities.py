"""What any implementation of the methods must satisfy, whatever its code looks like: laws of their papers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from sscam_jax.cams import eigen, registry
from tests import toy
from tests.cams.explained import IMAGES, KEY, LABELS, PARAMS, explain, same, ss_cam
from tests.marks import quick


@pytest.mark.parametrize(
    ("preset", "noise_on"),
    quick(
        [("original", "masked_input"), ("torchcam", "mask")],
        itertools.product(sscam.SCORE_CAM_PRESETS, ["masked_input", "mask"]),
    ),
)
def test_without_noise_it_is_score_cam(preset, noise_on):
    """1. std = 0, N = 1, no prior: exactly Score-CAM with the same score, baseline and channel softmax."""
    plain = sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS, preset=preset)
    quiet = ss_cam(noise_on=noise_on, sigma=0.0, n_samples=1, **registry.options("score-cam", preset=preset))
    for a, b in zip(plain, quiet, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=3e-5)  # two programs round differently


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


@pytest.mark.parametrize("preset", quick(["paper"], ["paper", "algorithm1", "authors_released", "torchcam"]))
def test_a_constant_channel_changes_nothing(preset):
    """5. A channel that is constant adds nothing to the map, and gets no weight."""

    def with_constant(params, x):
        activations, carry = toy.features(params, x)
        return jnp.concatenate([activations, jnp.full_like(activations[..., :1], 7.0)], axis=-1), carry

    def ignoring_it(params, activations, carry):
        return toy.mlp_head(params, activations[..., :-1], carry)

    more = sscam.Apply(with_constant, ignoring_it)
    a, b = ss_cam(preset=preset), ss_cam(more, preset=preset)
    np.testing.assert_allclose(a.maps, b.maps, atol=1e-5)
    assert not b.weights[:, -1].any()


def test_scaling_an_activation_leaves_its_mask():
    """6. A channel scaled by a positive constant, which the head undoes, has the same score."""
    scales = jnp.array([1.0, 3.0, 0.2, 1.0, 10.0, 1.0])

    def scaled(params, x):
        activations, carry = toy.features(params, x)
        return activations * scales, carry

    apply = sscam.Apply(scaled, lambda params, a, carry: toy.mlp_head(params, a / scales, carry))
    with jax.numpy_rank_promotion("allow"):
        np.testing.assert_allclose(ss_cam(apply).weights, ss_cam().weights, rtol=1e-4)


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


def test_a_constant_map_says_nothing():
    """Some versions of JAX round 0.123456 apart when they enlarge it: that is no map."""
    apply = sscam.Apply(
        lambda params, x: (jnp.full((x.shape[0], 7, 7, 1), 0.123456), ()), lambda params, a, carry: a.sum((1, 2))
    )
    saliency = cams.grad_cam(apply, None, jnp.zeros((1, 224, 224, 3)), [0])
    assert saliency.flat.all() and not saliency.maps.any() and saliency.raw.all()
