"""PyTorch modules, against PyTorch's own hooks and gradients."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import adapt

torch = pytest.importorskip("torch")
pytest.importorskip("torchax")

IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def as_its_users_run_it():
    """torchax promotes types and ranks, and warns."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        yield


class Block(torch.nn.Module):
    """A residual block as torchvision has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(width, width, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(width)
        self.relu = torch.nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.bn(self.conv(x)))


def resnet() -> torch.nn.Module:
    stem = torch.nn.Conv2d(3, 8, 3, 2, 1)
    return torch.nn.Sequential(
        stem, Block(8), Block(8), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)
    )


class ViT(torch.nn.Module):
    """A transformer as timm has it: patches, a class token, one block that reads the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = torch.nn.Conv2d(3, 8, 4, 4)
        self.cls = torch.nn.Parameter(torch.randn(1, 1, 8))
        self.norm1, self.norm = torch.nn.LayerNorm(8), torch.nn.LayerNorm(8)
        self.qkv, self.proj = torch.nn.Linear(8, 24), torch.nn.Linear(8, 8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(torch.nn.functional.scaled_dot_product_attention(q, k, v))
        return self.head(self.norm(x)[:, 0])


def by_hand(module, layer: str, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Activations and gradient of a logit at a layer, by PyTorch's hooks."""
    found = []

    def hook(module, args, output):
        output.retain_grad()
        found.append(output)

    handle = module.get_submodule(layer).register_forward_hook(hook)
    module(torch.from_numpy(IMAGES).permute(0, 3, 1, 2))[:, label].sum().backward()
    handle.remove()
    return found[0].detach().numpy(), found[0].grad.numpy()


@pytest.mark.parametrize("layer", ["1", "2.bn", "2"])
def test_torchvision_style(layer):
    torch.manual_seed(0)
    module = resnet().eval()
    activations, gradients = by_hand(module, layer, 3)
    expected = np.einsum("bc,bchw->bhw", gradients.mean((2, 3)), activations)
    apply, params = adapt.torch(module, layer)
    raw = sscam.grad_cam(apply, params, jnp.asarray(IMAGES), [3, 3]).raw
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert apply == adapt.torch(module, layer)[0] and not module.get_submodule(layer)._forward_hooks
    with torch.no_grad():
        expected = module(torch.from_numpy(IMAGES).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(apply(params, jnp.asarray(IMAGES)), expected, rtol=1e-4, atol=1e-5)


def test_timm_style_with_tokens_that_are_counted():
    torch.manual_seed(0)
    module = ViT().eval()
    activations, gradients = by_hand(module, "norm1", 2)
    patches = [each[:, 1:].reshape(2, 4, 4, 8) for each in (activations, gradients)]
    expected = np.einsum("bc,bhwc->bhw", patches[1].mean((1, 2)), patches[0])
    raw = sscam.grad_cam(*adapt.torch(module, "norm1"), jnp.asarray(IMAGES), [2, 2]).raw
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_score_cam():
    torch.manual_seed(0)
    saliency = sscam.score_cam(*adapt.torch(resnet().eval(), "2"), jnp.asarray(IMAGES), [0, 1], chunk_size=4)
    assert saliency.weights.shape == (2, 8) and saliency.raw.any()


def test_mistakes():
    module = resnet()
    with pytest.raises(ValueError, match="the module is in training mode, at Sequential, 0, .*: call module.eval"):
        adapt.torch(module, "2")
    with pytest.raises(ValueError, match="layer 'layer4' is not a module of Sequential, .*; choose from '0', '1', "):
        adapt.torch(module.eval(), "layer4")
    with pytest.raises(ValueError, match="adapt.equinox is given a torch.* use adapt.torch"):
        adapt.equinox(module, "2")
