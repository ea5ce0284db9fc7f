"""ROAD: the imputation against a direct solve, and all of it as pytorch-grad-cam 1.5.7 has it."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import diags_array, lil_array
from scipy.sparse.linalg import spsolve

import sscam_jax as sscam
from sscam_jax import metrics
from tests import toy
from tests.cams.test_parity import features, mlp_head
from tests.golden.random_tensors import uniform
from tests.metrics.test_faithfulness import LABELS, PARAMS, softmax, some_maps

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/metrics_faithfulness.npz")
KEY = jax.random.key(3)


def direct(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """The equations of the paper written out pixel by pixel and solved directly."""
    unknown = {tuple(pixel): i for i, pixel in enumerate(np.argwhere(removed))}
    matrix, right, sums = lil_array((len(unknown),) * 2), np.zeros((len(unknown), image.shape[-1])), []
    for pixel, i in unknown.items():
        total = 0.0
        for offset in np.ndindex(*[3] * removed.ndim):
            step = np.array(offset) - 1
            other = tuple(np.array(pixel) + step)
            inside = all(0 <= at < length for at, length in zip(other, removed.shape, strict=True))
            if not step.any() or not inside:
                continue
            weight = {1: 1 / 6, 2: 1 / 12}[np.abs(step).sum()]
            total += weight
            if other in unknown:
                matrix[i, unknown[other]] = -weight
            else:
                right[i] += weight * image[other]
        sums.append(total)
    filled = image.astype(np.float64)
    filled[removed] = spsolve((matrix + diags_array(sums)).tocsc(), right)
    return filled


class TestRoad:
    images = jnp.asarray(toy.images(batch=3))
    maps = jnp.asarray(some_maps())

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("kind", ["scattered", "hole", "frame"])
    def test_imputation_against_a_direct_solve(self, share, kind):
        image = np.random.default_rng(0).normal(size=(18, 26, 3)).astype(np.float32)
        y, x = np.mgrid[:18, :26]
        importance = {
            "scattered": np.random.default_rng(1).uniform(size=(18, 26)),
            "hole": -((y - 7.2) ** 2) - (x - 11.1) ** 2,
            "frame": (y - 7.2) ** 2 + (x - 11.1) ** 2,
        }[kind]
        removed = importance > np.quantile(importance, 1 - share)
        found = metrics.impute(jnp.asarray(image)[None], jnp.asarray(removed)[None])[0]
        np.testing.assert_allclose(found, direct(image, removed), atol=1e-3)
        np.testing.assert_array_equal(found[~removed], image[~removed])

    def test_a_ramp_is_restored(self):
        """Inside a hole the weighted mean of the neighbours of a linear ramp is the ramp."""
        y, x = jnp.meshgrid(jnp.arange(12.0), jnp.arange(15.0), indexing="ij")
        ramp = (2 * x - y)[None, ..., None]
        removed = jnp.zeros((1, 12, 15), bool).at[0, 3:9, 4:12].set(True)
        np.testing.assert_allclose(metrics.impute(ramp, removed), ramp, atol=2e-3)

    @pytest.mark.parametrize("space", [(30,), (6, 7, 8)])
    def test_other_ranks(self, space):
        constant = jnp.full((2, *space, 1), 3.0)
        removed = jnp.asarray(np.random.default_rng(2).uniform(size=(2, *space)) < 0.7)
        np.testing.assert_allclose(metrics.impute(constant, removed), constant, rtol=1e-4)

    def test_with_nothing_known_nothing_is_nan(self):
        assert not metrics.impute(self.images, jnp.ones(self.images.shape[:-1], bool)).any()

    def run(self, maps=maps, **options):
        return metrics.road(toy.MLP, PARAMS, self.images, LABELS, maps, key=KEY, chunk_size=4, **options)

    def test_the_average_over_what_is_removed(self):
        found = self.run(percentiles=(25, 50), noise=0.0)
        for order, sign in (("morf", -1), ("lerf", 1)):
            wanted = []
            for percent in (25, 50):
                first = np.argsort(sign * np.asarray(self.maps)[1, 2].ravel())[: 80 * percent // 100]
                removed = np.zeros(80, bool)
                removed[first] = True
                filled = direct(np.asarray(self.images[2]), removed.reshape(8, 10))
                wanted.append(softmax(toy.MLP(PARAMS, jnp.asarray(filled, jnp.float32)[None]))[0, 3])
            np.testing.assert_allclose(getattr(found, order)[1, 2], np.mean(wanted), rtol=1e-3)
        np.testing.assert_allclose(found.combined, (found.lerf - found.morf) / 2, rtol=1e-6)

    def test_noise_hangs_on_key_and_id_alone(self):
        run = functools.partial(metrics.road, toy.MLP, PARAMS, noise=0.5, percentiles=(50,))
        found = run(self.images, LABELS, self.maps, key=KEY, ids=jnp.array([5, 6, 7])).morf
        alone = run(self.images[1:2], LABELS[1:2], self.maps[1:, 1:2], key=KEY, ids=jnp.array([6]), chunk_size=1).morf
        np.testing.assert_allclose(alone[0, 0], found[1, 1], rtol=1e-5)
        other = run(self.images, LABELS, self.maps, key=KEY, ids=jnp.array([5, 6, 8])).morf
        np.testing.assert_allclose(other[:, :2], found[:, :2], rtol=1e-5)
        assert (abs(other[:, 2] - found[:, 2]) > 1e-5).all()
        rekeyed = run(self.images, LABELS, self.maps, key=jax.random.key(4), ids=jnp.array([5, 6, 7])).morf
        assert (abs(rekeyed - found) > 1e-6).all()

    def test_equal_maps_share_their_noise(self):
        found = self.run(maps=self.maps[:1].repeat(2, 0), noise=0.5, percentiles=(50,))
        np.testing.assert_allclose(found.morf[0], found.morf[1], rtol=1e-6)

    def test_an_empty_map(self):
        found = self.run(maps=0 * self.maps, percentiles=(50,))
        assert not found.lerf.any() and not found.combined.any()
        assert (found.morf > 0).all()

    def test_refused(self, as_users_run_it):
        with pytest.raises(
            ValueError, match=r"percentiles=\(50, 100\) are not possible, expected .* between 0 and 100"
        ):
            self.run(percentiles=(50, 100))
        with pytest.raises(ValueError, match=r"percentiles=\(\) are not possible"):
            self.run(percentiles=())


class TestGoldens:
    """pytorch-grad-cam 1.5.7 without its noise, on the draws of tests/golden/metrics_faithfulness.py."""

    images = jnp.asarray(uniform("metrics.images", (2, 30, 40, 3)))
    maps = jnp.asarray(np.abs(uniform("metrics.maps", (3, 2, 30, 40))))

    def test_pytorch_grad_cams_imputation(self):
        maps = np.asarray(self.maps[0, 0])
        removed = jnp.asarray(maps >= np.percentile(maps, 40))
        found = metrics.impute(self.images[:1], removed[None])[0]
        np.testing.assert_allclose(found, GOLDEN["pytorch_grad_cam/imputed"], atol=1e-3)

    def test_pytorch_grad_cams_road(self):
        """Its scores are changes, O − Y; the difference of the two orders is the same."""
        given = sscam.Apply(features, mlp_head), jnp.float32(4.0), self.images, jnp.array([1, 3]), self.maps
        found = metrics.road(*given, key=KEY, noise=0.0, chunk_size=54)
        before = metrics.confidence(*given).before[None]
        np.testing.assert_allclose(found.morf - before, GOLDEN["pytorch_grad_cam/road_morf"], atol=2e-4)
        np.testing.assert_allclose(found.lerf - before, GOLDEN["pytorch_grad_cam/road_lerf"], atol=2e-4)
        np.testing.assert_allclose(found.combined, GOLDEN["pytorch_grad_cam/road"], atol=2e-4)
        assert abs(found.combined).max() > 0.02
