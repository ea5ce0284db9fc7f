"""Figures of an evaluation: each method's best, typical and worst images, and the paper's comparison of data sets.

The paper's Figure 3 is `side_by_side`: left Stanford40 (applauding, blowing bubbles, rowing a boat), right PASCAL VOC
2007 (cat, boat, bottle), each with the columns Grad-CAM, Grad-CAM++, Score-CAM, SS-CAM. Its Figures 4 (ImageNet:
magnetic compass, iron, holster; the same columns) and 2 (SS-CAM by the mean of the noisy scores, ResNet-18) are
`plots.figure`.
"""

import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sscam_jax import plots
from sscam_jax.evaluation.comparison import Spec
from sscam_jax.evaluation.statistics import Results

Rank = Literal["best", "typical", "worst"]

_BOX = "#00e5ff"
# Inches: a cell's width, the gaps between cells and between groups of them, the margin, a line of text, a row's label.
_CELL, _GAP, _GROUP_GAP, _MARGIN, _LINE, _LABEL = 1.45, 0.06, 0.22, 0.12, 0.15, 1.35
_BAR_WIDTH, _BAR_TEXT, _BAR_HEIGHT = 0.1, 0.35, 3.0
_DPI = 150


class Explained(NamedTuple):
    """An image with a method's map, to be drawn.

    Attributes:
        photo: what the network saw, as a photograph.
        title: written below it, for instance its class.
        saliency_map: the map, in [0, 1].
        boxes: y0, x0, y1, x1 as shares of the photograph; a row of -1 holds no box.
    """

    photo: Image.Image
    title: str
    saliency_map: Float[Any, "h w"]
    boxes: Float[np.ndarray, "k 4"]


