"""Photographs to arrays, and the names of ImageNet's classes."""

from sscam_jax.data.imagenet import class_index, class_name
from sscam_jax.data.preprocess import open_image, preprocess

__all__ = ["class_index", "class_name", "open_image", "preprocess"]
