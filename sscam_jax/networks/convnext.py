"""ConvNeXt-Tiny (Liu et al., A ConvNet for the 2020s, arXiv 2201.03545), as in torchvision."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named, Network, Stages, submodules
from sscam_jax.networks.transformer import Norm

_EPSILON = 1e-6


class ConvNeXtBlock(nnx.Module):
    """x + layer_scale · F(x), where F filters each channel, normalises each place, and applies a layer of two steps."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        # torchvision's numbers: 1, 4 and 6 are a permutation of the axes, GELU, and the permutation back.
        self.block = Named(
            {
                "0": nnx.Conv(width, width, (7, 7), padding=3, feature_group_count=width, rngs=rngs),
                "2": Norm(width, _EPSILON),
                "3": nnx.Linear(width, 4 * width, rngs=rngs),
                "5": nnx.Linear(4 * width, width, rngs=rngs),
            }
        )
        self.layer_scale = nnx.Param(jnp.ones(width))

    def __call__(self, maps: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        conv, norm, wide, narrow = (getattr(self.block, i) for i in ("0", "2", "3", "5"))
        # torchvision's GELU is exact; JAX's default is an approximation by tanh.
        residual = narrow(jax.nn.gelu(wide(norm(conv(maps))), approximate=False))
        return maps + self.layer_scale[...].astype(maps.dtype)[None, None, None] * residual


class ConvNeXt(nnx.Module):
    """A ConvNeXt. The attribute paths are torchvision's module paths. Stochastic depth is left out: inference only."""

    def __init__(self, sizes: "Sizes", num_classes: int, rngs: nnx.Rngs) -> None:
        stem = nnx.Conv(3, sizes.widths[0], (4, 4), 4, padding="VALID", rngs=rngs)
        features: dict[str, Any] = {"0": {"0": stem, "1": Norm(sizes.widths[0], _EPSILON)}}
        for i, (width, depth) in enumerate(zip(sizes.widths, sizes.depths, strict=True)):
            features[str(2 * i + 1)] = {str(j): ConvNeXtBlock(width, rngs) for j in range(depth)}
            if i + 1 < len(sizes.widths):
                halve = nnx.Conv(width, sizes.widths[i + 1], (2, 2), 2, padding="VALID", rngs=rngs)
                features[str(2 * i + 2)] = {"0": Norm(width, _EPSILON), "1": halve}
        self.names = [f"features.{i}.{j}" for i, children in features.items() for j in children]
        self.features = Named({i: Named(children) for i, children in features.items()})
        width = sizes.widths[-1]
        # 1 flattens in torchvision.
        self.classifier = Named({"0": Norm(width, _EPSILON), "2": nnx.Linear(width, num_classes, rngs=rngs)})

    def body(self) -> Stages:
        return submodules(self, self.names)

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        return getattr(self.classifier, "2")(getattr(self.classifier, "0")(features))


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The channels and the numbers of blocks of the four stages. Calling the object builds the module."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]

    def __call__(self, num_classes: int, rngs: nnx.Rngs) -> ConvNeXt:
        return ConvNeXt(self, num_classes, rngs)

    def network(self, name: str) -> Network:
        """Describe the network of these sizes."""
        groups = tuple(f"features.{i}" for i in range(2 * len(self.depths)))
        # The stem divides the size by 4 and each later stage by 2, without padding.
        smallest = 4 * 2 ** (len(self.depths) - 1)
        last = f"features.{len(groups) - 1}"
        return Network(name, self, (*groups, "features"), last, smallest, late=f"features.{len(groups) - 2}.0")


CONVNEXT_TINY = Sizes((96, 192, 384, 768), (3, 3, 9, 3)).network("convnext_tiny")
