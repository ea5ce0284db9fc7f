"""Read images as arrays and data sets as batches, and look up the names of ImageNet's classes."""

from sscam_jax.data.find import demo_photographs, find_images
from sscam_jax.data.imagenet import class_index, class_name
from sscam_jax.data.loader import Batches, Problem, batches
from sscam_jax.data.preprocess import open_image, photograph, preprocess
from sscam_jax.data.registry import source
from sscam_jax.data.sources import Example, Source, listed, subset

__all__ = [
    "Batches",
    "Example",
    "Problem",
    "Source",
    "batches",
    "class_index",
    "class_name",
    "demo_photographs",
    "find_images",
    "listed",
    "open_image",
    "photograph",
    "preprocess",
    "source",
    "subset",
]
