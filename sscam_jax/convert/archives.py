"""Read the three containers of pickled tensors: torch's zip, torch's older stream, and a plain pickle of arrays."""

import functools
import io
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sscam_jax._support import DAMAGED_ARCHIVE
from sscam_jax.convert.unpickle import Array, CheckpointError, Storage, Tensor, load

# torch's older stream begins with this number and this version.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001

# Training scripts save the tensors under one of these names, next to the epoch and the optimizer.
_NESTS = ("state_dict", "model_state_dict", "model")

# Tensors may share a storage (tied weights), so together they may be larger than the file. But a file that describes
# far more bytes than it has is an attack on the memory: refuse it.
_SHARING = 8


def read_zip(path: Path) -> dict[str, np.ndarray]:
    """Read torch's zip: `NAME/data.pkl` refers to the storages `NAME/data/0`, `NAME/data/1`, …

    Args:
        path: the file.

    Returns:
        Tensors by name, in their stored types.

    Raises:
        CheckpointError: the file is damaged, has another layout, or asks for something that is not a tensor.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry.file_size for entry in archive.infolist()}
            if sum(entries.values()) > path.stat().st_size:  # a zip bomb
                raise CheckpointError(
                    f"unpacks to {sum(entries.values())} bytes, more than the file has: refused, because torch does "
                    "not compress its archives"
                )
            tops = [name.removesuffix("data.pkl") for name in entries if f"/{name}".endswith("/data.pkl")]
            if len(tops) != 1:
                raise CheckpointError(f"is a zip with {len(tops)} entries 'data.pkl', expected one")
            order = archive.read(f"{tops[0]}byteorder") if f"{tops[0]}byteorder" in entries else b"little"
            if order not in (b"little", b"big"):
                raise CheckpointError(f"has the byte order {order!r}, expected 'little' or 'big'")

            @functools.cache
            def raw(key: str) -> bytes:
                name = f"{tops[0]}data/{key}"
                if name not in entries:
                    raise CheckpointError(f"refers to the storage '{key}' but has no entry '{name}'")
                return archive.read(name)

            def block(storage: Storage) -> np.ndarray:
                return _block(storage, raw(storage.key), swap=order == b"big")

            tree = load(io.BytesIO(archive.read(f"{tops[0]}data.pkl")))
            return _tensors(tree, block, path.stat().st_size)
    except CheckpointError:
        raise
    except DAMAGED_ARCHIVE as error:
        raise CheckpointError(f"is a damaged zip archive ({error})") from error


def read_stream(path: Path) -> dict[str, np.ndarray]:
    """Read torch's older layout, or a plain pickle of NumPy arrays.

    torch wrote five pickles: a magic number, the version of the protocol, the system, the tensors, and the keys of
    their storages. The storages follow. Each is its length in 8 bytes and then its numbers, always little-endian.

    Args:
        path: the file.

    Returns:
        Tensors by name, in their stored types.

    Raises:
        CheckpointError: the file is damaged, has another layout, or asks for something that is not a tensor.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        tree = load(file)
        if tree != _MAGIC:
            return _tensors(tree, _no_block, size)
        version = load(file)
        if version != _PROTOCOL:
            raise CheckpointError(f"has the serialization protocol {version!r}, expected {_PROTOCOL}")
        load(file)  # the system that wrote it
        tree, keys = load(file), load(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise CheckpointError(f"lists its storages as a {type(keys).__name__}, expected a list of names")
        widths = {storage.key: storage.dtype.itemsize for storage in _storages(tree)}
        starts: dict[str, tuple[int, int]] = {}
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            if key not in widths:
                raise CheckpointError(f"holds the storage '{key}', which no tensor uses, so its type is unknown")
            starts[key] = (file.tell(), count * widths[key])
            if sum(starts[key]) > size:
                raise CheckpointError(f"is cut short: storage '{key}' would end after the end of the file")
            # Only remember where the numbers are. They are read when a tensor needs them.
            file.seek(count * widths[key], io.SEEK_CUR)

        @functools.cache
        def raw(key: str) -> bytes:
            if key not in starts:
                raise CheckpointError(f"refers to the storage '{key}', which is not in the file")
            file.seek(starts[key][0])
            return file.read(starts[key][1])

        return _tensors(tree, lambda storage: _block(storage, raw(storage.key), swap=False), size)


def _block(storage: Storage, raw: bytes, *, swap: bool) -> np.ndarray:
    """Return all numbers of a storage. Their count must be the one that the pickle states."""
    if len(raw) != storage.total * storage.dtype.itemsize:
        raise CheckpointError(
            f"storage '{storage.key}' should hold {storage.total} numbers of type {storage.dtype}, "
            f"but has {len(raw)} bytes"
        )
    if swap:  # as integers of the same width, because NumPy cannot swap the bytes of bfloat16
        raw = np.frombuffer(raw, f"u{storage.dtype.itemsize}").byteswap().tobytes()
    return np.frombuffer(raw, storage.dtype)


def _no_block(storage: Storage) -> np.ndarray:
    raise CheckpointError(f"refers to the storage '{storage.key}', but a plain pickle has no storages")


def _storages(tree: Any) -> Iterator[Storage]:
    """Yield every storage of an unpickled tree. Each container is visited once, because it may contain itself."""
    todo, seen = [tree], set()
    while todo:
        node = todo.pop()
        if isinstance(node, Tensor):
            yield node.storage
        elif isinstance(node, dict | list | tuple) and id(node) not in seen:
            seen.add(id(node))
            todo.extend(node.values() if isinstance(node, dict) else node)


def unnested(tree: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return the state_dict of a training checkpoint: the value of "state_dict", "model_state_dict" or "model"."""
    while nests := [name for name in _NESTS if isinstance(tree.get(name), Mapping)]:
        tree = tree[nests[0]]
    return tree


def _tensors(tree: Any, block: Callable[[Storage], np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Return the tensors of an unpickled tree. Nested containers give dotted names."""
    if isinstance(tree, dict):
        tree = unnested(tree)
    if not isinstance(tree, dict):
        raise CheckpointError(f"holds a {type(tree).__name__}, expected a dict of tensors (a state_dict)")
    tensors: dict[str, np.ndarray] = {}
    room = _SHARING * size
    for name, leaf in _leaves(tree, "", set()):
        if name in tensors:
            raise CheckpointError(f"has two tensors with the name '{name}'")
        try:
            tensors[name] = leaf.array() if isinstance(leaf, Array) else leaf.array(block)
        except (ValueError, OverflowError, MemoryError) as error:
            raise CheckpointError(f"tensor '{name}': {error}") from error
        room -= tensors[name].nbytes + 1  # + 1, so that countless empty tensors are refused too
        if room < 0:
            raise CheckpointError(
                f"has {size} bytes but describes tensors of more than {_SHARING} times as many: refused"
            )
    return tensors


def _leaves(tree: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor | Array]]:
    """Yield names and tensors: `{"conv1": [kernel, bias]}` gives `conv1.0` and `conv1.1`."""
    # A pickle can describe a container that contains itself, which would never end.
    if id(tree) in seen or prefix.count(".") > 32:
        raise CheckpointError(
            f"repeats a container at '{prefix}', or nests more than 32 of them: refused, because this may never end"
        )
    seen.add(id(tree))
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        name = f"{prefix}{key}" if isinstance(key, str | int) else f"{prefix}({type(key).__name__})"
        if isinstance(value, Tensor | Array):
            yield name, value
        elif isinstance(value, dict | list | tuple):
            yield from _leaves(value, f"{name}.", seen)
        else:
            raise CheckpointError(
                f"entry '{name}' has type {type(value).__name__}, expected only tensors, or a dict of tensors under "
                + " or ".join(f"'{nest}'" for nest in _NESTS)
            )
