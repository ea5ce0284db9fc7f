"""Class activation maps, one family a file: `gradient` (CAM, Grad-CAM), `score` (Score-CAM, SS-CAM), `controls`."""

from sscam_jax.cams._engine import Cost, cost
from sscam_jax.cams.controls import fake_cam, gaussian_map, mean_activation, random_map, uniform_map
from sscam_jax.cams.gradient import cam, grad_cam, grad_cam_pp
from sscam_jax.cams.presets import SCORE_CAM_PRESETS, SS_CAM_PRESETS
from sscam_jax.cams.score import score_cam, ss_cam

__all__ = [
    "SCORE_CAM_PRESETS",
    "SS_CAM_PRESETS",
    "Cost",
    "cam",
    "cost",
    "fake_cam",
    "gaussian_map",
    "grad_cam",
    "grad_cam_pp",
    "mean_activation",
    "random_map",
    "score_cam",
    "ss_cam",
    "uniform_map",
]
