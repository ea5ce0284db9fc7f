"""Reading checkpoints: every layout and type, and nothing but tensors."""

import pickle
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from sscam_jax.convert import CheckpointError, read_checkpoint, read_metadata, write_checkpoint
from tests.torch_files import (
    ORDERED_DICT,
    Build,
    Call,
    Global,
    Pid,
    Raw,
    dumps,
    floats,
    tensor,
    write_legacy,
    write_zip,
)

GOLDEN = Path(__file__).parent.parent / "golden" / "checkpoints"

# What tests/golden/checkpoints.py wrote, as it is read.
EXPECTED = {
    "fp32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fp16": np.array([0.5, -1.25, 65504], np.float32),
    "bf16": np.array([0.5, -1.25, 2.0**100], np.float32),
    "fp64": np.array([[0.1, 1e30]], np.float32),
    "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "stepped": np.arange(3, 15, 2, dtype=np.float32),
    "shared.whole": np.arange(12, dtype=np.float32),
    "shared.rows": np.arange(4, 12, dtype=np.float32).reshape(2, 4),
    "expanded": np.full(4, 3, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.array([1, 2], np.float32),
    "bn.num_batches_tracked": np.array(7),
    "int8": np.array([-128, 127], np.int8),
    "uint8": np.array([0, 255], np.uint8),
    "bool": np.array([True, False]),
}
PAIR = {"w": tensor("0", 4, 0, (2, 2), (2, 1)), "b": tensor("1", 2, 0, (2,), (1,))}
PAIR_STORAGES = {"0": floats(1, 2, 3, 4), "1": floats(5, 6)}


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert (got[name].dtype, got[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def assert_pair(got: dict[str, np.ndarray]) -> None:
    assert_same(got, {"w": np.array([[1, 2], [3, 4]], np.float32), "b": np.array([5, 6], np.float32)})


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_torch_files(name: str) -> None:
    assert_same(read_checkpoint(GOLDEN / name), EXPECTED)


def test_nested_state_dict_with_prefix_and_optimizer() -> None:
    got = read_checkpoint(GOLDEN / "nested.pth")
    assert list(got) == [
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]
    np.testing.assert_array_equal(got["0.weight"], np.full((3, 2), 0.25, np.float32))


def test_whole_module_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"module\.pth: asks for 'torch\.nn\.modules\.container\.Sequential'"):
        read_checkpoint(GOLDEN / "module.pth")


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes((GOLDEN / "legacy.pth").read_bytes())
    assert_same(read_checkpoint(str(path)), EXPECTED)


@pytest.mark.parametrize("top", ["archive", "some net-1.0", "a/b"])
def test_zip_by_hand(tmp_path: Path, top: str) -> None:
    assert_pair(read_checkpoint(write_zip(tmp_path / "x.pth", PAIR, PAIR_STORAGES, top=top)))


def test_big_endian_zip(tmp_path: Path) -> None:
    storages = {key: np.frombuffer(data, "<f4").astype(">f4").tobytes() for key, data in PAIR_STORAGES.items()}
    assert_pair(read_checkpoint(write_zip(tmp_path / "x.pth", PAIR, storages, byteorder=b"big")))


def test_legacy_by_hand_with_a_view(tmp_path: Path) -> None:
    tree = PAIR | {"b": tensor("0", 6, 0, (2,), (1,), view=(("v", 4, 2),)), "w": tensor("0", 6, 0, (2, 2), (2, 1))}
    assert_pair(read_checkpoint(write_legacy(tmp_path / "x.pth", tree, {"0": (6, floats(1, 2, 3, 4, 5, 6))})))


def test_tensors_of_torch_0_1(tmp_path: Path) -> None:
    """The oldest torchvision files call `_rebuild_tensor`, with four arguments and a torch.Size."""

    def old(key: str, total: int, shape: tuple, strides: tuple) -> Call:
        storage = Pid(("storage", Global("torch", "FloatStorage"), key, "cpu", total, None))
        size = Call(Global("torch", "Size"), (shape,))
        return Call(Global("torch._utils", "_rebuild_tensor"), (storage, 0, size, strides))

    pairs = [["w", old("0", 4, (2, 2), (2, 1))], ["b", old("1", 2, (2,), (1,))]]
    tree = Call(Global("collections", "OrderedDict"), (pairs,))
    storages = {"1": (2, PAIR_STORAGES["1"]), "0": (4, PAIR_STORAGES["0"])}
    assert_pair(read_checkpoint(write_legacy(tmp_path / "x.pth", tree, storages)))


@pytest.mark.parametrize("nest", ["state_dict", "model_state_dict", "model"])
def test_nests(tmp_path: Path, nest: str) -> None:
    tree = {"epoch": 3, nest: Build(Raw(b"ccollections\nOrderedDict\n)R"), {"_metadata": ORDERED_DICT}), "lr": 0.1}
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(write_zip(tmp_path / "x.pth", tree, {}))
    tree = {"epoch": 3, nest: {"module.module." + k: v for k, v in PAIR.items()}, "lr": 0.1}
    assert_pair(read_checkpoint(write_zip(tmp_path / "x.pth", tree, PAIR_STORAGES)))


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pth", PAIR | {"epoch": 3}, PAIR_STORAGES)
    with pytest.raises(CheckpointError, match="entry 'epoch' has type int, expected only tensors, or .* 'state_dict'"):
        read_checkpoint(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_numpy_arrays(tmp_path: Path, protocol: int) -> None:
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    tree = {"conv1": [np.asfortranarray(kernel), np.ones(2, ">f8")], "fire/1": {"n": np.array(3)}}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(tree, protocol=protocol))
    expected = {"conv1.0": kernel, "conv1.1": np.ones(2, np.float32), "fire/1.n": np.array(3)}
    assert_same(read_checkpoint(path), expected)


def test_pickled_numpy_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"w": np.array([{}], dtype=object)}))
    with pytest.raises(CheckpointError, match="asks for arrays of type 'O8', which are not plain numbers"):
        read_checkpoint(path)


