"""Any framework's model: a list of the places to cut at, and one call that chooses adapter and layer."""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sscam_jax.adapt import _names
from sscam_jax.adapt.equinox_modules import equinox, equinox_network
from sscam_jax.adapt.haiku_modules import haiku, haiku_network
from sscam_jax.adapt.keras_models import keras, keras_network
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.linen_modules import linen, linen_network
from sscam_jax.adapt.nnx_modules import flax_nnx, nnx_network
from sscam_jax.adapt.tap import Network, get_opaque_trace_state
from sscam_jax.adapt.torch_modules import torch, torch_network
from sscam_jax.types import Apply, Params

ADAPTERS: dict[str, Any] = {
    "flax_nnx": flax_nnx,
    "linen": linen,
    "equinox": equinox,
    "haiku": haiku,
    "keras": keras,
    "torch": torch,
}
WITH_PARAMS = ("linen", "haiku")  # their models and parameters are two things
CHANNELS_FIRST = ("equinox", "torch")


class Layer(NamedTuple):
    """A place to cut a network at.

    Attributes:
        name: what the adapter takes as its layer.
        shape: the shape of its output for one image, without batch axis; that of the first array, if there are more.
        grid: the spatial axes that a map would have; None where it has none, or where the network can't be cut.
    """

    name: str
    shape: tuple[int, ...]
    grid: tuple[int, ...] | None


def layers(
    network: Any, images: Float[Array, "b *space c_in"], *, params: Params = None, **options: Any
) -> tuple[Layer, ...]:
    """The modules of a model that run, in the order in which they end, with the shapes of their outputs.

    Nothing is computed: the model is traced on one image.

    Args:
        network: a model of Flax NNX or Linen, Equinox, Haiku, Keras or PyTorch.
        images: images as methods take them; only their shape and dtype are read.
        params: the variables of a Linen module or the parameters of a Haiku function; other models hold their own.
        options: `channels_first=`, `inputs=`, `state=` of the adapter, and keyword arguments of the model's call.

    Returns:
        The layers. A layer that runs twice, or inside a transformation such as a scan, has no grid.

    Raises:
        ValueError: a model of no known framework.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sscam_jax import adapt
        >>> model = nnx.Sequential(nnx.Conv(3, 8, (3, 3), strides=2, rngs=nnx.Rngs(0)), lambda x: x.mean((1, 2)))
        >>> for layer in adapt.layers(model, jnp.ones((1, 16, 16, 3))):
        ...     print(*layer)
        layers.0 (8, 8, 8) (8, 8)
        layers.1 (8,) None
    """
    adapter = _adapter(network)
    channels_first = options.pop("channels_first", adapter in CHANNELS_FIRST)
    inputs, state = options.pop("inputs", ()), options.pop("state", None)
    run, params = _network(adapter, network, params, state, options)
    found: dict[str, list[Layer]] = {}

    def of_one_image(params: Params, image: Array, inputs: Any) -> None:
        # A layer inside a scan has a shape too, but a cut there would not see the whole stack.
        outside = get_opaque_trace_state()

        def tap(name: str, output: Any) -> Any:
            leaves = jax.tree.leaves(output)
            if leaves and isinstance(leaves[0], jax.Array):
                shape = leaves[0].shape if adapter == "equinox" else leaves[0].shape[1:]
                inside = get_opaque_trace_state() != outside
                grid = None if inside else _grid(shape, image.shape[:-1], channels_first)
                found.setdefault(name, []).append(Layer(name, shape, grid))
            return output

        images = Layout(channels_first, None, None).images(image[None])
        given = inputs if adapter == "equinox" else jax.tree.map(lambda each: jnp.asarray(each)[None], inputs)
        run(params, images[0] if adapter == "equinox" else images, tap, *given)

    # Abstractly: a list of layers must not cost a pass of a large network.
    jax.eval_shape(of_one_image, params, jax.ShapeDtypeStruct(images.shape[1:], images.dtype), tuple(inputs))
    return tuple(each[0] if len(each) == 1 else each[0]._replace(grid=None) for each in found.values())


