"""Data sets as sequences of examples: images with what is known of them, in a fixed order."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from sscam_jax._support import digest as hash_of


class Example(NamedTuple):
    """An image of a data set that is not read yet, with what is known about it.

    Attributes:
        name: its name in the data set, "ILSVRC2012_val_00000006". If an image gives one example per class, the class
            follows: "000005:chair".
        image: a path, the bytes of a file, a Pillow image, or pixels in uint8.
        label: the class index; -1 if it is not known.
        boxes: the boxes of that class: y0, x0, y1, x1 in pixels of the stored image, before its EXIF orientation is
            applied. Edges are lines between pixels, so the whole image is 0, 0, height, width. None if the data set has
            no boxes for the image.
        size: the height and width in pixels that the boxes refer to; None if it is not known.
        problem: why the annotation is missing; "" if it is not missing.
    """

    name: str
    image: pathlib.Path | bytes | Image.Image | np.ndarray
    label: int = -1
    boxes: Float[np.ndarray, "k 4"] | None = None
    size: tuple[int, int] | None = None
    problem: str = ""


# eq=False: a comparison of fields that are arrays has no single truth value.
@dataclasses.dataclass(frozen=True, eq=False)
class Source(Sequence[Example]):
    """A data set, or a subset of one: a sequence of `Example`.

    Attributes:
        name: the data set and its split, "voc2007:trainval".
        classes: the names of the classes in the order of their indices; None if they are not known.
        examples: the examples of the full data set. The id of an image is its index here.
        ids: the ids of this subset, in order.
        most_boxes: the largest number of boxes of an example; 0 if the data set has no boxes.
        has_labels: whether the data set gives labels.
        digest: a hash of what determines the full data set.

    Example:
        >>> files = listed("folder", None, [Example("a", pathlib.Path("a.jpg")), Example("b", pathlib.Path("b.jpg"))])
        >>> len(files), files[1].name, files.has_boxes
        (2, 'b', False)
    """

    name: str
    classes: tuple[str, ...] | None
    examples: Sequence[Example]
    ids: Int[np.ndarray, " n"]
    most_boxes: int
    has_labels: bool
    digest: str

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # slices are not needed
        return self.examples[int(self.ids[index])]

    @property
    def has_boxes(self) -> bool:
        """Whether the data set gives boxes."""
        return self.most_boxes > 0

    def fingerprint(self) -> str:
        """A short hash of the data: names, labels, boxes and file sizes, but not the folder of the files."""
        return hash_of(self.digest, self.ids.astype("<i8").tobytes())


def digest(classes: tuple[str, ...] | None, examples: Iterable[Example]) -> str:
    """A hash of what determines a data set: classes, names, labels, boxes and file sizes."""
    facts: list[str | bytes] = [repr(classes)]
    for example in examples:
        # Sizes and not contents, because hashing 50,000 photographs takes minutes. `Loader.digest` hashes contents.
        facts.append(f"{example.name}\n{example.label}\n{_file_size(example.image)}\n{example.size}")
        # "<f4": the same hash on a machine of the other byte order.
        facts.append(b"none" if example.boxes is None else example.boxes.astype("<f4").tobytes())
    return hash_of(*facts)


def _file_size(image: Any) -> int:
    if isinstance(image, bytes):
        return len(image)
    if not isinstance(image, pathlib.Path):
        return -1
    return image.stat().st_size if image.is_file() else -1


def listed(name: str, classes: tuple[str, ...] | None, examples: Sequence[Example]) -> Source:
    """Make a data set from a list of examples.

    Args:
        name: the data set and its split.
        classes: the names of the classes; None if they are not known.
        examples: the examples.

    Returns:
        The data set.

    Raises:
        ValueError: there is no example.

    Example:
        >>> boxes = np.array([[0, 0, 120, 80]], np.float32)
        >>> cats = listed("mine", ("cat", "dog"), [Example("tom", pathlib.Path("tom.jpg"), label=0, boxes=boxes)])
        >>> cats.has_boxes, cats.most_boxes, cats.classes[cats[0].label]
        (True, 1, 'cat')
    """
    if not examples:
        raise ValueError(f"data set '{name}' is empty: expected at least one image")
    return Source(
        name=name,
        classes=classes,
        examples=tuple(examples),
        ids=np.arange(len(examples)),
        most_boxes=max(0 if example.boxes is None else len(example.boxes) for example in examples),
        has_labels=any(example.label >= 0 for example in examples),
        digest=digest(classes, examples),
    )


def subset(source: Source, limit: int | None, seed: int) -> Source:
    """Draw a random subset: the first `limit` examples in an order that depends on the seed only.

    With the same seed, a larger limit adds examples and keeps those of a smaller limit. An example keeps its id, which
    is its position in the full data set.

    Args:
        source: the data set.
        limit: the number of examples; None, or more than there are: all examples in the order of the data set.
        seed: the seed of the order, from 0 to 2³² − 1.

    Returns:
        The subset.

    Raises:
        ValueError: `limit` or `seed` is out of range.

    Example:
        >>> letters = listed("letters", None, [Example(letter, b"") for letter in "abcdef"])
        >>> [example.name for example in subset(letters, 3, 0)]
        ['f', 'c', 'b']
        >>> [example.name for example in subset(letters, 4, 0)]
        ['f', 'c', 'b', 'd']
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}, expected at least 1 image")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, expected 0 to {2**32 - 1}")
    if limit is None or limit >= len(source):
        return source
    # RandomState, because its stream is the one that NumPy promises never to change.
    order = np.random.RandomState(seed).permutation(len(source))[:limit]
    return dataclasses.replace(source, ids=source.ids[order])


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows(Sequence[Example]):
    """Examples that are made from the rows of a table on demand."""

    rows: Any
    image: str
    label: str | None
    boxes: str | None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # slices are not needed
        row = self.rows[int(index)]
        image = row[self.image]
        if isinstance(image, Mapping):  # Hugging Face's undecoded images
            image = image["bytes"] or pathlib.Path(image["path"])
        image = pathlib.Path(image) if isinstance(image, str) else image
        boxes = None if self.boxes is None else np.asarray(row[self.boxes], np.float32).reshape(-1, 4)
        return Example(str(index), image, int(row[self.label]) if self.label else -1, boxes)


