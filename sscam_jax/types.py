"""The one protocol: a network cut in two pure functions, and what an explanation returns.

Axes are named the same everywhere: `b` images, `*space` the input's spatial axes (one for sound, two for
images, three for video and volumes), `*grid` the spatial axes at the target layer, `c` its channels,
`c_in` the input's channels, `n` classes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int

Params = Any
"""A network's parameters: any pytree of arrays."""

Carry = Any
"""What the head needs besides the activations: `()` for a plain CNN, else any pytree of arrays."""


@dataclasses.dataclass(frozen=True)
class Sections:
    """A network cut where many passes can share work: after its first, linear layer and before its last layers.

    `late(params, early(params, stem(params, images)))` is the whole network. Because `stem` is linear, the response to
    X + s·Z is stem(X) + s·stem(Z), whatever the number of X and s that share a Z. On a CPU `early`, whose arrays are
    large, is run on as few inputs as its cache holds, `late`, whose parameters are read anew at every call, on a whole
    chunk of them.

    Attributes:
        stem: `(params, images [m, *space, c_in]) -> responses [m, ...]`, linear in the images: no bias.
        early: `(params, responses [m, ...]) -> features [m, ...]`, small ones: those of a chunk are held at once.
        late: `(params, features [m, ...]) -> logits [m, n]`.
    """

    stem: Callable[[Params, Array], Array]
    early: Callable[[Params, Array], Array]
    late: Callable[[Params, Array], Array]


@dataclasses.dataclass(frozen=True)
class Apply:
    """A network cut at its target layer: `features` up to it, `head` from it to the logits.

    `head(params, *features(params, images))` is the whole network, which calling the object runs. The
    explicit cut is what lets a method differentiate the head, or re-run it on edited activations, without
    hooks. An `Apply` is a static argument of `jax.jit`: give it functions that hash by value (module-level
    functions, frozen dataclasses), so that two equal networks share one compilation.

    Attributes:
        features: `(params, images [b, *space, c_in]) -> (activations [b, *grid, c], carry)`.
        head: `(params, activations [b, *grid, c], carry) -> logits [b, n]`. Images do not mix: logits of
            image i depend on row i of the activations and of the carry alone.
        sections: the network cut in three, where its first layer is linear; only speed depends on it.
        for_cpu: `params -> params`, with which `features`, `head` and `sections` give the same numbers, but for
            rounding, sooner on a CPU: for kernels that can be transformed once for thousands of passes.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = Apply(features=lambda params, x: (x * params, ()),
        ...               head=lambda params, activations, carry: activations.sum(axis=(1, 2)))
        >>> apply(jnp.float32(2), jnp.ones((1, 4, 4, 3))).tolist()
        [[32.0, 32.0, 32.0]]
    """

    features: Callable[[Params, Array], tuple[Array, Carry]]
    head: Callable[[Params, Array, Carry], Array]
    sections: Sections | None = None
    for_cpu: Callable[[Params], Params] | None = None

    def __call__(self, params: Params, images: Float[Array, "b *space c_in"]) -> Float[Array, "b n"]:
        """Run the whole network: images [b, *space, c_in] to logits [b, n]."""
        return self.head(params, *self.features(params, images))


class Saliency(NamedTuple):
    """What every method returns, in float32, never NaN.

    Attributes:
        maps: the maps at the input's resolution, each in [0, 1]: `unit(ReLU(U(raw)))`.
        raw: the map at the target layer's resolution (the input's, for methods that look at no layer), signed and
            without normalisation, so that maps of different images can be compared: `Σ_k weights_k A_k`.
        weights: the weight of every channel.
        logits: the network's answer to the images as they are.
        flat: true where the map is constant and so says nothing; `maps` is zero there.
        passes: how many forward passes of the whole network each map took.
    """

    maps: Float[Array, "b *space"]
    raw: Float[Array, "b *grid"]
    weights: Float[Array, "b c"]
    logits: Float[Array, "b n"]
    flat: Bool[Array, " b"]
    passes: Int[Array, " b"]


class Batch(NamedTuple):
    """Images of a data set with what is known of them; NumPy arrays on the host, or JAX arrays.

    Attributes:
        images: as the network takes them; zero where `mask` is false.
        labels: the class index that the data set gives, -1 where it gives none.
        boxes: k boxes an image, y0, x0, y1, x1 as shares of the input's height and width, in [0, 1] and of positive
            area; a row of -1 holds no box.
        ids: the image's position in the data set, -1 for padding. An image's noise hangs on it.
        mask: false for the padding that fills the last batch, and for images that can't be read.
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
