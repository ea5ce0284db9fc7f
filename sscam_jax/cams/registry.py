"""The registry of methods, and methods by one line of text: `ss-cam:paper,sigma=1,n_samples=4`.

The command line, `evaluate`, `explain`, the tables and the tests take every method from here.
"""

import contextlib
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from sscam_jax import cams
from sscam_jax._support import choose
from sscam_jax.types import Saliency

Method = Callable[..., Saliency]
"""`(apply, params, images, labels) -> Saliency`, with the keyword `key` exactly where it draws random numbers."""


class Entry(NamedTuple):
    """One method of the registry.

    Attributes:
        title: its name in figures and tables.
        method: the function.
        presets: its presets by name; empty where it has none.
    """

    title: str
    method: Method
    presets: Mapping[str, Any] = MappingProxyType({})


ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {
        "cam": Entry("CAM", cams.cam),
        "grad-cam": Entry("Grad-CAM", cams.grad_cam),
        "grad-cam++": Entry("Grad-CAM++", cams.grad_cam_pp),
        "xgrad-cam": Entry("XGrad-CAM", cams.xgrad_cam),
        "hires-cam": Entry("HiResCAM", cams.hires_cam),
        "layer-cam": Entry("LayerCAM", cams.layer_cam),
        "smooth-grad-cam++": Entry("Smooth Grad-CAM++", cams.smooth_grad_cam_pp),
        "finer-cam": Entry("Finer-CAM", cams.finer_cam),
        "shapley-cam": Entry("ShapleyCAM", cams.shapley_cam),
        "eigen-cam": Entry("Eigen-CAM", cams.eigen_cam),
        "eigen-grad-cam": Entry("Eigen-Grad-CAM", cams.eigen_grad_cam),
        "ablation-cam": Entry("Ablation-CAM", cams.ablation_cam),
        "recipro-cam": Entry("Recipro-CAM", cams.recipro_cam),
        "group-cam": Entry("Group-CAM", cams.group_cam),
        "score-cam": Entry("Score-CAM", cams.score_cam, cams.SCORE_CAM_PRESETS),
        "ss-cam": Entry("SS-CAM", cams.ss_cam, cams.SS_CAM_PRESETS),
        "is-cam": Entry("IS-CAM", cams.is_cam, cams.IS_CAM_PRESETS),
        "rise": Entry("RISE", cams.rise),
        "occlusion": Entry("Occlusion", cams.occlusion),
        "uniform": Entry("Uniform", cams.uniform_map),
        "gaussian": Entry("Gaussian", cams.gaussian_map),
        "random": Entry("Random", cams.random_map),
        "mean-activation": Entry("Mean activation", cams.mean_activation),
        "fake-cam": Entry("FakeCAM", cams.fake_cam),
    }
)
"""Every method by its name on the command line; the controls come last."""

METHODS: Mapping[str, Method] = MappingProxyType({name: entry.method for name, entry in ENTRIES.items()})
"""Every method's function by its name."""

CONTROLS: Mapping[str, Method] = MappingProxyType(
    {name: METHODS[name] for name in ("uniform", "gaussian", "random", "mean-activation", "fake-cam")}
)
"""The controls, whose maps explain nothing or nearly nothing; every table has them."""

# Arguments that the caller of a method gives for each call. They are not settings of the method: no line of text has
# them. `preset` has a syntax of its own.
_NOT_OPTIONS = ("apply", "params", "images", "labels", "key", "ids", "devices", "progress", "chunk_size", "preset")


def _annotations(method: Method) -> dict[str, Any]:
    """The type of each option: of plain arguments, and of the fields of `**changes: Unpack[SomeTypedDict]`."""
    hints = typing.get_type_hints(method)
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            [fields] = typing.get_args(hints[name])
            found |= typing.get_type_hints(fields)
        elif name not in _NOT_OPTIONS:
            found[name] = hints[name]
    return found


def default_preset(method: Method) -> str:
    """The default preset of a method that has presets.

    Example:
        >>> default_preset(METHODS["ss-cam"])
        'light'
    """
    return inspect.signature(method).parameters["preset"].default


