"""Vision transformers (Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv 2010.11929), as in torchvision.

The tokens of the patches are the maps [b, h, w, c]. The carry holds what else the network needs: the class token, and
after the first normalisation of a block also the tokens of the skip connection.

The default layer is `ln_1` of the last block (`blocks.11.norm1` in timm), the input of the last attention. After that
attention, the logits depend on the class token only. So at the output of the last block, the gradient of every patch
is zero, and a gradient method would return an empty map.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named, Network, Stages
from sscam_jax.networks.transformer import MLP, Norm, attend

Tokens = tuple[Float[Array, "b h w c"], tuple[Float[Array, "b 1 c"]]]
"""The input and output of a block: the tokens of the patches, and the class token as the carry."""

Normalised = tuple[Float[Array, "b h w c"], tuple[Float[Array, "b 1 c"], Float[Array, "b n c"]]]
"""The state after the first normalisation of a block: as `Tokens`, and all n = 1 + h w tokens before it."""

_BLOCK = r"encoder.layers.encoder_layer_\1"
# timm's names for the same modules: a regular expression and torchvision's name.
_TIMM = (
    (r"patch_embed\.proj", "conv_proj"),
    (r"pos_drop", "encoder.dropout"),
    (r"blocks", "encoder.layers"),
    (r"blocks\.(\d+)\.norm1", rf"{_BLOCK}.ln_1"),
    (r"blocks\.(\d+)", _BLOCK),
)


def _joined(maps: Float[Array, "b h w c"], class_token: Float[Array, "b 1 c"]) -> Float[Array, "b n c"]:
    b, h, w, c = maps.shape
    return jnp.concatenate([class_token, maps.reshape(b, h * w, c)], axis=1)


class Attention(nnx.Module):
    """Attention between all tokens. One layer computes q, k and v."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.heads = heads
        self.in_proj = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out_proj = nnx.Linear(width, width, rngs=rngs)

    def __call__(self, tokens: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        return self.out_proj(attend(self.in_proj(tokens), self.heads))


class EncoderBlock(nnx.Module):
    """y = x + attention(ln_1(x)), then y + mlp(ln_2(y)). Two stages, so that the network can be cut after ln_1."""

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.ln_1, self.ln_2 = Norm(width), Norm(width)
        self.self_attention = Attention(width, heads, rngs)
        self.mlp = MLP(width, rngs)

    def normalised(self, state: Tokens) -> Normalised:
        maps, (class_token,) = state
        return self.ln_1(maps), (self.ln_1(class_token), _joined(maps, class_token))

    def rest(self, state: Normalised) -> Tokens:
        maps, (class_token, tokens) = state
        # The tokens of the carry are the skip connection. The maps replace the normalised tokens of the patches.
        tokens = tokens + self.self_attention(_joined(maps, class_token))
        tokens = tokens + self.mlp(self.ln_2(tokens))
        return tokens[:, 1:].reshape(maps.shape), (tokens[:, :1],)


class Encoder(nnx.Module):
    """The position embedding, which is learnt for one grid size, the blocks, and the last normalisation."""

    def __init__(self, sizes: "ViT", rngs: nnx.Rngs) -> None:
        self.grid = sizes.image // sizes.patch
        self.pos_embedding = nnx.Param(jnp.zeros((1, 1 + self.grid**2, sizes.width)))
        self.layers = Named(
            {f"encoder_layer_{i}": EncoderBlock(sizes.width, sizes.heads, rngs) for i in range(sizes.depth)}
        )
        self.ln = Norm(sizes.width)

    def placed(self, maps: Float[Array, "b h w c"], class_token: Float[Array, "1 1 c"]) -> Tokens:
        """Add the position embedding to the patches and to the class token."""
        positions = self.pos_embedding[...]
        class_token = class_token + positions[:, :1]
        patches = positions[:, 1:].reshape(1, self.grid, self.grid, -1)
        return maps + patches, (jnp.broadcast_to(class_token, (maps.shape[0], *class_token.shape[1:])),)


class VisionTransformer(nnx.Module):
    """A vision transformer. The attribute paths are torchvision's module paths. Dropout is left out: inference only."""

    def __init__(self, sizes: "ViT", num_classes: int, rngs: nnx.Rngs) -> None:
        patch = (sizes.patch, sizes.patch)
        self.conv_proj = nnx.Conv(3, sizes.width, patch, patch, padding="VALID", rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros((1, 1, sizes.width)))
        self.encoder = Encoder(sizes, rngs)
        self.heads = Named({"head": nnx.Linear(sizes.width, num_classes, rngs=rngs)})
        self.depth = sizes.depth

    def body(self) -> Stages:
        stages: Stages = {
            "conv_proj": self.conv_proj,
            "encoder.dropout": lambda maps: self.encoder.placed(maps, self.class_token[...]),
        }
        for i in range(self.depth):
            block = getattr(self.encoder.layers, f"encoder_layer_{i}")
            stages[f"encoder.layers.encoder_layer_{i}.ln_1"] = block.normalised
            stages[f"encoder.layers.encoder_layer_{i}"] = block.rest
        return stages

    def pool(self, state: Tokens) -> Float[Array, "b c"]:
        _, (class_token,) = state  # the patches are not used: only the class token is classified
        return self.encoder.ln(class_token[:, 0])

    def classify(self, features: Float[Array, "b c"]) -> Float[Array, "b n"]:
        return self.heads.head(features)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class ViT:
    """The sizes of a vision transformer. Calling the object builds the module.

    Attributes:
        width: the number of channels of a token.
        depth: the number of blocks.
        heads: the number of attention heads per block. It must divide the width.
        patch: the side of a patch in pixels.
        image: the side of the image in pixels.
    """

    width: int
    depth: int
    heads: int
    patch: int = 16
    image: int = 224

    def __call__(self, num_classes: int, rngs: nnx.Rngs) -> VisionTransformer:
        return VisionTransformer(self, num_classes, rngs)

    def network(self, name: str) -> Network:
        """Describe the network of these sizes. Its default layer is the input of the last attention."""
        layer = f"encoder.layers.encoder_layer_{self.depth - 1}.ln_1"
        return Network(name, self, ("encoder.layers",), layer, self.image, only_smallest=True, aliases=_TIMM)


VIT_B_16 = ViT(width=768, depth=12, heads=12).network("vit_b_16")
VIT_S_16 = ViT(width=384, depth=12, heads=6).network("vit_s_16")
