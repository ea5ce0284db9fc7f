"""The scoring core: many changed versions of one image, and the score that the network gives to each.

SS-CAM's versions are the channels' masked inputs and their samples are the noises; RISE's are random masks,
Ablation-CAM's are activations without a channel. Everything of input size (masks, noise, upsampling) exists inside a
chunk only. So memory is O(chunk), whatever the number of versions and samples.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sscam_jax import ops
from sscam_jax._support import choose
from sscam_jax.cams.presets import ALLOWED, Score
from sscam_jax.types import Apply, Carry, Params

AXIS = "inputs"
"""The mesh axis of the devices that share an image's passes."""

Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks in all) as the work goes on, from another thread."""

Changed = Callable[[Int[Array, ""], Int[Array, ""]], Float[Array, "..."]]
"""(version, sample) -> one network input, or one image's activations: what is run to score that pair."""


class Engine(NamedTuple):
    """How the passes are run; static. It changes no number except by rounding.

    Attributes:
        chunk_size: inputs whose late layers run together on a device.
        block: inputs whose early layers run together on a device.
        devices: how many share the pairs, along the mesh axis `AXIS`.
        cpu: whether they are CPUs.
        progress: told of every chunk.
    """

    chunk_size: int
    block: int
    devices: int = 1
    cpu: bool = False
    progress: Progress | None = None


class Forward(NamedTuple):
    """What is run on changed inputs, in two parts: `late(early(inputs [m, ...])) -> logits [m, n]`."""

    early: Callable[[Float[Array, "m ..."]], Float[Array, "m ..."]]
    late: Callable[[Float[Array, "m ..."]], Float[Array, "m n"]]


def network_of(apply: Apply, params: Params) -> Forward:
    """The whole network."""
    if apply.sections is None:
        return Forward(functools.partial(apply, params), lambda logits: logits)
    return Forward(functools.partial(apply.sections.early, params), functools.partial(apply.sections.late, params))


def head_of(apply: Apply, params: Params, carry: Carry) -> Forward:
    """The head, on many activations of one image; `carry` is that image's row."""
    if not jax.tree.leaves(carry):
        return Forward(lambda activations: apply.head(params, activations, carry), lambda logits: logits)

    def one(activations: Float[Array, "*grid c"]) -> Float[Array, " n"]:
        row = jax.tree.map(lambda leaf: leaf[None], carry)
        return apply.head(params, activations[None], row)[0]

    # The carry has no batch axis under vmap, so that what depends on it alone is computed once per block.
    return Forward(jax.vmap(one), lambda logits: logits)


def suited(apply: Apply, params: Params, engine: Engine) -> Params:
    """The parameters as the passes take them on this kind of device."""
    return apply.for_cpu(params) if engine.cpu and apply.for_cpu is not None else params


def check_score(score: Score, n_classes: int) -> None:
    """Raise ValueError for a score that is neither a name nor a function, or that says nothing of one logit."""
    if not callable(score):
        choose("score", score, ALLOWED["score"])
    if score in ("probability", "log_probability") and n_classes == 1:
        raise ValueError(
            f"score={score!r} of a network with a single logit is the same for every input; choose from "
            "'logit', 'sigmoid'"
        )


def score_of(score: Score, logits: Float[Array, "m n"], labels: Int[Array, " m"]) -> Float[Array, " m"]:
    """f^c of each row, in float32."""
    logits = logits.astype(jnp.float32)
    # A softmax in half precision would round away small differences of scores.
    if callable(score):
        return jax.vmap(score)(logits, labels).astype(jnp.float32)
    if score == "probability":
        logits = jax.nn.softmax(logits)
    elif score == "log_probability":
        logits = jax.nn.log_softmax(logits)
    elif score == "sigmoid":
        logits = jax.nn.sigmoid(logits)
    return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]


def times(arrays: Float[Array, "*space c"], planes: Float[Array, "*space"]) -> Float[Array, "*space c"]:
    """arrays ⊙ planes, multiplied in float32 at least; the result has the arrays' own dtype."""
    wide = ops.wide(arrays.dtype)
    return (arrays.astype(wide) * planes.astype(wide)[..., None]).astype(arrays.dtype)


@jax.custom_batching.custom_vmap
def _for_anyone(flag: Bool[Array, ""]) -> Bool[Array, ""]:
    """The flag; under `jax.vmap`, whether it is true for any row."""
    return flag


@_for_anyone.def_vmap
def _(size: int, batched: list[bool], flag: Bool[Array, " rows"]) -> tuple[Bool[Array, ""], bool]:
    return _for_anyone(flag.any(0)), False


def _if_before(end: Int[Array, ""], function: Callable[[Int[Array, ""]], Array], start: Int[Array, ""]) -> Array:
    """The function of a place before the end; zeros, at no cost, for the others."""
    # A condition inside a loop of known length, because a loop of unknown length has no derivative. Its predicate has
    # no batch axis under vmap: otherwise it would become a select, which runs both branches.
    shape = jax.eval_shape(function, start)
    return jax.lax.cond(_for_anyone(start < end), function, lambda _: jnp.zeros_like(shape), start)


