"""The networks of torchvision against torchvision itself, stage by stage, and against what it publishes of them."""

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
from sscam_jax.networks.convnext import Sizes
from sscam_jax.networks.inverted import Block, InvertedResidual, Style
from tests.golden.random_tensors import summary, uniform, weight
from tests.networks.test_networks import every_stage, relative_error

FOLDER = pathlib.Path(__file__).parent.parent / "golden"
GOLDEN = dict(np.load(FOLDER / "torchvision_networks.npz"))
TIMM = dict(np.load(FOLDER / "timm_networks.npz"))
CLASSES, SIZE = 7, (97, 70)
SMALLEST = {"densenet121": 29, "convnext_tiny": 32}
# The number of parameters that torchvision publishes, for 1000 classes.
PARAMETERS = {
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "densenet121": 7_978_856,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
    "mobilenet_v3_large": 5_483_032,
    "efficientnet_b0": 5_288_548,
    "convnext_tiny": 28_589_128,
}
NAMES = (*PARAMETERS, "efficientnet_lite0")
QUICK = ("mobilenet_v3_small", "convnext_tiny")  # and the others in `make test-all`: compiling them takes a minute


def shapes_of(name: str, num_classes: int = CLASSES) -> dict[str, tuple[int, ...]]:
    return rules.torchvision_shapes(convert.RULES[name], shared.template(registry.find(name), num_classes))


def state_dict(name: str) -> dict[str, np.ndarray]:
    return {tensor: weight(tensor, shape) for tensor, shape in shapes_of(name).items()}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in NAMES])
def test_every_layer_and_the_logits_equal_torchvisions(name):
    network = registry.find(name)
    params = networks.load(name, checkpoint=state_dict(name), num_classes=CLASSES)[1]
    seen, logits = every_stage(network, CLASSES, params, jnp.asarray(uniform("images", (1, *SIZE, 3))))
    expected = {key.removeprefix(f"{name}/") for key in GOLDEN if key.startswith(f"{name}/")}
    assert {*seen, "logits", "smallest"} == expected
    for stage, maps in seen.items():
        assert relative_error(summary(np.asarray(maps)), GOLDEN[f"{name}/{stage}"]) <= 1e-5, stage
    # With random weights the logits of MobileNetV3 are differences of large numbers.
    assert relative_error(logits, GOLDEN[f"{name}/logits"]) <= 5e-5
    side = SMALLEST.get(name, 1)
    assert network.smallest == side
    _, smallest = every_stage(network, CLASSES, params, jnp.asarray(uniform("images", (1, side, side, 3))))
    assert relative_error(smallest, GOLDEN[f"{name}/smallest"]) <= 1e-5
    if f"{name}/tensors" in TIMM:
        equals_timms(name)


def timm_tensors(name: str) -> dict[str, np.ndarray]:
    """Weights under timm's own names, counters of training steps among them."""
    rows = (row.partition(" ")[::2] for row in TIMM[f"{name}/tensors"].tolist())
    shapes = {tensor: tuple(map(int, filter(None, shape.split(",")))) for tensor, shape in rows}
    return {tensor: weight(tensor, shape) if shape else np.array(0) for tensor, shape in shapes.items()}


def equals_timms(name: str) -> None:
    """In the test of torchvision's weights, because the compiled program is the same."""
    params = networks.load(name, checkpoint=timm_tensors(name), num_classes=CLASSES)[1]
    seen, logits = every_stage(registry.find(name), CLASSES, params, jnp.asarray(uniform("images", (1, *SIZE, 3))))
    for stage, maps in seen.items():
        assert relative_error(summary(np.asarray(maps)), TIMM[f"{name}/{stage}"]) <= 1e-5, stage
    assert relative_error(logits, TIMM[f"{name}/logits"]) <= 5e-5
    _, smallest = every_stage(registry.find(name), CLASSES, params, jnp.asarray(uniform("images", (1, 1, 1, 3))))
    assert relative_error(smallest, TIMM[f"{name}/smallest"]) <= 1e-5


