"""Do boxes around the regions of a map overlap with the boxes of the object? IoU and MaxBoxAcc.

A map is cut at thresholds relative to its maximum. The pixels above a threshold form regions: pixels that touch by a
side or a corner belong together, as in OpenCV's contours, which the reference code uses. Each region gets a box. Maps
[*m, b, h, w] have any leading axes. Boxes are [b, k, 4] as in `localization`. Where the device is a CPU, SciPy finds
the regions, outside of compiled code: for the maps of a CAM that takes an eighth of the time, for noise twice the time.

Differences from the reference code of Choe et al.:

- The largest region is the one with most pixels. Theirs has the largest area inside its outline, which fills holes.
- The outline of a hole gives no box.
- Maps are not rounded to 256 levels first.
- Areas are continuous. Theirs count one pixel more per side.
- Equally large regions all count, so a flip changes nothing.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sscam_jax.metrics.components import boxes_on_host, grown
from sscam_jax.metrics.localization import Boxes, Maps, nan_without_box, valid_boxes

Regions = Literal["largest", "all"]
"""Which regions may find the object: the "largest" only (MaxBoxAcc), or "all" of them (MaxBoxAccV2)."""

THRESHOLDS = tuple(i / 100 for i in range(100))
"""0, 0.01, ..., 0.99 of a map's maximum."""