def from_rows(
    rows: Any,
    *,
    name: str = "rows",
    image: str = "image",
    label: str | None = "label",
    boxes: str | None = None,
    most_boxes: int = 1,
) -> Source:
    """Make a data set from the rows of a table: a Hugging Face `datasets.Dataset`, or a list of dicts.

    Args:
        rows: the table. It has a length, and `rows[i]` is a dict.
        name: the name of the data set in tables.
        image: the column of the images: Pillow images, pixels in uint8, bytes of files, or paths.
        label: the column of the class indices; None: not known.
        boxes: the column of the boxes [k, 4], y0, x0, y1, x1 in pixels of the stored image; None: not known.
        most_boxes: the largest number of boxes of a row.

    Returns:
        The data set. It reads a row when the row is needed.

    Raises:
        ValueError: there is no row, or a column is missing.

    Example:
        >>> rows = [dict(image=Image.new("RGB", (8, 8)), label=3)]
        >>> from_rows(rows)[0].label
        3
    """
    if not len(rows):
        raise ValueError(f"data set '{name}' is empty: expected at least one row")
    first = rows[0]
    for column in filter(None, (image, label, boxes)):
        if column not in first:
            raise ValueError(f"'{name}' has no column '{column}'; choose from {', '.join(map(repr, first))}")
    examples = _Rows(rows, image, label, boxes)
    return Source(
        name=name,
        classes=None,
        examples=examples,
        ids=np.arange(len(rows)),
        most_boxes=most_boxes if boxes else 0,
        has_labels=label is not None,
        # Not the rows, which would all be read and decoded for it. `Loader.digest` hashes the images of each batch.
        digest=hash_of(name, str(len(rows))),
    )
