"""The choices that Score-CAM, SS-CAM and IS-CAM leave open, and the presets that name sets of them."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

from jaxtyping import Array

Score = Literal["probability", "logit", "log_probability", "sigmoid"] | Callable[[Array, Array], Array]
Baseline = Literal["none", "zeros", "blur", "image"] | Array
NoiseOn = Literal["masked_input", "mask", "activation"]
SigmaMode = Literal["inverse_range_squared", "std", "variance", "relative"]
Reduce = Literal["max", "mean"]
Normalize = Literal["after_resize", "before_resize"]
Noise = Literal["independent", "common"]
Path = Literal["straight", "running_sum"]
Precision = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Choices:
    """Every choice that shapes the computation of Score-CAM, SS-CAM and IS-CAM; hashable, static under `jax.jit`.

    Its field names are arguments of `score_cam`, `ss_cam` and `is_cam`, which say what they mean.
    """

    score: Score = "probability"
    baseline: str = "none"
    channel_softmax: bool = False
    normalize: str = "after_resize"
    n_samples: int = 1
    noise_on: str | None = None
    sigma_mode: str = "std"
    reduce: str = "mean"
    prior: str | None = None
    prior_in_sum: bool = False
    second_pass: bool = False
    noise: str = "independent"
    path: str | None = None
    precision: str = "float32"
    budget: int | None = None


def _presets(rows: dict[str, dict[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    return MappingProxyType({name: MappingProxyType(row) for name, row in rows.items()})


SCORE_CAM_PRESETS = _presets(
    {
        "paper": dict(score="probability", baseline="zeros", channel_softmax=False, normalize="after_resize"),
        "original": dict(score="probability", baseline="zeros", channel_softmax=True, normalize="after_resize"),
        "torchcam": dict(score="logit", baseline="image", channel_softmax=True, normalize="before_resize"),
        "pytorch_grad_cam": dict(score="logit", baseline="none", channel_softmax=True, normalize="after_resize"),
    }
)
"""Score-CAM's presets: `paper` is Eq. 5-8 of SS-CAM's paper, the last two are libraries'.

`original` adds the softmax over the channels of Wang et al.'s Algorithm 1, here of probabilities; their released code
takes probabilities too, but without that softmax and without a baseline.
"""

_PAPER: dict[str, Any] = dict(
    n_samples=10,
    sigma=4.0,
    noise_on="masked_input",
    sigma_mode="inverse_range_squared",
    reduce="max",
    score="probability",
    baseline="none",
    channel_softmax=False,
    prior=None,
    prior_in_sum=False,
    second_pass=False,
    normalize="after_resize",
)

SS_CAM_PRESETS = _presets(
    {
        "light": _PAPER | dict(sigma=0.5),
        "paper": _PAPER,
        "paper_mean": _PAPER | dict(noise_on="mask", reduce="mean"),
        "algorithm1": _PAPER | dict(prior="grad_cam", baseline="zeros", channel_softmax=True, second_pass=True),
        "authors": _PAPER | dict(prior="grad_cam", prior_in_sum=True),
        "authors_released": _PAPER | dict(noise_on="activation", sigma=2.0, n_samples=35, reduce="mean"),
        "torchcam": _PAPER
        | dict(
            noise_on="mask",
            sigma=2.0,
            sigma_mode="std",
            n_samples=35,
            reduce="mean",
            score="logit",
            baseline="image",
            channel_softmax=True,
            normalize="before_resize",
        ),
    }
)
"""SS-CAM's presets: `light` is `paper` with less noise, as measurements prefer it (docs/results.md); every other row is
a reading of the paper or what published code does; see `ss_cam`.
"""

IS_CAM_PRESETS = _presets(
    {
        "straight": dict(SCORE_CAM_PRESETS["paper"], n_samples=10, path="straight"),
        "torchcam": dict(SCORE_CAM_PRESETS["torchcam"], n_samples=10, path="running_sum"),
    }
)
"""IS-CAM's presets: `straight` integrates the score along a straight path, `torchcam` is torchcam's ISCAM."""

ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "score": get_args(get_args(Score)[0]),
    "baseline": get_args(get_args(Baseline)[0]),
    "noise_on": get_args(NoiseOn),
    "sigma_mode": get_args(SigmaMode),
    "reduce": get_args(Reduce),
    "normalize": get_args(Normalize),
    "noise": get_args(Noise),
    "path": (*get_args(Path), None),
    "precision": get_args(Precision),
    "prior": (None, "grad_cam"),
}
"""What the arguments of a few values accept."""


def resolve(
    method: str, presets: Mapping[str, Mapping[str, Any]], preset: str, given: dict[str, Any]
) -> dict[str, Any]:
    """The preset's choices, but for those given: `...` stands for the preset's.

    Raises:
        ValueError: an unknown preset or value.
    """
    if preset not in presets:
        raise ValueError(f"preset {preset!r} is not one of {method}; choose from {', '.join(map(repr, presets))}")
    values = dict(presets[preset]) | {name: value for name, value in given.items() if value is not ...}
    for name, allowed in ALLOWED.items():
        value = values.get(name, allowed[0])
        open_to_callers = (name == "score" and callable(value)) or (name == "baseline" and not isinstance(value, str))
        if not open_to_callers and value not in allowed:
            raise ValueError(f"{name}={value!r} is not a choice; choose from {', '.join(map(repr, allowed))}")
    for name in ("n_samples", "budget"):
        if (value := values.get(name)) is not None and value < 1:
            raise ValueError(f"{name}={value} is too small, expected at least 1")
    return values
