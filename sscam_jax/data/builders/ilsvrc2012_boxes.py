"""The TFDS builder of ILSVRC-2012's validation images with their boxes."""

import tensorflow_datasets as tfds

from sscam_jax.data import layouts
from sscam_jax.data.builders.base import ExampleBuilder, Records, example_features, manual_folder
from sscam_jax.data.imagenet import synsets


class Ilsvrc2012Boxes(ExampleBuilder):
    """ILSVRC-2012's validation images with all boxes of their class."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    The manual folder contains `val/` with the JPEG files, flat or in one folder per class, and `bbox/val/` with their
    XML files. Or it contains a folder `ILSVRC2012` with these. Download both from https://image-net.org.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="The validation images of ILSVRC-2012, each with its class and all boxes of that class.",
            features=example_features(tuple(synsets())),
            homepage="https://image-net.org/challenges/LSVRC/2012/",
            citation="Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015",
            metadata=tfds.core.MetadataDict(),
            # In the order of the source, so that an image has the same id as from its files.
            disable_shuffling=True,
        )

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Records]:
        source = layouts.ilsvrc2012(manual_folder(manager, "ILSVRC2012"))
        if not source.has_boxes:
            raise ValueError(f"'{manager.manual_dir}' has no boxes: expected XML files in 'bbox/val'")
        return {"validation": self._split("validation", source)}
