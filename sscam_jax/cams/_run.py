"""Running the scoring methods: on which devices, and in chunks of what size."""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from sscam_jax.cams import _scores, _tap
from sscam_jax.cams._masks import Traced, scored
from sscam_jax.cams._scores import AXIS, Engine, Progress
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import ALLOWED, Choices, Score
from sscam_jax.types import Apply, Params, Saliency

# On a CPU, more inputs at once make the late layers no faster. On a TPU, 128 fill its registers' lanes: a pass moves
# half of the bytes that it moves in chunks of 64, and no fewer in larger ones (docs/large-runs.md).
_CPU_CHUNK, _ACCELERATOR_CHUNK = 16, 128

# Bytes of a block's largest array that a CPU's cache holds beside the weights (docs/speed.md has the measurement). Two
# inputs together are faster than two single ones even where they overflow it.
_CACHE, _SMALLEST_BLOCK = 1 << 20, 2

# Per network, shape of the images and kind of device: the largest chunk that was found to fit, and the chunks whose
# memory the compiler was asked for. Both are found out once, not at every call.
_fitting: dict[Any, int] = {}
_asked: set[Any] = set()

Compiled = Callable[..., Saliency]
"""(apply, params, images, labels, traced, choices, engine) -> `Saliency`; apply, choices and engine are static."""


def chunk_for(
    apply: Apply,
    images: Float[Array, "b *space c_in"],
    chunk_size: int | None,
    devices: Sequence[jax.Device] | None,
) -> int:
    """Network inputs at once on a device: what is asked for, or what suits it, unless less was found to fit."""
    device = (jax.local_devices() if devices is None else devices)[0]
    suiting = _CPU_CHUNK if device.platform == "cpu" else _ACCELERATOR_CHUNK
    wanted = suiting if chunk_size is None else chunk_size
    return min(wanted, _fitting.get(_place(apply, images, device), wanted))


def _place(apply: Apply, images: Float[Array, "b *space c_in"], device: jax.Device) -> Any:
    """What the memory that a chunk takes depends on, and what there is of it."""
    # The whole batch's shape, because the activations of all images stay in memory beside the chunk.
    return apply, images.shape, images.dtype, device.device_kind


def _free_memory(device: jax.Device) -> int | None:
    """Bytes that a program can have beside its arguments; None where the device does not tell, as a CPU."""
    known = device.memory_stats()
    return known["bytes_limit"] - known["bytes_in_use"] if known and "bytes_limit" in known else None


def _share_of_memory(place: Any, device: jax.Device, call: tuple[Any, ...]) -> float:
    """The memory that a program will take, as a share of what is free, by the compiler's account; 0: not known."""
    question = place, call[4].chunk_size
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(call[5:]))
    if question in _asked or traced or (free := _free_memory(device)) is None:
        return 0.0
    _asked.add(question)
    # The call that follows finds this compilation, and makes no second one.
    sizes = _compiled.lower(*call).compile().memory_analysis()
    return 0.0 if sizes is None else (sizes.temp_size_in_bytes + sizes.output_size_in_bytes) / max(free, 1)


def _finished(saliency: Saliency) -> Saliency:
    """The result when it is there; where the call is being traced there is nothing to wait for."""
    return saliency if isinstance(saliency.maps, jax.core.Tracer) else jax.block_until_ready(saliency)


def _largest(apply: Apply, params: Params, images: Float[Array, "b *space c_in"]) -> int:
    """Bytes of the largest array, per image, between a network's operations."""
    leaves, treedef = jax.tree.flatten((params, images[:1]))
    return _largest_of(apply, treedef, tuple(jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)) for x in leaves))


