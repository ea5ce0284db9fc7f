"""Max-sensitivity by hand and against Quantus 0.6.0."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from tests import toy
from tests.golden.random_tensors import uniform

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/metrics_sensitivity.npz")
KEY = jax.random.key(0)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=3))
LABELS = jnp.array([0, 2, 3], jnp.int32)
MAPS = jnp.asarray(np.random.default_rng(9).uniform(size=(2, 3, 8, 10)), jnp.float32)

# A network whose logits are the mean of each colour.
COLOUR = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a.mean(tuple(range(1, a.ndim - 1))))


def first_colour(inputs):
    return inputs[..., 0]


class TestMaxSensitivity:
    def test_quantus(self):
        images = jnp.asarray(uniform("sensitivity.images", (3, 12, 17, 3)))

        def explain(inputs):
            return jnp.square(inputs).mean(-1)

        found = metrics.max_sensitivity(explain, images, explain(images)[None], key=KEY, radius=0.3, samples=4)
        np.testing.assert_allclose(found[0], GOLDEN["max_sensitivity"], rtol=1e-5)

    def test_by_hand(self):
        """Maps that move by the noise itself: the largest of ‖u‖ / ‖Φ‖, at most the radius for maps of ones."""
        images = jnp.ones((1, 40, 50, 3))
        found = metrics.max_sensitivity(first_colour, images, jnp.ones((1, 1, 40, 50)), key=KEY, radius=0.5, samples=20)
        assert found.item() == pytest.approx(0.5 / np.sqrt(3), rel=0.05)  # the standard deviation of uniform noise
        half = metrics.max_sensitivity(first_colour, images, jnp.ones((1, 1, 40, 50)), key=KEY, radius=0.25, samples=20)
        assert half.item() == pytest.approx(found.item() / 2, rel=1e-4)

    def test_it_is_the_largest(self):
        calls = []

        def explain(inputs):
            calls.append(inputs)
            return MAPS * (1 + jnp.array([0.5, 2.0, 1.0])[len(calls) - 1])

        found = metrics.max_sensitivity(explain, IMAGES, MAPS, key=KEY, samples=3)
        np.testing.assert_allclose(found, np.full((2, 3), 2.0), rtol=1e-5)
        assert [inputs.shape for inputs in calls] == [(2, 3, 8, 10, 3)] * 3
        for inputs in calls:
            np.testing.assert_allclose(inputs[0], inputs[1], atol=1e-6)  # the same noise for every method
            assert 0.015 < abs(inputs - IMAGES[None]).max() <= 0.02 + 1e-6

    def test_noise_hangs_on_key_and_id_alone(self):
        def run(images, maps, ids, key=KEY):
            return metrics.max_sensitivity(first_colour, images, maps, key=key, ids=ids, samples=2)

        maps = first_colour(IMAGES)[None]
        found = run(IMAGES, maps, jnp.array([5, 6, 7]))
        alone = run(IMAGES[1:2], maps[:, 1:2], jnp.array([6]))
        np.testing.assert_allclose(found[:, 1:2], alone, rtol=1e-5)
        assert (found != run(IMAGES, maps, jnp.array([5, 6, 7]), jax.random.key(1))).all()
        assert (found != run(IMAGES, maps, jnp.array([8, 9, 10]))).all()

    def test_empty_maps(self):
        none = jnp.zeros((1, 3, 8, 10))
        stays = metrics.max_sensitivity(lambda inputs: none, IMAGES, none, key=KEY)
        appears = metrics.max_sensitivity(lambda inputs: none + 0.3, IMAGES, none, key=KEY)
        vanishes = metrics.max_sensitivity(lambda inputs: none, IMAGES, none + 0.3, key=KEY)
        assert stays.tolist() == [[0.0] * 3]
        np.testing.assert_allclose([appears, vanishes], np.ones((2, 1, 3)), rtol=1e-6)

    def test_refused(self):
        with pytest.raises(ValueError, match="samples=0 is too small, expected at least 1"):
            metrics.max_sensitivity(first_colour, IMAGES, MAPS, key=KEY, samples=0)
