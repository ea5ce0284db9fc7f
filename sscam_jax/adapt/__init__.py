"""Networks of one's own, of any framework, as the `Apply` and parameters that every method takes."""

from sscam_jax.adapt.equinox_modules import equinox
from sscam_jax.adapt.flax_modules import flax_nnx, linen
from sscam_jax.adapt.haiku_modules import haiku
from sscam_jax.adapt.tap import plain
from sscam_jax.adapt.targets import target

__all__ = ["equinox", "flax_nnx", "haiku", "linen", "plain", "target"]
