"""Many changed versions of one image, scored in chunks: what ablation, occlusion and their kin share."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from sscam_jax.cams._masks import Engine, score_of
from sscam_jax.cams._probe import Probe, plan, score_channels
from sscam_jax.cams.presets import ALLOWED, Score
from sscam_jax.types import Apply, Carry, Params


def check_score(score: Score) -> None:
    """Raise ValueError for a score that is neither a name nor a function."""
    if not callable(score) and score not in ALLOWED["score"]:
        raise ValueError(f"score={score!r} is not a choice; choose from {', '.join(map(repr, ALLOWED['score']))}")


Forward = tuple[Callable[[Float[Array, "m ..."]], Float[Array, "m ..."]], Callable[[Float[Array, "m ..."]], Array]]
"""Early and late part of what is run: inputs [m, ...] -> features [m, ...] -> logits [m, n]."""


def suited(apply: Apply, params: Params, engine: Engine) -> Params:
    """The parameters as the passes take them on this device."""
    return apply.for_cpu(params) if engine.platform == "cpu" and apply.for_cpu is not None else params


def scores(
    changed: Callable[[Int[Array, " p"]], Float[Array, "p ..."]],
    forward: Forward,
    score: Score,
    label: Int[Array, ""],
    live: Bool[Array, " v"],
    engine: Engine,
) -> Float[Array, " v"]:
    """f^c of each live version of one image, in chunks; 0 for the others.

    Args:
        changed: indices [p] of versions -> what the network or its head is to be run on.
        forward: that -> logits, in two parts.
        score: f^c.
        label: c.
        live: the versions worth scoring.
        engine: chunks and devices.

    Returns:
        The scores [v].
    """
    mesh, (early, late) = engine.mesh, forward

    def draw(indices: Int[Array, " p"], channels: Int[Array, " p"], samples: Int[Array, " s"]) -> Float[Array, "p ..."]:
        inputs = changed(indices)
        if mesh is not None:
            inputs = jax.lax.with_sharding_constraint(inputs, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
        return inputs[:, None]

    def read(features: Float[Array, "p ..."]) -> Float[Array, " p"]:
        logits = late(features)
        return score_of(score, logits, jnp.broadcast_to(label, logits.shape[:1]))

    probe = Probe(lambda indices: indices, draw, early, read, lambda found: found[:, 0])
    cut = plan(live.shape[0], 1, engine.chunk_size, engine.block, mesh.size if mesh else 1)
    return score_channels(probe, live, 1, cut, lambda done: None)


def network_of(apply: Apply, params: Params) -> Forward:
    """The whole network."""
    sections = apply.sections
    if sections is None:
        return functools.partial(apply, params), lambda logits: logits
    cut = sections
    return lambda images: cut.early(params, cut.stem(params, images)), functools.partial(cut.late, params)


def head_of(apply: Apply, params: Params, carry: Carry) -> Forward:
    """The head, on many activations of one image; `carry` is that image's."""

    def logits(activations: Float[Array, "p *grid c"]) -> Float[Array, "p n"]:
        many = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (activations.shape[0], *leaf.shape)), carry)
        return apply.head(params, activations, many)

    return logits, lambda found: found


def weighted_masks(
    factors: Float[Array, " v"], mask: Callable[[Int[Array, ""]], Float[Array, "*space"]], chunk_size: int
) -> Float[Array, "*space"]:
    """Σ_v factor_v M_v, a chunk of masks at a time."""
    chunks = -(-factors.shape[0] // chunk_size)
    padded = jnp.pad(factors, (0, chunks * chunk_size - factors.shape[0])).reshape(chunks, chunk_size)
    indices = jnp.arange(chunks * chunk_size, dtype=jnp.int32).reshape(chunks, chunk_size)

    def add(total: Float[Array, "*space"], step: tuple[Array, Array]) -> tuple[Float[Array, "*space"], None]:
        return total + jnp.einsum("p,p...->...", step[0], jax.vmap(mask)(step[1]), precision="highest"), None

    start = jnp.zeros(jax.eval_shape(mask, indices[0, 0]).shape, jnp.float32)
    return jax.lax.scan(add, start, (padded, indices))[0]
