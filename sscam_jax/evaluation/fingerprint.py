"""What a number depends on, as hashes: programs, code, arrays, the package's source, versions.

A method's program is the text that JAX lowers it to: the same in every process, another for another layer, another σ
or another function of the same name. Where there is no such text, because a method computes on the host, its code and
everything that it refers to is hashed instead.
"""

import dataclasses
import functools
import os
import pathlib
import pickle
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as extend

from sscam_jax._support import digest

# The package's files that compute; tables, pictures and the command line change no stored number.
_COMPUTES: tuple[str, ...] = ("types.py", "ops.py", "cams", "metrics", "networks", "adapt", "data")
_COMPUTES += ("evaluation/_sharded.py",)
_COMPUTES += ("evaluation/loop.py", "evaluation/methods.py", "evaluation/pictures.py")
# Flags of XLA that change how it runs or what it writes, not what it computes.
_HARMLESS_FLAGS = (
    "--xla_force_host_platform_device_count",
    "--xla_dump",
    "--xla_cpu_multi_thread",
    "--xla_cpu_collective_call",
)


def _bytes(leaf: Any) -> Iterator[bytes]:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)  # NumPy knows no keys
    array = np.asarray(leaf)
    if array.dtype == object:  # its bytes are addresses, which are others in every process
        raise ValueError(
            "an array of Python objects cannot be hashed, expected numbers: convert it with np.asarray(…, float)"
        )
    yield f"{array.dtype} {array.shape}".encode()
    yield np.ascontiguousarray(array).tobytes()


def arrays(tree: Any, name: str = "params") -> str:
    """A hash of a tree of arrays: places, types, shapes and values.

    Args:
        tree: any pytree of arrays.
        name: what it is, for the error.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: a leaf is not an array.

    Example:
        >>> arrays({"w": np.zeros(2)}) == arrays({"w": np.zeros(3)})
        False
    """
    total: list[bytes] = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        place = name + jax.tree_util.keystr(path)
        if not isinstance(leaf, np.ndarray | np.generic | jax.Array):
            raise ValueError(
                f"{place} is {leaf!r} of type {type(leaf).__name__}, expected an array: wrap it in jnp.asarray"
            )
        total += [place.encode(), *_bytes(leaf)]
    return digest(*total)


def program(traced: Any, function: Callable[..., Any]) -> str:
    """A hash of what JAX lowers a traced function to.

    Args:
        traced: what `jax.jit(…).trace(…)` gives.
        function: the function, whose code counts too where the program calls back into Python.

    Returns:
        16 hexadecimal digits, the same in every process.
    """
    text = traced.lower().as_text()
    # A call back into Python is one line of the program, whatever it calls.
    return digest(text, code(function) if "callback" in text else "", *_constants(traced.jaxpr))


def _constants(jaxpr: Any) -> Iterator[bytes]:
    """The arrays that a traced function closes over, which some settings of JAX keep out of the program's text."""
    for each in getattr(jaxpr, "consts", ()):
        yield from _bytes(each)
    for equation in jaxpr.eqns:
        for operand in equation.invars:
            if isinstance(operand, extend.Literal) and np.ndim(operand.val):  # the text has the numbers
                yield from _bytes(operand.val)
        for inner in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                yield from _constants(inner)


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, extend.Jaxpr | extend.ClosedJaxpr)


def code(value: Any) -> str:
    """A hash of a function's code and of all that it refers to: closures, defaults, globals, bound arguments, arrays.

    What functions of installed packages call counts by the package's version.

    Args:
        value: a function, a `functools.partial`, an object with `__call__`, or what they refer to.

    Returns:
        16 hexadecimal digits; others in another version of Python.

    Raises:
        ValueError: it refers to something that cannot be hashed.

    Example:
        >>> def scaled(by):
        ...     return lambda x: by * x
        >>> code(scaled(2)) == code(scaled(2)), code(scaled(2)) == code(scaled(3))
        (True, False)
    """
    return digest(f"{sys.version_info[:2]}", *_facts(value, {}))


def _installed(module: str) -> bool:
    """Whether a module is of the standard library, of an installed package, or of this one."""
    found = sys.modules.get(module)
    # This package counts as installed, because `source` hashes all of it.
    root, folders = module.partition(".")[0], pathlib.Path(getattr(found, "__file__", None) or "").parts
    # Debian's own packages lie in dist-packages.
    packaged = "site-packages" in folders or "dist-packages" in folders
    return root in sys.stdlib_module_names and root != "__main__" or root == "sscam_jax" or packaged


def _named(value: Any) -> str:
    module = str(getattr(value, "__module__", None) or getattr(value, "__name__", ""))
    package = sys.modules.get(module.partition(".")[0])
    return f"{module}.{getattr(value, '__qualname__', '')} {getattr(package, '__version__', '')}"


