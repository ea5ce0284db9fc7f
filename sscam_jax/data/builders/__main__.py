"""TFDS's own `build` command for our data sets, without its `tfds` script, which needs TensorFlow to start."""

from absl import app
from tensorflow_datasets.scripts.cli import build, cli_utils

import sscam_jax.data.builders  # noqa: F401  registers the builders

if __name__ == "__main__":
    app.run(lambda args: args.execute(), flags_parser=cli_utils.make_flags_parser(build.Args, description=__doc__))
