"""How a network lays its images and activations out, and how it is laid out here: channels last, on a grid."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout inside a network.

    Attributes:
        channels_first: images are [b, c_in, *space] and maps [b, c, *grid].
        tokens: None, or how many of the tokens [b, tokens, c] come before the patches and belong to no place.
        grid: how the patches lie, in rows; None: evenly over the image.
    """

    channels_first: bool
    tokens: int | None
    grid: tuple[int, ...] | None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 0:
            raise ValueError(f"tokens={self.tokens} is negative: it counts the tokens before the patches")
        if self.grid is not None and self.tokens is None:
            raise ValueError(f"grid={self.grid} needs tokens, the number of tokens before the patches (0: none)")

    def images(self, images: Float[Array, "b *space c_in"]) -> Float[Array, "b ..."]:
        """The images as the network takes them."""
        return jnp.moveaxis(images, -1, 1) if self.channels_first else images

    def to_grid(
        self, output: Float[Array, "b ..."], space: tuple[int, ...]
    ) -> tuple[Float[Array, "b ..."], Float[Array, "b t c"] | tuple[()]]:
        """A layer's output as activations [b, *grid, c], and the tokens that have no place on the grid."""
        if self.tokens is None:
            return (jnp.moveaxis(output, 1, -1) if self.channels_first else output), ()
        if output.ndim != 3:
            raise ValueError(f"the layer gives shape {output.shape}; tokens={self.tokens} expects [b, tokens, c]")
        patches = output[:, self.tokens :]
        grid = _even(patches.shape[1], space) if self.grid is None else self.grid
        if math.prod(grid) != patches.shape[1] or len(grid) != len(space):
            raise ValueError(
                f"{patches.shape[1]} patches, which follow {self.tokens} other tokens of {output.shape[1]}, do not "
                f"fill a grid of {grid} over images of {space}: set tokens, or grid to how many patches lie along "
                "each axis"
            )
        return patches.reshape(output.shape[0], *grid, output.shape[2]), output[:, : self.tokens]

    def from_grid(
        self, activations: Float[Array, "b *grid c"], others: Float[Array, "b t c"] | tuple[()]
    ) -> Float[Array, "b ..."]:
        """The layer's output that `to_grid` takes apart."""
        if isinstance(others, tuple):
            return jnp.moveaxis(activations, -1, 1) if self.channels_first else activations
        patches = activations.reshape(activations.shape[0], -1, activations.shape[-1])
        return jnp.concatenate([others, patches], axis=1)


def _even(patches: int, space: tuple[int, ...]) -> tuple[int, ...]:
    """The grid of patches with equal sides, to the nearest whole number."""
    side = (math.prod(space) / max(patches, 1)) ** (1 / len(space))
    return tuple(round(length / side) for length in space)
