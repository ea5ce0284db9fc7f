"""The work behind `sscam evaluate` and `sscam table`: a data set, a network and methods in; a run folder out."""

import dataclasses
import hashlib
import itertools
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from sscam_jax import comparison, data, gallery, metrics, networks, ops, plots, runs, tables
from sscam_jax.evaluate import Target, measured
from sscam_jax.methods import CONTROLS, Method, draws, parse
from sscam_jax.types import Params

DEFAULT_METHODS = ("grad-cam", "grad-cam++", "score-cam", "ss-cam")
DEFAULT_METRICS = ("average-drop", "average-increase", "average-gain", "insertion", "deletion")
DEFAULT_BOX_METRICS = ("energy", "energy-over-area", "pointing")
# Seconds between two lines of progress where there is no terminal.
_QUIET = 30.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `sscam evaluate` was asked for; every field can change the numbers.

    Attributes:
        data: the data set, see `data.source`.
        model: the network's name.
        checkpoint: a file, address or known name; None: the network's default.
        layer: where the network is cut; None: its default.
        methods: see `methods.parse`; the controls are added.
        metrics: names of `metrics.METRICS`; none stands for the usual ones.
        limit: how many images, drawn at random by the seed; None: all.
        seed: of the choice of images and of all noise.
        keys: how often methods that draw random numbers are run.
        target: "truth" or "predicted", the class to explain.
        fit: "crop" or "squash", see `preprocess`.
        size: the side of the network's input in pixels.
        batch_size: images that are read, explained by gradients, and measured at once.
    """

    data: str
    model: str = "resnet18"
    checkpoint: str | None = None
    layer: str | None = None
    methods: Sequence[str] = DEFAULT_METHODS
    metrics: Sequence[str] = ()
    limit: int | None = None
    seed: int = 0
    keys: int = 1
    target: Target = "truth"
    fit: str = "crop"
    size: int = 224
    batch_size: int = 16


def _digest(params: Params) -> str:
    """A hash of all parameters, wherever they were read from."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        total.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:16]


def _check_data(source: data.Source, settings: Settings, num_classes: int) -> tuple[str, ...]:
    """The metrics to measure, if the data set has what they and the target need."""
    for name in settings.metrics:
        if name not in metrics.METRICS:
            raise ValueError(f"metric '{name}' is not known; choose from {', '.join(map(repr, metrics.METRICS))}")
        if metrics.METRICS[name].needs_boxes and not source.has_boxes:
            boxless = ", ".join(repr(each) for each, metric in metrics.METRICS.items() if not metric.needs_boxes)
            raise ValueError(f"metric '{name}' needs boxes, which '{source.name}' does not have; choose from {boxless}")
    if settings.target == "truth":
        if not source.has_labels:
            raise ValueError(f"'{source.name}' has no labels: explain the predicted class (--target predicted)")
        if source.classes is not None and len(source.classes) != num_classes:
            raise ValueError(
                f"'{source.name}' has {len(source.classes)} classes, {settings.model} knows {num_classes}: explain the "
                "predicted class (--target predicted), or give a checkpoint for these classes"
            )
    return tuple(settings.metrics) or DEFAULT_METRICS + (DEFAULT_BOX_METRICS if source.has_boxes else ())


def _methods(settings: Settings) -> tuple[dict[str, Method], dict[str, Any]]:
    """The methods asked for and the controls, by their text; and all of their choices."""
    parsed = {spec: parse(spec) for spec in dict.fromkeys((*settings.methods, *CONTROLS))}
    return {spec: method for spec, (method, _) in parsed.items()}, {spec: each for spec, (_, each) in parsed.items()}