def walk(
    inputs: Callable[[Int[Array, ""]], Float[Array, "..."]],
    forward: Forward,
    score: Callable[[Float[Array, "m n"]], Float[Array, " m"]],
    total: int,
    n_live: Int[Array, ""],
    engine: Engine,
    tick: Callable[[Int[Array, ""]], None],
) -> Float[Array, " total"]:
    """The scores of inputs 0, 1, … total − 1, of which the first `n_live` are worth a pass; 0 for the others.

        for chunk in range(0, n_live, chunk_size):
            for block in range(chunk, chunk + chunk_size, block_size):
                features[block] = early(inputs(block), inputs(block + 1), …)
            scores[chunk] = score(late(features))

    A block's arrays fit into a CPU's cache; a chunk reads the weights of the late layers once. Of D devices, device d
    takes inputs d, d + D, d + 2D, …; they meet once, when all is done.

    Args:
        inputs: the number of an input -> that input.
        forward: the network in two parts.
        score: logits -> scores, float32.
        total: how many numbers there are; static.
        n_live: how many of them are scored.
        engine: chunks, blocks and devices.
        tick: called inside the computation with the number of the chunk that is done, from 1 on.

    Returns:
        The scores [total].
    """
    # Inputs are dealt out like cards. The live ones come first, so all devices get equally many, or one less.
    first = jax.lax.axis_index(AXIS) if engine.devices > 1 else 0
    share = -(-total // engine.devices)  # rounded up, as every division here that is written with two minus signs
    block = min(engine.block, share)
    chunk = min(engine.chunk_size // block, -(-share // block)) * block

    def numbers(start: Int[Array, ""], count: int) -> Int[Array, " count"]:
        places = start + jnp.arange(count, dtype=jnp.int32)
        # Past the end the last input is repeated: a block has one shape. `found[:total]` drops the copies.
        return jnp.minimum(places * engine.devices + first, total - 1)

    def features(start: Int[Array, ""]) -> Float[Array, "block ..."]:
        return forward.early(jax.vmap(inputs)(numbers(start, block)))

    mine = -(-(n_live - first) // engine.devices)

    def scores(start: Int[Array, ""]) -> Float[Array, " chunk"]:
        starts = start + jnp.arange(0, chunk, block, dtype=jnp.int32)
        found = jax.lax.map(functools.partial(_if_before, mine, features), starts)
        tick(start // chunk + 1)
        return score(forward.late(found.reshape(-1, *found.shape[2:])))

    starts = jnp.arange(0, share, chunk, dtype=jnp.int32)
    found = jax.lax.map(functools.partial(_if_before, mine, scores), starts).reshape(-1)
    if engine.devices > 1:  # axis=1 undoes the dealing: place p of device d was number p · D + d
        found = jax.lax.all_gather(found, AXIS, axis=1).reshape(-1)
    return found[:total]


class Work(NamedTuple):
    """What the scoring of one image's versions takes besides the versions themselves.

    Attributes:
        forward: what is run.
        score: f^c.
        label: c.
        engine: chunks and devices.
        tick: called with the number of every chunk that is done.
    """

    forward: Forward
    score: Score
    label: Int[Array, ""]
    engine: Engine
    tick: Callable[[Int[Array, ""]], None] = lambda done: None


def scores(
    changed: Changed,
    work: Work,
    live: Bool[Array, " v"],
    *,
    n_samples: int = 1,
    samples: Int[Array, ""] | int | None = None,
    most: int | None = None,
) -> Float[Array, "v n"]:
    """f^c of every sample of each live version of one image; 0 for the others, which cost no pass.

    The pairs of live version and sample are numbered with the versions inside, then walked over in chunks.

    Args:
        changed: what is run for a version and a sample.
        work: how it is scored.
        live: the versions worth scoring [v].
        n_samples: N, the samples that the result has room for; static.
        samples: how many of these are scored, where that depends on the image; None: all.
        most: a bound on the pairs that are scored, if they are fewer than v · N; static.

    Returns:
        The scores [v, n].
    """
    n_live, total = live.sum(dtype=jnp.int32), live.shape[0] * n_samples
    samples = jnp.asarray(n_samples if samples is None else samples, jnp.int32)
    order = jnp.argsort(~live, stable=True).astype(jnp.int32)  # live versions first
    divisor = jnp.maximum(n_live, 1)  # with no live version nothing is walked over, but `%` must not divide by 0

    def inputs(pair: Int[Array, ""]) -> Float[Array, "..."]:
        # Versions inside, samples outside: a budget that ends early has given every version its first sample.
        return changed(order[pair % divisor], pair // divisor)

    def score(logits: Float[Array, "m n"]) -> Float[Array, " m"]:
        return score_of(work.score, logits, jnp.broadcast_to(work.label, logits.shape[:1]))

    total = total if most is None else min(most, total)
    flat = walk(inputs, work.forward, score, total, n_live * samples, work.engine, work.tick)
    sample = jnp.arange(n_samples, dtype=jnp.int32)[None]
    rank = jnp.argsort(order).astype(jnp.int32)
    place = rank[:, None] + sample * divisor  # where the walk left a version's sample
    return jnp.where(live[:, None] & (sample < samples), flat[jnp.minimum(place, total - 1)], 0.0)


def weighted_masks(
    factors: Float[Array, " v"], mask: Callable[[Int[Array, ""]], Float[Array, "*space"]], chunk_size: int
) -> Float[Array, "*space"]:
    """Σ_v factor_v M_v, a chunk of masks at a time."""
    chunks = -(-factors.shape[0] // chunk_size)
    # A padded mask has the factor 0, so whatever `mask` draws for an index past the end does not count.
    padded = jnp.pad(factors, (0, chunks * chunk_size - factors.shape[0])).reshape(chunks, chunk_size)
    indices = jnp.arange(chunks * chunk_size, dtype=jnp.int32).reshape(chunks, chunk_size)

    def term(step: tuple[Array, Array]) -> Float[Array, "*space"]:
        return jnp.einsum("p,p...->...", step[0], jax.vmap(mask)(step[1]), precision="highest")

    def add(total: Float[Array, "*space"], step: tuple[Array, Array]) -> tuple[Float[Array, "*space"], None]:
        return total + term(step), None

    first = jax.eval_shape(term, (padded[0], indices[0]))
    return jax.lax.scan(add, jnp.zeros_like(first), (padded, indices))[0]
