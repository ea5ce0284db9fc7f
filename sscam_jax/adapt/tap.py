"""Any network that hands the output of its layers to a function, as an `Apply`: cut in two at one of them.

The network is traced on one image (`jax.make_jaxpr`) and the trace is cut at the layer (`_split`). So it is a true
cut: `features` runs what comes before the layer, `head` what comes after it, and what flows around the layer is the
carry. Nothing is run twice, and because the trace is of one image, `jax.vmap` keeps images apart.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, jaxpr_as_fun
from jaxtyping import Array, Float

from sscam_jax.adapt import _names, _remedies
from sscam_jax.adapt._split import Halves, mark, split
from sscam_jax.adapt.layout import Layout
from sscam_jax.types import Apply, Params

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # where older versions of JAX have it
    from jax.core import get_opaque_trace_state

Tap = Callable[[str, Any], Any]
"""`(name of the layer, its output) -> output`: what the network goes on with."""

Network = Callable[..., Any]
"""`(params, images, tap, *inputs) -> outputs`."""

Inputs = Sequence[Any]
Logits = int | str | tuple[int | str, ...] | None


def cut(
    network: Network,
    params: Params,
    layer: str,
    *,
    inputs: Inputs,
    logits: Logits,
    layout: Layout,
    one_image: bool = False,
) -> tuple[Apply, Params]:
    """The network cut after the layer of that name.

    Args:
        network: the network. Two that are equal share a compilation; one that has no hash is equal to itself only.
        params: its parameters.
        layer: the name with which the network calls its tap where it is cut.
        inputs: what the network takes after the images, without batch axis.
        logits: where the logits are among the outputs; None: the outputs are the logits.
        layout: how it lays images and activations out.
        one_image: whether the network takes one image, without batch axis.

    Returns:
        The network, and the parameters that it takes.
    """
    # `Apply` is a static argument of compiled functions, so it needs a hash.
    try:
        hash(network)
    except TypeError:
        network = _Itself(network)
    if inputs:
        network, params = _WithInputs(network, one_image), {"network": params, "inputs": tuple(inputs)}
    settings = (network, layer, logits, layout, one_image)
    return Apply(_Features(*settings), _Head(*settings)), params


@dataclasses.dataclass(frozen=True, eq=False)
class _Itself:
    """A network among whose settings are lists, arrays or other things without a hash: equal to itself only."""

    network: Network

    def __call__(self, *args: Any) -> Any:
        return self.network(*args)


@dataclasses.dataclass(frozen=True)
class _WithInputs:
    network: Network
    one_image: bool

    def __call__(self, params: Params, images: Float[Array, "..."], tap: Tap) -> Any:
        inputs = params["inputs"]
        if not self.one_image:
            # They have no batch axis, and the network is traced on a batch of one.
            inputs = jax.tree.map(lambda each: jnp.asarray(each)[None], inputs)
        return self.network(params["network"], images, tap, *inputs)


class _Traced(NamedTuple):
    """A network's trace on one image: its halves, its outputs, and where among them the arrays stand."""

    halves: Halves
    jaxpr: Jaxpr
    marked: jax.ShapeDtypeStruct
    outputs: Any  # with True in the places of arrays


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Carry:
    """What the head takes beside the activations.

    Attributes:
        tokens: the tokens that have no place on the grid.
        around: what flows around the layer.
        image: shape and dtype of one image, which the head needs to trace the network again.
    """

    tokens: Any
    around: Any
    image: jax.ShapeDtypeStruct = dataclasses.field(metadata=dict(static=True))


@dataclasses.dataclass(frozen=True)
class _Cut:
    network: Network
    layer: str
    logits: Logits
    layout: Layout
    one_image: bool

    def run(self, params: Params, image: Float[Array, "..."], tap: Tap) -> Any:
        """The network's outputs for one image."""
        # One image, even where the network takes batches: `vmap` over it keeps images apart, whatever the network does.
        images = self.layout.images(image[None])
        return self.network(params, images[0] if self.one_image else images, tap)

    def try_out(self, params: Params, layout: Layout, image: jax.ShapeDtypeStruct) -> None:
        """Trace the network with another layout, or on another image, and keep nothing of it."""

        def run(params: Params, image: Float[Array, "..."]) -> None:
            dataclasses.replace(self, layout=layout).run(params, image, lambda name, output: output)

        jax.eval_shape(run, params, image)

    def trace(self, params: Params, image: jax.ShapeDtypeStruct) -> _Traced:
        """Trace the network on one image, and cut it."""
        marked: list[Any] = []
        names: list[str] = []
        outputs: Any = None

        def arrays(params: Params, image: Float[Array, "..."]) -> list[Any]:
            nonlocal outputs
            outputs = self.run(params, image, _marking(self.layer, marked, names))
            leaves = jax.tree.leaves(outputs)
            # Only where arrays stand: a traced value must not leave its trace.
            outputs = jax.tree.map(_is_array, outputs)
            return [leaf if self.one_image else _of_one(leaf) for leaf in leaves if _is_array(leaf)]

        try:
            closed = jax.make_jaxpr(arrays)(params, image)
        except Exception as error:
            _remedies.explain(error, functools.partial(self.try_out, params), self.layout, image)
            raise
        # Twice would be two values with one name, and the cut could be at either.
        if len(marked) != 1:
            if names and not marked:
                raise _names.unknown_layer(self.layer, "that runs", names)
            raise ValueError(
                f"layer {self.layer!r} runs {len(marked)} times in one pass of the network: "
                "cut at a layer that runs once"
            )
        halves = split(closed)
        if halves is None:
            raise ValueError(f"no output of the network depends on layer {self.layer!r}: cut at another")
        return _Traced(halves, closed.jaxpr, marked[0], outputs)


