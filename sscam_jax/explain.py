"""The work behind `sscam explain`: photographs in; figures, overlays, arrays and a report out."""

import dataclasses
import functools
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from sscam_jax import cams, data, plots
from sscam_jax.convert.files import replacing
from sscam_jax.types import Apply, Params, Saliency

T = TypeVar("T")

SIZE = 224
"""The side in pixels of what the networks see."""

TITLES = {
    "cam": "CAM",
    "grad-cam": "Grad-CAM",
    "grad-cam++": "Grad-CAM++",
    "score-cam": "Score-CAM",
    "ss-cam": "SS-CAM",
}
"""The methods by the names that the command line gives them, and their columns' titles."""

_GRADIENT = {"cam": cams.cam, "grad-cam": cams.grad_cam, "grad-cam++": cams.grad_cam_pp}
_PRESETS = {"score-cam": cams.SCORE_CAM_PRESETS, "ss-cam": cams.SS_CAM_PRESETS}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `sscam explain` was asked for.

    Attributes:
        methods: names, keys of `TITLES`.
        classes: names or indices of classes; none means each image's most probable one.
        num_classes: the classes that the network knows; with 1000 they are ImageNet's.
        preset: of Score-CAM and SS-CAM, for those of the two that have one of this name; None: the default.
        samples: N of SS-CAM; None: the preset's.
        sigma: σ of SS-CAM; None: the preset's.
        seed: of SS-CAM's noise. An image's noise does not depend on the images explained with it.
        chunk_size: network inputs held at once; None: the methods' default.
        arrays: whether maps, raw maps and weights are saved too.
    """

    methods: Sequence[str] = ("grad-cam", "grad-cam++", "score-cam", "ss-cam")
    classes: Sequence[str] = ()
    num_classes: int = 1000
    preset: str | None = None
    samples: int | None = None
    sigma: float | None = None
    seed: int = 0
    chunk_size: int | None = None
    arrays: bool = False


class Explained(NamedTuple):
    """What was found for one image: `report` in terms that JSON has, and its figure's `rows`."""

    report: dict[str, Any]
    rows: list[plots.Row]


class Failed(NamedTuple):
    """An image that can't be read, and why."""

    path: pathlib.Path
    error: str


class _Method(NamedTuple):
    """A method with all its settings, its preset (None: it has none) and its forward passes."""

    run: Callable[[jax.Array, jax.Array], Saliency]
    preset: str | None
    passes: int


class _Progress:
    """Progress through the forward passes of the whole run.

    The methods take it as a static argument, hashed by identity: one object serves all calls, or each would
    compile anew.
    """

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.start = self.passes = 0

    def begin(self, passes: int, what: str) -> None:
        self.start, self.passes = self.bar.n, passes
        self.bar.set_description(what)

    def __call__(self, done: Any, total: Any) -> None:
        self.bar.update(max(0, self.start + round(self.passes * int(done) / int(total)) - self.bar.n))


def _labels(settings: Settings) -> list[int]:
    """The classes asked for, as indices."""
    if settings.num_classes == 1000:
        return list(dict.fromkeys(map(data.class_index, settings.classes)))
    for text in settings.classes:
        if not text.isdecimal() or int(text) >= settings.num_classes:
            raise ValueError(
                f"class '{text}' is not an index of the network's {settings.num_classes} classes, whose names are "
                f"not known; choose from 0 to {settings.num_classes - 1}"
            )
    return list(dict.fromkeys(map(int, settings.classes)))


