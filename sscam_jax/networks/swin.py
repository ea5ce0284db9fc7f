"""Swin-T (Liu et al., Swin Transformer, arXiv 2103.14030), as in torchvision: attention in windows, no class token.

The default layer is the last normalisation. Average pooling and one linear layer follow it, so CAM is defined there.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from sscam_jax.networks.network import Named, Network, Stages, submodules
from sscam_jax.networks.transformer import MLP, Norm, attend

_EPSILON = 1e-5


def _relative_positions(window: int) -> np.ndarray:
    """Return the row of the bias table for each pair of positions in a window: (Δy + w − 1)(2w − 1) + Δx + w − 1."""
    y, x = np.divmod(np.arange(window**2), window)
    return (y[:, None] - y + window - 1) * (2 * window - 1) + x[:, None] - x + window - 1


def _windows(maps: Float[Array, "b h w c"], window: int) -> Float[Array, "b k n c"]:
    """Split the maps into k windows of n positions each, row by row."""
    b, h, w, c = maps.shape
    cut = maps.reshape(b, h // window, window, w // window, window, c).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(b, (h // window) * (w // window), window**2, c)


def _together(height: int, width: int, window: int, shifts: tuple[int, int]) -> Bool[np.ndarray, "k n n"]:
    """Tell which pairs of positions in a window may attend to each other.

    Rolling the maps puts positions of opposite edges into one window. They were not neighbours, so they must not
    attend to each other.
    """
    regions = np.zeros((height, width), np.int32)
    for axis, (length, shift) in enumerate(zip((height, width), shifts, strict=True)):
        # Three regions per shifted axis: before the last window, its first part, and the part that rolled over. An
        # axis without a shift is one region.
        part = np.zeros(length, np.int32)
        if shift:
            part[-window:], part[-shift:] = 1, 2
        regions += (3 ** (1 - axis)) * (part[:, None] if axis == 0 else part[None, :])
    tiles = regions.reshape(height // window, window, width // window, window)
    cut = tiles.transpose(0, 2, 1, 3).reshape(-1, window**2)
    return cut[:, :, None] == cut[:, None, :]


class WindowAttention(nnx.Module):
    """softmax(q kᵀ / √d + B) v within windows of the maps. If `shifted`, the maps are first rolled by half a window."""

    def __init__(self, width: int, heads: int, window: int, shifted: bool, rngs: nnx.Rngs) -> None:
        self.heads, self.window, self.shift = heads, window, window // 2 if shifted else 0
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.proj = nnx.Linear(width, width, rngs=rngs)
        self.relative_position_bias_table = nnx.Param(jnp.zeros(((2 * window - 1) ** 2, heads)))

    def __call__(self, maps: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = maps.shape
        window = self.window
        # Pad to whole windows, as torchvision does. The padding takes part in the attention, and is cut off at the end.
        x = jnp.pad(maps, ((0, 0), (0, -h % window), (0, -w % window), (0, 0)))
        height, width = x.shape[1:3]
        # A single window has no neighbours, so there is nothing to shift.
        shifts = (self.shift if height > window else 0, self.shift if width > window else 0)
        x = _windows(jnp.roll(x, (-shifts[0], -shifts[1]), (1, 2)), window)
        bias = self.relative_position_bias_table[...].astype(jnp.float32)[_relative_positions(window)]
        together = _together(height, width, window, shifts)[:, None]
        # The published code adds −100 to the exponent where positions must not attend, not −∞.
        bias = bias.transpose(2, 0, 1)[None] + np.where(together, 0, -100).astype(np.float32)
        y = self.proj(attend(self.qkv(x), self.heads, bias[None]))
        y = y.reshape(b, height // window, width // window, window, window, c).transpose(0, 1, 3, 2, 4, 5)
        return jnp.roll(y.reshape(b, height, width, c), shifts, (1, 2))[:, :h, :w]


class SwinBlock(nnx.Module):
    """y = x + attention(norm1(x)), then y + mlp(norm2(y))."""

    def __init__(self, width: int, heads: int, window: int, shifted: bool, rngs: nnx.Rngs) -> None:
        self.norm1 = Norm(width, _EPSILON)
        self.attn = WindowAttention(width, heads, window, shifted, rngs)
        self.norm2 = Norm(width, _EPSILON)
        self.mlp = MLP(width, rngs)

    def __call__(self, maps: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        maps = maps + self.attn(self.norm1(maps))
        return maps + self.mlp(self.norm2(maps))


class PatchMerging(nnx.Module):
    """Join the channels of 2x2 neighbours, normalise them, and reduce them to half with a linear layer.

    Maps with an odd height or width get a row or a column of zeros.
    """

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.norm = Norm(4 * width, _EPSILON)
        self.reduction = nnx.Linear(4 * width, 2 * width, use_bias=False, rngs=rngs)

    def __call__(self, maps: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        maps = jnp.pad(maps, ((0, 0), (0, maps.shape[1] % 2), (0, maps.shape[2] % 2), (0, 0)))
        # The order of the four neighbours is (0, 0), (1, 0), (0, 1), (1, 1), as in torchvision's checkpoints.
        return self.reduction(
            self.norm(jnp.concatenate([maps[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1))
        )


class SwinTransformer(nnx.Module):
    """A Swin transformer. The attribute paths are torchvision's module paths.

    Dropout and stochastic depth are left out: inference only.
    """

    def __init__(self, sizes: "Swin", num_classes: int, rngs: nnx.Rngs) -> None:
        width = sizes.width
        stem = nnx.Conv(3, width, (4, 4), (4, 4), padding="VALID", rngs=rngs)
        # torchvision's 1 is a permutation of the axes.
        features: dict[str, nnx.Module] = {"0": Named({"0": stem, "2": Norm(width, _EPSILON)})}
        self.names = ["features.0.0", "features.0.2"]
        for depth, heads in zip(sizes.depths, sizes.heads, strict=True):
            if len(features) > 1:
                self.names.append(f"features.{len(features)}")
                features[str(len(features))] = PatchMerging(width, rngs)
                width *= 2
            self.names += [f"features.{len(features)}.{i}" for i in range(depth)]
            blocks = {str(i): SwinBlock(width, heads, sizes.window, i % 2 == 1, rngs) for i in range(depth)}
            features[str(len(features))] = Named(blocks)
        self.features = Named(features)
        self.norm = Norm(width, _EPSILON)
        self.head = nnx.Linear(width, num_classes, rngs=rngs)

    def body(self) -> Stages:
        return submodules(self, (*self.names, "norm"))

    def pool(self, activations: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        return activations.mean(axis=(1, 2))

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        return self.head(features)


@dataclasses.dataclass(frozen=True)
class Swin:
    """The sizes of a Swin transformer. Calling the object builds the module.

    Attributes:
        width: the number of channels of the first maps. Each merging doubles it.
        depths: the number of blocks per stage. A merging separates two stages.
        heads: the number of attention heads in the blocks of each stage.
        window: the side of a window in patches.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int = 7

    def __call__(self, num_classes: int, rngs: nnx.Rngs) -> SwinTransformer:
        return SwinTransformer(self, num_classes, rngs)

    def network(self, name: str) -> Network:
        """Describe the network of these sizes."""
        groups = tuple(f"features.{2 * i + 1}" for i in range(len(self.depths)))
        return Network(name, self, (*groups, "features"), default_layer="norm", smallest=4)


SWIN_T = Swin(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)).network("swin_t")
