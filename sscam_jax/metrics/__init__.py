"""Metrics of maps. Each measures one property: faithfulness, localisation, complexity, robustness or sanity."""

from sscam_jax.metrics.agreement import pearson, spearman, ssim
from sscam_jax.metrics.base import Case, Metric
from sscam_jax.metrics.complexity import adcc, coherency, complexity, sparseness
from sscam_jax.metrics.components import connected_components
from sscam_jax.metrics.curves import Curve, deletion, insertion
from sscam_jax.metrics.faithfulness import (
    Confidence,
    average_drop,
    average_gain,
    average_increase,
    confidence,
    explained_inputs,
)
from sscam_jax.metrics.holes import infidelity
from sscam_jax.metrics.imputation import Road, impute, road
from sscam_jax.metrics.localization import box_mask, energy_in_box, energy_over_area, pointing_game, single_box
from sscam_jax.metrics.overlap import best_box_iou, box_accuracy, box_iou, max_box_acc
from sscam_jax.metrics.registry import METRICS, measure, named
from sscam_jax.metrics.robustness import max_sensitivity
from sscam_jax.metrics.sanity import Similarity, cascade, cascading_randomisation, random_logit

__all__ = [
    "METRICS",
    "Case",
    "Confidence",
    "Curve",
    "Metric",
    "Road",
    "Similarity",
    "adcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "best_box_iou",
    "box_accuracy",
    "box_iou",
    "box_mask",
    "cascade",
    "cascading_randomisation",
    "coherency",
    "complexity",
    "confidence",
    "connected_components",
    "deletion",
    "energy_in_box",
    "energy_over_area",
    "explained_inputs",
    "impute",
    "infidelity",
    "insertion",
    "max_box_acc",
    "max_sensitivity",
    "measure",
    "named",
    "pearson",
    "pointing_game",
    "random_logit",
    "road",
    "single_box",
    "sparseness",
    "spearman",
    "ssim",
]
