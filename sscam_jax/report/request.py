"""What `sscam explain` is asked for: the settings, checked; the methods that they name; what they will cost."""

import dataclasses
import functools
import inspect
import math
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from tqdm import tqdm

from sscam_jax import cams, data
from sscam_jax.types import Apply, Params, Saliency

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
_DEFAULTS = {
    name: inspect.signature(method).parameters["preset"].default
    for name, method in (("score-cam", cams.score_cam), ("ss-cam", cams.ss_cam))
}


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
        noise: of SS-CAM, "independent" or "common".
        precision: of the scoring passes, "float32" or "bfloat16".
        budget: scoring passes that a map may take; None: all.
        seed: of SS-CAM's noise. An image's noise does not depend on the images explained with it.
        chunk_size: network inputs scored at once; None: the methods' default.
        arrays: whether maps, raw maps and weights are saved too.
    """

    methods: Sequence[str] = ("grad-cam", "grad-cam++", "score-cam", "ss-cam")
    classes: Sequence[str] = ()
    num_classes: int = 1000
    preset: str | None = None
    samples: int | None = None
    sigma: float | None = None
    noise: str = "independent"
    precision: str = "float32"
    budget: int | None = None
    seed: int = 0
    chunk_size: int | None = None
    arrays: bool = False


class Method(NamedTuple):
    """A method with all its settings, its preset (None: it has none) and its forward passes."""

    run: Callable[[jax.Array, jax.Array], Saliency]
    preset: str | None
    passes: int


class Progress:
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


def class_labels(settings: Settings) -> list[int]:
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
    class_labels(settings)
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


def methods_asked(settings: Settings, apply: Apply, params: Params, progress: Progress) -> dict[str, Method]:
    """The methods asked for, by name."""
    images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    channels = jax.eval_shape(apply.features, params, images)[0].shape[-1]

    def method(name: str) -> Method:
        if name in _GRADIENT:
            return Method(functools.partial(_GRADIENT[name], apply, params), None, 1)
        presets = _PRESETS[name]
        asked = settings.preset
        preset = asked if asked is not None and asked in presets else _DEFAULTS[name]
        # Without a bar there is nothing to call: a second run in the same process then compiles nothing.
        shown = None if progress.bar.disable else progress
        devices = jax.local_devices() if jax.local_device_count() > 1 else None
        options: dict[str, Any] = dict(preset=preset, progress=shown, devices=devices) | {
            name: getattr(settings, name) for name in ("precision", "budget", "chunk_size")
        }
        limit = settings.budget or math.inf
        if name == "score-cam":
            run = functools.partial(cams.score_cam, apply, params, **options)
            return Method(run, preset, round(min(limit, channels)))
        samples = presets[preset]["n_samples"] if settings.samples is None else settings.samples
        sigma = presets[preset]["sigma"] if settings.sigma is None else settings.sigma
        noise: dict[str, Any] = dict(
            key=jax.random.key(settings.seed),
            ids=jnp.zeros(1, jnp.int32),
            n_samples=samples,
            sigma=sigma,
            noise=settings.noise,
        )
        run = functools.partial(cams.ss_cam, apply, params, **options, **noise)
        return Method(run, preset, round(min(limit, channels * samples)))

    return {name: method(name) for name in dict.fromkeys(settings.methods)}


class Estimate(NamedTuple):
    """What a method will cost for all images and classes: forward passes, seconds, and bytes at once."""

    method: str
    passes: int
    seconds: float
    bytes: int | None


def estimate(apply: Apply, params: Params, paths: Sequence[pathlib.Path], settings: Settings) -> Iterator[Estimate]:
    """What `explain` will cost, from one chunk of passes over the first image, which is timed.

    Args:
        apply: the network.
        params: its parameters.
        paths: image files.
        settings: what is to be done.

    Yields:
        An estimate a method; compilation, figures and files come on top.

    Raises:
        ValueError: a method, preset or class is not known, or the first image can't be read.
    """
    images = data.preprocess(paths[0], size=SIZE)
    maps = len(paths) * max(1, len(class_labels(settings)))
    with tqdm(disable=True) as bar:
        for name, method in methods_asked(settings, apply, params, Progress(bar)).items():
            if method.preset is None:
                one = cams.cost(apply, params, images, chunk_size=1)
                passes = maps  # a gradient costs about two passes more
                yield Estimate(name, passes, 3 * passes * one.seconds / one.passes, one.bytes)
                continue
            samples = 1 if name == "score-cam" else method.run.keywords["n_samples"]  # type: ignore[attr-defined]
            run: dict[str, Any] = {option: method.run.keywords[option] for option in ("chunk_size", "devices")}  # type: ignore[attr-defined]
            one = cams.cost(apply, params, images, n_samples=samples, **run)
            passes = min(one.passes, settings.budget or one.passes)
            yield Estimate(name, maps * passes, maps * passes * one.seconds / one.passes, one.bytes)
