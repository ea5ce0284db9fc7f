"""Photographs to the arrays that networks take: upright RGB, resized, normalised.

Every image becomes 8-bit RGB first, by rules that lose as little as possible: the first frame of several,
turned upright by its EXIF orientation; transparency over white; 16-bit greyscale divided by 257; greyscale
without an agreed white (floats, 32-bit integers) from its minimum to its maximum; palettes, greyscale and
CMYK as Pillow converts them.
"""

import io
import os
import pathlib
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of red, green and blue, in [0, 1]."""

STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of red, green and blue, in [0, 1]."""

ImageLike = str | os.PathLike[str] | Image.Image

# What Pillow's decoders raise on damaged data.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, struct.error, zlib.error)


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn every way in which Pillow fails on a file into one ValueError with the file's name."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of an image of one to two times its limit, and of damaged metadata.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise type(error)(f"{name}: {error.strerror}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} is refused as a decompression bomb: it has more pixels than the limit of "
            f"{Image.MAX_IMAGE_PIXELS} (PIL.Image.MAX_IMAGE_PIXELS)"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image that Pillow can read") from error
    except _DAMAGED as error:
        raise ValueError(f"{name} is truncated or damaged: {error}") from error


def _stretched(image: Image.Image) -> Image.Image:
    """8-bit greyscale of an image with more than 8 bits a pixel."""
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not finite")
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        low, span = values.min(), np.ptp(values)
        values = (values - low) / (span or 1.0) * 255
    else:
        values = values / 257
    return Image.fromarray(np.round(values).astype(np.uint8))


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _stretched(image)
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(lab), ImageCms.ImageCmsProfile(srgb), "LAB", "RGB"
        ).apply(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open any image file that Pillow reads as upright 8-bit RGB.

    Args:
        path: the file.

    Returns:
        The image in RGB, turned as its EXIF orientation says, transparency over white; of several frames
        the first.

    Raises:
        ValueError: the file is not an image, truncated or damaged, or has more pixels than Pillow's limit
            against decompression bombs.
        FileNotFoundError: there is no such file.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "grey.png")
        ...     Image.new("L", (4, 2), 128).save(file)
        ...     open_image(file).getpixel((0, 0))
        (128, 128, 128)

    References:
        Pillow's handbook, Concepts: modes.
    """
    image, _, _ = open_stored(path, str(pathlib.Path(path)))
    return image


def open_stored(file: str | os.PathLike[str] | io.BytesIO, name: str) -> tuple[Image.Image, tuple[int, int], int]:
    """An image as `open_image` gives it, with the stored width and height and the EXIF orientation, 1 to 8."""
    with _named(name), Image.open(file) as image:
        stored, orientation = image.size, image.getexif().get(ExifTags.Base.Orientation, 1)
        return _upright_rgb(image), stored, orientation if orientation in range(1, 9) else 1


def _squash(image: Image.Image, size: int) -> Image.Image:
    return image.resize((size, size), Image.Resampling.BILINEAR)


def crop_window(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where fit "crop" looks: the resized image's width and height, and the window's left and top in it."""
    # The rounding is torchvision's: the longer side truncated, the margin rounded half to even.
    short = round(size * 256 / 224)
    if width <= height:
        width, height = short, int(short * height / width)
    else:
        width, height = int(short * width / height), short
    return width, height, round((width - size) / 2), round((height - size) / 2)


def _crop(image: Image.Image, size: int) -> Image.Image:
    width, height, left, top = crop_window(image.width, image.height, size)
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"an image of {image.width}×{image.height} pixels is too narrow for fit 'crop': enlarged to "
            f"{width}×{height} it passes the limit of {Image.MAX_IMAGE_PIXELS} pixels; choose fit 'squash'"
        )
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


_FITS = {"squash": _squash, "crop": _crop}


def check_fit(size: int, fit: str) -> None:
    """Raise the ValueError of `preprocess` for a `size` or `fit` that is not possible."""
    if fit not in _FITS:
        raise ValueError(f"fit '{fit}' is not known; choose from {', '.join(map(repr, _FITS))}")
    if size < 1:
        raise ValueError(f"size is {size}, expected at least 1 pixel")


def fitted(image: Image.Image, size: int, fit: str) -> Float[np.ndarray, "{size} {size} 3"]:
    """An upright RGB image as a network takes it, in NumPy."""
    pixels = np.asarray(_FITS[fit](image, size), np.float32)
    return (pixels / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)


def photograph(image: Float[np.ndarray, "height width 3"]) -> Image.Image:
    """What a network took, as a picture again: the inverse of the normalisation.

    Args:
        image: one image of `preprocess` or of a batch.

    Returns:
        The 8-bit RGB image.

    Example:
        >>> photograph(np.asarray(preprocess(Image.new("RGB", (8, 8), "white"), size=2))[0]).getpixel((0, 0))
        (255, 255, 255)
    """
    pixels = (np.asarray(image) * np.array(STD, np.float32) + np.array(MEAN, np.float32)) * 255
    return Image.fromarray(np.clip(np.round(pixels), 0, 255).astype(np.uint8))


def preprocess(
    images: ImageLike | Sequence[ImageLike], *, size: int = 224, fit: Literal["squash", "crop"] = "squash"
) -> Float[Array, "b {size} {size} 3"]:
    """Photographs as a network takes them: float32 RGB, normalised with ImageNet's mean and deviation.

    x = (p / 255 − mean) / std for the 8-bit pixels p of the resized image. Resizing is Pillow's bilinear
    filter with antialiasing, on 8-bit pixels, which is what torchvision's transforms do to PIL images.

    Args:
        images: a path or PIL image, or a sequence of them.
        size: the side of the square, in pixels.
        fit: "squash" shows the network the whole image, resized to size × size: a map then covers the whole
            photograph. "crop" brings the shorter side to round(size · 256/224) and keeps the centre:
            torchvision's Resize and CenterCrop, by which published accuracies are measured.

    Returns:
        The images [b, size, size, 3].

    Raises:
        ValueError: an image can't be read (see `open_image`), is empty, or too narrow to be cropped; there
            is none; `size` or `fit` is not a possible one.
        FileNotFoundError: there is no such file.

    Example:
        >>> preprocess(Image.new("RGB", (640, 480), "white")).shape
        (1, 224, 224, 3)

    References:
        Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep CNNs (NeurIPS 2012), section 2.
    """
    check_fit(size, fit)
    given = [images] if isinstance(images, str | os.PathLike | Image.Image) else list(images)
    if not given:
        raise ValueError("no images: expected a path, a PIL image or a sequence of at least one of them")
    arrays = np.empty((len(given), size, size, 3), np.float32)
    for i, one in enumerate(given):
        if not isinstance(one, Image.Image):
            one = open_image(one)
        if 0 in one.size:
            raise ValueError(f"image {i} is empty: {one.width}×{one.height} pixels")
        with _named(f"image {i}"):
            upright = _upright_rgb(one)
        arrays[i] = fitted(upright, size, fit)
    return jnp.asarray(arrays)
