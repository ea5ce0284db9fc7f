"""Examples to batches: decoded, resized and cropped with their boxes, in order, by Grain's threads or processes."""

import dataclasses
import functools
import io
import itertools
import os
import pathlib
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from sscam_jax._support import digest, imported
from sscam_jax.data.boxes import fitted_boxes
from sscam_jax.data.images import open_stored
from sscam_jax.data.preprocess import check_fit, constants, fitted
from sscam_jax.data.sources import Example, Source
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Batch, Problem


class _Loaded(NamedTuple):
    id: int
    label: int
    image: Float[np.ndarray, "size size 3"] | None
    boxes: Float[np.ndarray, "k 4"]
    problems: list[Problem]


@dataclasses.dataclass(frozen=True)
class _Look:
    """How photographs are shown to the network."""

    size: int
    fit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _opened(example: Example) -> tuple[Image.Image, tuple[int, int], int]:
    """An example's image upright, its stored width and height, and its EXIF orientation."""
    if isinstance(example.image, pathlib.Path):
        return open_stored(example.image, str(example.image))
    if isinstance(example.image, bytes):
        return open_stored(io.BytesIO(example.image), example.name)
    file = io.BytesIO()
    picture = example.image if isinstance(example.image, Image.Image) else Image.fromarray(np.asarray(example.image))
    picture.save(file, "png")  # as a file, so that orientation, transparency and grey are treated alike
    return open_stored(file, example.name)


def _load(numbered: tuple[int, Example], *, look: _Look) -> _Loaded:
    """Read one example. Errors become problems, because one bad file must not end a run over thousands."""
    number, example = numbered
    image, boxes, whys = None, np.zeros((0, 4), np.float32), [("annotation", example.problem)] * bool(example.problem)
    try:
        upright, (width, height), orientation = _opened(example)
        image = fitted(upright, **dataclasses.asdict(look))
    except (ValueError, OSError) as error:
        whys.append(("unreadable", f"unreadable: {error}"))
    else:
        # Shares of another size would be wrong boxes without a word. This happens where photographs were resized.
        if example.boxes is not None and example.size is not None and example.size != (height, width):
            drawn = f"{example.size[1]}×{example.size[0]}"
            why = f"its boxes were drawn on {drawn} pixels, the file has {width}×{height}: boxes dropped"
            whys.append(("boxes", why))
        elif example.boxes is not None:
            boxes, dropped = fitted_boxes(example.boxes, width, height, orientation, look.size, look.fit)
            whys += [("boxes", why) for why in dropped]
    return _Loaded(number, example.label, image, boxes, [Problem(number, example.name, *why) for why in whys])


