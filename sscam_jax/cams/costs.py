"""What maps will cost before they are made."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from sscam_jax.cams import _run, _scores, _tap
from sscam_jax.cams._scores import AXIS, Engine
from sscam_jax.types import Apply, Params


class Cost(NamedTuple):
    """What maps will cost, for Score-CAM and SS-CAM together with what they share.

    Attributes:
        passes: forward passes of the network, of all images together.
        seconds: what these passes take here, in chunks, without compilation, masks and noise.
        bytes: the memory that a chunk's pass takes on a device, parameters included; None where the device does not
            tell.
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

    passes = Σ_images (1 + N · channels that are not constant). A baseline adds one pass per image, a second pass one
    per channel.

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
        ValueError: the shapes do not fit, or a count is below 1.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)  # the second channel is constant
        >>> cost(apply, jnp.eye(2), images, n_samples=10).passes
        11
    """
    _tap.checked(apply, params, images, None)
    _tap.at_least_one(n_samples=n_samples, chunk_size=chunk_size)
    # `features` runs for real, because which channels are constant depends on the images.
    activations, _ = apply.features(params, images)
    axes = tuple(range(1, activations.ndim - 1))
    passes = int((activations.max(axes) > activations.min(axes)).sum()) * n_samples + images.shape[0]
    chunk = _run.chunk_for(apply, images, chunk_size, devices)
    engine = _run.engine_for(apply, params, images, chunk, devices)
    # Kernels in the form that suits the device are made once per run, so they are not in a chunk's time.
    arguments = (jax.jit(_scores.suited, static_argnums=(0, 2))(apply, params, engine), images[0])
    if devices is not None:
        arguments = jax.device_put(arguments, NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec()))
    compiled = jax.jit(_one_chunk, static_argnums=(0, 1, 2)).lower(
        apply, engine, devices and tuple(devices), *arguments
    )
    program = compiled.compile()
    jax.block_until_ready(program(*arguments))  # the first run warms caches and is not timed
    began = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    seconds = (time.perf_counter() - began) / (chunk * engine.devices) * passes
    sizes = program.memory_analysis()
    memory = sizes and sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    return Cost(passes, seconds, memory)


def _one_chunk(
    apply: Apply,
    engine: Engine,
    devices: tuple[jax.Device, ...] | None,
    params: Params,
    image: Float[Array, "*space c_in"],
) -> Float[Array, " p"]:
    """The scores of one chunk of inputs per device, as the methods run it."""
    count = engine.chunk_size * engine.devices

    def chunk(params: Params, image: Float[Array, "*space c_in"]) -> Float[Array, " p"]:
        def changed(version: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
            # Inputs differ, as those of the methods do: of equal ones the compiler might run one.
            return image * version.astype(image.dtype)

        work = _scores.Work(_scores.network_of(apply, params), "logit", jnp.int32(0), engine)
        return _scores.scores(changed, work, jnp.ones(count, bool))[:, 0]

    if devices is None:
        return chunk(params, image)
    mesh, everywhere = Mesh(np.array(devices), (AXIS,)), PartitionSpec()
    return jax.shard_map(chunk, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)(params, image)
