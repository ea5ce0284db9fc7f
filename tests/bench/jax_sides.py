"""Our side: the maps through the public interface, and the floor of bare forward passes; no PyTorch in this file."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import sscam_jax as sscam
from sscam_jax import networks
from sscam_jax.types import Params

SEED = 0


@dataclasses.dataclass(frozen=True)
class SomeChannels:
    """Features that show some channels of the target layer only; all of them go on to the head in the carry."""

    apply: sscam.Apply
    channels: tuple[int, ...]

    def __call__(self, params, images):
        activations, carry = self.apply.features(params, images)
        return activations[..., np.array(self.channels)], (activations, carry)


@dataclasses.dataclass(frozen=True)
class WholeHead:
    apply: sscam.Apply

    def __call__(self, params, shown, carry):
        return self.apply.head(params, *carry)


def load(name: str, weights: pathlib.Path) -> tuple[sscam.Apply, Params]:
    """The network with the folder's weights, random ones where it has none."""
    file = weights / f"{name}.pth"
    return sscam.load(name, checkpoint=file if file.exists() else networks.init_params(name, jax.random.key(SEED)))


def some(apply: sscam.Apply, channels: Sequence[int]) -> sscam.Apply:
    """The same network, of whose target layer only these channels are explained."""
    return sscam.Apply(SomeChannels(apply, tuple(channels)), WholeHead(apply), apply.stem)


def channels(apply: sscam.Apply, params: Params, images: jax.Array) -> tuple[int, list[int]]:
    """How many channels the target layer has, and those that are not constant."""
    activations, _ = jax.jit(apply.features)(params, images)
    return activations.shape[-1], np.flatnonzero(np.ptp(np.asarray(activations[0]), (0, 1)) > 0).tolist()


def compile_seconds(run: Callable[[Params], sscam.Saliency], params: Params) -> float:
    """A first call minus a second. With all parameters zero every channel is constant and nothing is scored."""
    nothing = jax.tree.map(jnp.zeros_like, params)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        run(nothing)
        times.append(time.perf_counter() - began)
    return times[0] - times[1]


def low_resolution(saliency: sscam.Saliency) -> np.ndarray:
    """What torchcam returns: unit(ReLU(Σ_k α_k A_k)) on the target layer's grid."""
    return np.asarray(sscam.ops.unit(jax.nn.relu(saliency.raw))[0])


class Floor:
    """Bare forward passes of the network, jitted, in the chunk that is fastest."""

    def __init__(
        self, apply: sscam.Apply, params: Params, images: jax.Array, devices: Sequence[jax.Device], precision: str
    ) -> None:
        self.run = jax.jit(apply)
        mesh = Mesh(np.array(devices), ("channels",))
        self.params = jax.tree.map(lambda leaf: leaf.astype(precision), params)
        self.params = jax.device_put(self.params, NamedSharding(mesh, PartitionSpec()))
        self.spread = NamedSharding(mesh, PartitionSpec("channels"))
        self.images, self.precision = images, precision
        chunks = (128, 256, 512) if devices[0].platform == "gpu" else (8, 16, 32, 64)
        per_pass = {}
        for chunk in chunks:
            self.fill(chunk * len(devices))
            per_pass[chunk * len(devices)] = min([self.chunk_seconds() for _ in range(4)][1:]) / chunk
        self.fill(min(per_pass, key=per_pass.__getitem__))

    def fill(self, size: int) -> None:
        noise = jax.random.normal(jax.random.key(SEED), (size, *self.images.shape[1:]))
        self.inputs = jax.device_put((self.images + noise).astype(self.precision), self.spread)

    def chunk_seconds(self) -> float:
        began = time.perf_counter()
        jax.block_until_ready(self.run(self.params, self.inputs))
        return time.perf_counter() - began

    def seconds(self, passes: int) -> float:
        """Whole chunks are run; the time is that of their share."""
        times = [self.chunk_seconds() for _ in range(math.ceil(passes / len(self.inputs)))]
        return sum(times) * passes / (len(times) * len(self.inputs))


def pass_flops(apply: sscam.Apply, params: Params, images: jax.Array) -> float:
    """Floating point operations of one forward pass, as XLA counts them before optimising."""
    return jax.jit(apply).lower(params, images).cost_analysis()["flops"]


def matrix_peak(size: int = 8192, repeats: int = 20) -> float:
    """Operations a second of bfloat16 matrix products, measured."""
    matrix = jax.random.normal(jax.random.key(SEED), (size, size), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    began = time.perf_counter()
    for _ in range(repeats):
        last = product(matrix, matrix)
    last.block_until_ready()
    return 2 * size**3 * repeats / (time.perf_counter() - began)
