"""What the networks share: the protocol of their modules, the cut into features and head, and PyTorch's pools."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping
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
"""Functions by name. Each maps a state to the next. A state is the maps [b, h, w, c], or (maps, carry) where the
later stages need more than the maps."""


@runtime_checkable
class Classifier(Protocol):
    """What the module of a network provides: `classify(pool(last stage of body))` gives the logits."""

    def body(self) -> Stages:
        """Return the stages whose outputs are maps, in order, by torchvision's module paths."""

    def pool(self, state: Any) -> Array:
        """Reduce the body's last state to features [b, d], which have no spatial axes."""

    def classify(self, features: Array) -> Array:
        """Compute the logits [b, n] from the features."""


@dataclasses.dataclass(frozen=True)
class Network:
    """The description of a network. It is hashed by value.

    Attributes:
        name: the name that `load` takes.
        build: a function that makes the module for a number of classes.
        groups: torchvision modules that contain several stages. The name of a group stands for its last stage.
        default_layer: the layer that is explained by default.
        smallest: the smallest height and width in pixels for which the last maps are not empty.
        only_smallest: whether the network accepts this size only.
        aliases: layer names of other libraries. Each entry is a regular expression and the name that it stands for.
        late: the first stage of `Sections.late`: from here on, layers have more parameters than inputs.
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
    """A container for submodules whose names are numbers in torchvision: `module.0` is not valid Python."""

    def __init__(self, children: Mapping[str, nnx.Module]) -> None:
        for name, child in children.items():
            setattr(self, name, child)


class _OneKey(nnx.Rngs):
    """One key for all parameters, of which only the shapes are used. A counter would be traced again at each draw."""

    def __init__(self) -> None:
        pass

    def params(self) -> Array:
        return jax.random.key(0)


def submodules(module: nnx.Module, paths: Iterable[str]) -> Stages:
    """Return the submodules at these dotted paths as stages, in order."""
    return {path: functools.reduce(getattr, path.split("."), module) for path in paths}


@functools.cache
def _skeleton(network: Network, num_classes: int) -> tuple[Any, Any, Params]:
    """Return the graph of the module, the tree of its state and the shapes of its parameters. Allocates no arrays."""
    # Cached, because building the module costs far more than one call of a jitted network.
    module = nnx.eval_shape(lambda: network.build(num_classes, _OneKey()))
    graph, state = nnx.split(module)
    return graph, jax.tree.structure(state), nnx.to_pure_dict(state)


def template(network: Network, num_classes: int) -> Params:
    """Return the nested dict of the parameters, with a `jax.ShapeDtypeStruct` in place of each array."""
    return _skeleton(network, num_classes)[2]


def bind(network: Network, num_classes: int, params: Params) -> Classifier:
    """Return the module with these parameters.

    Raises:
        ValueError: the tree of the parameters differs from that of the network.
    """
    graph, state, shapes = _skeleton(network, num_classes)
    # The state and the plain dict have their leaves in the same order: sorted by path.
    tree: Any = jax.tree.structure(params)
    if tree != jax.tree.structure(shapes):
        raise ValueError(
            f"params are not those of {network.name!r} with {num_classes} classes: their tree differs from what "
            "`load` and `init_params` return"
        )
    return nnx.merge(graph, jax.tree.unflatten(state, jax.tree.leaves(params)))


@functools.cache
def stage_names(network: Network) -> tuple[str, ...]:
    """Return the names of the stages, in order."""
    # The names are the same for every number of classes.
    return tuple(bind(network, 1, template(network, 1)).body())


def _resolve(network: Network, layer: str) -> str:
    """Return the stage that the name of a layer stands for: an alias, a group or the stage itself."""
    stages = stage_names(network)
    ours = [found.expand(name) for alias, name in network.aliases if (found := re.fullmatch(alias, layer))]
    stage = ours[0] if ours else layer
    if stage in network.groups:
        return [inner for inner in stages if inner.startswith(stage + ".")][-1]
    if stage not in stages:
        # The message has the name as it was given: its reader may not know what an alias stands for.
        choices = ", ".join(map(repr, network.groups + stages))
        raise ValueError(f"network {network.name!r} has no layer {layer!r}; choose from {choices}")
    return stage


@dataclasses.dataclass(frozen=True)
class _Cut:
    # Frozen dataclasses and not closures, because these are hashed by value: two loads of the same network give equal
    # functions, which share one compilation.
    network: Network
    num_classes: int
    stage: str


@dataclasses.dataclass(frozen=True)
class Features(_Cut):
    """The part of a network from the images to the output of a stage."""

    def __call__(
        self, params: Params, images: Float[Array, "b height width c_in"]
    ) -> tuple[Float[Array, "b h w c"], Carry]:
        smallest = self.network.smallest
        if self.network.only_smallest and images.shape[1:] != (smallest, smallest, 3):
            raise ValueError(
                f"images have shape {images.shape}, expected [b, {smallest}, {smallest}, 3]: {self.network.name!r} "
                "has a position embedding for this size only. Resize the images, for example by "
                f"`data.preprocess(images, size={smallest})`"
            )
        if images.ndim != 4 or images.shape[3] != 3 or min(images.shape[1:3]) < smallest:
            raise ValueError(
                f"images have shape {images.shape}, expected [b, height, width, 3] with height and width of at least "
                f"{smallest} pixels for {self.network.name!r}: the channels are the last axis"
            )
        state: Any = images
        # Stages after the cut are not traced, so XLA never sees them.
        for name, stage in bind(self.network, self.num_classes, params).body().items():
            state = stage(state)
            if name == self.stage:
                break
        return state if isinstance(state, tuple) else (state, ())


@dataclasses.dataclass(frozen=True)
class Head(_Cut):
    """The part of a network from the output of a stage to the logits."""

    def __call__(self, params: Params, activations: Float[Array, "b h w c"], carry: Carry) -> Float[Array, "b n"]:
        module = bind(self.network, self.num_classes, params)
        body = module.body()
        # A CNN's stages take the maps alone, a transformer's take the maps and the carry.
        state: Any = (activations, carry) if carry else activations
        for name in list(body)[list(body).index(self.stage) + 1 :]:
            state = body[name](state)
        return module.classify(module.pool(state))


@dataclasses.dataclass(frozen=True)
class Section:
    """Run the stages before the first late one, or the late ones. The pool and the classifier count as stages."""

    network: Network
    num_classes: int
    late: bool

    def __call__(self, params: Params, state: Any) -> Array:
        module = bind(self.network, self.num_classes, params)
        stages = module.body() | {"pool": module.pool, "classify": module.classify}
        names = list(stages)
        cut = names.index(self.network.late)
        for name in names[cut:] if self.late else names[:cut]:
            state = stages[name](state)
        return state


@dataclasses.dataclass(frozen=True)
class ForCPU:
    """Return the parameters with the kernels of 3x3 convolutions in Winograd's form, which is faster on CPUs."""

    network: Network

    def __call__(self, params: Params) -> Params:
        return transform(params, _conv3x3_paths(self.network))


