"""Figures: a map laid over its photograph, and the comparison of methods as in the paper's Figures 3 and 4.

Nothing here touches matplotlib's global state or needs a display: figures are objects, drawn by Agg.
"""

import os
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from PIL import Image

from sscam_jax._support import replacing

Map = Float[Any, "h w"]
"""A map in [0, 1], a NumPy or JAX array."""

COLOURS = "inferno"
"""matplotlib's colour map: perceptually uniform, and lighter where the map is higher."""

# Inches: a column's width, the gaps between columns and between rows, the margin, a line of text.
_COLUMN, _GAP, _MARGIN, _LINE = 2.2, 0.08, 0.12, 0.17
_BAR_WIDTH, _BAR_GAP, _BAR_TEXT, _BAR_HEIGHT = 0.1, 0.14, 0.42, 4.0
_DPI = 150


class Row(NamedTuple):
    """One row of a figure: a photograph, and its maps for one class.

    Attributes:
        photo: the photograph.
        title: written above it, for instance the class and its probability.
        maps: for every column its title, for instance the method, and the map, in [0, 1], of the whole
            photograph.
    """

    photo: Image.Image
    title: str
    maps: Mapping[str, Map]


def overlay(photo: Image.Image, saliency_map: Map, *, alpha: float = 0.5) -> UInt8[np.ndarray, "height width 3"]:
    """A map in colour over its photograph in grey, at the photograph's own resolution.

    (1 − alpha) · grey + alpha · colour(U(map)), U bilinear. The photograph loses its own colours so that
    every hue is the map's: dark purple is 0, pale yellow 1.

    Args:
        photo: the photograph, height × width pixels.
        saliency_map: the map [h, w] in [0, 1], of the whole photograph.
        alpha: the share of the map's colour, 0 (photograph alone) to 1 (map alone).

    Returns:
        The picture [height, width, 3], 8-bit RGB.

    Raises:
        ValueError: the map has values outside [0, 1], or `alpha` is.

    Example:
        >>> overlay(Image.new("RGB", (64, 48)), np.eye(7)).shape
        (48, 64, 3)

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Figure 3; Smith and van der Walt, A Better Default
        Colormap for Matplotlib (SciPy 2015).
    """
    values = np.asarray(saliency_map, np.float32)
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"a map to be drawn is in [0, 1], this one in [{values.min():.3g}, {values.max():.3g}]")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, expected 0 to 1")
    enlarged = np.asarray(Image.fromarray(values).resize(photo.size, Image.Resampling.BILINEAR))
    colour = colormaps[COLOURS](enlarged, bytes=True)[..., :3]
    grey = photo.convert("L").convert("RGB")
    return np.asarray(Image.blend(grey, Image.fromarray(colour), alpha))


def _wrapped(text: str) -> str:
    """Text in lines that fit a column."""
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, 28) or [""])


def figure(rows: Sequence[Row], *, alpha: float = 0.5) -> Figure:
    """Photographs and their maps side by side: the image, one column a method, a colour bar.

    Args:
        rows: the rows, top to bottom; all with the same column titles. Each row keeps its photograph's
            proportions.
        alpha: the share of the map's colour, see `overlay`.

    Returns:
        A matplotlib figure, for `save` or, in a notebook, to be shown.

    Raises:
        ValueError: there is no row, rows differ in their columns, or a map can't be drawn (see `overlay`).

    Example:
        >>> row = Row(Image.new("RGB", (64, 48)), "tench\\n91.3 %", {"SS-CAM": np.eye(7)})
        >>> len(figure([row]).axes)  # the photograph, the map, the colour bar
        3

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Figures 3 and 4.
    """
    if not rows:
        raise ValueError("a figure needs at least one row")
    columns = tuple(rows[0].maps)
    for row in rows:
        if tuple(row.maps) != columns:
            raise ValueError(f"every row needs the columns {columns}, got {tuple(row.maps)}")
    titles = [_wrapped(row.title) for row in rows]
    # A photograph is drawn at a column's width; a very tall or flat one is bounded and centred in its cell.
    heights = [_COLUMN * min(max(row.photo.height / row.photo.width, 0.15), 2.0) for row in rows]
    headings = [_LINE * (title.count("\n") + 1) + 0.06 for title in titles]
    n = 1 + len(columns)
    right = 2 * _MARGIN + n * _COLUMN + (n - 1) * _GAP
    width = right + _BAR_GAP + _BAR_WIDTH + _BAR_TEXT
    height = 2 * _MARGIN + sum(heights) + sum(headings) + (len(rows) - 1) * _GAP
    drawing = Figure(figsize=(width, height), dpi=_DPI)

    def axes(left: float, bottom: float, w: float, h: float) -> Any:
        return drawing.add_axes((left / width, bottom / height, w / width, h / height))

    y = height - _MARGIN
    top = y - headings[0]
    for i, (row, title) in enumerate(zip(rows, titles, strict=True)):
        y -= headings[i] + heights[i]
        # Drawn at twice a column's pixels at most: a figure of large photographs stays small.
        photo = row.photo.convert("RGB")
        photo.thumbnail((round(2 * _COLUMN * _DPI), round(4 * _COLUMN * _DPI)))
        pictures = [np.asarray(photo), *(overlay(photo, row.maps[column], alpha=alpha) for column in columns)]
        for j, picture in enumerate(pictures):
            cell = axes(_MARGIN + j * (_COLUMN + _GAP), y, _COLUMN, heights[i])
            cell.imshow(picture)
            cell.set_axis_off()
            if j == 0 or i == 0:
                cell.set_title(title if j == 0 else _wrapped(columns[j - 1]), fontsize=10, pad=4)
        y -= _GAP
    bottom = y + _GAP
    bar_height = min(top - bottom, _BAR_HEIGHT)
    bar = axes(right - _MARGIN + _BAR_GAP, (top + bottom - bar_height) / 2, _BAR_WIDTH, bar_height)
    drawing.colorbar(ScalarMappable(cmap=COLOURS), cax=bar, ticks=[0, 0.5, 1]).outline.set_visible(False)
    bar.tick_params(labelsize=8, length=2)
    return drawing


def save(picture: Figure | UInt8[np.ndarray, "height width 3"], path: str | os.PathLike[str]) -> None:
    """Save a figure or an overlay as a picture, whole or not at all.

    Args:
        picture: what `figure` or `overlay` returned.
        path: the file; its ending says the format: .png or .jpg, for figures .pdf and .svg too.

    Raises:
        OSError: the file can't be written.
        ValueError: the ending is not of a format that can be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(overlay(Image.new("RGB", (64, 48)), np.eye(7)), pathlib.Path(folder, "map.png"))
        ...     os.listdir(folder)
        ['map.png']
    """
    path = pathlib.Path(path)
    ending = path.suffix.lower()
    formats = {".png": "PNG", ".jpg": "JPEG"}
    if isinstance(picture, Figure):
        formats = {f".{kind}": kind for kind in FigureCanvasBase.get_supported_filetypes()}
    if ending not in formats:
        raise ValueError(f"'{path}' does not end like a picture; choose from {', '.join(map(repr, formats))}")
    with replacing(path) as part:
        if isinstance(picture, Figure):
            picture.savefig(part, format=formats[ending])
        else:
            Image.fromarray(picture).save(part, formats[ending])
