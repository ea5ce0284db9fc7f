"""The work behind `sscam explain`: photographs in; figures, overlays, arrays and a report out."""

import functools
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm import tqdm

from sscam_jax import data, plots
from sscam_jax._support import replacing
from sscam_jax.report.request import SIZE, TITLES, Method, Progress, Settings, check, class_labels, methods_asked
from sscam_jax.types import Apply, Params, Saliency

T = TypeVar("T")


class Explained(NamedTuple):
    """What was found for one image: `report` in terms that JSON has, and its figure's `rows`."""

    report: dict[str, Any]
    rows: list[plots.Row]


class Failed(NamedTuple):
    """An image that can't be read, and why."""

    path: pathlib.Path
    error: str


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


def _timed(method: Method, images: jax.Array, label: int) -> _Timed:
    began = time.perf_counter()
    saliency = jax.device_get(method.run(images, jnp.array([label], jnp.int32)))
    return _Timed(saliency, time.perf_counter() - began)


def _write(
    photo: Image.Image,
    path: pathlib.Path,
    stem: pathlib.Path,
    logits: np.ndarray,
    results: Mapping[int, Mapping[str, _Timed]],
    methods: Mapping[str, Method],
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
    asked = class_labels(settings)
    # disable=None: no bar where stderr is not a terminal.
    with tqdm(unit="pass", disable=None, leave=False, smoothing=0.05) as bar:
        progress = Progress(bar)
        methods = methods_asked(settings, apply, params, progress)
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
