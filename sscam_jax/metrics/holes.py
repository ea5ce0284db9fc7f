"""Infidelity: does the map predict what a hole in the image costs the class?"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sscam_jax.metrics._passes import check_fit, each, logits_of, probability
from sscam_jax.types import Apply, Params

# A hole is a box. Its sides are between these shares of the sides of the image.
_SMALLEST_HOLE, _LARGEST_HOLE = 1 / 8, 1 / 2


@functools.partial(jax.jit, static_argnames=("apply", "samples", "chunk_size"))
def infidelity(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    maps: Float[Array, "m b *space"],
    *,
    key: Key[Array, ""],
    ids: Int[Array, " b"] | None = None,
    samples: int = 32,
    chunk_size: int | None = None,
) -> Float[Array, "m b"]:
    """Infidelity: how badly does the part of the map under a hole predict what the hole costs the class?

    mean_s (β z_s·M − (f(x) − f(x ⊙ (1 − z_s))))² over random boxes z_s, where f is the probability of the class. In
    [0, 1]. Lower is better. A hole has the mean colour, zero. It removes the part of the map under it. In the notation
    of Yeh et al. this is I·Φ with I = z ⊙ x, for a map that stands for x ⊙ Φ.

    Maps in [0, 1] have no scale of their own. So β is the scale that fits each map best, as in the code of the authors,
    but at least 0: a map that points away from the class must not be inverted. An empty map gets
    mean_s (f(x) − f(x ⊙ (1 − z_s)))². (Quantus multiplies Φ by the signed change of the image and does not scale.)

    The side of a hole is uniform between 1/8 and 1/2 of the side of the image. Its position is uniform within the
    image. The holes of an image are the same for every method, so the number of passes does not depend on the number of
    maps.

    Args:
        apply: the network; static.
        params: its parameters.
        images: b images as the network takes them.
        labels: class indices [b].
        maps: m maps per image.
        key: a key from `jax.random.key`.
        ids: one integer per image [b], which seeds its holes. None is the position in the batch.
        samples: the number of holes per image; static.
        chunk_size: the largest number of network inputs in memory. None chooses by device.

    Returns:
        One value per method and image [m, b].

    Raises:
        ValueError: `samples` is less than 1, or the maps do not fit the images.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images, maps = jnp.ones((1, 8, 8, 3)).at[..., 0].set(2.0), jnp.ones((1, 1, 8, 8))
        >>> bool(infidelity(apply, (), images, jnp.array([0]), maps, key=jax.random.key(0))[0, 0] < 1e-3)
        True

    References:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019 (arXiv 1901.09392).
    """
    check_fit(images, maps)
    if samples < 1:
        raise ValueError(f"samples={samples} is too small, expected at least 1")
    b, space = images.shape[0], images.shape[1:-1]
    inside = _holes(each(key, ids, b), samples, space)

    def inputs(chunk: Int[Array, " p"]) -> Float[Array, "p *space c"]:
        image, sample = chunk // (samples + 1), chunk % (samples + 1)
        hole = jnp.ones((chunk.shape[0], *[1] * len(space)), bool)
        for axis, sides in enumerate(inside):
            side = sides[image, jnp.minimum(sample, samples - 1)]
            hole = hole & side.reshape(-1, *[1] * axis, space[axis], *[1] * (len(space) - axis - 1))
        # The image without a hole follows the holes in the same pass, so rounding is the same.
        hole = hole & (sample < samples).reshape(-1, *[1] * len(space))
        return jnp.where(hole[..., None], jnp.zeros((), images.dtype), images[image])

    logits = logits_of(apply, params, inputs, b * (samples + 1), chunk_size).reshape(b, samples + 1, -1)
    found = probability(jnp.moveaxis(logits, 1, 0), labels).T
    costs = (found[:, samples:] - found[:, :samples])[None]
    under = maps.astype(jnp.float32)
    for axis, sides in enumerate(inside):
        # A hole is a box, so its sum is separable: one axis after the other, without a mask per hole in memory.
        equation = "mbh...,bsh->mbs..." if axis == 0 else "mbsh...,bsh->mbs..."
        under = jnp.einsum(equation, under, sides.astype(jnp.float32), precision="highest")
    power = (under**2).sum(-1, keepdims=True)
    # The least-squares solution for one factor: β = ⟨map, cost⟩ / ⟨map, map⟩.
    beta = jnp.where(power > 0, (under * costs).sum(-1, keepdims=True) / jnp.where(power > 0, power, 1.0), 0.0)
    return jnp.square(jnp.maximum(beta, 0.0) * under - costs).mean(-1)


def _holes(keys: Key[Array, " b"], samples: int, space: tuple[int, ...]) -> list[Array]:
    """Draw the holes: per axis, which rows or columns are inside each hole, as an array [b, samples, length]."""

    def draw(key: Key[Array, ""], sample: Int[Array, ""]) -> Float[Array, "axes 2"]:
        return jax.random.uniform(jax.random.fold_in(key, sample), (len(space), 2))

    drawn = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(keys, jnp.arange(samples, dtype=jnp.int32))
    side = _SMALLEST_HOLE + drawn[..., 0] * (_LARGEST_HOLE - _SMALLEST_HOLE)
    start = drawn[..., 1] * (1 - side)
    inside = []
    for axis, length in enumerate(space):
        centres = ((jnp.arange(length, dtype=jnp.float32) + 0.5) / length)[None, None]
        low = start[..., axis, None]
        inside.append((centres >= low) & (centres < low + side[..., axis, None]))
    return inside
