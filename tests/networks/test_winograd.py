"""Winograd's form of the 3x3 convolution: the same numbers as the direct one, whichever way is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sscam_jax import networks
from sscam_jax.networks import network, registry, winograd
from sscam_jax.networks.winograd import Conv3x3, transform
from tests.networks.test_networks import CLASSES, state_dict


def direct(x, kernel, bias):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout, precision="highest") + bias


def transformed(conv):
    """The layer with its kernel as G g Gᵀ."""
    kernel, bias = conv.kernel[...], conv.bias[...]
    params = transform({"conv": {"kernel": kernel, "bias": bias}}, (("conv",),))["conv"]
    graph, state = nnx.split(conv)
    return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(params)))


@pytest.mark.parametrize("height,width,c_in,c_out", [(8, 8, 32, 16), (7, 5, 33, 40), (1, 2, 64, 3)])
@pytest.mark.parametrize("most", [1 << 20, 0], ids=["winograd", "recovered kernel"])
def test_equals_the_direct_convolution(height, width, c_in, c_out, most, monkeypatch):
    monkeypatch.setattr(winograd, "_MOST_NUMBERS", most)
    conv = Conv3x3(c_in, c_out, rngs=nnx.Rngs(0))
    conv.bias[...] = jax.random.normal(jax.random.key(1), (c_out,))
    x = jax.random.normal(jax.random.key(0), (3, height, width, c_in))
    expected = direct(x, conv.kernel[...], conv.bias[...].reshape(1, 1, 1, -1))
    fast = transformed(conv)
    assert fast.kernel[...].shape == (4, 4, c_in, c_out)
    for layer in (conv, fast):
        found = jax.jit(lambda x, layer=layer: layer(x))(x)
        np.testing.assert_allclose(found, expected, atol=3e-6 * float(jnp.abs(expected).max()))


def test_thin_layers_keep_their_kernel():
    conv = Conv3x3(winograd._FEWEST_CHANNELS - 1, 4, rngs=nnx.Rngs(0))
    assert transformed(conv).kernel[...].shape == conv.kernel[...].shape


@pytest.mark.parametrize("name,count", [("resnet18", 13), ("squeezenet1_0", 8), ("squeezenet1_1", 8), ("vgg16", 13)])
def test_every_3x3_layer_of_stride_1_is_found(name, count):
    assert len(network._conv3x3_paths(registry.NETWORKS[name])) == count


def test_networks_answer_the_same():
    apply = networks.load("squeezenet1_1", checkpoint=state_dict("squeezenet1_1"), num_classes=CLASSES)[0]
    params = networks.init_params("squeezenet1_1", jax.random.key(0), num_classes=CLASSES)
    fast = apply.for_cpu(params)
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(fast) if leaf.ndim == 4} == {(1, 1), (3, 3), (4, 4)}
    x = jax.random.normal(jax.random.key(0), (2, 65, 64, 3))
    np.testing.assert_allclose(jax.jit(apply)(fast, x), jax.jit(apply)(params, x), rtol=1e-4, atol=1e-5)


def test_parameters_are_not_changed_in_place():
    params = {"conv": {"kernel": jnp.ones((3, 3, 32, 2))}}
    transform(params, (("conv",),))
    assert params["conv"]["kernel"].shape == (3, 3, 32, 2)
