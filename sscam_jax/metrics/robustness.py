"""How a map answers to small changes of the image, and the network's answer to what the map says of large ones."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sscam_jax.metrics._passes import check_fit, each, logits_of, probability
from sscam_jax.types import Apply, Params

Explain = Callable[[Float[Array, "m b *space c"]], Float[Array, "m b *space"]]
"""Runs every method again, each on its own inputs: inputs [m, b, *space, c] to maps [m, b, *space] in [0, 1]."""

# Holes are boxes with sides between these shares of the image's.
_SMALLEST_HOLE, _LARGEST_HOLE = 1 / 8, 1 / 2


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
    """Max-sensitivity: how far a map moves when the image hardly does.

    max_s ‖Φ(x + u_s) − Φ(x)‖ / ‖Φ(x)‖ over uniform noise u_s in [−radius, radius], Frobenius norms; ≥ 0, lower is
    better. The noise of an image and sample is the same for every method: it depends on the key, the
    image's id and the sample alone. For an empty map the division is by
    ‖Φ(x + u)‖ instead: 0 if it stays empty, 1 if not. The paper's definition does not divide; the authors' code does,
    and captum's, whose radius and number of samples these are. (Quantus divides by the norm of the image.)

    Args:
        explain: the methods, run again on inputs [m, b, *space, c]; called `samples` times.
        images: b images as the network takes them.
        maps: what the methods gave of them, Φ(x).
        key: a key of `jax.random.key`.
        ids: an integer an image [b] that its noise belongs to; None: its position in the batch.
        radius: of the noise, in the images' unit (after normalisation 1 is about a standard deviation).
        samples: how many noisy versions of each image.

    Returns:
        One value a method and image [m, b].

    Raises:
        ValueError: no samples, or maps that do not fit the images.

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
    for sample in range(samples):
        noisy = images + _uniform(keys, sample, images.shape[1:], radius).astype(images.dtype)
        moved = explain(jnp.broadcast_to(noisy, (maps.shape[0], *noisy.shape)))
        distance = jnp.sqrt(jnp.square(moved - maps).sum(space))
        scale = jnp.where(size > 0, size, distance)
        largest = jnp.maximum(largest, distance / jnp.where(scale > 0, scale, 1.0))
    return largest


def _uniform(keys: Key[Array, " b"], sample: int, shape: tuple[int, ...], radius: float) -> Float[Array, "b *space c"]:
    def draw(key: Key[Array, ""]) -> Float[Array, "*space c"]:
        return jax.random.uniform(jax.random.fold_in(key, sample), shape, minval=-radius, maxval=radius)

    return jax.vmap(draw)(keys)


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
    """Infidelity: how badly the map under a hole predicts what the hole costs the class.

    mean_s (β z_s·M − (f(x) − f(x ⊙ (1 − z_s))))² over random boxes z_s, with f the probability of the class; in [0, 1],
    lower is better. A map attributes to positions, so what a hole takes away is the map under it (Yeh et al.'s I·Φ with
    I = z ⊙ x and a map of x ⊙ Φ), and the hole has the mean colour, zero. β is the best scale for each map, as in the
    authors' code, for maps in [0, 1] have none of their own; here it is not negative, so that a map that points away is
    not turned round. An empty map gets mean_s (f(x) − f(x ⊙ (1 − z_s)))². (Quantus multiplies Φ by the signed change of
    the image and does not scale.)

    Each side of a hole is uniform between 1/8 and 1/2 of the image's, and so is where it starts, within the image. The
    holes of an image are the same for every method; only they cost passes, whatever the number of maps.

    Args:
        apply: the network; static.
        params: its parameters.
        images: b images as the network takes them.
        labels: class indices [b].
        maps: m maps of each image.
        key: a key of `jax.random.key`.
        ids: an integer an image [b] that its holes belong to; None: its position in the batch.
        samples: how many holes an image; static.
        chunk_size: network inputs held at once; None: what suits the device.

    Returns:
        One value a method and image [m, b].

    Raises:
        ValueError: no samples, or maps that do not fit the images.

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
        # After the holes comes the image as it is: in the same pass, so that rounding is the same.
        hole = hole & (sample < samples).reshape(-1, *[1] * len(space))
        return jnp.where(hole[..., None], jnp.zeros((), images.dtype), images[image])

    logits = logits_of(apply, params, inputs, b * (samples + 1), chunk_size).reshape(b, samples + 1, -1)
    found = probability(jnp.moveaxis(logits, 1, 0), labels).T
    costs = (found[:, samples:] - found[:, :samples])[None]
    under = maps.astype(jnp.float32)
    for axis, sides in enumerate(inside):
        # One axis after the other, for a hole is a box: no mask of the image's size for each.
        equation = "mbh...,bsh->mbs..." if axis == 0 else "mbsh...,bsh->mbs..."
        under = jnp.einsum(equation, under, sides.astype(jnp.float32), precision="highest")
    power = (under**2).sum(-1, keepdims=True)
    beta = jnp.where(power > 0, (under * costs).sum(-1, keepdims=True) / jnp.where(power > 0, power, 1.0), 0.0)
    return jnp.square(jnp.maximum(beta, 0.0) * under - costs).mean(-1)


def _holes(keys: Key[Array, " b"], samples: int, space: tuple[int, ...]) -> list[Array]:
    """Which rows, columns, ... of each image lie in each hole: one array [b, samples, length] an axis."""

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
