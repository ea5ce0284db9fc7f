"""Photographs to arrays, and the names of ImageNet's classes."""

from sscam_jax.data.find import demo_photographs, find_images
from sscam_jax.data.imagenet import class_index, class_name
from sscam_jax.data.preprocess import open_image, preprocess

__all__ = ["class_index", "class_name", "demo_photographs", "find_images", "open_image", "preprocess"]