def test_timms_names_with_their_own_epsilon():
    """With timm's ε of 1e-5 in place of 1e-3, a small variance is another network."""
    tensors = timm_tensors("mobilenet_v3_small")
    params = networks.load("mobilenet_v3_small", checkpoint=tensors, num_classes=CLASSES)[1]
    variance = np.asarray(params["features"]["0"]["1"]["var"], np.float64)
    np.testing.assert_allclose(variance + 1e-3, tensors["bn1.running_var"].astype(np.float64) + 1e-5, rtol=1e-6)
    back = rules.flax_to_torchvision(params, convert.RULES["mobilenet_v3_small"])
    assert back.keys() == state_dict("mobilenet_v3_small").keys()
    np.testing.assert_array_equal(back["classifier.0.weight"], tensors["conv_head.weight"][:, :, 0, 0])


@pytest.mark.parametrize("name", PARAMETERS)
def test_as_many_parameters_as_torchvision_publishes(name):
    shapes = shapes_of(name, 1000)
    assert sum(np.prod(shape) for key, shape in shapes.items() if "running" not in key) == PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny"])
def test_conversion_is_a_bijection(name):
    tensors, template = state_dict(name), shared.template(registry.find(name), CLASSES)
    params = rules.torchvision_to_flax(tensors, convert.RULES[name], template)
    back = rules.flax_to_torchvision(params, convert.RULES[name])
    assert back.keys() == tensors.keys()
    for key, tensor in back.items():
        np.testing.assert_array_equal(tensor, tensors[key])


def test_the_older_names_of_densenets_file():
    tensors, template = state_dict("densenet121"), shared.template(registry.find("densenet121"), CLASSES)
    new = rules.torchvision_to_flax(tensors, convert.RULES["densenet121"], template)
    older = {
        key.replace(f"{kind}{i}.", f"{kind}.{i}.") if "denselayer" in key else key: tensor
        for key, tensor in tensors.items()
        for kind in ("norm", "conv")
        for i in "12"
        if f".{kind}{i}." in key or "denselayer" not in key
    }
    assert len(older) == len(tensors) and "features.denseblock1.denselayer1.norm.1.running_var" in older
    again = rules.torchvision_to_flax(older, convert.RULES["densenet121"], template)
    jax.tree.map(np.testing.assert_array_equal, new, again)


def test_a_checkpoint_of_a_larger_network_is_named():
    with pytest.raises(
        ValueError, match="not a checkpoint of 'resnet18' .*looks like one of 'resnet34' with 7 classes"
    ):
        networks.load("resnet18", checkpoint=state_dict("resnet34"), num_classes=CLASSES)


def test_random_parameters_let_all_layers_through():
    params = networks.init_params("convnext_tiny", jax.random.key(0), num_classes=2)
    assert (np.asarray(params["features"]["1"]["0"]["layer_scale"]) == 1).all()


def test_an_inverted_residual_adds_its_input_where_the_shapes_are_equal():
    from flax import nnx

    x = jnp.asarray(uniform("x", (1, 6, 6, 8)))
    for stride, c_out, adds in ((1, 8, True), (2, 8, False), (1, 4, False)):
        block = Block(8, 16, c_out, 3, stride, jax.nn.relu6, squeezed=4)
        module = InvertedResidual(block, Style(), nnx.Rngs(0))
        residual = module.block(x)
        np.testing.assert_allclose(module(x), x + residual if adds else residual, rtol=1e-6)


@pytest.mark.slow
def test_methods_run_on_a_small_convnext():
    network = Sizes((8, 12), (1, 1)).network("tiny")
    template = shared.template(network, CLASSES)
    shapes = rules.torchvision_shapes(convert.RULES["convnext_tiny"], template)
    tensors = {name: weight(name, shape) for name, shape in shapes.items()}
    params = jax.tree.map(jnp.asarray, rules.torchvision_to_flax(tensors, convert.RULES["convnext_tiny"], template))
    apply, x = shared.cut(network, CLASSES, None), jnp.asarray(uniform("images", (2, 32, 24, 3)))
    noisy = sscam.ss_cam(apply, params, x, [1, 2], key=jax.random.key(0), n_samples=1)
    for saliency in (sscam.grad_cam(apply, params, x, [1, 2]), sscam.score_cam(apply, params, x, [1, 2]), noisy):
        assert saliency.maps.shape == (2, 32, 24) and not bool(saliency.flat.all())
