"""Data sets of boxes in TFDS's own form: importing this package registers their builders with TFDS.

`tfds build --imports sscam_jax.data.builders ilsvrc2012_boxes --manual_dir ROOT` builds one where TensorFlow is
installed, which the `tfds` script imports; `python -m sscam_jax.data.builders ilsvrc2012_boxes --manual_dir ROOT`
does the same without TensorFlow.
"""

from sscam_jax.data.builders.ilsvrc2012_boxes import Ilsvrc2012Boxes
from sscam_jax.data.builders.stanford40 import Stanford40

__all__ = ["Ilsvrc2012Boxes", "Stanford40"]
