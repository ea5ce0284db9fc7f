"""Infidelity against plain NumPy, and the properties that its definition implies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from tests import toy

KEY = jax.random.key(0)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=3))
LABELS = jnp.array([0, 2, 3], jnp.int32)
MAPS = jnp.asarray(np.random.default_rng(9).uniform(size=(2, 3, 8, 10)), jnp.float32)

# A network whose logits are the mean of each colour.
COLOUR = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a.mean(tuple(range(1, a.ndim - 1))))


class TestInfidelity:
    def run(self, images=IMAGES, labels=LABELS, maps=MAPS, apply=toy.MLP, **options):
        return metrics.infidelity(apply, PARAMS, images, labels, maps, **dict(key=KEY, chunk_size=5) | options)

    @pytest.mark.parametrize("rank", [1, 2, 3])
    def test_plain_numpy(self, rank):
        """The holes as documented: for every axis a side between 1/8 and 1/2, and where it starts."""
        images = jnp.asarray(toy.images(rank, batch=2))
        space = images.shape[1:-1]
        maps = np.random.default_rng(3).uniform(size=(2, 2, *space)).astype(np.float32)
        found = self.run(images, LABELS[:2], jnp.asarray(maps), ids=jnp.array([4, 9]), samples=6)

        def probability(image, b):
            logits = np.asarray(toy.MLP(PARAMS, jnp.asarray(image, jnp.float32)[None]), np.float64)[0]
            return np.exp(logits[LABELS[b]]) / np.exp(logits).sum()

        for b, image_id in enumerate([4, 9]):
            under, costs = [], []
            for sample in range(6):
                key = jax.random.fold_in(jax.random.fold_in(KEY, image_id), sample)
                hole = np.ones(space, bool)
                for axis, (side, start) in enumerate(np.asarray(jax.random.uniform(key, (rank, 2)))):
                    side = 1 / 8 + side * 3 / 8
                    start = start * (1 - side)
                    centres = (np.arange(space[axis]) + 0.5) / space[axis]
                    inside = (centres >= start) & (centres < start + side)
                    hole &= inside.reshape([-1 if i == axis else 1 for i in range(rank)])
                image = np.asarray(images[b])
                costs.append(probability(image, b) - probability(np.where(hole[..., None], 0, image), b))
                under.append([maps[m, b][hole].sum() for m in range(2)])
            costs, under = np.array(costs), np.array(under).T
            for m in range(2):
                beta = max(0.0, (under[m] @ costs) / (under[m] @ under[m]))
                wanted = np.mean((beta * under[m] - costs) ** 2)
                np.testing.assert_allclose(found[m, b], wanted, rtol=1e-3, atol=1e-9)

    def test_a_map_that_predicts_the_cost_has_none(self):
        """Of the mean colour the cost of a hole is nearly linear in the colour that it takes away."""
        image = jnp.zeros((1, 24, 32, 3)).at[0, 2:6, 26:30, 0].set(0.1)  # top right
        truth = image[..., 0][None]
        swapped, shifted = truth[..., ::-1, :], jnp.roll(truth, 6, axis=3)
        scores = [
            self.run(image, jnp.array([0]), maps / 0.1, COLOUR, samples=64).item() for maps in (truth, swapped, shifted)
        ]
        assert scores[0] < 1e-4 * min(scores[1:])

    def test_scale_does_not_matter(self):
        np.testing.assert_allclose(self.run(), self.run(maps=MAPS / 7), rtol=1e-3)

    def test_noise_hangs_on_key_and_id_alone(self):
        found = self.run(ids=jnp.array([5, 6, 7]))
        alone = self.run(IMAGES[1:2], LABELS[1:2], MAPS[:, 1:2], ids=jnp.array([6]), chunk_size=100)
        np.testing.assert_allclose(found[:, 1:2], alone, rtol=1e-3)
        assert (found != self.run(ids=jnp.array([5, 6, 7]), key=jax.random.key(1))).all()

    def test_a_map_that_points_away_is_as_bad_as_an_empty_one(self):
        """A dark class: holes raise its probability, so the best scale would be negative."""
        image = -jnp.ones((1, 8, 8, 3)).at[..., 1:].set(0.0)
        away, empty = (self.run(image, jnp.array([0]), value * jnp.ones((1, 1, 8, 8)), COLOUR) for value in (1.0, 0.0))
        assert away.item() == pytest.approx(empty.item(), rel=1e-5) and empty.item() > 0

    def test_refused(self):
        with pytest.raises(ValueError, match="samples=0 is too small, expected at least 1"):
            self.run(samples=0)