def pick(values: Float[np.ndarray, " n"], better: str, *, count: int = 2) -> dict[Rank, list[int]]:
    """A method's best, typical and worst images by a metric.

    Typical are those around the median. No image is picked twice: where there are fewer than 3 · count, each kind
    gets fewer, the best first. Equal values stand in the order of the images.

    Args:
        values: one value an image, NaN where there is none.
        better: "higher" or "lower".
        count: how many of each kind.

    Returns:
        The images' positions: the best first, the typical by falling quality, the worst first.

    Example:
        >>> pick(np.array([5.0, 1.0, np.nan, 4.0, 2.0, 3.0]), "higher", count=1)
        {'best': [0], 'typical': [5], 'worst': [1]}
    """
    sign = {"higher": -1, "lower": 1}[better]
    # Stable, so that equal values do not depend on the sorting of a platform.
    order = [int(i) for i in np.argsort(sign * values, kind="stable") if not np.isnan(values[i])]
    count = min(count, -(-len(order) // 3))
    best, others = order[:count], order[count:]
    split = max(0, len(others) - count)
    between, worst = others[:split], others[split:][::-1]
    start = max(0, (len(between) - count) // 2)
    return {"best": best, "typical": between[start : start + count], "worst": worst}


def _axes(drawing: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches from the page's top left."""
    page_width, page_height = drawing.get_size_inches()
    return drawing.add_axes(
        (left / page_width, 1 - (top + height) / page_height, width / page_width, height / page_height)
    )


def _text(drawing: Figure, left: float, top: float, text: str, **style: Any) -> None:
    width, height = drawing.get_size_inches()
    drawing.text(left / width, 1 - top / height, text, **style)


def _picture(drawing: Figure, picture: Shaped[np.ndarray, "..."], *place: float) -> Axes:
    cell = _axes(drawing, *place)
    cell.imshow(picture)
    cell.set_axis_off()
    return cell


def _bar(drawing: Figure, left: float, top: float, bottom: float) -> None:
    height = min(bottom - top, _BAR_HEIGHT)
    bar = _axes(drawing, left, (top + bottom - height) / 2, _BAR_WIDTH, height)
    drawing.colorbar(ScalarMappable(cmap=plots.drawn_colours()), cax=bar, ticks=[0, 0.5, 1]).outline.set_visible(False)
    bar.tick_params(labelsize=7, length=2)


def _shrunk(photo: Image.Image) -> Image.Image:
    """The photograph at twice a cell's pixels at most: a figure of large photographs stays small."""
    photo = photo.convert("RGB")
    photo.thumbnail((round(2 * _CELL * _DPI), round(4 * _CELL * _DPI)))
    return photo


def _example(drawing: Figure, example: Explained, number: str, left: float, top: float) -> None:
    """A cell: the photograph under its map, its boxes, its title and its value."""
    photo = _shrunk(example.photo)
    cell = _picture(drawing, plots.overlay(photo, example.saliency_map), left, top, _CELL, _CELL)
    title = textwrap.shorten(example.title, 24, placeholder=" …")
    cell.set_title(f"{title}\n{number}", fontsize=7, y=0, va="top", pad=-3)
    for y0, x0, y1, x1 in example.boxes[(example.boxes >= 0).all(-1)] * np.tile(photo.size[::-1], 2):
        # A pixel's centre is at its index, so the picture begins half a pixel before 0.
        corner = (x0 - 0.5, y0 - 0.5)
        cell.add_patch(Rectangle(corner, x1 - x0, y1 - y0, fill=False, edgecolor=_BOX, linewidth=1.2))


def _picked(results: Results, metric: str, better: str, count: int) -> dict[str, dict[Rank, list[int]]]:
    """By method, its best, typical and worst images; without methods that have no value."""
    if metric not in results.metrics:
        raise ValueError(
            f"metric '{metric}' is not in the results; choose from {', '.join(map(repr, results.metrics))}"
        )
    values = results.values[0, :, :, results.metrics.index(metric)]
    if np.isnan(values).all():
        raise ValueError(
            f"no image has a value of '{metric}': choose another metric of {', '.join(map(repr, results.metrics))}"
        )
    picked = {method: pick(of, better, count=count) for method, of in zip(results.methods, values, strict=True)}
    return {method: ranks for method, ranks in picked.items() if ranks["best"]}


def gallery(
    results: Results, metric: str, spec: Spec, load: Callable[[str, int], Explained], *, count: int = 2
) -> Figure:
    """Each method's best, typical and worst images by a metric, with their maps and boxes.

    Args:
        results: what was measured; values and maps are those of the first noise key.
        metric: one of the results' columns.
        spec: what is said of it.
        load: gives the example for a method's name and the image's position in the results.
        count: how many images of each kind.

    Returns:
        A figure: a row a method, for `plots.save`.

    Raises:
        ValueError: the metric is not in the results, or no image has a value.

    Example:
        >>> from sscam_jax.metrics import METRICS
        >>> no = np.zeros((1, 1, 3), bool)
        >>> results = Results(("a", "b", "c"), ("cam",), ("hit",), np.float32([[[[1], [3], [2]]]]), no, no.astype(int),
        ...                   np.zeros(3, int), np.zeros(3, int), no[0, 0])
        >>> spec = METRICS["pointing"]
        >>> photo = Image.new("RGB", (8, 8))
        >>> drawn = gallery(results, "hit", spec, lambda _, i: Explained(photo, "abc"[i], np.eye(4), np.zeros((0, 4))))
        >>> [cell.get_title().split() for cell in drawn.axes[:3]]
        [['b', '3.00', '%'], ['c', '2.00', '%'], ['a', '1.00', '%']]
    """
    picked = _picked(results, metric, spec.better, count)
    values = results.values[0, :, :, results.metrics.index(metric)]
    count = max(len(ranks["best"]) for ranks in picked.values())
    group = count * (_CELL + _GAP) - _GAP + _GROUP_GAP
    right = 2 * _MARGIN + _LABEL + 3 * group - _GROUP_GAP
    row_height = _CELL + 2 * _LINE + _GAP
    top = _MARGIN + 3 * _LINE
    height = top + len(picked) * row_height + _MARGIN
    drawing = Figure(figsize=(right + _BAR_WIDTH + _BAR_TEXT, height), dpi=_DPI)
    arrow = {"higher": "higher is better", "lower": "lower is better"}[spec.better]
    _text(drawing, _MARGIN, _MARGIN, f"{spec.title}, {arrow}", fontsize=10, va="top")
    for row, (method, ranks) in enumerate(picked.items()):
        y = top + row * row_height
        label = "\n".join(textwrap.wrap(method.replace(":", ": ").replace(",", ", "), 17))
        _text(drawing, _MARGIN, y + _CELL / 2, label, fontsize=9, va="center")
        for i, (rank, images) in enumerate(ranks.items()):
            left = _MARGIN + _LABEL + i * group
            if row == 0:
                _text(drawing, left, y - _GAP, rank, fontsize=9, va="bottom")
            for j, image in enumerate(images):
                value = values[results.methods.index(method), image]
                number = f"{value:.2f} %" if spec.unit == "%" else f"{value:.3g}"
                _example(drawing, load(method, image), number, left + j * (_CELL + _GAP), y)
    _bar(drawing, right, top, height - _MARGIN - 2 * _LINE)
    return drawing


def side_by_side(left: Sequence[plots.Row], right: Sequence[plots.Row]) -> Figure:
    """Two comparisons of the same methods beside each other, as in the paper's Figure 3.

    Args:
        left: the rows of the left half, top to bottom.
        right: as many rows, of the same columns, for the right half.

    Returns:
        A figure, for `plots.save`.

    Raises:
        ValueError: there is no row, or the halves differ in rows or columns.

    Example:
        >>> row = plots.Row(Image.new("RGB", (64, 48)), "rowing a boat", {"Grad-CAM": np.eye(7), "SS-CAM": np.eye(7)})
        >>> len(side_by_side([row], [row]).axes)  # twice the photograph and two maps; the colour bar
        7

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Figure 3.
    """
    if not left or len(left) != len(right):
        raise ValueError(
            f"both halves need the same number of rows, at least one; got {len(left)} and {len(right)}: leave out what "
            "one of them lacks"
        )
    columns = tuple(left[0].maps)
    for row in (*left, *right):
        if tuple(row.maps) != columns:
            raise ValueError(
                f"every row needs the columns {columns}, got {tuple(row.maps)}: give the maps of all rows the same "
                "names, in the same order"
            )
    half = (1 + len(columns)) * (_CELL + _GAP) - _GAP
    end = 2 * _MARGIN + 2 * half + _GROUP_GAP
    titles = [tuple("\n".join(textwrap.wrap(row.title, 22)) for row in pair) for pair in zip(left, right, strict=True)]
    headings = [_LINE * (1 + max(title.count("\n") for title in pair)) + _GAP for pair in titles]
    shapes = [max(row.photo.height / row.photo.width for row in pair) for pair in zip(left, right, strict=True)]
    heights = [_CELL * min(max(shape, 0.15), 1.5) for shape in shapes]
    total = 2 * _MARGIN + sum(headings) + sum(heights) + (len(left) - 1) * _GAP
    drawing = Figure(figsize=(end + _BAR_WIDTH + _BAR_TEXT, total), dpi=_DPI)
    y = _MARGIN
    for i, pair in enumerate(zip(left, right, strict=True)):
        y += headings[i]
        for side, row in enumerate(pair):
            photo = _shrunk(row.photo)
            pictures = [np.asarray(photo), *(plots.overlay(photo, row.maps[column]) for column in columns)]
            for j, (picture, column) in enumerate(zip(pictures, ("", *columns), strict=True)):
                x = _MARGIN + side * (half + _GROUP_GAP) + j * (_CELL + _GAP)
                cell = _picture(drawing, picture, x, y, _CELL, heights[i])
                cell.set_title(titles[i][side] if j == 0 else column if i == 0 else "", fontsize=8, pad=3)
        y += heights[i] + _GAP
    _bar(drawing, end, _MARGIN + headings[0], total - _MARGIN)
    return drawing
