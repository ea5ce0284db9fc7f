"""The work behind `sscam evaluate` and `sscam table`: a data set, a network and methods in; a run folder out."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sscam_jax import data, networks, ops, plots
from sscam_jax import metrics as library
from sscam_jax.cams.registry import CONTROLS, Method, draws, parse
from sscam_jax.evaluation import comparison, gallery, run_folder, tables
from sscam_jax.evaluation.loop import Target, measured
from sscam_jax.types import Apply, Batch, Params

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
        num_classes: the classes that the checkpoint knows.
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
    num_classes: int = 1000
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


def _check_data(source: data.Source, settings: Settings) -> tuple[str, ...]:
    """The metrics to measure, if the data set has what they and the target need."""
    for name in settings.metrics:
        if name not in library.METRICS:
            raise ValueError(f"metric '{name}' is not known; choose from {', '.join(map(repr, library.METRICS))}")
        if library.METRICS[name].needs_boxes and not source.has_boxes:
            boxless = ", ".join(repr(each) for each, metric in library.METRICS.items() if not metric.needs_boxes)
            raise ValueError(f"metric '{name}' needs boxes, which '{source.name}' does not have; choose from {boxless}")
    if settings.target == "truth":
        if not source.has_labels:
            raise ValueError(f"'{source.name}' has no labels: explain the predicted class (--target predicted)")
        if source.classes is not None and len(source.classes) != settings.num_classes:
            raise ValueError(
                f"'{source.name}' has {len(source.classes)} classes, the network knows {settings.num_classes}: explain "
                "the predicted class (--target predicted), or give a checkpoint for these classes"
            )
    return tuple(settings.metrics) or DEFAULT_METRICS + (DEFAULT_BOX_METRICS if source.has_boxes else ())


class Progress:
    """Maps and passes done: a bar in a terminal or notebook, else now and then a line on stderr."""

    def __init__(self, images: int, done: int, batches: int, per_image: int) -> None:
        self.images, self.per_image = images, per_image
        self.first = images * done / max(1, batches)
        self.maps, self.passes, self.began = round(self.first * per_image), 0, time.monotonic()
        self.told = self.began
        self.quiet = not sys.stderr.isatty() and "ipykernel" not in sys.modules
        self.bar = tqdm(total=images * per_image, initial=self.maps, unit="map", disable=self.quiet)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

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


def evaluate(
    apply: Apply,
    params: Params,
    batches: Iterable[Batch],
    methods: Sequence[str] | Mapping[str, Method],
    metrics: Sequence[str],
    *,
    out: str | os.PathLike[str],
    seed: int = 0,
    keys: int = 1,
    target: Target = "truth",
    process: tuple[int, int] = (0, 1),
    about: Mapping[str, Any] | None = None,
) -> comparison.Comparison | None:
    """Measure methods on batches of any data set, with any network, into a run folder.

    Every batch is written when it is measured; a second call with the same arguments goes on where the first one
    stopped, and ends with the same tables. Controls (uniform, Gaussian, random, mean activation, FakeCAM) are measured
    beside the methods. The folder gets `table.md`, `table.csv`, `table.json` and `results.parquet`.

    Args:
        apply: the network, cut at the target layer.
        params: its parameters.
        batches: `data.batches`, or any sized collection of `Batch`es of one shape that can be iterated over.
        methods: texts for `methods.parse` ("ss-cam:paper,sigma=1"), or methods by the names that tables give them.
        metrics: names of `metrics.METRICS`.
        out: the run folder; made where missing.
        seed: of all random numbers.
        keys: how often methods that draw random numbers are run, each time with another noise.
        target: explain the class that the data gives ("truth") or the network's ("predicted").
        process: (index, count): of `count` processes this is number `index`, and `batches` is its share. With more
            than one, `sscam table` makes the tables when all have ended.
        about: what else determines the result, in terms that JSON has, so that a run with another is refused: where
            `batches` does not say which data these are, or `methods` are functions of your own.

    Returns:
        The comparison that the tables show; None where this is one of several processes.

    Raises:
        ValueError: an argument is not possible, or the folder holds a run with other arguments.

    Example:
        >>> import tempfile
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images = np.float32([[[[1, 0], [0, 1]], [[0, 1], [0, 1]]]])
        >>> batch = Batch(images, np.int32([0]), np.float32([[[0, 0, 0.5, 0.5]]]), np.int32([0]), np.array([True]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = evaluate(apply, (), [batch], ["grad-cam"], ["energy"], out=folder)
        >>> found.methods[0], found.sections[0].means.values[0].tolist()
        ('grad-cam', [100.0])
    """
    folder = pathlib.Path(out)
    parsed: dict[str, tuple[Method, Any]] = {name: (method, None) for name, method in CONTROLS.items()}
    if isinstance(methods, Mapping):
        parsed = {name: (method, None) for name, method in methods.items()} | parsed
    else:
        parsed = {spec: parse(spec) for spec in methods} | parsed
    source = getattr(batches, "source", None)
    known = {} if source is None else {str(i): source.examples[int(i)].name for i in source.ids}
    device = jax.local_devices()[0]
    config = dict(
        settings=dict(seed=seed, keys=keys, target=target, metrics=list(metrics), data=getattr(source, "name", None)),
        methods=list(parsed),
        choices={name: choices for name, (_, choices) in parsed.items()},
        data=None if source is None else source.fingerprint(),
        params=_digest(params),
        versions={name: version(name) for name in ("sscam_jax", "jax", "jaxlib", "numpy", "pillow")},
        device=f"{len(jax.local_devices())} × {device.device_kind}",
        processes=process[1],
        names=known,
        about=dict(about or {}),
    )
    images = len(batches) * getattr(batches, "batch_size", 1)  # type: ignore[arg-type]  # sized, as documented
    with run_folder.Run(folder, config, process) as run:
        done = run.done
        per_image = sum(keys if draws(method) else 1 for method, _ in parsed.values())
        with Progress(images, done, len(batches), per_image) as tell:  # type: ignore[arg-type]
            options: dict[str, Any] = dict(keys=keys, target=target, first=done, tell=tell)
            bound = {name: method for name, (method, _) in parsed.items()}
            parts = measured(apply, params, batches, bound, metrics, key=jax.random.key(seed), **options)
            problems: list[data.Problem] = getattr(batches, "problems", [])
            told = len(problems)
            for number, part in zip(itertools.count(done), parts):
                run.write(number, part, problems[told:])
                told = len(problems)
        run.finish()
    if process[1] > 1:
        return None
    return table(folder)


def run(settings: Settings, out: pathlib.Path, *, workers: int = 0, process: tuple[int, int] = (0, 1)) -> None:
    """What `sscam evaluate` does: `evaluate` for a data set and a network by their names, and a gallery.

    Args:
        settings: what to measure.
        out: the run folder; made where missing.
        workers: processes that decode images; the results do not depend on it.
        process: (index, count) of this process; it takes its share of the data.

    Raises:
        ValueError: a setting is not possible, or the folder holds another run.
        FileNotFoundError: the data or the checkpoint is not there.
    """
    for spec in settings.methods:
        parse(spec)
    source = data.subset(data.source(settings.data), settings.limit, settings.seed)
    names = _check_data(source, settings)
    apply, params = networks.load(
        settings.model, layer=settings.layer, checkpoint=settings.checkpoint, num_classes=settings.num_classes
    )
    shown: dict[str, Any] = dict(size=settings.size, fit=settings.fit)
    batches = data.batches(source, batch_size=settings.batch_size, workers=workers, process=process, **shown)
    [model] = [model for model in networks.models() if model.name == settings.model]
    about = dict(model=model.name, layer=settings.layer or model.default_layer, flax=version("flax"), **shown)
    about |= dict(limit=settings.limit, batch_size=settings.batch_size)
    options: dict[str, Any] = dict(seed=settings.seed, keys=settings.keys, target=settings.target, process=process)
    evaluate(apply, params, batches, settings.methods, names, out=out, about=about, **options)
    if process[1] == 1:
        stored = run_folder.read(out)
        metric = "energy" if "energy" in stored.results.metrics else stored.results.metrics[0]
        plots.save(draw_gallery(stored, batches, metric), out / "gallery.png")


def table(out: pathlib.Path, *, baseline: str | None = None) -> comparison.Comparison:
    """Merge a run folder's parts into `results.parquet`, `table.md`, `.csv` and `.json`.

    Args:
        out: the run folder.
        baseline: the method that differences are taken to; None: Grad-CAM, or the first where it is missing.

    Returns:
        What the tables say.

    Raises:
        ValueError: the baseline is not among the methods, or nothing was measured yet.
        FileNotFoundError: it is no run folder.
    """
    stored = run_folder.read(out)
    found = compare(stored, baseline)
    tables.write(found, out)
    run_folder.write_parquet(stored, out / "results.parquet")
    return found


def compare(stored: run_folder.Stored, baseline: str | None = None) -> comparison.Comparison:
    """The comparison that the tables of a run show."""
    methods = stored.results.methods
    baseline = baseline or ("grad-cam" if "grad-cam" in methods else methods[0])
    settings = stored.config["settings"]
    # VOC's pointing game is the mean over classes.
    per_class = [
        name
        for name in {column.partition("@")[0] for column in stored.results.metrics} & {"pointing"}
        if str(settings["data"]).startswith("voc2007") and settings["target"] == "truth"
    ]
    unreadable = [name for _, name, why in stored.problems if why.startswith("unreadable")]
    missing = [f"{name} ({why})" for _, name, why in stored.problems if not why.startswith("unreadable")]
    missing += [f"what process {i} has not measured yet" for i in stored.unfinished]
    return comparison.compare(
        stored.results,
        library.METRICS,
        baseline=baseline,
        per_class=per_class,
        unreadable=unreadable,
        missing=missing,
    )


def draw_gallery(stored: run_folder.Stored, batches: data.Batches, metric: str) -> Any:
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

    return gallery.gallery(results, metric, library.METRICS[metric.partition("@")[0]], load)