# ---- files that want more than tensors ----

CANARY = "canary"
SYSTEM = Global("os", "system")
HOSTILE = {
    "os.system": Call(SYSTEM, (f"touch {CANARY}",)),
    "posix.system": Call(Global("posix", "system"), (f"touch {CANARY}",)),
    "builtins.eval": Call(Global("builtins", "eval"), (f"open('{CANARY}', 'w')",)),
    "builtins.open": Call(Global("builtins", "open"), (CANARY, "w")),
    "builtins.getattr": Call(Global("builtins", "getattr"), (Global("torch", "Size"), "__init__")),
    "functools.partial": Call(Global("functools", "partial"), (SYSTEM, f"touch {CANARY}")),
    "torch.load": Call(Global("torch", "load"), ("x.pth",)),
    "torch._utils.os.system": Call(Global("torch._utils", "os.system"), (f"touch {CANARY}",)),
    "collections.OrderedDict.__init__": Global("collections", "OrderedDict.__init__"),
    "sscam_jax.convert.unpickle.Function": Call(Global("sscam_jax.convert.unpickle", "Function"), (SYSTEM,)),
    "numpy.core.multiarray.scalar": Global("numpy.core.multiarray", "scalar"),
    "numpy.load": Global("numpy", "load"),
}


@pytest.mark.parametrize("layout", ["zip", "legacy", "plain"])
@pytest.mark.parametrize("asked", HOSTILE)
def test_other_globals_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, layout: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pth"
    tree = PAIR | {"state_dict": {"w": HOSTILE[asked]}}
    if layout == "plain":
        path.write_bytes(dumps({"w": HOSTILE[asked]}))
    elif layout == "zip":
        write_zip(path, tree, PAIR_STORAGES)
    else:
        write_legacy(path, tree, {"0": (4, PAIR_STORAGES["0"]), "1": (2, PAIR_STORAGES["1"])})
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(f"checkpoint {path}: asks for '{asked}', which is not a tensor: refused")
    assert not (tmp_path / CANARY).exists()


