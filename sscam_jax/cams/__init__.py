"""Class activation maps, one family a file.

`affine` is CAM. `gradient` (Grad-CAM and methods like it), `smooth`, `finer` and `shapley` take gradients of the head.
`score`, `integrated` (IS-CAM) and `group` score masked images. `ablation` runs the head on changed activations. `eigen`
takes principal components. `blackbox` needs no layer. `controls` are maps that explain nothing. `compose` joins the
maps of any method. `registry` has all of them by name.
"""

from sscam_jax.cams.ablation import ablation_cam, recipro_cam
from sscam_jax.cams.affine import cam
from sscam_jax.cams.blackbox import occlusion, rise
from sscam_jax.cams.compose import over_augmentations, over_layers
from sscam_jax.cams.controls import fake_cam, gaussian_map, mean_activation, random_map, uniform_map
from sscam_jax.cams.costs import Cost, cost
from sscam_jax.cams.eigen import eigen_cam, eigen_grad_cam
from sscam_jax.cams.finer import finer_cam
from sscam_jax.cams.gradient import grad_cam, grad_cam_pp, hires_cam, layer_cam, xgrad_cam
from sscam_jax.cams.group import group_cam
from sscam_jax.cams.integrated import is_cam
from sscam_jax.cams.presets import IS_CAM_PRESETS, SCORE_CAM_PRESETS, SS_CAM_PRESETS, Choices
from sscam_jax.cams.score import score_cam, ss_cam
from sscam_jax.cams.shapley import shapley_cam
from sscam_jax.cams.smooth import smooth_grad_cam_pp

__all__ = [
    "IS_CAM_PRESETS",
    "SCORE_CAM_PRESETS",
    "SS_CAM_PRESETS",
    "Choices",
    "Cost",
    "ablation_cam",
    "cam",
    "cost",
    "eigen_cam",
    "eigen_grad_cam",
    "fake_cam",
    "finer_cam",
    "gaussian_map",
    "grad_cam",
    "grad_cam_pp",
    "group_cam",
    "hires_cam",
    "is_cam",
    "layer_cam",
    "mean_activation",
    "occlusion",
    "over_augmentations",
    "over_layers",
    "random_map",
    "recipro_cam",
    "rise",
    "score_cam",
    "shapley_cam",
    "smooth_grad_cam_pp",
    "ss_cam",
    "uniform_map",
    "xgrad_cam",
]
