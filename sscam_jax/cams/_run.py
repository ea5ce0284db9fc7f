"""Running the compiled core: on which devices, in chunks of what size, and what it will cost."""

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from sscam_jax.cams import _scores, _tap
from sscam_jax.cams._masks import Engine, Traced, scored
from sscam_jax.cams._probe import Progress
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import ALLOWED, Choices
from sscam_jax.types import Apply, Params, Saliency

# On a CPU, more inputs at once make the late layers no faster; an accelerator is full long before 512.
_CPU_CHUNK, _UNKNOWN_CHUNK, _LARGEST_CHUNK = 16, 64, 512


def auto_chunk(apply: Apply, params: Params, images: Float[Array, "b *space c_in"]) -> int:
    """Network inputs at once for this device: 16 on CPU, else what fits in half of the memory, a power of two."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _CPU_CHUNK
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    if not memory:
        return _UNKNOWN_CHUNK
    jaxpr = jax.make_jaxpr(apply)(params, images[:1])
    largest = max(variable.aval.size for equation in jaxpr.jaxpr.eqns for variable in equation.outvars)
    # A layer's input and output, the noisy inputs and the compiler's workspace live at once.
    fitting = max(1, memory // 2 // (4 * 4 * largest))
    return min(_LARGEST_CHUNK, 1 << (int(fitting).bit_length() - 1))


def explain(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels,
    values: dict[str, Any],
    chunk_size: int | None,
    progress: Progress | None,
    devices: Sequence[jax.Device] | None,
) -> Saliency:
    """Score-CAM, SS-CAM and IS-CAM: check their own arguments, then run the compiled core.

    `values` are the fields of `Choices` and `Traced`.
    """
    baseline = values.pop("baseline")
    image = None
    if not isinstance(baseline, str):
        image = jnp.asarray(baseline, images.dtype)
        if image.shape not in (images.shape, images.shape[1:]):
            raise ValueError(
                f"baseline has shape {image.shape}, expected {images.shape[1:]} or {images.shape}, or one of "
                f"{', '.join(map(repr, ALLOWED['baseline']))}"
            )
        image, baseline = jnp.broadcast_to(image, images.shape), "none"
    key, ids, sigma = (values.pop(name) for name in ("key", "ids", "sigma"))
    ids = _tap.checked_ids(ids, images)
    labels = _tap.checked(apply, params, images, labels)
    if values["score"] in ("probability", "log_probability") and _tap.classes(apply, params, images) == 1:
        raise ValueError(
            f"score={values['score']!r} of a network with a single logit is the same for every input; choose from "
            "'logit', 'sigmoid'"
        )
    traced = Traced(image, key, ids, jnp.asarray(sigma, jnp.float32))
    choices = Choices(baseline=baseline, **values)
    return run(scored, apply, params, images, labels, traced, choices, chunk_size, devices, progress)


def run(
    compiled: Callable[..., Saliency],
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels,
    traced: Any,
    choices: Any,
    chunk_size: int | None,
    devices: Sequence[jax.Device] | None,
    progress: Progress | None = None,
) -> Saliency:
    """Check what depends on the images, then run `compiled`; out of memory halves the chunk.

    `compiled` takes (apply, params, images, labels, traced, choices, engine), of which apply, choices and engine are
    static.
    """
    checked = _tap.checked(apply, params, images, labels)
    if chunk_size is None:
        chunk_size = auto_chunk(apply, params, images)
    if chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size} is too small, expected at least 1")
    arguments = (params, images, checked, traced)
    mesh, platform = None, jax.default_backend()
    if devices is not None:
        platform = devices[0].platform
        mesh = Mesh(np.array(devices), ("inputs",))
        arguments = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec()))
    while True:
        try:
            saliency = compiled(apply, *arguments, choices, Engine(chunk_size, progress, platform, mesh))
            # Where the call is being traced there is nothing to wait for, and nothing to catch.
            return saliency if isinstance(saliency.maps, jax.core.Tracer) else jax.block_until_ready(saliency)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or chunk_size == 1:
                raise
            chunk_size //= 2
            warnings.warn(f"out of memory: going on with chunk_size={chunk_size}", RuntimeWarning, stacklevel=4)


class Cost(NamedTuple):
    """What maps will cost, for Score-CAM and SS-CAM together with what they share.

    Attributes:
        passes: forward passes of the network, all images together.
        seconds: what these passes take here, in chunks, without compilation, masks and noise.
        bytes: the memory that a chunk's pass takes on a device, parameters included; None where it does not say.
    """

    passes: int
    seconds: float
    bytes: int | None


def cost(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    *,
    n_samples: int = 1,
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Cost:
    """Passes, seconds and memory of `score_cam` (N = 1) or `ss_cam` before it runs: one chunk is run and timed.

    passes = Σ_images (1 + N · channels that are not constant). A baseline adds one pass an image, a second pass one a
    channel.

    Args:
        apply: the network, cut at the target layer.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        n_samples: N.
        chunk_size: as it will be run.
        devices: as it will be run.

    Returns:
        The `Cost`.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)  # the second channel is constant
        >>> cost(apply, jnp.eye(2), images, n_samples=10).passes
        11
    """
    _tap.checked(apply, params, images, None)
    chunk = auto_chunk(apply, params, images) if chunk_size is None else chunk_size
    activations, _ = apply.features(params, images)
    axes = tuple(range(1, activations.ndim - 1))
    passes = int((activations.max(axes) > activations.min(axes)).sum()) * n_samples + images.shape[0]
    mesh, platform = None, jax.default_backend()
    arguments = (params, images[0])
    if devices is not None:
        mesh, platform = Mesh(np.array(devices), ("inputs",)), devices[0].platform
        arguments = jax.device_put(arguments, NamedSharding(mesh, PartitionSpec()))
    engine = Engine(chunk, None, platform, mesh)
    count = chunk * len(devices or (0,))

    def chunk_scores(params: Params, image: Float[Array, "*space c_in"]) -> Float[Array, " p"]:
        def changed(indices: Int[Array, " p"]) -> Float[Array, "p *space c_in"]:
            return jax.vmap(lambda index: image * index)(indices.astype(image.dtype))

        forward = _scores.network_of(apply, params)
        return _scores.scores(changed, forward, "logit", jnp.int32(0), jnp.ones(count, bool), engine)

    # Once a run, whatever the passes: not part of a chunk's time.
    suited = jax.jit(functools.partial(_scores.suited, apply, engine=engine))(arguments[0])
    compiled = jax.jit(chunk_scores).lower(suited, arguments[1]).compile()
    jax.block_until_ready(compiled(suited, arguments[1]))
    began = time.perf_counter()
    jax.block_until_ready(compiled(suited, arguments[1]))
    seconds = (time.perf_counter() - began) / count * passes
    sizes = compiled.memory_analysis()
    memory = sizes and sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return Cost(passes, seconds, memory)
