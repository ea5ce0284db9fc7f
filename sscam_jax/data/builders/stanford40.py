"""The TFDS builder of Stanford 40 Actions."""

import tensorflow_datasets as tfds

from sscam_jax.data import layouts
from sscam_jax.data.builders.base import ExampleBuilder, Records, example_features, manual_folder


class Stanford40(ExampleBuilder):
    """Stanford 40 Actions: people, each with an action and one box."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    The manual folder contains `JPEGImages`, `XMLAnnotations` and `ImageSplits`, or a folder `Stanford40` with these.
    Download them from http://vision.stanford.edu/Datasets/40actions.html.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Photographs of people. Each has one of 40 actions and the box of the person.",
            features=example_features(layouts.ACTIONS),
            homepage="http://vision.stanford.edu/Datasets/40actions.html",
            citation="Yao et al., Human Action Recognition by Learning Bases of Action Attributes and Parts, ICCV 2011",
            metadata=tfds.core.MetadataDict(),
            # In the order of the source, so that an image has the same id as from its files.
            disable_shuffling=True,
        )

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Records]:
        folder = manual_folder(manager, "Stanford40")
        return {split: self._split(split, layouts.stanford40(folder, split)) for split in ("train", "test")}
