"""Connected regions of masks: pixels that touch by a side or a corner. On the device, and by SciPy on the host.

On the device labels spread from pixel to pixel, and along the labels themselves, until nothing changes. So the rounds
grow with the logarithm of a region's length, not with the length.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def _largest_neighbour(labels: Int[Array, "n h w"]) -> Int[Array, "n h w"]:
    """The largest label among a pixel and its eight neighbours."""
    return jax.lax.reduce_window(labels, np.int32(0), jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")


def grown(inside: Bool[Array, "n h w"], known: Int[Array, "n h w"]) -> Int[Array, "n h w"]:
    """The regions' labels, from labels of regions that lie in them, 0 where nothing is known."""
    n, height, width = inside.shape
    own = jnp.arange(1, height * width + 1, dtype=jnp.int32).reshape(1, height, width)
    rows = jnp.arange(n, dtype=jnp.int32)[:, None]

    def spread(state: tuple[Array, Array]) -> tuple[Array, Array]:
        labels, _ = state
        seen = jnp.where(inside, _largest_neighbour(labels), 0).reshape(n, -1)
        # A label names a pixel of the same region: what its followers see it learns, and they all learn from it.
        flat = jnp.pad(seen, ((0, 0), (1, 0)))
        flat = flat.at[rows, labels.reshape(n, -1)].max(seen)
        for _ in range(2):
            flat = jnp.take_along_axis(flat, flat, axis=1)
        new = flat[:, 1:].reshape(labels.shape)
        return new, (new != labels).any()

    first = jnp.where(inside, jnp.maximum(jnp.broadcast_to(own, known.shape), known), 0)
    return jax.lax.while_loop(lambda state: state[1], spread, (first, jnp.bool_(True)))[0]


def boxes_on_host(mask: Bool[np.ndarray, "h w"], largest: bool) -> Float[np.ndarray, "p 4"]:
    """The boxes around a mask's regions, or around its largest ones, in shares; by SciPy."""
    from scipy import ndimage  # type: ignore[import-untyped]  # here, because its import takes long and few need it

    labels, count = ndimage.label(mask, np.ones((3, 3), bool))
    found = ndimage.find_objects(labels)
    if largest and count > 1:
        sizes = np.bincount(labels.reshape(-1))[1:]
        found = [found[i] for i in np.flatnonzero(sizes == sizes.max())]
    edges = [(rows.start, columns.start, rows.stop, columns.stop) for rows, columns in found]
    return (np.array(edges, np.float32).reshape(-1, 4) / np.tile(mask.shape, 2)).astype(np.float32)


@jax.jit
def connected_components(masks: Bool[Array, "*m h w"]) -> Int[Array, "*m h w"]:
    """Label the connected regions of masks; pixels touch by a side or a corner.

    Args:
        masks: [*m, h, w].

    Returns:
        Labels [*m, h, w]: 0 outside of the mask, else 1 + the largest position y · w + x in the pixel's region.

    Example:
        >>> masks = jnp.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]) == 1
        >>> connected_components(masks).tolist()
        [[6, 0, 0, 8], [0, 6, 0, 8], [0, 0, 0, 0]]
    """
    inside = masks.reshape(-1, *masks.shape[-2:])
    return grown(inside, jnp.zeros(inside.shape, jnp.int32)).reshape(masks.shape)
