"""What is asked for, checked before any work: methods with their settings and their passes, classes, the folder."""

import dataclasses
import functools
import inspect
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sscam_jax import data
from sscam_jax.cams import registry
from sscam_jax.report._progress import Progress
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Apply, Params, Saliency

METHODS = ("grad-cam", "score-cam", "ss-cam")
"""The methods where none is named."""

AUTO_BUDGET = 256
"""Scoring passes per map with budget "auto"."""

FRAMES = 16
"""The frames of an animation or video that are explained."""

# Shorter runs are not told of every chunk: JAX keeps no compilation on disk that calls back.
_LONG = 1000


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be explained and how; checked when it is made.

    Attributes:
        methods: texts for `registry.parse`, such as "ss-cam:paper,sigma=1".
        classes: names or indices; none: the most probable class of each image.
        num_classes: the classes that the network knows.
        class_names: their names; None: ImageNet's for 1000 classes, else numbers.
        budget: scoring passes per map, of the methods that have a budget; "auto": a few hundred; None: all.
        seed: of all noise. An image's noise does not depend on the images explained with it.
        frames: the largest number of frames of an animation or video, evenly spaced; 1: the first.
        size: the side in pixels of what the network sees.
        mean: of the normalisation, see `preprocess`.
        std: of the normalisation, see `preprocess`.
        chunk_size: network inputs scored at once; None: the methods' default.
        faithfulness: whether Average Drop, insertion and deletion are measured too.
    """

    methods: Sequence[str] = METHODS
    classes: Sequence[str | int] = ()
    num_classes: int = 1000
    class_names: Sequence[str] | None = None
    budget: int | Literal["auto"] | None = "auto"
    seed: int = 0
    frames: int = FRAMES
    size: int = 224
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    chunk_size: int | None = None
    faithfulness: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not possible."""
        if isinstance(self.methods, str) or not self.methods:
            raise ValueError(f"methods is {self.methods!r}, expected a sequence of at least one, as ['grad-cam']")
        budgets = ["budget" in registry.parse(method)[1] for method in self.methods]
        if self.budget not in ("auto", None):
            if not isinstance(self.budget, int) or self.budget < 1:
                raise ValueError(f"budget is {self.budget!r}, expected at least 1, 'auto' or None")
            if not any(budgets):
                raise ValueError(f"budget={self.budget} has no use: none of {', '.join(self.methods)} takes one")
        if self.frames < 1:
            raise ValueError(f"frames is {self.frames}, expected at least 1")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names has {len(self.class_names)} names, the network {self.num_classes} classes")
        self.labels()

    def labels(self) -> list[int]:
        """The classes asked for, as indices, each once."""
        return list(dict.fromkeys(map(self.label, self.classes)))

    def label(self, given: str | int) -> int:
        """The index of a class given by name or index."""
        if self.class_names is not None and given in self.class_names:
            return list(self.class_names).index(given)  # type: ignore[arg-type]
        if self.class_names is None and self.num_classes == 1000:
            return data.class_index(given)
        if not str(given).isdecimal() or int(given) >= self.num_classes:
            named = "whose names are not known" if self.class_names is None else "nor a name of them"
            raise ValueError(
                f"class '{given}' is not an index of the network's {self.num_classes} classes, {named}; choose from 0 "
                f"to {self.num_classes - 1}"
            )
        return int(given)

    def name(self, label: int) -> str:
        """What a class is called."""
        if self.class_names is not None:
            return self.class_names[label]
        return data.class_name(label) if self.num_classes == 1000 else f"class {label}"


class Planned(NamedTuple):
    """A method, ready to run.

    Attributes:
        run: `(images [b, size, size, 3], labels [b]) -> Saliency`. All images have the same noise.
        choices: everything that shapes its maps, by name.
        passes: the passes that a map takes at most; None where the method does not say.
    """

    run: Callable[..., Saliency]
    choices: dict[str, Any]
    passes: int | None

    def full(self, live: int) -> int:
        """The passes of a map of so many live channels without a budget; 0 for a method that takes none."""
        if "budget" not in self.choices:
            return 0
        scored = self.choices.get("n_samples", 1) + self.choices.get("second_pass", False)
        return live * scored + 1 + (self.choices["baseline"] != "none")


def takes(method: Callable[..., Any], name: str) -> bool:
    """Whether a method has an argument of this name."""
    return name in inspect.signature(method).parameters


def bound(text: str, request: Request, **options: Any) -> tuple[registry.Method, dict[str, Any]]:
    """A method with everything bound that a request says of it, and its choices."""
    method, choices = registry.parse(text)
    given: dict[str, Any] = {name: value for name, value in options.items() if takes(method, name)}
    if "budget" in choices and "budget=" not in text:
        given["budget"] = choices["budget"] = AUTO_BUDGET if request.budget == "auto" else request.budget
    if takes(method, "key"):
        # One key for all images: noise depends on the seed and the image's id, not on the order of the images.
        given["key"] = jax.random.key(request.seed)
    return functools.partial(method, **given), choices


def _same_noise(method: registry.Method, apply: Apply, params: Params, images: Array, labels: Array) -> Saliency:
    """Frames of a film have the same noise, or their maps would flicker; so have images apart."""
    ids = dict(ids=jnp.zeros(len(images), jnp.int32)) if takes(method, "ids") else {}
    return method(apply, params, images, labels, **ids)


def plan(request: Request, apply: Apply, params: Params, progress: Progress | None) -> dict[str, Planned]:
    """The methods asked for, by their texts. Each is traced once: what does not fit is refused before any work.

    Args:
        request: what is asked for.
        apply: the network.
        params: its parameters.
        progress: told of the chunks of long runs; None: of nothing.

    Returns:
        The methods.

    Raises:
        ValueError: a setting is not possible with this network.
    """
    # Shapes without values: tracing computes nothing, and finds what a run would find after minutes.
    images = jax.ShapeDtypeStruct((1, request.size, request.size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((1,), jnp.int32)
    devices = jax.local_devices() if jax.local_device_count() > 1 else None
    planned = {}
    for text in dict.fromkeys(request.methods):
        # As it will run, so that JAX finds this trace again.
        options: dict[str, Any] = dict(chunk_size=request.chunk_size, devices=devices)
        method, choices = bound(text, request, **options)
        shapes = jax.eval_shape(functools.partial(_same_noise, method, apply), params, images, labels)
        if shapes.logits.shape[-1] != request.num_classes:
            raise ValueError(f"the network has {shapes.logits.shape[-1]} logits, expected {request.num_classes}")
        passes = None
        if "budget" in choices:
            whole = shapes.weights.shape[-1] * choices.get("n_samples", 1)
            passes = min(whole, choices["budget"] or whole)
        # `progress` is a static argument: one that is given compiles a program of its own.
        shown = progress if passes is not None and passes > _LONG else None
        method, _ = bound(text, request, progress=shown, **options)
        planned[text] = Planned(functools.partial(_same_noise, method, apply, params), choices, passes)
    return planned


def check_folder(out: pathlib.Path, *, keep: bool) -> None:
    """Find out whether a folder can be written, by making it; without `keep` what was made is removed again.

    Raises:
        ValueError: it can't be written.
    """
    # Before any work: an hour of maps is lost where the folder can't be written.
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise ValueError(f"output folder '{out}' can't be written: {error.strerror}") from error
    finally:
        if not keep:
            for folder in filter(pathlib.Path.exists, missing):
                folder.rmdir()
