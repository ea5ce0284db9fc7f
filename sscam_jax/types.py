"""The one protocol: a network cut into two pure functions, and what an explanation returns.

Every file gives axes the same names: `b` images; `*space` the spatial axes of the input (one for sound, two for
images, three for video and volumes); `*grid` the spatial axes at the target layer; `c` the channels there; `c_in` the
channels of the input; `n` classes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int

Params = Any
"""A network's parameters: any pytree of arrays."""

Carry = Any
"""What the head needs beside the activations: `()` for a plain CNN, else a pytree of arrays with leading axis b."""


@dataclasses.dataclass(frozen=True)
class Apply:
    """A network cut at its target layer: `features` runs up to it, `head` runs from it to the logits.

    `head(params, *features(params, images))` is the whole network; calling the object runs it. Because the cut is
    explicit, a method can differentiate the head, or run it again on edited activations, without hooks. An `Apply` is
    a static argument of `jax.jit`. So give it functions that hash by value (module-level functions, frozen
    dataclasses): then two equal networks share one compilation.

    Attributes:
        features: `(params, images [b, *space, c_in]) -> (activations [b, *grid, c], carry)`.
        head: `(params, activations [b, *grid, c], carry) -> logits [b, n]`. Images do not mix: the logits of image i
            depend on row i of the activations and of the carry alone.
        sections: optional, the network cut once more, for speed. It changes no number except by rounding.
        for_cpu: optional, a faster form of `params` for CPUs: `params -> params`. `features`, `head` and `sections`
            give the same outputs with it up to rounding. It is made once per call, before thousands of passes.
        imagenet: whether the images must be normalised with ImageNet's mean and standard deviation, as for the networks
            of `load`. Then methods and evaluations refuse pixels of 0 to 255, and warn of [0, 1].

    Example:
        >>> import jax.numpy as jnp
        >>> apply = Apply(features=lambda params, x: (x * params, ()),
        ...               head=lambda params, activations, carry: activations.sum(axis=(1, 2)))
        >>> apply(jnp.float32(2), jnp.ones((1, 4, 4, 3))).tolist()
        [[32.0, 32.0, 32.0]]
    """

    features: Callable[[Params, Array], tuple[Array, Carry]]
    head: Callable[[Params, Array, Carry], Array]
    sections: "Sections | None" = None
    for_cpu: Callable[[Params], Params] | None = None
    imagenet: bool = False

    def __call__(self, params: Params, images: Float[Array, "b *space c_in"]) -> Float[Array, "b n"]:
        """Run the whole network: images [b, *space, c_in] to logits [b, n]."""
        return self.head(params, *self.features(params, images))


class Saliency(NamedTuple):
    """What every method returns, in float32 and finite.

    `unit(M)` brings a map to [0, 1], U resizes it to the input's size. For the methods that weight channels,
    `raw = Σ_k weights_k A_k` and `maps = unit(ReLU(U(raw)))`; a method that does otherwise says so.

    Attributes:
        maps: the maps at the input's resolution [b, *space], in [0, 1].
        raw: the maps before they are brought to [0, 1], signed, so that maps of different images can be compared. They
            have the target layer's resolution [b, *grid], or the input's for methods that look at no layer.
        weights: the weight of every channel [b, c]; 0 for methods that have no such weights.
        logits: the logits of the images as they are [b, n]. Only these can be other than finite: they are what the
            network said.
        flat: true where the map says nothing [b]; `maps` is zero there. The map is constant, or the label is not a
            class of the network, or something that the network computed was not finite.
        passes: how many images went through `features` for each map [b]: the image itself, and every changed image that
            was scored. Gradients are not counted, nor what only the head does again (Ablation-CAM, Recipro-CAM).
    """

    maps: Float[Array, "b *space"]
    raw: Float[Array, "b *grid"]
    weights: Float[Array, "b c"]
    logits: Float[Array, "b n"]
    flat: Bool[Array, " b"]
    passes: Int[Array, " b"]

    def __repr__(self) -> str:
        """Shapes, and no values: a terminal has no room for an image's."""

        def shown(value: Any) -> str:
            return f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(value)

        return (
            f"Saliency({', '.join(f'{name}={shown(value)}' for name, value in zip(self._fields, self, strict=True))})"
        )


class Batch(NamedTuple):
    """Images of a data set with what is known of them; NumPy arrays on the host, or JAX arrays.

    Attributes:
        images: as the network takes them [b, *space, c_in]; zero where `mask` is false.
        labels: the class index that the data set gives [b], -1 where it gives none.
        boxes: k boxes per image [b, k, 4]: y0, x0, y1, x1 as shares of the input's height and width, in [0, 1] and of
            positive area; a row of -1 holds no box.
        ids: the image's position in the data set [b], -1 for padding. It seeds the image's noise.
        mask: false for the padding that fills the last batch, and for images that cannot be read [b].
    """

    images: Float[Array | np.ndarray, "b *space c_in"]
    labels: Int[Array | np.ndarray, " b"]
    boxes: Float[Array | np.ndarray, "b k 4"]
    ids: Int[Array | np.ndarray, " b"]
    mask: Bool[Array | np.ndarray, " b"]


IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""ImageNet's mean of red, green and blue in [0, 1]. torchvision's networks expect images normalised with it."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""ImageNet's standard deviation of red, green and blue in [0, 1]."""


class Problem(NamedTuple):
    """What is wrong with an image of a data set.

    Attributes:
        id: its position in the full data set.
        name: its name there.
        kind: "unreadable": there is no image; "annotation": the annotation is missing; "boxes": boxes are dropped or
            cut.
        why: what is wrong, and what was done about it.
    """

    id: int
    name: str
    kind: str
    why: str


# `data.as_batches` tells it from other iterables with isinstance.
@runtime_checkable
class Batches(Protocol):
    """A data set in numbered batches of one shape, as an evaluation reads it.

    `data.batches`, `data.from_arrays` and `data.from_batches` make one.

    Attributes:
        batch_size: images in a batch.
        mean: the mean that was subtracted from each channel of the images.
        std: the standard deviation that each channel was then divided by.
    """

    batch_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def about(self) -> Mapping[str, Any]:
        """What determines the arrays, in terms that JSON has: the data set's name, batch size, size, fit, …"""

    @property
    def names(self) -> Mapping[int, str] | None:
        """The images' names by their ids, in the order of reading; None: not known before they are read."""

    @property
    def count(self) -> int | None:
        """How many batches there are; None: not known before they are read."""

    def read(self, numbers: Iterable[int]) -> Iterator[tuple[int, Batch, Sequence[Problem]]]:
        """Each of these rising numbers with its batch and what is wrong with its images; it ends where the data do."""

    def digest(self, number: int) -> str | None:
        """A hash of what batch `number` is read from; None: only reading it tells."""


@dataclasses.dataclass(frozen=True)
class Sections:
    """A network cut before its last layers, so that many passes share work. Only speed depends on it.

    `late(params, early(params, images))` is the whole network. On a CPU `early`, whose arrays are large, runs on few
    inputs at once, as many as the cache holds; `late`, whose weights are large, runs on a whole chunk, which reads
    them once.

    Attributes:
        early: `(params, images [m, *space, c_in]) -> features [m, ...]`. They must be small: a chunk's features stay
            in memory.
        late: `(params, features [m, ...]) -> logits [m, n]`.
    """

    early: Callable[[Params, Array], Array]
    late: Callable[[Params, Array], Array]
