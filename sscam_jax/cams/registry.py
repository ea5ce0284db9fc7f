"""Methods by one line of text, as a command line gives them: `ss-cam:paper,sigma=1,n_samples=4`."""

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from sscam_jax import cams
from sscam_jax.types import Saliency

Method = Callable[..., Saliency]
"""`(apply, params, images, labels) -> Saliency`, with the keyword `key` exactly where it draws random numbers."""

CONTROLS: Mapping[str, Method] = MappingProxyType(
    {
        "uniform": cams.uniform_map,
        "gaussian": cams.gaussian_map,
        "random": cams.random_map,
        "mean-activation": cams.mean_activation,
        "fake-cam": cams.fake_cam,
    }
)
"""Maps that explain nothing, or hardly anything, for every table."""

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "cam": cams.cam,
        "grad-cam": cams.grad_cam,
        "grad-cam++": cams.grad_cam_pp,
        "xgrad-cam": cams.xgrad_cam,
        "hires-cam": cams.hires_cam,
        "layer-cam": cams.layer_cam,
        "smooth-grad-cam++": cams.smooth_grad_cam_pp,
        "finer-cam": cams.finer_cam,
        "shapley-cam": cams.shapley_cam,
        "eigen-cam": cams.eigen_cam,
        "eigen-grad-cam": cams.eigen_grad_cam,
        "ablation-cam": cams.ablation_cam,
        "recipro-cam": cams.recipro_cam,
        "group-cam": cams.group_cam,
        "score-cam": cams.score_cam,
        "ss-cam": cams.ss_cam,
        "is-cam": cams.is_cam,
        "rise": cams.rise,
        "occlusion": cams.occlusion,
        **CONTROLS,
    }
)
"""Every method by its name on the command line."""

_PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "score-cam": cams.SCORE_CAM_PRESETS,
    "ss-cam": cams.SS_CAM_PRESETS,
    "is-cam": cams.IS_CAM_PRESETS,
}
# Who runs a method gives these: they are no choice of what is computed.
_NOT_OPTIONS = ("apply", "params", "images", "labels", "key", "ids", "devices", "progress", "chunk_size", "preset")

# Numbers that need not be whole: `sigma=1` is σ = 1.0.
_REAL = ("sigma",)


def _value(text: str) -> Any:
    if text == "none":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def parse(spec: str) -> tuple[Method, dict[str, Any]]:
    """A method with its settings, by one line of text.

    Args:
        spec: `name`, `name:preset` (for methods that have presets), `name:option=value,…` or
            `name:preset,option=value,…`; an option is a keyword of the method, a value true, false,
            none, a number or a word.

    Returns:
        The method with its settings bound, and all of its choices by name, those of the preset included: what
        determines the result.

    Raises:
        ValueError: an unknown method, preset or option.

    Example:
        >>> method, choices = parse("ss-cam:paper,sigma=1")
        >>> method.keywords, choices["noise_on"], choices["sigma"]
        ({'preset': 'paper', 'sigma': 1.0}, 'masked_input', 1.0)
    """
    name, _, rest = spec.partition(":")
    if name not in METHODS:
        raise ValueError(f"method '{name}' is not known; choose from {', '.join(map(repr, METHODS))}")
    method, presets = METHODS[name], _PRESETS.get(name, {})
    parameters = inspect.signature(method).parameters
    options = [option for option in parameters if option not in _NOT_OPTIONS]
    given: dict[str, Any] = {}
    choices = {option: parameters[option].default for option in options if parameters[option].default is not ...}
    for i, item in enumerate(filter(None, rest.split(","))):
        option, equals, value = item.partition("=")
        if not equals and i == 0 and presets:
            if option not in presets:
                raise ValueError(f"preset '{option}' is not one of {name}; choose from {', '.join(map(repr, presets))}")
            given["preset"] = option
            continue
        if option not in options or not equals:
            can = f"choose from {', '.join(f'{option}=' for option in options)}" if options else "it has none"
            raise ValueError(f"'{item}' is not an option of {name}; {can}")
        given[option] = _value(value)
        if option in _REAL and type(given[option]) is int:
            given[option] = float(given[option])
    if presets:
        preset = given.get("preset", parameters["preset"].default)
        choices |= dict(presets[preset])
    choices |= given
    return functools.partial(method, **given) if given else method, choices


def draws(method: Method) -> bool:
    """Whether a method draws random numbers: it takes a key.

    Example:
        >>> draws(METHODS["ss-cam"]), draws(METHODS["score-cam"])
        (True, False)
    """
    return "key" in inspect.signature(method).parameters
