"""The list of layers, and the call that chooses adapter and layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import sscam_jax as sscam
from sscam_jax import adapt

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 16, 3)), jnp.float32)


class Convolutions(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs)
        self.twice = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.last = nnx.Conv(4, 6, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.last(self.twice(self.twice(self.stem(x)))).mean((1, 2)))


class Transformer(nn.Module):
    """One block; the logits are read from the class token."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), (4, 4), name="patches")(x).reshape(x.shape[0], -1, 8)
        x = jnp.concatenate(
            [jnp.broadcast_to(self.param("cls", nn.initializers.ones, (1, 1, 8)), x[:, :1].shape), x], 1
        )
        y = nn.LayerNorm(name="before_attention")(x)
        q, k, v = jnp.split(nn.Dense(24, name="qkv")(y), 3, -1)
        x = x + nn.Dense(8, name="projection")(nn.softmax(q @ k.swapaxes(1, 2)) @ v)
        return nn.Dense(3, name="head")(nn.LayerNorm(name="after_attention")(x)[:, 0])


def test_layers_of_a_convolutional_network():
    found = {layer.name: layer for layer in adapt.layers(Convolutions(nnx.Rngs(0)), IMAGES)}
    assert list(found) == ["stem", "twice", "last", "dense"]
    assert found["stem"].shape == (8, 8, 4) and found["stem"].grid == (8, 8)
    assert found["twice"].grid is None, "it runs twice"
    assert found["dense"] == ("dense", (3,), None)


def test_the_last_layer_with_a_grid_is_chosen_and_named():
    network = Convolutions(nnx.Rngs(0))
    with pytest.warns(UserWarning, match=r"the network is cut after 'last', whose maps are \(8, 8\); adapt.layers"):
        apply, params = adapt.model(network, images=IMAGES)
    assert apply == adapt.flax_nnx(network, "last")[0] == adapt.model(network, layer="last")[0]
    assert apply == sscam.adapt(network, layer="last")[0], "the module is the same call"
    assert sscam.grad_cam(apply, params, IMAGES, [0, 1]).raw.any()


def test_in_a_transformer_the_cut_is_before_the_last_attention():
    module = Transformer()
    variables = module.init(KEY, IMAGES)
    found = {layer.name: layer.grid for layer in adapt.layers(module, IMAGES, params=variables)}
    assert found["before_attention"] == found["after_attention"] == found["qkv"] == (4, 4) and found["head"] is None
    with pytest.warns(UserWarning, match="the network is cut after 'before_attention'"):
        apply, params = adapt.model(module, params=variables, images=IMAGES)
    assert sscam.grad_cam(apply, params, IMAGES, [0, 1]).raw.any()


def test_equinox_and_haiku():
    eqx, hk = pytest.importorskip("equinox"), pytest.importorskip("haiku")
    layers = [eqx.nn.Conv2d(3, 4, 3, key=KEY), eqx.nn.Lambda(lambda x: x.mean((1, 2)))]
    with pytest.warns(UserWarning, match=r"cut after 'layers.0', whose maps are \(14, 14\)"):
        apply, params = adapt.model(eqx.nn.Sequential(layers), images=IMAGES)
    assert apply(params, IMAGES).shape == (2, 4)
    transformed = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(3)(hk.Conv2D(4, 3)(x).mean((1, 2)))))
    with pytest.warns(UserWarning, match=r"cut after 'conv2_d', whose maps are \(16, 16\)"):
        apply, params = adapt.model(transformed, params=transformed.init(KEY, IMAGES), images=IMAGES)
    assert apply(params, IMAGES).shape == (2, 3)


def test_mistakes(as_users_run_it):
    with pytest.raises(ValueError, match="no layer is named: name one by layer=, or give images="):
        adapt.model(Convolutions(nnx.Rngs(0)))
    with pytest.raises(ValueError, match="adapt.model is given a builtins.function; use adapt.plain for a function"):
        adapt.model(lambda x: x, layer="conv")
    with pytest.raises(ValueError, match="a model of adapt.linen holds no parameters: give them by params="):
        adapt.layers(Transformer(), IMAGES)
    with pytest.raises(ValueError, match="no layer has a grid that influences the outputs: adapt.layers lists all"):
        adapt.model(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), images=IMAGES)
