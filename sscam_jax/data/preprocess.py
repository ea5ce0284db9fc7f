"""Turn images into the arrays that networks take: upright RGB, resized to a square and normalised."""

import os
from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from sscam_jax._support import choose
from sscam_jax.data.images import ImageLike, upright
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD


def _squash(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def crop_window(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Return the size of the image that fit "crop" resizes to, and the left and top of the window that it keeps."""
    # As in torchvision, the longer side is truncated and the margin is rounded half to even.
    short = round(size * 256 / 224)
    if width <= height:
        width, height = short, int(short * height / width)
    else:
        width, height = int(short * width / height), short
    return width, height, round((width - size) / 2), round((height - size) / 2)


def _crop(image: Image.Image, size: int) -> Image.Image:
    width, height, left, top = crop_window(image.width, image.height, size)
    # A thin image grows by the ratio of its sides, so a small file can need much memory.
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"an image of {image.width}×{image.height} pixels is too narrow for fit 'crop': resized to "
            f"{width}×{height} it would exceed the limit of {Image.MAX_IMAGE_PIXELS} pixels; use fit 'squash'"
        )
    # The whole image is resized before the crop, as torchvision does: the filter sees pixels outside the window.
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


_FITS = {"squash": _squash, "crop": _crop}


def check_fit(size: int, fit: str) -> None:
    """Refuse a `size` or `fit` that `preprocess` does not allow, with a ValueError."""
    choose("fit", fit, _FITS)
    if size < 1:
        raise ValueError(f"size is {size}, expected at least 1 pixel")


def constants(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation as arrays.

    Raises:
        ValueError: one of them has not three values, or a standard deviation is not positive.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ValueError(
            f"mean is {tuple(mean)} and std is {tuple(std)}, expected three values each, of red, green and blue in "
            "[0, 1], and a positive std; mean (0, 0, 0) and std (1, 1, 1) leave the images in [0, 1]"
        )
    return np.array(mean, np.float32), np.array(std, np.float32)


def fitted(
    image: Image.Image,
    size: int,
    fit: str,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Float[np.ndarray, "{size} {size} 3"]:
    """Resize an upright RGB image to size × size and normalise it, in NumPy."""
    middle, deviation = constants(mean, std)
    pixels = np.asarray(_FITS[fit](image, size), np.float32)
    return (pixels / 255 - middle) / deviation


def photograph(
    image: Float[np.ndarray, "height width 3"],
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Image.Image:
    """Undo the normalisation of `preprocess`, to show what a network sees.

    Args:
        image: one image of `preprocess` or of a batch.
        mean: the mean that was subtracted.
        std: the standard deviation that the image was divided by.

    Returns:
        The 8-bit RGB image.

    Raises:
        ValueError: `mean` or `std` has not three values, or a standard deviation is not positive.

    Example:
        >>> photograph(np.asarray(preprocess(Image.new("RGB", (8, 8), "white"), size=2))[0]).getpixel((0, 0))
        (255, 255, 255)
    """
    middle, deviation = constants(mean, std)
    pixels = (np.asarray(image) * deviation + middle) * 255
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def preprocess(
    images: ImageLike | Sequence[ImageLike],
    *,
    size: int = 224,
    fit: Literal["squash", "crop"] = "squash",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Float[Array, "b {size} {size} 3"]:
    """Turn photographs into the input of a network: float32 RGB, resized to a square and normalised.

    x = (p / 255 − mean) / std, where p are the 8-bit pixels of the resized image. Resizing is Pillow's bilinear
    filter with antialiasing. torchvision's transforms do the same to PIL images.

    Args:
        images: one image or a sequence of images. An image is a path, a PIL image, or an array of uint8 pixels
            [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]. An array [b, h, w, c] is a sequence of b images.
        size: the side of the square in pixels.
        fit: "squash" resizes the whole image to size × size, so a map covers the whole photograph. "crop" resizes the
            shorter side to round(size · 256/224) and keeps the centre, as torchvision's Resize and CenterCrop do.
            Published accuracies are measured with "crop".
        mean: the mean of red, green and blue in [0, 1], which is subtracted. The default is ImageNet's.
        std: the standard deviation of red, green and blue in [0, 1], which the image is divided by. The default is
            ImageNet's.

    Returns:
        The images [b, size, size, 3].

    Raises:
        ValueError: an image cannot be read (see `open_image`), is empty, is too narrow to be cropped, or is an array
            of another shape or type; there is no image; `size`, `fit`, `mean` or `std` is not possible.
        FileNotFoundError: a file does not exist.

    Example:
        >>> preprocess(Image.new("RGB", (640, 480), "white")).shape
        (1, 224, 224, 3)
        >>> preprocess([np.zeros((480, 640, 3), np.uint8)], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))[0, 0, 0].tolist()
        [-1.0, -1.0, -1.0]

    References:
        Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep CNNs (NeurIPS 2012), section 2.
    """
    check_fit(size, fit)
    given: list[Any]
    if isinstance(images, np.ndarray | Array):
        # An array with two or three axes is one image. Other arrays are sequences of images.
        given = [images] if images.ndim in (2, 3) else list(images)
    else:
        given = [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)
    if not given:
        raise ValueError("no images: expected a path, a PIL image, an array or a sequence of at least one of them")
    # Filled in place: a list of arrays and their stack would hold all images twice.
    arrays = np.empty((len(given), size, size, 3), np.float32)
    for i, one in enumerate(given):
        arrays[i] = fitted(upright(one, f"image {i}"), size, fit, mean, std)
    return jnp.asarray(arrays)
