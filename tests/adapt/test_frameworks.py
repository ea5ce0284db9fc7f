"""One network in every framework, against the same network in plain functions with a true cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import sscam_jax as sscam
from sscam_jax import adapt

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WIDTH, CLASSES = 4, 3


def _normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


IMAGES = _normal(2, 6, 8, 3)
LABELS = [0, 2]
KERNEL, SCALE, MEAN, VAR = _normal(3, 3, 3, WIDTH), _normal(WIDTH), _normal(WIDTH), _normal(WIDTH) ** 2 + 0.5
HIDDEN, DENSE = _normal(WIDTH, 5), _normal(5, CLASSES)
EPSILON = 1e-5
METHODS = {
    "grad_cam": sscam.grad_cam,
    "score_cam": functools.partial(sscam.score_cam, chunk_size=4),
    "ss_cam": functools.partial(sscam.ss_cam, key=KEY, n_samples=2, chunk_size=4),
}


def features(params, images):
    maps = jax.lax.conv_general_dilated(images, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    row = (1, 1, 1, -1)
    maps = (maps - MEAN.reshape(row)) * (SCALE / jnp.sqrt(VAR + EPSILON)).reshape(row)
    return jax.nn.relu(maps), ()


def head(params, maps, carry):
    return jnp.tanh(maps @ HIDDEN).mean((1, 2)) @ DENSE


TRUE = sscam.Apply(features, head)


def close(left: sscam.Saliency, right: sscam.Saliency) -> None:
    for name, a, b in zip(left._fields, left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


def equals_the_true_cut(apply: sscam.Apply, params) -> None:
    for method in METHODS.values():
        close(method(apply, params, IMAGES, LABELS), method(TRUE, {}, IMAGES, LABELS))


# Flax NNX


class NNXBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, training: bool | None = None) -> None:
        self.conv = nnx.Conv(3, WIDTH, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, use_bias=False, epsilon=EPSILON, rngs=rngs)
        self.training = training

    def __call__(self, x):
        return jax.nn.relu(self.norm(self.conv(x), use_running_average=self.training and not self.training))


class NNXNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, training: bool | None = None) -> None:
        self.backbone = nnx.Sequential(NNXBlock(rngs, training), nnx.Dropout(0.5, rngs=rngs))
        self.hidden = nnx.Linear(WIDTH, 5, use_bias=False, rngs=rngs)
        self.dense = nnx.Linear(5, CLASSES, use_bias=False, rngs=rngs)
        self.noise = nnx.Dropout(0.5, rngs=rngs)

    def pooled(self, x):
        return jnp.tanh(self.hidden(x)).mean((1, 2))

    def __call__(self, x, *, train=None):
        return self.dense(self.noise(self.pooled(self.backbone(x)), deterministic=train and not train))


def nnx_net(seed: int = 0, training: bool | None = None) -> NNXNet:
    net = NNXNet(nnx.Rngs(seed), training)
    block = net.backbone.layers[0]
    pairs = [(block.conv.kernel, KERNEL), (block.norm.scale, SCALE), (block.norm.mean, MEAN), (block.norm.var, VAR)]
    for variable, value in [*pairs, (net.hidden.kernel, HIDDEN), (net.dense.kernel, DENSE)]:
        variable[...] = value
    return net


def test_nnx():
    net = nnx_net()
    apply, params = adapt.flax_nnx(net, "backbone.layers.0")
    equals_the_true_cut(apply, params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params)), "no random state among the parameters"
    assert not net.noise.deterministic, "the user's model stays as it was"
    assert type(net.backbone.layers[0]) is NNXBlock


def test_nnx_a_method_is_a_cut_and_the_names_of_cuts_are_shown():
    apply, params = adapt.flax_nnx(nnx_net(), "hidden")
    assert apply.features(params, IMAGES)[0].shape == (2, 6, 8, 5)
    apply, params = adapt.flax_nnx(nnx_net(), "pooled")
    assert apply.features(params, IMAGES)[0].shape == (2, 5)
    np.testing.assert_allclose(apply(params, IMAGES), TRUE({}, IMAGES), rtol=1e-4, atol=1e-5)
    in_order = (
        "'backbone', 'backbone.layers.0', 'backbone.layers.0.conv', 'backbone.layers.0.norm', .*'hidden', .*'pooled'$"
    )
    close = "'backbone.layers.[01]', 'backbone.layers.[01]', .*'backbone'.*'hidden', .*'pooled'$"
    for layer in ("layer4", "", "backbone.layers", "backbone.layers.2"):
        choices = close if "backbone" in layer else in_order
        with pytest.raises(ValueError, match=f"layer '{layer}' is not a module of NNXNet, .*; choose from {choices}"):
            adapt.flax_nnx(nnx_net(), layer)


def test_nnx_two_models_of_a_kind_are_one_network():
    first, second = (adapt.flax_nnx(nnx_net(seed), "backbone")[0] for seed in (0, 1))
    assert first == second and hash(first) == hash(second)
    assert adapt.flax_nnx(nnx_net(), "backbone.layers.0")[0] != first


def test_nnx_state_that_changes_is_refused():
    for net, options, where in (
        (nnx_net(training=True), {}, r"\['norm'\]\['mean'\]"),
        (nnx_net(), dict(train=True), r"\['rngs'\]\['count'\]"),
    ):
        apply, params = adapt.flax_nnx(net, "backbone", **options)
        with pytest.raises(ValueError, match=f"the state of NNXNet changes after model.eval.. too, at .*{where}"):
            apply(params, IMAGES)


def test_nnx_parameters_of_another_model_are_refused():
    apply, params = adapt.flax_nnx(nnx_net(), "backbone")
    message = r"params are not those of this network: missing \['backbone.layers.0.conv.kernel', .*not expected \['b'\]"
    with pytest.raises(ValueError, match=message):
        apply({"hidden": params["hidden"], "b": 1}, IMAGES)


def test_nnx_parameters_that_were_serialised():
    """As text, the index 10 sorts before 2: twelve equal layers, each of which must get its own weights."""

    class Deep(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.blocks = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(12)])

        def __call__(self, x):
            for block in self.blocks:
                x = jnp.tanh(block(x))
            return x.mean((1, 2))

    apply, params = adapt.flax_nnx(Deep(nnx.Rngs(0)), "blocks.0")
    as_text = {"blocks": {str(index): block for index, block in params["blocks"].items()}}
    np.testing.assert_allclose(apply(as_text, IMAGES), apply(params, IMAGES), rtol=1e-6)


# Flax Linen


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(WIDTH, (3, 3), use_bias=False)(x)
        return nn.relu(nn.BatchNorm(not train, use_bias=False, epsilon=EPSILON)(x))


class LinenNet(nn.Module):
    settings: tuple = ()

    def setup(self):
        self.backbone = LinenBlock()
        self.hidden = nn.Sequential([nn.Dense(5, use_bias=False), jnp.tanh])
        self.dense = nn.Dense(CLASSES, use_bias=False)
        self.dropout = nn.Dropout(0.5)

    def features(self, x, train):
        return self.dropout(self.backbone(x, train), deterministic=not train)

    def __call__(self, x, train=False):
        return self.dense(self.hidden(self.features(x, train)).mean((1, 2)))


LINEN = {
    "params": {
        "backbone": {"Conv_0": {"kernel": KERNEL}, "BatchNorm_0": {"scale": SCALE}},
        "hidden": {"layers_0": {"kernel": HIDDEN}},
        "dense": {"kernel": DENSE},
    },
    "batch_stats": {"backbone": {"BatchNorm_0": {"mean": MEAN, "var": VAR}}},
}


@pytest.mark.parametrize("layer", ["backbone", "features"])
def test_linen(layer):
    apply, params = adapt.linen(LinenNet(), LINEN, layer, train=False)
    equals_the_true_cut(apply, params)
    again = adapt.linen(LinenNet(), LINEN, layer, train=False)[0]
    assert again == apply and hash(again) == hash(apply)
    assert adapt.linen(LinenNet(("other",)), LINEN, layer, train=False)[0] != apply


def test_linen_lists_and_partial_functions_among_the_settings():
    def net(scale):
        return nn.Sequential([nn.Conv(2, (1, 1)), functools.partial(jnp.multiply, scale), {"a": [1]}.get])

    same = [adapt.linen(net(2.0), {}, "layers_0")[0] for _ in range(1)]
    assert same[0] != adapt.linen(net(3.0), {}, "layers_0")[0]
    unhashable = nn.Sequential([{1}])
    assert adapt.linen(unhashable, {}, "layers_0")[0] != adapt.linen(unhashable, {}, "layers_0")[0]


def test_linen_refuses(as_users_run_it):
    apply, params = adapt.linen(LinenNet(), LINEN, "layer4")
    choices = ("'backbone'", "'backbone.Conv_0'", "'backbone.BatchNorm_0'")
    with pytest.raises(ValueError, match="layer 'layer4' is not a module that runs, nor a method .*; choose") as error:
        apply(params, IMAGES)
    assert all(choice in str(error.value) for choice in choices) and "setup" not in str(error.value)
    apply, params = adapt.linen(LinenNet(), LINEN, "backbone", train=True)
    with pytest.raises(ValueError, match="LinenNet is not in inference mode .*: give its switch as a keyword"):
        apply(params, IMAGES)


def test_linen_batch_norm_over_an_axis_in_training(as_users_run_it):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            x = nn.relu(nn.BatchNorm(use_running_average=not train, axis_name="batch")(nn.Conv(4, (3, 3))(x)))
            return nn.Dense(3)(x.mean((1, 2)))

    variables = Net().init(KEY, IMAGES, train=False)
    apply, params = adapt.linen(Net(), variables, "Conv_0")
    with pytest.raises(ValueError, match="Net is not in inference mode .*axis name.*, such as train=False"):
        sscam.grad_cam(apply, params, IMAGES, LABELS)
    sscam.grad_cam(*adapt.linen(Net(), variables, "Conv_0", train=False), IMAGES, LABELS)


def test_settings_that_are_arrays_and_lists():
    """Keys and configurations without a hash are settings too: the network is then equal to itself only."""

    class Net(nn.Module):
        config: dict

        @nn.compact
        def __call__(self, x, rngs=None):
            return nn.Dense(self.config["classes"][0])(nn.Conv(4, (3, 3))(x).mean((1, 2)))

    net = Net({"classes": [3], "tags": {1}})
    variables = net.init(KEY, IMAGES)
    apply, params = adapt.linen(net, variables, "Conv_0", rngs=jax.random.key(0))
    assert sscam.grad_cam(apply, params, IMAGES, LABELS).raw.any()
    assert apply != adapt.linen(net, variables, "Conv_0", rngs=jax.random.key(0))[0]


def test_nnx_functions_in_a_list_are_layers():
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.stages = nnx.List([nnx.Conv(3, 4, (3, 3), rngs=rngs), jax.nn.relu])
            self.dense = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.dense(x.mean((1, 2)))

    apply, params = adapt.flax_nnx(Net(nnx.Rngs(0)), "stages.1")
    before, _ = adapt.flax_nnx(Net(nnx.Rngs(0)), "stages.0")
    activations = apply.features(params, IMAGES)[0]
    assert activations.min() == 0 and before.features(params, IMAGES)[0].min() < 0
    np.testing.assert_allclose(activations, before.features(params, IMAGES)[0].clip(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (LinenNet(), "adapt.flax_nnx is given a .*LinenNet; use adapt.linen"),
        (lambda x: x, "adapt.flax_nnx is given a builtins.function; use adapt.plain for a function of your own"),
    ],
)
def test_a_model_of_another_framework(model, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        adapt.flax_nnx(model, "backbone")


# Equinox


@pytest.fixture
def eqx():
    return pytest.importorskip("equinox")


def eqx_net(eqx):
    class Block(eqx.Module):
        conv: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm

        def __call__(self, x, state):
            x, state = self.norm(self.conv(x), state)
            return jax.nn.relu(x), state

    class Net(eqx.Module):
        blocks: list
        hidden: eqx.nn.Conv2d
        dropout: eqx.nn.Dropout
        dense: eqx.nn.Linear

        def __init__(self, key):
            norm = eqx.nn.BatchNorm(WIDTH, "batch", eps=EPSILON, mode="ema")
            self.blocks = [Block(eqx.nn.Conv2d(3, WIDTH, 3, padding=1, use_bias=False, key=key), norm)]
            self.hidden = eqx.nn.Conv2d(WIDTH, 5, 1, use_bias=False, key=key)
            self.dropout = eqx.nn.Dropout(0.5)
            self.dense = eqx.nn.Linear(5, CLASSES, use_bias=False, key=key)

        def __call__(self, x, state):
            x, state = self.blocks[0](x, state)
            x = self.dropout(jnp.tanh(self.hidden(x)))
            return self.dense(x.mean((1, 2))), state

    net, state = eqx.nn.make_with_state(Net)(KEY)
    net = eqx.tree_at(
        lambda net: (net.blocks[0].conv.weight, net.blocks[0].norm.weight, net.hidden.weight, net.dense.weight),
        net,
        (KERNEL.transpose(3, 2, 0, 1), SCALE, HIDDEN.T[:, :, None, None], DENSE.T),
    )
    return net, state.set(net.blocks[0].norm.ema_state_index, (MEAN, VAR))


def test_equinox(eqx):
    net, state = eqx_net(eqx)
    apply, params = adapt.equinox(net, "blocks.0", state=state)
    equals_the_true_cut(apply, params)
    again = adapt.equinox(net, "blocks.0", state=state)[0]
    assert again == apply and hash(again) == hash(apply)
    assert not net.dropout.inference, "the user's model stays as it was"


def test_equinox_refuses(eqx):
    net, state = eqx_net(eqx)
    with pytest.raises(ValueError, match="layer 'layer4' is not a module of Net, .*; choose from 'blocks.0', "):
        adapt.equinox(net, "layer4", state=state)

    class Training(eqx.Module):
        net: eqx.Module

        def __call__(self, x, state):
            x, state = self.net(x, state)
            index = self.net.blocks[0].norm.ema_state_index
            return x, state.set(index, jax.tree.map(lambda each: each * 2, state.get(index)))

    apply, params = adapt.equinox(Training(net), "net.blocks.0", state=state)
    with pytest.raises(ValueError, match=r"the state of Training changes after eqx.nn.inference_mode\(model\) too"):
        apply(params, IMAGES)


def test_equinox_functions_in_a_tuple_are_layers(eqx):
    conv, dense = eqx.nn.Conv2d(3, 4, 3, key=KEY), eqx.nn.Linear(4, 3, key=KEY)

    class Net(eqx.Module):
        layers: tuple

        def __call__(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    net = Net((conv, jax.nn.relu, lambda x: x.mean((1, 2)), dense))
    apply, params = adapt.equinox(net, "layers.1")
    assert apply.features(params, IMAGES)[0].min() == 0
    expected = adapt.equinox(net, "layers.0")[0].features(params, IMAGES)[0].clip(0)
    np.testing.assert_allclose(apply.features(params, IMAGES)[0], expected, rtol=1e-5, atol=1e-6)


def test_equinox_a_forgotten_state_and_a_mistaken_layout(eqx, as_users_run_it):
    net, state = eqx_net(eqx)
    with pytest.raises(ValueError, match="the model has a state: .*give the state by state="):
        adapt.equinox(net, "blocks.0")
    apply, params = adapt.equinox(net, "blocks.0", state=state, channels_first=False)
    with pytest.raises(ValueError, match=r"images of shape \[b, 6, 8, 3\] .* but it does with channels_first=True in"):
        sscam.grad_cam(apply, params, IMAGES, LABELS)
    apply, params = adapt.equinox(net, "blocks.0", state=state)
    with pytest.raises(ValueError, match=r"but it does with the channels last in the images, jnp.moveaxis\(images"):
        apply(params, jnp.moveaxis(IMAGES, -1, 1))


# Haiku


@pytest.fixture
def hk():
    return pytest.importorskip("haiku")


def hk_net(hk, training: bool = False, dropout: bool = False):
    class Backbone(hk.Module):
        def __call__(self, x):
            x = hk.Conv2D(WIDTH, 3, with_bias=False)(x)
            norm = hk.BatchNorm(create_scale=True, create_offset=False, decay_rate=0.9, eps=EPSILON)
            return jax.nn.relu(norm(x, is_training=training))

    class Net(hk.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone()

        def features(self, x):
            return self.backbone(x)

        def __call__(self, x):
            x = jnp.tanh(hk.Linear(5, with_bias=False)(self.features(x)))
            x = hk.dropout(hk.next_rng_key(), 0.5, x) if dropout else x
            return hk.Linear(CLASSES, with_bias=False)(x.mean((1, 2)))

    transformed = hk.transform_with_state(lambda x: Net()(x))
    params = {
        "net/~/backbone/conv2_d": {"w": KERNEL},
        "net/~/backbone/batch_norm": {"scale": SCALE.reshape(1, 1, 1, -1)},
        "net/linear": {"w": HIDDEN},
        "net/linear_1": {"w": DENSE},
    }
    row = (1, 1, 1, -1)
    state = {
        f"net/~/backbone/batch_norm/~/{name}_ema": {
            "counter": jnp.int32(1),
            "hidden": value.reshape(row),
            "average": value.reshape(row),
        }
        for name, value in (("mean", MEAN), ("var", VAR))
    }
    return transformed, params, state


@pytest.mark.parametrize("layer", ["net/~/backbone", "net.features"])
def test_haiku(hk, layer):
    transformed, params, state = hk_net(hk)
    apply, adapted = adapt.haiku(transformed, params, layer, state=state)
    equals_the_true_cut(apply, adapted)
    again = adapt.haiku(transformed, params, layer, state=state)[0]
    assert again == apply and hash(again) == hash(apply)


def test_haiku_refuses(hk):
    transformed, params, state = hk_net(hk)
    apply, adapted = adapt.haiku(transformed, params, "layer4", state=state)
    with pytest.raises(
        ValueError,
        match="layer 'layer4' is not a module that runs, .*'net.features', 'net/linear', 'net/linear_1', 'net'$",
    ):
        apply(adapted, IMAGES)
    for options, message in (
        (dict(training=True), "the network's state changes, at .*mean_ema.*: transform it in inference mode"),
        (dict(dropout=True), "the network draws random numbers .*: transform it in inference mode"),
    ):
        transformed, params, state = hk_net(hk, **options)
        apply, adapted = adapt.haiku(transformed, params, "net/~/backbone", state=state)
        # Haiku's moving averages mix integers and floats.
        with pytest.raises(ValueError, match=message), jax.numpy_dtype_promotion("standard"):
            apply(adapted, IMAGES)


def test_haiku_without_a_key_or_a_state(hk):
    transformed, params, state = hk_net(hk)
    equals_the_true_cut(*adapt.haiku(hk.without_apply_rng(transformed), params, "net/~/backbone", state=state))
    with pytest.raises(ValueError, match="the network has a state: give it by state="):
        adapt.haiku(transformed, params, "net/~/backbone")


def test_haiku_other_errors_are_the_networks_own(hk):
    def broken(x):
        hk.Linear(2)(x)
        raise ValueError("too small")

    transformed = hk.transform(broken)
    apply, params = adapt.haiku(transformed, {"linear": {"w": DENSE[:3, :2], "b": DENSE[0, :2]}}, "linear")
    with pytest.raises(ValueError, match="^too small"):
        apply(params, IMAGES)


def test_no_framework_is_imported_that_is_not_used():
    import subprocess
    import sys

    script = "import sscam_jax.adapt, sys; assert not {'equinox', 'haiku'} & sys.modules.keys(), 'imported'"
    subprocess.run([sys.executable, "-c", script], check=True)
