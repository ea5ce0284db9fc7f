"""What is kept of maps so that they can be drawn as they were measured.

Most maps follow from the raw map at the target layer, unit(ReLU(U(raw))), which is small. The others are kept at the
input's resolution in 8 bits, as pictures have them.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from sscam_jax import ops


@functools.partial(jax.jit, static_argnums=1)
def _drawn(raw: Float[Array, "n *grid"], space: tuple[int, ...]) -> Float[Array, "n *space"]:
    return ops.unit(jax.nn.relu(ops.resize(raw, space)))


def encoded(
    raw: Float[np.ndarray, "r n *grid"], maps: Float[np.ndarray, "r n *space"]
) -> Shaped[np.ndarray, "r n ..."]:
    """What draws some maps: `raw` where the maps follow from it, else the maps in 8 bits.

    Args:
        raw: the maps at the target layer.
        maps: the maps in [0, 1].

    Returns:
        Floats, or 8-bit integers.

    Example:
        >>> encoded(np.zeros((1, 1, 2, 2), np.float32), np.full((1, 1, 3, 3), 0.2, np.float32)).max()
        np.uint8(51)
    """
    if raw.shape != maps.shape:
        drawn = _drawn(jnp.asarray(raw.reshape(-1, *raw.shape[2:])), maps.shape[2:])
        # Half a step of 8 bits: what is drawn is the same picture.
        if np.abs(np.asarray(drawn).reshape(maps.shape) - maps).max(initial=0) < 1 / 512:
            return raw
    return np.round(255 * np.clip(maps, 0, 1)).astype(np.uint8)


def decoded(kept: Shaped[np.ndarray, "n *any"], space: tuple[int, ...]) -> Float[np.ndarray, "n *space"]:
    """The maps again, in [0, 1] at the input's resolution.

    Args:
        kept: what `encoded` gave.
        space: the input's shape without channels.

    Returns:
        The maps.

    Example:
        >>> decoded(np.uint8([[[51, 255]]]), (1, 2)).tolist()
        [[[0.20000000298023224, 1.0]]]
    """
    if kept.dtype == np.uint8:
        return kept.astype(np.float32) / 255
    return np.asarray(_drawn(jnp.asarray(kept), space))
