"""SqueezeNet 1.0 and 1.1 (Iandola et al., arXiv 1602.07360), as in torchvision: pools in ceil mode."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named, Network, Stages, max_pool
from sscam_jax.networks.winograd import Conv3x3

# One entry per module of torchvision's `features`, without the first convolution and its ReLU: a pool, or the
# widths (squeeze, expand) of a fire module. The pools stand in other places in the two versions.
_PLANS: dict[str, tuple[str | tuple[int, int], ...]] = {
    "1.0": ("pool", (16, 64), (16, 64), (32, 128), "pool")
    + ((32, 128), (48, 192), (48, 192), (64, 256), "pool", (64, 256)),
    "1.1": ("pool", (16, 64), (16, 64), "pool", (32, 128), (32, 128), "pool")
    + ((48, 192), (48, 192), (64, 256), (64, 256)),
}
_STEMS = {"1.0": (96, 7), "1.1": (64, 3)}  # the number of channels and the kernel size of the first convolution


class EvenConv(nnx.Conv):
    """A 7x7 convolution at stride 2 without padding, computed as an 8x8 convolution because that is faster.

    The kernel gets one more row and column of zeros, and so does the image. This changes no output. On XLA's CPU
    backend an 8x8 kernel takes two thirds of the time of a 7x7 kernel.
    """

    def __call__(
        self, inputs: Float[Array, "b height width c_in"], out_sharding: Any = None
    ) -> Float[Array, "b h w c"]:
        kernel = jnp.pad(self.kernel[...], ((0, 1), (0, 1), (0, 0), (0, 0)))
        layout = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(inputs, kernel, (2, 2), [(0, 1), (0, 1)], dimension_numbers=layout)
        assert self.bias is not None
        return y + self.bias[...].reshape(1, 1, 1, -1)


class Fire(nnx.Module):
    """A 1x1 convolution to few channels, then a 1x1 and a 3x3 convolution whose outputs are concatenated."""

    def __init__(self, c_in: int, squeeze: int, expand: int, rngs: nnx.Rngs) -> None:
        self.squeeze = nnx.Conv(c_in, squeeze, (1, 1), rngs=rngs)
        self.expand1x1 = nnx.Conv(squeeze, expand, (1, 1), rngs=rngs)
        self.expand3x3 = Conv3x3(squeeze, expand, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h w c"]:
        x = jax.nn.relu(self.squeeze(x))
        return jnp.concatenate([jax.nn.relu(self.expand1x1(x)), jax.nn.relu(self.expand3x3(x))], axis=-1)


class SqueezeNet1_0(nnx.Module):
    """SqueezeNet 1.0. The attribute paths are torchvision's module paths. Dropout is left out: inference only."""

    version = "1.0"

    def __init__(self, num_classes: int, rngs: nnx.Rngs) -> None:
        c_in, size = _STEMS[self.version]
        conv = EvenConv if size == 7 else nnx.Conv  # a 3x3 kernel is not faster as 4x4
        stem = conv(3, c_in, (size, size), 2, padding="VALID", rngs=rngs)
        features: dict[str, nnx.Module] = {"0": stem}
        for index, widths in enumerate(_PLANS[self.version], start=2):
            if not isinstance(widths, str):
                squeeze, expand = widths
                features[str(index)] = Fire(c_in, squeeze, expand, rngs)
                c_in = 2 * expand
        self.features = Named(features)
        self.classifier = Named({"1": nnx.Conv(c_in, num_classes, (1, 1), rngs=rngs)})

    def body(self) -> Stages:
        pool = functools.partial(max_pool, window=3, stride=2, ceil_mode=True)
        stages: Stages = {"features.0": getattr(self.features, "0"), "features.1": jax.nn.relu}
        for index, widths in enumerate(_PLANS[self.version], start=2):
            stages[f"features.{index}"] = pool if widths == "pool" else getattr(self.features, str(index))
        return stages | {"classifier.1": getattr(self.classifier, "1"), "classifier.2": jax.nn.relu}

    def pool(self, activations: Float[Array, "b h w n"]) -> Float[Array, "b n"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b n"]) -> Float[Array, "b n"]:
        return features  # the body ends in the classifier's convolution, so the pooled maps are the logits


class SqueezeNet1_1(SqueezeNet1_0):
    """SqueezeNet 1.1: the same modules with a smaller first convolution and earlier pools."""

    version = "1.1"


SQUEEZENET1_0 = Network("squeezenet1_0", SqueezeNet1_0, ("features",), default_layer="features.12", smallest=21)
SQUEEZENET1_1 = Network("squeezenet1_1", SqueezeNet1_1, ("features",), default_layer="features.12", smallest=17)
