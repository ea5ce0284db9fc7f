"""Modules of Equinox."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float

from sscam_jax.adapt import _names, submodules
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Network, Tap, cut
from sscam_jax.types import Apply, Params

if TYPE_CHECKING:
    import equinox as eqx


def equinox(
    model: "eqx.Module",
    layer: str,
    *,
    state: "eqx.nn.State | None" = None,
    inputs: Inputs = (),
    logits: Logits = None,
    channels_first: bool = True,
    tokens: int | None = None,
    grid: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[Apply, Params]:
    """An Equinox module, which takes one image, as a network to explain, cut after one of its modules.

    The model is put in inference mode (`eqx.nn.inference_mode`); it is refused if its state changes all the same.

    Args:
        model: the module, called as `model(image, *inputs, **kwargs)`, or with a state as
            `model(image, *inputs, state, **kwargs)`, which gives (outputs, state).
        layer: the path of the module inside it whose output is explained, such as "backbone.layer4" or "layers.3"; or
            of a method of a module, such as "backbone.features", or of a function in a list of layers. If the layer
            gives several arrays, the first counts.
        state: what `eqx.nn.make_with_state` made, for batch normalisation; None: the model takes no state.
        inputs: as in `plain`; a key that the model asks for goes here.
        logits: as in `plain`.
        channels_first: as in `plain`; Equinox's convolutions are.
        tokens: as in `flax_nnx`.
        grid: as in `plain`.
        kwargs: keyword arguments of the call, such as key=None.

    Returns:
        The network, and its parameters: the model's arrays (those of model and state), as `eqx.filter` gives them.

    Raises:
        ValueError: no such layer, or an option that does not fit; and when it runs, a layer that does not run just
            once, or a state that changes.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from sscam_jax import adapt, grad_cam
        >>> conv, dense = jax.random.split(jax.random.key(0))
        >>> model = eqx.nn.Sequential([
        ...     eqx.nn.Conv2d(3, 8, 3, key=conv), eqx.nn.Lambda(jax.nn.relu),
        ...     eqx.nn.Lambda(lambda x: x.mean((1, 2))), eqx.nn.Linear(8, 10, key=dense)])
        >>> apply, params = adapt.equinox(model, "layers.0")
        >>> grad_cam(apply, params, jnp.ones((1, 4, 4, 3)), [0]).weights.shape
        (1, 8)
    """
    _names.check_adapter(model, "equinox")
    network, params = equinox_network(model, layer, state, kwargs)
    layout = Layout(channels_first, tokens, grid)
    return cut(network, params, layer, inputs=inputs, logits=logits, layout=layout, one_image=True)


def equinox_network(model: Any, layer: str | None, state: Any, kwargs: Mapping[str, Any]) -> tuple[Network, Params]:
    """The network that taps the layer, or all modules where it is None, and its parameters."""
    import equinox as eqx

    # It returns a copy, so the model of the user stays in training mode.
    model = eqx.nn.inference_mode(model)
    submodules.check_layer(model, layer, eqx.Module)
    # Its absence would show only deep inside, as an error about a missing key.
    indices = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, eqx.nn.StateIndex))
    if state is None and any(isinstance(node, eqx.nn.StateIndex) for node in indices):
        raise ValueError("the model has a state: make both by eqx.nn.make_with_state and give the state by state=")
    whole = model if state is None else (model, state)
    # NumPy arrays too, for a model that was read from a file: as settings they would have no hash.
    params, static = eqx.partition(whole, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))
    leaves, tree = jax.tree.flatten(static)
    return _Equinox(tuple(leaves), tree, state is not None, layer, tuple(sorted(kwargs.items()))), params


@dataclasses.dataclass(frozen=True)
class _Equinox:
    leaves: tuple[Any, ...]
    tree: Any
    stateful: bool
    layer: str | None
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, params: Params, image: Float[Array, "..."], tap: Tap, *inputs: Any) -> Any:
        import equinox as eqx

        whole = eqx.combine(params, jax.tree.unflatten(self.tree, self.leaves))
        model, state = whole if self.stateful else (whole, None)
        before = jax.tree.leaves(state)
        # `combine` made this model for this call, so tapping may change it.
        with submodules.tapping(model, self.layer, eqx.Module, tap):
            outputs = model(image, *inputs, *([state] if self.stateful else []), **dict(self.kwargs))
        if not self.stateful:
            return outputs
        outputs, state = outputs
        after = jax.tree.leaves(state)
        # By identity, because traced values cannot be compared: a state that is only read comes back as it went in.
        if any(new is not old for new, old in zip(after, before, strict=True)):
            raise ValueError(
                f"the state of {type(model).__name__} changes after eqx.nn.inference_mode(model) too: give its own "
                "switch to inference as a keyword argument, such as inference=True"
            )
        return outputs
