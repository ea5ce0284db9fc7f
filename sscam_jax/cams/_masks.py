"""Score-CAM, SS-CAM and IS-CAM in every preset: channels as masks, their scores as weights.

for k, i in live channels × samples:                         # `_scores.walk`
    S[k, i] = f^c(what the network says of X ⊙ H_k, noisy)   # `_masked_input`
α_k = max_i or mean_i S[k, i]                                # `_reduced`
L^c = ReLU(Σ_k α_k A_k)
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from sscam_jax import ops
from sscam_jax.cams import _scores, _tap
from sscam_jax.cams._scores import Changed, Engine, Work
from sscam_jax.cams._tap import Tapped
from sscam_jax.cams.gradient import grad_cam_weights
from sscam_jax.cams.presets import Choices
from sscam_jax.types import Apply, Params, Saliency


class Traced(NamedTuple):
    """What can change without a compilation; None where the method makes no use of it."""

    baseline: Float[Array, "b *space c_in"] | None
    sigma: Float[Array, ""]
    key: Key[Array, ""] | None
    ids: Int[Array, " b"] | None


class Image(NamedTuple):
    """What the scoring of one image needs; with a leading axis b, of all images."""

    image: Float[Array, "*space c_in"]
    maps: Float[Array, "c *grid"]
    live: Bool[Array, " c"]
    samples: Int[Array, ""]
    label: Int[Array, ""]
    before: Int[Array, ""]
    id: Int[Array, ""] | None


def scored(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    traced: Traced,
    choices: Choices,
    engine: Engine,
) -> Saliency:
    """Score-CAM, SS-CAM and IS-CAM in every preset."""
    tapped = _tap.tap(apply, params, images, labels)
    prior = _prior(apply, params, tapped, choices)
    maps = _mask_maps(tapped.activations, prior)
    live, samples = _affordable(maps, choices)

    baselines = _baseline_scores(apply, params, images, tapped.labels, traced.baseline, choices)
    passing = _in_precision(_scores.suited(apply, params, engine), choices)
    forward = _scores.network_of(apply, passing)
    chunks = _chunks(live, samples, choices, engine)
    rows = Image(images, maps, live, samples, tapped.labels, jnp.cumsum(chunks, dtype=jnp.int32) - chunks, traced.ids)

    def one_image(row: Image) -> Float[Array, " c"]:
        def tick(done: Int[Array, ""]) -> None:
            if engine.progress is not None:
                jax.debug.callback(engine.progress, row.before + done, chunks.sum(dtype=jnp.int32))

        work = Work(forward, choices.score, row.label, engine, tick)
        return _channel_scores(row, traced, choices, work)

    # One image after another: memory is that of one chunk, for any batch.
    scores = jnp.where(live, jax.lax.map(one_image, rows) - baselines[:, None], 0.0)
    weights = _over_channels(scores, live) if choices.channel_softmax else scores
    if choices.prior_in_sum:  # as in the authors' notebooks; Algorithm 1 has the prior in the mask only
        weights = weights * prior
    raw = _tap.weighted_sum(weights, tapped.activations)
    passes = live.sum(1, dtype=jnp.int32) * (samples + int(choices.second_pass))
    passes += 1 + (choices.baseline != "none" or traced.baseline is not None)  # the image itself, and the baseline
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1], choices.normalize, passes)


def _prior(apply: Apply, params: Params, tapped: Tapped, choices: Choices) -> Float[Array, "b c"]:
    """What multiplies A_k before the mask is made: Grad-CAM's weight, or 1."""
    if choices.prior == "grad_cam":
        return grad_cam_weights(apply, params, tapped)
    return jnp.ones((tapped.activations.shape[0], tapped.activations.shape[-1]), jnp.float32)


def _mask_maps(activations: Float[Array, "b *grid c"], prior: Float[Array, "b c"]) -> Float[Array, "b c *grid"]:
    """The maps that masks are made of: A_k, or α_k A_k. Channels lead, because they are what a chunk picks from."""
    maps = jnp.moveaxis(activations.astype(jnp.float32), -1, 1)
    return maps * prior.reshape(*prior.shape, *[1] * (maps.ndim - 2))


