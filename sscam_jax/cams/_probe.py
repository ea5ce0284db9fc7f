"""The scoring core: one image's channels × samples, scored by forward passes in chunks.

A probe says how channels become network inputs, a score reads the logits, a reduction makes one number a
channel of its samples. Everything of input size (upsampling, masks, noise) exists inside a chunk only, so memory
is O(chunk) whatever the number of channels and samples; features are small and wait for all samples of a chunk's
channels, so that the classifier's parameters are read once for them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks in all) as the work goes on, from another thread."""


class Probe(NamedTuple):
    """How the channels of one image become inputs of the network, p channels and s samples at once.

    Attributes:
        prepare: channels [p] -> whatever is shared by all samples of those channels, leading axis p.
        draw: (prepared, channels [p], samples [s]) -> network inputs [p, s, ...].
        forward: network inputs [m, ...] -> features [m, ...], what is held until all samples are there.
        score: features [m, ...] -> scores [m], float32.
        reduce: (prepared, scores [p, n]) -> one score a channel [p].
    """

    prepare: Callable[[Int[Array, " p"]], Any]
    draw: Callable[[Any, Int[Array, " p"], Int[Array, " s"]], Float[Array, "p s ..."]]
    forward: Callable[[Float[Array, "m ..."]], Float[Array, "m ..."]]
    score: Callable[[Float[Array, "m ..."]], Float[Array, " m"]]
    reduce: Callable[[Any, Float[Array, "p n"]], Float[Array, " p"]]


class Plan(NamedTuple):
    """How channels × samples are cut into chunks: `channels` × `samples` network inputs at once."""

    channels: int
    samples: int
    chunks: int


def plan(n_channels: int, n_samples: int, chunk_size: int, devices: int = 1) -> Plan:
    """Chunks of at most `chunk_size` inputs a device.

    The channels of a chunk divide evenly among the devices; its samples divide N, so that none is padding. Of chunks
    of one size, the one of most samples: what is shared by a channel's samples is held for fewer channels. But two at
    least, where the chunk has room: a network's first layer answers to two inputs faster than to one, twice.
    """
    most = -(-n_channels // devices)
    divisors = [
        s for s in range(1, n_samples + 1) if n_samples % s == 0 and (s == 1 or chunk_size // s >= min(2, most))
    ]
    share, samples = max(((min(chunk_size // s, most), s) for s in divisors), key=lambda cut: (cut[0] * cut[1], cut[1]))
    return Plan(share * devices, samples, -(-n_channels // (share * devices)))


def score_channels(
    probe: Probe,
    live: Bool[Array, " c"],
    n_samples: int,
    cut: Plan,
    tick: Callable[[Int[Array, ""]], None],
) -> Float[Array, " c"]:
    """One score a channel; a channel that is not live gets 0 and, but for rounding up to a chunk, no pass.

    Args:
        probe: what is scored and how.
        live: the channels worth scoring.
        n_samples: N, the samples of each channel.
        cut: the chunks.
        tick: called inside the computation with the number of the chunk that was done.

    Returns:
        The scores [c].
    """
    n_channels = live.shape[0]
    order = jnp.argsort(~live, stable=True).astype(jnp.int32)  # live channels first
    padded = jnp.concatenate([order, jnp.repeat(order[-1:], cut.chunks * cut.channels - n_channels)])
    samples = jnp.arange(n_samples, dtype=jnp.int32).reshape(-1, cut.samples)

    def chunk(start: Int[Array, ""]) -> Float[Array, " p"]:
        channels = jax.lax.dynamic_slice_in_dim(padded, start, cut.channels)
        prepared = probe.prepare(channels)

        def block(step: Int[Array, ""], drawn: Int[Array, " s"]) -> tuple[Int[Array, ""], Float[Array, "p s ..."]]:
            inputs = probe.draw(prepared, channels, drawn)
            features = probe.forward(inputs.reshape(-1, *inputs.shape[2:]))
            tick(step)
            return step + 1, features.reshape(cut.channels, cut.samples, *features.shape[1:])

        first = start // cut.channels * samples.shape[0] + 1
        _, features = jax.lax.scan(block, first, samples)
        # Channels lead, so that each device keeps its own.
        features = jnp.moveaxis(features, 0, 1)
        scores = probe.score(features.reshape(-1, *features.shape[3:]))
        return probe.reduce(prepared, scores.reshape(cut.channels, n_samples))

    def step(carry: None, start: Int[Array, ""]) -> tuple[None, Float[Array, " p"]]:
        # A scan over a condition, not a loop of unknown length: it skips dead chunks and has a derivative.
        none = jnp.zeros(cut.channels, jnp.float32)
        return carry, jax.lax.cond(start < live.sum(dtype=jnp.int32), chunk, lambda _: none, start)

    starts = jnp.arange(cut.chunks, dtype=jnp.int32) * cut.channels
    _, scores = jax.lax.scan(step, None, starts)
    ordered = scores.reshape(-1)[:n_channels]
    return jnp.where(live, jnp.zeros_like(ordered).at[order].set(ordered), 0.0)