def _batch(loaded: Sequence[_Loaded], *, batch_size: int, size: int, k: int) -> tuple[Batch, list[Problem]]:
    """Examples as one batch, filled up to its size."""
    batch = Batch(
        # What a row without an image keeps, see `Batch`.
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


def _read(number: int, *, source: Source, look: _Look, batch_size: int) -> tuple[int, Batch, list[Problem]]:
    """One batch, by its number."""
    places = range(number * batch_size, min((number + 1) * batch_size, len(source)))
    loaded = [_load((int(source.ids[place]), source[place]), look=look) for place in places]
    return number, *_batch(loaded, batch_size=batch_size, size=look.size, k=max(1, source.most_boxes))


@dataclasses.dataclass
class Loader:
    """The batches of a data set of photographs. It can be iterated over many times.

    Attributes:
        source: the data set.
        batch_size: images in a batch.
        size: the side of the network's input, in pixels.
        fit: "squash" or "crop", as in `preprocess`.
        mean: the mean that is subtracted from each channel.
        std: the standard deviation that each channel is then divided by.
        workers: processes that decode; 0 decodes in threads of this process.
        problems: what is wrong with the examples that iteration has read, each named once.

    Example:
        >>> import pathlib, tempfile
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
    mean: tuple[float, ...]
    std: tuple[float, ...]
    workers: int
    problems: list[Problem] = dataclasses.field(default_factory=list, init=False)

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    @property
    def count(self) -> int:
        """How many batches there are."""
        return len(self)

    @property
    def about(self) -> Mapping[str, Any]:
        """What determines the arrays."""
        facts = dict(name=self.source.name, files=self.source.fingerprint(), images=len(self.source))
        shown = dict(batch_size=self.batch_size, size=self.size, fit=self.fit)
        return facts | shown | dict(mean=list(self.mean), std=list(self.std))

    @property
    def names(self) -> Mapping[int, str]:
        """The images' names by their ids, in the order of reading."""
        return {int(i): self.source.examples[int(i)].name for i in self.source.ids}

    def __iter__(self) -> Iterator[Batch]:
        for _, batch, problems in self.read(range(len(self))):
            self.problems += [each for each in problems if each not in self.problems]
            yield batch

    def digest(self, number: int) -> str | None:
        """A hash of the files, labels and boxes of a batch, without decoding an image."""
        facts: list[str | bytes] = []
        for place in range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.source))):
            example = self.source[place]
            facts += [f"{self.source.ids[place]} {example.name} {example.label} {example.size} {example.problem}"]
            # "<f4": the same hash on a machine of the other byte order.
            facts += [b"none" if example.boxes is None else example.boxes.astype("<f4").tobytes(), _bytes(example)]
        return digest(*facts)

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Batch, Sequence[Problem]]]:
        """The batches of these numbers; the images of others are not read."""
        grain = imported("grain")
        wanted = list(itertools.takewhile(lambda number: number < len(self), numbers))
        look = _Look(self.size, self.fit, self.mean, self.std)
        one = functools.partial(_read, source=self.source, look=look, batch_size=self.batch_size)
        threads = 1 if self.workers else min(4, os.cpu_count() or 1)  # each holds a batch
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        # As bytes, because Grain's workers would hand over arrays in shared memory, which outlives an early stop.
        # Grain refuses an empty source; −1 is never read.
        read = grain.MapDataset.source(wanted or [-1]).map(one).map(pickle.dumps).to_iter_dataset(options)
        if self.workers:
            flags = imported("absl.flags").FLAGS
            if not flags.is_parsed():  # Grain asks for its flags; a program without absl never parses them
                flags.mark_as_parsed()
            read = read.mp_prefetch(grain.MultiprocessingOptions(num_workers=self.workers))
        if not wanted:
            return
        iterator = iter(read)
        try:
            yield from map(pickle.loads, iterator)
        finally:
            # Grain goes on reading ahead otherwise, when the consumer stops early.
            iterator.close()


def _bytes(example: Example) -> bytes:
    """What an example's image is read from."""
    if isinstance(example.image, bytes):
        return example.image
    if isinstance(example.image, pathlib.Path):
        return example.image.read_bytes() if example.image.is_file() else b"missing"
    return np.ascontiguousarray(example.image).tobytes()


def batches(
    source: Source,
    *,
    batch_size: int,
    size: int = 224,
    fit: Literal["squash", "crop"] = "squash",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    workers: int = 0,
) -> Loader:
    """Read a data set in batches of one shape, in its order.

    The last batch is filled up with empty rows. An image that cannot be read keeps its row and id, and its `mask` is
    false. Boxes are turned, resized and cropped like their image. Boxes without an area, outside the image or outside
    the crop are left out. `problems` names all of these.

    Args:
        source: the data set.
        batch_size: images in a batch.
        size: the side of the network's input, in pixels.
        fit: "squash" or "crop", as in `preprocess`: by default the map covers the whole photograph, as in `explain`
            and in all published results.
        mean: the mean that is subtracted from each channel, of pixels in [0, 1].
        std: the standard deviation that each channel is then divided by.
        workers: processes that decode; 0 decodes in threads of this process. The batches are the same. Processes
            import the main script: guard your script with `if __name__ == "__main__":`.

    Returns:
        The batches, of NumPy arrays. The k of the boxes is the largest number of boxes of any example, at least 1.

    Raises:
        ValueError: an argument is not possible.
        ImportError: Grain is not installed.

    Example:
        >>> from sscam_jax.data import Example, listed
        >>> one = batches(listed("broken", None, [Example("a", b"no image")]), batch_size=1)
        >>> [batch.mask.tolist() for batch in one], one.problems[0].why
        ([[False]], 'unreadable: a is not an image that Pillow can read')

    References:
        Grain, https://google-grain.readthedocs.io.
    """
    check_fit(size, fit)
    constants(mean, std)  # here, or every image would count as unreadable
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1 image")
    if workers < 0:
        raise ValueError(f"workers is {workers}, expected 0 or more processes")
    imported("grain")
    return Loader(source, batch_size, size, fit, tuple(mean), tuple(std), workers)
