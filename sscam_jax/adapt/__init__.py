"""Networks of one's own, of any framework, as the `Apply` and parameters that every method takes."""

from sscam_jax.adapt.blackbox import black_box
from sscam_jax.adapt.equinox_modules import equinox
from sscam_jax.adapt.haiku_modules import haiku
from sscam_jax.adapt.keras_models import keras
from sscam_jax.adapt.linen_modules import linen
from sscam_jax.adapt.nnx_modules import flax_nnx
from sscam_jax.adapt.plain import plain
from sscam_jax.adapt.summary import Layer, layers, model
from sscam_jax.adapt.targets import target
from sscam_jax.adapt.torch_modules import torch

__all__ = [
    "Layer",
    "black_box",
    "equinox",
    "flax_nnx",
    "haiku",
    "keras",
    "layers",
    "linen",
    "model",
    "plain",
    "target",
    "torch",
]
