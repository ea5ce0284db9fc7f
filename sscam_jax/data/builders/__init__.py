"""TFDS builders for data sets with boxes. Importing this package registers them with TFDS.

`python -m sscam_jax.data.builders ilsvrc2012_boxes --manual_dir ROOT` builds a data set. If TensorFlow is installed,
`tfds build --imports sscam_jax.data.builders ilsvrc2012_boxes --manual_dir ROOT` does the same.
"""

from sscam_jax.data.builders.ilsvrc2012_boxes import Ilsvrc2012Boxes
from sscam_jax.data.builders.stanford40 import Stanford40

__all__ = ["Ilsvrc2012Boxes", "Stanford40"]
