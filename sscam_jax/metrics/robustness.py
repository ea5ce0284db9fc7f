"""Does a map stay the same when the image changes a little? Max-sensitivity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sscam_jax.metrics._passes import check_fit, each

Explain = Callable[[Float[Array, "m b *space c"]], Float[Array, "m b *space"]]
"""A function that runs every method again, each on its own inputs.

It maps inputs [m, b, *space, c] to maps [m, b, *space] in [0, 1].
"""


def max_sensitivity(
    explain: Explain,
    images: Float[Array, "b *space c"],
    maps: Float[Array, "m b *space"],
    *,
    key: Key[Array, ""],
    ids: Int[Array, " b"] | None = None,
    radius: float = 0.02,
    samples: int = 10,
) -> Float[Array, "m b"]:
    """Max-sensitivity: how much does a map change under slight noise in the image?

    max_s ‖Φ(x + u_s) − Φ(x)‖ / ‖Φ(x)‖, where Φ is the method, u_s is uniform noise in [−radius, radius], and the norms
    are Frobenius norms. ≥ 0. Lower is better. The noise depends only on the key, the id of the image and the sample, so
    it is the same for every method. For an empty map the divisor is ‖Φ(x + u_s)‖, so the value is 0 if the map stays
    empty and 1 otherwise.

    The definition in the paper does not divide. The code of its authors does, and so does captum, whose radius and
    number of samples are the defaults here. (Quantus divides by the norm of the image.)

    Args:
        explain: the methods as one function, which is called `samples` times.
        images: b images as the network takes them.
        maps: the maps of the images, Φ(x).
        key: a key from `jax.random.key`.
        ids: one integer per image [b], which seeds its noise. None is the position in the batch.
        radius: the largest noise, in the unit of the images. After normalisation, 1 is about a standard deviation.
        samples: the number of noisy copies per image.

    Returns:
        One value per method and image [m, b].

    Raises:
        ValueError: `samples` is less than 1, or the maps do not fit the images.

    Example:
        >>> maps = jnp.ones((1, 1, 2, 2))
        >>> max_sensitivity(lambda x: 2 * maps, jnp.ones((1, 2, 2, 3)), maps, key=jax.random.key(0)).tolist()
        [[1.0]]

    References:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019 (arXiv 1901.09392).
    """
    check_fit(images, maps)
    if samples < 1:
        raise ValueError(f"samples={samples} is too small, expected at least 1")
    space = tuple(range(2, maps.ndim))
    keys = each(key, ids, images.shape[0])
    size = jnp.sqrt(jnp.square(maps).sum(space))
    largest = jnp.zeros_like(size)
    # A Python loop, because `explain` may be any function and need not be traceable.
    for sample in range(samples):
        noisy = images + _uniform(keys, sample, images.shape[1:], radius).astype(images.dtype)
        moved = explain(jnp.broadcast_to(noisy, (maps.shape[0], *noisy.shape)))
        distance = jnp.sqrt(jnp.square(moved - maps).sum(space))
        scale = jnp.where(size > 0, size, distance)
        # Where both maps are empty, 0 / 1 and not 0 / 0.
        largest = jnp.maximum(largest, distance / jnp.where(scale > 0, scale, 1.0))
    return largest


def _uniform(keys: Key[Array, " b"], sample: int, shape: tuple[int, ...], radius: float) -> Float[Array, "b *space c"]:
    """Draw the noise of one sample for each image."""

    def draw(key: Key[Array, ""]) -> Float[Array, "*space c"]:
        return jax.random.uniform(jax.random.fold_in(key, sample), shape, minval=-radius, maxval=radius)

    return jax.vmap(draw)(keys)
