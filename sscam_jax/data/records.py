"""Read data sets that TFDS has built, with random access and without TensorFlow."""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from sscam_jax._support import choose, imported
from sscam_jax.data.layouts import VOC_CLASSES
from sscam_jax.data.sources import Example, Source, digest

_DEFAULTS = {"voc/2007": "trainval", "ilsvrc2012_boxes": "validation", "stanford40": "test"}


@functools.lru_cache(maxsize=8)
def _opened(directory: str, split: str) -> Sequence[dict[str, Any]]:
    """Open the records of a split. Images stay encoded, as the bytes of their files.

    Cached, because each process opens the files once. An `Example` sequence holds the folder's name instead, so that
    it can be sent to the loader's processes.
    """
    tfds = imported("tensorflow_datasets")
    builder = tfds.builder_from_directory(directory)
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def _example(record: dict[str, Any]) -> Example:
    """Return the example of a record that a builder of this package wrote."""
    problem, size = record["problem"].decode(), (int(record["size"][0]), int(record["size"][1]))
    return Example(
        name=record["name"].decode(),
        image=record["image"],
        label=int(record["label"]),
        boxes=None if problem else record["boxes"].reshape(-1, 4),
        size=None if size == (-1, -1) else size,
        problem=problem,
    )


def _voc_examples(record: dict[str, Any]) -> Iterator[Example]:
    """Yield the examples of a record of TFDS's `voc`, one per class, equal to those of `layouts.voc2007`."""
    objects, image = record["objects"], record["image"]
    stem = pathlib.PurePath(record["image/filename"].decode()).stem
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except OSError:
        yield Example(stem, image, problem="its size cannot be read, and its boxes are relative to it")
        return
    # TFDS stores the integers of the XML file divided by the size of the image. The XML counts pixels from 1.
    shares = np.array(objects["bbox"], np.float32).reshape(-1, 4)
    boxes = np.round(shares * np.array([height, width] * 2, np.float32)) - np.array([1, 1, 0, 0], np.float32)
    # Difficult objects are left out, as in `layouts.voc2007`.
    labels = np.where(np.array(objects["is_difficult"], bool), -1, np.array(objects["label"], int))
    for label in sorted(set(labels.tolist()) - {-1}):
        yield Example(f"{stem}:{VOC_CLASSES[label]}", image, label, boxes[labels == label], (height, width))


@dataclasses.dataclass(frozen=True)
class _Records(Sequence[Example]):
    """The examples of records, which are read on demand.

    Attributes:
        directory: the folder of the data set.
        split: the name of the split.
        places: for each example, its record and its number within the record.
        voc: whether the records are those of TFDS's `voc`.
    """

    directory: str
    split: str
    places: Int[np.ndarray, "n 2"]
    voc: bool

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]  # slices are not needed
        place, number = self.places[index].tolist()
        record = _opened(self.directory, self.split)[place]
        return list(_voc_examples(record))[number] if self.voc else _example(record)


def _scanned(records: Sequence[dict[str, Any]]) -> tuple[Int[np.ndarray, "n 2"], dict[str, Any]]:
    """Find the examples of `voc` and the facts that a `Source` needs. This reads every record once."""
    found: list[tuple[int, int, int]] = []

    def examples() -> Iterator[Example]:
        for place, record in enumerate(records):
            for number, example in enumerate(_voc_examples(record)):
                found.append((place, number, 0 if example.boxes is None else len(example.boxes)))
                yield example

    facts = {"classes": VOC_CLASSES, "has_labels": True, "digest": digest(VOC_CLASSES, examples())}
    table = np.array(found, int).reshape(-1, 3)
    return table[:, :2], facts | {"most_boxes": int(table[:, 2].max(initial=0))}


def tfds(name: str, split: str = "") -> Source:
    """Open a data set that TFDS has built as `array_record` in its data folder.

    Args:
        name: "voc/2007", or "ilsvrc2012_boxes" or "stanford40" from the builders of this package.
        split: a split of the data set. "" is the default: "trainval" for VOC, "validation" for ILSVRC, "test" for
            Stanford40. "trainval" is train and validation together.

    Returns:
        The data set. Its examples are equal to those of the original files. VOC is in the order of TFDS.

    Raises:
        ValueError: the name or the split is not known, or the data set is not built.
        ImportError: TensorFlow Datasets is not installed.
    """
    choose("TFDS data set", name, _DEFAULTS)
    package, voc = imported("tensorflow_datasets"), name == "voc/2007"
    command = f"python -m sscam_jax.data.builders {name} --manual_dir ROOT"
    if voc:
        command = f"tfds build {name} --file_format array_record"
    unbuilt = f"TFDS data set '{name}' is not built as array_record; build it with '{command}'"
    try:
        builder = package.builder(name)
    except package.core.DatasetNotFoundError as error:
        raise ValueError(unbuilt) from error
    # Only array_record can be read at random positions.
    if not builder.is_prepared() or builder.info.file_format.value != "array_record":
        raise ValueError(f"{unbuilt} (data folder '{builder.data_path}')")
    split, choices = split or _DEFAULTS[name], sorted(builder.info.splits) + ["trainval"] * voc
    if split not in choices:
        raise ValueError(f"split '{split}' is not one of '{name}'; choose from {', '.join(map(repr, choices))}")
    # TFDS has no split of this name; it joins two by a plus sign.
    directory, part = str(builder.data_path), split.replace("trainval", "train+validation")
    records = _opened(directory, part)
    if voc:
        # The builder of `voc` is TFDS's own, which stores no such facts.
        places, facts = _scanned(records)
    elif split in (builder.info.metadata or ()):
        places = np.stack([np.arange(len(records)), np.zeros(len(records), int)], axis=1)
        facts = dict(builder.info.metadata[split])
        # The metadata are JSON, which has no tuples.
        facts["classes"] = tuple(facts["classes"])
    else:
        raise ValueError(f"'{directory}' was built by another builder with the same name; build it with '{command}'")
    if not len(places):
        raise ValueError(f"data set 'tfds:{name}:{split}' is empty: expected at least one image")
    examples = _Records(directory, part, places, voc)
    return Source(name=f"tfds:{name}:{split}", examples=examples, ids=np.arange(len(examples)), **facts)
