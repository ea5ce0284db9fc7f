"""Figures that move: the maps of a film's frames, as GIF, WebP or MP4."""

import fractions
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from sscam_jax._support import imported, replacing
from sscam_jax.plots.figures import Row, figure, row_cells

FILM_ENDINGS = {".gif": "GIF", ".webp": "WEBP", ".mp4": "mp4"}

_DPI = 100


def _pictures(rows: Sequence[Row], style: dict[str, Any]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The figure of each row. The first row's is laid out and drawn, for the others its pictures are exchanged."""
    drawing = figure(rows[:1], columns=1 + len(rows[0].maps), **style)
    drawing.set_dpi(_DPI)
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    # Laid out once: titles of another length must not move the pictures from one frame to the next.
    drawing.set_layout_engine("none")
    for row in rows:
        for axes, cell in zip(drawing.axes, row_cells(row, True, style), strict=False):  # the colour bar comes last
            axes.images[0].set_data(np.asarray(cell.picture))
            axes.set_title(cell.above, fontsize=axes.title.get_fontsize(), pad=4)
            axes.set_xlabel(cell.below)
        canvas.draw()
        # A copy, because the canvas draws the next frame into the same memory.
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _write_mp4(
    path: pathlib.Path, pictures: Iterator[UInt8[np.ndarray, "height width 3"]], seconds: Sequence[float]
) -> None:
    av = imported("av", "video")
    # Times in milliseconds instead of a rate, so that each frame is shown as long as it was.
    milliseconds = fractions.Fraction(1, 1000)
    starts = np.round(1000 * np.cumsum([0, *seconds])).astype(int).tolist()
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", rate=1000)
        stream.pix_fmt, stream.time_base = "yuv420p", milliseconds
        stream.codec_context.time_base = milliseconds
        for start, picture in zip(starts, pictures, strict=False):
            even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]  # as yuv420p needs it
            if not start:  # fixed once encoding has begun
                stream.height, stream.width = even.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            frame.pts, frame.time_base = start, milliseconds
            container.mux(stream.encode(frame))
        # Once more, or the last frame is not shown for its time.
        frame.pts = starts[-1]
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _in_256_colours(picture: Image.Image) -> Image.Image:
    """For GIF: Pillow's own choice of colours loses those of few pixels, and a map's maximum is a few pixels."""
    return picture.quantize(method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


def save_film(rows: Sequence[Row], path: str | pathlib.Path, *, seconds: Sequence[float], **style: Any) -> None:
    """Save the figure of one row after another, as an animation, whole or not at all.

    Args:
        rows: the frames in their order, all with the same titles of maps and photographs of one size.
        path: the file; its ending says the format: .gif, .webp or .mp4.
        seconds: how long each frame is shown.
        style: keywords of `overlay`, except `boxes`.

    Raises:
        OSError: the file can't be written.
        ValueError: the ending is of another format, there is no frame, or `seconds` is not one number per frame.
        MissingPackageError: an MP4 needs the package av, which is not installed.

    Example:
        >>> import os, tempfile
        >>> rows = [Row(Image.new("RGB", (64, 48)), f"{i} s", {"Grad-CAM": np.eye(7)[::1 - 2 * i]}) for i in range(2)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_film(rows, pathlib.Path(folder, "clip.gif"), seconds=[1.0, 1.0])
        ...     os.listdir(folder)
        ['clip.gif']
    """
    path = pathlib.Path(path)
    kind = FILM_ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"'{path}' does not end like a film; choose from {', '.join(map(repr, FILM_ENDINGS))}")
    if not rows or len(seconds) != len(rows):
        raise ValueError(f"a film needs frames and a time for each, got {len(rows)} frames and {len(seconds)} times")
    pictures = _pictures(rows, style)
    with replacing(path) as part:
        if kind == "mp4":
            _write_mp4(part, pictures, seconds)
            return
        first, *others = map(Image.fromarray, pictures)
        if kind == "GIF":
            first, *others = map(_in_256_colours, [first, *others])
        shown = [round(1000 * each) for each in seconds]
        first.save(part, kind, save_all=True, append_images=others, duration=shown, loop=0)
