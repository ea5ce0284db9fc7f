"""The networks against plain PyTorch, and their cuts."""

import functools
import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from sscam_jax import convert, networks
from sscam_jax.convert import rules
from sscam_jax.networks import network as shared
from sscam_jax.networks import registry
from tests.golden.random_tensors import summary, uniform, weight

GOLDEN = dict(np.load(pathlib.Path(__file__).parent.parent / "golden/networks.npz"))
CLASSES = 7
SIZES = {"resnet18": (97, 70), "vgg16": (102, 70), "squeezenet1_0": (83, 110), "squeezenet1_1": (83, 110)}
SMALLEST = {"resnet18": 1, "vgg16": 32, "squeezenet1_0": 21, "squeezenet1_1": 17}
NAMES = tuple(SIZES)


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected))


def state_dict(name: str, num_classes: int = CLASSES) -> dict[str, np.ndarray]:
    shapes = rules.torchvision_shapes(convert.RULES[name], registry.template_of(registry.find(name), num_classes))
    return {tensor: weight(tensor, shape) for tensor, shape in shapes.items()}


@functools.partial(jax.jit, static_argnums=(0, 1))
def every_stage(network: shared.Network, num_classes: int, params, state):
    """The maps after each stage of a network, and its logits."""
    module, seen = shared.bind(network, num_classes, params), {}
    for stage, function in module.body().items():
        seen[stage] = state = function(state)
    return seen, module.classify(module.pool(state))


def shapes_only(name: str, layer: str | None = None):
    """A network and the shapes of its parameters, without any weights."""
    network = registry.find(name)
    return shared.cut(network, CLASSES, layer), shared.template(network, CLASSES)


def images(*shape: int) -> jax.Array:
    return jnp.asarray(uniform("images", shape))


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_and_the_logits_equal_pytorchs(name):
    [model] = [model for model in networks.models() if model.name == name]
    params = networks.load(name, checkpoint=state_dict(name), num_classes=CLASSES)[1]
    stages = [layer.removeprefix(f"{name}/") for layer in GOLDEN if layer.startswith(f"{name}/")]
    stages = [stage for stage in stages if stage not in ("logits", "smallest")]
    groups = {layer for layer in model.layers if layer not in stages}
    assert set(model.layers) == groups | set(stages)
    applies = {layer: shapes_only(name, layer)[0] for layer in model.layers}
    ends = [*groups, model.default_layer]

    @jax.jit
    def run(params, images):
        seen = {layer: apply.features(params, images)[0] for layer, apply in applies.items()}
        return seen, {layer: applies[layer].head(params, seen[layer], ()) for layer in ends}

    seen, logits = run(params, images(2, *SIZES[name], 3))
    for stage in stages:
        assert relative_error(summary(np.asarray(seen[stage])), GOLDEN[f"{name}/{stage}"]) <= 1e-5, stage
    for layer in ends:
        assert relative_error(logits[layer], GOLDEN[f"{name}/logits"]) <= 1e-5, layer
    apply = applies[model.default_layer]
    smallest = jax.jit(apply)(params, images(1, SMALLEST[name], SMALLEST[name], 3))
    assert relative_error(smallest, GOLDEN[f"{name}/smallest"]) <= 1e-5


@pytest.mark.parametrize("case", [key for key in GOLDEN if key.startswith("max_pool/")])
def test_max_pool_is_pytorchs(case):
    length, window, stride, padding, ceil_mode = map(int, case.split("/")[1:])
    maps = jnp.asarray(uniform("pool", (1, length, 12, 1)))
    np.testing.assert_array_equal(shared.max_pool(maps, window, stride, padding, bool(ceil_mode)), GOLDEN[case])


def test_max_pool_gives_its_gradient_to_the_first_maximum():
    maps = jnp.zeros((1, 4, 4, 1)).at[0, 3, 2].set(1.0)
    gradient = jax.grad(lambda x: shared.max_pool(x, 2, 2).sum())(maps)[0, :, :, 0]
    expected = [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("length", range(1, 13))
def test_adaptive_average_pool_is_pytorchs(length):
    maps = jnp.asarray(uniform("pool", (1, length, 12, 1)))
    pooled = shared.adaptive_average_pool(maps, 7)
    np.testing.assert_allclose(pooled, GOLDEN[f"average_pool/{length}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("resnet18", (7, 7, 512)),
        ("vgg16", (14, 14, 512)),
        ("squeezenet1_0", (13, 13, 512)),
        ("squeezenet1_1", (13, 13, 512)),
    ],
)
def test_default_layer_is_the_papers(name, grid):
    apply, params = shapes_only(name)
    activations, carry = jax.eval_shape(apply.features, params, jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32))
    assert activations.shape == (2, *grid)
    assert carry == ()


@pytest.mark.parametrize("name", NAMES)
def test_images_too_small_are_refused(name):
    apply, params = shapes_only(name)
    side = SMALLEST[name]
    for shape in ((1, side, side - 1, 3), (1, side - 1, side, 3), (1, side, side, 1)):
        with pytest.raises(
            ValueError, match=rf"expected \[b, height, width, 3\] .* at least {side} pixels for '{name}'"
        ):
            jax.eval_shape(apply, params, jax.ShapeDtypeStruct(shape, jnp.float32))


