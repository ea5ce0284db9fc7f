"""How a network lays its images and activations out, and how they are laid out here: channels last, on a grid."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

MOST_TOKENS = 8  # class token, distillation token and registers; no network is known with more


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout inside a network.

    Attributes:
        channels_first: images are [b, c_in, *space] and maps [b, c, *grid].
        tokens: how many of the tokens [b, tokens, c] come before the patches and belong to no place; None: as many as
            leave patches that fill a grid, where only one number does.
        grid: how many patches lie along each axis; None: evenly over the image.
    """

    channels_first: bool
    tokens: int | None
    grid: tuple[int, ...] | None

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 0:
            raise ValueError(f"tokens={self.tokens} is negative: it counts the tokens before the patches")

    def images(self, images: Float[Array, "b *space c_in"]) -> Float[Array, "b ..."]:
        """The images as the network takes them."""
        return jnp.moveaxis(images, -1, 1) if self.channels_first else images

    def to_grid(
        self, output: Float[Array, "b ..."], space: tuple[int, ...]
    ) -> tuple[Float[Array, "b ..."], Float[Array, "b t c"] | tuple[()]]:
        """A layer's output as activations [b, *grid, c], and the tokens that have no place on the grid."""
        # Three axes are tokens for an image, but maps for a sound [b, time, c].
        if self.tokens is None and self.grid is None and (output.ndim != 3 or len(space) < 2):
            return (jnp.moveaxis(output, 1, -1) if self.channels_first else output), ()
        if output.ndim != 3:
            raise ValueError(
                f"the layer gives shape {output.shape}; tokens={self.tokens}, grid={self.grid} expect [b, tokens, c]"
            )
        before, grid = self.places(output.shape[1], space)
        return output[:, before:].reshape(output.shape[0], *grid, output.shape[2]), output[:, :before]

    def places(self, tokens: int, space: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """How many tokens come before the patches, and the grid that the patches fill.

        Raises:
            ValueError: no grid is filled, or more than one may be meant.
        """
        if self.tokens is None and self.grid is None:
            return _only(tokens, space)
        before = tokens - math.prod(self.grid) if self.tokens is None and self.grid is not None else self.tokens or 0
        patches = tokens - before
        grid = _even(patches, space) if self.grid is None else self.grid
        if before < 0 or math.prod(grid) != patches or len(grid) != len(space):
            raise ValueError(
                f"{patches} patches, which follow {before} other tokens of {tokens}, do not fill a grid of {grid} "
                f"over images of {space}: set tokens, or grid to how many patches lie along each axis"
            )
        return before, grid

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
    # Patches are mostly square, so their number and the sides of the image give the side of one.
    side = (math.prod(space) / max(patches, 1)) ** (1 / len(space))
    return tuple(round(length / side) for length in space)


def _only(tokens: int, space: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """The one grid of square patches that covers the image and leaves at most `MOST_TOKENS` tokens over."""
    # Only sides that cut the image evenly: a patch embedding leaves no border over.
    sides = [side for side in range(1, min(space)) if not any(length % side for length in space)]
    grids = {tuple(length // side for length in space) for side in sides}
    # More than one may fit, and a wrong guess would shear the map without an error. So it is refused.
    found = sorted(grid for grid in grids if 0 <= tokens - math.prod(grid) <= MOST_TOKENS)
    if len(found) != 1:
        meant = " or ".join(f"tokens={tokens - math.prod(grid)} (a grid of {grid})" for grid in found)
        raise ValueError(
            f"the layer gives {tokens} tokens per image, and how they lie over images of {space} is "
            f"{'ambiguous' if found else 'not clear'}: set tokens= to the number of class and register tokens before "
            f"the patches, and grid= where patches are not square{', such as ' + meant if found else ''}"
        )
    return tokens - math.prod(found[0]), found[0]
