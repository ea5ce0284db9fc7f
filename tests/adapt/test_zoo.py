"""Networks of other packages, which nobody here wrote, with random parameters, under every method."""

import importlib.metadata
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import adapt
from sscam_jax.cams import registry

KEY = jax.random.key(0)
SIZE, CLASSES = 64, 5
# Every method but CAM, whose head must be one linear layer, and the controls, with as few passes as it can do with.
# The first two on every network, the others on the one that compiles soonest.
METHODS = [
    "grad-cam",
    "ss-cam:paper,score=logit,n_samples=1,budget=2",
    "score-cam:paper,score=logit,budget=2",
    "grad-cam++",
    "xgrad-cam",
    "hires-cam",
    "layer-cam",
    "smooth-grad-cam++:n_samples=1",
    "finer-cam",
    "shapley-cam",
    "eigen-cam",
    "eigen-grad-cam",
    "ablation-cam",
    "recipro-cam",
    "group-cam:groups=2",
    "is-cam:straight,score=logit,n_samples=1",
    "rise:n_samples=2,cells=2",
    "occlusion:window=32,stride=32",
]
# Each place or pixel has its own weight, not each channel.
WITHOUT_WEIGHTS = {"hires-cam", "layer-cam", "recipro-cam", "rise", "occlusion"}
AT_THE_INPUT = {"rise", "occlusion"}


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


def equimo_models():
    """From 2.0 on, which needs Python 3.12, equimo has its networks in another module."""
    pytest.importorskip("equimo")
    version = int(importlib.metadata.version("equimo").partition(".")[0])
    return importlib.import_module("equimo.vision.models" if version > 1 else "equimo.models")


def equinox_convnext():
    models = equimo_models()
    model = models.ConvNeXt(3, depths=[1, 1, 1, 1], dims=[8, 16, 24, 32], num_classes=CLASSES, key=KEY)
    return *adapt.equinox(model, "blocks.2", inference=True), (4, 4, 24)


def equinox_vit():
    """A class token and a register come before the patches."""
    models = equimo_models()
    options = dict(reg_tokens=1, num_classes=CLASSES, global_pool="token")
    model = models.VisionTransformer(SIZE, 3, dim=24, patch_size=16, num_heads=[2], depths=[2], key=KEY, **options)
    return *adapt.equinox(model, "blocks.0.blocks.0", tokens=2, inference=True), (4, 4, 24)


NETWORKS = [haiku_resnet, linen_resnet, equinox_convnext, equinox_vit, haiku_mobilenet]
# test_frameworks.py has a small network of each framework, which is quick enough.
CASES = [
    *(pytest.param(network, METHODS[:2], id=network.__name__, marks=pytest.mark.slow) for network in NETWORKS),
    *(
        # Those with convolutions over hundreds of channels take two minutes each.
        pytest.param(
            network,
            METHODS[2:],
            id=f"{network.__name__}, others",
            marks=[pytest.mark.slow, *[pytest.mark.zoo] * (network not in (equinox_vit, equinox_convnext))],
        )
        for network in NETWORKS
    ),
]


def test_no_method_is_left_out():
    assert {spec.partition(":")[0] for spec in METHODS} == set(registry.METHODS) - set(registry.CONTROLS) - {"cam"}


@pytest.mark.parametrize(("network", "specs"), CASES)
def test_methods(network, specs):
    apply, params, shape = network()
    logits = apply(params, images())
    for spec in specs:
        method, _ = registry.parse(spec)
        key = dict(key=KEY) if registry.draws(method) else {}
        saliency = method(apply, params, images(), None, **key)
        name = spec.partition(":")[0]
        assert saliency.raw.shape == (1, *((SIZE, SIZE) if name in AT_THE_INPUT else shape[:-1])), name
        assert saliency.weights.shape == (1, shape[-1]), name
        assert saliency.logits.shape == (1, CLASSES) and saliency.logits.any(), name
        assert saliency.raw.any() and saliency.weights.any() == (name not in WITHOUT_WEIGHTS), name
        assert all(np.isfinite(each).all() for each in saliency), name
        np.testing.assert_allclose(saliency.logits, logits, rtol=1e-3, atol=1e-3, err_msg=name)


def test_the_head_is_the_network_after_the_cut():
    """Grad-CAM's weights are the slopes of the class's logit, which finite differences of the whole network give."""
    apply, params, _ = equinox_vit()
    activations, carry = jax.jit(apply.features)(params, images())
    head = jax.jit(apply.head)  # op by op it compiles for longer
    weights = sscam.grad_cam(apply, params, images(), [1]).weights[0] * 16  # summed over the grid, not its mean
    step = 1e-2
    for channel in (0, 7):
        ahead, behind = (head(params, activations.at[..., channel].add(sign * step), carry)[0, 1] for sign in (1, -1))
        np.testing.assert_allclose(weights[channel], (ahead - behind) / (2 * step), rtol=2e-2, atol=1e-4)