def _facts(value: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    """Everything that tells a value from another, the same in every process."""
    if value is None or value is ... or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value).encode()
        return
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        yield from _bytes(value)
        return
    if id(value) in seen:  # a function that refers to itself would have no end
        yield f"number {list(seen).index(id(value))}".encode()
        return
    seen[id(value)] = value  # kept, so that no other value gets its id
    yield type(value).__qualname__.encode()
    for each in _parts(value):
        yield from _facts(each, seen)
    yield b"end"  # or (1, (2,)) would be ((1, 2),)


def _parts(value: Any) -> Iterator[Any]:
    """What a value consists of."""
    if isinstance(value, types.CodeType):
        # No file name and no line numbers: a comment above a function changes no result.
        yield from (value.co_code, value.co_names, value.co_varnames, value.co_argcount, value.co_consts)
    elif isinstance(value, Mapping):
        yield from (part for item in value.items() for part in item)
    elif isinstance(value, set | frozenset):
        yield from sorted(value, key=repr)  # the order of a set is another in every process
    elif isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, types.FunctionType):
        yield from (value.__code__, value.__defaults__, value.__kwdefaults__)
        yield from (cell.cell_contents for cell in value.__closure__ or ())
        if not _installed(value.__module__ or ""):  # what an installed function calls, its package's version says
            names = list(_globals(value.__code__))
            yield from (part for name in names for part in _reached(value.__globals__, name, names))
        else:
            yield _named(value)
    elif isinstance(value, property | functools.cached_property):
        yield value.fget if isinstance(value, property) else value.func
    elif isinstance(value, types.ModuleType | type) or _installed(getattr(value, "__module__", "") or ""):
        yield _named(value)
        yield from _state(value) if not isinstance(value, types.ModuleType | type) else ()
        yield from _class(value) if isinstance(value, type) and not _installed(value.__module__) else ()
    elif isinstance(getattr(value, "__wrapped__", None), types.FunctionType):  # what jax.jit returns
        yield value.__wrapped__
    else:
        yield from (type(value), *_state(value))


def _globals(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant)


def _reached(there: Mapping[str, Any], name: str, names: Sequence[str], above: tuple[Any, ...] = ()) -> Iterator[Any]:
    """What a name of some code stands for; of a module of the user's also what the code takes from it."""
    if name not in there:
        return
    yield (value := there[name])
    # Modules that import one another would have no end.
    if isinstance(value, types.ModuleType) and not _installed(value.__name__) and value not in above:
        yield from (part for each in names for part in _reached(vars(value), each, names, (*above, value)))


def _class(value: type) -> Iterator[Any]:
    """What a class of the user's consists of: its bases, functions and attributes."""
    yield from value.__bases__
    for name, part in sorted(vars(value).items()):
        # Python's own attributes, such as the line that a class begins at, change no result.
        if isinstance(part, types.FunctionType) or not name.startswith(("__", "_abc_")):
            yield from (name, part)


def _state(value: Any) -> Iterator[Any]:
    if isinstance(getattr(value, "__wrapped__", None), types.FunctionType):
        return
    if dataclasses.is_dataclass(value):
        yield from (getattr(value, field.name) for field in dataclasses.fields(value))
    elif isinstance(value, types.BuiltinFunctionType | np.ufunc):
        yield value.__name__
    else:
        try:
            if _installed(type(value).__module__):
                yield pickle.dumps(value, protocol=4)  # fixed: the default depends on the version of Python
            else:  # a pickle names the functions that an object holds, and does not have their code
                yield from value.__reduce_ex__(4)
        except Exception as error:
            raise ValueError(
                f"a {type(value).__qualname__} of '{type(value).__module__}' cannot be hashed, so results that depend "
                "on it cannot be told from others: make the method a function of arrays"
            ) from error


@functools.cache
def source() -> str:
    """A hash of the package's files that compute."""
    root = pathlib.Path(__file__).parents[1]
    files = [path for name in _COMPUTES for path in [root / name, *(root / name).rglob("*.py")] if path.is_file()]
    return digest(*(part for path in sorted(files) for part in (path.relative_to(root).as_posix(), path.read_bytes())))


def machine() -> dict[str, Any]:
    """What computes: packages, XLA's flags and settings, and the kind of device."""
    device = jax.local_devices()[0]
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_HARMLESS_FLAGS)]
    return dict(
        versions={name: version(name) for name in ("jax", "jaxlib", "numpy", "scipy")},
        device=f"{device.device_kind} ({device.client.platform_version.splitlines()[0]})",
        xla_flags=sorted(flags),
        matmul_precision=jax.config.jax_default_matmul_precision,  # type: ignore[attr-defined]
    )


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """In words, where two fingerprints differ.

    Args:
        old: what was stored.
        new: what is given now.
        path: the field's name.

    Yields:
        "field: old there, new now", the settings before the hashes that follow from them.

    Example:
        >>> list(differences({"seed": 0, "size": 8}, {"seed": 1, "size": 8}))
        ['seed: 0 there, 1 now']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        there, now = (textwrap.shorten(_text(each), 80, placeholder=" …") for each in (old, new))
        yield f"{path}: {there} there, {now} now"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else repr(value)
