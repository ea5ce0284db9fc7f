"""Read still images, animations and videos alike: as frames that are evenly spaced in the file."""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageSequence, JpegImagePlugin

from sscam_jax._support import imported
from sscam_jax.data.images import ImageLike, pillow_errors, upright, upright_rgb

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
"""The files that the package av reads, and not Pillow."""

# Formats whose frames follow each other in time.
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")

# What browsers show a frame for if the file gives no time.
_UNTIMED = 0.1


class Frame(NamedTuple):
    """The place of a frame in its animation or video.

    Attributes:
        number: counted from 0.
        total: the frames of the file.
        time: when it is shown, in seconds from the beginning.
    """

    number: int
    total: int
    time: float


class Clip(NamedTuple):
    """The frames of a file that were read.

    Attributes:
        images: upright RGB images.
        frames: the place of each in its file; None for the image of a file that has only one.
        stored: the width and height in the file, where a large JPEG was decoded at a smaller size.
    """

    images: Sequence[Image.Image]
    frames: Sequence[Frame | None]
    stored: tuple[int, int] | None = None


def _chosen(total: int, most: int) -> list[int]:
    """Frames that are evenly spaced, the first one included.

    Example:
        >>> _chosen(10, 4), _chosen(2, 4)
        ([0, 2, 5, 7], [0, 1])
    """
    return [i * total // most for i in range(most)] if total > most else list(range(total))


def _opened(image: Image.Image, most: int) -> Clip:
    """The frames of an image that Pillow opened. Pages of a document and a camera's previews are no animation."""
    total = getattr(image, "n_frames", 1)
    if total == 1 or image.format not in _ANIMATED or most == 1:
        return Clip([upright_rgb(image)], [Frame(0, total, 0.0) if total > 1 else None])
    chosen, images, frames, time = _chosen(total, most), [], [], 0.0
    for index, frame in enumerate(ImageSequence.Iterator(image)):
        frame.load()  # a WebP says only now for how long it is shown
        if index in chosen:
            images.append(upright_rgb(frame))
            frames.append(Frame(index, total, time))
        time += frame.info.get("duration", 0) / 1000 or _UNTIMED
    return Clip(images, frames)


def _open(file: str | os.PathLike[str]) -> tuple[Image.Image, tuple[int, int] | None]:
    """Open an image. A JPEG of more pixels than Pillow's limit is decoded at 1/2, 1/4 or 1/8 of its sides: `stored`."""
    try:
        return Image.open(file), None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        # Of a progressive JPEG, all coefficients are in memory at once, at whatever size it is decoded.
        if (smaller := _smaller_jpeg(file)) is None:
            raise
        return smaller


def _smaller_jpeg(file: str | os.PathLike[str]) -> tuple[Image.Image, tuple[int, int]] | None:
    """A large JPEG, set to be decoded at a size within Pillow's limit, and its own size; None where that can't be."""
    try:
        image = JpegImagePlugin.JpegImageFile(file)
    except SyntaxError:  # another format
        return None
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS or width * height
    scale = next((each for each in (2, 4, 8) if -(-width // each) * -(-height // each) <= limit), None)
    if scale is None or "progressive" in image.info:
        image.close()
        return None
    image.draft(None, (width // scale, height // scale))
    return image, (width, height)


def _decoded(path: pathlib.Path, name: str) -> Iterator[Any]:
    """The frames of a video as the package av gives them."""
    av = imported("av", "video")
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{name} has no picture: it is a file of sound")
            yield from container.decode(video=0)
    except av.error.FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: No such file or directory") from error
    except av.error.FFmpegError as error:
        raise ValueError(f"{name} is not a video that can be read, or damaged: {error.strerror}") from error


def _upright(frame: Any) -> Image.Image:
    """A frame in RGB, turned as the camera was held."""
    return Image.fromarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90).copy())


def _video(path: pathlib.Path, name: str, most: int) -> Clip:
    # Not every file says how many frames it has, so they are counted. Only those that are chosen are kept.
    total = sum(1 for _ in _decoded(path, name))
    chosen = _chosen(total, most)
    if not chosen:
        raise ValueError(f"{name} has no frame, expected at least one: choose another file")
    images, frames = [], []
    for index, frame in enumerate(_decoded(path, name)):
        if index in chosen:
            images.append(_upright(frame))
            frames.append(Frame(index, total, float(frame.time or 0.0)))
    return Clip(images, frames)


def clip(image: ImageLike, name: str, most: int) -> Clip:
    """Read an image, an animation or a video.

    Args:
        image: a path of an image, of an animation (GIF, WebP, PNG) or of a video (which needs the package av); a PIL
            image; or an array of uint8 pixels.
        name: how an error calls it.
        most: the largest number of frames that are read. A file with more gives that many, evenly spaced. 1 gives the
            first frame.

    Returns:
        The frames. A file with one frame, a PIL image and an array give one. A JPEG of more pixels than
        `PIL.Image.MAX_IMAGE_PIXELS` is decoded at 1/2, 1/4 or 1/8 of its sides, if it is not progressive.

    Raises:
        ValueError: the file cannot be read or is damaged.
        FileNotFoundError: the file does not exist.
        MissingPackageError: a video needs the package av, which is not installed.

    Example:
        >>> clip(np.zeros((4, 6), np.uint8), "mine", 16).images[0].size
        (6, 4)
    """
    if isinstance(image, str | os.PathLike) and pathlib.Path(image).suffix.lower() in VIDEO_ENDINGS:
        return _video(pathlib.Path(image), name, most)
    if isinstance(image, str | os.PathLike):
        with pillow_errors(str(pathlib.Path(image))):
            file, stored = _open(image)
            with file as opened:
                return _opened(opened, most)._replace(stored=stored)
    if getattr(image, "n_frames", 1) > 1:
        with pillow_errors(name):
            return _opened(image, most)  # type: ignore[arg-type]
    return Clip([upright(image, name)], [None])
