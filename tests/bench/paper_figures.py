"""The layouts of the paper's Figures 2, 3 and 4, with photographs of the assets: figure2.png, figure3.png, figure4.png.

    python tests/bench/paper_figures.py ASSETS OUT [--model squeezenet1_1] [--checkpoint FILE] [--budget PASSES]

ASSETS is the folder of real weights and images. The paper does not say which photographs it shows. These are the first
of each class that it names, in the official order: of the test list of each action (Stanford40), of the images of the
list trainval that no head was trained on (PASCAL VOC 2007; "ship" is its class boat), of the file names (ImageNet's
validation images). Figure 3 explains the class that the paper names, with the heads in weights/ that know it; Figures 2
and 4 the class of ImageNet that the network predicts. Figure 2 shows approach 1 (the mean of the N scores, noise on the
mask) and beside it approach 2, with the mean instead of the maximum and as it is. A flat map, which says nothing, is
named above its row.

SS-CAM takes N = 10 passes a channel, and Figure 2 has it three times: with SqueezeNet 1.1 at most 100,000 passes in
all. --budget is for trying it out: maps of which not all channels were scored.
"""

import argparse
import functools
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "notebooks/results"))
from heads import voc_split

from sscam_jax import cams, data, networks, plots
from sscam_jax.cams.presets import Score
from sscam_jax.cli._terminal import prepare_jax
from sscam_jax.evaluation import gallery
from sscam_jax.types import Apply, Params

STANFORD40 = ("applauding", "blowing_bubbles", "rowing_a_boat")
VOC2007 = ("cat", "boat", "bottle")
IMAGENET = ("magnetic compass", "iron", "holster")


class Photograph(NamedTuple):
    """A photograph of a class that the paper names."""

    wanted: str
    label: int
    name: str
    image: Image.Image


def first_of(source: data.Source, names: tuple[str, ...]) -> list[Photograph]:
    """The first image of each class."""
    label_of = data.class_index if source.name.startswith("ilsvrc2012") else list(source.classes).index
    wanted = {label_of(name): name for name in names}
    found: dict[int, Photograph] = {}
    for example in source:
        if example.label in wanted and example.label not in found:
            image = data.open_image(example.image)
            found[example.label] = Photograph(wanted[example.label], example.label, example.name, image)
    if absent := [name for label, name in wanted.items() if label not in found]:
        raise ValueError(f"{source.name} has no image of {', '.join(absent)}")
    return [found[label] for label in wanted]


def photographs(assets: pathlib.Path) -> dict[str, list[Photograph]]:
    """The photographs of each data set."""
    sources = {
        "stanford40": (data.source(f"stanford40:{assets / 'Stanford40'}:test"), STANFORD40),
        "voc2007": (voc_split(assets)[1], VOC2007),
        "imagenet": (data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}"), IMAGENET),
    }
    return {name: first_of(*each) for name, each in sources.items()}


class Explainer:
    """A network, ready to make rows of photographs."""

    def __init__(self, apply: Apply, params: Params, budget: int | None, score: Score | None = None) -> None:
        """`score` is f^c of a head that knows the photographs' classes; None: of ImageNet's, the predicted one."""
        self.apply, self.params = apply, params
        self.knows = score is not None
        self.probabilities = jax.jit(
            lambda params, x: (jax.nn.sigmoid if score == "sigmoid" else jax.nn.softmax)(apply(params, x))
        )
        passes: dict[str, Any] = dict(budget=budget, score=score or "probability")
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

    def row(self, photo: Photograph, columns: tuple[str, ...]) -> plots.Row:
        """The photograph, the class that is explained, and its maps."""
        images = data.preprocess(photo.image)
        probabilities = np.asarray(self.probabilities(self.params, images))[0]
        label = photo.label if self.knows else int(probabilities.argmax())
        found = {column: self.columns[column](self.apply, self.params, images, [label]) for column in columns}
        flat = ", ".join(column for column, saliency in found.items() if saliency.flat[0])
        # A space that no line is broken at.
        share = f"{100 * probabilities[label]:.0f}\N{NO-BREAK SPACE}%"
        seen = share if self.knows else f"seen as {data.class_name(label)} {share}"
        title = f"{photo.wanted.replace('_', ' ')}, {seen}" + (f" (flat: {flat})" if flat else "")
        print(f"{photo.name}: {title}", flush=True)
        return plots.Row(photo.image, title, {column: np.asarray(each.maps[0]) for column, each in found.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--checkpoint", help="of Figures 2 and 4; default: the model's file among the assets")
    parser.add_argument("--budget", type=int, help="scoring passes that a map may take")
    arguments = parser.parse_args()
    prepare_jax()
    checkpoint = arguments.checkpoint or arguments.assets / "weights" / f"{arguments.model}.pth"
    budget = arguments.budget
    photos = photographs(arguments.assets)
    arguments.out.mkdir(parents=True, exist_ok=True)

    compared = ("Grad-CAM", "Grad-CAM++", "Score-CAM", "SS-CAM")
    scores: dict[str, Score] = {"stanford40": "probability", "voc2007": "sigmoid"}
    halves = []
    for name, score in scores.items():
        knowing = Explainer(*networks.load(arguments.model, checkpoint=name), budget, score)
        halves.append([knowing.row(photo, compared) for photo in photos[name]])
    plots.save(gallery.side_by_side(*halves), arguments.out / "figure3.png")
    explainer = Explainer(*networks.load(arguments.model, checkpoint=checkpoint), budget)

    for number, columns in (
        (4, {column: column for column in compared}),
        (2, {"approach 1": "Approach 1", "mean": "Approach 2 with the mean", "SS-CAM": "Approach 2"}),
    ):
        rows = [explainer.row(photo, tuple(columns)) for photo in photos["imagenet"]]
        rows = [row._replace(maps={title: row.maps[name] for name, title in columns.items()}) for row in rows]
        plots.save(plots.figure(rows), arguments.out / f"figure{number}.png")


if __name__ == "__main__":
    main()
