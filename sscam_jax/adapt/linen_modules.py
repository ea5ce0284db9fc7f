"""Modules of Flax Linen."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float

from sscam_jax.adapt import _names
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Network, Tap, cut
from sscam_jax.types import Apply, Params

if TYPE_CHECKING:
    from flax import linen as nn


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
        >>> import jax, jax.numpy as jnp
        >>> from flax import linen as nn
        >>> from sscam_jax import adapt, grad_cam
        >>> module = nn.Sequential([nn.Conv(8, (3, 3)), nn.relu, lambda x: x.mean((1, 2)), nn.Dense(10)])
        >>> images = jnp.ones((1, 4, 4, 3))
        >>> apply, params = adapt.linen(module, module.init(jax.random.key(0), images), "layers_0")
        >>> grad_cam(apply, params, images, [0]).weights.shape
        (1, 8)
    """
    _names.check_adapter(module, "linen")
    layout = Layout(channels_first, tokens, grid)
    return cut(linen_network(module, kwargs), variables, layer, inputs=inputs, logits=logits, layout=layout)


def linen_network(module: "nn.Module", kwargs: Mapping[str, Any]) -> Network:
    """The network that taps every module, and every method of one that the user wrote."""
    return _Linen(module, _identity(module), tuple(sorted(kwargs.items())))


def _identity(value: Any) -> Any:
    """What a module is, by value: Linen's own hash refuses the list of a `Sequential`."""
    from flax import linen as nn

    if isinstance(value, nn.Module):
        # The parent holds the module, so to follow it would not end.
        fields = [field.name for field in dataclasses.fields(value) if field.name != "parent"]
        return type(value), *(_identity(getattr(value, name)) for name in fields)
    if isinstance(value, functools.partial):
        return functools.partial, value.func, _identity(value.args), _identity(value.keywords)
    if isinstance(value, Mapping):
        # Linen makes a FrozenDict of a dictionary; two with the same items are the same setting.
        return "mapping", *((name, _identity(each)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return type(value), *map(_identity, value)
    if isinstance(value, np.ndarray | jax.Array):
        return "array", value.shape, str(value.dtype), np.asarray(value).tobytes()
    return value


@dataclasses.dataclass(frozen=True)
class _Linen:
    # `identity` is compared in its place.
    module: Any = dataclasses.field(compare=False)
    identity: Any
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, variables: Params, images: Float[Array, "b ..."], tap: Tap, *inputs: Any) -> Any:
        from flax import errors
        from flax import linen as nn

        def intercept(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
            output = method(*args, **kwargs)
            name, path = context.method_name, context.module.path
            # The module itself has no path: its output is the network's.
            if name == "__call__":
                return tap(".".join(path), output) if path else output
            # Flax's own methods, `setup` among them, are no layers.
            theirs = name == "setup" or type(context.module).__module__.startswith("flax.")
            return output if theirs else tap(".".join((*path, name)), output)

        try:
            with nn.intercept_methods(intercept):
                outputs = self.module.apply(variables, images, *inputs, **dict(self.kwargs))
        except errors.ScopeCollectionNotFound as error:
            raise ValueError(
                f"the variables of {type(self.module).__name__} are not complete ({error}): give all that module.init "
                'returned, such as {"params": ..., "batch_stats": ...}'
            ) from error
        except (errors.ModifyScopeVariableError, errors.InvalidRngError, NameError) as error:
            # Batch normalisation looks for its `axis_name` in training only. Other NameErrors are the network's own.
            if isinstance(error, NameError) and "axis name" not in str(error):
                raise
            raise ValueError(
                f"{type(self.module).__name__} is not in inference mode ({error}): give its switch as a keyword "
                "argument, such as train=False or deterministic=True"
            ) from error
        return outputs
