"""What metrics that run the network share: passes in chunks, probabilities, the order of a map's pixels."""

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
    """The network's answers to inputs 0 to count − 1, which exist a chunk at a time.

    Args:
        apply: the network.
        params: its parameters.
        inputs: makes the inputs of some indices.
        count: how many there are.
        chunk_size: the most inputs at once; None: 4 on CPU, where more are no faster, else 64.

    Returns:
        Logits in float32.

    Raises:
        ValueError: a chunk size below 1.
    """
    if chunk_size is None:
        chunk_size = 4 if jax.default_backend() == "cpu" else 64
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} is too small, expected at least 1")
    chunks = -(-count // chunk_size)
    size = -(-count // chunks)
    # The last chunk is filled with its last input again.
    indices = jnp.minimum(jnp.arange(chunks * size, dtype=jnp.int32), count - 1).reshape(chunks, size)
    logits = jax.lax.map(lambda chunk: apply(params, inputs(chunk)).astype(jnp.float32), indices)
    return logits.reshape(chunks * size, -1)[:count]


def probability(logits: Float[Array, "*m b n"], labels: Int[Array, " b"]) -> Float[Array, "*m b"]:
    """Softmax probability of each image's class."""
    wanted = jnp.broadcast_to(labels.reshape(*[1] * (logits.ndim - 2), -1, 1), (*logits.shape[:-1], 1))
    return jnp.take_along_axis(jax.nn.softmax(logits), wanted, axis=-1)[..., 0]


def ranks(maps: Float[Array, "m b *space"]) -> Int[Array, "m b *space"]:
    """Each pixel's place among its map's, 0 for the most important; of equal pixels the earlier one comes first."""
    order = jnp.argsort(-maps.reshape(*maps.shape[:2], -1), axis=-1, stable=True)
    places = jnp.broadcast_to(jnp.arange(order.shape[-1], dtype=jnp.int32), order.shape)
    placed = jnp.put_along_axis(jnp.zeros_like(places), order, places, axis=-1, inplace=False)
    return placed.reshape(maps.shape)


def empty(maps: Float[Array, "m b *space"]) -> Bool[Array, "m b"]:
    """Maps that are zero everywhere: what a method returns that has nothing to say."""
    return (maps == 0).all(tuple(range(2, maps.ndim)))


def check_fit(images: Float[Array, "b *space c"], maps: Float[Array, "m b *space"]) -> None:
    """Refuse maps that are not [m, b, *space] for images [b, *space, c], or none."""
    if maps.shape[1:] != images.shape[:-1] or 0 in maps.shape:
        raise ValueError(
            f"maps have shape {maps.shape} for images of shape {images.shape}, "
            f"expected [m, {', '.join(map(str, images.shape[:-1]))}]: one map a method and image, at least one of each"
        )


def each(key: Key[Array, ""], ids: Int[Array, " b"] | None, count: int) -> Key[Array, " b"]:
    """A key for each image, from its id or else its position."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count, dtype=jnp.int32) if ids is None else ids)
