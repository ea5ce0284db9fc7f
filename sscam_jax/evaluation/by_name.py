"""The work behind `sscam evaluate`: a data set and a network by their names, and a gallery."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sscam_jax import data, networks, plots
from sscam_jax import metrics as library
from sscam_jax._support import choose
from sscam_jax.cams.registry import parse
from sscam_jax.evaluation import comparison, gallery, pictures
from sscam_jax.evaluation.plan import Target
from sscam_jax.evaluation.result import Result
from sscam_jax.evaluation.study import evaluate
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD

DEFAULT_METHODS = ("grad-cam", "grad-cam++", "score-cam", "ss-cam")
DEFAULT_METRICS = ("average-drop", "average-increase", "average-gain", "insertion", "deletion")
DEFAULT_BOX_METRICS = ("energy", "energy-over-area", "pointing")


@dataclasses.dataclass(frozen=True)
class Study:
    """What `sscam evaluate` was asked for; every field can change the numbers.

    Attributes:
        data: the data set, see `data.source`.
        model: the network's name.
        checkpoint: a file, address or known name; None: the network's default.
        num_classes: the classes that the checkpoint knows; None: a head's, else 1000.
        layer: where the network is cut; None: its default.
        methods: see `cams.registry.parse`; the controls are added.
        metrics: names of `metrics.METRICS`; none stands for the usual ones.
        limit: how many images, drawn at random by the seed; None: all.
        seed: of the choice of images and of all noise.
        keys: how often methods that draw random numbers are run.
        target: "truth" or "predicted", the class to explain.
        fit: "squash" or "crop", see `preprocess`.
        mean: the mean that is subtracted from each channel, see `preprocess`.
        std: the standard deviation that each channel is then divided by.
        size: the side of the network's input in pixels.
        batch_size: images that are read, explained by gradients, and measured at once.
    """

    data: str
    model: str = "resnet18"
    checkpoint: str | None = None
    num_classes: int | None = None
    layer: str | None = None
    methods: Sequence[str] = DEFAULT_METHODS
    metrics: Sequence[str] = ()
    limit: int | None = None
    seed: int = 0
    keys: int = 1
    target: Target = "truth"
    fit: str = "squash"
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    size: int = 224
    batch_size: int = 16


def _check_data(source: data.Source, study: Study) -> tuple[str, ...]:
    """The metrics to measure, if the data set has what they and the target need."""
    for name in study.metrics:
        choose("metric", name, library.METRICS)
        if library.METRICS[name].needs_boxes and not source.has_boxes:
            boxless = ", ".join(repr(each) for each, metric in library.METRICS.items() if not metric.needs_boxes)
            raise ValueError(f"metric '{name}' needs boxes, which '{source.name}' does not have; choose from {boxless}")
    if study.target == "truth":
        if not source.has_labels:
            raise ValueError(f"'{source.name}' has no labels: explain the predicted class (--target predicted)")
        known = study.num_classes or len(networks.class_names(study.model, study.checkpoint) or range(1000))
        if source.classes is not None and len(source.classes) != known:
            raise ValueError(
                f"'{source.name}' has {len(source.classes)} classes, the network knows {known}: explain "
                "the predicted class (--target predicted), or give a checkpoint for these classes"
            )
    return tuple(study.metrics) or DEFAULT_METRICS + (DEFAULT_BOX_METRICS if source.has_boxes else ())


def run(study: Study, out: pathlib.Path, *, workers: int = 0, process: tuple[int, int] = (0, 1)) -> Result:
    """What `sscam evaluate` does: `evaluate` for a data set and a network by their names, and a gallery.

    Args:
        study: what to measure.
        out: the run folder; made where missing.
        workers: processes that decode images; the results do not depend on it.
        process: (index, count) of this process; it takes its share of the batches.

    Returns:
        What is measured so far.

    Raises:
        ValueError: a setting is not possible, or the folder holds another run.
        FileNotFoundError: the data or the checkpoint is not there.
    """
    # Mistakes first: listing the data and loading the weights take long.
    for spec in study.methods:
        parse(spec)
    source = data.subset(data.source(study.data), study.limit, study.seed)
    names = _check_data(source, study)
    shown: dict[str, Any] = dict(size=study.size, fit=study.fit, mean=study.mean, std=study.std)
    batches = data.batches(source, batch_size=study.batch_size, workers=workers, **shown)
    apply, params = networks.load(
        study.model, layer=study.layer, checkpoint=study.checkpoint, num_classes=study.num_classes
    )
    [model] = [model for model in networks.models() if model.name == study.model]
    # The programs' hashes say the same, but a refusal should name the layer.
    about = dict(model=model.name, layer=study.layer or model.default_layer, limit=study.limit)
    options: dict[str, Any] = dict(seed=study.seed, keys=study.keys, target=study.target, process=process)
    found = evaluate(apply, params, batches, study.methods, names, out=out, about=about, **options)
    if not found.stored.unfinished:  # of several processes, the last one draws
        metric = "energy" if "energy" in found.metrics else found.stored.results.metrics[0]
        plots.save(draw_gallery(found, batches, metric), out / "gallery.png")
    return found


def batches_again(config: Mapping[str, Any], text: str) -> data.Loader:
    """The images of a run that `sscam evaluate` made, from its data set.

    Args:
        config: of the run folder.
        text: the data set, see `data.source`.

    Returns:
        The batches.

    Raises:
        ValueError: the run is not one of `sscam evaluate`, or the data set is not known.
        FileNotFoundError: the data is not there.
    """
    made, of = config["fingerprint"]["about"], config["fingerprint"]["data"]
    if "limit" not in made or "fit" not in of:
        raise ValueError("the run was not made by `sscam evaluate`: give its batches to `result.report` in Python")
    source = data.subset(data.source(text), made["limit"], config["fingerprint"]["settings"]["seed"])
    colours: dict[str, Any] = dict(mean=tuple(of["mean"]), std=tuple(of["std"]))
    return data.batches(source, batch_size=of["batch_size"], size=of["size"], fit=of["fit"], **colours)


def draw_gallery(found: Result, batches: data.Loader, metric: str) -> Any:
    """Each method's best, typical and worst images by a metric; the controls are left out."""
    stored, results = found.stored, found.stored.results
    ids = {name: i for i, name in batches.names.items()}
    shown = [m for m, method in enumerate(results.methods) if not comparison.is_control(method)]
    results = results._replace(
        methods=tuple(results.methods[m] for m in shown),
        values=results.values[:, shown],
        flat=results.flat[:, shown],
        passes=results.passes[:, shown],
    )

    # Methods share many of their best and worst images: each is decoded once.
    @functools.cache
    def seen(image: int) -> Any:
        one = dataclasses.replace(batches.source, ids=np.array([ids[results.names[image]]]))
        [batch] = dataclasses.replace(batches, source=one, batch_size=1)
        return batch

    def load(method: str, image: int) -> gallery.Explained:
        batch, kept = seen(image), stored.kept_maps(image, method)
        # Of the first noise key, whose values chose the image.
        [saliency_map] = pictures.decoded(kept[:1], batch.images.shape[1:-1])
        photo = data.photograph(np.asarray(batch.images[0]), mean=batches.mean, std=batches.std)
        return gallery.Explained(photo, results.names[image], saliency_map, np.asarray(batch.boxes[0]))

    return gallery.gallery(results, metric, library.METRICS[metric.partition("@")[0]], load)
