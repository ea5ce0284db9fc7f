"""Read pickles of tensors without torch. No code in the pickle is run.

A pickle is a program: it names functions ("globals") and calls them. This reader resolves only the names in
`_GLOBALS`, and each becomes a harmless stand-in from this module, never the function itself. So the worst that a
hostile file can do is to describe a tensor that does not fit its storage, and `Tensor.array` checks that. A pickle can
also set attributes of any object on its stack. So all stand-ins refuse `__setstate__`.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that asks for something that is not a tensor."""


class Inert:
    """The base of all objects that a pickle may put on its stack. A pickle cannot change them."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise CheckpointError(f"tries to change a {type(self).__name__}: refused")


class Dict(dict):
    """Stands for `collections.OrderedDict`. The attribute `_metadata`, which torch adds to it, is dropped."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class Function(Inert):
    """Stands for a function or class that the pickle calls."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call

    def __call__(self, *args: object) -> object:
        return self._call(*args)


class Type(Inert):
    """Stands for a class that the pickle names but does not call: a storage type, or `numpy.ndarray`."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: np.dtype | None) -> None:
        self.dtype = dtype


class Storage(Inert):
    """`count` consecutive numbers of the stored block `key`, from number `start` on. The block has `total` numbers."""

    __slots__ = ("key", "dtype", "total", "start", "count")

    def __init__(self, key: str, dtype: np.dtype, total: int, start: int, count: int) -> None:
        self.key, self.dtype, self.total, self.start, self.count = key, dtype, total, start, count