def _affordable(maps: Float[Array, "b c *grid"], choices: Choices) -> tuple[Bool[Array, "b c"], Int[Array, " b"]]:
    """Which channels of each image are scored, and with how many samples each.

    Measured on real images (tests/bench/budget.py): one sample of many channels is nearer to the full map than many
    samples of few, and the channels of largest variance are the ones to keep.
    """
    grid = tuple(range(2, maps.ndim))
    # s(U(A)) of a constant map is 0 everywhere: all such channels have the score of a black image, and no place in it.
    live = maps.max(grid) > maps.min(grid)
    samples = jnp.full(maps.shape[0], choices.n_samples, jnp.int32)
    if choices.budget is None:
        return live, samples
    # Whole rounds: with a part of a round, some channels' maxima would be over more samples than others'.
    rounds = choices.budget // jnp.maximum(live.sum(1, dtype=jnp.int32), 1) - int(choices.second_pass)
    samples = jnp.clip(rounds, 1, choices.n_samples)
    most = choices.budget // (samples + int(choices.second_pass))
    # Twice: the first gives the channels by falling variance, the second the place of each channel in that order.
    rank = jnp.argsort(jnp.argsort(-jnp.where(live, maps.var(grid), -1.0))).astype(jnp.int32)
    return live & (rank < most[:, None]), samples


def _chunks(live: Bool[Array, "b c"], samples: Int[Array, " b"], choices: Choices, engine: Engine) -> Int[Array, " b"]:
    """How many chunks each image takes, as the first device sees them."""
    each = engine.chunk_size // engine.block * engine.block * engine.devices
    n_live = live.sum(1, dtype=jnp.int32)
    return -(-(n_live * samples) // each) + (-(-n_live // each) if choices.second_pass else 0)


def _in_precision(params: Params, choices: Choices) -> Params:
    """The parameters in the precision of the passes; integers, as those of positions, stay as they are."""
    if choices.precision is None:
        return params
    dtype = jnp.dtype(choices.precision)
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, params)


def _baseline_scores(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"],
    baseline: Float[Array, "b *space c_in"] | None,
    choices: Choices,
) -> Float[Array, " b"]:
    """f^c(X_b) of each image; 0 without a baseline."""
    if baseline is None:
        if choices.baseline == "none":
            return jnp.zeros(images.shape[0], jnp.float32)
        inputs: dict[str, Callable[[Array], Array]] = dict(zeros=jnp.zeros_like, blur=ops.blur, image=jnp.asarray)
        baseline = inputs[str(choices.baseline)](images)
    # With the parameters as given, not those of the passes: this is one input per image, in the images' precision.
    return _scores.score_of(choices.score, apply(params, baseline), labels)