def _region_boxes(labels: Int[Array, "n h w"], largest: bool) -> tuple[Float[Array, "n p 4"], Bool[Array, "n p"]]:
    """The box around each region, in shares, and which of the p labels are regions that count."""
    n, height, width = labels.shape
    flat = labels.reshape(n, -1)
    rows = jnp.arange(n, dtype=jnp.int32)[:, None]
    position = jnp.broadcast_to(jnp.arange(height * width, dtype=jnp.int32), flat.shape)
    column = position % width
    # Scatters with min and max give the edges of all regions at once, without a loop over regions.
    most = jnp.full((n, height * width + 1), height * width, jnp.int32)
    first = most.at[rows, flat].min(position)
    left = most.at[rows, flat].min(column)
    right = jnp.zeros_like(most).at[rows, flat].max(column)
    # Label 0 is the background. A label is the position of its region's last pixel, which has that label itself.
    first, left, right = (array[:, 1:] for array in (first, left, right))
    counts = flat == position + 1
    if largest:
        size = jnp.zeros_like(most).at[rows, flat].add(1)[:, 1:]
        size = jnp.where(counts, size, 0)
        counts &= size == size.max(1, keepdims=True)
    # A box ends after its last pixel, so `+ 1`: a region of one pixel has the area of one pixel.
    edges = [first // width / height, left / width, (position // width + 1) / height, (right + 1) / width]
    return jnp.stack([edge.astype(jnp.float32) for edge in edges], axis=-1), counts


def _iou(a: Float[Any, "n p 4"], b: Float[Any, "n k 4"], module: Any) -> Float[Any, "n p k"]:
    """The overlap of every box of `a` with every one of `b`, by NumPy or JAX."""
    a, b = a[:, :, None], b[:, None]
    top, left = module.maximum(a[..., 0], b[..., 0]), module.maximum(a[..., 1], b[..., 1])
    bottom, right = module.minimum(a[..., 2], b[..., 2]), module.minimum(a[..., 3], b[..., 3])
    common = module.maximum(bottom - top, 0.0) * module.maximum(right - left, 0.0)
    area_a, area_b = ((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b))
    # The smallest positive float, for boxes without an area: 0 / 0 would be NaN.
    return common / module.maximum(area_a + area_b - common, jnp.finfo(jnp.float32).tiny)


def _shared(maps: Maps, boxes: Boxes) -> tuple[Array, Array, Array]:
    """Maps [n, h, w], and for each of them the boxes of its image, and which of these are there."""
    flat = maps.reshape(-1, *maps.shape[-2:])
    valid = jnp.broadcast_to(valid_boxes(boxes), (*maps.shape[:-2], boxes.shape[1])).reshape(len(flat), -1)
    shared = jnp.broadcast_to(jnp.asarray(boxes, jnp.float32), (*maps.shape[:-2], *boxes.shape[1:]))
    return flat, shared.reshape(len(flat), -1, 4), valid


def _box_iou_on_host(
    maps: Maps, boxes: Boxes, thresholds: Float[np.ndarray, " t"], regions: Regions
) -> Float[np.ndarray, "*m b t"]:
    flat, shared, valid = map(np.asarray, _shared(jnp.asarray(maps), boxes))
    ious = np.zeros((len(flat), len(thresholds)), np.float32)
    for i, (one, its, there) in enumerate(zip(flat, shared, valid, strict=True)):
        for t, threshold in enumerate(thresholds if there.any() else ()):
            found = boxes_on_host(one > threshold * one.max(), regions == "largest")
            ious[i, t] = _iou(found[None], its[None, there], np).max(initial=0)
    return ious.reshape(*maps.shape[:-2], -1)


@functools.partial(jax.jit, static_argnames="regions")
def _box_iou(maps: Maps, boxes: Boxes, thresholds: Float[Array, " t"], regions: Regions) -> Float[Array, "*m b t"]:
    flat, shared, valid = _shared(maps, boxes)
    top = flat.max((1, 2), keepdims=True)

    def at(known: Int[Array, "n h w"], threshold: Float[Array, ""]) -> tuple[Array, Array]:
        labels = grown(flat > threshold * top, known)
        found, counts = _region_boxes(labels, regions == "largest")
        ious = jnp.where(counts[:, :, None] & valid[:, None], _iou(found, shared, jnp), 0.0)
        return labels, ious.max((1, 2), initial=0.0)

    # From the highest threshold down regions only grow, and what is known of them stays true.
    down = jnp.argsort(-thresholds)
    _, ious = jax.lax.scan(at, jnp.zeros(flat.shape, jnp.int32), thresholds[down])
    ious = jnp.zeros_like(ious).at[down].set(ious)
    return jnp.moveaxis(ious, 0, -1).reshape(*maps.shape[:-2], -1)


def box_iou(
    maps: Maps, boxes: Boxes, *, thresholds: Sequence[float] = THRESHOLDS, regions: Regions = "all"
) -> Float[Array, "*m b t"]:
    """Intersection over union of the map's boxes and the object's boxes, at each threshold.

    The largest IoU of any pair of a box around a region of M > τ · max M and a box of the image. From 0 to 1. Higher is
    better. A zero map has no regions and gets 0.

    Args:
        maps: [*m, b, h, w], ≥ 0.
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.
        thresholds: t thresholds τ, as shares of each map's maximum.
        regions: "largest", only the region of most pixels, or "all".

    Returns:
        IoU [*m, b, t]; NaN for an image without a box.

    Raises:
        ValueError: an unknown choice of regions.

    Example:
        >>> maps = jnp.array([[[0.2, 0.2, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
        >>> right_half = jnp.array([[[0.0, 0.5, 1.0, 1.0]]])
        >>> box_iou(maps, right_half, thresholds=[0.1, 0.5]).tolist()
        [[0.5, 1.0]]

    References:
        Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020.
    """
    if regions not in (choices := ("largest", "all")):
        raise ValueError(f"regions={regions!r} is not a choice; choose from {', '.join(map(repr, choices))}")
    levels = np.asarray(thresholds, np.float32)
    # Not by a call back from compiled code, which can hang on a CPU (github.com/jax-ml/jax/issues/25861).
    on_host = jax.default_backend() == "cpu" and not any(isinstance(each, jax.core.Tracer) for each in (maps, boxes))
    ious = jnp.asarray((_box_iou_on_host if on_host else _box_iou)(maps, boxes, levels, regions))
    return jnp.moveaxis(nan_without_box(jnp.moveaxis(ious, -1, 0), boxes), 0, -1)


def best_box_iou(
    maps: Maps, boxes: Boxes, *, thresholds: Sequence[float] = THRESHOLDS, regions: Regions = "all"
) -> Float[Array, "*m b"]:
    """Intersection over union of the object's boxes and the map's best box at any threshold.

    max_τ `box_iou`, from 0 to 1. Higher is better. The threshold of each image is chosen with the object's box, so this
    is an upper limit. `max_box_acc` has one threshold for all images.

    Args:
        maps: [*m, b, h, w], ≥ 0.
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.
        thresholds: as shares of each map's maximum.
        regions: "largest", only the region of most pixels, or "all".

    Returns:
        IoU [*m, b]; NaN for an image without a box.

    Raises:
        ValueError: an unknown choice of regions.

    Example:
        >>> maps = jnp.array([[[0.2, 0.2, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
        >>> best_box_iou(maps, jnp.array([[[0.0, 0.5, 1.0, 1.0]]])).tolist()
        [1.0]

    References:
        Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020.
    """
    return box_iou(maps, boxes, thresholds=thresholds, regions=regions).max(-1)


def box_accuracy(
    maps: Maps,
    boxes: Boxes,
    *,
    iou: float = 0.5,
    thresholds: Sequence[float] = THRESHOLDS,
    regions: Regions = "largest",
) -> Float[Array, "*m b t"]:
    """BoxAcc(τ, δ) of single images: is the object found at each threshold?

    100 if `box_iou` is at least δ, else 0. Higher is better. The mean over images is the accuracy at that threshold.

    Args:
        maps: [*m, b, h, w], ≥ 0.
        boxes: [b, k, 4], y0, x0, y1, x1 as shares.
        iou: δ, the overlap that counts as found.
        thresholds: t thresholds τ, as shares of each map's maximum.
        regions: "largest", only the region of most pixels, or "all".

    Returns:
        100 or 0 [*m, b, t]; NaN for an image without a box.

    Raises:
        ValueError: an unknown choice of regions.

    Example:
        >>> maps = jnp.array([[[0.2, 0.2, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
        >>> box_accuracy(maps, jnp.array([[[0.0, 0.5, 1.0, 1.0]]]), iou=0.6, thresholds=[0.1, 0.5]).tolist()
        [[0.0, 100.0]]

    References:
        Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020.
    """
    return hits(box_iou(maps, boxes, thresholds=thresholds, regions=regions), iou)


def hits(ious: Float[Array, "*m b t"], iou: float) -> Float[Array, "*m b t"]:
    """100 where the overlap is at least `iou`, else 0; NaN stays NaN."""
    return jnp.where(jnp.isnan(ious), jnp.nan, jnp.where(ious >= iou, 100.0, 0.0))


def max_box_acc(ious: Float[Array, "*m b t"], *, iou: Sequence[float] = (0.5,)) -> Float[Array, "*m"]:
    """MaxBoxAcc of a data set: the share of images whose object is found, at the threshold that is best for all images.

    mean_δ max_τ mean_images 100 · [IoU(τ) ≥ δ], in percent. Higher is better. For MaxBoxAcc give `box_iou` of the
    "largest" regions and δ = 0.5. For MaxBoxAccV2 give `box_iou` of "all" regions and δ = 0.3, 0.5 and 0.7. Images
    without a box are left out.

    Args:
        ious: `box_iou` of all images of the data set [*m, b, t].
        iou: the δ.

    Returns:
        Percent [*m]; NaN where no image has a box.

    Example:
        >>> ious = jnp.array([[0.4, 0.6], [0.1, 0.8], [0.9, 0.2], [0.4, 0.2], [jnp.nan, jnp.nan]])
        >>> max_box_acc(ious).item(), max_box_acc(ious, iou=[0.3, 0.7]).item()
        (50.0, 50.0)

    References:
        Choe et al., Evaluating Weakly Supervised Object Localization Methods Right, CVPR 2020, and Evaluation for
        Weakly Supervised Object Localization: Protocol, Metrics, and Datasets, TPAMI (arXiv 2007.04178).
    """
    return jnp.stack([jnp.nanmean(hits(ious, level), axis=-2).max(-1) for level in iou]).mean(0)