def _marking(layer: str, marked: list[Any], names: list[str]) -> Tap:
    """A tap that marks the output of one layer in the trace, and notes the names of all."""
    outside = get_opaque_trace_state()

    def tap(name: str, output: Any) -> Any:
        names.append(name)
        if name != layer:
            return output
        # A mark in an inner trace is not in the list of equations that is split.
        if get_opaque_trace_state() != outside:
            raise ValueError(
                f"layer {layer!r} runs inside a transformation of the network (a scan, remat, jit or vmap): "
                "cut outside it"
            )
        # Blocks of transformers return (tokens, attention), for example: the first counts, the others pass.
        leaves, treedef = jax.tree.flatten(output)
        if not leaves or not isinstance(leaves[0], jax.Array):
            raise ValueError(f"layer {layer!r} gives {type(output).__name__}, expected an array of maps")
        marked.append(jax.ShapeDtypeStruct(leaves[0].shape, leaves[0].dtype))
        return jax.tree.unflatten(treedef, [mark.bind(leaves[0]), *leaves[1:]])

    return tap


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray)


def _of_one(leaf: Any) -> Any:
    """An output for a batch of one image, without the batch axis; what has none stays."""
    return jax.lax.squeeze(jnp.asarray(leaf), (0,)) if leaf.shape[:1] == (1,) else leaf


class _Features(_Cut):
    def __call__(self, params: Params, images: Float[Array, "b *space c_in"]) -> tuple[Float[Array, "b ..."], Any]:
        image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
        traced = self.trace(params, image)
        leaves, before = jax.tree.leaves(params), jaxpr_as_fun(traced.halves.before)
        # The trace of one image, run over the batch. So a network of one image and one of batches are treated alike.
        output, *around = jax.vmap(lambda image: before(*leaves, image))(images)
        if not self.one_image:
            if traced.marked.shape[:1] != (1,):
                raise ValueError(
                    f"layer {self.layer!r} gives shape {traced.marked.shape} for one image, expected [1, ...]: cut at "
                    "a layer that gives one row per image"
                )
            output = output[:, 0]
        activations, tokens = self.layout.to_grid(output, image.shape[:-1])
        return activations, _Carry(tokens, around, image)


class _Head(_Cut):
    def __call__(self, params: Params, activations: Float[Array, "b ..."], carry: _Carry) -> Float[Array, "b ..."]:
        traced, outputs = self.after(params, activations, carry)
        at = _place(traced.outputs, self.logits)
        _remedies.warn_of_probabilities(traced.jaxpr, at)
        return outputs[at]

    def after(self, params: Params, activations: Float[Array, "b ..."], carry: _Carry) -> tuple[_Traced, list[Any]]:
        """The trace, and the arrays among the network's outputs."""
        traced = self.trace(params, carry.image)
        # Methods compute in float32; the network goes on in its own precision.
        output = self.layout.from_grid(activations, carry.tokens).astype(traced.marked.dtype)
        leaves, after = jax.tree.leaves(params), jaxpr_as_fun(traced.halves.after)
        output = output if self.one_image else output[:, None]
        return traced, jax.vmap(lambda *each: after(*leaves, *each))(output, *carry.around)


@dataclasses.dataclass(frozen=True)
class Outputs:
    """A head that gives all of a network's outputs, in their own structure, and not its logits alone."""

    head: _Head

    def __call__(self, params: Params, activations: Float[Array, "b ..."], carry: Any) -> Any:
        traced, outputs = self.head.after(params, activations, carry)
        leaves, treedef = jax.tree.flatten(traced.outputs)
        arrays = iter(outputs)
        return jax.tree.unflatten(treedef, [next(arrays) if leaf is True else leaf for leaf in leaves])


def all_outputs(head: Callable[..., Any]) -> Callable[..., Any]:
    """The head of an adapted network with all its outputs, unless an item is chosen; any other head as it is."""
    return Outputs(head) if isinstance(head, _Head) and head.logits is None else head


def _place(outputs: Any, logits: Logits) -> int:
    """Which of the arrays among a network's outputs is the logits."""
    wanted = () if logits is None else logits if isinstance(logits, tuple) else (logits,)
    paths = [_names.keys(path) for path, leaf in jax.tree.leaves_with_path(outputs) if leaf is True]
    if wanted not in paths:
        choices = ", ".join(repr(path[0] if len(path) == 1 else path) for path in paths if path)
        raise ValueError(
            f"logits={logits!r} is not an array among the network's outputs, a {type(outputs).__name__}; "
            f"choose from {choices or 'nothing: return an array, or a tuple or dict of arrays'}"
        )
    return paths.index(wanted)
