"""Class activation maps as pure functions, led by SS-CAM (Smoothed Score-CAM)."""

from sscam_jax import adapt, cams, data, metrics, ops
from sscam_jax.cams import (
    IS_CAM_PRESETS,
    SCORE_CAM_PRESETS,
    SS_CAM_PRESETS,
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
from sscam_jax.data import preprocess
from sscam_jax.evaluation.study import evaluate
from sscam_jax.networks import load, models
from sscam_jax.types import Apply, Batch, Saliency, Sections

__version__ = "0.1.0"

__all__ = [
    "IS_CAM_PRESETS",
    "SCORE_CAM_PRESETS",
    "SS_CAM_PRESETS",
    "Apply",
    "Batch",
    "Saliency",
    "Sections",
    "ablation_cam",
    "adapt",
    "cam",
    "cams",
    "cost",
    "data",
    "eigen_cam",
    "eigen_grad_cam",
    "evaluate",
    "finer_cam",
    "grad_cam",
    "grad_cam_pp",
    "group_cam",
    "hires_cam",
    "is_cam",
    "layer_cam",
    "load",
    "metrics",
    "models",
    "occlusion",
    "ops",
    "preprocess",
    "recipro_cam",
    "rise",
    "score_cam",
    "shapley_cam",
    "smooth_grad_cam_pp",
    "ss_cam",
    "xgrad_cam",
]
