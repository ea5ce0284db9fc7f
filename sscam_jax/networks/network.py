"""What every network shares: its layers, its cut into features and head, and the shape of its parameters."""

import dataclasses
import functools
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from sscam_jax.networks.winograd import Conv3x3, transform
from sscam_jax.types import Apply, Carry, Params, Sections

Stages = dict[str, Callable[[Any], Any]]
"""From state to state: the maps [b, h, w, c], or (maps, carry) where the rest of the network needs more."""


@runtime_checkable
class Classifier(Protocol):
    """What a network's module offers: a body of named stages that keep the grid, a pool that ends it, a classifier."""

    def body(self) -> Stages:
        """The stages whose outputs are maps, in order, under torchvision's module paths."""

    def pool(self, state: Any) -> Array:
        """From the body's last state to features [b, d] without space."""

    def classify(self, features: Array) -> Array:
        """From the features to the logits [b, n]."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A network's description, hashed by value.

    Attributes:
        name: what `load` calls it.
        build: makes the module for a number of classes.
        groups: torchvision modules that hold several stages; such a name stands for its last stage.
        default_layer: the layer that the paper explains.
        smallest: the smallest height and width, in pixels, that leave something to classify.
        only_smallest: whether it takes images of no other size.
        aliases: other people's names of layers: a pattern, and the name that it stands for.
        late: the stage from which on layers have more parameters than inputs, "classify" where that is the classifier.
    """

    name: str
    build: Callable[[int, nnx.Rngs], Classifier]
    groups: tuple[str, ...]
    default_layer: str
    smallest: int
    only_smallest: bool = False
    aliases: tuple[tuple[str, str], ...] = ()
    late: str = "classify"


class Named(nnx.Module):
    """Submodules under torchvision's names, which are numbers and so cannot be written as attributes."""

    def __init__(self, children: Mapping[str, nnx.Module]) -> None:
        for name, child in children.items():
            setattr(self, name, child)


@functools.cache
def _skeleton(network: Network, num_classes: int) -> tuple[Any, Any, Params]:
    """The module's graph, the tree of its state, and its parameters as shapes; allocates nothing."""
    module = nnx.eval_shape(lambda: network.build(num_classes, nnx.Rngs(0)))
    graph, state = nnx.split(module)
    return graph, jax.tree.structure(state), nnx.to_pure_dict(state)


def template(network: Network, num_classes: int) -> Params:
    """The parameters' nested dict, with a `jax.ShapeDtypeStruct` for each array."""
    return _skeleton(network, num_classes)[2]


def bind(network: Network, num_classes: int, params: Params) -> Classifier:
    """The module with these parameters.

    Raises:
        ValueError: the parameters' tree is not the network's.
    """
    graph, state, shapes = _skeleton(network, num_classes)
    # The state's leaves and the plain dict's come in one order, that of their sorted paths.
    tree: Any = jax.tree.structure(params)
    if tree != jax.tree.structure(shapes):
        raise ValueError(f"params are not those of {network.name!r}: their tree differs from what `load` returns")
    return nnx.merge(graph, jax.tree.unflatten(state, jax.tree.leaves(params)))


@functools.cache
def stage_names(network: Network) -> tuple[str, ...]:
    """The names of a network's stages, in order."""
    # The names do not depend on the number of classes.
    return tuple(nnx.eval_shape(lambda: network.build(1, nnx.Rngs(0))).body())


def _resolve(network: Network, layer: str) -> str:
    """The stage that a layer's name stands for."""
    stages = stage_names(network)
    ours = [found.expand(name) for alias, name in network.aliases if (found := re.fullmatch(alias, layer))]
    stage = ours[0] if ours else layer
    if stage in network.groups:
        return [inner for inner in stages if inner.startswith(stage + ".")][-1]
    if stage not in stages:
        choices = ", ".join(map(repr, network.groups + stages))
        raise ValueError(f"layer {layer!r} is not a cut of {network.name!r}; choose from {choices}")
    return stage


@dataclasses.dataclass(frozen=True)
class _Cut:
    network: Network
    num_classes: int
    stage: str


@dataclasses.dataclass(frozen=True)
class Features(_Cut):
    """A network from the images up to and including a stage."""

    def __call__(
        self, params: Params, images: Float[Array, "b height width c_in"]
    ) -> tuple[Float[Array, "b h w c"], Carry]:
        smallest = self.network.smallest
        if self.network.only_smallest and images.shape[1:] != (smallest, smallest, 3):
            raise ValueError(
                f"images of shape {images.shape}: {self.network.name!r} takes [b, {smallest}, {smallest}, 3] only, "
                "the size that its position embedding is learnt for"
            )
        if images.shape[3] != 3 or min(images.shape[1:3]) < smallest:
            raise ValueError(
                f"images of shape {images.shape}: {self.network.name!r} takes [b, height, width, 3] "
                f"with height and width of at least {smallest} pixels"
            )
        state: Any = images
        for name, stage in bind(self.network, self.num_classes, params).body().items():
            state = stage(state)
            if name == self.stage:
                break
        return state if isinstance(state, tuple) else (state, ())


