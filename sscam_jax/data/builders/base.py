"""What the builders share: our examples as TFDS records, nothing lost, in the data set's order."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sscam_jax.data.sources import Source

Records = Iterator[tuple[str, dict[str, Any]]]


def example_features(labels: tuple[str, ...]) -> tfds.features.FeaturesDict:
    """The record of an `Example`."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(doc="the file's bytes as they are"),
            "name": tfds.features.Text(doc="the file's name without its ending"),
            "label": tfds.features.ClassLabel(names=labels, doc="-1 where it is not known"),
            "boxes": tfds.features.Tensor(
                shape=(None, 4), dtype=np.float32, doc="y0, x0, y1, x1 in pixels of the stored image"
            ),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.int32, doc="height and width for which they were drawn"),
            "problem": tfds.features.Text(doc="why the annotation is missing, empty where it is not"),
        }
    )


def manual_folder(manager: tfds.download.DownloadManager, name: str) -> pathlib.Path:
    """The data set's folder: TFDS's manual folder, or the folder `name` in it."""
    folder = pathlib.Path(manager.manual_dir)
    return folder / name if (folder / name).is_dir() else folder


class ExampleBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A builder of records from our sources, by default as `array_record`, which allows random access."""

    def __init__(self, *, file_format: str | None = None, **more: Any) -> None:
        super().__init__(file_format=file_format or "array_record", **more)

    def _split(self, split: str, source: Source) -> Records:
        """The records of a split; what reading them could not see at once goes into the metadata."""
        self.info.metadata[split] = {
            "classes": source.classes,
            "most_boxes": source.most_boxes,
            "has_labels": source.has_labels,
            "digest": source.digest,
        }
        return self._generate_examples(source)

    def _generate_examples(self, source: Source) -> Records:
        for example in source:
            yield (
                example.name,
                {
                    "image": example.image,  # a path or bytes: TFDS would need TensorFlow to encode an array
                    "name": example.name,
                    "label": example.label,
                    "boxes": np.zeros((0, 4), np.float32) if example.boxes is None else example.boxes,
                    "size": np.array(example.size or (-1, -1), np.int32),
                    "problem": example.problem,
                },
            )
