"""Class activation maps as pure functions, led by SS-CAM (Smoothed Score-CAM)."""

import importlib
from typing import TYPE_CHECKING, Any

# Type checkers and editors do not run `__getattr__`, so the names stand here again.
if TYPE_CHECKING:
    from sscam_jax import adapt, cams, convert, data, metrics, networks, ops, plots
    from sscam_jax.cams import (
        IS_CAM_PRESETS,
        SCORE_CAM_PRESETS,
        SS_CAM_PRESETS,
        Choices,
        ablation_cam,
        cam,
        cost,
        eigen_cam,
        eigen_grad_cam,
        finer_cam,
        grad_cam,
        grad_cam_pp,
        group_cam,
        hires_cam,
        is_cam,
        layer_cam,
        occlusion,
        recipro_cam,
        rise,
        score_cam,
        shapley_cam,
        smooth_grad_cam_pp,
        ss_cam,
        xgrad_cam,
    )
    from sscam_jax.data.preprocess import preprocess
    from sscam_jax.evaluation.study import evaluate
    from sscam_jax.networks import load, models
    from sscam_jax.report.explain import explain
    from sscam_jax.report.log import log
    from sscam_jax.report.result import Explanation
    from sscam_jax.types import Apply, Batch, Saliency, Sections

__version__ = "0.1.0"

__all__ = [
    "IS_CAM_PRESETS",
    "SCORE_CAM_PRESETS",
    "SS_CAM_PRESETS",
    "Apply",
    "Batch",
    "Choices",
    "Explanation",
    "Saliency",
    "Sections",
    "ablation_cam",
    "adapt",
    "cam",
    "cams",
    "convert",
    "cost",
    "data",
    "eigen_cam",
    "eigen_grad_cam",
    "evaluate",
    "explain",
    "finer_cam",
    "grad_cam",
    "grad_cam_pp",
    "group_cam",
    "hires_cam",
    "is_cam",
    "layer_cam",
    "load",
    "log",
    "metrics",
    "models",
    "networks",
    "occlusion",
    "ops",
    "plots",
    "preprocess",
    "recipro_cam",
    "rise",
    "score_cam",
    "shapley_cam",
    "smooth_grad_cam_pp",
    "ss_cam",
    "xgrad_cam",
]

# Where a name lives that is neither a module of this package nor a method or preset of `cams`.
_HOMES = {
    "Apply": "types",
    "Batch": "types",
    "Saliency": "types",
    "Sections": "types",
    "Explanation": "report.result",
    "evaluate": "evaluation.study",
    "explain": "report.explain",
    "log": "report.log",
    "load": "networks",
    "models": "networks",
    "preprocess": "data",
}
_MODULES = ("adapt", "cams", "convert", "data", "metrics", "networks", "ops", "plots")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `sscam --help` needs no JAX, and a method needs no matplotlib."""
    if name not in __all__:
        raise AttributeError(f"module 'sscam_jax' has no attribute '{name}'", name=name)
    if name in _MODULES:
        return importlib.import_module(f"sscam_jax.{name}")
    value = getattr(importlib.import_module(f"sscam_jax.{_HOMES.get(name, 'cams')}"), name)
    # From now on Python finds it without asking `__getattr__`.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
