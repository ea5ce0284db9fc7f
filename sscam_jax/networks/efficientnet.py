"""EfficientNet-B0 (Tan and Le, arXiv 1905.11946), as in torchvision, and EfficientNet-Lite0 (tensorflow/tpu).

Lite0 has no squeeze-and-excitation, ReLU6 in place of SiLU, and TensorFlow's padding. It is not in torchvision. Its
parameters have the names that torchvision gives to those of B0. Dropout is left out: inference only.
"""

import dataclasses

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.inverted import Activation, Block, Chain, InvertedResidual, Style
from sscam_jax.networks.network import Named, Network, Stages, submodules
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD

# The factor of the expansion, the side of the kernel, the stride of the first block, the channels, how many blocks.
_STAGES = (
    *((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)),
    *((6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)),
)
_STEM, _LAST = 32, 1280
_LITE_MEAN, _LITE_STD = 127 / 255, 128 / 255  # what Lite0's authors normalise pixels in [0, 1] with


class EfficientNet(nnx.Module):
    """A convolution, seven groups of inverted residuals, a 1x1 convolution, average pooling, and a linear layer."""

    def __init__(self, kind: "Kind", num_classes: int, rngs: nnx.Rngs) -> None:
        style, activation = kind.style, kind.activation
        groups, c_in = [], _STEM
        for factor, size, stride, c_out, count in _STAGES:
            blocks = []
            for i in range(count):
                sizes = c_in, factor * c_in, c_out, size, 1 if i else stride, activation
                squeezed = 0 if kind.lite else c_in // 4
                block = Block(*sizes, squeezed, (jax.nn.silu, jax.nn.sigmoid))
                blocks.append(InvertedResidual(block, style, rngs))
                c_in = c_out
            groups.append(Chain(blocks))
        first = Chain([style.conv(3, _STEM, 3, 2, rngs), style.norm(_STEM, rngs)], activation)
        last = Chain([style.conv(c_in, _LAST, 1, 1, rngs), style.norm(_LAST, rngs)], activation)
        self.features, self.lite = Chain([first, *groups, last]), kind.lite
        self.classifier = Named({"1": nnx.Linear(_LAST, num_classes, rngs=rngs)})

    def body(self) -> Stages:
        names = [f"features.{g}.{i}" for g, (*_, count) in enumerate(_STAGES, start=1) for i in range(count)]
        stages = submodules(self, ["features.0", *names, f"features.{len(_STAGES) + 1}"])
        return stages | ({"features.0": self._lite_stem} if self.lite else {})

    def _lite_stem(self, images: Float[Array, "b height width 3"]) -> Float[Array, "b h w c"]:
        # Images come normalised as for the other networks. The padding of zeros stands for other pixels here, so the
        # change of the normalisation can't be made in the kernel.
        mean, std = (np.array(each, np.float32) for each in (IMAGENET_MEAN, IMAGENET_STD))
        scale, shift = std / np.float32(_LITE_STD), (mean - np.float32(_LITE_MEAN)) / np.float32(_LITE_STD)
        scaled = images * scale.astype(images.dtype)[None, None, None] + shift.astype(images.dtype)[None, None, None]
        return getattr(self.features, "0")(scaled)

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        return getattr(self.classifier, "1")(features)


@dataclasses.dataclass(frozen=True)
class Kind:
    """B0 or Lite0. Calling the object builds the module."""

    activation: Activation
    style: Style
    lite: bool = False

    def __call__(self, num_classes: int, rngs: nnx.Rngs) -> EfficientNet:
        return EfficientNet(self, num_classes, rngs)

    def network(self, name: str) -> Network:
        """Describe the network of this kind."""
        groups = tuple(f"features.{g + 1}" for g in range(len(_STAGES)))
        return Network(name, self, (*groups, "features"), default_layer=f"features.{len(_STAGES) + 1}", smallest=1)


EFFICIENTNET_B0 = Kind(jax.nn.silu, Style()).network("efficientnet_b0")
EFFICIENTNET_LITE0 = Kind(jax.nn.relu6, Style(epsilon=1e-3, same=True), lite=True).network("efficientnet_lite0")
