"""Class activation maps as pure functions, led by SS-CAM (Smoothed Score-CAM)."""

from sscam_jax import data, metrics, ops
from sscam_jax.cams import SCORE_CAM_PRESETS, SS_CAM_PRESETS, cam, cost, grad_cam, grad_cam_pp, score_cam, ss_cam
from sscam_jax.data import preprocess
from sscam_jax.networks import load, models
from sscam_jax.study import evaluate
from sscam_jax.types import Apply, Batch, Saliency, Stem

__version__ = "0.1.0"

__all__ = [
    "SCORE_CAM_PRESETS",
    "SS_CAM_PRESETS",
    "Apply",
    "Batch",
    "Saliency",
    "Stem",
    "cam",
    "cost",
    "data",
    "evaluate",
    "grad_cam",
    "grad_cam_pp",
    "load",
    "metrics",
    "models",
    "ops",
    "preprocess",
    "score_cam",
    "ss_cam",
]