STORAGE = PAIR["w"].args[0]
TRICKS = {
    # setting attributes on what the pickle may hold, as a dict or, second of a pair, by setattr
    "tries to change a Function": Build(Global("torch", "Size"), (None, {"_call": "os.system"})),
    "tries to change a Tensor": Build(PAIR["w"], {"shape": (9, 9)}),
    "tries to change a Storage": Build(STORAGE, {"count": 10**9}),
    "tries to change a Type": Build(Global("torch", "FloatStorage"), {"dtype": None}),
    # calling what is no function
    "'Tensor' object is not callable": Call(PAIR["w"], ()),
    "'Type' object is not callable": Call(Global("numpy", "ndarray"), ((2,),)),
    "'dict' object has no attribute '__dict__'": Build({}, {"__class__": "x"}),
    "NEWOBJ class argument": Raw(b"ctorch\nSize\n)\x81"),
    # instructions that tensors do not need
    "has the pickle instruction EXT1 1: refused": Raw(b"\x82\x01"),
    "has the pickle instruction LONG_BINPUT 2147483647": Raw(b"Nr\xff\xff\xff\x7f"),
    # things that only look like tensors
    "builds a tensor on a str": Call(Global("torch._utils", "_rebuild_tensor_v2"), ("0", 0, (1,), (1,))),
    "is not a storage: refused": Pid(("module", "x", "y")),
    "holds an array without values": Call(Global("numpy.core.multiarray", "_reconstruct"), ()),
    "which are not plain numbers: refused": Call(Global("numpy", "dtype"), ("V8",)),
    "encodes bytes in an unknown way, expected latin1": Call(Global("_codecs", "encode"), ("x", "rot13")),
    # a list that holds itself; nineteen lists, each ten times the one before
    "repeats a container at 'trick.0.', or nests more than 32": Raw(b"]q\x01h\x01a"),
    "repeats a container at 'trick.0.0.": Raw(
        b"]q\x01" + b"".join(b"0](" + (b"h%c" % (level - 1)) * 10 + b"eq%c" % level for level in range(2, 21))
    ),
}


@pytest.mark.parametrize("message", TRICKS)
def test_tricks_are_refused(tmp_path: Path, message: str) -> None:
    path = write_zip(tmp_path / "x.pth", PAIR | {"trick": TRICKS[message]}, PAIR_STORAGES)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert message in str(caught.value)
    # no trick left a trace that a later file would meet
    assert_pair(read_checkpoint(write_zip(path, PAIR, PAIR_STORAGES)))


