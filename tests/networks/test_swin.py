"""Swin-T against plain PyTorch, and its cuts."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import convert, networks
from sscam_jax.convert import rules
from sscam_jax.networks import network as shared
from sscam_jax.networks import registry
from sscam_jax.networks.swin import Swin, _together
from tests import toy
from tests.golden.random_tensors import summary, uniform, weight
from tests.networks.test_networks import every_stage, relative_error

GOLDEN = dict(np.load(pathlib.Path(__file__).parent.parent / "golden/swin.npz"))
CLASSES = 7
SIZES = ((224, 224), (97, 130))  # the other one pads windows and mergings, and has a single window at the end
TABLE = convert.RULES["swin_t"]
TINY = Swin(width=12, depths=(2, 2), heads=(2, 3), window=2).network("tiny")


def state_dict(network: shared.Network) -> dict[str, np.ndarray]:
    shapes = rules.torchvision_shapes(TABLE, shared.template(network, CLASSES))
    return {name: weight(name, shape) for name, shape in shapes.items()}


def tiny(layer: str | None = None):
    params = rules.torchvision_to_flax(state_dict(TINY), TABLE, shared.template(TINY, CLASSES))
    return shared.cut(TINY, CLASSES, layer), jax.tree.map(jnp.asarray, params)


def images(batch: int, height: int, width: int) -> jax.Array:
    return jnp.asarray(uniform("images", (batch, height, width, 3)))


@pytest.mark.parametrize("size", [pytest.param(SIZES[0], marks=pytest.mark.slow), SIZES[1]])
def test_every_layer_and_the_logits_equal_pytorchs(size):
    network, prefix = registry.find("swin_t"), f"{size[0]}x{size[1]}/"
    params = networks.load("swin_t", checkpoint=state_dict(network), num_classes=CLASSES)[1]
    seen, logits = every_stage(network, CLASSES, params, images(1, *size))
    assert {prefix + stage for stage in (*seen, "logits")} == {key for key in GOLDEN if key.startswith(prefix)}
    for stage, maps in seen.items():
        assert relative_error(summary(np.asarray(maps)), GOLDEN[prefix + stage]) <= 2e-6, stage
    assert relative_error(logits, GOLDEN[f"{prefix}logits"]) <= 2e-6


def test_names_and_shapes_are_torchvisions():
    shapes = {name: tensor.shape for name, tensor in state_dict(registry.find("swin_t")).items()}
    assert shapes["features.1.0.attn.relative_position_bias_table"] == (169, 3)
    assert shapes["features.6.reduction.weight"] == (768, 1536) and "features.6.reduction.bias" not in shapes
    # torchvision's own count, of 1000 classes.
    assert sum(np.prod(shape) for shape in shapes.values()) + (1000 - CLASSES) * 769 == 28_288_354


def test_conversion_is_a_bijection_and_the_index_is_dropped():
    tensors, template = state_dict(TINY), shared.template(TINY, CLASSES)
    index = {"features.1.0.attn.relative_position_index": np.arange(16)}
    back = rules.flax_to_torchvision(rules.torchvision_to_flax(tensors | index, TABLE, template), TABLE)
    assert back.keys() == tensors.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[name])


def test_who_attends_to_whom_after_the_roll():
    together = _together(4, 2, 2, (1, 0))
    assert together.shape == (2, 4, 4)
    assert together[0].all()
    # The last window's second row rolled over from the top of the image.
    np.testing.assert_array_equal(together[1], np.kron(np.eye(2), np.ones((2, 2))).astype(bool))


def test_cuts():
    params, x = tiny()[1], images(2, 33, 26)
    applies = {layer: tiny(layer)[0] for layer in shared.stage_names(TINY)}
    assert list(applies) == ["features.0.0", "features.0.2"] + [f"features.{i}" for i in ("1.0", "1.1", "2")] + [
        "features.3.0",
        "features.3.1",
        "norm",
    ]
    first, *others = jax.jit(lambda params, x: [apply(params, x) for apply in applies.values()])(params, x)
    others.append(jax.jit(toy.in_sections, static_argnums=0)(tiny()[0].sections, params, x))
    for logits in others:
        np.testing.assert_allclose(logits, first, rtol=1e-5, atol=1e-5)
    assert tiny()[0] == applies["norm"] and tiny("features.1")[0] == applies["features.1.1"]
    assert tiny("features")[0] == applies["features.3.1"]


@pytest.mark.slow
def test_methods_run():
    apply, params = tiny()
    x, labels = images(3, 32, 32), [1, 2, 3]
    gradient = sscam.grad_cam(apply, params, x, labels)
    # The head is average pooling and a linear layer, so that CAM is defined, and is Grad-CAM.
    np.testing.assert_allclose(sscam.cam(apply, params, x, labels).maps, gradient.maps, atol=1e-5)
    np.testing.assert_allclose(
        gradient.weights * gradient.raw[0].size, params["head"]["kernel"][:, 1:4].T, rtol=1e-4, atol=1e-6
    )
    noisy = sscam.ss_cam(apply, params, x, labels, key=jax.random.key(0), n_samples=2)
    for saliency in (gradient, sscam.grad_cam_pp(apply, params, x, labels), noisy):
        assert saliency.maps.shape == (3, 32, 32) and not bool(saliency.flat.all())
        assert bool(jnp.isfinite(saliency.maps).all())
    assert noisy.passes.tolist() == 3 * [1 + 2 * 24]
    assert sscam.score_cam(apply, params, x, labels).passes.tolist() == 3 * [2 + 24]  # and its baseline
