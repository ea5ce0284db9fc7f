"""Convert the tensors of a checkpoint to the parameters of a network and back, by a table of rules.

A rule is `regex -> (target, transform)`. The regular expression matches torchvision's name of a tensor. The target is
the path of the parameter that it fills: torchvision's module path and Flax's name of the array. The transform
rearranges the axes. A tensor or a parameter without a rule is an error.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Template = Mapping[str, Any]
"""A nested dict whose leaves have a shape and a dtype."""


class ConversionError(ValueError):
    """A checkpoint that does not fit the network. The message lists every problem."""


class Transform(NamedTuple):
    """How to rearrange torchvision's array to Flax's (`forward`), and Flax's to torchvision's (`backward`)."""

    forward: Callable[[Any], Any]
    backward: Callable[[Any], Any]


class Rule(NamedTuple):
    """One row of a table.

    Attributes:
        pattern: a regular expression for torchvision's name.
        target: the path of the parameter, or None for a tensor that inference does not need.
        transform: how the axes are rearranged.
    """

    pattern: str
    target: str | None
    transform: Transform


SAME = Transform(lambda x: x, lambda x: x)
DENSE = Transform(lambda x: x.transpose(1, 0), lambda x: x.transpose(1, 0))  # out, in -> in, out
CONV = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW -> HWIO
POINTWISE = Transform(
    lambda x: x[:, :, 0, 0].transpose(1, 0), lambda x: x.transpose(1, 0)[:, :, None, None]
)  # OI11 -> IO
# PyTorch flattens [c, 7, 7] before this dense layer, Flax flattens [7, 7, c]: the rows are permuted to match.
FLATTENED = Transform(
    lambda x: x.reshape(x.shape[0], -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x: x.reshape(7, 7, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),
)

SCALE = Transform(lambda x: x.reshape(-1), lambda x: x.reshape(-1, 1, 1))  # [c, 1, 1] -> [c]

# A converted file has the paths of the parameters as names.
CONVERTED = (Rule(r"(.+)", r"\1", SAME),)
# The last words of torchvision's names.
_LEAVES = ("weight", "bias", "running_mean", "running_var")


_compiled = functools.cache(re.compile)  # re's own cache is smaller than the longest table


def _match(name: str, rules: tuple[Rule, ...]) -> tuple[str | None, Transform] | None:
    for rule in rules:
        if found := _compiled(rule.pattern).fullmatch(name):
            return (None if rule.target is None else found.expand(rule.target)), rule.transform
    return None


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested dict to a dict from dotted paths to leaves.

    Example:
        >>> flatten({"fc": {"kernel": 1, "bias": 2}})
        {'fc.kernel': 1, 'fc.bias': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Build the nested dict from dotted paths: the inverse of `flatten`.

    Example:
        >>> unflatten({"fc.kernel": 1, "fc.bias": 2})
        {'fc': {'kernel': 1, 'bias': 2}}
    """
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        inner = nested
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return nested


class _Tensor(NamedTuple):
    """The torchvision tensor that fills a parameter."""

    name: str
    transform: Transform
    shape: tuple[int, ...]


