"""Agreement of two maps: values by hand, SciPy's, scikit-image's, and what must not change them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from sscam_jax.metrics.agreement import pearson, spearman, ssim
from tests.golden import metrics_quantus

RNG = np.random.default_rng(0)
A, B = (jnp.asarray(RNG.uniform(size=(2, 3, 12, 14)), jnp.float32) for _ in range(2))
every = pytest.mark.parametrize("function", [pearson, spearman, ssim], ids=lambda function: function.__name__)


def test_pearson_by_hand():
    a, b = jnp.array([[0.0, 1.0], [2.0, 3.0]]), jnp.array([[0.0, 1.0], [0.0, 1.0]])
    # Centred: a = ±1.5, ±0.5; b = ±0.5. Products sum to 1; squares to 5 and 1.
    np.testing.assert_allclose(pearson(a, b), 1 / np.sqrt(5), rtol=1e-6)


def test_spearman_by_hand():
    a, b = jnp.array([[1.0, 10.0, 100.0, 1000.0]]), jnp.array([[5.0, 6.0, 8.0, 7.0]])
    # One swap of neighbours: 1 − 6·Σd²/(n(n²−1)) = 1 − 6·2/60.
    np.testing.assert_allclose(spearman(a, b), 0.8, rtol=1e-6)
    np.testing.assert_allclose(spearman(a, -b), -0.8, rtol=1e-6)


@pytest.mark.parametrize("levels", [2, 5, 10**6])
def test_correlations_are_scipys(levels):
    """Few levels make many ties; a map of 224² pixels is as exact as a small one."""
    a, b = (np.floor(RNG.uniform(size=(2, 224, 224)) * levels).astype(np.float32) / levels for _ in range(2))
    a, b = jnp.asarray(a), jnp.asarray((a + b) / 2)
    for i in range(2):
        x, y = (np.asarray(maps[i], np.float64).ravel() for maps in (a, b))
        np.testing.assert_allclose(spearman(a, b)[i], scipy.stats.spearmanr(x, y)[0], atol=1e-5)
        np.testing.assert_allclose(pearson(a, b)[i], scipy.stats.pearsonr(x, y)[0], atol=1e-5)


def test_ssim_is_scikit_images():
    golden = np.load(pathlib.Path(__file__).parent.parent / "golden/metrics_quantus.npz")
    got = ssim(jnp.asarray(metrics_quantus.maps()), jnp.asarray(metrics_quantus.others()))
    np.testing.assert_allclose(got, golden["ssim"], atol=1e-5)


@every
def test_leading_axes_are_maps_apart(function):
    values = function(A, B)
    assert values.shape == (2, 3) and values.dtype == jnp.float32
    np.testing.assert_allclose(values[1, 2], function(A[1, 2], B[1, 2]), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(function)(A, B), values, atol=1e-6)


@every
def test_symmetry_and_identity(function):
    np.testing.assert_allclose(function(A, B), function(B, A), atol=1e-6)
    np.testing.assert_allclose(function(A, A), np.ones((2, 3)), atol=1e-5)
    turned = [x.swapaxes(-1, -2)[..., ::-1] for x in (A, B)]
    np.testing.assert_allclose(function(*turned), function(A, B), atol=1e-5)


@every
@pytest.mark.parametrize("spatial_axes", [1, 3])
def test_other_spatial_ranks(function, spatial_axes):
    a, b = (jnp.asarray(RNG.uniform(size=(2, *[12] * spatial_axes)), jnp.float32) for _ in range(2))
    assert function(a, b, spatial_axes=spatial_axes).shape == (2,)
    np.testing.assert_allclose(function(a, a, spatial_axes=spatial_axes), 1.0, atol=1e-5)


def test_invariances():
    np.testing.assert_allclose(pearson(3 * A + 1, B), pearson(A, B), atol=1e-5)
    np.testing.assert_allclose(pearson(1e-25 * A, B), pearson(A, B), atol=1e-5)
    np.testing.assert_array_equal(spearman(A**3, B), spearman(A, B))


@pytest.mark.parametrize("function", [pearson, spearman])
@pytest.mark.parametrize("level", [0.0, 0.1, 1.0])
def test_a_constant_map_correlates_with_nothing(function, level):
    constant = jnp.full_like(A, level)
    assert not function(constant, B).any() and not function(B, constant).any()
    assert not function(constant, constant).any()


@every
def test_errors(function, as_users_run_it):
    with pytest.raises(
        ValueError, match=r"maps have shapes \(2, 3, 12, 14\) and \(3, 12, 14\), expected the same shape: sscam"
    ):
        function(A, B[0])
    with pytest.raises(ValueError, match=r"spatial_axes=5 does not fit maps of shape \(2, 3, 12, 14\); choose from 1"):
        function(A, B, spatial_axes=5)


def test_ssim_needs_its_window():
    with pytest.raises(
        ValueError,
        match=r"maps have \(8, 14\) pixels, expected at least 11 per side, the size of SSIM's window: sscam_jax.ops",
    ):
        ssim(A[..., :8, :], B[..., :8, :])
