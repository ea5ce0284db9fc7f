"""DenseNet-121 (Huang et al., Densely Connected Convolutional Networks, arXiv 1608.06993), as in torchvision."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named, Network, Stages, average_pool, max_pool, submodules
from sscam_jax.networks.winograd import Conv3x3

# DenseNet-BC: a layer adds 32 channels, through a bottleneck of 4 · 32.
_DEPTHS, _GROWTH, _BOTTLENECK, _STEM = (6, 12, 24, 16), 32, 128, 64


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    # Always with the stored mean and variance, as in resnet.py.
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=1e-5, rngs=rngs)


class DenseLayer(nnx.Module):
    """[x, F(x)], where F is a 1x1 and a 3x3 convolution, each after batch normalisation and ReLU."""

    def __init__(self, c_in: int, rngs: nnx.Rngs) -> None:
        self.norm1 = _norm(c_in, rngs)
        self.conv1 = nnx.Conv(c_in, _BOTTLENECK, (1, 1), use_bias=False, rngs=rngs)
        self.norm2 = _norm(_BOTTLENECK, rngs)
        self.conv2 = Conv3x3(_BOTTLENECK, _GROWTH, use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h w c"]:
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        return jnp.concatenate([x, self.conv2(jax.nn.relu(self.norm2(y)))], axis=-1)


class DenseBlock(Named):
    """Dense layers one after another. Each sees the maps of all before it."""

    def __init__(self, c_in: int, depth: int, rngs: nnx.Rngs) -> None:
        super().__init__({f"denselayer{i + 1}": DenseLayer(c_in + i * _GROWTH, rngs) for i in range(depth)})
        self.depth = depth

    def __call__(self, x: Float[Array, "b h w c_in"]) -> Float[Array, "b h w c"]:
        for i in range(self.depth):
            x = getattr(self, f"denselayer{i + 1}")(x)
        return x


class Transition(nnx.Module):
    """Half the channels and half the size: batch normalisation, ReLU, a 1x1 convolution, average pooling."""

    def __init__(self, c_in: int, rngs: nnx.Rngs) -> None:
        self.norm = _norm(c_in, rngs)
        self.conv = nnx.Conv(c_in, c_in // 2, (1, 1), use_bias=False, rngs=rngs)

    def __call__(self, x: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        return average_pool(self.conv(jax.nn.relu(self.norm(x))), 2)


class DenseNet121(nnx.Module):
    """DenseNet-121. The attribute paths are torchvision's module paths."""

    def __init__(self, num_classes: int, rngs: nnx.Rngs) -> None:
        stem = nnx.Conv(3, _STEM, (7, 7), 2, padding=3, use_bias=False, rngs=rngs)
        features: dict[str, nnx.Module] = {"conv0": stem, "norm0": _norm(_STEM, rngs)}
        channels = _STEM
        for i, depth in enumerate(_DEPTHS, start=1):
            features[f"denseblock{i}"] = DenseBlock(channels, depth, rngs)
            channels += depth * _GROWTH
            if i < len(_DEPTHS):
                features[f"transition{i}"] = Transition(channels, rngs)
                channels //= 2
        self.features = Named(features | {"norm5": _norm(channels, rngs)})
        self.names = [f"features.{name}" for name in (*features, "norm5")]
        self.classifier = nnx.Linear(channels, num_classes, rngs=rngs)

    def body(self) -> Stages:
        modules = submodules(self, self.names)
        first, last = self.names[:2], self.names[2:]
        pool = functools.partial(max_pool, window=3, stride=2, padding=1)
        return {
            **{name: modules[name] for name in first},
            "features.relu0": jax.nn.relu,
            "features.pool0": pool,
            **{name: modules[name] for name in last},
            "relu": jax.nn.relu,  # torchvision calls a function here, so that this stage has no name there
        }

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        return self.classifier(features)


# Three transitions and two strided layers: below 29 pixels the last transition has nothing to pool.
DENSENET121 = Network("densenet121", DenseNet121, ("features",), default_layer="relu", smallest=29)
