"""Built-in networks as somebody else's modules: the adapter's maps are those of the true cut."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import sscam_jax as sscam
from sscam_jax import adapt
from sscam_jax.networks import init_params, network
from sscam_jax.networks.resnet import RESNET18
from sscam_jax.networks.squeezenet import SQUEEZENET1_1
from sscam_jax.networks.vgg import VGG16_NETWORK

KEY = jax.random.key(0)
METHODS = {
    "grad_cam": sscam.grad_cam,
    "score_cam": functools.partial(sscam.score_cam, budget=4, chunk_size=2),
    "ss_cam": functools.partial(sscam.ss_cam, key=KEY, n_samples=1, budget=4, chunk_size=2),
}


class Whole(nnx.Module):
    """A built-in network as somebody else's module, which knows no cut."""

    def __init__(self, net) -> None:
        self.net = net

    def __call__(self, x):
        for stage in self.net.body().values():
            x = stage(x)
        return self.net.classify(self.net.pool(x))


BUILT_IN = {  # network, layer, image size, methods
    "resnet18": (RESNET18, "layer3.1", 32, ("grad_cam", "ss_cam")),
    "squeezenet1_1": (SQUEEZENET1_1, "features.12", 33, ("grad_cam", "score_cam", "ss_cam")),
    "vgg16": (VGG16_NETWORK, "features.21", 32, ("grad_cam",)),
}


@pytest.mark.slow  # test_frameworks.py has a small network of each framework
@pytest.mark.parametrize("name", BUILT_IN)
def test_nnx_built_in_networks_are_their_true_cuts(name):
    description, layer, size, methods = BUILT_IN[name]
    params = init_params(name, KEY, num_classes=5)
    apply, adapted = adapt.flax_nnx(Whole(network.bind(description, 5, params)), f"net.{layer}")
    # Without what changes the numbers by rounding, and that only a built-in network has.
    true = dataclasses.replace(network.cut(description, 5, layer), sections=None, for_cpu=None)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(1, size, size, 3)), jnp.float32)
    for method in methods:
        left, right = (METHODS[method](*each, images, None) for each in ((apply, adapted), (true, params)))
        assert right.raw.any() and right.weights.any()
        for field, a, b in zip(left._fields, left, right, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=f"{method} {field}")
