"""Build the data sets as `tfds build` does, but without TensorFlow."""

import argparse

import tensorflow_datasets as tfds

from sscam_jax.data.builders import Ilsvrc2012Boxes, Stanford40


def main() -> None:
    """Read the command line and build the data sets."""
    builders = {builder.name: builder for builder in (Ilsvrc2012Boxes, Stanford40)}
    parser = argparse.ArgumentParser(prog="python -m sscam_jax.data.builders", description=__doc__)
    parser.add_argument("names", nargs="+", choices=builders, help="the data sets")
    parser.add_argument(
        "--manual_dir", required=True, help="the folder with the files, or with one folder per data set"
    )
    parser.add_argument("--data_dir", help="the data folder of TFDS, if it is not the default one")
    words = parser.parse_args()
    config = tfds.download.DownloadConfig(manual_dir=words.manual_dir)
    for name in words.names:
        builder = builders[name](data_dir=words.data_dir)
        builder.download_and_prepare(download_config=config)
        print(f"{builder.info.full_name} is in {builder.data_path}")


if __name__ == "__main__":
    main()
