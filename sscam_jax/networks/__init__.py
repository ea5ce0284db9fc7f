"""Image classifiers in Flax NNX. Layers have torchvision's names, and a network can be cut at any of them."""

from sscam_jax.networks.registry import Model, convert_checkpoint, init_params, load, models

__all__ = ["Model", "convert_checkpoint", "init_params", "load", "models"]
