"""Programs for TPUs and GPUs, compiled on a machine without one: the compilers need a description of it only.

`libtpu` knows its devices by name; JAX's plugin for CUDA takes a description. What a program computes and how fast it
runs cannot be seen here. What can: whether it compiles, its memory, what it asks of other devices and the host, and for
a TPU its FLOPs and bytes. Start Python with JAX_PLATFORMS=cpu: otherwise the plugin looks for a GPU, finds none, and is
dropped.
"""

import functools
import inspect
import itertools
import os
import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from sscam_jax.cams import registry
from sscam_jax.evaluation import _sharded
from sscam_jax.networks.network import cut, template
from sscam_jax.networks.registry import find
from sscam_jax.types import Apply, Params

# Without these libtpu looks for the machine that it runs on, and waits.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # a device has one user; a compiler may have several

# By device and number of devices: the smallest slice that has so many.
TOPOLOGIES = {
    ("v5e", 1): "v5e:2x2", ("v5e", 4): "v5e:2x2", ("v5e", 8): "v5e:2x4",
    ("v6e", 1): "v6e:2x2", ("v6e", 4): "v6e:2x2", ("v6e", 8): "v6e:2x4",
    ("v5p", 1): "v5p:2x2x1", ("v5p", 4): "v5p:2x2x1", ("v5p", 8): "v5p:2x2x2",
}  # fmt: skip
TPUS, GPUS = ("v5e", "v6e", "v5p"), ("h100",)
# An H100 SXM: NVIDIA's data sheet, and the CUDA programming guide's limits of compute capability 9.0.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  memory_bandwidth: 3352000000000
  device_memory_size: 85899345920
  l2_cache_size: 52428800
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
SIZE, CLASSES = 224, 1000
NETWORKS = ("resnet18", "squeezenet1_0", "vgg16")
FIRST = ("grad-cam", "score-cam:paper", "ss-cam:light", "ss-cam:paper")
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


class Cell(NamedTuple):
    """One program: a method by its text on a network's default layer, for some devices of one kind.

    Attributes:
        method: as `cams.registry.parse` reads it.
        network: its name.
        dtype: of the passes.
        device: "v5e", "v6e", "v5p" or "h100".
        devices: how many share the work.
        chunk: inputs per chunk, or images per device for a method of a few passes.
    """

    method: str
    network: str
    dtype: str = "bfloat16"
    device: str = "v5e"
    devices: int = 1
    chunk: int = 128


class Figures(NamedTuple):
    """What the compiler says of one device's program. A loop's body counts once, however often it runs.

    Attributes:
        seconds: the processor time of its compilation.
        flops: operations; None where the compiler does not tell, as the one for GPUs.
        moved: bytes that operations read and write; likewise.
        temporaries: bytes beside arguments and results.
        collectives: where devices meet: the operation, and in how many loops it stands.
        calls: the targets of custom calls, and other ways out of the program.
    """

    seconds: float
    flops: float | None
    moved: float | None
    temporaries: int
    collectives: tuple[tuple[str, int], ...]
    calls: tuple[str, ...]


def scored(method: str) -> bool:
    """Whether it takes thousands of passes, which devices share: else it runs on a batch of images."""
    return "devices" in inspect.signature(registry.parse(method)[0]).parameters


def setting(network: str) -> tuple[Apply, Params]:
    """A network and the shapes of its parameters."""
    return cut(find(network), CLASSES, None), template(find(network), CLASSES)


def _devices(cell: Cell) -> list[Any]:
    if cell.device in GPUS:
        one_host = f"1x1x{cell.devices}"  # of partitions, hosts and devices on each
        return list(topologies.get_topology_desc(platform="cuda", target_config=H100, topology=one_host).devices)
    topology = topologies.get_topology_desc(TOPOLOGIES[cell.device, cell.devices], platform="tpu")
    return list(topology.devices[: cell.devices])


def _as(dtype: str, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)), tree)