class Progress:
    """Maps and passes done: a bar in a terminal or notebook, else now and then a line on stderr."""

    def __init__(self, images: int, done: int, per_image: int) -> None:
        self.images, self.per_image, self.first = images, per_image, done
        self.maps, self.passes, self.began = done * per_image, 0, time.monotonic()
        self.told = self.began
        quiet = not sys.stderr.isatty() and "ipykernel" not in sys.modules
        self.bar = tqdm(total=images * per_image, initial=self.maps, unit="map", disable=quiet)
        self.quiet = quiet

    def __call__(self, maps: int, passes: int) -> None:
        self.maps, self.passes = self.maps + maps, self.passes + passes
        self.bar.update(maps)
        self.bar.set_postfix(images=self.maps // self.per_image, passes=self.passes, refresh=False)
        now = time.monotonic()
        if self.quiet and now - self.told > _QUIET:
            self.told = now
            done, seconds = self.maps / self.per_image, now - self.began
            rate = (done - self.first) / seconds
            left = f"{(self.images - done) / rate / 60:.0f} min left" if rate else "no image done yet"
            print(
                f"{done:.0f} of {self.images} images, {self.passes} passes, "
                f"{self.passes / seconds:.0f} a second, {left}",
                file=sys.stderr,
                flush=True,
            )


def evaluate(settings: Settings, out: pathlib.Path, *, workers: int = 0, process: tuple[int, int] = (0, 1)) -> None:
    """Measure methods on a data set into a run folder, going on where an earlier run of the same settings stopped.

    Args:
        settings: what to measure.
        out: the run folder; made where missing.
        workers: processes that decode images; the results do not depend on it.
        process: (index, count): this process takes its share of the data and writes its own parts; with count 1
            the tables are written too, else `sscam table` does so when all have ended.

    Raises:
        ValueError: a setting is not possible, or the folder holds another run.
        FileNotFoundError: the data or the checkpoint is not there.
    """
    methods, choices = _methods(settings)
    source = data.subset(data.source(settings.data), settings.limit, settings.seed)
    apply, params = networks.load(settings.model, layer=settings.layer, checkpoint=settings.checkpoint)
    shape = jax.ShapeDtypeStruct((1, settings.size, settings.size, 3), jnp.float32)
    names = _check_data(source, settings, jax.eval_shape(apply, params, shape).shape[-1])
    count = process[1]

    def share(i: int) -> data.Batches:
        options: dict[str, Any] = dict(size=settings.size, fit=settings.fit, workers=workers)
        return data.batches(source, batch_size=settings.batch_size, process=(i, count), **options)

    batches = share(process[0])
    device = jax.local_devices()[0]
    config = dict(
        settings={**dataclasses.asdict(settings), "metrics": names, "data": source.name, "checkpoint": None},
        methods=list(methods),
        choices=choices,
        data=source.fingerprint(),
        params=_digest(params),
        layer=settings.layer or next(m.default_layer for m in networks.models() if m.name == settings.model),
        versions={name: _version(name) for name in ("sscam_jax", "jax", "jaxlib", "flax", "numpy", "pillow")},
        device=f"{len(jax.local_devices())} × {device.device_kind}",
        processes=count,
        batches=sum(len(share(i)) for i in range(count)),
        names={str(i): source.examples[int(i)].name for i in source.ids},
    )
    with runs.Run(out, config, process) as run:
        done = run.done
        per_image = sum(settings.keys if draws(method) else 1 for method in methods.values())
        images = len(range(process[0], len(source), count))
        tell = Progress(images, min(images, done * settings.batch_size), per_image)
        options: dict[str, Any] = dict(keys=settings.keys, target=settings.target, first=done, tell=tell)
        parts = measured(apply, params, batches, methods, names, key=jax.random.key(settings.seed), **options)
        with tell.bar:
            told = 0
            for number, part in zip(itertools.count(done), parts):
                problems = batches.problems[told:]
                told = len(batches.problems)
                run.write(number, part, problems)
        if count == 1:
            table(out, batches=batches)


def _version(name: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(name)


def table(out: pathlib.Path, *, batches: data.Batches | None = None, baseline: str | None = None) -> str:
    """Merge a run folder's parts into `results.parquet`, `table.md`, `.csv` and `.json`.

    Args:
        out: the run folder.
        batches: the data set, where it is at hand: the figure `gallery.png` is drawn too.
        baseline: the method that differences are taken to; None: Grad-CAM, or the first where it is missing.

    Returns:
        The table in Markdown.

    Raises:
        ValueError: the baseline is not among the methods, or nothing was measured yet.
        FileNotFoundError: it is no run folder.
    """
    stored = runs.read(out)
    found = compare(stored, baseline)
    tables.write(found, out)
    runs.write_parquet(stored, out / "results.parquet")
    if batches is not None:
        metric = "energy" if "energy" in stored.results.metrics else stored.results.metrics[0]
        plots.save(draw_gallery(stored, batches, metric), out / "gallery.png")
    return tables.markdown(found)


def compare(stored: runs.Stored, baseline: str | None = None) -> comparison.Comparison:
    """The comparison that the tables of a run show."""
    methods = stored.results.methods
    baseline = baseline or ("grad-cam" if "grad-cam" in methods else methods[0])
    settings = stored.config["settings"]
    # VOC's pointing game is the mean over classes.
    per_class = [
        name
        for name in {column.partition("@")[0] for column in stored.results.metrics} & {"pointing"}
        if settings["data"].startswith("voc2007") and settings["target"] == "truth"
    ]
    unreadable = [name for _, name, why in stored.problems if why.startswith("unreadable")]
    missing = [f"{name} ({why})" for _, name, why in stored.problems if not why.startswith("unreadable")]
    return comparison.compare(
        stored.results,
        metrics.METRICS,
        baseline=baseline,
        per_class=per_class,
        unreadable=unreadable,
        missing=missing,
    )


def draw_gallery(stored: runs.Stored, batches: data.Batches, metric: str) -> Any:
    """Each method's best, typical and worst images by a metric; the controls are left out."""
    names, results = stored.config["names"], stored.results
    ids = {name: int(i) for i, name in names.items()}
    shown = [m for m, method in enumerate(results.methods) if not comparison.is_control(method)]
    results = results._replace(
        methods=tuple(results.methods[m] for m in shown),
        values=results.values[:, shown],
        flat=results.flat[:, shown],
        passes=results.passes[:, shown],
    )

    def load(method: str, image: int) -> gallery.Example:
        one = dataclasses.replace(batches.source, ids=np.array([ids[results.names[image]]]))
        [batch] = dataclasses.replace(batches, source=one, batch_size=1, process=(0, 1), problems=[])
        raw = stored.raw[0, stored.results.methods.index(method), image]
        resized = ops.resize(jnp.asarray(raw)[None], batch.images.shape[1:3])
        saliency_map = ops.unit(jax.nn.relu(resized))[0]
        return gallery.Example(
            data.photograph(np.asarray(batch.images[0])), results.names[image], saliency_map, np.asarray(batch.boxes[0])
        )

    return gallery.gallery(results, metric, metrics.METRICS[metric.partition("@")[0]], load)
