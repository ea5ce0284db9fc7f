"""Plain functions, which say themselves where they are cut."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float

from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Tap, cut
from sscam_jax.types import Apply, Params


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
        network: the function. It is compiled once if it hashes by value, as functions of a module do.
        params: its parameters, a pytree of arrays.
        inputs: what it takes after `tap`: arrays without batch axis, the same for every image. They are
            `params["inputs"]` of the parameters that come back: `jax.vmap` over them and the images gives each image
            its own.
        logits: where the logits are among the outputs: an index, a key, or a path of them such as ("cls", "p4");
            None: the outputs are the logits.
        channels_first: whether it takes images [b, c_in, *space] and has activations [b, c, *grid]. The images of
            methods are [b, *space, c_in] all the same.
        tokens: for activations [b, tokens, c], how many tokens (class token, registers) come before those of the
            patches. The patches are laid on a grid, and the other tokens are carried to the head. None: the number
            follows from the image's sides where only one is possible.
        grid: how many patches lie along each axis; None: as many as the proportions of the image give.

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
    # A function names no layers, so its one cut has a fixed name.
    return cut(_Plain(network), params, "tap", inputs=inputs, logits=logits, layout=layout)


@dataclasses.dataclass(frozen=True)
class _Plain:
    network: Callable[..., Any]

    def __call__(self, params: Params, images: Float[Array, "..."], tap: Tap, *inputs: Any) -> Any:
        return self.network(params, images, lambda maps: tap("tap", maps), *inputs)
