"""Networks of one's own, of any framework, as the `Apply` and parameters that every method takes."""

from sscam_jax.adapt.equinox_modules import equinox
from sscam_jax.adapt.haiku_modules import haiku
from sscam_jax.adapt.linen_modules import linen
from sscam_jax.adapt.nnx_modules import flax_nnx
from sscam_jax.adapt.plain import plain
from sscam_jax.adapt.targets import target

__all__ = ["equinox", "flax_nnx", "haiku", "linen", "plain", "target"]
