"""Examples to batches: decoded, resized and cropped with their boxes, in order, by Grain's threads or processes."""

import dataclasses
import functools
import io
import os
import pickle
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from sscam_jax._support import imported
from sscam_jax.data.boxes import fitted_boxes
from sscam_jax.data.preprocess import check_fit, fitted, open_stored
from sscam_jax.data.sources import Example, Source
from sscam_jax.types import Batch


class Problem(NamedTuple):
    """What is wrong with an example.

    Attributes:
        id: its position in the full data set.
        name: its name there.
        why: what is wrong, and what was done about it.
    """

    id: int
    name: str
    why: str


class _Loaded(NamedTuple):
    id: int
    label: int
    image: Float[np.ndarray, "size size 3"] | None
    boxes: Float[np.ndarray, "k 4"]
    problems: list[Problem]


def _load(numbered: tuple[int, Example], *, size: int, fit: str) -> _Loaded:
    """Read one example; whatever is wrong with it becomes a problem."""
    number, example = numbered
    image, boxes, whys = None, np.zeros((0, 4), np.float32), [example.problem] if example.problem else []
    try:
        upright, (width, height), orientation = open_stored(
            io.BytesIO(example.image) if isinstance(example.image, bytes) else example.image,
            example.name if isinstance(example.image, bytes) else str(example.image),
        )
        image = fitted(upright, size, fit)
    except (ValueError, OSError) as error:
        whys.append(f"unreadable: {error}")
    else:
        if example.boxes is not None and example.size is not None and example.size != (height, width):
            drawn = f"{example.size[1]}×{example.size[0]}"
            whys.append(f"its boxes were drawn on {drawn} pixels, the file has {width}×{height}: boxes dropped")
        elif example.boxes is not None:
            boxes, dropped = fitted_boxes(example.boxes, width, height, orientation, size, fit)
            whys += dropped
    return _Loaded(number, example.label, image, boxes, [Problem(number, example.name, why) for why in whys])


def _batch(loaded: Sequence[_Loaded], *, batch_size: int, size: int, k: int) -> tuple[Batch, list[Problem]]:
    """Examples as one batch, filled up to its size."""
    batch = Batch(
        images=np.zeros((batch_size, size, size, 3), np.float32),
        labels=np.full(batch_size, -1, np.int32),
        boxes=np.full((batch_size, k, 4), -1, np.float32),
        ids=np.full(batch_size, -1, np.int32),
        mask=np.zeros(batch_size, bool),
    )
    for i, each in enumerate(loaded):
        batch.labels[i], batch.ids[i] = each.label, each.id
        batch.boxes[i, : len(each.boxes)] = each.boxes
        if each.image is not None:
            batch.images[i], batch.mask[i] = each.image, True
    return batch, [problem for each in loaded for problem in each.problems]


class _Numbered(Sequence[tuple[int, Example]]):
    """A source's examples with their ids, as Grain reads them."""

    def __init__(self, source: Source):
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[int, Example]:  # type: ignore[override]  # slices are not needed
        return int(self.source.ids[index]), self.source[index]


@dataclasses.dataclass
class Batches:
    """The batches of a data set, from the first or from any other; iterate over it as often as you like.

    Attributes:
        source: the data set.
        batch_size: images in a batch.
        size: the side of the network's input, in pixels.
        fit: "crop" or "squash", as in `preprocess`.
        workers: processes that decode; 0 decodes in threads of this process.
        process: which share of how many this is.
        problems: what was wrong with the examples read so far, each named once, in the order of reading.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> from sscam_jax.data import source
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for i in range(3):
        ...         Image.new("RGB", (8, 8)).save(pathlib.Path(folder, f"{i}.png"))
        ...     [batch.ids.tolist() for batch in batches(source(f"folder:{folder}"), batch_size=2, size=8)]
        [[0, 1], [2, -1]]
    """

    source: Source
    batch_size: int
    size: int
    fit: str
    workers: int
    process: tuple[int, int]
    problems: list[Problem] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        index, count = self.process
        return -(-len(range(index, len(self.source), count)) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Batch]:
        """The batches from number `first` on; the images before it are not read."""
        grain = imported("grain")
        shard = grain.sharding.ShardOptions(*self.process)
        examples = grain.MapDataset.source(_Numbered(self.source))[shard.shard_index :: shard.shard_count]
        examples = examples.map(functools.partial(_load, size=self.size, fit=self.fit))
        k = max(1, self.source.most_boxes)
        together = functools.partial(_batch, batch_size=self.batch_size, size=self.size, k=k)
        threads = 1 if self.workers else min(4, os.cpu_count() or 1)  # each holds a batch
        read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        # As bytes, because Grain's workers would hand over arrays in shared memory, which outlives an early stop.
        batched = examples.batch(self.batch_size, batch_fn=together).map(pickle.dumps)[first:].to_iter_dataset(read)
        if self.workers:
            flags = imported("absl.flags").FLAGS
            if not flags.is_parsed():  # Grain asks for its flags; a program without absl never parses them
                flags.mark_as_parsed()
            batched = batched.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        iterator = iter(batched)
        known = set(self.problems)
        try:
            for pickled in iterator:
                batch, problems = pickle.loads(pickled)
                self.problems += [each for each in problems if each not in known]
                known.update(problems)
                yield batch
        finally:
            iterator.close()


def batches(
    source: Source,
    *,
    batch_size: int,
    size: int = 224,
    fit: Literal["crop", "squash"] = "crop",
    workers: int = 0,
    process: tuple[int, int] = (0, 1),
) -> Batches:
    """Read a data set in batches of one shape, in its order.

    The last batch is filled up with empty rows. An image that can't be read keeps its row and id with `mask` false.
    Boxes go through the same turn, resize and crop as the image; those of no area, outside the image or outside the
    crop are left out. All of these are named in `problems`.

    Args:
        source: the data set.
        batch_size: images in a batch.
        size: the side of the network's input, in pixels.
        fit: "crop" or "squash", as in `preprocess`.
        workers: processes that decode; 0 decodes in threads of this process. The batches are the same. Processes
            import the main script, so that its own work must stand under `if __name__ == "__main__":`.
        process: (index, count): of `count` processes this is number `index`, and reads every `count`-th example.

    Returns:
        The batches: NumPy arrays, with k of the boxes as large as the data set's examples need, at least 1.

    Raises:
        ValueError: an argument is not a possible one.
        ImportError: Grain is not installed.

    Example:
        >>> from sscam_jax.data import Example, listed
        >>> one = batches(listed("broken", None, [Example("a", b"no image")]), batch_size=1)
        >>> [batch.mask.tolist() for batch in one], one.problems
        ([[False]], [Problem(id=0, name='a', why='unreadable: a is not an image that Pillow can read')])

    References:
        Grain, https://google-grain.readthedocs.io.
    """
    check_fit(size, fit)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1 image")
    if workers < 0:
        raise ValueError(f"workers is {workers}, expected 0 or more processes")
    index, count = process
    if not 0 <= index < count:
        raise ValueError(f"process is {process}, expected (index, count) with index from 0 to count - 1")
    imported("grain")
    return Batches(source, batch_size, size, fit, workers, process)
