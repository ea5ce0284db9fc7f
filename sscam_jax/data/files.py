"""Your own data sets: a folder of images, or a CSV table of labels and boxes."""

import csv
import math
import pathlib

import numpy as np

from sscam_jax.data.find import image_endings
from sscam_jax.data.sources import Example, Source, listed

_EDGES = ("y0", "x0", "y1", "x1")


def folder(root: pathlib.Path) -> Source:
    """List every image in a folder and its subfolders. There are no labels and no boxes.

    Args:
        root: the folder.

    Returns:
        The data set, sorted by path. The name of an example is its path relative to the folder.

    Raises:
        ValueError: the folder has no image.
    """
    endings = image_endings()
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in endings and file.name[0] != ".")
    if not files:
        raise ValueError(f"folder '{root}' has no image: expected files such as .jpg or .png, at any depth")
    return listed("folder", None, [Example(file.relative_to(root).as_posix(), file) for file in files])


def table(file: pathlib.Path) -> Source:
    """Read images, labels and boxes from a CSV file with the columns path, label, y0, x0, y1, x1.

    Only the column `path` is required. Paths are relative to the CSV file. `label` is a class index, or empty if it is
    not known. The edges of a box are in pixels of the stored image. All four are empty if there is no box. Rows with
    the same path and label give several boxes of one example. Rows with the same path and different labels give
    several examples.

    Args:
        file: the CSV file, in UTF-8, with a header.

    Returns:
        The data set, in the order in which the pairs of path and label first occur.

    Raises:
        ValueError: a column is missing or unknown, a value is not a number (the message names the line), or there is
            no row.
    """
    # utf-8-sig, because spreadsheets write a byte order mark.
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = tuple(reader.fieldnames or ())
        if "path" not in columns or not set(columns) <= {"path", "label", *_EDGES} or 0 < _boxes_in(columns) < 4:
            raise ValueError(
                f"'{file}' has {_headings(columns)}; expected a header with 'path' and optionally 'label' and 'y0', "
                "'x0', 'y1', 'x1'"
            )
        found: dict[tuple[str, int], list[list[float]]] = {}
        for row in reader:
            where = f"'{file}', line {reader.line_num}"
            # DictReader files surplus values under None, and gives None for values that are missing.
            if None in row or None in row.values() or not row["path"]:
                raise ValueError(f"{where}: expected {len(columns)} values, and a path that is not empty")
            boxes = found.setdefault((row["path"], _label(row.get("label", ""), where)), [])
            edges = [row.get(edge, "").strip() for edge in _EDGES]
            if any(edges):
                boxes.append([_number(text, where) for text in edges])
    labels: dict[str, int] = {}
    for path, _ in found:
        labels[path] = labels.get(path, 0) + 1
    examples = [
        Example(
            path if labels[path] == 1 else f"{path}:{label}",  # names must be unique
            file.parent / path,
            label,
            np.array(boxes, np.float32) if boxes else None,
            problem="" if boxes or not _boxes_in(columns) else "the table has no box for it",
        )
        for (path, label), boxes in found.items()
    ]
    if not examples:
        raise ValueError(f"'{file}' is empty: expected at least one row after the header")
    return listed("csv", None, examples)


def _boxes_in(columns: tuple[str, ...]) -> int:
    """Count the columns of a box's edges: four, or none in a table without boxes."""
    return len(set(columns) & set(_EDGES))


def _headings(columns: tuple[str, ...]) -> str:
    return f"the columns {', '.join(map(repr, columns))}" if columns else "no header"


def _label(text: str, where: str) -> int:
    if not text.strip():
        return -1
    if not text.strip().isdecimal():
        raise ValueError(f"{where}: label '{text}' is not a class index; expected an integer from 0 up, or nothing")
    return int(text)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: '{text}' is not the edge of a box; expected a number of pixels")
    return value
