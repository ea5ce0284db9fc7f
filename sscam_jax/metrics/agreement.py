"""How much two maps agree: correlation, rank correlation, structural similarity.

Maps are [*m, *space] with any leading axes (methods, images); every function gives one value a map. The leading axes
of the two must be the same.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Wang et al.'s constants: an 11-point Gaussian window of standard deviation 1.5, for values in [0, 1].
_WINDOW_RADIUS, _WINDOW_SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def _pairs(a: Float[Array, "..."], b: Float[Array, "..."], spatial_axes: int) -> tuple[Array, Array]:
    if a.shape != b.shape:
        raise ValueError(f"maps have shapes {a.shape} and {b.shape}, expected the same shape")
    if not 1 <= spatial_axes <= a.ndim:
        raise ValueError(f"spatial_axes={spatial_axes} does not fit maps of shape {a.shape}; choose from 1 to {a.ndim}")
    return a.astype(jnp.float32), b.astype(jnp.float32)


def _correlation(a: Float[Array, "*m n"], b: Float[Array, "*m n"]) -> Float[Array, "*m"]:
    # Differences between equal numbers and their rounded mean are not quite zero: what is constant is found beforehand.
    varies = (a.max(-1) > a.min(-1)) & (b.max(-1) > b.min(-1))
    a = a - a.mean(-1, keepdims=True)
    b = b - b.mean(-1, keepdims=True)
    # Each by its own largest value, so that squares of tiny maps don't underflow.
    a, b = (x / jnp.where(varies, jnp.abs(x).max(-1), 1.0)[..., None] for x in (a, b))
    scale = jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return jnp.where(varies, jnp.clip((a * b).sum(-1) / jnp.where(varies, scale, 1.0), -1.0, 1.0), 0.0)


def pearson(a: Float[Array, "..."], b: Float[Array, "..."], *, spatial_axes: int = 2) -> Float[Array, "..."]:
    """Pearson's correlation of two maps over their pixels.

    r = Σ (a − ā)(b − b̄) / √(Σ (a − ā)² Σ (b − b̄)²), in [−1, 1]; higher is more alike. A constant map says nothing:
    r = 0.

    Args:
        a: maps [*m, *space].
        b: maps [*m, *space] to compare with.
        spatial_axes: how many of the last axes are space.

    Returns:
        One correlation a map [*m].

    Raises:
        ValueError: the shapes differ, or have fewer axes than `spatial_axes`.

    Example:
        >>> ramp = jnp.array([[0.0, 0.5, 1.0]])
        >>> pearson(ramp, 1 - ramp).item()
        -1.0
    """
    a, b = (x.reshape(*x.shape[: x.ndim - spatial_axes], -1) for x in _pairs(a, b, spatial_axes))
    return _correlation(a, b)


def _ranks(values: Float[Array, "*m n"]) -> Float[Array, "*m n"]:
    """Position of each value among all, from −1/2 to 1/2; equal values share the mean of their positions."""
    n = values.shape[-1]
    order = jnp.argsort(values, axis=-1)
    ordered = jnp.take_along_axis(values, order, -1)
    starts = jnp.concatenate([jnp.ones_like(ordered[..., :1], bool), ordered[..., 1:] != ordered[..., :-1]], -1)
    ends = jnp.concatenate([starts[..., 1:], jnp.ones_like(starts[..., :1])], -1)
    position = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), values.shape)
    axis = values.ndim - 1
    first = jax.lax.cummax(jnp.where(starts, position, 0), axis)
    last = jax.lax.cummin(jnp.where(ends, position, n - 1), axis, reverse=True)
    ranks = (first + last).astype(jnp.float32) / (2 * n) - 0.5
    return jnp.put_along_axis(jnp.zeros_like(ranks), order, ranks, axis=-1, inplace=False)


@functools.partial(jax.jit, static_argnames="spatial_axes")
def spearman(a: Float[Array, "..."], b: Float[Array, "..."], *, spatial_axes: int = 2) -> Float[Array, "..."]:
    """Spearman's rank correlation of two maps over their pixels.

    Pearson's correlation of the pixels' ranks, in [−1, 1]; higher is more alike. Equal pixels share the mean of their
    ranks. A constant map says nothing: 0.

    Args:
        a: maps [*m, *space].
        b: maps [*m, *space] to compare with.
        spatial_axes: how many of the last axes are space.

    Returns:
        One correlation a map [*m].

    Raises:
        ValueError: the shapes differ, or have fewer axes than `spatial_axes`.

    Example:
        >>> spearman(jnp.array([[0.0, 0.1, 1.0]]), jnp.array([[0.0, 0.9, 1.0]])).round(6).item()
        1.0

    References:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    a, b = (x.reshape(*x.shape[: x.ndim - spatial_axes], -1) for x in _pairs(a, b, spatial_axes))
    return _correlation(_ranks(a), _ranks(b))


def _local_mean(values: Float[Array, "..."], spatial_axes: int) -> Float[Array, "..."]:
    """Means under the Gaussian window, where it fits in whole."""
    offsets = jnp.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1, dtype=jnp.float32)
    window = jax.nn.softmax(-0.5 * (offsets / _WINDOW_SIGMA) ** 2)
    for axis in range(values.ndim - spatial_axes, values.ndim):
        length = values.shape[axis] - 2 * _WINDOW_RADIUS
        total = jnp.zeros_like(jax.lax.slice_in_dim(values, 0, length, axis=axis))
        for i, weight in enumerate(window):
            total = total + weight * jax.lax.slice_in_dim(values, i, i + length, axis=axis)
        values = total
    return values


@functools.partial(jax.jit, static_argnames="spatial_axes")
def ssim(a: Float[Array, "..."], b: Float[Array, "..."], *, spatial_axes: int = 2) -> Float[Array, "..."]:
    """Structural similarity of two maps in [0, 1].

    The mean over all windows that lie in the map of (2 μ_a μ_b + C1)(2 σ_ab + C2) / ((μ_a² + μ_b² + C1)(σ_a² + σ_b²
    + C2)), with a Gaussian window of 11 pixels a side and standard deviation 1.5, C1 = 0.01² and C2 = 0.03²; at most
    1, for equal maps; higher is more alike. It is scikit-image's with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1`.

    Args:
        a: maps [*m, *space] in [0, 1].
        b: maps [*m, *space] in [0, 1] to compare with.
        spatial_axes: how many of the last axes are space.

    Returns:
        One similarity a map [*m].

    Raises:
        ValueError: the shapes differ, have fewer axes than `spatial_axes`, or are smaller than the window.

    Example:
        >>> ssim(jnp.eye(16), jnp.eye(16)).round(6).item()
        1.0

    References:
        Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 2004.
    """
    a, b = _pairs(a, b, spatial_axes)
    space = a.shape[a.ndim - spatial_axes :]
    if min(space) < 2 * _WINDOW_RADIUS + 1:
        raise ValueError(f"maps have {space} pixels, expected at least {2 * _WINDOW_RADIUS + 1} a side: SSIM's window")
    mean_a, mean_b, aa, bb, ab = _local_mean(jnp.stack([a, b, a * a, b * b, a * b]), spatial_axes)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + _C1) * (2 * cov + _C2) / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))
    return similarity.mean(tuple(range(a.ndim - spatial_axes, a.ndim)))
