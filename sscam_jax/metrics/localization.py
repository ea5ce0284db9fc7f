"""Is the map on the object? Energy in the box and the pointing game.

Maps are [*m, b, h, w] in [0, 1], with any leading axes (methods, keys). Boxes are [b, k, 4], k per image: y0, x0, y1,
x1 relative to the height and width of the map. A row of -1, or a row without area, is not a box. The object is the
union of the boxes of an image. Every function returns one value per method and image [*m, b]. The value is NaN for an
image without a box, and only then: leave such images out of a mean.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

Maps = Float[Array, "*m b h w"]
Boxes = Float[Array | np.ndarray, "b k 4"]


def valid_boxes(boxes: Boxes) -> Bool[Array, "b k"]:
    """Find the rows that are boxes with a positive area.

    Args:
        boxes: boxes [b, k, 4]: y0, x0, y1, x1 relative to the image.

    Returns:
        True for a box [b, k].

    Example:
        >>> valid_boxes(jnp.array([[[0.0, 0.0, 1.0, 0.5], [-1.0, -1.0, -1.0, -1.0]]])).tolist()
        [[True, False]]
    """
    boxes = jnp.asarray(boxes)
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def single_box(boxes: Boxes) -> Bool[Array, " b"]:
    """Find the images with exactly one box that covers at most half of the image.

    Args:
        boxes: boxes [b, k, 4]: y0, x0, y1, x1 relative to the image.

    Returns:
        True for such an image [b].

    Example:
        >>> none = [-1.0, -1.0, -1.0, -1.0]
        >>> left, nearly_all = [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 1.0, 0.9]
        >>> single_box(jnp.array([[left, none], [nearly_all, none], [left, left], [none, none]])).tolist()
        [True, False, False, False]
    """
    boxes, valid = jnp.asarray(boxes), valid_boxes(boxes)
    areas = jnp.where(valid, (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0.0)
    return (valid.sum(-1) == 1) & (areas.sum(-1) <= 0.5)


def _cover(low: Float[Array, "b k"], high: Float[Array, "b k"], pixels: int) -> Float[Array, "b k n"]:
    """Compute how much of each pixel, along one axis, is between the two edges of a box."""
    edges = jnp.arange(pixels, dtype=jnp.float32)[None, None]
    low, high = low[..., None] * pixels, high[..., None] * pixels
    return jnp.clip(jnp.minimum(high, edges + 1) - jnp.maximum(low, edges), 0.0, 1.0)


@functools.partial(jax.jit, static_argnames="shape")
def box_mask(boxes: Boxes, shape: tuple[int, int]) -> Float[Array, "b h w"]:
    """Compute how much of each pixel the boxes cover.

    A pixel on the edge of a box gets its covered area, so the mean of a mask is the area of the box. With several
    boxes, each pixel gets the largest of its covered areas. This is the union of the boxes, except at pixels where the
    edges of two boxes meet.

    Args:
        boxes: boxes [b, k, 4]: y0, x0, y1, x1 relative to the image.
        shape: height and width of the masks in pixels.

    Returns:
        Masks [b, h, w] in [0, 1]. An image without a box gets zeros.

    Example:
        >>> box_mask(jnp.array([[[0.0, 0.5, 0.5, 1.0]]]), (2, 3))[0].tolist()
        [[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]
    """
    boxes = jnp.where(valid_boxes(boxes)[..., None], jnp.asarray(boxes, jnp.float32), 0.0)
    rows = _cover(boxes[..., 0], boxes[..., 2], shape[0])
    columns = _cover(boxes[..., 1], boxes[..., 3], shape[1])
    return jnp.max(rows[..., :, None] * columns[..., None, :], axis=1, initial=0.0)


def nan_without_box(values: Float[Array, "*m b"], boxes: Boxes) -> Float[Array, "*m b"]:
    """Replace the values of images without a box by NaN."""
    defined = jnp.broadcast_to(valid_boxes(boxes).any(-1), values.shape)
    return jnp.where(defined, values, jnp.nan)


def _energy(maps: Maps, masks: Float[Array, "b h w"]) -> Float[Array, "*m b"]:
    """Compute which share of the sum of each map is under the mask; 0 for a zero map."""
    maps = maps.astype(jnp.float32)
    inside = jnp.einsum("...hw,...hw->...", maps, jnp.broadcast_to(masks, maps.shape), precision="highest")
    total = maps.sum((-2, -1))  # 0 for a flat map, which is no energy in the box rather than NaN
    return jnp.where(total > 0, inside / jnp.where(total > 0, total, 1.0), 0.0)


@jax.jit
def energy_in_box(maps: Maps, boxes: Boxes) -> Float[Array, "*m b"]:
    """Energy-based pointing game: how much of the map is inside the box?

    100 · Σ_box M / Σ M, in percent from 0 to 100. Higher is better. A uniform map gets the area of the box in percent
    of the image. A zero map gets 0.

    Args:
        maps: maps [*m, b, h, w], ≥ 0.
        boxes: boxes [b, k, 4]: y0, x0, y1, x1 relative to the image.

    Returns:
        Percent [*m, b]; NaN for an image without a box.

    Example:
        >>> maps = jnp.array([[[1.0, 3.0], [0.0, 0.0]]])
        >>> energy_in_box(maps, jnp.array([[[0.0, 0.5, 0.5, 1.0]]])).tolist()  # the box is the top right quarter
        [75.0]

    References:
        Wang et al., Score-CAM, CVPR Workshops 2020.
    """
    return nan_without_box(100 * _energy(maps, box_mask(boxes, (maps.shape[-2], maps.shape[-1]))), boxes)


@jax.jit
def energy_over_area(maps: Maps, boxes: Boxes) -> Float[Array, "*m b"]:
    """Energy in the box, divided by the share of the image that the box covers.

    (Σ_box M / Σ M) / (area of the box / area of the image). The largest value is area of the image / area of the box.
    Higher is better. A uniform map gets 1, which is chance. A zero map gets 0.

    Args:
        maps: maps [*m, b, h, w], ≥ 0.
        boxes: boxes [b, k, 4]: y0, x0, y1, x1 relative to the image.

    Returns:
        Ratios [*m, b]; NaN for an image without a box.

    Example:
        >>> maps = jnp.array([[[1.0, 3.0], [0.0, 0.0]]])
        >>> energy_over_area(maps, jnp.array([[[0.0, 0.5, 0.5, 1.0]]])).tolist()
        [3.0]

    References:
        Wang et al., Score-CAM, CVPR Workshops 2020.
    """
    masks = box_mask(boxes, (maps.shape[-2], maps.shape[-1]))
    area = masks.mean((-2, -1))
    energy = _energy(maps, masks)
    area = jnp.broadcast_to(jnp.where(area > 0, area, 1.0), energy.shape)
    return nan_without_box(energy / area, boxes)


@jax.jit
def pointing_game(maps: Maps, boxes: Boxes, *, tolerance: float | Num[Array, ""] = 15.0) -> Float[Array, "*m b"]:
    """Pointing game: is the maximum of the map in a box or near a box?

    A hit means that the centre of the highest pixel is at most `tolerance` away from a box. If several pixels are
    equally high, the value is the share of them that are hits, which is the expected value of a random choice. So a
    uniform map gets chance. A zero map is a miss. Higher is better. Papers report the mean over the images of a class
    and then over classes, without objects that are marked as difficult. Both are left to the caller.

    Args:
        maps: maps [*m, b, h, w], ≥ 0.
        boxes: boxes [b, k, 4]: y0, x0, y1, x1 relative to the image.
        tolerance: the distance in pixels of the map. Traced. The authors resize the map to the original photograph
            and use 15 pixels there. On a smaller map, 15 pixels are a larger part of the image and so easier to hit.

    Returns:
        100 for a hit, 0 for a miss, a value between them for ties [*m, b]; NaN for an image without a box.

    Example:
        >>> maps = jnp.array([[[1.0, 3.0], [0.0, 0.0]]])
        >>> right, left = jnp.array([[[0.0, 0.5, 1.0, 1.0]]]), jnp.array([[[0.0, 0.0, 1.0, 0.5]]])
        >>> [pointing_game(maps, boxes, tolerance=0).item() for boxes in (right, left)]
        [100.0, 0.0]

    References:
        Zhang et al., Top-Down Neural Attention by Excitation Backprop, IJCV 2018 (arXiv 1608.00507).
    """
    height, width = maps.shape[-2:]
    scaled = jnp.asarray(boxes, jnp.float32) * jnp.array([height, width, height, width], jnp.float32)[None, None]
    y, x = (jnp.arange(n, dtype=jnp.float32)[None, None] + 0.5 for n in (height, width))
    # The distance of the centre of each pixel from each box, per axis; zero inside the box.
    down = jnp.maximum(jnp.maximum(scaled[..., 0, None] - y, y - scaled[..., 2, None]), 0.0)
    across = jnp.maximum(jnp.maximum(scaled[..., 1, None] - x, x - scaled[..., 3, None]), 0.0)
    near = down[..., :, None] ** 2 + across[..., None, :] ** 2 <= jnp.square(jnp.asarray(tolerance, jnp.float32))
    # A row without area is not a box, although a pixel can be near it.
    hits = (near & valid_boxes(boxes)[..., None, None]).any(1).astype(jnp.float32)
    # Enlarged maps of small layers often have ties, and argmax would take the one nearest to the top left corner.
    top = maps.max((-2, -1), keepdims=True)
    largest = ((maps == top) & (top > 0)).astype(jnp.float32)
    count = largest.sum((-2, -1))
    share = (largest * jnp.broadcast_to(hits, maps.shape)).sum((-2, -1)) / jnp.maximum(count, 1.0)
    return nan_without_box(100 * share, boxes)
