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
    return sscam.Apply(SomeChannels(apply, tuple(channels)), WholeHead(apply), apply.sections, apply.for_cpu)


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
    """Bare forward passes of the network, nothing else: a jitted loop over chunks that lie ready, of the best size.

    On a CPU with the parameters in the form in which the passes are fastest, as in the engine.
    """

    def __init__(
        self, apply: sscam.Apply, params: Params, images: jax.Array, devices: Sequence[jax.Device], precision: str
    ) -> None:
        mesh = Mesh(np.array(devices), ("channels",))
        on_cpu = devices[0].platform == "cpu" and apply.for_cpu is not None
        params = jax.jit(apply.for_cpu)(params) if on_cpu else params
        self.params = jax.tree.map(lambda leaf: leaf.astype(precision), params)
        self.params = jax.device_put(self.params, NamedSharding(mesh, PartitionSpec()))
        self.spread = NamedSharding(mesh, PartitionSpec(None, "channels"))
        self.images, self.precision = images, precision

        def passes(params, chunks):
            return jax.lax.scan(lambda carry, chunk: (carry, apply(params, chunk)), None, chunks)[1]

        self.run = jax.jit(passes)
        sizes = (1, 2, 4, 8) if on_cpu else (128, 256, 512)
        per_pass = {}
        for size in sizes:
            self.fill(size * len(devices))
            per_pass[size * len(devices)] = min([self.loop_seconds() for _ in range(4)][1:]) / self.inputs.size
        self.fill(min(per_pass, key=per_pass.__getitem__))

    def fill(self, size: int) -> None:
        """A loop of chunks of this size, 64 passes or more."""
        self.chunk, chunks = size, max(2, 64 // size)
        noise = jax.random.normal(jax.random.key(SEED), (chunks, size, *self.images.shape[1:]))
        self.inputs = jax.device_put((self.images + noise).astype(self.precision), self.spread)

    def loop_seconds(self) -> float:
        began = time.perf_counter()
        jax.block_until_ready(self.run(self.params, self.inputs))
        return time.perf_counter() - began

    def seconds(self, passes: int) -> float:
        """Whole loops are run; the time is that of their share."""
        a_loop = self.inputs.shape[0] * self.chunk
        times = [self.loop_seconds() for _ in range(math.ceil(passes / a_loop))]
        return sum(times) * passes / (len(times) * a_loop)


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
