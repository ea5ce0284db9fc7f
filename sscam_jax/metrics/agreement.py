"""How similar are two maps? Correlation, rank correlation and structural similarity.

Maps are [*m, *space], with any leading axes (methods, images). Every function returns one value per map. Both arrays
must have the same shape.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The constants of Wang et al.: a Gaussian window of 11 pixels with standard deviation 1.5, for values in [0, 1].
_WINDOW_RADIUS, _WINDOW_SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def _pairs(a: Float[Array, "..."], b: Float[Array, "..."], spatial_axes: int) -> tuple[Array, Array]:
    if a.shape != b.shape:
        raise ValueError(
            f"maps have shapes {a.shape} and {b.shape}, expected the same shape: sscam_jax.ops.resize "
            "brings them to one size"
        )
    if not 1 <= spatial_axes <= a.ndim:
        raise ValueError(f"spatial_axes={spatial_axes} does not fit maps of shape {a.shape}; choose from 1 to {a.ndim}")
    return a.astype(jnp.float32), b.astype(jnp.float32)


def _correlation(a: Float[Array, "*m n"], b: Float[Array, "*m n"]) -> Float[Array, "*m"]:
    # The rounded mean of equal numbers may differ from them, so the differences do not show that a map is constant.
    varies = (a.max(-1) > a.min(-1)) & (b.max(-1) > b.min(-1))
    a = a - a.mean(-1, keepdims=True)
    b = b - b.mean(-1, keepdims=True)
    # Each map is divided by its largest value, so that the squares of small values do not underflow.
    a, b = (x / jnp.where(varies, jnp.abs(x).max(-1), 1.0)[..., None] for x in (a, b))
    scale = jnp.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return jnp.where(varies, jnp.clip((a * b).sum(-1) / jnp.where(varies, scale, 1.0), -1.0, 1.0), 0.0)


def pearson(a: Float[Array, "..."], b: Float[Array, "..."], *, spatial_axes: int = 2) -> Float[Array, "..."]:
    """Pearson's correlation of two maps over their pixels.

    r = Σ (a − ā)(b − b̄) / √(Σ (a − ā)² Σ (b − b̄)²), in [−1, 1]. Higher is more similar. The correlation with a
    constant map is 0.

    Args:
        a: maps [*m, *space].
        b: maps [*m, *space] to compare with.
        spatial_axes: the number of spatial axes, which are the last ones.

    Returns:
        One correlation per map [*m].

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
    """Rank the values from −1/2 to 1/2. Equal values get the mean of their ranks."""
    n = values.shape[-1]
    order = jnp.argsort(values, axis=-1)
    ordered = jnp.take_along_axis(values, order, -1)
    # A run of equal values starts and ends where its neighbour differs. Its rank is the mean of its first and last
    # position.
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

    This is Pearson's correlation of the ranks of the pixels, in [−1, 1]. Higher is more similar. Equal pixels get the
    mean of their ranks. The correlation with a constant map is 0.

    Args:
        a: maps [*m, *space].
        b: maps [*m, *space] to compare with.
        spatial_axes: the number of spatial axes, which are the last ones.

    Returns:
        One correlation per map [*m].

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
    """Compute the means under the Gaussian window, at the positions where the whole window fits into the map."""
    offsets = jnp.arange(-_WINDOW_RADIUS, _WINDOW_RADIUS + 1, dtype=jnp.float32)
    window = jax.nn.softmax(-0.5 * (offsets / _WINDOW_SIGMA) ** 2)
    # A Gaussian is separable: one axis after the other.
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

    SSIM = mean over windows of (2 μ_a μ_b + C1)(2 σ_ab + C2) / ((μ_a² + μ_b² + C1)(σ_a² + σ_b² + C2)), with
    C1 = 0.01² and C2 = 0.03². The window is a Gaussian of 11 pixels per side with standard deviation 1.5, and it stays
    inside the map. The value is at most 1, which equal maps have. Higher is more similar. The result equals that of
    scikit-image with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`.

    Args:
        a: maps [*m, *space] in [0, 1].
        b: maps [*m, *space] in [0, 1] to compare with.
        spatial_axes: the number of spatial axes, which are the last ones.

    Returns:
        One similarity per map [*m].

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
        raise ValueError(
            f"maps have {space} pixels, expected at least {2 * _WINDOW_RADIUS + 1} per side, the size of SSIM's "
            "window: sscam_jax.ops.resize enlarges them"
        )
    mean_a, mean_b, aa, bb, ab = _local_mean(jnp.stack([a, b, a * a, b * b, a * b]), spatial_axes)
    var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    similarity = (2 * mean_a * mean_b + _C1) * (2 * cov + _C2) / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))
    return similarity.mean(tuple(range(a.ndim - spatial_axes, a.ndim)))
