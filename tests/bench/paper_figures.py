"""The layouts of the paper's Figures 2, 3 and 4, with photographs of the assets: figure2.png, figure3.png, figure4.png.

    python tests/bench/paper_figures.py ASSETS OUT [--model squeezenet1_1] [--checkpoint FILE] [--budget PASSES]

ASSETS is the folder of real weights and images. The paper does not say which photographs it shows. These are the first
of each class that it names, in the official order: of the test list of each action (Stanford40), of the list trainval
(PASCAL VOC 2007; "ship" is its class boat), of the file names (ImageNet's validation images). What is explained is the
class that the network predicts, among ImageNet's. Figure 2 shows approach 1 (the mean of the N scores, noise on the
mask) and beside it approach 2, with the mean instead of the maximum and as it is. A flat map, which says nothing, is
named above its row.

SS-CAM takes N = 10 passes a channel, and Figure 2 has it three times: with SqueezeNet 1.1 at most 100,000 passes in
all. --budget is for trying it out: maps of which not all channels were scored.
"""

import argparse
import functools
import pathlib
from typing import Any

import jax
import numpy as np
from PIL import Image

from sscam_jax import cams, data, networks, plots
from sscam_jax.cli._terminal import prepare_jax
from sscam_jax.evaluation import gallery
from sscam_jax.types import Apply, Params

STANFORD40 = ("applauding", "blowing_bubbles", "rowing_a_boat")
VOC2007 = ("cat", "boat", "bottle")
IMAGENET = ("magnetic compass", "iron", "holster")


def first_of(source: data.Source, wanted: dict[int, str]) -> list[tuple[str, str, Image.Image]]:
    """The first image of each class: its class, its name in the data set, the photograph."""
    found: dict[int, tuple[str, str, Image.Image]] = {}
    for example in source:
        if example.label in wanted and example.label not in found:
            found[example.label] = wanted[example.label], example.name, data.open_image(example.image)
    if absent := [name for label, name in wanted.items() if label not in found]:
        raise ValueError(f"{source.name} has no image of {', '.join(absent)}")
    return [found[label] for label in wanted]


def photographs(assets: pathlib.Path) -> dict[str, list[tuple[str, str, Image.Image]]]:
    """The photographs of each data set."""
    stanford40 = data.source(f"stanford40:{assets / 'Stanford40'}")
    voc2007 = data.source(f"voc2007:{assets / 'VOCdevkit'}")
    return {
        "stanford40": first_of(stanford40, {stanford40.classes.index(name): name for name in STANFORD40}),
        "voc2007": first_of(voc2007, {voc2007.classes.index(name): name for name in VOC2007}),
        "imagenet": first_of(
            data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}"), {data.class_index(name): name for name in IMAGENET}
        ),
    }


class Explainer:
    """A network, ready to make rows of photographs."""

    def __init__(self, apply: Apply, params: Params, budget: int | None) -> None:
        self.apply, self.params = apply, params
        self.logits = jax.jit(apply)
        passes: dict[str, Any] = dict(budget=budget)
        if jax.local_device_count() > 1:
            passes["devices"] = jax.local_devices()
        noise: dict[str, Any] = dict(passes, key=jax.random.key(0))
        self.columns = {
            "Grad-CAM": cams.grad_cam,
            "Grad-CAM++": cams.grad_cam_pp,
            "Score-CAM": functools.partial(cams.score_cam, **passes),
            "SS-CAM": functools.partial(cams.ss_cam, preset="paper", **noise),
            "approach 1": functools.partial(cams.ss_cam, preset="paper_mean", **noise),
            "mean": functools.partial(cams.ss_cam, preset="paper", reduce="mean", **noise),
        }

    def row(self, photo: tuple[str, str, Image.Image], columns: tuple[str, ...]) -> plots.Row:
        """The photograph, its class and the predicted one, and the maps of the latter."""
        wanted, name, image = photo
        images = data.preprocess(image)
        probabilities = np.asarray(jax.nn.softmax(self.logits(self.params, images)))[0]
        label = int(probabilities.argmax())
        found = {column: self.columns[column](self.apply, self.params, images, [label]) for column in columns}
        flat = ", ".join(column for column, saliency in found.items() if saliency.flat[0])
        # A space that no line is broken at.
        seen = f"seen as {data.class_name(label)} {100 * probabilities[label]:.0f}\N{NO-BREAK SPACE}%"
        title = f"{wanted.replace('_', ' ')}, {seen}" + (f" (flat: {flat})" if flat else "")
        print(f"{name}: {title}", flush=True)
        return plots.Row(image, title, {column: np.asarray(saliency.maps[0]) for column, saliency in found.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--checkpoint", help="default: the model's file among the assets")
    parser.add_argument("--budget", type=int, help="scoring passes that a map may take")
    arguments = parser.parse_args()
    prepare_jax()
    checkpoint = arguments.checkpoint or arguments.assets / "weights" / f"{arguments.model}.pth"
    explainer = Explainer(*networks.load(arguments.model, checkpoint=checkpoint), arguments.budget)
    photos = photographs(arguments.assets)
    arguments.out.mkdir(parents=True, exist_ok=True)

    compared = ("Grad-CAM", "Grad-CAM++", "Score-CAM", "SS-CAM")
    halves = ([explainer.row(photo, compared) for photo in photos[name]] for name in ("stanford40", "voc2007"))
    plots.save(gallery.side_by_side(*halves), arguments.out / "figure3.png")

    for number, columns in (
        (4, {column: column for column in compared}),
        (2, {"approach 1": "Approach 1", "mean": "Approach 2 with the mean", "SS-CAM": "Approach 2"}),
    ):
        rows = [explainer.row(photo, tuple(columns)) for photo in photos["imagenet"]]
        rows = [row._replace(maps={title: row.maps[name] for name, title in columns.items()}) for row in rows]
        plots.save(plots.figure(rows), arguments.out / f"figure{number}.png")


if __name__ == "__main__":
    main()
