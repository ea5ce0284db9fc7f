"""Modules of PyTorch, run by JAX through torchax."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Array, Float

from sscam_jax._support import imported
from sscam_jax.adapt import _names
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Network, Tap, cut
from sscam_jax.types import Apply, Params


def torch(
    module: Any,
    layer: str,
    *,
    inputs: Inputs = (),
    logits: Logits = None,
    channels_first: bool = True,
    tokens: int | None = None,
    grid: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[Apply, Params]:
    """A PyTorch module as a network to explain, cut after one of its modules; torchax runs its operations in JAX.

    The weights are copied, and the module stays as it is. torchax 0.0.13 is tested with torch 2.12.0.

    Args:
        module: the module in evaluation mode (`module.eval()`), called as `module(images, *inputs, **kwargs)`.
        layer: the path of the module inside it whose output is explained, such as "layer4" or "blocks.11.norm1".
        inputs: as in `plain`.
        logits: as in `plain`.
        channels_first: as in `plain`; PyTorch's convolutions are.
        tokens: as in `plain`.
        grid: as in `plain`.
        kwargs: keyword arguments of the call.

    Returns:
        The network, and its parameters: the module's parameters and buffers by their names.

    Raises:
        ImportError: torchax is not installed.
        ValueError: a module in training mode, or no such layer; when it runs, a layer that does not run just once.

    Example:
        >>> from sscam_jax import adapt, grad_cam
        >>> def explain(module, images):  # images [b, height, width, 3], as everywhere here
        ...     return grad_cam(*adapt.torch(module.eval(), "layer4"), images, None).maps
    """
    _names.check_adapter(module, "torch")
    network, params = torch_network(module, layer, kwargs)
    layout = Layout(channels_first, tokens, grid)
    return cut(network, params, layer, inputs=inputs, logits=logits, layout=layout)


def torch_network(module: Any, layer: str | None, kwargs: Mapping[str, Any]) -> tuple[Network, Params]:
    """The network that taps the layer, or all modules where it is None, and its parameters."""
    torchax = imported("torchax", "torch")
    # Each module has its own switch: a frozen part may be in evaluation mode while the rest is not.
    training = [name or type(module).__name__ for name, inner in module.named_modules() if inner.training]
    if training:
        raise ValueError(f"the module is in training mode, at {', '.join(training[:5])}: call module.eval() first")
    names = [name for name, _ in module.named_modules() if name]
    if layer is not None and layer not in names:
        raise _names.unknown_layer(layer, f"of {type(module).__name__}", names)
    params, function = torchax.extract_jax(module)
    return _Torch(module, function, layer, tuple(sorted(kwargs.items()))), params


@dataclasses.dataclass(frozen=True)
class _Torch:
    module: Any
    # torchax makes another function at each call of the adapter; the module alone says what it computes.
    function: Callable[..., Any] = dataclasses.field(compare=False)
    layer: str | None
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, params: Params, images: Float[Array, "b ..."], tap: Tap, *inputs: Any) -> Any:
        # Hooks see tensors of torchax, the tap takes arrays of JAX.
        environment = imported("torchax", "torch").default_env()

        def hook(name: str) -> Callable[..., Any]:
            def call(module: Any, args: Any, output: Any) -> Any:
                return environment.j2t_iso(tap(name, environment.t2j_iso(output)))

            return call

        with contextlib.ExitStack() as stack:
            for name, module in self.module.named_modules():
                if name and self.layer in (None, name):
                    # Removed after the trace, also on an error: the module stays the user's.
                    handle = module.register_forward_hook(hook(name))
                    stack.callback(handle.remove)
            return self.function(params, (images, *inputs), dict(self.kwargs))
