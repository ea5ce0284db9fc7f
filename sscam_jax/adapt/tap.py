"""A network that can't be cut, as features and head: it is run twice, the second time with other activations.

`features` runs the network and keeps what the layer gives. `head` runs it again on the same images and goes on from
the activations instead of the layer's own output: that is the network after the cut. What lies before the layer is
then computed for nothing, which XLA leaves out of the compiled function.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sscam_jax.adapt.layout import Layout
from sscam_jax.types import Apply, Params

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # where older versions of JAX have it
    from jax.core import get_opaque_trace_state

Tap = Callable[[Any], Any]
"""What a network hands the layer's output to; it goes on with what it gets back."""

Network = Callable[..., Any]
"""`(params, images, tap, *inputs) -> outputs`, hashed by value."""

Inputs = Sequence[Any]
Logits = int | str | None


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
    """The network cut where it calls `tap`.

    Args:
        network: the network.
        params: its parameters.
        layer: what to call the cut in messages.
        inputs: what the network takes after the images, without batch axis.
        logits: the item of the outputs that holds the logits; None: the outputs themselves.
        layout: how it lays images and activations out.
        one_image: whether the network takes one image, without batch axis.

    Returns:
        The network, and the parameters that it takes.
    """
    try:
        hash(network)
    except TypeError as error:
        raise ValueError(
            f"the network can't be compiled once for all calls, for a part of it has no hash ({error}): "
            "write lists, dicts and arrays among its settings and keyword arguments as tuples"
        ) from error
    if inputs:
        network, params = _WithInputs(network, one_image), {"network": params, "inputs": tuple(inputs)}
    settings = (network, layer, logits, layout, one_image)
    return Apply(_Features(*settings), _Head(*settings)), params


@dataclasses.dataclass(frozen=True)
class _WithInputs:
    network: Network
    one_image: bool

    def __call__(self, params: Params, images: Float[Array, "..."], tap: Tap) -> Any:
        inputs = params["inputs"]
        if not self.one_image:
            inputs = jax.tree.map(lambda each: jnp.broadcast_to(each, (images.shape[0], *jnp.shape(each))), inputs)
        return self.network(params["network"], images, tap, *inputs)


@dataclasses.dataclass(frozen=True)
class _Cut:
    network: Network
    layer: str
    logits: Logits
    layout: Layout
    one_image: bool

    def run(
        self, params: Params, images: Float[Array, "..."], replacement: Float[Array, "..."] | None
    ) -> tuple[Any, Float[Array, "..."]]:
        """The network's outputs, and what the layer gave before it was replaced."""
        given = []
        outside = get_opaque_trace_state()

        def tap(output: Any) -> Any:
            if get_opaque_trace_state() != outside:
                raise ValueError(
                    f"layer {self.layer!r} runs inside a transformation of the network (a scan, remat, jit or vmap): "
                    "cut outside it"
                )
            leaves, treedef = jax.tree.flatten(output)
            if not leaves or not isinstance(leaves[0], jax.Array):
                raise ValueError(f"layer {self.layer!r} gives {type(output).__name__}, expected an array of maps")
            given.append(leaves[0])
            return output if replacement is None else jax.tree.unflatten(treedef, [replacement, *leaves[1:]])

        outputs = self.network(params, images, tap)
        if len(given) != 1:
            raise ValueError(
                f"layer {self.layer!r} runs {len(given)} times in one pass of the network: "
                "cut at a layer that runs once"
            )
        return outputs, given[0]


class _Features(_Cut):
    def __call__(self, params: Params, images: Float[Array, "b *space c_in"]) -> tuple[Float[Array, "b ..."], Any]:
        def layer(images: Float[Array, "..."]) -> Float[Array, "..."]:
            return self.run(params, images, None)[1]

        output = (jax.vmap(layer) if self.one_image else layer)(self.layout.images(images))
        activations, others = self.layout.to_grid(output, images.shape[1:-1])
        return activations, (images, others)


class _Head(_Cut):
    def __call__(self, params: Params, activations: Float[Array, "b ..."], carry: Any) -> Float[Array, "b ..."]:
        images, others = carry

        def rest(images: Float[Array, "..."], output: Float[Array, "..."]) -> Float[Array, "..."]:
            return _item(self.run(params, images, output)[0], self.logits)

        output = self.layout.from_grid(activations, others)
        return (jax.vmap(rest) if self.one_image else rest)(self.layout.images(images), output)


def _item(outputs: Any, logits: Logits) -> Float[Array, "..."]:
    """The logits among a network's outputs."""
    if logits is None and isinstance(outputs, jax.Array):
        return outputs
    items: dict[Any, Any] = {}
    if isinstance(outputs, Mapping):
        items = dict(outputs)
    elif isinstance(outputs, Sequence):
        items = dict(enumerate(outputs))
    if logits not in items or not isinstance(items[logits], jax.Array):
        choices = [repr(name) for name, value in items.items() if isinstance(value, jax.Array)]
        raise ValueError(
            f"logits={logits!r} is not an array among the network's outputs, a {type(outputs).__name__}; "
            f"choose from {', '.join(choices) or 'nothing: return an array, or a tuple or dict of arrays'}"
        )
    return items[logits]


def plain(
    network: Callable[..., Any],
    params: Params,
    *,
    inputs: Inputs = (),
    logits: Logits = None,
    channels_first: bool = False,
    tokens: int | None = None,
    grid: tuple[int, ...] | None = None,
) -> tuple[Apply, Params]:
    """A plain function as a network to explain: it says where it is cut by a call.

    The function is `network(params, images, tap, *inputs)`. It calls `tap` once, with the activations to explain, and
    goes on with what it gets back: `maps = tap(maps)`. A network that is two functions already is an `Apply` of them.

    Args:
        network: the function; a module-level one, or another that hashes by value, is compiled once.
        params: its parameters, a pytree of arrays.
        inputs: what it takes after `tap`: arrays without batch axis, repeated for every image. They are
            `params["inputs"]` of the parameters that come back: `jax.vmap` over them and the images gives each image
            its own.
        logits: the item of the outputs that holds the logits, an index or a key; None: the outputs are the logits.
        channels_first: whether it takes images [b, c_in, *space] and has activations [b, c, *grid]. The images of
            methods are [b, *space, c_in] all the same.
        tokens: for activations [b, tokens, c], how many tokens (class token, registers) come before those of the
            patches, which are laid on a grid; the others are carried to the head. None: activations are maps already.
        grid: how many patches lie along each axis; None: as evenly as the image's sides have it.

    Returns:
        The network, and the parameters that it takes.

    Raises:
        ValueError: an option that does not fit; and when it runs, that the cut is not one array, or not passed once.

    Example:
        >>> import jax.numpy as jnp
        >>> from sscam_jax import adapt, grad_cam
        >>> def network(params, images, tap):
        ...     maps = tap(jnp.tanh(images @ params["conv"]))
        ...     return maps.mean((1, 2)) @ params["dense"]
        >>> apply, params = adapt.plain(network, {"conv": jnp.eye(3), "dense": jnp.eye(3)})
        >>> grad_cam(apply, params, jnp.ones((1, 4, 4, 3)), [0]).weights.tolist()
        [[0.0625, 0.0, 0.0]]
    """
    layout = Layout(channels_first, tokens, grid)
    return cut(network, params, "tap", inputs=inputs, logits=logits, layout=layout)
