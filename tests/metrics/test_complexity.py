"""Complexity, sparseness, coherency, ADCC: values by hand, Quantus's, and what must not change them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sscam_jax.metrics.complexity import adcc, coherency, complexity, sparseness
from tests.golden import metrics_quantus

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/metrics_quantus.npz")
RNG = np.random.default_rng(0)
MAPS, OTHERS = (jnp.asarray(RNG.uniform(size=(2, 3, 6, 7)), jnp.float32) for _ in range(2))
of_one_map = pytest.mark.parametrize("function", [complexity, sparseness], ids=lambda function: function.__name__)


def test_complexity_by_hand():
    maps = jnp.array([[[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]])
    np.testing.assert_allclose(complexity(maps), [25, 100], rtol=1e-6)


def test_sparseness_by_hand():
    # Sorted 0, 0, 1, 3 with factors −3, −1, 1, 3: (1 + 9) / (4 · 4).
    np.testing.assert_allclose(sparseness(jnp.array([[3.0, 0.0], [1.0, 0.0]])), 10 / 16, rtol=1e-6)
    np.testing.assert_allclose(sparseness(jnp.zeros((12, 12)).at[3, 4].set(0.2)), 1 - 1 / 144, rtol=1e-6)


def test_coherency_by_hand():
    a, b = jnp.array([[0.0, 1.0], [2.0, 3.0]]) / 3, jnp.array([[0.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(coherency(a, b), 50 * (1 + 1 / np.sqrt(5)), rtol=1e-6)
    np.testing.assert_allclose(coherency(jnp.stack([a, a]), jnp.stack([a, 1 - a])), [100, 0], atol=1e-4)


def test_adcc_by_hand():
    got = adcc(jnp.array([100.0, 90.0, 50.0]), jnp.array([0.0, 40.0, 50.0]), jnp.array([0.0, 10.0, 50.0]))
    np.testing.assert_allclose(got, [100, 3 / (1 / 90 + 1 / 60 + 1 / 90), 50], rtol=1e-6)


@pytest.mark.parametrize("worst", [(0.0, 20.0, 20.0), (80.0, 100.0, 20.0), (80.0, 20.0, 100.0), (0.0, 100.0, 100.0)])
def test_adcc_is_zero_where_a_part_is(worst):
    assert adcc(*map(jnp.float32, worst)).item() == 0


def test_sparseness_is_quantus():
    """Quantus adds 1e-7 to every pixel, which lowers the index by 1e-7 · n / Σ m of itself."""
    got = sparseness(jnp.asarray(metrics_quantus.maps()))
    np.testing.assert_allclose(got[:-1], GOLDEN["sparseness"][:-1], rtol=2e-6)
    # The last has one pixel of 0.5 among n.
    n = metrics_quantus.SHAPE[1] * metrics_quantus.SHAPE[2]
    np.testing.assert_allclose(got[-1], 1 - 1 / n, rtol=1e-6)
    np.testing.assert_allclose(got[-1] * (1 - 1e-7 * n / 0.5), GOLDEN["sparseness"][-1], rtol=2e-6)


@of_one_map
def test_leading_axes_and_jit(function):
    values = function(MAPS)
    assert values.shape == (2, 3) and values.dtype == jnp.float32
    np.testing.assert_allclose(values[1, 2], function(MAPS[1, 2]), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(function)(MAPS), values, rtol=1e-6)


@of_one_map
def test_where_pixels_are_changes_nothing(function):
    shuffled = RNG.permutation(np.asarray(MAPS).reshape(2, 3, -1), axis=-1).reshape(2, 3, 7, 6)
    np.testing.assert_allclose(function(jnp.asarray(shuffled)), function(MAPS), rtol=1e-5)


@of_one_map
@pytest.mark.parametrize("spatial_axes", [1, 3])
def test_other_spatial_ranks(function, spatial_axes):
    line = MAPS.reshape(6, -1)
    shape = (6, *{1: (42,), 3: (2, 3, 7)}[spatial_axes])
    np.testing.assert_allclose(function(line.reshape(shape), spatial_axes=spatial_axes), function(MAPS).reshape(6))


def test_scale():
    np.testing.assert_allclose(sparseness(MAPS / 4), sparseness(MAPS), rtol=1e-6)
    np.testing.assert_allclose(complexity(MAPS / 4), complexity(MAPS) / 4, rtol=1e-6)
    np.testing.assert_allclose(coherency(MAPS / 4 + 0.5, OTHERS), coherency(MAPS, OTHERS), rtol=1e-4)


def test_flat_maps_are_finite():
    zero = jnp.zeros_like(MAPS)
    assert not sparseness(zero).any() and not complexity(zero).any()
    assert not coherency(zero, OTHERS).any() and not coherency(MAPS, zero + 0.3).any()
    # A zero map is as simple as can be, and hides everything: ADCC is 0 all the same.
    assert not adcc(coherency(zero, zero), complexity(zero), jnp.full((2, 3), 100.0)).any()


def test_errors(as_users_run_it):
    for function in (complexity, sparseness):
        with pytest.raises(ValueError, match=r"spatial_axes=5 does not fit maps of shape \(2, 3, 6, 7\); choose from"):
            function(MAPS, spatial_axes=5)
    with pytest.raises(ValueError, match=r"maps have shapes \(2, 3, 6, 7\) and \(3, 6, 7\), expected the same shape"):
        coherency(MAPS, OTHERS[0])
