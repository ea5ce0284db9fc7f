"""What the transformers share: layer normalisation, attention, and the two linear layers of a block."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named


class Norm(nnx.Module):
    """(x − mean) / √(variance + ε) · scale + bias over the channels, always computed in float32."""

    def __init__(self, width: int, epsilon: float = 1e-6) -> None:
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        scale, bias = (p[...].astype(jnp.float32).reshape(*[1] * (x.ndim - 1), -1) for p in (self.scale, self.bias))
        # In bfloat16 the mean of some hundred channels has too few digits to be subtracted.
        y = x.astype(jnp.float32)
        y -= y.mean(-1, keepdims=True)
        y *= lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.epsilon)
        return (y * scale + bias).astype(x.dtype)


def attend(
    qkv: Float[Array, "*b n c3"], heads: int, bias: Float[Array, "*k h n n"] | None = None
) -> Float[Array, "*b n c"]:
    """softmax(q kᵀ / √d + bias) v in every head. The channels hold q, k and v, and each is split among the heads."""
    *batch, n, channels = qkv.shape
    q, k, v = jnp.moveaxis(qkv.reshape(*batch, n, 3, heads, channels // (3 * heads)), -3, 0)
    # In float32, because a softmax over rounded products loses small shares.
    products = jnp.einsum("...qhd,...khd->...hqk", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    shares = jax.nn.softmax(products if bias is None else products + bias).astype(v.dtype)
    return jnp.einsum("...hqk,...khd->...qhd", shares, v).reshape(*batch, n, channels // 3)


class MLP(Named):
    """Two linear layers with GELU between them, by torchvision's numbers: 1 and 2 are GELU and dropout."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        super().__init__({"0": nnx.Linear(width, 4 * width, rngs=rngs), "3": nnx.Linear(4 * width, width, rngs=rngs)})

    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        # PyTorch's GELU is exact; JAX's default is an approximation by tanh.
        return getattr(self, "3")(jax.nn.gelu(getattr(self, "0")(x), approximate=False))
