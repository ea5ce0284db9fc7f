"""VGG-16 (Simonyan and Zisserman, arXiv 1409.1556), as in torchvision: no batch normalisation."""

import functools

import jax
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named, Network, Stages, adaptive_average_pool, max_pool
from sscam_jax.networks.winograd import Conv3x3

_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# One entry per module of torchvision's `features`: the width of a convolution, its ReLU, or the pool of a block.
_PLAN = tuple(kind for widths in _BLOCKS for kind in (*(k for w in widths for k in (w, "relu")), "pool"))


class VGG16(nnx.Module):
    """VGG-16. The attribute paths are torchvision's module paths. Dropout is left out: inference only."""

    def __init__(self, num_classes: int, rngs: nnx.Rngs) -> None:
        convolutions = {}
        c_in = 3
        for index, kind in enumerate(_PLAN):
            if isinstance(kind, int):
                convolutions[str(index)] = Conv3x3(c_in, kind, rngs=rngs)
                c_in = kind
        self.features = Named(convolutions)
        sizes = {"0": (7 * 7 * c_in, 4096), "3": (4096, 4096), "6": (4096, num_classes)}
        self.classifier = Named({i: nnx.Linear(*size, rngs=rngs) for i, size in sizes.items()})

    def body(self) -> Stages:
        kinds: Stages = {"relu": jax.nn.relu, "pool": functools.partial(max_pool, window=2, stride=2)}
        return {
            f"features.{index}": kinds[kind] if isinstance(kind, str) else getattr(self.features, str(index))
            for index, kind in enumerate(_PLAN)
        }

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        # Here the order of the features is h, w, c. In the checkpoint it is c, h, w, and `convert.rules` permutes it.
        return adaptive_average_pool(activations, 7).reshape(activations.shape[0], -1)

    def classify(self, features: Float[Array, "b d"]) -> Float[Array, "b n"]:
        first, second, last = (getattr(self.classifier, i) for i in ("0", "3", "6"))
        return last(jax.nn.relu(second(jax.nn.relu(first(features)))))


VGG16_NETWORK = Network(
    "vgg16", VGG16, groups=("features",), default_layer="features.29", smallest=32, late="features.24"
)
