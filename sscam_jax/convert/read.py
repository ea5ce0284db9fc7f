"""Read checkpoints of every known format, and write `.safetensors` and `.npz` files."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from sscam_jax._support import DAMAGED_ARCHIVE, replacing
from sscam_jax.convert.archives import read_stream, read_zip
from sscam_jax.convert.unpickle import CheckpointError

# The entry of an .npz file that holds its metadata. .safetensors uses the same name.
_METADATA = "__metadata__"

# An .npz file that unpacks to more than this, and to more than this many times its size, is an attack on the memory.
_BOMB_BYTES, _BOMB_TIMES = 2**28, 20

_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a checkpoint without torch. No code in the file is run.

    The formats are torch's `.pth` (both layouts), `.safetensors`, `.npz`, and pickles of plain NumPy arrays. The
    content of the file decides the format, not the suffix. A pickle that asks for something that is not a tensor is
    refused.

    The names of the tensors are made plain in three ways. A state_dict under "state_dict", "model_state_dict" or
    "model" is used, and the entries next to it are ignored. Nested containers give dotted names: `{"conv1": [kernel,
    bias]}` gives `conv1.0` and `conv1.1`. The prefix `module.` of DataParallel is removed.

    Args:
        path: the file.

    Returns:
        Arrays by name. Floating-point tensors of any width become float32. Integers (`num_batches_tracked`) and
        booleans keep their type. The arrays may be read-only.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file is not a checkpoint, is damaged, asks for something that is not a tensor, or has
            tensors that are NaN, infinite or too large for float32.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> write_checkpoint(path, {"fc.bias": np.zeros(10, np.float32)})
        >>> read_checkpoint(path)["fc.bias"].shape
        (10,)

    References:
        https://docs.python.org/3/library/pickle.html#restricting-globals
    """
    path = Path(path)
    try:
        return clean(_stored(path))
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {path}: {error}") from error


