"""Modules of Flax NNX."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sscam_jax.adapt import _names, submodules
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Network, Tap, cut
from sscam_jax.types import Apply, Params

if TYPE_CHECKING:
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
            of a method of a module, such as "backbone.features", or of a function in a list of layers. If the layer
            gives several arrays, the first counts.
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
    _names.check_adapter(model, "flax_nnx")
    network, params = nnx_network(model, layer, kwargs)
    layout = Layout(channels_first, tokens, grid)
    return cut(network, params, layer, inputs=inputs, logits=logits, layout=layout)


def nnx_network(model: "nnx.Module", layer: str | None, kwargs: Mapping[str, Any]) -> tuple[Network, Params]:
    """The network that taps the layer, or all modules where it is None, and its parameters."""
    from flax import nnx

    # `eval` changes a model in place.
    copy = nnx.clone(model)
    copy.eval()
    submodules.check_layer(copy, layer, nnx.Module)
    # Keys and counts would be parameters that no gradient fits, and that differ between two equal models.
    parts: Any = nnx.split(copy, nnx.RngState, ...)
    graph, random, state = parts
    leaves, random_tree = jax.tree.flatten(random)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    # Plain, so that it is saved, restored and mapped like the parameters of every other framework.
    params = nnx.to_pure_dict(state)
    by_value = tuple(sorted(kwargs.items()))
    return _NNX(graph, jax.tree.structure(state), tuple(_by_path(params)), random_tree, shapes, layer, by_value), params


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
    layer: str | None
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
        # By identity, because traced values cannot be compared: batch statistics, or the count of a generator.
        before = dict(jax.tree.leaves_with_path(nnx.state(model)))
        with submodules.tapping(model, self.layer, nnx.Module, tap):
            outputs = model(images, *inputs, **dict(self.kwargs))
        after = jax.tree.leaves_with_path(nnx.state(model))
        changed = [jax.tree_util.keystr(path) for path, leaf in after if path in before and before[path] is not leaf]
        if changed:
            raise ValueError(
                f"the state of {type(model).__name__} changes after model.eval() too, at {', '.join(changed)}: give "
                "its own switch to inference as a keyword argument, such as train=False or deterministic=True"
            )
        return outputs
