"""3x3 convolutions by Winograd's minimal filtering F(2x2, 3x3), for CPUs: 16 products per tile instead of 36.

Let d be a 4x4 tile of the input and g the kernel. The 2x2 outputs are Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A (Lavin and Gray,
arXiv 1509.09308, Eq. 8). Over the channels, each product is a matrix product. G g Gᵀ depends on the parameters only,
so `transform` computes it once for all passes.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from sscam_jax.types import Params

# Measured with JAX 0.10 on two CPU cores. If the input or output of a layer has more numbers than this, the tiles
# overflow the cache. With fewer channels, the matrices are too small. Both are slower than the direct convolution.
_MOST_NUMBERS, _FEWEST_CHANNELS = 1 << 23, 32


def _kernel(g: Array) -> Array:
    """Compute G g."""
    return jnp.stack([g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]])


def _kernel_again(transformed: Array) -> Array:
    """Recover g from G g."""
    return jnp.stack([transformed[0], transformed[1] - transformed[2], transformed[3]])


def _both_ways(function: Callable[[Array], Array], kernel: Float[Array, "i i c_in c_out"]) -> Array:
    """Apply the function along the rows, then along the columns."""
    return function(function(kernel).swapaxes(0, 1)).swapaxes(0, 1)


def _input(d: list[Array]) -> list[Array]:
    """Compute Bᵀ d."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output(m: list[Array]) -> list[Array]:
    """Compute Aᵀ m."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]


def _minimal_filtering(
    x: Float[Array, "b height width c_in"], kernel: Float[Array, "4 4 c_in c_out"]
) -> Float[Array, "b height width c_out"]:
    """Convolve with a transformed kernel. The result has the input's height and width."""
    b, height, width, c_in = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    # One zero on each side, as the convolution asks for, and one more at the end of an odd side to fill its last tile.
    x = jnp.pad(x, ((0, 0), (1, 2 * rows - height + 1), (1, 2 * columns - width + 1), (0, 0)))
    lines = _input([x[:, i : i + 2 * rows - 1 : 2] for i in range(4)])
    tiles = [tile for d in lines for tile in _input([d[:, :, j : j + 2 * columns - 1 : 2] for j in range(4)])]
    flat = jnp.stack(tiles).reshape(16, b * rows * columns, c_in)
    products = lax.dot_general(flat, kernel.reshape(16, c_in, -1), (((2,), (1,)), ((0,), (0,))))
    m = products.reshape(4, 4, b, rows, columns, -1)
    y = [jnp.stack(_output([line[j] for j in range(4)]), axis=3) for line in _output([m[i] for i in range(4)])]
    return jnp.stack(y, axis=2).reshape(b, 2 * rows, 2 * columns, -1)[:, :height, :width]


class Conv3x3(nnx.Conv):
    """A 3x3 convolution at stride 1 that keeps height and width. Its kernel may be g, or G g Gᵀ from `transform`."""

    def __init__(self, c_in: int, c_out: int, *, use_bias: bool = True, rngs: nnx.Rngs) -> None:
        super().__init__(c_in, c_out, (3, 3), padding=1, use_bias=use_bias, rngs=rngs)

    def __call__(
        self, inputs: Float[Array, "b height width c_in"], out_sharding: Any = None
    ) -> Float[Array, "b height width c_out"]:
        kernel = self.kernel[...]
        channels = max(inputs.shape[-1], kernel.shape[-1])
        if kernel.shape[0] == 4 and inputs.size // inputs.shape[-1] * channels <= _MOST_NUMBERS:
            y = _minimal_filtering(inputs, kernel)
        else:
            # This input is too large for the fast form, but the kernel may already be transformed.
            if kernel.shape[0] == 4:
                kernel = _both_ways(_kernel_again, kernel)
            layout = ("NHWC", "HWIO", "NHWC")
            y = lax.conv_general_dilated(inputs, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=layout)
        return y if self.bias is None else y + self.bias[...].reshape(1, 1, 1, -1)


def transform(params: Params, paths: tuple[tuple[str, ...], ...]) -> Params:
    """Replace the kernels of the `Conv3x3` layers at these paths by G g Gᵀ."""
    for path in paths:
        params = _at(params, path)
    return params


def _at(params: Params, path: tuple[str, ...]) -> Params:
    if path:
        return {**params, path[0]: _at(params[path[0]], path[1:])}
    kernel = params["kernel"]
    if kernel.shape[2] < _FEWEST_CHANNELS:
        return params
    return {**params, "kernel": _both_ways(_kernel, kernel)}
