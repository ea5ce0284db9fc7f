"""Helpers of the metrics that run the network: passes in chunks, probabilities, the order of a map's pixels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from sscam_jax.types import Apply, Params


def logits_of(
    apply: Apply,
    params: Params,
    inputs: Callable[[Int[Array, " p"]], Float[Array, "p ..."]],
    count: int,
    chunk_size: int | None,
) -> Float[Array, "count n"]:
    """Run the network on inputs 0 to count − 1, of which only one chunk is in memory at a time.

    Args:
        apply: the network.
        params: its parameters.
        inputs: a function from indices to inputs.
        count: the number of inputs.
        chunk_size: the largest number of inputs per chunk. None is 4 on CPUs, where more are not faster, and 64
            elsewhere.

    Returns:
        Logits in float32.

    Raises:
        ValueError: `chunk_size` is less than 1.
    """
    if chunk_size is None:
        chunk_size = 4 if jax.default_backend() == "cpu" else 64
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} is too small, expected at least 1")
    chunks = -(-count // chunk_size)
    size = -(-count // chunks)  # equal chunks, so that the last one needs little padding
    # The last chunk is filled by repeating its last input.
    indices = jnp.minimum(jnp.arange(chunks * size, dtype=jnp.int32), count - 1).reshape(chunks, size)
    logits = jax.lax.map(lambda chunk: apply(params, inputs(chunk)).astype(jnp.float32), indices)
    return logits.reshape(chunks * size, -1)[:count]


def probability(logits: Float[Array, "*m b n"], labels: Int[Array, " b"]) -> Float[Array, "*m b"]:
    """Return the softmax probability of each image's class."""
    wanted = jnp.broadcast_to(labels.reshape(*[1] * (logits.ndim - 2), -1, 1), (*logits.shape[:-1], 1))
    return jnp.take_along_axis(jax.nn.softmax(logits), wanted, axis=-1)[..., 0]


def ranks(maps: Float[Array, "m b *space"]) -> Int[Array, "m b *space"]:
    """Rank the pixels of each map. The highest pixel has rank 0. Ties break in row-major order."""
    # Stable, so that equal pixels keep their row-major order.
    order = jnp.argsort(-maps.reshape(*maps.shape[:2], -1), axis=-1, stable=True)
    places = jnp.broadcast_to(jnp.arange(order.shape[-1], dtype=jnp.int32), order.shape)
    placed = jnp.put_along_axis(jnp.zeros_like(places), order, places, axis=-1, inplace=False)
    return placed.reshape(maps.shape)


def empty(maps: Float[Array, "m b *space"]) -> Bool[Array, "m b"]:
    """Find the maps that are zero everywhere: `Saliency.flat` marks them."""
    return (maps == 0).all(tuple(range(2, maps.ndim)))


def check_fit(images: Float[Array, "b *space c"], maps: Float[Array, "m b *space"]) -> None:
    """Refuse maps that are not [m, b, *space] for images [b, *space, c], or that are empty arrays."""
    if maps.shape[1:] != images.shape[:-1] or 0 in maps.shape:
        raise ValueError(
            f"maps have shape {maps.shape} for images of shape {images.shape}, expected [m, "
            f"{', '.join(map(str, images.shape[:-1]))}]: one map per method and image, and at least one of each. For "
            "the maps of a single method, pass maps[None]"
        )


def each(key: Key[Array, ""], ids: Int[Array, " b"] | None, count: int) -> Key[Array, " b"]:
    """Return one key per image, from its id. Without `ids`, its position in the batch is its id."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count, dtype=jnp.int32) if ids is None else ids)
