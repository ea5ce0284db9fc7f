"""The choices that Score-CAM, SS-CAM and IS-CAM leave open, and the presets that name sets of them."""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypedDict, get_args

from jaxtyping import Array, Float

from sscam_jax._support import choose

Score = Literal["probability", "logit", "log_probability", "sigmoid"] | Callable[[Array, Array], Array]
Baseline = Literal["none", "zeros", "blur", "image"] | Array
NoiseOn = Literal["masked_input", "mask", "activation"]
SigmaMode = Literal["inverse_range_squared", "std", "variance", "relative"]
Reduce = Literal["max", "mean"]
Normalize = Literal["after_resize", "before_resize"]
Noise = Literal["independent", "common"]
Path = Literal["straight", "running_sum"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclasses.dataclass(frozen=True)
class Choices:
    """Every choice that shapes Score-CAM, SS-CAM and IS-CAM; a preset is one of these.

    Keyword arguments of the three methods replace single fields of their preset. All fields are static under
    `jax.jit`, except `sigma` and an array as the `baseline`, which are traced: other values compile nothing.

    Attributes:
        score: f^c, the score of the class: "probability" (after the softmax), "logit", "sigmoid" (of the logit, for
            several classes at once), "log_probability" (never positive: without a baseline or `channel_softmax` its map
            is flat), or a function `(logits [n], label []) -> []`. Pass the same function object again to reuse a
            compilation.
        baseline: X_b, whose score is subtracted: "none", "zeros" (the mean colour, for normalised images), "blur",
            "image" (the image itself), or an array [*space, c_in] or [b, *space, c_in].
        channel_softmax: whether α is a softmax over the channels' scores.
        normalize: "after_resize" is s(U(A)), as the paper has it; "before_resize" is U(s(A)).
        n_samples: N, the noisy samples (SS-CAM) or the steps (IS-CAM) of each channel.
        sigma: σ (≥ 0), one number.
        noise_on: what the noise is added to: "masked_input" X ⊙ H_k + ε (one value per pixel and colour), "mask"
            X ⊙ (H_k + ε), "activation" X ⊙ (U(A_k) + ε) without s(·), or None for no noise.
        sigma_mode: how the noise's standard deviation follows from σ and from the range r (maximum − minimum, per
            channel) of what the noise is added to: "inverse_range_squared" (σ/r)², "std" σ, "variance" √σ,
            "relative" σ·r.
        reduce: "max" or "mean" of the N scores.
        prior: "grad_cam" multiplies A_k by Grad-CAM's weight before the mask is made; None does not.
        prior_in_sum: whether that weight also multiplies A_k in the final sum.
        second_pass: whether the score of a channel is f^c(S · H_k ⊙ X), with S the reduced score of its samples.
        noise: "independent" noise per image and channel, or "common": sample i of every channel and image is the same
            noise, scaled by the channel's standard deviation.
        path: IS-CAM's t: "straight" or "running_sum"; None for the other methods.
        precision: the network's precision in the scoring passes; None: that of the images. Masks, noise, scores and
            sums are float32 in any case.
        budget: scoring passes that an image may take; None: all. It is spent in whole rounds: one sample for each
            channel of largest variance; when all channels have one, a second for each. The other channels get weight 0.
    """

    score: Score = "probability"
    baseline: Baseline = "none"
    channel_softmax: bool = False
    normalize: Normalize = "after_resize"
    n_samples: int = 1
    sigma: float | Float[Array, ""] = 0.0
    noise_on: NoiseOn | None = None
    sigma_mode: SigmaMode = "inverse_range_squared"
    reduce: Reduce = "max"
    prior: Literal["grad_cam"] | None = None
    prior_in_sum: bool = False
    second_pass: bool = False
    noise: Noise = "independent"
    path: Path | None = None
    precision: Precision | None = None
    budget: int | None = None


# The choices of each method. All three share `Choices`, but σ given to Score-CAM, which has no noise, must be an error.
class _Changes(TypedDict, total=False):
    score: Score
    baseline: Baseline
    channel_softmax: bool
    normalize: Normalize
    precision: Precision | None


class ScoreCamChanges(_Changes, total=False):
    """The choices of Score-CAM; `Choices` says what they mean."""

    budget: int | None


class IsCamChanges(_Changes, total=False):
    """The choices of IS-CAM; `Choices` says what they mean."""

    n_samples: int
    path: Path


class SsCamChanges(ScoreCamChanges, total=False):
    """The choices of SS-CAM; `Choices` says what they mean."""

    n_samples: int
    sigma: float | Float[Array, ""]
    noise_on: NoiseOn
    sigma_mode: SigmaMode
    reduce: Reduce
    prior: Literal["grad_cam"] | None
    prior_in_sum: bool
    second_pass: bool
    noise: Noise


Presets = Mapping[str, Choices]

SCORE_CAM_PRESETS: Presets = MappingProxyType(
    {
        "paper": Choices(baseline="zeros"),  # Eq. 7 with X_b = 0
        "original": Choices(baseline="zeros", channel_softmax=True),
        # torchcam subtracts the score of the image itself. The softmax over the channels cancels this constant.
        "torchcam": Choices(score="logit", baseline="image", channel_softmax=True, normalize="before_resize"),
        "pytorch_grad_cam": Choices(score="logit", channel_softmax=True),
    }
)
"""Score-CAM's presets. `paper` is Eq. 5-8 of SS-CAM's paper; the last two are what those libraries do.

`original` adds the softmax over the channels of Wang et al.'s Algorithm 1, here over probabilities. Their released code
takes probabilities too, but without that softmax and without a baseline.
"""

# Eq. 13 to 15 with the noise where Algorithm 1 and the notebooks have it. N and σ are the paper's.
_PAPER = Choices(n_samples=10, sigma=4.0, noise_on="masked_input")
_TORCHCAM = SCORE_CAM_PRESETS["torchcam"]

SS_CAM_PRESETS: Presets = MappingProxyType(
    {
        # Ten samples measured the same as one, at ten times the passes.
        "light": dataclasses.replace(_PAPER, sigma=0.5, n_samples=1),
        "paper": _PAPER,
        # Approach 1, Eq. 9 to 11. At σ = 4 the noise hides the mask.
        "paper_mean": dataclasses.replace(_PAPER, noise_on="mask", reduce="mean"),
        # The algorithm as printed, where it differs from the equations.
        "algorithm1": dataclasses.replace(
            _PAPER, prior="grad_cam", baseline="zeros", channel_softmax=True, second_pass=True
        ),
        # The notebooks behind the paper's tables, which have no baseline and no softmax over the channels.
        "authors": dataclasses.replace(_PAPER, prior="grad_cam", prior_in_sum=True),
        # The class SSCAM1 of the module that the authors released later.
        "authors_released": dataclasses.replace(_PAPER, noise_on="activation", sigma=2.0, n_samples=35, reduce="mean"),
        "torchcam": dataclasses.replace(
            _TORCHCAM, noise_on="mask", sigma=2.0, sigma_mode="std", n_samples=35, reduce="mean"
        ),
    }
)
"""SS-CAM's presets. `light` is `paper` with less noise and one sample per channel, because that measured as well or
better (docs/results.md). Every other row is one reading of the paper, or what published code does; see `ss_cam`.
"""

IS_CAM_PRESETS: Presets = MappingProxyType(
    {
        "straight": dataclasses.replace(SCORE_CAM_PRESETS["paper"], n_samples=10, path="straight", reduce="mean"),
        "torchcam": dataclasses.replace(_TORCHCAM, n_samples=10, path="running_sum", reduce="mean"),
    }
)
"""IS-CAM's presets. `straight` integrates the score along a straight path; `torchcam` is torchcam's ISCAM."""

ALLOWED: Mapping[str, tuple[Any, ...]] = {
    "score": get_args(get_args(Score)[0]),
    "baseline": get_args(get_args(Baseline)[0]),
    "noise_on": (*get_args(NoiseOn), None),
    "sigma_mode": get_args(SigmaMode),
    "reduce": get_args(Reduce),
    "normalize": get_args(Normalize),
    "noise": get_args(Noise),
    "path": (*get_args(Path), None),
    "precision": (None, *get_args(Precision)),
    "prior": (None, "grad_cam"),
    "channel_softmax": (False, True),
    "prior_in_sum": (False, True),
    "second_pass": (False, True),
}
"""What the choices of a few values accept."""


def resolve(method: str, presets: Presets, preset: str, changes: Mapping[str, Any], known: type) -> Choices:
    """A preset with some of its choices replaced.

    Args:
        method: the method's name, for messages.
        presets: its presets.
        preset: one of their names.
        changes: the choices to replace.
        known: the TypedDict that names the choices of this method.

    Returns:
        The choices, checked as far as they do not depend on the images.

    Raises:
        ValueError: an unknown preset or value.
        TypeError: a choice that the method does not have.
    """
    choose(f"{method}'s preset", preset, presets)
    # Checked before anything is computed: a wrong word must not cost a forward pass.
    names = known.__annotations__
    if unknown := [name for name in changes if name not in names]:
        # Python's own words, by which a wrapper with **options finds out what a method does not take.
        known_names = ", ".join(map(repr, names))
        raise TypeError(f"{method}() got an unexpected keyword argument {unknown[0]!r}; choose from {known_names}")
    choices = dataclasses.replace(presets[preset], **changes)
    for name, allowed in ALLOWED.items():
        value = getattr(choices, name)
        # A function as the score and an array as the baseline are allowed too. The array's shape needs the images.
        own_score = name == "score" and callable(value)
        own_baseline = name == "baseline" and hasattr(value, "shape")
        if not own_score and not own_baseline:
            choose(name, value, allowed)
    for name in ("n_samples", "budget"):
        if (count := getattr(choices, name)) is not None and count < 1:
            raise ValueError(f"{name}={count} is too small, expected at least 1")
    if choices.budget is not None and choices.budget < 1 + choices.second_pass:
        raise ValueError(f"budget={choices.budget} is too small: with second_pass a channel takes 2 passes")
    return choices
