"""Pickles, and torch's two layouts, written by hand: what torch would write, and what it never would."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple


class Global(NamedTuple):
    """The function or class `module.name`."""

    module: str
    name: str


class Call(NamedTuple):
    """`function(*args)`, called when the pickle is read."""

    function: Any
    args: tuple


class Build(NamedTuple):
    """`target` with its state set, as `__setstate__` or the attributes."""

    target: Any
    state: Any


class Pid(NamedTuple):
    """A reference to something outside of the pickle."""

    value: Any


class Raw(NamedTuple):
    """Opcodes as they are."""

    opcodes: bytes


def encode(node: Any) -> bytes:
    """The opcodes that put a value on the pickle's stack."""
    match node:
        case Raw(opcodes):
            return opcodes
        case Global(module, name):
            return b"c" + module.encode() + b"\n" + name.encode() + b"\n"
        case Call(function, args):
            return encode(function) + encode(args) + b"R"
        case Build(target, state):
            return encode(target) + encode(state) + b"b"
        case Pid(value):
            return encode(value) + b"Q"
        case dict():
            return b"}(" + b"".join(encode(k) + encode(v) for k, v in node.items()) + b"u"
        case list():
            return b"](" + b"".join(map(encode, node)) + b"e"
        case tuple():
            return b"(" + b"".join(map(encode, node)) + b"t"
        case _:  # None, bool, int, float, str, bytes
            return pickle.dumps(node, protocol=3)[2:-1]


def dumps(node: Any) -> bytes:
    """A whole pickle."""
    return b"\x80\x03" + encode(node) + b"."


ORDERED_DICT = Call(Global("collections", "OrderedDict"), ())


def tensor(
    key: str, total: Any, offset: Any, shape: Any, strides: Any, *, kind: str = "FloatStorage", view: Any = ()
) -> Call:
    """A tensor on the storage `key` of `total` numbers, as torch pickles it."""
    storage = Pid(("storage", Global("torch", kind), key, "cpu", total, *view))
    args = (storage, offset, shape, strides, False, ORDERED_DICT)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), args)


def floats(*values: float) -> bytes:
    """The bytes of a float storage."""
    return struct.pack(f"<{len(values)}f", *values)


def write_zip(
    path: Path,
    tree: Any,
    storages: dict[str, bytes],
    *,
    top: str = "archive",
    byteorder: bytes = b"little",
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """torch's zip layout."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{top}/data.pkl", dumps(tree))
        archive.writestr(f"{top}/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"{top}/data/{key}", data)
    return path


def write_legacy(path: Path, tree: Any, storages: dict[str, tuple[int, bytes]]) -> Path:
    """torch's older layout; a storage is the count that its header claims, and its bytes."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tree, list(storages)]
    tail = [struct.pack("<q", count) + data for count, data in storages.values()]
    path.write_bytes(b"".join(map(dumps, head)) + b"".join(tail))
    return path
