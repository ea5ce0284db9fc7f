"""Does a map lie on the object? Energy in the box and the pointing game.

Maps are [*m, b, h, w] in [0, 1], with any leading axes (methods, keys); boxes are [b, k, 4], k of an image: y0, x0, y1,
x1 as shares of the map's height and width, a row of -1 for no box. The object is the union of an image's boxes. Every
function gives one value an image and method [*m, b], and NaN exactly for an image without a box, for which nothing is
defined: leave it out of a mean. A row that covers no area counts as no box.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

Maps = Float[Array, "*m b h w"]
Boxes = Float[Array | np.ndarray, "b k 4"]


def valid_boxes(boxes: Boxes) -> Bool[Array, "b k"]:
    """Which rows hold a box of positive area.

    Args:
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.

    Returns:
        True for a box [b, k].

    Example:
        >>> valid_boxes(jnp.array([[[0.0, 0.0, 1.0, 0.5], [-1.0, -1.0, -1.0, -1.0]]])).tolist()
        [[True, False]]
    """
    boxes = jnp.asarray(boxes)
    return (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])


def single_box(boxes: Boxes) -> Bool[Array, " b"]:
    """Which images have exactly one box, and that covers at most half of the image.

    Args:
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.

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
    """The share of each pixel along one axis that lies between two shares of that axis."""
    edges = jnp.arange(pixels, dtype=jnp.float32)
    low, high = low[..., None] * pixels, high[..., None] * pixels
    edges = edges[None, None]
    return jnp.clip(jnp.minimum(high, edges + 1) - jnp.maximum(low, edges), 0.0, 1.0)


@functools.partial(jax.jit, static_argnames="shape")
def box_mask(boxes: Boxes, shape: tuple[int, int]) -> Float[Array, "b h w"]:
    """The share of every pixel that the boxes cover.

    A pixel that a box's edge cuts counts by its covered area, so that a mask's mean is the box's area. Of several boxes
    the one that covers most of the pixel counts: their union, but for pixels in which edges of two boxes meet.

    Args:
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.
        shape: height and width of the masks in pixels.

    Returns:
        Masks [b, h, w] in [0, 1]; zero without a box.

    Example:
        >>> box_mask(jnp.array([[[0.0, 0.5, 0.5, 1.0]]]), (2, 3))[0].tolist()
        [[0.0, 0.5, 1.0], [0.0, 0.0, 0.0]]
    """
    boxes = jnp.where(valid_boxes(boxes)[..., None], jnp.asarray(boxes, jnp.float32), 0.0)
    rows = _cover(boxes[..., 0], boxes[..., 2], shape[0])
    columns = _cover(boxes[..., 1], boxes[..., 3], shape[1])
    return jnp.max(rows[..., :, None] * columns[..., None, :], axis=1, initial=0.0)


def nan_without_box(values: Float[Array, "*m b"], boxes: Boxes) -> Float[Array, "*m b"]:
    """NaN for images without a box."""
    defined = jnp.broadcast_to(valid_boxes(boxes).any(-1), values.shape)
    return jnp.where(defined, values, jnp.nan)


def _energy(maps: Maps, masks: Float[Array, "b h w"]) -> Float[Array, "*m b"]:
    """The share of each map's sum that lies under the mask; 0 of a zero map."""
    maps = maps.astype(jnp.float32)
    inside = jnp.einsum("...hw,...hw->...", maps, jnp.broadcast_to(masks, maps.shape), precision="highest")
    total = maps.sum((-2, -1))
    return jnp.where(total > 0, inside / jnp.where(total > 0, total, 1.0), 0.0)


@jax.jit
def energy_in_box(maps: Maps, boxes: Boxes) -> Float[Array, "*m b"]:
    """Energy-based pointing game: how much of the map lies in the box.

    100 · Σ_box M / Σ M, in percent, 0 to 100; higher is better. A uniform map gets the box's share of the area, a zero
    map 0.

    Args:
        maps: [*m, b, h, w], ≥ 0.
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.

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
    """How many times denser the map is in the box than in the image.

    (Σ_box M / Σ M) / (area of the box / area of the image), from 0 to area of the image / area of the box; higher is
    better. Chance, a uniform map, is 1; a zero map gets 0.

    Args:
        maps: [*m, b, h, w], ≥ 0.
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.

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
    """Pointing game: whether the map's maximum is in a box, or near one.

    A hit, if the centre of the largest pixel is at most `tolerance` away from a box. Where several pixels are equally
    large the value is their share of hits: what picking one of them at random gives, and chance for a uniform map. A
    zero map is a miss. Higher is better. The field's score is the mean over the images of a class, then over classes,
    without objects marked as difficult: both are the caller's.

    Args:
        maps: [*m, b, h, w], ≥ 0.
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.
        tolerance: in pixels of the map. The authors' 15 are of the photograph in its own size, to which they enlarge
            the map: on a map of a smaller image they are more lenient. Traced.

    Returns:
        100 for a hit, 0 for a miss, or between [*m, b]; NaN for an image without a box.

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
    # How far a pixel's centre is outside of a box, along each axis.
    down = jnp.maximum(jnp.maximum(scaled[..., 0, None] - y, y - scaled[..., 2, None]), 0.0)
    across = jnp.maximum(jnp.maximum(scaled[..., 1, None] - x, x - scaled[..., 3, None]), 0.0)
    near = down[..., :, None] ** 2 + across[..., None, :] ** 2 <= jnp.square(jnp.asarray(tolerance, jnp.float32))
    hits = (near & valid_boxes(boxes)[..., None, None]).any(1).astype(jnp.float32)
    top = maps.max((-2, -1), keepdims=True)
    largest = ((maps == top) & (top > 0)).astype(jnp.float32)
    count = largest.sum((-2, -1))
    share = (largest * jnp.broadcast_to(hits, maps.shape)).sum((-2, -1)) / jnp.maximum(count, 1.0)
    return nan_without_box(100 * share, boxes)
