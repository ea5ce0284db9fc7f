"""Metrics of maps by the property that they measure: faithfulness, localisation, complexity, robustness, sanity."""

from sscam_jax.metrics.complexity import adcc, coherency, complexity, sparseness
from sscam_jax.metrics.curves import Curve, deletion, insertion
from sscam_jax.metrics.faithfulness import (
    Confidence,
    average_drop,
    average_gain,
    average_increase,
    confidence,
    explained_inputs,
)
from sscam_jax.metrics.localization import box_mask, energy_in_box, energy_over_area, pointing_game, single_box
from sscam_jax.metrics.registry import METRICS, Case, Metric, measure

__all__ = [
    "METRICS",
    "Case",
    "Confidence",
    "Curve",
    "Metric",
    "adcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "box_mask",
    "coherency",
    "complexity",
    "confidence",
    "deletion",
    "energy_in_box",
    "energy_over_area",
    "explained_inputs",
    "insertion",
    "measure",
    "pointing_game",
    "single_box",
    "sparseness",
]
