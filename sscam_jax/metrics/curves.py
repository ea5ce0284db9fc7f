"""Insertion and deletion: the probability of the class while pixels are added or removed in order of importance."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sscam_jax import ops
from sscam_jax.metrics._passes import check_fit, empty, logits_of, probability, ranks
from sscam_jax.types import Apply, Params


class Curve(NamedTuple):
    """The probability of the class while pixels change, the most important first.

    Attributes:
        auc: the area under each curve by the trapezoid rule [m, b], in [0, 1].
        curve: the probability after each step [m, b, steps + 1].
        shares: the share of changed pixels after each step [steps + 1], from 0 to 1.
    """

    auc: Float[Array, "m b"]
    curve: Float[Array, "m b s"]
    shares: Float[Array, " s"]


def _curve(
    apply: Apply,
    params: Params,
    old: Float[Array, "b *space c"],
    new: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    maps: Float[Array, "m b *space"],
    steps: int,
    chunk_size: int | None,
) -> Curve:
    """Compute the probability of the class while pixels of `new` replace those of `old`."""
    check_fit(old, maps)
    m, b = maps.shape[:2]
    pixels = maps[0, 0].size
    if not 1 <= steps <= pixels:
        raise ValueError(f"steps={steps} is not possible with maps of {pixels} pixels; choose from 1 to {pixels}")
    # Rounded, so the steps differ by at most one pixel and the last one changes every pixel.
    counts = jnp.asarray([round(pixels * step / steps) for step in range(steps + 1)], jnp.int32)
    places = ranks(maps).reshape(m * b, *maps.shape[2:])

    def inputs(chunk: Int[Array, " p"]) -> Float[Array, "p *space c"]:
        # Input i is step i % (steps + 1) of map i // (steps + 1).
        row, step = chunk // (steps + 1), chunk % (steps + 1)
        changed = places[row] < counts[step].reshape(-1, *[1] * (maps.ndim - 2))
        return jnp.where(changed[..., None], new[row % b], old[row % b])

    logits = logits_of(apply, params, inputs, m * b * (steps + 1), chunk_size)
    by_step = jnp.moveaxis(logits.reshape(m, b, steps + 1, -1), 2, 0)
    curve = jnp.moveaxis(probability(by_step, labels), 0, 2)
    shares = counts.astype(jnp.float32) / pixels
    # With the true widths, because rounded steps are not all of one width.
    auc = ((curve[..., 1:] + curve[..., :-1]) / 2 * jnp.diff(shares)[None, None]).sum(-1)
    return Curve(auc, curve, shares)


@functools.partial(jax.jit, static_argnames=("apply", "steps", "sigma", "chunk_size"))
def insertion(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    maps: Float[Array, "m b *space"],
    *,
    steps: int = 32,
    sigma: float = 10.0,
    chunk_size: int | None = None,
) -> Curve:
    """Insertion: how fast does the class appear when a blurred image becomes sharp, the most important pixels first?

    The area under the curve of the probability against the share of sharp pixels, in [0, 1]. Higher is better. Ties
    break in row-major order. An empty map gets 0. (RISE's authors blur with σ = 5 and a window of 11 pixels.)

    Args:
        apply: the network; static.
        params: its parameters.
        images: b images as the network takes them.
        labels: class indices [b].
        maps: m maps per image.
        steps: the number of steps, which change nearly equal numbers of pixels; static.
        sigma: the standard deviation of the blur in pixels; static.
        chunk_size: the largest number of network inputs in memory. None chooses by device.

    Returns:
        The `Curve`.

    Raises:
        ValueError: there are more steps than pixels, or the maps do not fit the images.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.max((1, 2)))
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(50.0)
        >>> maps = jnp.zeros((1, 1, 2, 2)).at[0, 0, 0, 1].set(1.0)
        >>> insertion(apply, (), images, jnp.array([0]), maps, steps=4, sigma=1.0).auc.round(3).tolist()
        [[1.0]]

    References:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018.
    """
    curve = _curve(apply, params, ops.blur(images, sigma=sigma), images, labels, maps, steps, chunk_size)
    # Higher is better, so an empty map must not profit from the order of its equal pixels.
    return curve._replace(auc=jnp.where(empty(maps), 0.0, curve.auc))


@functools.partial(jax.jit, static_argnames=("apply", "steps", "chunk_size"))
def deletion(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    maps: Float[Array, "m b *space"],
    *,
    steps: int = 32,
    chunk_size: int | None = None,
) -> Curve:
    """Deletion: how fast does the class disappear when pixels become zero, the most important first?

    Zero is the mean colour. The metric is the area under the curve of the probability against the share of deleted
    pixels, in [0, 1]. Lower is better. Ties break in row-major order, so an empty map deletes row by row.

    Args:
        apply: the network; static.
        params: its parameters.
        images: b images as the network takes them.
        labels: class indices [b].
        maps: m maps per image.
        steps: the number of steps, which change nearly equal numbers of pixels; static.
        chunk_size: the largest number of network inputs in memory. None chooses by device.

    Returns:
        The `Curve`.

    Raises:
        ValueError: there are more steps than pixels, or the maps do not fit the images.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.max((1, 2)))
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(50.0)
        >>> maps = jnp.zeros((1, 1, 2, 2)).at[0, 0, 0, 1].set(1.0)
        >>> deletion(apply, (), images, jnp.array([0]), maps, steps=4).curve[0, 0].tolist()
        [1.0, 0.5, 0.5, 0.5, 0.5]

    References:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018.
    """
    return _curve(apply, params, images, jnp.zeros_like(images), labels, maps, steps, chunk_size)
