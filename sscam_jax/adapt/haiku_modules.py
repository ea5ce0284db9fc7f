"""Functions that Haiku transformed."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
from jaxtyping import Array, Float

from sscam_jax.adapt import _names
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Network, Tap, cut
from sscam_jax.types import Apply, Params

if TYPE_CHECKING:
    import haiku as hk


def haiku(
    transformed: "hk.Transformed | hk.TransformedWithState",
    params: Params,
    layer: str,
    *,
    state: Params = None,
    inputs: Inputs = (),
    logits: Logits = None,
    channels_first: bool = False,
    tokens: int | None = None,
    grid: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[Apply, Params]:
    """A network in Haiku as one to explain, cut after one of its modules.

    It is run without random numbers; it is refused if it draws some, or if its state changes.

    Args:
        transformed: what `hk.transform` or, with a state, `hk.transform_with_state` made of the function
            `(images, *inputs, **kwargs) -> outputs`. Pass the same object again to reuse a compilation.
        params: its parameters.
        layer: the name, as among the parameters, of the module whose output is explained, such as
            "res_net18/~/block_group_3"; or of a method of one, such as "net.features". Of several arrays that it
            gives, the first counts.
        state: its state, for batch normalisation; None: there is none.
        inputs: as in `plain`.
        logits: as in `plain`.
        channels_first: as in `plain`.
        tokens: as in `flax_nnx`.
        grid: as in `plain`.
        kwargs: keyword arguments of the function, such as is_training=False.

    Returns:
        The network, and its parameters: `params`, or {"params": params, "state": state}.

    Raises:
        ValueError: an option that does not fit; and when it runs, no such layer, one that does not run just once,
            random numbers, or a state that changes.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from sscam_jax import adapt, grad_cam
        >>> def net(x):
        ...     return hk.Linear(10)(jax.nn.relu(hk.Conv2D(8, 3)(x)).mean((1, 2)))
        >>> transformed, images = hk.transform(net), jnp.ones((1, 4, 4, 3))
        >>> apply, params = adapt.haiku(transformed, transformed.init(jax.random.key(0), images), "conv2_d")
        >>> grad_cam(apply, params, images, [0]).weights.shape
        (1, 8)
    """
    _names.check_adapter(transformed, "haiku")
    network, params = haiku_network(transformed, params, state, kwargs)
    layout = Layout(channels_first, tokens, grid)
    return cut(network, params, layer, inputs=inputs, logits=logits, layout=layout)


def haiku_network(transformed: Any, params: Params, state: Params, kwargs: Mapping[str, Any]) -> tuple[Network, Params]:
    """The network that taps every module, and every method of one that the user wrote, and its parameters."""
    # `transform`, `transform_with_state` and `without_apply_rng` make functions that differ only in their arguments.
    arguments = inspect.signature(transformed.apply).parameters
    if "state" in arguments and state is None:
        raise ValueError("the network has a state: give it by state=, as init returns it beside the parameters")
    if "state" not in arguments and state is not None:
        raise ValueError("the network takes no state: leave state= out, or use hk.transform_with_state")
    network = _Haiku(transformed.apply, state is not None, "rng" in arguments, tuple(sorted(kwargs.items())))
    return network, params if state is None else {"params": params, "state": state}


@dataclasses.dataclass(frozen=True)
class _Haiku:
    apply: Any
    stateful: bool
    takes_key: bool
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, params: Params, images: Float[Array, "b ..."], tap: Tap, *inputs: Any) -> Any:
        import haiku as hk

        def intercept(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = method(*args, **kwargs)
            name, method_name = context.module.module_name, context.method_name
            # A module's own call has its name among the parameters; its other methods add the name of the method.
            if method_name == "__call__":
                return tap(name, output)
            # Haiku's modules call methods of their own, which no user would name.
            theirs = method_name == "__init__" or type(context.module).__module__.startswith("haiku.")
            return output if theirs else tap(f"{name}.{method_name}", output)

        arguments = (params["params"], params["state"]) if self.stateful else (params,)
        # No key: a network that draws numbers then raises, instead of being explained with one fixed draw.
        arguments += (None,) * self.takes_key
        try:
            with hk.intercept_methods(intercept):
                outputs = self.apply(*arguments, images, *inputs, **dict(self.kwargs))
        except ValueError as error:
            # Haiku raises a plain ValueError; only its text tells it from an error of the network.
            if "PRNGKey" not in str(error):
                raise
            raise ValueError(
                f"the network draws random numbers ({error}): transform it in inference mode, such as with "
                "is_training=False"
            ) from error
        if not self.stateful:
            return outputs
        outputs, state = outputs
        # By identity, because traced values cannot be compared: a state that is only read comes back as it went in.
        before = dict(jax.tree.leaves_with_path(params["state"]))
        after = jax.tree.leaves_with_path(state)
        changed = [jax.tree_util.keystr(path) for path, leaf in after if before.get(path) is not leaf]
        if changed:
            raise ValueError(
                f"the network's state changes, at {', '.join(changed)}: transform it in inference mode, such as with "
                "is_training=False"
            )
        return outputs
