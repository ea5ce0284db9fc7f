"""Array operations that every method shares: arrays in, arrays out, for any number of spatial axes."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Normalised by ImageNet's constants, pixels lie between -2.2 and 2.7. Images with noise are wider, but not as wide.
_FAR = 20.0


def _spatial(array: Array, leading: int) -> tuple[int, ...]:
    return tuple(range(leading, array.ndim))


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype to compute in: float32 at least, whatever the network's precision.

    Args:
        dtype: a floating point dtype.

    Returns:
        float64 for float64, else float32.

    Example:
        >>> wide(jnp.dtype("bfloat16")).name
        'float32'
    """
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def resize(maps: Float[Array, "m *grid"], shape: tuple[int, ...]) -> Float[Array, "m *space"]:
    """U(·): linear interpolation of maps to the input's size (Eq. 8), half-pixel centres, clamped edges.

    The same as PyTorch's `interpolate(..., align_corners=False)` when enlarging, to 2e-6; no antialiasing.

    Args:
        maps: m maps [m, *grid].
        shape: the wanted size `space` in pixels, one integer per spatial axis.

    Returns:
        The maps [m, *space].

    Raises:
        ValueError: `shape` has another number of axes than the maps.

    Example:
        >>> resize(jnp.array([[0.0, 1.0]]), (4,)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Eq. 8.
    """
    if len(shape) != maps.ndim - 1:
        raise ValueError(
            f"shape {shape} has {len(shape)} axes, expected {maps.ndim - 1}: one for each of {maps.shape[1:]}"
        )
    return jax.image.resize(maps, (maps.shape[0], *shape), method="linear", antialias=False)


def value_range(maps: Float[Array, "m *space"]) -> Float[Array, " m"]:
    """Range max M − min M of each map.

    Args:
        maps: m arrays [m, ...].

    Returns:
        One range per map [m], ≥ 0, in the unit of the maps.

    Example:
        >>> value_range(jnp.array([[1.0, 3.0], [2.0, 2.0]])).tolist()
        [2.0, 0.0]
    """
    axes = _spatial(maps, 1)
    return maps.max(axes) - maps.min(axes)


def unit(maps: Float[Array, "m *space"]) -> Float[Array, "m *space"]:
    """s(·): each map brought to [0, 1] (Eq. 12); a constant map gives 0.

    s(M) = (M − min M) / (max M − min M).

    Args:
        maps: m maps [m, *space].

    Returns:
        The maps [m, *space], in [0, 1].

    Example:
        >>> unit(jnp.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])).tolist()
        [[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Eq. 12.
    """
    axes = _spatial(maps, 1)
    low = maps.min(axes, keepdims=True)
    span = maps.max(axes, keepdims=True) - low
    # Two `where`s: with one, the gradient of the branch not taken would be 0 · ∞, which is NaN.
    constant = span == 0
    return jnp.where(constant, 0.0, (maps - low) / jnp.where(constant, 1.0, span))


def blur(images: Float[Array, "b *space c"], *, sigma: float = 10.0) -> Float[Array, "b *space c"]:
    """Gaussian blur of images, edges repeated.

    Args:
        images: b images [b, *space, c].
        sigma: the Gaussian's standard deviation in pixels (> 0); the Gaussian ends at 3 σ.

    Returns:
        The blurred images [b, *space, c], in the images' own dtype.

    Example:
        >>> blur(jnp.ones((1, 8, 8, 3)), sigma=1.0).round(3).min().item()
        1.0
    """
    dtype = images.dtype
    # The kernel sums to 1 in float32 only; half precision would lose the tails.
    images = images.astype(wide(dtype))
    radius = max(1, round(3 * sigma))
    offsets = jnp.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = jnp.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(1, images.ndim - 1):
        pad = [(radius, radius) if i == axis else (0, 0) for i in range(images.ndim)]
        lines = jnp.moveaxis(jnp.pad(images, pad, mode="edge"), axis, -1)
        shape = lines.shape
        # Along one axis at a time: a Gaussian is a product of Gaussians, so 2 · 61 products per pixel instead of 61².
        lines = lines.reshape(-1, 1, shape[-1])
        lines = jax.lax.conv_general_dilated(
            lines, kernel[None, None], (1,), "VALID", precision=jax.lax.Precision.HIGHEST
        )
        images = jnp.moveaxis(lines.reshape(*shape[:-1], -1), -1, axis)
    return images.astype(dtype)


def check_normalised(images: Float[Array | np.ndarray, "b *space c_in"]) -> None:
    """Refuse images that ImageNet's normalisation can't give. A network answers to them, but with another class.

    Values that a transformation traces are not looked at.

    Args:
        images: a batch of images [b, *space, c_in].

    Raises:
        ValueError: there are values beyond ±20, as in pixels of 0 to 255.

    Warns:
        UserWarning: the values fill [0, 1]. Of a normalised photograph some are below 0, unless all of it is bright.

    Example:
        >>> check_normalised(np.full((1, 8, 8, 3), 128.0))
        Traceback (most recent call last):
        ...
        ValueError: images are from 128 to 128, expected images normalised with ImageNet's mean and standard deviation,
        between about -2.1 and 2.6: sscam_jax.preprocess makes them from uint8 pixels
    """
    # Of an array on several hosts, no host can look at all of it.
    if isinstance(images, jax.core.Tracer) or not getattr(images, "is_fully_addressable", True):
        return
    with jax.ensure_compile_time_eval():  # or under an outer jax.jit these values would be traced too
        low, high = float(images.min()), float(images.max())
    found = (
        f"images are from {low:.3g} to {high:.3g}, expected images normalised with ImageNet's mean and standard "
        "deviation, between about -2.1 and 2.6: sscam_jax.preprocess makes them from uint8 pixels"
    )
    if _FAR < max(-low, high) < np.inf:
        raise ValueError(found)
    if low >= 0 and 0.5 < high <= 1 and high - low > 0.5:
        warnings.warn(f"{found}; (x - mean) / std makes them from x in [0, 1]", stacklevel=4)