OUTSIDE = {
    "stride": tensor("0", 4, 0, (2, 2), (3, 1)),
    "offset": tensor("0", 4, 1, (2, 2), (2, 1)),
    "shape": tensor("0", 4, 0, (5,), (1,)),
    "scalar": tensor("0", 4, 4, (), ()),
    "view": tensor("0", 4, 0, (2,), (1,), view=(("v", 3, 2),)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_tensors_stay_inside_their_storage(tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "x.pth", {"w": OUTSIDE[name]}, PAIR_STORAGES)
    with pytest.raises(CheckpointError, match=r"tensor 'w': .*reaches outside of its storage of \d numbers: refused"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (tensor("0", 4, -1, (2,), (1,)), "not a number from 0 up"),
        (tensor("0", 4, 3, (2,), (-1,)), "not a number from 0 up"),
        (tensor("0", 4, 0, (2.0,), (1,)), "not a number from 0 up"),
        (tensor("0", 4, 0, "ab", (1,)), "sizes as a str"),
        (tensor("0", 4, 0, (2, 2), (1,)), r"shape \(2, 2\) has strides \(1,\)"),
        (tensor("0", 4, 0, (1,) * 33, (1,) * 33), "sizes as a tuple"),
        (tensor("0", 5, 0, (2,), (1,)), "storage '0' should hold 5 numbers of type float32, but has 16 bytes"),
        (tensor("0", 2, 0, (2,), (1,)), "storage '0' should hold 2 numbers of type float32, but has 16 bytes"),
        (tensor("7", 4, 0, (2,), (1,)), "refers to the storage '7' but has no entry 'archive/data/7'"),
        (tensor("0", 4, 0, (10**9,), (0,)), r"has \d+ bytes but describes tensors of more than 8 times as many"),
        (tensor("0", 4, 0, (2**62, 2**62), (0, 0)), "tensor 'w': "),
    ],
)
def test_sizes_must_agree(tmp_path: Path, bad: Call, message: str) -> None:
    path = write_zip(tmp_path / "x.pth", {"w": bad}, PAIR_STORAGES)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_legacy_sizes_must_agree(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    both = {"0": (4, PAIR_STORAGES["0"]), "1": (2, PAIR_STORAGES["1"])}
    cases = {
        "should hold 4 numbers": both | {"0": (3, floats(1, 2, 3))},
        "'1', which is not in the file": {"0": both["0"]},
        "'9', which no tensor uses, so its type is unknown": both | {"9": (1, floats(0))},
        "is cut short: storage '1' would end after the end of the file": both | {"1": (2**40, b"")},
    }
    for message, storages in cases.items():
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(write_legacy(path, PAIR, storages))


def test_zip_bomb(tmp_path: Path) -> None:
    tree = {"w": tensor("0", 10**6, 0, (10**6,), (1,))}
    path = write_zip(tmp_path / "x.pth", tree, {"0": bytes(4 * 10**6)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match=r"unpacks to 4\d{6} bytes, more than the file has"):
        read_checkpoint(path)


def test_a_tensor_may_be_named_once(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.pth", {"a": [PAIR["b"]], "a.0": PAIR["b"]}, PAIR_STORAGES)
    with pytest.raises(CheckpointError, match=r"has two tensors with the name 'a\.0'"):
        read_checkpoint(path)


# ---- damaged files ----


def numpy_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"w": np.arange(6.0), "b": [np.ones((2, 2), np.float32)]}))


def our_own(path: Path) -> None:
    write_checkpoint(
        path, {"w": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float32)}, metadata={"model": "x"}
    )


WRITERS = {
    "zip.pth": lambda path: path.write_bytes((GOLDEN / "zip.pth").read_bytes()),
    "legacy.pth": lambda path: path.write_bytes((GOLDEN / "legacy.pth").read_bytes()),
    "plain.pkl": numpy_pickle,
    "own.npz": our_own,
    "own.safetensors": our_own,
}


@pytest.mark.parametrize("name", WRITERS)
def test_truncated_anywhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="checkpoint "):
            read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")  # the standard library warns where damage looks like old syntax
