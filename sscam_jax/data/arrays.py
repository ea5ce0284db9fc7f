"""Data sets that are already arrays: from arrays, from an iterator of dicts, or from batches."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sscam_jax._support import digest
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Batch, Batches, Problem


def _digest(batch: Batch) -> str:
    # Shapes too, because the same bytes in another shape are other images.
    return digest(*(part for field in batch for part in (str(np.shape(field)), np.ascontiguousarray(field).tobytes())))


class Listed:
    """Batches in memory. The protocol is `Batches`."""

    def __init__(self, batches: Sequence[Batch], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.batches, self.mean, self.std = list(batches), tuple(mean), tuple(std)
        ids = [int(i) for batch in batches for i in np.asarray(batch.ids)[np.asarray(batch.mask)]]
        # Counting each id is quadratic, so it runs only if one occurs twice.
        if twice := sorted({i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else ()):
            raise ValueError(f"ids {twice[:5]} occur twice in the batches: every image needs its own id")
        self.batch_size = max((len(batch.ids) for batch in batches), default=1)
        self.images = len(ids)

    @property
    def about(self) -> Mapping[str, Any]:
        """What determines the arrays; their hashes say the rest."""
        known = dict(name=None, batch_size=self.batch_size, images=self.images)
        return known | dict(mean=list(self.mean), std=list(self.std))

    @property
    def names(self) -> None:
        """Images in memory have no names."""

    @property
    def count(self) -> int | None:
        """How many batches there are."""
        return len(self.batches)

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Batch, Sequence[Problem]]]:
        """The batches of these numbers."""
        for number in itertools.takewhile(lambda number: number < len(self.batches), numbers):
            yield number, self.batches[number], ()

    def digest(self, number: int) -> str | None:
        """A hash of a batch."""
        return _digest(self.batches[number]) if number < len(self.batches) else None


class Stream:
    """Batches that come one after the other, from anything that can be iterated over; see `Batches`."""

    def __init__(self, batches: Iterable[Batch], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.batches, self.mean, self.std = enumerate(batches), tuple(mean), tuple(std)
        self.seen: dict[int, Batch] = {}
        # The first batch tells the size of all. It is kept, because an iterator gives nothing twice.
        for _, batch, _ in self.read([0]):
            self.seen[0] = batch
        self.batch_size = len(self.seen[0].ids) if self.seen else 1

    @property
    def about(self) -> Mapping[str, Any]:
        """What determines the arrays; their hashes say the rest."""
        return dict(name=None, batch_size=self.batch_size, mean=list(self.mean), std=list(self.std))

    @property
    def names(self) -> None:
        """Not known before they are read."""

    @property
    def count(self) -> int | None:
        """Not known before they are read."""

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Batch, Sequence[Problem]]]:
        """The batches of these rising numbers. What was read is read again from memory: the first, or nothing."""
        for number in numbers:
            if number in self.seen:
                yield number, self.seen[number], ()
                continue
            for at, batch in self.batches:
                if at == number:
                    yield number, batch, ()
                    break
            else:
                return

    def digest(self, number: int) -> str | None:
        """Only reading tells."""


def _padded(batch: Batch, size: int) -> Batch:
    # What `Batch` has in rows without an image: zeros, no class, no boxes, no id, and a false mask.
    fill = size - len(batch.ids)
    if fill < 0:
        raise ValueError(f"a batch of {len(batch.ids)} images follows one of {size}: expected the largest batch first")
    return Batch(
        *(
            np.concatenate([field, np.full((fill, *field.shape[1:]), empty, field.dtype)]) if fill else field
            for field, empty in zip(batch, (0, -1, -1, -1, False), strict=True)
        )
    )


def _boxes(boxes: Any, n: int) -> np.ndarray:
    """Boxes [n, k, 4], where k is the largest number of boxes of an image; rows of -1 fill the others up."""
    if boxes is None:
        return np.full((n, 1, 4), -1, np.float32)
    each = [np.asarray(some, np.float32) for some in boxes]
    if len(each) != n or any(some.size % 4 or some.shape[-1] not in (0, 4) for some in each):
        raise ValueError(
            f"boxes are of {len(each)} images, with the shapes {sorted({some.shape for some in each})}: expected those "
            f"of {n} images, each [k, 4], with rows y0, x0, y1, x1"
        )
    each = [some.reshape(-1, 4) for some in each]
    # One row at least, because a maximum over no boxes is not defined.
    filled = np.full((n, max(1, *map(len, each)), 4), -1, np.float32)
    for row, some in zip(filled, each, strict=True):
        row[: len(some)] = some
    return filled


def _labels(labels: Any, n: int) -> np.ndarray:
    found = np.full(n, -1) if labels is None else np.asarray(labels)
    if found.shape != (n,) or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"labels are {found.dtype} of shape {found.shape}, expected integers of shape {(n,)}")
    return found.astype(np.int32)


def from_arrays(
    images: Any,
    *,
    labels: Any = None,
    boxes: Any = None,
    batch_size: int = 16,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Batches:
    """Read arrays as a data set in batches.

    Args:
        images: floats as the network takes them [n, *space, c].
        labels: class indices [n]; None: not known.
        boxes: [n, k, 4], or n arrays [k, 4]: y0, x0, y1, x1 as shares of the input in [0, 1]; None: not known.
        batch_size: images in a batch.
        mean: the mean that was subtracted from each channel.
        std: the standard deviation that each channel was then divided by.

    Returns:
        The batches. An image's id is its row.

    Raises:
        ValueError: the arrays do not fit one another, or there is no image.

    Example:
        >>> batches = from_arrays(np.zeros((3, 8, 8, 3), np.float32), labels=[0, 1, 0], batch_size=2)
        >>> [batch.ids.tolist() for _, batch, _ in batches.read(range(2))]
        [[0, 1], [2, -1]]
    """
    images = np.asarray(images)
    n = len(images)
    if n == 0 or batch_size < 1:
        raise ValueError(f"{n} images in batches of {batch_size}: expected at least one of each")
    whole = Batch(images, _labels(labels, n), _boxes(boxes, n), np.arange(n, dtype=np.int32), np.ones(n, bool))
    parts = [Batch(*(field[start : start + batch_size] for field in whole)) for start in range(0, n, batch_size)]
    return Listed([_padded(part, batch_size) for part in parts], mean, std)


def from_dicts(
    rows: Iterable[Mapping[str, Any]],
    *,
    image: str = "image",
    label: str | None = "label",
    boxes: str | None = None,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Batches:
    """A data set that gives dicts of batched arrays, as tf.data, Grain and Hugging Face `datasets.iter` do.

    Args:
        rows: dicts of arrays with a leading axis of the images; those of the first have the largest batch.
        image: the name of the images [b, *space, c], floats as the network takes them.
        label: the name of the class indices [b]; None: not known.
        boxes: the name of the boxes [b, k, 4], y0, x0, y1, x1 as shares of the input, with rows of -1 for none.
        mean: the mean that was subtracted from each channel.
        std: the standard deviation that each channel was then divided by.

    Returns:
        The batches. An image's id is its place in the order of reading.

    Raises:
        ValueError: a row lacks one of these names, its arrays do not fit one another, or its batch is larger than the
            first. Later rows are checked when they are read.

    Example:
        >>> rows = [dict(image=np.zeros((2, 8, 8, 3), np.float32), label=np.array([0, 1]))]
        >>> [batch.labels.tolist() for _, batch, _ in from_dicts(rows).read([0])]
        [[0, 1]]
    """

    def batches() -> Iterator[Batch]:
        start, size = 0, 0
        for row in rows:
            if absent := [name for name in (image, label, boxes) if name is not None and name not in row]:
                raise ValueError(
                    f"a row has no {absent[0]!r}; choose from {', '.join(map(repr, row))}, as from_dicts(rows, "
                    "image=…, label=…); label=None: there is none"
                )
            images = np.asarray(row[image])
            n = len(images)
            size = size or n  # the first batch sets the shape, so that the network is compiled once
            ids = np.arange(start, start + n, dtype=np.int32)
            found = (_labels(row[label] if label else None, n), _boxes(row[boxes] if boxes else None, n), ids)
            yield _padded(Batch(images, *found, np.ones(n, bool)), size)
            start += n

    return Stream(batches(), mean, std)


def as_batches(given: Batches | Iterable[Batch]) -> Batches:
    """Anything that an evaluation reads, as `Batches`.

    Args:
        given: `Batches`, a sequence of `Batch`es, or an iterator of them.

    Returns:
        `Batches`; plain ones count as normalised by ImageNet's mean and standard deviation.

    Raises:
        ValueError: it is something else, or it has no batch.

    Example:
        >>> as_batches([]).count
        0
    """
    if isinstance(given, Batches):
        return given
    if isinstance(given, Batch) or not isinstance(given, Iterable):
        raise ValueError(f"batches is {type(given).__name__}, expected an iterable of Batch: a single one is [batch]")
    if isinstance(given, Sequence):
        return Listed(given, IMAGENET_MEAN, IMAGENET_STD)
    return Stream(given, IMAGENET_MEAN, IMAGENET_STD)
