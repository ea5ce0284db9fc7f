"""Image classifiers in Flax NNX, under torchvision's names, cut anywhere."""

from sscam_jax.networks.registry import Model, convert_checkpoint, init_params, load, models

__all__ = ["Model", "convert_checkpoint", "init_params", "load", "models"]
