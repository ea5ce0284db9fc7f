"""A module inside a model by its path, and a tap on one of its methods; for Flax NNX and Equinox alike."""

import contextlib
import contextvars
import functools
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sscam_jax.adapt.tap import Tap

_TAP: contextvars.ContextVar[Tap] = contextvars.ContextVar("tap")


def _children(node: Any, kind: type) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        items = iter(node.items())
    elif isinstance(node, Sequence) and not isinstance(node, str):
        items = enumerate(node)
    else:
        items = iter(vars(node).items()) if isinstance(node, kind) else iter(())
    for name, child in items:
        yield str(name), child


def _modules(node: Any, kind: type, path: str, inside: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """The modules of type `kind` in a model by their paths, the model itself as ''."""
    if any(node is each for each in inside):
        return  # a module that holds its parent
    if isinstance(node, kind):
        yield path, node
    for name, child in _children(node, kind):
        yield from _modules(child, kind, f"{path}.{name}" if path else name, (*inside, node))


def find(model: Any, layer: str, kind: type) -> tuple[Any, str]:
    """The module that a path such as 'backbone.layer4' stands for, and its method that is the layer.

    Raises:
        ValueError: no module lies there, nor a method of one.
    """
    modules = dict(_modules(model, kind, "", ()))
    if layer and callable(modules.get(layer)):
        return modules[layer], "__call__"
    owner, _, method = layer.rpartition(".")
    if method and callable(getattr(type(modules.get(owner)), method, None)):
        return modules[owner], method
    framework = kind.__module__.partition(".")[0]  # whose own methods are no layers
    own = (
        (path, name)
        for path, module in modules.items()
        if type(module).__module__.partition(".")[0] != framework
        for name, value in vars(type(module)).items()
        if inspect.isfunction(value) and not name.startswith("_")
    )
    paths = [path for path, module in modules.items() if path and callable(module)]
    choices = ", ".join(map(repr, paths + [f"{path}.{name}".removeprefix(".") for path, name in own]))
    raise ValueError(
        f"layer {layer!r} is not a module of {type(model).__name__}, nor a method of one; choose from {choices}"
    )


@functools.cache
def _tapped(cls: Any, method: str) -> Any:
    """The class with what a method gives handed to the tap."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _TAP.get()(getattr(super(tapped, self), method)(*args, **kwargs))

    names = {method: call, "__module__": cls.__module__, "__qualname__": cls.__qualname__}
    tapped = types.new_class(cls.__name__, (cls,), exec_body=lambda body: body.update(names))
    return tapped


@contextlib.contextmanager
def tapping(module: Any, method: str, tap: Tap) -> Iterator[None]:
    """Tap a method of a module, which must be a copy: it stays changed."""
    # By its class, which a flattening and unflattening of the model inside the model keeps, as no attribute would be.
    cls: Any = type(module)
    object.__setattr__(module, "__class__", _tapped(cls, method))
    token = _TAP.set(tap)
    try:
        yield
    finally:
        _TAP.reset(token)
