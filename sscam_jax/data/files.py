"""Data sets of one's own: a folder of images, a table of labels and boxes."""

import csv
import math
import pathlib

import numpy as np

from sscam_jax.data.find import image_endings
from sscam_jax.data.sources import Example, Source, listed

_EDGES = ("y0", "x0", "y1", "x1")


def folder(root: pathlib.Path) -> Source:
    """Every image in a folder and the folders in it, without labels or boxes.

    Args:
        root: the folder.

    Returns:
        The data set, in the order of the files' paths, by which the examples are named.

    Raises:
        ValueError: there is no image.
    """
    endings = image_endings()
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in endings and file.name[0] != ".")
    if not files:
        raise ValueError(f"folder '{root}' holds no image")
    return listed("folder", None, [Example(file.relative_to(root).as_posix(), file) for file in files])


def table(file: pathlib.Path) -> Source:
    """Images, labels and boxes of a CSV file with the columns path, label, y0, x0, y1, x1.

    Only `path` must be there, relative to the CSV file. `label` is a class index; empty for none. The edges are
    pixels of the stored image; all four empty for no box. Several rows of one path and label are several boxes, and
    several labels of one path are several examples.

    Args:
        file: the CSV file, in UTF-8, with a header.

    Returns:
        The data set, in the order in which paths and labels first come.

    Raises:
        ValueError: a column is missing or unknown, a value is not a number (the line is named), there is no row.
    """
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        columns = tuple(reader.fieldnames or ())
        if "path" not in columns or not set(columns) <= {"path", "label", *_EDGES} or 0 < _boxes_in(columns) < 4:
            raise ValueError(
                f"'{file}' has the columns {', '.join(map(repr, columns)) or 'of no header'}; "
                "expected 'path', and if known 'label' and 'y0', 'x0', 'y1', 'x1'"
            )
        found: dict[tuple[str, int], list[list[float]]] = {}
        for row in reader:
            where = f"'{file}', line {reader.line_num}"
            if None in row or None in row.values() or not row["path"]:
                raise ValueError(f"{where}: expected {len(columns)} values, a path among them")
            boxes = found.setdefault((row["path"], _label(row.get("label", ""), where)), [])
            edges = [row.get(edge, "").strip() for edge in _EDGES]
            if any(edges):
                boxes.append([_number(text, where) for text in edges])
    labels: dict[str, int] = {}
    for path, _ in found:
        labels[path] = labels.get(path, 0) + 1
    examples = [
        Example(
            path if labels[path] == 1 else f"{path}:{label}",
            file.parent / path,
            label,
            np.array(boxes, np.float32) if boxes else None,
            problem="" if boxes or not _boxes_in(columns) else "it has no box in the table",
        )
        for (path, label), boxes in found.items()
    ]
    if not examples:
        raise ValueError(f"'{file}' is empty: expected at least one row below the header")
    return listed("csv", None, examples)


def _boxes_in(columns: tuple[str, ...]) -> int:
    return len(set(columns) & set(_EDGES))


def _label(text: str, where: str) -> int:
    if not text.strip():
        return -1
    if not text.strip().isdecimal():
        raise ValueError(f"{where}: label '{text}' is not a class index, 0 or more")
    return int(text)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{where}: '{text}' is not a box's edge in pixels")
    return value
