"""The toy network's images and labels, explained by any method, and what it means that two results are the same."""

import jax
import jax.numpy as jnp
import numpy as np

import sscam_jax as sscam
from tests import toy

KEY = jax.random.key(5)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=2))
LABELS = jnp.array([1, 2])


def ss_cam(apply=toy.MLP, params=PARAMS, images=IMAGES, **options):
    return sscam.ss_cam(apply, params, images, LABELS, key=KEY, **(dict(n_samples=3, chunk_size=4) | options))


def explain(method, apply=toy.MLP, images=IMAGES, **options):
    return method(apply, PARAMS, images, LABELS, **options)


def same(left, right, fields=("maps", "raw", "weights"), tolerance=1e-5):
    for name in fields:
        np.testing.assert_allclose(getattr(left, name), getattr(right, name), rtol=tolerance, atol=tolerance)
