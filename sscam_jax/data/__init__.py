"""Read images as arrays and data sets as batches, and look up the names of ImageNet's classes."""

from sscam_jax.data.arrays import as_batches, from_arrays, from_dicts
from sscam_jax.data.clips import Clip, Frame, clip
from sscam_jax.data.find import demo_photographs, find_images
from sscam_jax.data.imagenet import class_index, class_name
from sscam_jax.data.images import open_image, upright
from sscam_jax.data.loader import Loader, batches
from sscam_jax.data.preprocess import photograph, preprocess
from sscam_jax.data.registry import source
from sscam_jax.data.sources import Example, Source, from_rows, listed, subset

__all__ = [
    "Clip",
    "Example",
    "Frame",
    "Loader",
    "Source",
    "as_batches",
    "batches",
    "class_index",
    "class_name",
    "clip",
    "demo_photographs",
    "find_images",
    "from_arrays",
    "from_dicts",
    "from_rows",
    "listed",
    "open_image",
    "photograph",
    "preprocess",
    "source",
    "subset",
    "upright",
]
