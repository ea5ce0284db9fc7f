"""Networks of one's own, of any framework, as the `Apply` and parameters that every method takes."""

import sys
import types
from typing import Any

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
from sscam_jax.types import Apply, Params

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


class _Callable(types.ModuleType):
    """The module itself as a function: `sscam.adapt(network, …)` is `sscam.adapt.model(network, …)`."""

    def __call__(self, network: Any, **options: Any) -> tuple[Apply, Params]:
        return model(network, **options)


# Python looks up `__call__` on the class of an object, so a function of that name in this module would not do.
sys.modules[__name__].__class__ = _Callable