@functools.cache
def _theirs(transform: Transform, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of torchvision's array for a parameter of this shape."""
    return jax.eval_shape(transform.backward, jax.ShapeDtypeStruct(shape, np.float32)).shape


def _tensor(path: str, array: Any, rules: tuple[Rule, ...]) -> _Tensor:
    """Return the torchvision tensor that fills the parameter at `path`."""
    # The rules run from torchvision's names to paths. To invert them, try every name that the module may have.
    module = path.rpartition(".")[0]
    for name in (path, *(f"{module}{mark}{leaf}" for mark in "._" for leaf in _LEAVES)):
        if (found := _match(name, rules)) and found[0] == path:
            return _Tensor(name, found[1], _theirs(found[1], tuple(array.shape)))
    raise ConversionError(f"unmatched: no rule fills the parameter {path!r}")


def torchvision_shapes(rules: tuple[Rule, ...], template: Template) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors in a torchvision checkpoint of a network.

    Args:
        rules: the table of the network.
        template: the nested dict of its parameters. Only their shapes are used.

    Returns:
        The shape of every tensor that fills a parameter, by torchvision's name.

    Example:
        >>> from sscam_jax.convert import RULES
        >>> fc = {"fc": {"kernel": jax.ShapeDtypeStruct((512, 10), np.float32)}}
        >>> torchvision_shapes(RULES["resnet18"], fc)
        {'fc.weight': (10, 512)}
    """
    tensors = (_tensor(path, leaf, rules) for path, leaf in flatten(template).items())
    return {tensor.name: tensor.shape for tensor in tensors}


def torchvision_to_flax(
    state_dict: Mapping[str, np.ndarray], rules: tuple[Rule, ...], template: Template
) -> dict[str, Any]:
    """Fill the parameters of a network from the tensors of a torchvision checkpoint, each exactly once.

    Args:
        state_dict: tensors by torchvision's names.
        rules: the table of the network.
        template: the nested dict of its parameters. Only their shapes are used.

    Returns:
        The parameters: a nested dict of float32 NumPy arrays. They may share memory with the checkpoint's tensors.

    Raises:
        ConversionError: a tensor matches no rule, no tensor or two tensors fill a parameter, a shape is wrong, or a
            value is not finite. One message lists every problem.

    Example:
        >>> from sscam_jax.convert import RULES
        >>> fc = {"fc": {"bias": jax.ShapeDtypeStruct((2,), np.float32)}}
        >>> torchvision_to_flax({"fc.bias": np.array([1, 2])}, RULES["resnet18"], fc)
        {'fc': {'bias': array([1., 2.], dtype=float32)}}
    """
    expected = {path: _tensor(path, leaf, rules) for path, leaf in flatten(template).items()}
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten(template).items()}
    sources: dict[str, list[tuple[str, Transform]]] = {path: [] for path in expected}
    problems = []
    for name, tensor in state_dict.items():
        match _match(name, rules):
            case (None, _):
                continue
            case (str(path), transform) if path in sources:
                sources[path].append((name, transform))
            case _:
                problems.append(f"unmatched: {name} {np.shape(tensor)}")
    flat = {}
    for path, found in sources.items():
        names = [name for name, _ in found]
        if len(names) != 1:
            missing = f"missing: {expected[path].name} {expected[path].shape}"
            problems.append(f"filled twice: {path} by {names}" if names else missing)
            continue
        [(name, transform)] = found
        # Tables may know a tensor by several names, each with a layout of its own.
        shape = _theirs(transform, shapes[path])
        tensor = np.asarray(state_dict[name]).astype(np.float32, copy=False)
        if tensor.shape != shape:
            problems.append(f"wrong shape: {name} is {tensor.shape}, expected {shape}")
        elif not np.isfinite(tensor).all():
            problems.append(f"not finite: {name} holds NaN or infinity")
        else:
            flat[path] = np.ascontiguousarray(transform.forward(tensor))
    if problems:
        raise ConversionError("\n  ".join([f"{len(problems)} tensors do not fit:", *problems]))
    return unflatten(flat)


def flax_to_torchvision(params: Mapping[str, Any], rules: tuple[Rule, ...]) -> dict[str, np.ndarray]:
    """Convert the parameters of a network to the tensors of a torchvision checkpoint.

    This is the inverse of `torchvision_to_flax`.

    Args:
        params: the nested dict of the parameters.
        rules: the table of the network.

    Returns:
        Tensors by torchvision's names, without `num_batches_tracked`.

    Raises:
        ConversionError: no rule fills one of the parameters.

    Example:
        >>> from sscam_jax.convert import RULES
        >>> flax_to_torchvision({"fc": {"kernel": np.ones((512, 10))}}, RULES["resnet18"])["fc.weight"].shape
        (10, 512)
    """
    tensors = {}
    for path, array in flatten(params).items():
        name, transform, _ = _tensor(path, array, rules)
        tensors[name] = np.ascontiguousarray(transform.backward(np.asarray(array)))
    return tensors
