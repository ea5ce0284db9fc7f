"""Class activation maps, one family a file: `gradient` (CAM, Grad-CAM, ...) and `score` (Score-CAM, SS-CAM)."""

from sscam_jax.cams._engine import Cost, cost
from sscam_jax.cams.gradient import cam, grad_cam, grad_cam_pp
from sscam_jax.cams.presets import SCORE_CAM_PRESETS, SS_CAM_PRESETS
from sscam_jax.cams.score import score_cam, ss_cam

__all__ = [
    "SCORE_CAM_PRESETS",
    "SS_CAM_PRESETS",
    "Cost",
    "cam",
    "cost",
    "grad_cam",
    "grad_cam_pp",
    "score_cam",
    "ss_cam",
]
