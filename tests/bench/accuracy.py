"""Top-1 and top-5 on photographs of ImageNet's validation set.

    python tests/bench/accuracy.py ASSETS [--origin val227] [--fit squash]

ASSETS is the folder of real weights and images, with ILSVRC2012/val_index.csv; the package ndf must be
installed (extra `demo`). Takes about 30 ms an image and network on 2 cores.
"""

import argparse
import csv
import pathlib

import jax
import numpy as np

from sscam_jax import data, networks

BATCH = 52
FILES = ("resnet18", "squeezenet1_0", "squeezenet1_1", "squeezenet1_1_legacy", "ndf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=pathlib.Path)
    parser.add_argument("--origin", default="val227", help="which images: a value of the index's column origin")
    parser.add_argument("--fit", default="squash", choices=["squash", "crop"])
    arguments = parser.parse_args()
    with open(arguments.assets / "ILSVRC2012/val_index.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["origin"] == arguments.origin]
    loaded = {}
    for file in FILES:
        name = "squeezenet1_1" if file == "ndf" else file.removesuffix("_legacy")
        checkpoint = "squeezenet1_1-ndf" if file == "ndf" else arguments.assets / f"weights/{file}.pth"
        apply, params = networks.load(name, checkpoint=checkpoint)
        loaded[file] = jax.jit(apply), params
    hits: dict[str, list[np.ndarray]] = {file: [] for file in FILES}
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        paths = [arguments.assets / f"ILSVRC2012/val/{row['image']}.JPEG" for row in batch]
        images = data.preprocess(paths, fit=arguments.fit)
        labels = np.array([int(row["label"]) for row in batch])[:, None]
        for file, (run, params) in loaded.items():
            hits[file].append(np.argsort(-np.asarray(run(params, images)))[:, :5] == labels)
    print(f"{len(rows)} images of {arguments.origin}, {arguments.fit} to 224")
    for file, parts in hits.items():
        hit = np.concatenate(parts)
        print(f"{file:22} top-1 {hit[:, 0].mean():.4f}  top-5 {hit.any(1).mean():.4f}")


if __name__ == "__main__":
    main()