@dataclasses.dataclass(frozen=True)
class Head(_Cut):
    """A network from the activations after a stage to the logits."""

    def __call__(self, params: Params, activations: Float[Array, "b h w c"], carry: Carry) -> Float[Array, "b n"]:
        module = bind(self.network, self.num_classes, params)
        body = module.body()
        state: Any = (activations, carry) if carry else activations
        for name in list(body)[list(body).index(self.stage) + 1 :]:
            state = body[name](state)
        return module.classify(module.pool(state))


def _without_bias(params: Params, stage: str) -> Params:
    """The parameters with a stage's bias, if it has one, set to zero."""
    name, _, inner = stage.partition(".")
    if name:
        return {**params, name: _without_bias(params[name], inner)}
    return {**params, "bias": jnp.zeros_like(params["bias"])} if "bias" in params else params


@dataclasses.dataclass(frozen=True)
class SectionStem:
    """The first stage, a convolution, without its bias: linear in the images."""

    network: Network
    num_classes: int

    def __call__(self, params: Params, images: Float[Array, "m height width c_in"]) -> Float[Array, "m h w c"]:
        first = stage_names(self.network)[0]
        return bind(self.network, self.num_classes, _without_bias(params, first)).body()[first](images)


def _early_and_late(network: Network, num_classes: int, params: Params) -> tuple[Stages, Stages]:
    """The stages, the pool and the classifier among them, in two parts."""
    module = bind(network, num_classes, params)
    stages = module.body() | {"pool": module.pool, "classify": module.classify}
    names = list(stages)
    cut = names.index(network.late)
    return {name: stages[name] for name in names[:cut]}, {name: stages[name] for name in names[cut:]}


@dataclasses.dataclass(frozen=True)
class SectionEarly:
    """From what `SectionStem` gives to the first late stage: the first stage's bias, then the other stages."""

    network: Network
    num_classes: int

    def __call__(self, params: Params, responses: Float[Array, "m h w c"]) -> Float[Array, "m ..."]:
        first, *others = _early_and_late(self.network, self.num_classes, params)[0].items()
        bias = functools.reduce(operator.getitem, first[0].split("."), params).get("bias")
        state: Any = responses if bias is None else responses + bias.reshape(1, 1, 1, -1)
        for _, stage in others:
            state = stage(state)
        return state


@dataclasses.dataclass(frozen=True)
class SectionLate:
    """The late stages, to the logits."""

    network: Network
    num_classes: int

    def __call__(self, params: Params, features: Float[Array, "m ..."]) -> Float[Array, "m n"]:
        state: Any = features
        for stage in _early_and_late(self.network, self.num_classes, params)[1].values():
            state = stage(state)
        return state


@dataclasses.dataclass(frozen=True)
class ForCPU:
    """The parameters with the kernels of 3x3 convolutions in Winograd's form."""

    network: Network

    def __call__(self, params: Params) -> Params:
        return transform(params, _conv3x3_paths(self.network))


@functools.cache
def _conv3x3_paths(network: Network) -> tuple[tuple[str, ...], ...]:
    module = nnx.eval_shape(lambda: network.build(1, nnx.Rngs(0)))
    return tuple(tuple(map(str, path)) for path, node in nnx.iter_graph(module) if isinstance(node, Conv3x3))


def cut(network: Network, num_classes: int, layer: str | None) -> Apply:
    """The network cut after a layer (None: its default layer).

    Raises:
        ValueError: the network has no such layer.
    """
    stage = _resolve(network, network.default_layer if layer is None else layer)
    sections = Sections(*(part(network, num_classes) for part in (SectionStem, SectionEarly, SectionLate)))
    features, head = Features(network, num_classes, stage), Head(network, num_classes, stage)
    return Apply(features, head, sections, ForCPU(network))


def max_pool(
    maps: Float[Array, "b height width c"], window: int, stride: int, padding: int = 0, ceil_mode: bool = False
) -> Float[Array, "b h w c"]:
    """Max pooling as PyTorch defines it.

    Padding never wins. Under `ceil_mode` a window may hang over the far edge, as long as it starts inside the
    input or the near padding.
    """

    def far_padding(length: int) -> int:
        if not ceil_mode:
            return padding
        last = -((window - length - 2 * padding) // stride) * stride
        if last >= length + padding:
            last -= stride
        return max(0, last + window - length - padding)

    # One axis after the other: the same maximum, which XLA's CPU backend finds seven times faster.
    for axis in (1, 2):
        sizes, strides, pads = [1] * 4, [1] * 4, [(0, 0)] * 4
        sizes[axis], strides[axis], pads[axis] = window, stride, (padding, far_padding(maps.shape[axis]))
        maps = lax.reduce_window(maps, -jnp.inf, lax.max, sizes, strides, pads)
    return maps


def adaptive_average_pool(maps: Float[Array, "b height width c"], size: int) -> Float[Array, "b size size c"]:
    """Average pooling to `size` bins an axis, PyTorch's bins: bin i covers ⌊i·L/size⌋ to ⌈(i+1)·L/size⌉."""

    def bins(length: int) -> np.ndarray:
        matrix = np.zeros((size, length), np.float32)
        for i in range(size):
            start, stop = i * length // size, -(-(i + 1) * length // size)
            matrix[i, start:stop] = 1 / (stop - start)
        return matrix

    rows, columns = (bins(length) for length in maps.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, maps, precision=lax.Precision.HIGHEST)
