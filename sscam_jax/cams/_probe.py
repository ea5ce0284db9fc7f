"""The scoring core: one image's channels × samples, scored by forward passes in chunks.

A probe says how channels become network inputs, a score reads what a pass finds, a reduction makes one number a
channel of its samples. Everything of input size (upsampling, masks, noise) exists inside a chunk only, so memory
is O(chunk) whatever the number of channels and samples. A chunk's inputs go through the network's early part in
blocks, which on a CPU fit its cache, and through the late part together, so that its parameters are read once.
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
        early: network inputs [m, ...] -> features [m, ...].
        score: features [m, ...] -> scores [m], float32.
        reduce: scores [p, n] -> one score a channel [p].
        again: (prepared, reduced scores [p]) -> the inputs [p, ...] whose scores take their place, if any.
    """

    prepare: Callable[[Int[Array, " p"]], Any]
    draw: Callable[[Any, Int[Array, " p"], Int[Array, " s"]], Float[Array, "p s ..."]]
    early: Callable[[Float[Array, "m ..."]], Float[Array, "m ..."]]
    score: Callable[[Float[Array, "m ..."]], Float[Array, " m"]]
    reduce: Callable[[Float[Array, "p n"]], Float[Array, " p"]]
    again: Callable[[Any, Float[Array, " p"]], Float[Array, "p ..."]] | None = None


class Plan(NamedTuple):
    """How channels × samples are cut: chunks of blocks, each so many channels × so many samples."""

    channels: int
    samples: int
    block_channels: int
    block_samples: int
    chunks: int


def plan(n_channels: int, n_samples: int, chunk_size: int, block: int, devices: int = 1) -> Plan:
    """Chunks of at most `chunk_size` inputs a device, each of blocks of at most `block` inputs a device.

    The channels of a block divide evenly among the devices; its samples divide a chunk's, and those N, so that none is
    padding. Of blocks of one size, the one of most samples: what is shared by a channel's samples is held for fewer
    channels. But two at least, where there is room: a network's first layer answers to two inputs faster than to one,
    twice. A chunk has as many samples as it can, then as many channels.
    """
    most = -(-n_channels // devices)
    divisors = [s for s in range(1, n_samples + 1) if n_samples % s == 0]
    cuts = [(min(block // s, most), s) for s in divisors if s == 1 or block // s >= min(2, most)]
    share, few = max(cuts, key=lambda cut: (cut[0] * cut[1], cut[1]))
    many = max(s for s in divisors if s % few == 0 and (s == few or share * s <= chunk_size))
    blocks = min(max(1, chunk_size // (share * many)), -(-most // share))
    channels = blocks * share * devices
    return Plan(channels, many, share * devices, few, -(-n_channels // channels))


def score_channels(
    probe: Probe,
    live: Bool[Array, " c"],
    n_samples: int,
    cut: Plan,
    tick: Callable[[Int[Array, ""]], None],
) -> Float[Array, " c"]:
    """One score a channel; a channel that is not live gets 0 and, but for rounding up to a block, no pass.

    Args:
        probe: what is scored and how.
        live: the channels worth scoring.
        n_samples: N, the samples of each channel.
        cut: chunks and blocks.
        tick: called inside the computation with the number of the chunk that was done.

    Returns:
        The scores [c].
    """
    n_channels, n_live = live.shape[0], live.sum(dtype=jnp.int32)
    order = jnp.argsort(~live, stable=True).astype(jnp.int32)  # live channels first
    padded = jnp.concatenate([order, jnp.repeat(order[-1:], cut.chunks * cut.channels - n_channels)])
    samples = jnp.arange(n_samples, dtype=jnp.int32).reshape(-1, cut.samples)

    def while_live(function: Callable[..., Any], start: Int[Array, ""], *operands: Any) -> Any:
        """What the function gives for channels from a place in their order on; zeros after the last live one."""
        # A condition inside a scan, not a loop of unknown length: it skips dead channels and has a derivative.
        shapes = jax.eval_shape(function, *operands)
        none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(start < n_live, function, lambda *_: none, *operands)

    def chunk(start: Int[Array, ""]) -> Float[Array, " p"]:
        starts = start + jnp.arange(0, cut.channels, cut.block_channels, dtype=jnp.int32)
        blocks = jax.lax.dynamic_slice_in_dim(padded, start, cut.channels).reshape(-1, cut.block_channels)

        def each(function: Callable[..., Any], *operands: Any) -> Any:
            """The function for the channels of each block, and their operands: [blocks, p, ...]."""
            return jax.lax.map(lambda row: while_live(function, *row), (starts, blocks, *operands))

        def scored(features: Float[Array, "blocks p ..."], inner: int = 1) -> Float[Array, "blocks p ..."]:
            """The scores of features with so many axes of inputs a channel."""
            # A block's channels lead, so that each device keeps its own.
            features = jnp.moveaxis(features, 0, 1)
            scores = probe.score(features.reshape(-1, *features.shape[2 + inner :]))
            return jnp.moveaxis(scores.reshape(features.shape[: 2 + inner]), 1, 0)

        prepared = each(probe.prepare)

        def step(done: Int[Array, ""], drawn: Int[Array, " s"]) -> tuple[Int[Array, ""], Float[Array, "blocks p s"]]:
            def early(channels: Int[Array, " p"], prepared: Any) -> Float[Array, "p s ..."]:
                def few(drawn: Int[Array, " s"]) -> Float[Array, "p s ..."]:
                    inputs = probe.draw(prepared, channels, drawn)
                    features = probe.early(inputs.reshape(-1, *inputs.shape[2:]))
                    return features.reshape(*inputs.shape[:2], *features.shape[1:])

                features = jnp.moveaxis(jax.lax.map(few, drawn.reshape(-1, cut.block_samples)), 0, 1)
                return features.reshape(cut.block_channels, cut.samples, *features.shape[3:])

            scores = scored(each(early, prepared))
            tick(done)
            return done + 1, scores

        _, scores = jax.lax.scan(step, start // cut.channels * samples.shape[0] + 1, samples)
        reduced = probe.reduce(jnp.moveaxis(scores, 0, 2).reshape(cut.channels, n_samples))
        if probe.again is not None:
            again = probe.again
            rows = each(
                lambda _, *operands: probe.early(again(*operands)), prepared, reduced.reshape(-1, cut.block_channels)
            )
            reduced = scored(rows, 0).reshape(-1)
        return reduced

    starts = jnp.arange(cut.chunks, dtype=jnp.int32) * cut.channels
    scores = jax.lax.map(lambda start: while_live(chunk, start, start), starts)
    ordered = scores.reshape(-1)[:n_channels]
    return jnp.where(live, jnp.zeros_like(ordered).at[order].set(ordered), 0.0)
