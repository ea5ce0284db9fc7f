"""Teach a network the classes of a data set: train what comes after a layer, keep everything before it."""

from sscam_jax.training.head import Trained, train_head
from sscam_jax.training.measure import accuracy, evaluate_head, mean_average_precision

__all__ = ["Trained", "accuracy", "evaluate_head", "mean_average_precision", "train_head"]