def _channel_scores(row: Image, traced: Traced, choices: Choices, work: Work) -> Float[Array, " c"]:
    """The score of each live channel of one image."""
    n_samples, most = choices.n_samples, choices.budget
    changed = _masked_input(row, traced, choices)
    table = _scores.scores(changed, work, row.live, n_samples=n_samples, samples=row.samples, most=most)
    scores = _reduced(table, row.samples, choices.reduce)
    if not choices.second_pass:
        return scores
    # Algorithm 1: what counts is the score of the mask scaled by the reduced score of its samples.
    quiet = _masked_input(row, traced, dataclasses.replace(choices, noise_on=None))
    after = work._replace(tick=lambda done: work.tick(done + _chunks_before(row, choices, work.engine)))

    def scaled(channel: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
        masked = quiet(channel, sample)
        return (scores[channel] * masked.astype(jnp.float32)).astype(masked.dtype)

    return _scores.scores(scaled, after, row.live, most=most)[:, 0]


def _chunks_before(row: Image, choices: Choices, engine: Engine) -> Int[Array, ""]:
    """How many chunks of an image come before its second pass."""
    first = dataclasses.replace(choices, second_pass=False)
    return _chunks(row.live[None], row.samples[None], first, engine)[0]


def _reduced(table: Float[Array, "c n"], samples: Int[Array, ""], reduce: str) -> Float[Array, " c"]:
    """The maximum or the mean of the samples that were scored."""
    there = jnp.arange(table.shape[1], dtype=jnp.int32)[None] < samples
    if reduce == "max":  # −∞ and not 0, because logits can be negative
        return jnp.where(there, table, -jnp.inf).max(1)
    return jnp.where(there, table, 0.0).sum(1) / samples.astype(jnp.float32)


def _over_channels(scores: Float[Array, "b c"], live: Bool[Array, "b c"]) -> Float[Array, "b c"]:
    """The softmax of Algorithm 1, over the channels that were scored; with none, all weights are zero."""
    # If no channel is live, the softmax runs over all of them, because a softmax over nothing is NaN.
    return jnp.where(live, jax.nn.softmax(scores, where=live | ~live.any(1, keepdims=True)), 0.0)


def _masked_input(row: Image, traced: Traced, choices: Choices) -> Changed:
    """(channel k, sample i) -> X ⊙ H_k, with noise (Eq. 11 and 15), or scaled along IS-CAM's path."""
    space, dtype = row.image.shape[:-1], row.image.dtype
    passing = dtype if choices.precision is None else jnp.dtype(choices.precision)
    # Masks and noise are float32, whatever the network's precision: in bfloat16 small noise would be rounded away.
    image = row.image.astype(ops.wide(dtype))

    def one(channel: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
        plane = _mask(row.maps[channel], space, choices)
        masked = _scores.times(image, plane)
        if choices.path is not None:
            masked = masked * _steps(choices.path, choices.n_samples)[sample].astype(image.dtype)
        if choices.noise_on is None:
            return masked.astype(passing)
        noisy = masked if choices.noise_on == "masked_input" else plane
        # r is the range of each sample's own masked input or mask, as in the authors' code, not that of the photograph.
        std = _noise_std(choices.sigma_mode, traced.sigma, ops.value_range(noisy[None])[0])
        noise = std * _gaussian(_noise_key(traced, row.id, channel, sample, choices), noisy.shape)
        if choices.noise_on == "masked_input":  # one value per pixel and colour
            return (masked + noise.astype(masked.dtype)).astype(passing)
        # On a mask the noise has one value per pixel, which all colours share.
        return _scores.times(image, plane + noise).astype(passing)

    return one


def _mask(activation: Float[Array, "*grid"], space: tuple[int, ...], choices: Choices) -> Float[Array, "*space"]:
    """H_k = s(U(A_k)) of one channel (Eq. 8 and 12)."""
    maps = activation[None]
    if choices.noise_on == "activation":  # Eq. 11 adds the noise to A_k, which is not brought to [0, 1]
        return ops.resize(maps, space)[0]
    if choices.normalize == "before_resize":
        return ops.resize(ops.unit(maps), space)[0]
    return ops.unit(ops.resize(maps, space))[0]


def _noise_key(
    traced: Traced, image_id: Int[Array, ""] | None, channel: Int[Array, ""], sample: Int[Array, ""], choices: Choices
) -> Key[Array, ""]:
    """The key of one sample's noise, of nothing but the key and these three numbers."""
    key = traced.key
    assert key is not None and image_id is not None, "only methods that take a key have noise"
    # Folded in one after another and never split: the key of sample i is the same whatever N, chunks and batch are.
    if choices.noise == "independent":
        key = jax.random.fold_in(jax.random.fold_in(key, image_id), channel)
    return jax.random.fold_in(key, sample)


def _gaussian(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Noise of standard deviation 1."""
    # Drawn flat, which changes no number: XLA's loops on CPUs are slow where the last axis is three colours.
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def _noise_std(mode: str, sigma: Float[Array, ""], span: Float[Array, ""]) -> Float[Array, ""]:
    """The noise's standard deviation where the noisy quantity has range `span`; 0 where that is constant."""
    # A constant plane has no range to divide by. It is the mask of a channel that gets no pass, or a black image.
    span = span.astype(jnp.float32)
    safe = jnp.where(span == 0, 1.0, span)
    std = {
        "inverse_range_squared": (sigma / safe) ** 2,  # the authors' code
        "std": sigma,
        "variance": jnp.sqrt(sigma),
        "relative": sigma * span,
    }[mode]
    return jnp.where(span == 0, 0.0, std)


def _steps(path: str, n_samples: int) -> Float[Array, " n"]:
    """What each of N samples multiplies the masked input by: i/N, or the running sum of these."""
    straight = jnp.arange(1, n_samples + 1, dtype=jnp.float32) / n_samples
    return straight if path == "straight" else jnp.cumsum(straight)
