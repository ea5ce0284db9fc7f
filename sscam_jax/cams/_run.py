"""Running the scoring methods: on which devices, and in chunks of what size."""

import dataclasses
import functools
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

# On a CPU, more inputs at once make the late layers no faster. An accelerator is full long before 512.
_CPU_CHUNK, _UNKNOWN_CHUNK, _LARGEST_CHUNK = 16, 64, 512

# Bytes of a block's largest array that a CPU's cache holds beside the weights (docs/speed.md has the measurement). Two
# inputs together are faster than two single ones even where they overflow it.
_CACHE, _SMALLEST_BLOCK = 1 << 20, 2

# The chunk that was found to fit, per network, shape of the images and kind of device: found once, not at every call.
_fitting: dict[Any, int] = {}

Compiled = Callable[..., Saliency]
"""(apply, params, images, labels, traced, choices, engine) -> `Saliency`; apply, choices and engine are static."""


def auto_chunk(apply: Apply, params: Params, images: Float[Array, "b *space c_in"]) -> int:
    """Network inputs at once for this device: 16 on a CPU, else a power of two that fits in half of the memory."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _CPU_CHUNK
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    if not memory:
        return _UNKNOWN_CHUNK
    # A layer's input and output, the noisy inputs and the compiler's workspace live at once.
    fitting = max(1, memory // 2 // (4 * _largest(apply, params, images)))
    return min(_LARGEST_CHUNK, 1 << (int(fitting).bit_length() - 1))


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
    """Run `compiled` on checked arguments, and wait for it: out of memory halves the chunk and tries again."""
    _tap.at_least_one(chunk_size=chunk_size)
    wanted = auto_chunk(apply, params, images) if chunk_size is None else chunk_size
    arguments: Any = (params, images, labels, traced)
    mesh = None
    if devices is not None:
        mesh = Mesh(np.array(devices), (AXIS,))
        arguments = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec()))
    # The batch is part of the place: the activations of all images stay in memory beside the chunk.
    place = (apply, images.shape, images.dtype, jax.devices()[0].device_kind if mesh is None else mesh)
    chunk = min(wanted, _fitting.get(place, wanted))
    while True:
        engine = engine_for(apply, params, images, chunk, devices, progress)
        try:
            saliency = _compiled(compiled, apply, mesh, choices, engine, *arguments)
            # Where the call is being traced there is nothing to wait for, and nothing to catch.
            return saliency if isinstance(saliency.maps, jax.core.Tracer) else jax.block_until_ready(saliency)
        except jax.errors.JaxRuntimeError as error:
            # JAX has no exception of its own for this.
            if "RESOURCE_EXHAUSTED" not in str(error) or chunk == 1:
                raise
            chunk //= 2
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
