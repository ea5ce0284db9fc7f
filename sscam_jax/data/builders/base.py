"""The shared part of the builders: write examples as TFDS records, complete and in the same order."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sscam_jax.data.sources import Source

Records = Iterator[tuple[str, dict[str, Any]]]


def example_features(labels: tuple[str, ...]) -> tfds.features.FeaturesDict:
    """Describe the record of an `Example`."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(doc="the bytes of the file"),
            "name": tfds.features.Text(doc="the name of the file without its suffix"),
            "label": tfds.features.ClassLabel(names=labels, doc="-1 if it is not known"),
            "boxes": tfds.features.Tensor(
                shape=(None, 4), dtype=np.float32, doc="y0, x0, y1, x1 in pixels of the stored image"
            ),
            "size": tfds.features.Tensor(shape=(2,), dtype=np.int32, doc="height and width that the boxes refer to"),
            "problem": tfds.features.Text(doc="why the annotation is missing; empty if it is not missing"),
        }
    )


def manual_folder(manager: tfds.download.DownloadManager, name: str) -> pathlib.Path:
    """Return the folder of the data set: TFDS's manual folder, or its subfolder `name`."""
    folder = pathlib.Path(manager.manual_dir)
    return folder / name if (folder / name).is_dir() else folder


class ExampleBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A builder of records from a `Source`. The default format is `array_record`, which allows random access."""

    def __init__(self, *, file_format: str | None = None, **more: Any) -> None:
        super().__init__(file_format=file_format or "array_record", **more)

    def _split(self, split: str, source: Source) -> Records:
        """Yield the records of a split. The metadata holds the facts that would need a pass over all records."""
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
                    "image": example.image,  # a path or bytes, because TFDS needs TensorFlow to encode an array
                    "name": example.name,
                    "label": example.label,
                    # A record has every field. `records` reads "no annotation" from `problem`, and an unknown size from
                    # −1.
                    "boxes": np.zeros((0, 4), np.float32) if example.boxes is None else example.boxes,
                    "size": np.array(example.size or (-1, -1), np.int32),
                    "problem": example.problem,
                },
            )
