"""What MobileNets and EfficientNets share: inverted residuals and squeeze-and-excitation, as in torchvision."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from sscam_jax.networks.network import Named

Activation = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Style:
    """What all convolutions of a network have in common.

    Attributes:
        epsilon: what batch normalisation adds to the variance.
        same: whether the convolutions are padded as in TensorFlow, where the padding depends on the size of the image;
            otherwise by half the kernel on each side, as in PyTorch.
    """

    epsilon: float = 1e-5
    same: bool = False

    def conv(self, c_in: int, c_out: int, size: int, stride: int, rngs: nnx.Rngs, groups: int = 1) -> nnx.Conv:
        padding = "SAME" if self.same else size // 2
        kernel = (size, size)
        return nnx.Conv(
            c_in, c_out, kernel, stride, padding=padding, feature_group_count=groups, use_bias=False, rngs=rngs
        )

    def norm(self, channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
        return nnx.BatchNorm(channels, use_running_average=True, epsilon=self.epsilon, rngs=rngs)


class Chain(Named):
    """Modules one after another, by their numbers, and an activation at the end."""

    def __init__(self, children: Sequence[nnx.Module], activation: Activation | None = None) -> None:
        super().__init__({str(i): child for i, child in enumerate(children)})
        self.length, self.activation = len(children), activation

    def __call__(self, x: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        for i in range(self.length):
            x = getattr(self, str(i))(x)
        return x if self.activation is None else self.activation(x)


class SqueezeExcitation(nnx.Module):
    """x · gate(W₂ ReLU(W₁ mean(x))): each channel is scaled by a function of the means of all channels."""

    def __init__(self, channels: int, squeezed: int, inner: Activation, gate: Activation, rngs: nnx.Rngs) -> None:
        # Convolutions and not linear layers, because the checkpoints have kernels of four axes.
        self.fc1 = nnx.Conv(channels, squeezed, (1, 1), rngs=rngs)
        self.fc2 = nnx.Conv(squeezed, channels, (1, 1), rngs=rngs)
        self.inner, self.gate = inner, gate

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return x * self.gate(self.fc2(self.inner(self.fc1(x.mean(axis=(1, 2), keepdims=True)))))


@dataclasses.dataclass(frozen=True)
class Block:
    """The sizes of an inverted residual.

    Attributes:
        c_in: the number of input channels.
        expanded: the number of channels inside the block.
        c_out: the number of output channels.
        size: the side of the kernel that filters each channel.
        stride: its stride.
        activation: the activation inside the block.
        squeezed: the number of channels inside the squeeze-and-excitation; 0 for none.
        gates: the two activations of the squeeze-and-excitation.
    """

    c_in: int
    expanded: int
    c_out: int
    size: int
    stride: int
    activation: Activation
    squeezed: int = 0
    gates: tuple[Activation, Activation] = (jax.nn.relu, jax.nn.hard_sigmoid)


class InvertedResidual(nnx.Module):
    """F(x), or x + F(x) where the shapes are equal.

    F is a 1x1 convolution to more channels, a filter per channel, squeeze-and-excitation, and a 1x1 convolution to few
    channels without activation (Sandler et al., arXiv 1801.04381). The first and the third of these are optional.
    """

    def __init__(self, block: Block, style: Style, rngs: nnx.Rngs, name: str = "block") -> None:
        wide, activation = block.expanded, block.activation
        steps: list[nnx.Module] = []
        # Nothing to expand: torchvision leaves this convolution out then, and checkpoints have no kernel for it.
        if wide != block.c_in:
            steps.append(Chain([style.conv(block.c_in, wide, 1, 1, rngs), style.norm(wide, rngs)], activation))
        depthwise = style.conv(wide, wide, block.size, block.stride, rngs, groups=wide)
        steps.append(Chain([depthwise, style.norm(wide, rngs)], activation))
        if block.squeezed:
            steps.append(SqueezeExcitation(wide, block.squeezed, *block.gates, rngs))
        last = [style.conv(wide, block.c_out, 1, 1, rngs), style.norm(block.c_out, rngs)]
        # torchvision's MobileNetV2 calls the steps `conv`, and lists the last convolution and its norm one by one.
        steps += last if name == "conv" else [Chain(last)]
        self.name, self.adds = name, block.stride == 1 and block.c_in == block.c_out
        setattr(self, name, Chain(steps))

    def __call__(self, x: Float[Array, "b height width c_in"]) -> Float[Array, "b h w c"]:
        residual = getattr(self, self.name)(x)
        return x + residual if self.adds else residual
