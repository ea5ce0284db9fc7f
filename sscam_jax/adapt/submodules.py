"""The places inside a model that a path stands for, and taps on them; for Flax NNX and Equinox alike.

A place is a module, a method of a module, or a plain function that a model holds (such as `jax.nn.relu` in a list of
layers). Its name is its path: "blocks.3", "backbone.features", "layers.2".
"""

import contextlib
import contextvars
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

from sscam_jax.adapt._names import unknown_layer
from sscam_jax.adapt.tap import Tap

_TAP: contextvars.ContextVar[Tap] = contextvars.ContextVar("tap")

Put = Callable[[Any], None]
"""Put another value in the place of one that a module or a container holds."""

Install = Callable[[], None]
"""Put a tap at a place, in a copy of the model."""


@contextlib.contextmanager
def tapping(model: Any, layer: str | None, kind: type, tap: Tap) -> Iterator[None]:
    """Tap the layer of a model, or all modules and functions where it is None.

    The model must be a copy: it stays changed.
    """
    installs = _modules_and_functions(model, kind)
    if layer is not None:
        installs = {layer: (installs | _methods(model, kind))[layer]}
    for install in installs.values():
        install()
    token = _TAP.set(tap)
    try:
        yield
    finally:
        _TAP.reset(token)


def check_layer(model: Any, layer: str | None, kind: type) -> None:
    """Refuse the name of a layer that does not exist.

    Raises:
        ValueError: no module, method or function lies there; the message lists those that do.
    """
    names = [*_modules_and_functions(model, kind), *_methods(model, kind)]
    if layer is not None and layer not in names:
        raise unknown_layer(layer, f"of {type(model).__name__}", names)


def _modules_and_functions(model: Any, kind: type) -> dict[str, Install]:
    found: dict[str, Install] = {}
    # A module that is not callable, such as `nnx.List`, gives no output to explain.
    for path, node, put in _walk(model, kind, "", (), lambda value: None):
        if isinstance(node, kind):
            if path and callable(node):
                found[path] = functools.partial(_tap_method, node, "__call__", path)
        else:
            found[path] = functools.partial(_tap_function, node, path, put)
    return found


def _methods(model: Any, kind: type) -> dict[str, Install]:
    """The public methods of the modules, except those of the framework's own classes."""
    found: dict[str, Install] = {}
    for path, node, _ in _walk(model, kind, "", (), lambda value: None):
        own = [cls for cls in type(node).__mro__ if issubclass(cls, kind) and _framework(cls) != _framework(kind)]
        for name in (name for cls in own for name, value in vars(cls).items() if inspect.isfunction(value)):
            if not name.startswith("_"):
                full = f"{path}.{name}".removeprefix(".")
                found[full] = functools.partial(_tap_method, node, name, full)
    return found


def _walk(node: Any, kind: type, path: str, inside: tuple[Any, ...], put: Put) -> Iterator[tuple[str, Any, Put]]:
    """The modules of type `kind` in a model, the model itself as '', and the functions that may be layers."""
    # By identity: to compare two modules of Equinox would compare their arrays.
    if any(node is each for each in inside):
        return  # a module that holds its parent
    if isinstance(node, kind) or (inside and _may_be_layer(node, inside[-1], kind)):
        yield path, node, put
    for name, child, put_child in _children(node, kind, put):
        yield from _walk(child, kind, f"{path}.{name}" if path else name, (*inside, node), put_child)


def _may_be_layer(node: Any, holder: Any, kind: type) -> bool:
    """Whether it is a function that may be a layer, unlike the initialisers that the framework's modules hold."""
    if not callable(node) or isinstance(node, type) or _framework(type(node)) == _framework(kind):
        return False
    # In a list, a function is there to be called in turn. As an attribute of the framework's own module it initialises.
    container = isinstance(holder, Mapping | Sequence)  # `nnx.List` is a module too
    return container or not isinstance(holder, kind) or _framework(type(holder)) != _framework(kind)


def _framework(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _children(node: Any, kind: type, put: Put) -> Iterator[tuple[str, Any, Put]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(node, Mapping):
        items = list(node.items())
    elif isinstance(node, Sequence) and not isinstance(node, str):
        items = list(enumerate(node))
    elif isinstance(node, kind):
        for name, child in list(vars(node).items()):
            # Past the module's own setattr: Equinox forbids it, and NNX keeps account of what is set.
            yield name, child, functools.partial(object.__setattr__, node, name)
    for key, child in items:
        if isinstance(node, MutableMapping | MutableSequence):
            yield str(key), child, functools.partial(node.__setitem__, key)
        elif isinstance(node, tuple):
            yield str(key), child, functools.partial(_put_in_tuple, node, key, put)


def _put_in_tuple(node: tuple[Any, ...], at: int, put: Put, value: Any) -> None:
    # A tuple cannot be changed, so what holds it gets another.
    put((*node[:at], value, *node[at + 1 :]))


def _tap_function(function: Callable[..., Any], path: str, put: Put) -> None:
    put(lambda *args, **kwargs: _TAP.get()(path, function(*args, **kwargs)))


def _tap_method(module: Any, method: str, path: str) -> None:
    # By its class, which a flattening and unflattening of the model inside the model keeps, as no attribute would be.
    cls: Any = type(module)
    object.__setattr__(module, "__class__", _tapped(cls, method, path))


# The same class for the same place: JAX compares pytrees by their classes.
@functools.cache
def _tapped(cls: Any, method: str, path: str) -> Any:
    """The class with what a method gives handed to the tap."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _TAP.get()(path, getattr(super(tapped, self), method)(*args, **kwargs))

    names = {method: call, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    tapped = types.new_class(cls.__name__, (cls,), exec_body=lambda body: body.update(names))
    return tapped