@pytest.mark.parametrize("name", WRITERS)
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, name: str) -> None:
    """Whatever byte is wrong: a dict of arrays, or our error; no other exception, and no crash."""
    path = tmp_path / name
    WRITERS[name](path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = whole.copy()
        damaged[random.integers(whole.size, size=2)] ^= random.integers(1, 256, size=2).astype(np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            assert all(isinstance(x, np.ndarray) for x in read_checkpoint(path).values())
        except CheckpointError:
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a checkpoint: it begins with b''"),
        (b"<!DOCTYPE html><html>", "is not a checkpoint: it begins with b'<!DOCTYPE html>"),
        (b"PK\x03\x04" + bytes(50), "is a zip archive that is cut short or damaged"),
        (b"\x80\x04", "is cut short or damaged"),
        (dumps([1, 2]), "holds a list, expected a dict of tensors"),
        (dumps({}), "holds no tensors"),
        (dumps({"w": tensor("0", 1, 0, (1,), (1,))}), "a plain pickle has no storages"),
        (dumps(0x1950A86A20F9469CFC6C) + dumps(7), "has the serialization protocol 7, expected 1001"),
    ],
)
def test_not_a_checkpoint(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.pth"):
        with pytest.raises(FileNotFoundError, match="there is no such file"):
            read_checkpoint(path)


def test_zip_without_tensors(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    with pytest.raises(CheckpointError, match=r"is a zip with 0 entries 'data\.pkl', expected one"):
        read_checkpoint(tmp_path / "x.pth")


# ---- values ----


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_nan_and_infinity_are_named(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "x.safetensors"
    arrays = {"good": np.ones(2, dtype), "nan": np.array([1, np.nan], dtype), "inf": np.array([np.inf], dtype)}
    write_checkpoint(path, arrays)
    with pytest.raises(CheckpointError, match=r"NaN or infinite numbers in 'inf', 'nan' \(2 of 3 tensors\)"):
        read_checkpoint(path)


def test_too_large_for_float32(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_checkpoint(path, {"small": np.array([1e-60, 3e38]), "big": np.array([1.0, -1e39])})
    with pytest.raises(CheckpointError, match=r"tensor 'big' has numbers too large for float32 \(1e\+39\)"):
        read_checkpoint(path)


def test_npz_with_objects_or_texts(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, w=np.array([{}], dtype=object))
    with pytest.raises(CheckpointError, match="Object arrays cannot be loaded"):
        read_checkpoint(path)
    np.savez(path, w=np.array(["text"]))
    with pytest.raises(CheckpointError, match="tensor 'w' has type <U4, expected real numbers"):
        read_checkpoint(path)


# ---- our own files ----


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_written_and_read_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"own{suffix}"
    arrays = {
        "a/b.kernel": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "file": np.float32(3.5),  # np.savez has an argument of this name
        "count": np.array([1, 2]),
    }
    write_checkpoint(path, arrays, metadata={"format": "sscam_jax", "model": "resnet18"})
    got = read_checkpoint(path)
    assert {name: x.tolist() for name, x in got.items()} == {name: x.tolist() for name, x in arrays.items()}
    assert got["file"].shape == ()
    assert read_metadata(path) == {"format": "sscam_jax", "model": "resnet18"}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_bf16_safetensors_by_another_writer(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"w": np.array([[0.5, -2.0]], ml_dtypes.bfloat16)}, path)
    assert_same(read_checkpoint(path), {"w": np.array([[0.5, -2.0]], np.float32)})
    assert read_metadata(path) == {}


def test_metadata_of_files_that_have_none(tmp_path: Path) -> None:
    assert read_metadata(GOLDEN / "zip.pth") == {}
    assert read_metadata(GOLDEN / "legacy.pth") == {}
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_metadata(tmp_path / "none.npz")


def test_writing_fails_whole(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    write_checkpoint(path, {"w": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        write_checkpoint(path, {"w": np.zeros(2, np.float32), "x": np.array([{}], dtype=object)})
    assert read_checkpoint(path)["w"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["own.npz"]
    with pytest.raises(ValueError, match=r"its suffix is '\.pth'; choose '\.safetensors' or '\.npz'"):
        write_checkpoint(tmp_path / "own.pth", {})


# ---- real files ----


def test_real_checkpoints(assets: Path) -> None:
    resnet = read_checkpoint(assets / "weights" / "resnet18.pth")
    assert (len(resnet), resnet["conv1.weight"].shape, resnet["fc.weight"].shape) == (122, (64, 3, 7, 7), (1000, 512))
    v10 = read_checkpoint(assets / "weights" / "squeezenet1_0.pth")
    assert (len(v10), v10["features.0.weight"].shape) == (52, (96, 3, 7, 7))
    v11 = read_checkpoint(assets / "weights" / "squeezenet1_1.pth")
    assert (len(v11), v11["features.0.weight"].shape) == (52, (64, 3, 3, 3))
    assert_same(read_checkpoint(assets / "weights" / "squeezenet1_1_legacy.pth"), v11)
