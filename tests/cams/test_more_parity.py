"""More maps of torchcam 0.5.0 and pytorch-grad-cam 1.5.7, stored by tests/golden/maps_more.py: within 1e-4 of ours."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams, ops
from tests.cams.test_parity import IMAGES, KEY, features, linear_head, mlp_head

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/maps_more.npz")
LABELS = [1, 3]
# As in the generator: the samples and the standard deviation of Smooth Grad-CAM++'s noise.
SAMPLES, SIGMA = 3, 0.5
MLP, LINEAR = sscam.Apply(features, mlp_head), sscam.Apply(features, linear_head)
ONE = jnp.float32(1.0)


def compare(name: str, raw: jax.Array) -> None:
    """torchcam has unit(ReLU(raw)) at the layer's resolution, pytorch-grad-cam unit(U(ReLU(raw))) at the input's."""
    wanted, positive = GOLDEN[name], jax.nn.relu(raw)
    if name.startswith("pytorch_grad_cam/"):
        positive = ops.resize(positive, wanted.shape[1:])
    assert wanted.max() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(ops.unit(positive), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("torchcam/XGradCAM", cams.xgrad_cam, {}),
        ("torchcam/LayerCAM", cams.layer_cam, {}),
        ("torchcam/FinerCAM", cams.finer_cam, {}),
        ("torchcam/ISCAM", cams.is_cam, dict(preset="torchcam", n_samples=4)),
        ("pytorch_grad_cam/XGradCAM", cams.xgrad_cam, {}),
        ("pytorch_grad_cam/HiResCAM", cams.hires_cam, {}),
        ("pytorch_grad_cam/LayerCAM", cams.layer_cam, {}),
        ("pytorch_grad_cam/ShapleyCAM/logit", cams.shapley_cam, dict(utility="logit")),
        ("pytorch_grad_cam/ShapleyCAM/residual_softmax", cams.shapley_cam, {}),
    ],
)
def test_same_map(name, method, options):
    compare(name, method(MLP, ONE, IMAGES, LABELS, **options).raw)


def test_ablation_cam_but_for_the_sign_of_the_score():
    """pytorch-grad-cam divides by the logit itself: a negative one turns its map inside out."""
    saliency = cams.ablation_cam(MLP, ONE, IMAGES, LABELS)
    sign = jnp.sign(saliency.logits[jnp.arange(2), jnp.array(LABELS)])
    compare("pytorch_grad_cam/AblationCAM", saliency.raw * sign.reshape(2, 1, 1))


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [("EigenCAM", cams.eigen_cam, dict(center=True)), ("EigenGradCAM", cams.eigen_grad_cam, {})],
)
def test_principal_components_but_for_their_sign(name, method, options):
    """pytorch-grad-cam leaves the sign to LAPACK, image by image."""
    raw = method(MLP, ONE, IMAGES, LABELS, **options).raw
    wanted = GOLDEN[f"pytorch_grad_cam/{name}"]
    for i in range(2):
        found = [ops.unit(ops.resize(jax.nn.relu(sign * raw[i : i + 1]), wanted.shape[1:]))[0] for sign in (1, -1)]
        assert min(abs(each - wanted[i]).max() for each in found) < 1e-4


def test_finer_cam_of_one_reference():
    saliency = cams.finer_cam(MLP, ONE, IMAGES, [LABELS[0]] * 2, n_references=1)
    compare("pytorch_grad_cam/FinerCAM", saliency.raw)


def noisy(sample: int) -> jax.Array:
    """The images with the noise that `smooth_grad_cam_pp` documents."""
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, image), sample) for image in range(2)]
    return IMAGES + SIGMA * jnp.stack([jax.random.normal(key, IMAGES.shape[1:]) for key in keys])


def test_smooth_grad_cam_pps_weights():
    """torchcam sums the activations of the last noisy image, not of the image; the weights are the same.

    With a linear head every noisy image has the same gradient.
    """
    scale = jnp.float32(1000.0)
    saliency = cams.smooth_grad_cam_pp(LINEAR, scale, IMAGES, LABELS, key=KEY, n_samples=SAMPLES, sigma=SIGMA)
    last, _ = features(scale, noisy(SAMPLES - 1))
    compare("torchcam/SmoothGradCAMpp/linear", jnp.einsum("bhwc,bc->bhw", last, saliency.weights))


def test_what_torchcams_smooth_grad_cam_pp_takes_instead():
    """ReLU of the last noisy image's gradient, not of the mean; Σ_ab A_ab D3_ab, not (Σ_ab A_ab) D3_ij."""
    scale, labels = jnp.float32(1000.0), jnp.array(LABELS)

    def total(activations):
        return mlp_head(scale, activations, ())[jnp.arange(2), labels].sum()

    gradients = [jax.grad(total)(features(scale, noisy(sample))[0]) for sample in range(SAMPLES)]
    activations, _ = features(scale, IMAGES)
    d2, d3 = (jnp.mean(jnp.stack(gradients) ** p, axis=0) for p in (2, 3))
    a = d2 / (2 * d2 + (activations * d3).sum((1, 2), keepdims=True))
    weights = (a * jax.nn.relu(gradients[-1])).sum((1, 2))
    last, _ = features(scale, noisy(SAMPLES - 1))
    compare("torchcam/SmoothGradCAMpp/mlp", jnp.einsum("bhwc,bc->bhw", last, weights))


def test_augmentation_smoothing():
    """LayerCAM's raw map is never negative, so the order of resizing and normalising does not matter."""
    saliency = cams.over_augmentations(cams.layer_cam, MLP, ONE, IMAGES, LABELS)
    wanted = GOLDEN["pytorch_grad_cam/LayerCAM/aug_smooth"]
    np.testing.assert_allclose(saliency.raw, wanted, rtol=0, atol=1e-4)
