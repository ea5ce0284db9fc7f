"""The metrics by name: what is listed, what is shared, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sscam_jax import metrics
from tests import toy

pytestmark = pytest.mark.usefixtures("quick_compilation")

PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=2))
LABELS = jnp.array([0, 2], jnp.int32)
MAPS = jnp.asarray(np.random.default_rng(5).uniform(size=(3, *IMAGES.shape[:-1])), jnp.float32)
BOXES = jnp.array([[[0.0, 0.5, 0.5, 1.0], [-1.0] * 4], [[-1.0] * 4] * 2])


def case(**changes) -> metrics.Case:
    given = metrics.Case(
        apply=toy.MLP,
        params=PARAMS,
        images=IMAGES,
        labels=LABELS,
        boxes=BOXES,
        maps=MAPS,
        key=jax.random.key(0),
        ids=jnp.array([7, 8], jnp.int32),
        explain=lambda inputs: jnp.abs(inputs[..., 0]),
    )
    return given._replace(**changes)


def test_every_metric_is_measured():
    columns = metrics.measure(metrics.METRICS, case(), chunk_size=4)
    for column, values in columns.items():
        metric = metrics.METRICS[column.partition("@")[0]]
        assert values.shape == (3, 2), column
        assert jnp.isfinite(values[:, 0]).all(), column
        assert jnp.isnan(values[:, 1]).all() == metric.needs_boxes, column  # the second image has no box
    assert {column.partition("@")[0] for column in columns} == set(metrics.METRICS)