@functools.cache
def _conv3x3_paths(network: Network) -> tuple[tuple[str, ...], ...]:
    """Return where the kernels of the `Conv3x3` layers are in the parameters."""
    module = nnx.eval_shape(lambda: network.build(1, _OneKey()))
    return tuple(tuple(map(str, path)) for path, node in nnx.iter_graph(module) if isinstance(node, Conv3x3))


def cut(network: Network, num_classes: int, layer: str | None) -> Apply:
    """Cut the network after a layer. `None` is the default layer.

    Raises:
        ValueError: the network has no such layer.
    """
    stage = _resolve(network, network.default_layer if layer is None else layer)
    sections = Sections(*(Section(network, num_classes, late) for late in (False, True)))
    features, head = Features(network, num_classes, stage), Head(network, num_classes, stage)
    return Apply(features, head, sections, ForCPU(network), imagenet=True)


def max_pool(
    maps: Float[Array, "b height width c"], window: int, stride: int, padding: int = 0, ceil_mode: bool = False
) -> Float[Array, "b h w c"]:
    """Max pooling as PyTorch defines it.

    The padding is −∞, so it is never the maximum. With `ceil_mode`, the last window may extend beyond the end of the
    input. It must start inside the input or inside the padding before it.
    """

    def far_padding(length: int) -> int:
        if not ceil_mode:
            return padding
        # The start of the last window: the number of steps is rounded up.
        last = -((window - length - 2 * padding) // stride) * stride
        if last >= length + padding:  # PyTorch drops a window that starts in the padding after the input
            last -= stride
        return max(0, last + window - length - padding)

    # One axis after the other, not a square window: the maximum is the same, and XLA's CPU
    # backend takes a seventh of the time.
    for axis in (1, 2):
        sizes, strides, pads = [1] * 4, [1] * 4, [(0, 0)] * 4
        sizes[axis], strides[axis], pads[axis] = window, stride, (padding, far_padding(maps.shape[axis]))
        maps = lax.reduce_window(maps, -jnp.inf, lax.max, sizes, strides, pads)
    return maps


def average_pool(maps: Float[Array, "b height width c"], window: int) -> Float[Array, "b h w c"]:
    """Average pooling with windows that do not overlap. As in PyTorch, rows and columns that fill no window are cut."""
    b, height, width, c = maps.shape
    h, w = height // window, width // window
    return maps[:, : h * window, : w * window].reshape(b, h, window, w, window, c).mean(axis=(2, 4))


def adaptive_average_pool(maps: Float[Array, "b height width c"], size: int) -> Float[Array, "b size size c"]:
    """Average pooling to `size` bins per axis. As in PyTorch, bin i covers ⌊i·L/size⌋ to ⌈(i+1)·L/size⌉.

    The bins of an axis are a matrix whose rows are the weights of the averages, so the pooling is two products.
    """

    def bins(length: int) -> np.ndarray:
        matrix = np.zeros((size, length), np.float32)
        for i in range(size):
            start, stop = i * length // size, -(-(i + 1) * length // size)
            matrix[i, start:stop] = 1 / (stop - start)
        return matrix

    rows, columns = (bins(length) for length in maps.shape[1:3])
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, maps, precision=lax.Precision.HIGHEST)
