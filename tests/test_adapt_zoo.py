"""Networks of other packages, which nobody here wrote, with random parameters, under every method."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import adapt

KEY = jax.random.key(0)
SIZE, CLASSES = 64, 5
METHODS = {
    "grad_cam": sscam.grad_cam,
    "grad_cam_pp": sscam.grad_cam_pp,
    "score_cam": functools.partial(sscam.score_cam, budget=2, score="logit"),
    "ss_cam": functools.partial(sscam.ss_cam, key=KEY, n_samples=1, budget=2, score="logit"),
}


@pytest.fixture(autouse=True)
def as_their_users_run_them():
    """Other people's networks promote types and ranks, and warn."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        yield


def images(size: int = SIZE) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(1, size, size, 3)), jnp.float32)


def randomised(params):
    """Parameters with the zeros, with which some networks begin, replaced: they would give no signal."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not leaf.any()
            else leaf
        ),
        params,
    )


def haiku_resnet():
    hk = pytest.importorskip("haiku")
    transformed = hk.transform_with_state(lambda x, is_training: hk.nets.ResNet18(CLASSES)(x, is_training))
    params, state = transformed.init(KEY, images(), True)
    layer = "res_net18/~/block_group_2"
    return *adapt.haiku(transformed, randomised(params), layer, state=state, is_training=False), (4, 4, 256)


def haiku_mobilenet():
    hk = pytest.importorskip("haiku")
    transformed = hk.transform_with_state(
        lambda x, is_training: hk.nets.MobileNetV1(num_classes=CLASSES)(x, is_training)
    )
    params, state = transformed.init(KEY, images(), True)
    layer = "mobile_net_v1/mobile_net_v1_block_10"
    return *adapt.haiku(transformed, params, layer, state=state, is_training=False), (4, 4, 512)


def linen_resnet():
    jax_resnet = pytest.importorskip("jax_resnet")
    module = jax_resnet.ResNet18(n_classes=CLASSES)
    return *adapt.linen(module, randomised(module.init(KEY, images())), "layers_7"), (4, 4, 256)


def equinox_convnext():
    models = pytest.importorskip("equimo.models")
    model = models.ConvNeXt(3, depths=[1, 1, 1, 1], dims=[8, 16, 24, 32], num_classes=CLASSES, key=KEY)
    return *adapt.equinox(model, "blocks.2"), (4, 4, 24)


def equinox_vit():
    """A class token and a register come before the patches."""
    models = pytest.importorskip("equimo.models")
    options = dict(reg_tokens=1, num_classes=CLASSES, global_pool="token")
    model = models.VisionTransformer(SIZE, 3, dim=24, patch_size=16, num_heads=[2], depths=[2], key=KEY, **options)
    return *adapt.equinox(model, "blocks.0.blocks.0", tokens=2), (4, 4, 24)


NETWORKS = [haiku_resnet, haiku_mobilenet, linen_resnet, equinox_convnext, equinox_vit]


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_every_method(network):
    apply, params, shape = network()
    for name, method in METHODS.items():
        saliency = method(apply, params, images(), None)
        assert saliency.raw.shape == (1, *shape[:-1]) and saliency.weights.shape == (1, shape[-1]), name
        assert saliency.logits.shape == (1, CLASSES) and saliency.logits.any(), name
        assert saliency.weights.any() and saliency.raw.any(), name
        assert all(np.isfinite(each).all() for each in saliency), name
        np.testing.assert_allclose(saliency.logits, apply(params, images()), rtol=1e-3, atol=1e-5)


def test_the_head_is_the_network_after_the_cut():
    """Grad-CAM's weights are the slopes of the class's logit, which finite differences of the whole network give."""
    apply, params, _ = equinox_vit()
    activations, carry = apply.features(params, images())
    weights = sscam.grad_cam(apply, params, images(), [1]).weights[0] * 16  # summed over the grid, not its mean
    step = 1e-2
    for channel in (0, 7):
        ahead, behind = (
            apply.head(params, activations.at[..., channel].add(sign * step), carry)[0, 1] for sign in (1, -1)
        )
        np.testing.assert_allclose(weights[channel], (ahead - behind) / (2 * step), rtol=2e-2, atol=1e-4)
