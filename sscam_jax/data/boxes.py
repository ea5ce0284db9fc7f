"""Transform boxes like their image: turn it upright, resize it, crop it.

The edges of a box lie between pixels: a box of the whole image of w × h pixels is 0, 0, h, w.
"""

import numpy as np
from jaxtyping import Float

from sscam_jax.data.preprocess import crop_window

# A box may extend beyond the image by one pixel without a report: some annotations count from 0 and others from 1, and
# some include the last pixel and others do not.
_SLACK = 1.0


def turned(boxes: Float[np.ndarray, "k 4"], width: int, height: int, orientation: int) -> Float[np.ndarray, "k 4"]:
    """Transform boxes y0, x0, y1, x1 in pixels of the stored image to pixels of the upright image.

    The orientation is EXIF's, from 1 to 8. Orientations 5 to 8 exchange height and width.
    """
    y0, x0, y1, x1 = boxes.T
    # Mirroring first: it is along the axes of the stored image, which 5 to 8 exchange afterwards.
    if orientation in (2, 3, 7, 8):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 6, 7):
        y0, y1 = height - y1, height - y0
    if orientation >= 5:
        y0, x0, y1, x1 = x0, y0, x1, y1
    return np.stack([y0, x0, y1, x1], axis=1)


def _both(vertical: int | float, horizontal: int | float) -> Float[np.ndarray, "4"]:
    """Return one value per edge of a box."""
    return np.array([vertical, horizontal, vertical, horizontal], np.float32)


def fitted_boxes(
    boxes: Float[np.ndarray, "k 4"], width: int, height: int, orientation: int, size: int, fit: str
) -> tuple[Float[np.ndarray, "j 4"], list[str]]:
    """Transform boxes to the input of the network, and report the boxes that are dropped or clipped.

    Args:
        boxes: y0, x0, y1, x1 in pixels of the stored image, before it is turned upright.
        width: the width of the stored image in pixels.
        height: the height of the stored image in pixels.
        orientation: its EXIF orientation, from 1 to 8.
        size: the side of the network's input in pixels.
        fit: "squash" or "crop", as in `preprocess`.

    Returns:
        The boxes y0, x0, y1, x1 relative to the size of the input, in [0, 1] and with a positive area. One sentence
        per box that is dropped, or that is clipped because it extends beyond the image.
    """
    problems = []
    ends = _both(height, width)
    kept = []
    for box in boxes:
        text = f"box {', '.join(f'{edge:g}' for edge in box)} (y0, x0, y1, x1)"
        # Checked before and after clipping, so that the message tells an empty box from a box outside the image.
        inside = np.clip(box, np.float32(0), ends)
        if not (box[2] > box[0] and box[3] > box[1]):
            problems.append(f"{text} has no area: dropped")
        elif not (inside[2] > inside[0] and inside[3] > inside[1]):
            problems.append(f"{text} is outside the image of {width}×{height} pixels: dropped")
        else:
            if np.abs(inside - box).max() > _SLACK:
                problems.append(f"{text} extends beyond the image of {width}×{height} pixels: clipped")
            kept.append((inside, text))
    if not kept:
        return np.zeros((0, 4), np.float32), problems
    upright = turned(np.stack([box for box, _ in kept]), width, height, orientation)
    if orientation >= 5:  # the upright image has the stored width as its height
        width, height = height, width
    if fit == "crop":
        wide, high, left, top = crop_window(width, height, size)
        scale, margin = _both(high / height, wide / width), _both(top, left)
        shares = np.clip((upright * scale - margin) / np.float32(size), np.float32(0), np.float32(1))
    else:
        shares = upright / _both(height, width)
    seen = (shares[:, 2] > shares[:, 0]) & (shares[:, 3] > shares[:, 1])
    texts = [text for _, text in kept]
    problems += [f"{text} is outside the crop: dropped" for text, there in zip(texts, seen, strict=True) if not there]
    return shares[seen], problems