def test_a_name_of_a_group_equals_its_last_stage():
    for name, group, stage in (
        ("resnet18", "layer1", "layer1.1"),
        ("resnet18", "layer4", "layer4.1"),
        ("resnet18", None, "layer4.1"),
        ("vgg16", "features", "features.30"),
        ("vgg16", None, "features.29"),
        ("squeezenet1_0", "features", "features.12"),
        ("squeezenet1_1", None, "features.12"),
    ):
        assert shapes_only(name, group)[0] == shapes_only(name, stage)[0]
    assert shapes_only("resnet18", "layer3")[0] != shapes_only("resnet18", "layer4")[0]
    assert shapes_only("squeezenet1_0")[0] != shapes_only("squeezenet1_1")[0]
    assert shared.cut(registry.find("vgg16"), 2, None) != shared.cut(registry.find("vgg16"), 3, None)


def test_two_loads_share_one_compilation():
    tensors, traces = state_dict("squeezenet1_1"), []

    def run(apply, params, images):
        traces.append(apply)
        return apply(params, images)

    jitted = jax.jit(run, static_argnums=0)
    loads = [networks.load("squeezenet1_1", checkpoint=tensors, num_classes=CLASSES) for _ in range(2)]
    assert loads[0][0] == loads[1][0] and hash(loads[0][0]) == hash(loads[1][0])
    for apply, params in (*loads, (pickle.loads(pickle.dumps(loads[0][0])), loads[0][1])):
        jitted(apply, params, images(1, 32, 32, 3))
    assert len(traces) == 1
    other = networks.load("squeezenet1_1", layer="features.11", checkpoint=tensors, num_classes=CLASSES)
    jitted(*other, images(1, 32, 32, 3))
    assert len(traces) == 2


def test_first_use_may_be_inside_a_trace():
    apply = shapes_only("squeezenet1_1")[0]
    params = networks.init_params("squeezenet1_1", jax.random.key(0), num_classes=CLASSES)
    shared._skeleton.cache_clear()
    inside = jax.jit(apply)(params, images(1, 32, 32, 3))
    # What the trace left in the cache serves outside of it.
    again = jax.jit(lambda params, images: apply(params, images))(params, images(1, 32, 32, 3))
    np.testing.assert_allclose(again, inside, rtol=1e-5)


def test_vmap_over_parameters_is_an_ensemble():
    name = "squeezenet1_1"
    apply = shapes_only(name)[0]
    members = [networks.init_params(name, jax.random.key(i), num_classes=CLASSES) for i in range(2)]
    together = jax.jit(jax.vmap(apply, (0, None)))(
        jax.tree.map(lambda *p: jnp.stack(p), *members), images(2, 33, 40, 3)
    )
    for member, logits in zip(members, together, strict=True):
        np.testing.assert_allclose(jax.jit(apply)(member, images(2, 33, 40, 3)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_batch_may_be_symbolic(name):
    apply, params = shapes_only(name)
    [b] = export.symbolic_shape("b")
    args = params, jax.ShapeDtypeStruct((b, *SIZES[name], 3), jnp.float32)
    [logits] = export.export(jax.jit(apply))(*args).out_avals
    assert logits.shape == (b, CLASSES)


def test_parameters_are_a_plain_nested_dict_under_torchvisions_paths():
    params = networks.init_params("squeezenet1_0", jax.random.key(0), num_classes=CLASSES)
    assert params["features"]["12"]["expand3x3"]["kernel"].shape == (3, 3, 64, 256)
    assert params["classifier"]["1"]["bias"].shape == (CLASSES,)
    assert {type(leaf) for leaf in jax.tree.leaves(params)} == {type(jnp.zeros(()))}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    block = shapes_only("resnet18")[1]["layer2"]["0"]
    assert set(block["bn1"]) == set(block["downsample"]["1"]) == {"scale", "bias", "mean", "var"}
    assert set(block["conv1"]) == {"kernel"}


def test_parameters_of_another_network_are_refused():
    params = networks.init_params("squeezenet1_0", jax.random.key(0), num_classes=CLASSES)
    with pytest.raises(ValueError, match="params are not those of 'resnet18' with 7 classes"):
        shapes_only("resnet18")[0](params, images(1, 32, 32, 3))


def test_random_parameters_keep_the_scale():
    apply = shapes_only("resnet18", "layer1")[0]
    params = networks.init_params("resnet18", jax.random.key(0), num_classes=CLASSES)
    kernel = np.asarray(params["layer4"]["1"]["conv2"]["kernel"])
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 512)), rtol=0.01)
    assert np.abs(kernel.mean()) < 1e-4
    bn = params["bn1"]
    assert (np.asarray(bn["scale"]) == 1).all() and (np.asarray(bn["var"]) == 1).all()
    assert not np.asarray(bn["mean"]).any() and not np.asarray(bn["bias"]).any()
    again = networks.init_params("resnet18", jax.random.key(1), num_classes=CLASSES)
    assert not np.allclose(again["conv1"]["kernel"], params["conv1"]["kernel"])
    activations, _ = jax.jit(apply.features)(params, images(1, 64, 64, 3))
    assert 0.1 < float(activations.std()) < 10