def _figures(function: Any, *arguments: Any) -> Figures:
    lowered = function.lower(*arguments)
    began = time.process_time()
    program = lowered.compile()
    seconds = time.process_time() - began
    cost, memory, text = program.cost_analysis(), program.memory_analysis(), program.as_text()
    calls = set(re.findall(r'custom_call_target="([^"]+)"', text))
    calls |= {name for name in ("infeed", "outfeed", "send", "recv") if re.search(rf" {name}\(", text)}
    met = []
    for line in text.splitlines():
        if found := re.search(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", line):
            met.append((found[1], line.count("while/body")))
    # A program that computes next to nothing has no FLOPs in the account.
    flops, moved = (cost.get("flops", 0.0), cost["bytes accessed"]) if cost else (None, None)
    return Figures(seconds, flops, moved, memory.temp_size_in_bytes, tuple(met), tuple(sorted(calls)))


@functools.cache
def bare(network: str, dtype: str, device: str, images: int) -> Figures:
    """A plain forward pass on one device."""
    apply, params = setting(network)
    place = SingleDeviceSharding(_devices(Cell("", network, dtype, device))[0])
    function = jax.jit(lambda params, images: apply(params, images), in_shardings=place, out_shardings=place)
    return _figures(function, _as(dtype, params), jax.ShapeDtypeStruct((images, SIZE, SIZE, 3), jnp.dtype(dtype)))


def compiled(cell: Cell) -> Figures:
    """A method's program: of one image where the devices share its passes, else of a batch that they share."""
    method, choices = registry.parse(cell.method)
    apply, params = setting(cell.network)
    devices, several = _devices(cell), not scored(cell.method)
    count = cell.chunk * cell.devices if several else 1
    # Where only the passes can be in another precision, they are; else all of the network is.
    whole = "float32" if "precision" in choices else cell.dtype
    if "precision" in choices:
        method = functools.partial(method, precision=cell.dtype)
    images = jax.ShapeDtypeStruct((count, SIZE, SIZE, 3), jnp.dtype(whole))
    integers = jax.ShapeDtypeStruct((count,), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    if several:
        mesh = Mesh(devices, ("images",))
        given = tuple(name for name in ("key", "ids") if name in inspect.signature(method).parameters)
        spread, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("images",), ()))
        function = jax.jit(
            functools.partial(_sharded.maps_of, cell.method, method, given, apply, mesh),
            in_shardings=(everywhere, spread, spread, everywhere, spread),
        )
        return _figures(function, _as(whole, params), images, integers, key, integers)

    def share(params: Params, images: Any, labels: Any, key: Any) -> Any:
        random = {"key": key} if registry.draws(method) else {}
        return method(apply, params, images, labels, devices=devices, chunk_size=cell.chunk, **random)

    return _figures(jax.jit(share), _as(whole, params), images, integers, key)


def problems(cell: Cell, found: Figures, plain: Figures) -> list[str]:
    """What is wrong with a method's program, beside a plain pass of as many inputs."""
    method, choices = registry.parse(cell.method)
    said = []
    # For GPUs the convolutions are calls of cuDNN: a plain pass leaves next to nothing to compile.
    if found.seconds > 2.5 * plain.seconds and cell.device in TPUS:
        said.append(f"compiles in {found.seconds:.0f} s of processor time, a plain pass in {plain.seconds:.0f} s")
    # Beside the pass: masks, noise and masked inputs in float32, and the parameters in the passes' precision.
    numbers = sum(leaf.size for leaf in jax.tree.leaves(setting(cell.network)[1]))
    bound = plain.temporaries + 4 * (4 * cell.chunk * SIZE * SIZE * 3 + numbers)
    if found.temporaries > bound:
        said.append(f"has {found.temporaries >> 20} MiB of temporaries, the bound is {bound >> 20} MiB")
    if out := [call for call in found.calls if re.search("callback|infeed|outfeed|send|recv|host", call, re.I)]:
        said.append(f"leaves the device: {', '.join(out)}")
    walks = 1 + bool(choices.get("second_pass")) if scored(cell.method) and cell.devices > 1 else 0
    # An image's devices meet after its passes: in the loop over images at most, not in the one over chunks.
    if len(found.collectives) > walks or any(loops > 1 for _, loops in found.collectives):
        said.append(f"has the collectives {found.collectives}, expected at most {walks}, outside of the passes' loop")
    return said


def every_method() -> list[str]:
    """All methods of the registry, those with presets once per preset."""
    return [
        text
        for name, entry in registry.ENTRIES.items()
        for text in ([f"{name}:{preset}" for preset in entry.presets] or [name])
    ]


def covering(devices: tuple[str, ...]) -> list[Cell]:
    """The methods that users ask for first on every network, the others on one, so that each place comes twice.

    A preset differs from its method's others by a few operations per pass, and what a gradient method adds to its
    network's passes is the same on all. All combinations would be 1836 for TPUs, take days and say little more.
    """
    others = [method for method in every_method() if method not in FIRST]
    pairs = list(itertools.product(FIRST, NETWORKS)) + list(zip(others, itertools.cycle(NETWORKS)))
    places = list(itertools.product((1, 4, 8), devices, ("bfloat16", "float32")))
    cells = []
    for i, (method, network) in enumerate(pairs):
        # 7 and 5 share no divisor with 18 and 6: each network goes through all places, in steps that change the most.
        turn, start = divmod(i, len(NETWORKS))
        count, device, dtype = places[(7 * turn + 5 * start) % len(places)]
        cells.append(Cell(method, network, dtype, device, count, 128 if scored(method) else 8))
    return cells