@functools.lru_cache(maxsize=256)
def _largest_of(apply: Apply, treedef: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> int:
    params, images = jax.tree.unflatten(treedef, leaves)

    def largest(jaxpr: Any) -> int:
        inner = [value for equation in jaxpr.eqns for value in equation.params.values()]
        closed = [largest(value.jaxpr) for value in inner if hasattr(value, "jaxpr")]
        made = [variable.aval for equation in jaxpr.eqns for variable in equation.outvars]
        return max([aval.size * aval.dtype.itemsize for aval in made if hasattr(aval, "size")] + closed, default=1)

    return largest(jax.make_jaxpr(apply)(params, images).jaxpr)


def engine_for(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    chunk_size: int,
    devices: Sequence[jax.Device] | None,
    progress: Progress | None = None,
) -> Engine:
    """How the passes of a network are run on these devices."""
    cpu = (jax.default_backend() if devices is None else devices[0].platform) == "cpu"
    block = chunk_size
    if cpu:
        block = min(chunk_size, max(_SMALLEST_BLOCK, _CACHE // _largest(apply, params, images)))
    return Engine(chunk_size, block, len(devices or (0,)), cpu, progress)


def masked(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels,
    choices: Choices,
    key: Key[Array, ""] | None = None,
    ids: Int[Array, " b"] | None = None,
    **how: Any,
) -> Saliency:
    """Score-CAM, SS-CAM and IS-CAM: check what depends on the images, then run the compiled core."""
    labels = _tap.checked(apply, params, images, labels)
    _scores.check_score(choices.score, _tap.shapes(apply, params, images).logits.shape[1])
    sigma = _tap.scalar("sigma", choices.sigma, lowest=0.0)
    image = None
    if not isinstance(choices.baseline, str):
        image = jnp.asarray(choices.baseline, images.dtype)
        if image.shape not in (images.shape, images.shape[1:]):
            raise ValueError(
                f"baseline has shape {image.shape}, expected {images.shape[1:]} or {images.shape}, or one of "
                f"{', '.join(map(repr, ALLOWED['baseline']))}"
            )
        image = jnp.broadcast_to(image, images.shape)
    if key is not None:
        _tap.check_key(key)
        ids = _tap.checked_ids(ids, images)
    # The static choices must hash: σ and an array as the baseline travel in `Traced`.
    static = dataclasses.replace(choices, sigma=0.0, baseline="none" if image is not None else choices.baseline)
    return run(scored, apply, params, images, labels, Traced(image, sigma, key, ids), static, **how)


def run_scored(
    compiled: Compiled,
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels,
    traced: Any,
    choices: tuple[Score, Any],
    **how: Any,
) -> Saliency:
    """`run` for the methods whose choices are (score, others)."""
    checked = _tap.checked(apply, params, images, labels)
    _scores.check_score(choices[0], _tap.shapes(apply, params, images).logits.shape[1])
    return run(compiled, apply, params, images, checked, traced, choices, **how)


def run(
    compiled: Compiled,
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    traced: Any,
    choices: Any,
    *,
    chunk_size: int | None,
    devices: Sequence[jax.Device] | None,
    progress: Progress | None = None,
) -> Saliency:
    """Run `compiled` on checked arguments, and wait for it; a chunk that does not fit in the memory is cut down."""
    _tap.at_least_one(chunk_size=chunk_size)
    device = (jax.local_devices() if devices is None else devices)[0]
    chunk, place = chunk_for(apply, images, chunk_size, devices), _place(apply, images, device)
    arguments: Any = (params, images, labels, traced)
    mesh = None
    if devices is not None:  # every device holds all arguments: only the passes are shared
        mesh = Mesh(np.array(devices), (AXIS,))
        arguments = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec()))
    while True:
        call = (compiled, apply, mesh, choices, engine_for(apply, params, images, chunk, devices, progress), *arguments)
        try:
            share = _share_of_memory(place, device, call)
            if share <= 1 or chunk == 1:
                return _finished(_compiled(*call))
        except jax.errors.JaxRuntimeError as error:
            # JAX has no exception of its own for this.
            if "RESOURCE_EXHAUSTED" not in str(error) or chunk == 1:
                raise
            share = 2.0
        chunk = max(1, chunk >> math.ceil(math.log2(share)))
        _fitting[place] = chunk
        warnings.warn(f"out of memory: going on with chunk_size={chunk}", RuntimeWarning, stacklevel=4)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _compiled(
    compiled: Compiled, apply: Apply, mesh: Mesh | None, choices: Any, engine: Engine, *arguments: Any
) -> Saliency:
    function = functools.partial(_with_statics, compiled, apply, choices, engine)
    if mesh is None:
        return function(*arguments)
    # Every device does the single passes itself and its share of the many: they meet once per image.
    # check_vma is off, because it takes what all_gather returns for different on each device, and it is the same.
    everywhere = PartitionSpec()
    return jax.shard_map(function, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)(*arguments)


def _with_statics(
    compiled: Compiled, apply: Apply, choices: Any, engine: Engine, params: Params, *arguments: Any
) -> Saliency:
    return compiled(apply, params, *arguments, choices, engine)
