"""Open images as upright 8-bit RGB.

- A file with several frames gives its first frame.
- The EXIF orientation is applied.
- Transparent pixels are blended with white.
- 16-bit greyscale is divided by 257.
- Greyscale in floats or 32-bit integers has no defined white, so it is stretched from its minimum to its maximum.
- Pillow converts palettes, other greyscale and CMYK.
"""

import io
import os
import pathlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Array
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Array
"""A path, a PIL image, or pixels in uint8: [h, w], [h, w, 1], [h, w, 3] or [h, w, 4]."""

# Pillow's decoders raise all of these for damaged data.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, RuntimeError, struct.error, zlib.error)


@contextmanager
def pillow_errors(name: str) -> Iterator[None]:
    """Turn all errors that Pillow raises for a file into a ValueError that names the file."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of an image with one to two times its limit of pixels: that is refused too. It also
            # warns of damaged metadata, which does not change the pixels.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise type(error)(f"{name}: {error.strerror}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name} is refused as a decompression bomb: it has more pixels than the limit of "
            f"{Image.MAX_IMAGE_PIXELS}; make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS in Python"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is not an image that Pillow can read") from error
    except _DAMAGED as error:
        raise ValueError(f"{name} is truncated or damaged: {error}") from error


def _stretched(image: Image.Image) -> Image.Image:
    """Return 8-bit greyscale of an image with more than 8 bits per pixel."""
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are not finite")
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        low, span = values.min(), np.ptp(values)
        values = (values - low) / (span or 1.0) * 255
    else:
        values = values / 257  # 65535 becomes 255
    return Image.fromarray(np.round(values).astype(np.uint8))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation and convert to 8-bit RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _stretched(image)  # Pillow's own conversion clips everything above 255
    if image.mode == "LAB":  # Pillow cannot convert LAB without a colour profile
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(lab), ImageCms.ImageCmsProfile(srgb), "LAB", "RGB"
        ).apply(image)
    if image.has_transparency_data:  # on white, because hidden pixels often have arbitrary colours
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image file as upright 8-bit RGB.

    Args:
        path: the file, in any format that Pillow reads.

    Returns:
        The image in RGB. Its EXIF orientation is applied, transparent pixels are blended with white, and a file with
        several frames gives its first frame.

    Raises:
        ValueError: the file is not an image, is truncated or damaged, or has more pixels than Pillow's limit
            against decompression bombs.
        FileNotFoundError: the file does not exist.

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
    """Return the image of `open_image`, the stored width and height, and the EXIF orientation from 1 to 8."""
    with pillow_errors(name), Image.open(file) as image:
        stored, orientation = image.size, image.getexif().get(ExifTags.Base.Orientation, 1)
        return upright_rgb(image), stored, orientation if orientation in range(1, 9) else 1


def _pil_image(image: ImageLike, name: str) -> Image.Image:
    """Open a path, or turn an array of pixels into a PIL image."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        return open_image(image)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or pixels.ndim == 3 and pixels.shape[2] in (3, 4)):
        raise ValueError(
            f"{name} is an array of shape {pixels.shape} and type {pixels.dtype}, expected uint8 pixels [h, w], "
            "[h, w, 1], [h, w, 3] or [h, w, 4]. For floats x in [0, 1], pass (255 * x).round().astype('uint8'). For "
            "channels first, pass x.transpose(1, 2, 0)"
        )
    return Image.fromarray(pixels)


def upright(image: ImageLike, name: str) -> Image.Image:
    """Turn one image, as `preprocess` takes it, into an upright RGB image of 8 bits.

    Args:
        image: a path, a PIL image, or an array of uint8 pixels.
        name: how an error calls it.

    Returns:
        The image, as `open_image` returns it.

    Raises:
        ValueError: the image cannot be read, is empty, or is an array of another shape or type.
        FileNotFoundError: the file does not exist.

    Example:
        >>> upright(np.zeros((4, 6), np.uint8), "mine").size
        (6, 4)
    """
    opened = _pil_image(image, name)
    if 0 in opened.size:
        raise ValueError(f"{name} is empty: {opened.width}×{opened.height} pixels")
    with pillow_errors(name):
        return upright_rgb(opened)