def check(settings: Settings, out: pathlib.Path) -> None:
    """Find out what is wrong with the settings and the output folder before any work; the folder is made.

    Raises:
        ValueError: a method, preset or class is not known, a setting has no use, or the folder can't be written.
    """
    _labels(settings)
    names = settings.methods
    for name in names:
        if name not in TITLES:
            raise ValueError(f"method '{name}' is not known; choose from {', '.join(map(repr, TITLES))}")
    if "ss-cam" not in names and (settings.samples is not None or settings.sigma is not None):
        raise ValueError(f"samples and sigma are ss-cam's, which is not among the methods: {', '.join(names)}")
    if settings.preset is not None and not any(settings.preset in _PRESETS.get(name, ()) for name in names):
        choices = "; ".join(f"{name} has {', '.join(map(repr, rows))}" for name, rows in _PRESETS.items())
        raise ValueError(f"preset '{settings.preset}' is not one of {', '.join(names)}: {choices}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise ValueError(f"output folder '{out}' can't be written: {error.strerror}") from error


def _methods(settings: Settings, apply: Apply, params: Params, progress: _Progress) -> dict[str, _Method]:
    """The methods asked for, by name."""
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    channels = jax.eval_shape(apply.features, params, images)[0].shape[-1]

    def method(name: str) -> _Method:
        if name in _GRADIENT:
            return _Method(functools.partial(_GRADIENT[name], apply, params), None, 1)
        presets = _PRESETS[name]
        preset = settings.preset if settings.preset is not None and settings.preset in presets else "paper"
        # Without a bar there is nothing to call: a second run in the same process then compiles nothing.
        shown = None if progress.bar.disable else progress
        options: dict[str, Any] = dict(preset=preset, chunk_size=settings.chunk_size, progress=shown)
        if name == "score-cam":
            return _Method(functools.partial(cams.score_cam, apply, params, **options), preset, channels)
        samples = presets[preset]["n_samples"] if settings.samples is None else settings.samples
        sigma = presets[preset]["sigma"] if settings.sigma is None else settings.sigma
        noise: dict[str, Any] = dict(
            key=jax.random.key(settings.seed), ids=jnp.zeros(1, jnp.int32), n_samples=samples, sigma=sigma
        )
        return _Method(functools.partial(cams.ss_cam, apply, params, **options, **noise), preset, channels * samples)

    return {name: method(name) for name in dict.fromkeys(settings.methods)}


def _stems(paths: Sequence[pathlib.Path]) -> list[str]:
    """What each image's files begin with: its name without the ending, numbered where that is taken."""
    stems: list[str] = []
    for path in paths:
        number, stem = 1, path.stem
        while stem in stems:
            number += 1
            stem = f"{path.stem}-{number}"
        stems.append(stem)
    return stems


def _interruptible(work: Callable[[], T]) -> T:
    """Do work in a thread, so that Ctrl-C ends the waiting at once although XLA goes on."""
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(work)
        while wait([future], timeout=0.1).not_done:
            pass
        return future.result()
    finally:
        pool.shutdown(wait=False)


@functools.partial(jax.jit, static_argnums=0)
def _logits(apply: Apply, params: Params, images: jax.Array) -> jax.Array:
    return apply(params, images).astype(jnp.float32)


class _Timed(NamedTuple):
    saliency: Saliency
    seconds: float


def _timed(method: _Method, images: jax.Array, label: int) -> _Timed:
    began = time.perf_counter()
    saliency = jax.device_get(method.run(images, jnp.array([label], jnp.int32)))
    return _Timed(saliency, time.perf_counter() - began)


def _write(
    photo: Image.Image,
    path: pathlib.Path,
    stem: pathlib.Path,
    logits: np.ndarray,
    results: Mapping[int, Mapping[str, _Timed]],
    methods: Mapping[str, _Method],
    arrays: bool,
) -> Explained:
    """Write the files of one image; `results` go by class and method."""
    shifted = np.exp(logits - logits.max())
    probabilities = shifted / shifted.sum()
    rows, classes = [], []
    for label, by_method in results.items():
        name = data.class_name(label) if len(logits) == 1000 else f"class {label}"
        percent = f"{100 * probabilities[label]:.1f} %"
        rows.append(
            plots.Row(photo, f"{name}\n{percent}", {TITLES[k]: t.saliency.maps[0] for k, t in by_method.items()})
        )
        reports = {}
        for key, (saliency, seconds) in by_method.items():
            file = stem.with_name(f"{stem.name}_{label}-{re.sub(r'[^a-z0-9]+', '-', name.lower())}_{key}.png")
            plots.save(plots.overlay(photo, saliency.maps[0]), file)
            reports[key] = dict(
                preset=methods[key].preset, seconds=round(seconds, 3), flat=bool(saliency.flat[0]), overlay=str(file)
            )
        classes.append(dict(index=label, name=name, probability=float(probabilities[label]), methods=reports))
    figure = stem.with_name(f"{stem.name}_figure.png")
    plots.save(plots.figure(rows), figure)
    report: dict[str, Any] = dict(path=str(path), figure=str(figure), classes=classes)
    if arrays:
        archive = stem.with_name(f"{stem.name}_maps.npz")
        fields: dict[str, Any] = {
            field: [[getattr(timed.saliency, field)[0] for timed in row.values()] for row in results.values()]
            for field in ("maps", "raw", "weights")
        }
        with replacing(archive) as part, part.open("wb") as stream:
            np.savez_compressed(stream, logits=logits, classes=list(results), methods=list(methods), **fields)
        report["maps"] = str(archive)
    return Explained(report, rows)


def explain(
    apply: Apply, params: Params, paths: Sequence[pathlib.Path], out: pathlib.Path, settings: Settings
) -> Iterator[Explained | Failed]:
    """Explain image after image, writing each one's files when it is done.

    For an image `cat.jpg` it writes `cat_figure.png`, an overlay `cat_281-tabby_ss-cam.png` for every class and
    method, and, where arrays are wanted, `cat_maps.npz`: `maps`, `raw` and `weights` with two leading axes,
    classes and methods, whose entries are listed in `classes` and `methods`; and the `logits`. A progress bar on
    stderr, where that is a terminal, counts forward passes.

    Args:
        apply: the network.
        params: its parameters.
        paths: image files.
        out: the folder to write to; it is made where missing.
        settings: what to do.

    Yields:
        What was found for an image, or that it can't be read.

    Raises:
        ValueError: a method, preset or class is not known, the folder can't be written, or the network's answer
            is not finite.
    """
    check(settings, out)
    asked = _labels(settings)
    # disable=None: no bar where stderr is not a terminal.
    with tqdm(unit="pass", disable=None, leave=False, smoothing=0.05) as bar:
        progress = _Progress(bar)
        methods = _methods(settings, apply, params, progress)
        each = max(1, len(asked)) * sum(method.passes for method in methods.values())
        bar.reset(total=each * len(paths))
        for path, stem in zip(paths, _stems(paths), strict=True):
            try:
                photo = data.open_image(path)
            except (ValueError, OSError) as error:
                bar.total -= each
                yield Failed(path, str(error))
                continue
            images = data.preprocess(photo, size=SIZE)
            logits = np.asarray(_interruptible(functools.partial(_logits, apply, params, images)))[0]
            if not np.isfinite(logits).all():
                raise ValueError(f"the network's answer to {path} is not finite: look for NaN in its checkpoint")
            results: dict[int, dict[str, _Timed]] = {}
            for label in asked or [int(logits.argmax())]:
                for key, method in methods.items():
                    progress.begin(method.passes, f"{path.name}, {TITLES[key]}")
                    timed = _interruptible(functools.partial(_timed, method, images, label))
                    progress(1, 1)
                    results.setdefault(label, {})[key] = timed
            yield _write(photo, path, out / stem, logits, results, methods, settings.arrays)
