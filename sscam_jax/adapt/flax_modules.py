"""Modules of Flax NNX and of Flax Linen."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sscam_jax.adapt import submodules
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Tap, cut
from sscam_jax.types import Apply, Params

if TYPE_CHECKING:
    from flax import linen as nn
    from flax import nnx


def flax_nnx(
    model: "nnx.Module",
    layer: str,
    *,
    inputs: Inputs = (),
    logits: Logits = None,
    channels_first: bool = False,
    tokens: int | None = None,
    grid: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[Apply, Params]:
    """A Flax NNX module as a network to explain, cut after one of its modules.

    The model is copied and put in inference mode (`model.eval()`); it is refused if its state changes all the same.

    Args:
        model: the module, called as `model(images, *inputs, **kwargs)`.
        layer: the path of the module inside it whose output is explained, such as "backbone.layer4" or "blocks.3"; or
            of a method of one, such as "backbone.features". Of several arrays that it gives, the first counts.
        inputs: as in `plain`.
        logits: as in `plain`.
        channels_first: as in `plain`.
        tokens: as in `plain`. After the last block of a network that reads its class token alone, the patches say
            nothing: cut before the last attention, such as at "blocks.11.norm1".
        grid: as in `plain`.
        kwargs: keyword arguments of the call, such as train=False.

    Returns:
        The network, and its parameters: the state as a nested dict of arrays, without that of random numbers.

    Raises:
        ValueError: no such layer, or an option that does not fit; and when it runs, a layer that does not run just
            once, or a state that changes.

    Example:
        >>> from flax import nnx
        >>> from sscam_jax import adapt, grad_cam
        >>> class Net(nnx.Module):
        ...     def __init__(self, rngs):
        ...         self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        ...         self.dense = nnx.Linear(8, 10, rngs=rngs)
        ...     def __call__(self, x):
        ...         return self.dense(nnx.relu(self.conv(x)).mean((1, 2)))
        >>> apply, params = adapt.flax_nnx(Net(nnx.Rngs(0)), "conv")
        >>> grad_cam(apply, params, jnp.ones((1, 4, 4, 3)), [0]).weights.shape
        (1, 8)
    """
    from flax import nnx

    copy = nnx.clone(model)
    copy.eval()
    submodules.find(copy, layer, nnx.Module)
    parts: Any = nnx.split(copy, nnx.RngState, ...)
    graph, random, state = parts
    leaves, random_tree = jax.tree.flatten(random)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    params = nnx.to_pure_dict(state)
    kwargs_by_value = tuple(sorted(kwargs.items()))
    network = _NNX(
        graph, jax.tree.structure(state), tuple(_by_path(params)), random_tree, shapes, layer, kwargs_by_value
    )
    layout = Layout(channels_first, tokens, grid)
    return cut(network, params, layer, inputs=inputs, logits=logits, layout=layout)


def _by_path(tree: Params) -> dict[str, Any]:
    """The leaves by their paths; an index and its text are one path, because serialisation makes text of indices."""
    paths = (
        (jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in jax.tree.leaves_with_path(tree)
    )
    return dict(paths)


@dataclasses.dataclass(frozen=True)
class _NNX:
    graph: Any
    tree: Any
    paths: tuple[str, ...]
    random_tree: Any
    random_shapes: tuple[tuple[tuple[int, ...], Any], ...]
    layer: str
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, params: Params, images: Float[Array, "b ..."], tap: Tap, *inputs: Any) -> Any:
        from flax import nnx

        leaves = _by_path(params)
        if leaves.keys() != set(self.paths):
            missing = [path for path in self.paths if path not in leaves]
            others = [path for path in leaves if path not in self.paths]
            raise ValueError(
                f"params are not those of this network: missing {missing or 'nothing'}, not expected "
                f"{others or 'nothing'}"
            )
        # The state's leaves come in the order of the plain dict that `flax_nnx` made of it, not in that of `params`.
        state = jax.tree.unflatten(self.tree, [leaves[path] for path in self.paths])
        # In inference nothing draws: any keys and counts will do.
        random = jax.tree.unflatten(self.random_tree, [jnp.zeros(shape, dtype) for shape, dtype in self.random_shapes])
        model = nnx.merge(self.graph, random, state)
        before = dict(jax.tree.leaves_with_path(nnx.state(model)))
        module, method = submodules.find(model, self.layer, nnx.Module)
        with submodules.tapping(module, method, tap):
            outputs = model(images, *inputs, **dict(self.kwargs))
        after = jax.tree.leaves_with_path(nnx.state(model))
        changed = [jax.tree_util.keystr(path) for path, leaf in after if path in before and before[path] is not leaf]
        if changed:
            raise ValueError(
                f"the state of {type(model).__name__} changes after model.eval() too, at {', '.join(changed)}: give "
                "its own switch to inference as a keyword argument, such as train=False or deterministic=True"
            )
        return outputs


def linen(
    module: "nn.Module",
    variables: Params,
    layer: str,
    *,
    inputs: Inputs = (),
    logits: Logits = None,
    channels_first: bool = False,
    tokens: int | None = None,
    grid: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[Apply, Params]:
    """A Flax Linen module as a network to explain, cut after one of its modules.

    It is run without random numbers and with no collection mutable; it is refused if it needs either.

    Args:
        module: the module, run as `module.apply(variables, images, *inputs, **kwargs)`.
        variables: its collections, {"params": ..., "batch_stats": ...}.
        layer: the path of the module inside it whose output is explained, such as "backbone.layer4" or "Conv_3"; or
            of a method of one, such as "backbone.features". Of several arrays that it gives, the first counts.
        inputs: as in `plain`.
        logits: as in `plain`.
        channels_first: as in `plain`.
        tokens: as in `flax_nnx`.
        grid: as in `plain`.
        kwargs: keyword arguments of the call, such as train=False.

    Returns:
        The network, and `variables`.

    Raises:
        ValueError: an option that does not fit; and when it runs, no such layer, one that does not run just once, or
            a state that changes.

    Example:
        >>> import jax
        >>> from flax import linen as nn
        >>> from sscam_jax import adapt, grad_cam
        >>> module = nn.Sequential([nn.Conv(8, (3, 3)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(10)])
        >>> images = jnp.ones((1, 4, 4, 3))
        >>> apply, params = adapt.linen(module, module.init(jax.random.key(0), images), "layers_0")
        >>> grad_cam(apply, params, images, [0]).weights.shape
        (1, 8)
    """
    network = _Linen(module, _identity(module), layer, tuple(sorted(kwargs.items())))
    layout = Layout(channels_first, tokens, grid)
    return cut(network, variables, layer, inputs=inputs, logits=logits, layout=layout)


def _identity(value: Any) -> Any:
    """What a module is, by value: Linen's own hash refuses the list of a `Sequential`."""
    from flax import linen as nn

    if isinstance(value, nn.Module):
        fields = [field.name for field in dataclasses.fields(value) if field.name != "parent"]
        return type(value), *(_identity(getattr(value, name)) for name in fields)
    if isinstance(value, functools.partial):
        return functools.partial, value.func, _identity(value.args), _identity(value.keywords)
    if isinstance(value, Mapping):
        return "mapping", *((name, _identity(each)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), *map(_identity, value)
    if isinstance(value, np.ndarray | jax.Array):
        return "array", value.shape, str(value.dtype), np.asarray(value).tobytes()
    return value


@dataclasses.dataclass(frozen=True)
class _Linen:
    module: Any = dataclasses.field(compare=False)
    identity: Any
    layer: str
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, variables: Params, images: Float[Array, "b ..."], tap: Tap, *inputs: Any) -> Any:
        from flax import errors
        from flax import linen as nn

        ran: dict[str, bool] = {}  # whether it is a module, not just a method of one

        def intercept(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = method(*args, **kwargs)
            names = context.module.path + (() if context.method_name == "__call__" else (context.method_name,))
            path = ".".join(names)
            ran[path] = context.method_name == "__call__"
            return tap(output) if path == self.layer else output

        try:
            with nn.intercept_methods(intercept):
                outputs = self.module.apply(variables, images, *inputs, **dict(self.kwargs))
        except (errors.ModifyScopeVariableError, errors.InvalidRngError) as error:
            raise ValueError(
                f"{type(self.module).__name__} is not in inference mode ({error}): give its switch as a keyword "
                "argument, such as train=False or deterministic=True"
            ) from error
        if self.layer not in ran:
            # Modules, then methods; those of the framework's own are of no use.
            paths = sorted(
                (path for path in ran if path and not path.endswith("setup")), key=lambda path: not ran[path]
            )
            choices = ", ".join(map(repr, paths))
            raise ValueError(
                f"layer {self.layer!r} is not a module of {type(self.module).__name__}, nor a method of one, that "
                f"runs; choose from {choices}"
            )
        return outputs