def model(
    network: Any,
    *,
    layer: str | None = None,
    images: Float[Array, "b *space c_in"] | None = None,
    params: Params = None,
    **options: Any,
) -> tuple[Apply, Params]:
    """A model of any framework as a network to explain: the adapter follows from its type.

    Where no layer is named, it is the last one that has a grid of more than one place and whose places influence the
    outputs. A warning says which. In a transformer that reads its class token alone, the patches after the last
    attention have no influence, so the cut is before it.

    Args:
        network: a model of Flax NNX or Linen, Equinox, Haiku, Keras or PyTorch.
        layer: the layer; None: it is chosen, which needs `images`.
        images: images as methods take them; only their shape and dtype are read.
        params: the variables of a Linen module or the parameters of a Haiku function; other models hold their own.
        options: further arguments of the adapter, such as `channels_first=`, and of the model's call.

    Returns:
        The network, and its parameters.

    Raises:
        ValueError: a model of no known framework, no layer and no images, or no layer with a grid.

    Example:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from sscam_jax import adapt, grad_cam
        >>> network = nnx.Sequential(nnx.Conv(3, 8, (3, 3), rngs=nnx.Rngs(0)), nnx.relu, lambda x: x.mean((1, 2)))
        >>> apply, params = adapt.model(network, layer="layers.1")
        >>> grad_cam(apply, params, jnp.ones((1, 4, 4, 3)), [0]).weights.shape
        (1, 8)
    """
    name = _adapter(network)
    adapter, given = ADAPTERS[name], ((network, params) if name in WITH_PARAMS else (network,))
    if layer is not None:
        return adapter(*given, layer, **options)
    if images is None:
        raise ValueError("no layer is named: name one by layer=, or give images= so that the last with a grid is taken")
    # These say how to read the output of a layer; the model does not know them.
    listed = {key: value for key, value in options.items() if key not in ("logits", "tokens", "grid")}
    for candidate in _from_the_end(layers(network, images, params=params, **listed)):
        apply, adapted = adapter(*given, candidate.name, **options)
        if _places_matter(apply, adapted, images):
            warnings.warn(
                f"no layer is named: the network is cut after {candidate.name!r}, whose maps are {candidate.grid}; "
                "adapt.layers lists the others",
                stacklevel=2,
            )
            return apply, adapted
    raise ValueError("no layer has a grid that influences the outputs: adapt.layers lists all, name one by layer=")


def _adapter(network: Any) -> str:
    adapter = _names.adapter_of(network)
    if adapter not in ADAPTERS:
        _names.check_adapter(network, "model")
    return str(adapter)


def _network(adapter: str, network: Any, params: Params, state: Any, kwargs: dict[str, Any]) -> tuple[Network, Params]:
    """The network that taps all its modules, and its parameters."""
    if adapter in WITH_PARAMS and params is None:
        raise ValueError(f"a model of adapt.{adapter} holds no parameters: give them by params=")
    if adapter == "linen":
        return linen_network(network, kwargs), params
    if adapter == "haiku":
        return haiku_network(network, params, state, kwargs)
    if adapter == "equinox":
        return equinox_network(network, None, state, kwargs)
    make = {"flax_nnx": nnx_network, "keras": keras_network, "torch": torch_network}[adapter]
    return make(network, None, kwargs)


def _grid(shape: tuple[int, ...], space: tuple[int, ...], channels_first: bool) -> tuple[int, ...] | None:
    """The grid in the shape of a layer's output for one image."""
    if len(shape) == len(space) + 1:
        return shape[1:] if channels_first else shape[:-1]
    if len(shape) != 2 or len(space) < 2:
        return None
    try:
        return Layout(channels_first, None, None).places(shape[0], space)[1]
    except ValueError:
        return None


def _from_the_end(found: tuple[Layer, ...]) -> Iterator[Layer]:
    """The layers with more than one place and the last one's shape or rank, the last first."""
    candidates = [layer for layer in reversed(found) if layer.grid is not None and max(layer.grid) > 1]
    tokens = bool(candidates) and len(candidates[0].shape) == 2 and len(candidates[0].grid or ()) == 2
    for layer in candidates:
        # In a transformer, only the stream of tokens: not queries and keys, nor what is wide inside a block.
        if not tokens or layer.shape == candidates[0].shape:
            yield layer


def _places_matter(apply: Apply, params: Params, images: Float[Array, "b *space c_in"]) -> bool:
    """Whether most places of the activations have a gradient; the head alone runs, on random numbers."""
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
    activations, carry = jax.eval_shape(apply.features, params, image)
    # Any values do: whether a place matters depends on the network, and ones keep products from vanishing.
    around = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), carry)
    weights = jax.random.normal(jax.random.key(0), (1024,))

    def mixed(activations: Array) -> Array:
        logits = apply.head(params, activations, around).reshape(-1).astype(jnp.float32)
        return (logits * jnp.resize(weights, logits.shape)).sum()

    drawn = jax.random.normal(jax.random.key(1), activations.shape, activations.dtype)
    gradient = jax.jit(jax.grad(mixed))(drawn)
    # After the last attention, only the class token has a gradient. A ReLU in the head may silence single places.
    return bool((gradient != 0).any(-1).mean() > 0.5)
