"""Several layers' maps as one, and maps smoothed over changed images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from tests import toy

PARAMS = toy.on_device(toy.params())
EARLY = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: toy.mlp_head(params, *toy.features(params, a)))
arguments = functools.lru_cache(lambda rank: (PARAMS, jnp.asarray(toy.images(rank)), jnp.array([1, 2])))


def unit(maps):
    axes = tuple(range(1, maps.ndim))
    low, high = maps.min(axes, keepdims=True), maps.max(axes, keepdims=True)
    return (maps - low) / (high - low)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("fusion", "join"), [("max", np.max), ("mean", np.mean)])
def test_over_layers(rank, fusion, join):
    found = [cams.layer_cam(cut, *arguments(rank)) for cut in (toy.MLP, EARLY)]
    raw = join([saliency.maps for saliency in found], axis=0)
    saliency = cams.over_layers(cams.layer_cam, toy.MLP, *arguments(rank), layers=[EARLY], fusion=fusion)
    np.testing.assert_allclose(saliency.raw, raw, rtol=1e-5)
    np.testing.assert_allclose(saliency.maps, unit(raw), atol=1e-5)
    np.testing.assert_array_equal(saliency.weights, found[0].weights)
    assert saliency.passes.tolist() == [2, 2]


def test_over_layers_of_any_method_with_its_options():
    options = dict(key=jax.random.key(0), n_samples=2)
    both = cams.over_layers(sscam.ss_cam, toy.MLP, *arguments(2), layers=[EARLY], **options)
    apart = [sscam.ss_cam(cut, *arguments(2), **options) for cut in (toy.MLP, EARLY)]
    np.testing.assert_allclose(both.raw, np.maximum(apart[0].maps, apart[1].maps), atol=1e-6)
    np.testing.assert_array_equal(both.passes, apart[0].passes + apart[1].passes)


@pytest.mark.parametrize(("rank", "flip"), [(1, -1), (2, -1), (2, 0), (3, 1)])
def test_over_augmentations(rank, flip):
    params, images, labels = arguments(rank)
    axis = 1 + flip % rank
    maps = []
    for factor in (0.5, 2.0):
        maps.append(cams.grad_cam(toy.MLP, params, factor * images, labels).maps)
        mirrored = cams.grad_cam(toy.MLP, params, factor * jnp.flip(images, axis), labels).maps
        maps.append(np.flip(mirrored, axis))
    saliency = cams.over_augmentations(cams.grad_cam, toy.MLP, *arguments(rank), factors=(0.5, 2.0), flip=flip)
    np.testing.assert_allclose(saliency.raw, np.mean(maps, axis=0), atol=1e-5)
    np.testing.assert_allclose(saliency.maps, unit(np.mean(maps, axis=0)), atol=1e-4)
    np.testing.assert_allclose(saliency.logits, toy.MLP(params, images), rtol=1e-5)
    assert saliency.passes.tolist() == [5, 5]


def test_no_augmentation_is_the_method():
    plain = cams.grad_cam(toy.MLP, *arguments(2))
    same = cams.over_augmentations(cams.grad_cam, toy.MLP, *arguments(2), factors=[1.0], flip=None)
    for name in ("maps", "weights", "logits", "flat"):
        np.testing.assert_allclose(getattr(same, name), getattr(plain, name), atol=1e-6)


def test_errors(as_users_run_it):
    params, images, labels = arguments(2)
    with pytest.raises(ValueError, match="fusion 'sum' is not known; choose from 'max', 'mean'"):
        cams.over_layers(cams.grad_cam, toy.MLP, params, images, labels, layers=[EARLY], fusion="sum")
    with pytest.raises(ValueError, match="factors is empty, expected at least one factor"):
        cams.over_augmentations(cams.grad_cam, toy.MLP, params, images, labels, factors=())
    with pytest.raises(ValueError, match=r"flip=2 is not a spatial axis of images of shape .* choose from 0 to 1"):
        cams.over_augmentations(cams.grad_cam, toy.MLP, params, images, labels, flip=2)
