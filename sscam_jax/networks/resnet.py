"""ResNet-18 (He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385), as in torchvision."""

import functools

import jax
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named, Network, Stages, max_pool
from sscam_jax.networks.winograd import Conv3x3

_WIDTHS = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
_BLOCKS = ("0", "1")


def _conv(c_in: int, c_out: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    # Only a 3x3 convolution at stride 1 has a fast form on CPUs: see winograd.py.
    if size == 3 and stride == 1:
        return Conv3x3(c_in, c_out, use_bias=False, rngs=rngs)
    return nnx.Conv(c_in, c_out, (size, size), stride, padding=size // 2, use_bias=False, rngs=rngs)


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    # Always with the stored mean and variance: an explanation must not depend on the other images of the batch.
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=1e-5, rngs=rngs)


class BasicBlock(nnx.Module):
    """ReLU(x + F(x)), where F is two 3x3 convolutions.

    If F changes the size or the number of channels, a 1x1 convolution gives x the same shape as F(x).
    """

    def __init__(self, c_in: int, c_out: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(c_in, c_out, 3, stride, rngs)
        self.bn1 = _norm(c_out, rngs)
        self.conv2 = _conv(c_out, c_out, 3, 1, rngs)
        self.bn2 = _norm(c_out, rngs)
        self.fitted = stride == 1 and c_in == c_out
        if not self.fitted:
            self.downsample = Named({"0": _conv(c_in, c_out, 1, stride, rngs), "1": _norm(c_out, rngs)})

    def __call__(self, x: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        residual = self.bn2(self.conv2(jax.nn.relu(self.bn1(self.conv1(x)))))
        if not self.fitted:
            x = getattr(self.downsample, "1")(getattr(self.downsample, "0")(x))
        return jax.nn.relu(residual + x)


class ResNet18(nnx.Module):
    """ResNet-18. The attribute paths are torchvision's module paths."""

    def __init__(self, num_classes: int, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(3, 64, 7, 2, rngs)
        self.bn1 = _norm(64, rngs)
        c_in = 64
        for layer, width in _WIDTHS.items():
            stride = 1 if layer == "layer1" else 2
            blocks = {"0": BasicBlock(c_in, width, stride, rngs), "1": BasicBlock(width, width, 1, rngs)}
            setattr(self, layer, Named(blocks))
            c_in = width
        self.fc = nnx.Linear(c_in, num_classes, rngs=rngs)

    def body(self) -> Stages:
        pool = functools.partial(max_pool, window=3, stride=2, padding=1)
        # A layer can be cut after any of these, so ReLU and pool have names too, as in torchvision.
        stages: Stages = {"conv1": self.conv1, "bn1": self.bn1, "relu": jax.nn.relu, "maxpool": pool}
        blocks = {f"{layer}.{i}": getattr(getattr(self, layer), i) for layer in _WIDTHS for i in _BLOCKS}
        return stages | blocks

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        return self.fc(features)


RESNET18 = Network("resnet18", ResNet18, groups=tuple(_WIDTHS), default_layer="layer4", smallest=1, late="layer4.0")
