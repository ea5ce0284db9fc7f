"""What the methods beside Score-CAM and Grad-CAM refuse, and in which words; test_battery.py has the others."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from tests import toy
from tests.cams.explained import IMAGES, KEY, PARAMS, explain


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("ablation_cam", dict(score="prob"), "score 'prob' is not known; choose from 'probability', 'logit'"),
        ("recipro_cam", dict(chunk_size=0), "chunk_size=0 is too small, expected at least 1"),
        ("group_cam", dict(groups=0), "groups=0 is too small, expected at least 1"),
        ("rise", dict(key=KEY, n_samples=0), "n_samples=0 is too small, expected at least 1"),
        ("rise", dict(key=KEY, cells=0), "cells=0 is too small, expected at least 1"),
        ("rise", dict(key=KEY, ids=jnp.arange(3)), r"ids have shape \(3,\), expected \(2,\): one integer per image"),
        ("rise", dict(key=jax.random.key(0, impl="rbg")), "key is of kind 'rbg', whose draws depend on the batch"),
        ("smooth_grad_cam_pp", dict(key=KEY, n_samples=0), "n_samples=0 is too small, expected at least 1"),
        ("occlusion", dict(window=9), r"window=\(9, 9\) and stride=\(5, 5\) do not fit images of \(8, 10\): expected"),
        ("occlusion", dict(window=2, stride=3), "expected 1 ≤ stride ≤ window ≤ side along every axis"),
        ("occlusion", dict(window=(2, 2, 2)), r"window=\(2, 2, 2\) has 3 axes, expected 2: one per spatial axis"),
        ("finer_cam", dict(n_references=0), "n_references=0 is too small, expected at least 1"),
        ("shapley_cam", dict(utility="rest"), "utility 'rest' is not known; choose from 'residual_softmax', 'logit'"),
        ("is_cam", dict(preset="paper"), "is_cam's preset 'paper' is not known; choose from 'straight', 'torchcam'"),
        ("is_cam", dict(path="curved"), "path 'curved' is not known; choose from 'straight', 'running_sum'"),
    ],
)
def test_choices_are_checked(name, given, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        explain(getattr(cams, name), **given)


def test_a_single_image_is_told_from_several():
    """A network of any rank takes an image [h, w, c] for h images with one axis."""
    with pytest.raises(ValueError, match=r"labels have shape \(1,\), .* per image; a single image is images\[None\]"):
        cams.grad_cam(toy.MLP, PARAMS, IMAGES[0], [0])
    of_two_axes = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a.mean((1, 2)))
    with pytest.raises(
        ValueError, match=r"gives shape \(8,\), expected logits \[8, n\]: a single image is images\[None"
    ):
        cams.grad_cam(of_two_axes, (), IMAGES[0], None)


def test_finer_cam_needs_another_class():
    one = sscam.Apply(toy.features, lambda params, a, carry: toy.linear_head(params, a, carry)[:, :1])
    with pytest.raises(ValueError, match="this network has one class, and Finer-CAM needs another"):
        cams.finer_cam(one, PARAMS, IMAGES, [0, 0])


def _pixels(scale):
    return scale * jax.random.uniform(jax.random.key(0), IMAGES.shape)


@pytest.mark.parametrize("name", ["grad_cam", "eigen_cam", "score_cam", "occlusion"])
def test_pixels_are_told_from_normalised_images(name, as_users_run_it):
    """Only where the network says what it takes: another one may well take pixels."""
    wants = dataclasses.replace(toy.MLP, imagenet=True)
    options = dict(window=4) if name == "occlusion" else {}
    with pytest.raises(ValueError, match=r"images are from 0\.\d+ to 25\d, expected images normalised .*preprocess"):
        explain(getattr(cams, name), wants, images=_pixels(255.0), **options)
    with pytest.warns(UserWarning, match=r"images are from 0\.\d+ to [01][.\d]*, .*\(x - mean\) / std"):
        explain(getattr(cams, name), wants, images=_pixels(1.0), **options)
    explain(getattr(cams, name), wants, images=3 * _pixels(1.0) - 1, **options)
    for scale in (1.0, 255.0):
        explain(getattr(cams, name), toy.MLP, images=_pixels(scale), **options)


def test_pixels_are_told_within_an_outer_jit_too(as_users_run_it):
    wants = dataclasses.replace(toy.MLP, imagenet=True)
    pixels = _pixels(255.0)
    with pytest.raises(ValueError, match="expected images normalised"):
        jax.jit(lambda params: cams.grad_cam(wants, params, pixels, [0, 1]))(PARAMS)
    jax.jit(lambda images: cams.grad_cam(wants, PARAMS, images, [0, 1]))(pixels)  # traced: their values are not known


def test_a_bright_or_infinite_image_is_no_mistake():
    bright, infinite = 0.6 + 0.2 * _pixels(1.0), IMAGES.at[0, 0, 0].set(jnp.inf)
    for images in (bright, infinite, jnp.zeros_like(IMAGES), jnp.ones_like(IMAGES)):
        sscam.ops.check_normalised(images)