def options(name: str, *, preset: str | None = None) -> dict[str, Any]:
    """The options of a method, with their default values.

    Args:
        name: the method, a key of `ENTRIES`.
        preset: the preset whose values are returned; None: the method's default preset, if it has presets.

    Returns:
        The value of every option by its name.

    Raises:
        ValueError: an unknown method or preset.

    Example:
        >>> options("finer-cam")
        {'n_references': 3, 'gamma': 0.6}
        >>> options("ss-cam", preset="paper")["sigma"]
        4.0
    """
    choose("method", name, ENTRIES)
    entry = ENTRIES[name]
    parameters, row = inspect.signature(entry.method).parameters, {}
    if entry.presets:
        preset = default_preset(entry.method) if preset is None else preset
        choose(f"preset of {name}", preset, entry.presets)
        chosen = entry.presets[preset]
        # A preset is a mapping or a dataclass. `Choices` serves three methods, so it has fields that this one lacks.
        row = dict(chosen) if isinstance(chosen, Mapping) else dict(vars(chosen))
    elif preset is not None:
        raise ValueError(f"preset {preset!r} is not known: {name} has no presets")
    return {
        option: row[option] if option in row else parameters[option].default for option in _annotations(entry.method)
    }


def _parts(annotation: Any) -> Iterator[Any]:
    """The types and the literal values that an annotation allows."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for each in typing.get_args(annotation):
            yield from _parts(each)
    elif typing.get_origin(annotation) is typing.Literal:
        yield from typing.get_args(annotation)
    else:
        yield annotation


def _value(name: str, option: str, text: str, annotation: Any) -> Any:
    """An option's value from text, of a type that the annotation allows: `=False` must not become a (true) string."""
    allowed = tuple(_parts(annotation))
    words = tuple(part for part in allowed if isinstance(part, str))
    # Words are tried before None, because "none" is a word where it names a baseline.
    if text in words:
        return text
    if bool in allowed and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if types.NoneType in allowed and text.lower() == "none":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            # Not NaN or infinity, which float() reads.
            if kind in allowed and math.isfinite(number := kind(text)):
                return number
    kinds = {bool: "true or false", int: "a whole number", float: "a number", types.NoneType: "none"}
    expected = [said for kind, said in kinds.items() if kind in allowed] + list(map(repr, words))
    raise ValueError(f"{option}={text} is not possible for {name}; choose {', '.join(expected)}")


def parse(text: str) -> tuple[Method, dict[str, Any]]:
    """Read a method with its settings from one line of text.

    Args:
        text: `name`, `name:preset` (for methods that have presets), `name:option=value,…` or
            `name:preset,option=value,…`. An option is a keyword of the method. A value is true, false, none, a
            number or a word, as the option's type allows.

    Returns:
        The method with its settings bound, and the values of all its options by name, including those of the preset.
        These values determine the result.

    Raises:
        ValueError: an unknown method, preset or option, an option given twice, or a value of another type.

    Example:
        >>> method, choices = parse("ss-cam:paper,sigma=1")
        >>> method.keywords, choices["noise_on"], choices["sigma"]
        ({'preset': 'paper', 'sigma': 1.0}, 'masked_input', 1.0)
    """
    name, _, rest = text.partition(":")
    choose("method", name, ENTRIES)
    method, presets = ENTRIES[name].method, ENTRIES[name].presets
    annotations = _annotations(method)
    given: dict[str, Any] = {}
    # Empty items are skipped, so that "ss-cam:" and a comma at the end are no errors.
    for i, item in enumerate(filter(None, rest.split(","))):
        option, equals, value = item.partition("=")
        if not equals and i == 0 and presets:
            choose(f"preset of {name}", option, presets)
            given["preset"] = option
            continue
        if option not in annotations or not equals:
            can = f"choose from {', '.join(f'{option}=' for option in annotations)}" if annotations else "it has none"
            raise ValueError(f"'{item}' is not an option of {name}; {can}")
        if option in given:
            raise ValueError(f"option '{option}' of {name} is given twice in '{text}'")
        given[option] = _value(name, option, value, annotations[option])
    choices = options(name, preset=given.get("preset")) | {k: v for k, v in given.items() if k != "preset"}
    return functools.partial(method, **given) if given else method, choices


def title(text: str) -> str:
    """The name in figures and tables of a method that is given by text.

    Args:
        text: the method, as `parse` reads it.

    Returns:
        Its title; preset and options follow in brackets.

    Example:
        >>> title("grad-cam++"), title("ss-cam:paper,sigma=1")
        ('Grad-CAM++', 'SS-CAM (paper, sigma=1)')
    """
    name, _, rest = text.partition(":")
    return f"{ENTRIES[name].title} ({rest.replace(',', ', ')})" if rest else ENTRIES[name].title


def draws(method: Method) -> bool:
    """Whether a method draws random numbers: it takes a key.

    Example:
        >>> draws(METHODS["ss-cam"]), draws(METHODS["score-cam"])
        (True, False)
    """
    return "key" in inspect.signature(method).parameters
