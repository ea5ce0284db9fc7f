"""Image classifiers in Flax NNX. Layers have torchvision's names, and a network can be cut at any of them."""

from sscam_jax.networks.head import class_names, heads, save_head
from sscam_jax.networks.loading import convert_checkpoint, init_params, load
from sscam_jax.networks.registry import Model, models

__all__ = ["Model", "class_names", "convert_checkpoint", "heads", "init_params", "load", "models", "save_head"]
