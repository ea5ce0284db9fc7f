"""ResNets (He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385), as in torchvision.

A bottleneck has its stride in the 3x3 convolution. In the paper it is in the 1x1 convolution before.
"""

import dataclasses
import functools

import jax
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named, Network, Stages, max_pool, submodules
from sscam_jax.networks.winograd import Conv3x3

_WIDTHS = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}


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

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(c_in, width, 3, stride, rngs)
        self.bn1 = _norm(width, rngs)
        self.conv2 = _conv(width, width, 3, 1, rngs)
        self.bn2 = _norm(width, rngs)
        self._fit(c_in, width * self.expansion, stride, rngs)

    def _fit(self, c_in: int, c_out: int, stride: int, rngs: nnx.Rngs) -> None:
        self.fitted = stride == 1 and c_in == c_out
        if not self.fitted:
            self.downsample = Named({"0": _conv(c_in, c_out, 1, stride, rngs), "1": _norm(c_out, rngs)})

    def residual(self, x: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        return self.bn2(self.conv2(jax.nn.relu(self.bn1(self.conv1(x)))))

    def __call__(self, x: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        residual = self.residual(x)
        if not self.fitted:
            x = getattr(self.downsample, "1")(getattr(self.downsample, "0")(x))
        return jax.nn.relu(residual + x)


class Bottleneck(BasicBlock):
    """ReLU(x + F(x)), where F is a 1x1, a 3x3 and a 1x1 convolution. The last one has four times the channels."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, rngs: nnx.Rngs) -> None:
        c_out = width * self.expansion
        self.conv1 = _conv(c_in, width, 1, 1, rngs)
        self.bn1 = _norm(width, rngs)
        self.conv2 = _conv(width, width, 3, stride, rngs)
        self.bn2 = _norm(width, rngs)
        self.conv3 = _conv(width, c_out, 1, 1, rngs)
        self.bn3 = _norm(c_out, rngs)
        self._fit(c_in, c_out, stride, rngs)

    def residual(self, x: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        return self.bn3(self.conv3(jax.nn.relu(super().residual(x))))


class ResNet(nnx.Module):
    """A ResNet. The attribute paths are torchvision's module paths."""

    def __init__(self, sizes: "Sizes", num_classes: int, rngs: nnx.Rngs) -> None:
        self.conv1 = _conv(3, 64, 7, 2, rngs)
        self.bn1 = _norm(64, rngs)
        self.names, c_in = [], 64
        for (layer, width), depth in zip(_WIDTHS.items(), sizes.depths, strict=True):
            setattr(self, layer, Named({}))
            for i in range(depth):
                stride = 2 if i == 0 and layer != "layer1" else 1
                setattr(getattr(self, layer), str(i), sizes.block(c_in, width, stride, rngs))
                self.names.append(f"{layer}.{i}")
                c_in = width * sizes.block.expansion
        self.fc = nnx.Linear(c_in, num_classes, rngs=rngs)

    def body(self) -> Stages:
        pool = functools.partial(max_pool, window=3, stride=2, padding=1)
        # A layer can be cut after any of these, so ReLU and pool have names too, as in torchvision.
        stages: Stages = {"conv1": self.conv1, "bn1": self.bn1, "relu": jax.nn.relu, "maxpool": pool}
        return stages | submodules(self, self.names)

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        return self.fc(features)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The kind of the blocks of a ResNet and their numbers in the four layers. Calling the object builds the module."""

    block: type[BasicBlock]
    depths: tuple[int, ...]

    def __call__(self, num_classes: int, rngs: nnx.Rngs) -> ResNet:
        return ResNet(self, num_classes, rngs)

    def network(self, name: str) -> Network:
        """Describe the network of these sizes."""
        # A chunk's features are held, so they must have fewer numbers than its images: the input of layer4 has more
        # in a network of bottlenecks, whose layers are four times as wide.
        late = f"layer4.{int(self.block is Bottleneck)}"
        return Network(name, self, groups=tuple(_WIDTHS), default_layer="layer4", smallest=1, late=late)


RESNET18 = Sizes(BasicBlock, (2, 2, 2, 2)).network("resnet18")
RESNET34 = Sizes(BasicBlock, (3, 4, 6, 3)).network("resnet34")
RESNET50 = Sizes(Bottleneck, (3, 4, 6, 3)).network("resnet50")
RESNET101 = Sizes(Bottleneck, (3, 4, 23, 3)).network("resnet101")
