"""Checkpoints: read them safely, download the known ones, and convert between torchvision's names and Flax's."""

from sscam_jax.convert.download import cache_folder, fetch
from sscam_jax.convert.known import KNOWN, Known
from sscam_jax.convert.read import read_checkpoint, read_metadata, write_checkpoint
from sscam_jax.convert.rules import (
    ConversionError,
    flax_to_torchvision,
    torchvision_to_flax,
)
from sscam_jax.convert.tables import RULES
from sscam_jax.convert.unpickle import CheckpointError

__all__ = [
    "KNOWN",
    "RULES",
    "CheckpointError",
    "ConversionError",
    "Known",
    "cache_folder",
    "fetch",
    "flax_to_torchvision",
    "read_checkpoint",
    "read_metadata",
    "torchvision_to_flax",
    "write_checkpoint",
]
