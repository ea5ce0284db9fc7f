"""MobileNetV2 (Sandler et al., arXiv 1801.04381) and MobileNetV3 (Howard et al., arXiv 1905.02244), as in torchvision.

Their width is 1. The attribute paths are torchvision's module paths. Dropout is left out: inference only.
"""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.inverted import Activation, Block, Chain, InvertedResidual, Style
from sscam_jax.networks.network import Named, Network, Stages, submodules

_HARD = jax.nn.hard_swish

# MobileNetV2's blocks: the factor of the expansion, the channels, how many blocks, and the stride of the first.
_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# MobileNetV3's: kernel size, expanded channels, channels, squeeze-and-excitation, hard swish, stride.
_V3 = {
    "large": (
        *((3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2)),
        *((5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2), (3, 200, 80, 0, 1, 1)),
        *((3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1)),
        *((5, 672, 160, 1, 1, 2), (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1)),
    ),
    "small": (
        *((3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2)),
        *((5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1), (5, 144, 48, 1, 1, 1)),
        *((5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1), (5, 576, 96, 1, 1, 1)),
    ),
}


def _multiple_of_8(channels: int) -> int:
    """Round to the nearest multiple of 8, and up where that takes away more than a tenth."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _v2_blocks() -> tuple[Block, ...]:
    blocks: list[Block] = []
    c_in = 32
    for factor, channels, count, stride in _V2:
        for i in range(count):
            blocks.append(Block(c_in, factor * c_in, channels, 3, 1 if i else stride, jax.nn.relu6))
            c_in = channels
    return tuple(blocks)


def _v3_blocks(version: str) -> tuple[Block, ...]:
    rows = _V3[version]
    inputs = (16, *(row[2] for row in rows))
    # `inputs` has one entry more than `rows`: the last block's output is nobody's input here.
    return tuple(
        Block(c_in, wide, c_out, size, stride, _HARD if hard else jax.nn.relu, _multiple_of_8(wide // 4) if se else 0)
        for c_in, (size, wide, c_out, se, hard, stride) in zip(inputs, rows, strict=False)
    )


class MobileNet(nnx.Module):
    """A convolution, inverted residuals, a 1x1 convolution, average pooling, and one or two linear layers."""

    def __init__(self, sizes: "Sizes", num_classes: int, rngs: nnx.Rngs) -> None:
        style, blocks, last = sizes.style, sizes.blocks, sizes.last
        stem, end = blocks[0].c_in, blocks[-1].c_out
        features: list[nnx.Module] = [
            Chain([style.conv(3, stem, 3, 2, rngs), style.norm(stem, rngs)], sizes.activation),
            *(InvertedResidual(block, style, rngs, sizes.steps) for block in blocks),
            Chain([style.conv(end, last, 1, 1, rngs), style.norm(last, rngs)], sizes.activation),
        ]
        self.features, self.names = Chain(features), [f"features.{i}" for i in range(len(features))]
        widths = (last, *sizes.hidden, num_classes)
        # Torchvision's numbers in `classifier`: an activation and dropout stand between or before the linear layers.
        places = ("0", "3") if sizes.hidden else ("1",)
        layers = [nnx.Linear(*pair, rngs=rngs) for pair in zip(widths, widths[1:], strict=False)]
        self.classifier = Named(dict(zip(places, layers, strict=True)))
        self.hidden = bool(sizes.hidden)

    def body(self) -> Stages:
        return submodules(self, self.names)

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        if not self.hidden:
            return getattr(self.classifier, "1")(features)
        return getattr(self.classifier, "3")(_HARD(getattr(self.classifier, "0")(features)))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a MobileNet. Calling the object builds the module.

    Attributes:
        blocks: the inverted residuals.
        last: the number of channels of the last maps.
        hidden: the width of the linear layer before the last, if there is one.
        activation: the activation of the first and the last convolution.
        style: what the convolutions have in common.
        steps: torchvision's name for the inside of a block.
    """

    blocks: tuple[Block, ...]
    last: int
    hidden: tuple[int, ...]
    activation: Activation = _HARD
    # torchvision's MobileNetV3 adds 1e-3 to the variance, its MobileNetV2 PyTorch's default of 1e-5.
    style: Style = Style(epsilon=1e-3)
    steps: str = "block"

    def __call__(self, num_classes: int, rngs: nnx.Rngs) -> MobileNet:
        return MobileNet(self, num_classes, rngs)

    def network(self, name: str) -> Network:
        """Describe the network of these sizes."""
        return Network(name, self, ("features",), default_layer=f"features.{len(self.blocks) + 1}", smallest=1)


MOBILENET_V2 = Sizes(_v2_blocks(), 1280, (), jax.nn.relu6, Style(), "conv").network("mobilenet_v2")
MOBILENET_V3_SMALL = Sizes(_v3_blocks("small"), 576, (1024,)).network("mobilenet_v3_small")
MOBILENET_V3_LARGE = Sizes(_v3_blocks("large"), 960, (1280,)).network("mobilenet_v3_large")