class Tensor(Inert):
    """A torch tensor: a strided view of a storage. Strides and offset are counted in numbers, not bytes."""

    __slots__ = ("storage", "offset", "shape", "strides")

    def __init__(self, storage: object, offset: object, shape: object, strides: object, *_: object) -> None:
        if not isinstance(storage, Storage):
            raise CheckpointError(f"builds a tensor on a {type(storage).__name__}, which is not a storage")
        (self.offset,) = _sizes((offset,))
        self.storage, self.shape, self.strides = storage, _sizes(shape), _sizes(strides)
        if len(self.shape) != len(self.strides):
            raise CheckpointError(f"a tensor of shape {self.shape} has strides {self.strides}: refused")

    def array(self, block: Callable[[Storage], np.ndarray]) -> np.ndarray:
        """Return the values as a view of the block that `block(storage)` returns."""
        storage = self.storage
        # An empty tensor reads nothing, and its last number, below, would lie before its first.
        if 0 in self.shape:
            return np.zeros(self.shape, storage.dtype)
        # `as_strided` does not check its arguments: a view past the block would read foreign memory.
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if last >= storage.count or storage.start + storage.count > storage.total:
            raise CheckpointError(
                f"a tensor of shape {self.shape}, strides {self.strides} and offset {self.offset} reaches "
                f"outside of its storage of {storage.count} numbers: refused"
            )
        numbers = block(storage)[storage.start + self.offset :]
        strides = tuple(step * storage.dtype.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(numbers, self.shape, strides, writeable=False)


class DType(Inert):
    """Stands for a `numpy.dtype` of plain numbers. Its pickled state contains the byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object, *_: object) -> None:
        if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
            raise CheckpointError(f"asks for arrays of type {code!r}, which are not plain numbers: refused")
        self.code, self.order = code, "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("has an array type whose byte order is not known: refused")
        self.order = state[1]


class Array(Inert):
    """Stands for a `numpy.ndarray`. Its pickled state is its shape, type and bytes."""

    __slots__ = ("_state",)

    def __init__(self, *_: object) -> None:
        self._state: tuple[tuple[int, ...], DType, bytes | bytearray, bool] | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError(f"has an array whose state is a {type(state).__name__}, expected 5 values: refused")
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, DType) or not isinstance(data, bytes | bytearray):
            raise CheckpointError("holds an array that is not made of plain numbers: refused")
        self._state = (_sizes(shape), dtype, data, bool(fortran))

    def array(self) -> np.ndarray:
        """Return the values without a copy."""
        if self._state is None:
            raise CheckpointError("holds an array without values: refused")
        shape, kind, data, fortran = self._state
        dtype = np.dtype(kind.order + kind.code)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise CheckpointError(f"an array of shape {shape} and type {dtype} has {len(data)} bytes: refused")
        return np.ndarray(shape, dtype, data, order="F" if fortran else "C")


def _sizes(values: object) -> tuple[int, ...]:
    """Check that the values are sizes: at most 32 non-negative integers."""
    if not isinstance(values, tuple | list) or len(values) > 32:
        raise CheckpointError(f"gives a tensor's sizes as a {type(values).__name__}: refused")
    # `type`, because True is an `int` as well.
    if not all(type(n) is int and n >= 0 for n in values):
        raise CheckpointError("gives a tensor a size, stride or offset that is not a number from 0 up: refused")
    return tuple(values)


def _frombuffer(data: object, dtype: object, shape: object, order: object) -> Array:
    """Rebuild a NumPy array as pickle protocol 5 does."""
    array = Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: object, encoding: object) -> bytes:
    """Return bytes as Python 3 writes them in pickle protocols 0 to 2: as text in latin1."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError("encodes bytes in an unknown way, expected latin1: refused")
    return text.encode("latin1")


_STORAGES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

_GLOBALS: dict[str, Inert] = {
    "collections.OrderedDict": Function(Dict),
    "torch.Size": Function(lambda sizes=(): _sizes(sizes)),
    "torch._utils._rebuild_tensor": Function(Tensor),  # torch 0.1, the version that wrote vgg16-397923af
    "torch._utils._rebuild_tensor_v2": Function(Tensor),
    "torch._utils._rebuild_parameter": Function(lambda tensor, *_: tensor),
    **{f"torch.{name}": Type(np.dtype(dtype)) for name, dtype in _STORAGES.items()},
    "numpy.ndarray": Type(None),
    "numpy.dtype": Function(DType),
    "_codecs.encode": Function(_encode),
}
for _core in ("numpy.core", "numpy._core"):  # before and after NumPy 2
    _GLOBALS[f"{_core}.multiarray._reconstruct"] = Function(Array)
    _GLOBALS[f"{_core}.numeric._frombuffer"] = Function(_frombuffer)

# `Unpickler.load` and `genops` raise all of these for malformed pickles.
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
    MemoryError,
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        stand_in = _GLOBALS.get(f"{module}.{name}")
        if stand_in is None:
            raise CheckpointError(
                f"asks for '{module}.{name}', which is not a tensor: refused, and no code of it was run. Save only "
                "the tensors, with torch.save(model.state_dict(), ...) or as .safetensors"
            )
        return stand_in

    def persistent_load(self, pid: Any) -> Storage:
        match pid:
            case ("storage", Type(dtype=np.dtype() as dtype), str(key), _, total, *rest):
                start, count = 0, total
                if rest and rest[0] is not None:  # in the older layout: a view of a part of a block
                    _, start, count = rest[0]
                return Storage(key, dtype, *_sizes((total, start, count)))
        raise CheckpointError("refers to an object outside the pickle that is not a storage: refused")


def load(file: io.BytesIO | io.BufferedReader) -> Any:
    """Read the pickle at the file's position, and move the position to its end.

    Args:
        file: a seekable file.

    Returns:
        Nested dicts, lists, tuples, numbers, strings, `Tensor` and `Array`.

    Raises:
        CheckpointError: the pickle is damaged, asks for something that is not a tensor, or has an instruction that
            tensors do not need: the extension registry, or a memo slot so high that it would fill the memory.
    """
    start = file.tell()
    try:
        for code, arg, position in pickletools.genops(file):
            # Picklers number the slots from 0 or 1 upwards, so a slot is never higher than the position in the file.
            memo_slot = int(arg or 0) if code.name.endswith("PUT") else 0
            if code.name.startswith("EXT") or memo_slot > (position or 0) - start:
                raise CheckpointError(f"has the pickle instruction {code.name} {arg}: refused")
        stop = file.tell()
        file.seek(start)
        # utf-8 for the strings of Python 2, as torch.load reads them.
        return _Unpickler(io.BytesIO(file.read(stop - start)), encoding="utf-8").load()
    except CheckpointError:
        raise
    except _MALFORMED as error:
        raise CheckpointError(f"is cut short or damaged ({error})") from error
