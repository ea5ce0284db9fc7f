"""Build our data sets as TFDS's `tfds build` does, whose script needs TensorFlow to start."""

import argparse

import tensorflow_datasets as tfds

from sscam_jax.data.builders import Ilsvrc2012Boxes, Stanford40


def main() -> None:
    """Read the command line and build."""
    builders = {builder.name: builder for builder in (Ilsvrc2012Boxes, Stanford40)}
    parser = argparse.ArgumentParser(prog="python -m sscam_jax.data.builders", description=__doc__)
    parser.add_argument("names", nargs="+", choices=builders, help="the data sets")
    parser.add_argument("--manual_dir", required=True, help="the folder of the data sets' files, or of their folders")
    parser.add_argument("--data_dir", help="where TFDS keeps its data sets, if not in its usual folder")
    words = parser.parse_args()
    config = tfds.download.DownloadConfig(manual_dir=words.manual_dir)
    for name in words.names:
        builder = builders[name](data_dir=words.data_dir)
        builder.download_and_prepare(download_config=config)
        print(f"{builder.info.full_name} is in {builder.data_path}")


if __name__ == "__main__":
    main()