def write_checkpoint(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a `.safetensors` or `.npz` file.

    An error leaves no partial file behind.

    Args:
        path: the file to write. Its suffix decides the format. An existing file is replaced.
        tensors: arrays by name.
        metadata: short texts to store with the tensors. `read_metadata` returns them.

    Raises:
        ValueError: the suffix is another one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.npz"
        >>> write_checkpoint(path, {"w": np.ones((2, 2), np.float32)}, metadata={"model": "resnet18"})
        >>> read_metadata(path)
        {'model': 'resnet18'}
    """
    path = Path(path)
    # Not np.ascontiguousarray, which makes scalars one-dimensional.
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        with replacing(path) as part:
            safetensors.numpy.save_file(arrays, part, dict(metadata or {}))
    elif path.suffix == ".npz":
        with replacing(path) as part:
            _write_npz(part, arrays | {_METADATA: np.array(json.dumps(dict(metadata or {})))})
    else:
        raise ValueError(f"cannot write '{path}': its suffix is '{path.suffix}'; choose '.safetensors' or '.npz'")


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with zipfile.ZipFile(path, "x") as archive:
        for name, array in arrays.items():  # not np.savez, which refuses a tensor with the name 'file'
            # The size is not known before the array is written, so zip must be told that it may exceed 2 GiB.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the texts that `write_checkpoint` stored with the tensors.

    Args:
        path: the file, in any format that `read_checkpoint` reads.

    Returns:
        The metadata; empty if the file has none.

    Raises:
        FileNotFoundError: the file does not exist.
        CheckpointError: the file is damaged.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> write_checkpoint(path, {"w": np.ones(2, np.float32)}, metadata={"format": "sscam_jax"})
        >>> read_metadata(path)
        {'format': 'sscam_jax'}
    """
    path = Path(path)
    head = _head(path)
    try:
        if _is_safetensors(head):
            with safetensors.safe_open(path, framework="np") as file:
                return dict(file.metadata() or {})
        if head.startswith(b"PK") and zipfile.is_zipfile(path):
            with np.load(path, allow_pickle=False) as file:
                metadata = json.loads(str(file[_METADATA])) if _METADATA in file else {}
            if not isinstance(metadata, dict):
                raise ValueError(f"they are a {type(metadata).__name__}, expected texts by name")
            return metadata
    except (safetensors.SafetensorError, *DAMAGED_ARCHIVE) as error:
        raise CheckpointError(f"checkpoint {path}: its metadata cannot be read ({error})") from error
    return {}


def _head(path: Path) -> bytes:
    """Return the first bytes of a file, which show its format."""
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: there is no such file")
    with path.open("rb") as file:
        return file.read(16)


def _is_safetensors(head: bytes) -> bool:
    # The length of the header in 8 bytes, then the header in JSON. Both are checked, because a pickle may have a brace
    # in the same place.
    return int.from_bytes(head[:8], "little") < 100_000_000 and head[8:9] == b"{"


def _stored(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors in their stored types."""
    head = _head(path)
    if _is_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                is_npz = all(name.endswith(".npy") for name in archive.namelist())
        except DAMAGED_ARCHIVE as error:
            raise CheckpointError(f"is a zip archive that is cut short or damaged ({error})") from error
        return _read_npz(path) if is_npz else read_zip(path)
    if head.startswith(b"\x80"):  # a pickle of protocol 2 or later
        return read_stream(path)
    raise CheckpointError(
        f"is not a checkpoint: it begins with {head!r}; expected torch's .pth, .safetensors, .npz or a pickle of "
        "NumPy arrays"
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    tensors = {}
    try:
        # Sorted, because safetensors returns them in a different order every time.
        for name, entry in sorted(safetensors.deserialize(path.read_bytes()), key=lambda item: item[0]):
            if entry["dtype"] not in _SAFETENSORS:
                raise CheckpointError(
                    f"tensor '{name}' has type {entry['dtype']}, which is not known; choose from "
                    + ", ".join(map(repr, _SAFETENSORS))
                )
            tensors[name] = np.frombuffer(entry["data"], _SAFETENSORS[entry["dtype"]]).reshape(entry["shape"])
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"is a .safetensors file that is cut short or damaged ({error})") from error
    return tensors


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        _refuse_bomb(unpacked, path.stat().st_size)
        with np.load(path, allow_pickle=False) as file:
            tensors = {name: file[name] for name in file.files if name != _METADATA}
    except CheckpointError:  # a ValueError, which the next line would take for damage
        raise
    except DAMAGED_ARCHIVE as error:
        raise CheckpointError(f"is an .npz file that cannot be read ({error})") from error
    for name, tensor in tensors.items():
        if not isinstance(tensor, np.ndarray):  # NumPy returns the bytes of what is not an array
            raise CheckpointError(f"has an entry '{name}' that is not an array")
    return tensors


def _refuse_bomb(unpacked: int, size: int) -> None:
    """Refuse an .npz file that unpacks to more than a checkpoint does: the bytes of trained weights hardly shrink."""
    if unpacked > _BOMB_BYTES and unpacked > _BOMB_TIMES * size:
        raise CheckpointError(f"has {size} bytes and unpacks to {unpacked}: refused, because weights do not shrink so")


def clean(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Remove DataParallel's prefix and convert floating-point tensors to float32.

    Args:
        tensors: arrays by name.

    Returns:
        Arrays by name.

    Raises:
        CheckpointError: there are no tensors, or one is NaN, infinite, too large for float32 or not numeric.
    """
    tensors = _strip_prefix(tensors)
    if not tensors:
        raise CheckpointError("holds no tensors")
    _check_finite(tensors)
    return {name: _float32(name, tensor) for name, tensor in tensors.items()}


def _strip_prefix(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    while tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    return tensors


def _is_float(tensor: np.ndarray) -> bool:
    return tensor.dtype.kind == "f" or tensor.dtype == ml_dtypes.bfloat16


def _check_finite(tensors: dict[str, np.ndarray]) -> None:
    bad = [f"'{name}'" for name, x in tensors.items() if _is_float(x) and not np.isfinite(x).all()]
    if bad:
        raise CheckpointError(f"NaN or infinite numbers in {', '.join(bad[:5])} ({len(bad)} of {len(tensors)} tensors)")


def _float32(name: str, tensor: np.ndarray) -> np.ndarray:
    if tensor.dtype.kind in "iub":
        return tensor
    if not _is_float(tensor):
        raise CheckpointError(f"tensor '{name}' has type {tensor.dtype}, expected real numbers")
    with np.errstate(over="ignore"):  # an overflow is reported below, with the name of the tensor
        cast = tensor.astype(np.float32, copy=False)
    if not np.isfinite(cast).all():
        raise CheckpointError(f"tensor '{name}' has numbers too large for float32 ({np.abs(tensor).max():.3g})")
    return cast
