"""ROAD (remove and debias): removed pixels are not set to black but imputed from their neighbours."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from sscam_jax.metrics._passes import check_fit, each, empty, logits_of, probability, ranks
from sscam_jax.types import Apply, Params

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
# The relative residual and the largest number of steps of the linear solver. With 1e-5 the error of a pixel is below
# 1e-3 of the standard deviation of the image.
_TOLERANCE, _MOST_STEPS = 1e-5, 5000


class Road(NamedTuple):
    """The mean probability of the class over the percentiles that are removed. Each attribute is [m, b].

    Attributes:
        morf: the most relevant pixels are removed first. Lower is better.
        lerf: the least relevant pixels are removed first. Higher is better. An empty map gets 0.
        combined: (lerf − morf) / 2, as in pytorch-grad-cam, in [−1/2, 1/2]. Higher is better. A random map gets about
            0, an empty map 0.
    """

    morf: Float[Array, "m b"]
    lerf: Float[Array, "m b"]
    combined: Float[Array, "m b"]


def _neighbours(values: Float[Array, "c *space"]) -> Float[Array, "c *space"]:
    """Return the weighted sum of the adjacent pixels. Pixels outside the image count as zero.

    In two dimensions the weights are 1/6 at the sides and 1/12 at the corners. In any number of dimensions they are the
    outer product of (1/2, 1, 1/2) without its centre, scaled to the sum 1.
    """
    total, axes = values, range(1, values.ndim)
    for axis in axes:
        length = values.shape[axis]
        padded = jnp.pad(total, [(1, 1) if i == axis else (0, 0) for i in range(values.ndim)])
        sides = [jax.lax.slice_in_dim(padded, start, start + length, axis=axis) for start in (0, 2)]
        total = total + (sides[0] + sides[1]) / 2
    return (total - values) / (2 ** len(axes) - 1)


def _impute(image: Float[Array, "*space c"], removed: Bool[Array, "*space"]) -> Float[Array, "*space c"]:
    # Channels first, because the sums then run along rows of pixels. This is several times faster on CPUs.
    pixels = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    hole = removed[None].astype(jnp.float32)
    weights = _neighbours(jnp.ones((1, *removed.shape), jnp.float32))

    # Only removed pixels are unknown. The others stay 0, so one matrix shape serves every set of holes.
    def equations(unknown: Float[Array, "c *space"]) -> Float[Array, "c *space"]:
        return hole * (weights * unknown - _neighbours(unknown))

    known = hole * _neighbours((1 - hole) * pixels)
    filled, _ = jax.scipy.sparse.linalg.cg(equations, known, tol=_TOLERANCE, maxiter=_MOST_STEPS)
    return jnp.moveaxis(jnp.where(removed[None], filled, pixels), 0, -1)


@jax.jit
def impute(images: Float[Array, "b *space c"], removed: Bool[Array, "b *space"]) -> Float[Array, "b *space c"]:
    """Linear imputation: every removed pixel becomes the weighted mean of all its neighbours.

    w_i x_i = Σ_j w_ij x_j over the adjacent pixels j, which may be removed too. w_ij is twice as large at sides as at
    corners, and w_i = Σ_j w_ij. The system is symmetric and positive definite, so conjugate gradients solve it. If
    every pixel is removed, the result is 0, the mean colour.

    Args:
        images: b images as the network takes them.
        removed: true for the pixels to remove [b, *space].

    Returns:
        The images with imputed pixels, in float32.

    Example:
        >>> image = jnp.array([1.0, 9.0, 9.0, 1.0]).reshape(1, 4, 1)
        >>> impute(image, jnp.array([[False, True, True, False]])).round(3).ravel().tolist()
        [1.0, 1.0, 1.0, 1.0]

    References:
        Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022.
    """
    # On CPUs, one image after the other: each then stops after its own number of steps.
    together = 1 if jax.default_backend() == "cpu" else images.shape[0]
    return jax.lax.map(lambda row: _impute(*row), (images, removed), batch_size=together)


def _check_percentiles(percentiles: tuple[int, ...]) -> None:
    if not percentiles or not all(0 < p < 100 for p in percentiles):
        raise ValueError(
            f"percentiles={percentiles} are not possible, expected at least one number, all between 0 and 100"
        )


@functools.partial(jax.jit, static_argnames=("apply", "percentiles", "chunk_size"))
def road(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    maps: Float[Array, "m b *space"],
    *,
    key: Key[Array, ""],
    ids: Int[Array, " b"] | None = None,
    percentiles: tuple[int, ...] = PERCENTILES,
    noise: float | Float[Array, ""] = 0.01,
    chunk_size: int | None = None,
) -> Road:
    """ROAD: how does the probability change when the most, or the least, relevant pixels are imputed?

    p percent of the pixels are replaced by `impute` plus Gaussian noise. The result is the probability of the class,
    averaged over the percentiles p. Ties break in row-major order. The noise of an image and a percentile is the same
    for every map and for both orders.

    Args:
        apply: the network; static.
        params: its parameters.
        images: b images as the network takes them.
        labels: class indices [b].
        maps: m maps per image.
        key: a key from `jax.random.key`.
        ids: one integer per image [b], which seeds its noise. None is the position in the batch.
        percentiles: the shares of the pixels to remove, in percent, between 0 and 100; static.
        noise: the standard deviation of the noise, in the unit of the images.
        chunk_size: the largest number of network inputs in memory. None chooses by device.

    Returns:
        The `Road`.

    Raises:
        ValueError: a percentile is not between 0 and 100, or the maps do not fit the images.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.max((1, 2)))
        >>> images = jnp.zeros((1, 4, 4, 2)).at[0, 0, 1, 0].set(50.0)
        >>> maps = jnp.zeros((1, 1, 4, 4)).at[0, 0, 0, 1].set(1.0)
        >>> found = road(apply, (), images, jnp.array([0]), maps, key=jax.random.key(0), noise=0.0)
        >>> [values.round(3).tolist() for values in found]
        [[[0.5]], [[1.0]], [[0.25]]]

    References:
        Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods, ICML 2022.
    """
    check_fit(images, maps)
    _check_percentiles(percentiles)
    m, b = maps.shape[:2]
    pixels, n = maps[0, 0].size, len(percentiles)
    counts = jnp.asarray([round(pixels * p / 100) for p in percentiles], jnp.int32)
    places = ranks(maps).reshape(m * b, *maps.shape[2:])
    keys = each(key, ids, b)

    def draw(image: Int[Array, ""], percentile: Int[Array, ""]) -> Float[Array, "*space c"]:
        return jax.random.normal(jax.random.fold_in(keys[image], percentile), images.shape[1:])

    def inputs(chunk: Int[Array, " p"]) -> Float[Array, "p *space c"]:
        # The inputs are ordered by map, then by order (0: the most relevant pixels first), then by percentile.
        row, order, percentile = chunk // (2 * n), chunk // n % 2, chunk % n
        place = places[row]
        place = jnp.where(order.reshape(-1, *[1] * (place.ndim - 1)) == 0, place, pixels - 1 - place)
        removed = place < counts[percentile].reshape(-1, *[1] * (place.ndim - 1))
        filled = impute(images[row % b], removed)
        drawn = jax.vmap(draw)(row % b, percentile)
        return (filled + jnp.where(removed[..., None], noise * drawn, 0.0)).astype(images.dtype)

    logits = logits_of(apply, params, inputs, m * b * 2 * n, chunk_size)
    by_step = jnp.moveaxis(logits.reshape(m, b, 2, n, -1), 1, 3)
    means = probability(by_step, labels).mean(2)
    morf, lerf = means[:, 0], jnp.where(empty(maps), 0.0, means[:, 1])
    return Road(morf, lerf, jnp.where(empty(maps), 0.0, (lerf - morf) / 2))
