"""Models whose settings, blocks or arrays are of kinds that real repositories have, against gradients by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import sscam_jax as sscam
from sscam_jax import adapt

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
LABELS = [2, 0]
BLOCKS, WIDTH = 3, 6


def grad_cam_by_hand(features, head) -> np.ndarray:
    """Grad-CAM of a network that is two functions, by `jax.grad` of each image's logit."""
    maps = features(IMAGES)
    gradient = jax.grad(lambda maps: head(maps)[jnp.arange(2), jnp.array(LABELS)].sum())(maps)
    return np.einsum("bc,bhwc->bhw", gradient.mean((1, 2)), maps)


def agrees(apply: sscam.Apply, params, expected: np.ndarray) -> None:
    raw = sscam.grad_cam(apply, params, IMAGES, LABELS).raw
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(raw, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# Configuration objects


class ConfiguredLinen(nn.Module):
    config: object

    def setup(self):
        self.conv = nn.Conv(self.config.width, tuple(self.config.conv.kernel))
        self.dense = nn.Dense(self.config.classes)

    def __call__(self, x):
        return self.dense(jnp.tanh(self.conv(x)).mean((1, 2)))


@pytest.mark.parametrize("kind", ["ConfigDict", "FrozenConfigDict"])
def test_linen_with_a_config_dict(kind):
    """The configuration of big_vision, vision_transformer and Flax's examples; a ConfigDict has no hash."""
    make = getattr(pytest.importorskip("ml_collections"), kind)
    module = ConfiguredLinen(make({"width": WIDTH, "classes": 4, "conv": {"kernel": [3, 3]}}))
    variables = module.init(KEY, IMAGES)
    bound = module.bind(variables)
    expected = grad_cam_by_hand(bound.conv, lambda maps: bound.dense(jnp.tanh(maps).mean((1, 2))))
    agrees(*adapt.linen(module, variables, "conv"), expected)


@dataclasses.dataclass
class Config:
    """As in bonsai: not frozen, so it has no hash."""

    width: int = WIDTH
    kernel: list[int] = dataclasses.field(default_factory=lambda: [3, 3])


class ConfiguredNNX(nnx.Module):
    def __init__(self, config: Config, rngs: nnx.Rngs) -> None:
        self.config = config
        self.conv = nnx.Conv(3, config.width, tuple(config.kernel), rngs=rngs)
        self.dense = nnx.Linear(config.width, 4, rngs=rngs)

    def __call__(self, x, *, rngs):
        return self.dense(jnp.tanh(self.conv(x)).mean((1, 2)))


@pytest.mark.parametrize("rngs", [None, KEY, {"dropout": KEY}], ids=["no key", "a key", "keys"])
def test_nnx_with_a_dataclass_and_keys_among_its_settings(rngs):
    model = ConfiguredNNX(Config(), nnx.Rngs(0))
    expected = grad_cam_by_hand(model.conv, lambda maps: model.dense(jnp.tanh(maps).mean((1, 2))))
    agrees(*adapt.flax_nnx(model, "conv", rngs=rngs), expected)


def test_equinox_with_a_dataclass_and_a_key_among_its_settings():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        config: Config
        conv: eqx.nn.Conv2d
        dense: eqx.nn.Linear

        def __call__(self, x, key):
            return self.dense(jnp.tanh(self.conv(x)).mean((1, 2)))

    net = Net(Config(), eqx.nn.Conv2d(3, WIDTH, 3, padding=1, key=KEY), eqx.nn.Linear(WIDTH, 4, key=KEY))

    def features(images):
        return jax.vmap(net.conv)(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)

    expected = grad_cam_by_hand(features, lambda maps: jax.vmap(net.dense)(jnp.tanh(maps).mean((1, 2))))
    agrees(*adapt.equinox(net, "conv", key=KEY), expected)


# Blocks in a scan


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.dense = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        return x + jnp.tanh(self.dense(x))


class Scanned(nnx.Module):
    """As jax-image-models has its transformers: one block whose arrays are stacked, and a scan over it."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, WIDTH, (3, 3), strides=2, rngs=rngs)
        self.blocks = nnx.split_rngs(splits=BLOCKS)(nnx.vmap(Block, in_axes=0, out_axes=0))(rngs)
        self.dense = nnx.Linear(WIDTH, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(self.conv(x), self.blocks)
        return self.dense(x.mean((1, 2)))


class InALoop(nnx.Module):
    """The recipe of docs/networks.md: the same arrays, block by block."""

    def __init__(self, model: Scanned) -> None:
        graph, state = nnx.split(model.blocks)
        slices = [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(BLOCKS)]
        self.blocks = nnx.List([nnx.merge(graph, each) for each in slices])
        self.conv, self.dense = model.conv, model.dense

    def __call__(self, x):
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        return self.dense(x.mean((1, 2)))


def test_scanned_blocks_one_by_one():
    model = Scanned(nnx.Rngs(0))
    looped = InALoop(model)
    np.testing.assert_allclose(looped(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)

    def features(images):
        return looped.blocks[1](looped.blocks[0](model.conv(images)))

    expected = grad_cam_by_hand(features, lambda maps: model.dense(looped.blocks[2](maps).mean((1, 2))))
    agrees(*adapt.flax_nnx(looped, "blocks.1"), expected)


def test_a_scanned_model_is_cut_before_and_after_its_stack(as_users_run_it):
    model = Scanned(nnx.Rngs(0))
    graph, state = nnx.split(model.blocks)

    def head(maps):
        last, _ = jax.lax.scan(lambda x, each: (nnx.merge(graph, each)(x), None), maps, state)
        return model.dense(last.mean((1, 2)))

    agrees(*adapt.flax_nnx(model, "conv"), grad_cam_by_hand(model.conv, head))
    apply, params = adapt.flax_nnx(model, "blocks.dense")
    with pytest.raises(ValueError, match="layer 'blocks.dense' runs inside a transformation .*: cut outside it"):
        sscam.grad_cam(apply, params, IMAGES, LABELS)


# Explicit sharding


class Sharded(nnx.Module):
    """As in jax-image-models: it asks its arrays how they are sharded, and says how its results shall be."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(3, WIDTH, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(WIDTH, 4, use_bias=False, rngs=rngs)

    def __call__(self, x):
        pooled = jnp.tanh(self.conv(x)).mean((1, 2))
        mesh = jax.typeof(pooled).sharding.mesh
        result = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, None))
        return jnp.einsum("bc,cn->bn", pooled, self.dense.kernel[...], out_sharding=result)


@pytest.mark.parametrize("devices", [1, 2])
def test_explicit_sharding(devices):
    model = Sharded(nnx.Rngs(0))
    kernel = model.dense.kernel[...]
    expected = grad_cam_by_hand(model.conv, lambda maps: jnp.tanh(maps).mean((1, 2)) @ kernel)
    mesh = jax.make_mesh((devices,), ("model",), axis_types=(jax.sharding.AxisType.Explicit,))
    over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "model"))
    with jax.set_mesh(mesh):
        model.dense.kernel = nnx.Param(jax.device_put(kernel, over))
        agrees(*adapt.flax_nnx(model, "conv"), expected)
