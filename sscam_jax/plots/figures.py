"""Photographs and their maps side by side, and pictures saved whole."""

import os
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from PIL import Image

from sscam_jax._support import replacing
from sscam_jax.plots.overlays import COLOURS, Background, Map, Photo, as_rgb, drawn_colours, overlay

# Inches: a column's width, a line of text, what the colour bar takes, its height. Pixels per inch.
_COLUMN, _LINE, _BAR, _BAR_HEIGHT = 1.9, 0.16, 0.7, 3.0
_DPI = 150
# A picture's height by its width: a figure of very long or flat photographs stays readable.
_FLATTEST, _LONGEST = 0.15, 2.0


class Row(NamedTuple):
    """One row of a figure: a photograph, and its maps for one class.

    Attributes:
        photo: the photograph.
        title: written above it, for instance the class and its probability.
        maps: for every column its title, for instance the method, and the map, in [0, 1], of the whole
            photograph.
        captions: what is written below a map, by its title: for instance what it cost.
    """

    photo: Image.Image
    title: str
    maps: Mapping[str, Map]
    captions: Mapping[str, str] = MappingProxyType({})


class _Cell(NamedTuple):
    """A picture of a figure, with what is written above and below it."""

    picture: Any
    above: str
    below: str


class _Line(NamedTuple):
    """Pictures beside each other, and their height in inches."""

    cells: Sequence[_Cell]
    height: float

    @property
    def text(self) -> float:
        """The height of what is written above and below, in inches."""
        return _LINE * sum(max(_count(cell[i]) for cell in self.cells) for i in (1, 2))


def _count(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _wrapped(text: str) -> str:
    """Text in lines that fit a column."""
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, 26) or [""])


def row_cells(row: Row, titled: bool, style: dict[str, Any]) -> list[_Cell]:
    """A row's pictures: the photograph, then each map over it; without titles where the row above has them."""
    photo = row.photo.convert("RGB")
    # At twice a column's pixels at most: a figure of large photographs stays small.
    photo.thumbnail((round(2 * _COLUMN * _DPI), round(2 * _LONGEST * _COLUMN * _DPI)))
    found = [_Cell(photo, _wrapped(row.title), "")]
    for title, each in row.maps.items():
        above, below = _wrapped(title) if titled else "", _wrapped(row.captions.get(title, ""))
        found.append(_Cell(overlay(photo, each, **style), above, below))
    return found


def _lines(row: Row, titled: bool, columns: int, style: dict[str, Any]) -> Iterator[_Line]:
    """A row's pictures, broken into lines."""
    height = _COLUMN * min(max(row.photo.height / row.photo.width, _FLATTEST), _LONGEST)
    found = row_cells(row, titled, style)
    for start in range(0, len(found), columns):
        yield _Line(found[start : start + columns], height)


def _draw(axes: Any, cell: _Cell) -> None:
    axes.imshow(cell.picture)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(cell.above, fontsize=9, pad=4)
    axes.set_xlabel(cell.below, fontsize=8, labelpad=3)


def _draw_bar(drawing: Figure, **colours: Any) -> None:
    # The bar of a figure of many rows would be as long as the figure.
    share = min(1.0, _BAR_HEIGHT / drawing.get_figheight())
    place: dict[str, Any] = dict(shrink=share, anchor=(0.0, 1.0), fraction=0.03, pad=0.01, aspect=25)
    mappable = ScalarMappable(cmap=drawn_colours(**colours))
    bar = drawing.colorbar(mappable, ax=drawing.axes, ticks=[0, 0.5, 1], **place)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=2)


def figure(
    rows: Sequence[Row],
    *,
    columns: int = 5,
    colours: str = COLOURS,
    opacity: float = 1.0,
    background: Background = "grey",
    contours: Sequence[float] = (),
    cells: bool = False,
) -> Figure:
    """Photographs and their maps side by side: the photograph, a map per method, a colour bar.

    Args:
        rows: the rows, top to bottom; all with the same titles of maps. Each row keeps its photograph's proportions.
        columns: pictures in a line, the photograph included; a row of more goes on in the next line.
        colours: see `overlay`.
        opacity: see `overlay`.
        background: see `overlay`.
        contours: see `overlay`.
        cells: see `overlay`.

    Returns:
        A matplotlib figure, for `save` or, in a notebook, to be shown.

    Raises:
        ValueError: there is no row, rows differ in their titles, or a map can't be drawn (see `overlay`).

    Example:
        >>> row = Row(Image.new("RGB", (64, 48)), "tench\\n91.3 %", {"SS-CAM": np.eye(7)})
        >>> len(figure([row]).axes)  # the photograph, the map, the colour bar
        3

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Figures 3 and 4.
    """
    if not rows:
        raise ValueError("a figure needs at least one row")
    if columns < 1:
        raise ValueError(f"columns is {columns}, expected at least 1")
    titles = tuple(rows[0].maps)
    for row in rows:
        if tuple(row.maps) != titles:
            raise ValueError(f"every row needs the columns {titles}, got {tuple(row.maps)}")
    style = dict(colours=colours, opacity=opacity, background=background, contours=contours, cells=cells)
    # Where a row takes several lines, a title is only found above its own picture.
    lines = [
        line for i, row in enumerate(rows) for line in _lines(row, not i or len(titles) >= columns, columns, style)
    ]
    width = min(columns, len(titles) + 1)
    size = width * _COLUMN + _BAR, sum(line.height + line.text + 0.1 for line in lines)
    drawing = Figure(figsize=size, dpi=_DPI, layout="constrained")
    grid = drawing.add_gridspec(len(lines), width, height_ratios=[line.height for line in lines])
    for y, line in enumerate(lines):
        for x, cell in enumerate(line.cells):
            _draw(drawing.add_subplot(grid[y, x]), cell)
    _draw_bar(drawing, colours=colours, opacity=opacity)
    return drawing


def compare(photo: Photo, maps: Mapping[str, Map], *, title: str = "", **style: Any) -> Figure:
    """Maps of one photograph side by side: of methods, presets or layers.

    Args:
        photo: the photograph, a PIL image or an array, see `overlay`.
        maps: the maps [h, w] in [0, 1], of the whole photograph, by their titles.
        title: written above the photograph.
        style: keywords of `figure`.

    Returns:
        A matplotlib figure, for `save` or, in a notebook, to be shown.

    Raises:
        ValueError: a map or the photograph can't be drawn (see `overlay`).

    Example:
        >>> drawing = compare(np.zeros((48, 64, 3)), {"layer3": np.eye(14), "layer4": np.eye(7)}, title="tench")
        >>> [axes.get_title() for axes in drawing.axes][:3]
        ['tench', 'layer3', 'layer4']

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Figure 3.
    """
    return figure([Row(as_rgb(photo), title, maps)], **style)


def save(picture: Figure | UInt8[np.ndarray, "height width 3"], path: str | os.PathLike[str]) -> None:
    """Save a figure or an overlay as a picture, whole or not at all.

    Args:
        picture: what `figure` or `overlay` returned.
        path: the file; its ending says the format: .png, .jpg, .webp or .pdf, for figures .svg too.

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
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".pdf": "PDF"}
    if isinstance(picture, Figure):
        formats = {f".{kind}": kind for kind in FigureCanvasBase.get_supported_filetypes()}
    if ending not in formats:
        raise ValueError(f"'{path}' does not end like a picture; choose from {', '.join(map(repr, formats))}")
    with replacing(path) as part:
        if isinstance(picture, Figure):
            # The format is given, because the temporary file has another ending.
            picture.savefig(part, format=formats[ending])
        else:
            Image.fromarray(picture).save(part, formats[ending])
