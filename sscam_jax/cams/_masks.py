"""Score-CAM, SS-CAM and IS-CAM in every preset, as one compiled function over the scoring core."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from sscam_jax import ops
from sscam_jax.cams import _tap
from sscam_jax.cams._probe import Probe, Progress, plan, score_channels
from sscam_jax.cams.gradient import grad_cam_weights
from sscam_jax.cams.presets import Choices, Score
from sscam_jax.types import Apply, Params, Saliency


class Engine(NamedTuple):
    """How the passes are run, which changes no number but for rounding; static."""

    chunk_size: int
    progress: Progress | None
    platform: str
    mesh: jax.sharding.Mesh | None

    @property
    def block(self) -> int:
        """Inputs at once in the network's early layers, whose arrays are large: more fall out of a CPU's cache."""
        return min(2, self.chunk_size) if self.platform == "cpu" else self.chunk_size


class Traced(NamedTuple):
    """The values that can change without a compilation; without noise only the baseline is read."""

    baseline: Float[Array, "b *space c_in"] | None
    key: Key[Array, ""]
    ids: Int[Array, " b"]
    sigma: Float[Array, ""]


def score_of(score: Score, logits: Float[Array, "m n"], labels: Int[Array, " m"]) -> Float[Array, " m"]:
    """f^c of each row, in float32."""
    logits = logits.astype(jnp.float32)
    if callable(score):
        return jax.vmap(score)(logits, labels).astype(jnp.float32)
    if score == "probability":
        logits = jax.nn.softmax(logits)
    elif score == "log_probability":
        logits = jax.nn.log_softmax(logits)
    elif score == "sigmoid":
        logits = jax.nn.sigmoid(logits)
    return jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]


def _noise_std(mode: str, sigma: Float[Array, ""], span: Float[Array, " p"]) -> Float[Array, " p"]:
    """The noise's standard deviation for channels whose noisy quantity has range `span`; 0 where that is constant."""
    safe = jnp.where(span == 0, 1.0, span)
    std = {
        "inverse_range_squared": (sigma / safe) ** 2,
        "std": jnp.broadcast_to(sigma, span.shape),
        "variance": jnp.broadcast_to(jnp.sqrt(sigma), span.shape),
        "relative": sigma * span,
    }[mode]
    return jnp.where(span == 0, 0.0, std)


def _steps(path: str, n_samples: int) -> Float[Array, " n"]:
    """What each of N samples multiplies the masked input by: i/N, or the running sum of these."""
    straight = jnp.arange(1, n_samples + 1, dtype=jnp.float32) / n_samples
    return straight if path == "straight" else jnp.cumsum(straight)


def _cast(leaf: Array, precision: str) -> Array:
    """Floating point numbers in another precision; a network's integers, as those of positions, stay as they are."""
    return leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _times(factors: Float[Array, " p"], arrays: Float[Array, "q ..."]) -> Float[Array, "p ..."]:
    """One factor for each row of `arrays`, or of its single row."""
    return factors.reshape(-1, *[1] * (arrays.ndim - 1)) * arrays


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
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
    activations = tapped.activations.astype(jnp.float32)
    prior = jnp.ones_like(activations[(slice(None), *[0] * (activations.ndim - 2))])
    if choices.prior == "grad_cam":
        prior = grad_cam_weights(apply, params, tapped)
    # The maps that masks are made of: A_k, or α_k A_k. Channels lead, for they are what a chunk picks from.
    maps = jnp.moveaxis(activations, -1, 1)
    maps = maps * prior.reshape(*prior.shape, *[1] * (maps.ndim - 2))
    live = maps.max(tuple(range(2, maps.ndim))) > maps.min(tuple(range(2, maps.ndim)))
    n_samples = choices.n_samples
    if choices.budget is not None:
        n_samples, most = _spend(choices, live.shape[1])
        variance = jnp.where(live, maps.var(tuple(range(2, maps.ndim))), -1.0)
        live &= jnp.argsort(jnp.argsort(-variance)) < most
    baselines = _baseline_scores(apply, params, images, tapped.labels, traced.baseline, choices)

    if engine.platform == "cpu" and apply.for_cpu is not None and choices.precision == "float32":
        params = apply.for_cpu(params)
    cut = plan(live.shape[1], n_samples, engine.chunk_size, engine.block, engine.mesh.size if engine.mesh else 1)
    chunks = -(-live.sum(1, dtype=jnp.int32) // cut.channels) * (n_samples // cut.samples)
    before = jnp.cumsum(chunks) - chunks

    def one_image(row: dict[str, Any]) -> Float[Array, " c"]:
        probe = _probe(apply, params, row, traced, choices, n_samples, engine.mesh)

        def tick(done: Int[Array, ""]) -> None:
            if engine.progress is not None:
                jax.debug.callback(engine.progress, row["before"] + done, chunks.sum())

        scores = score_channels(probe, row["live"], n_samples, cut, tick)
        return jnp.where(row["live"], scores - row["baseline"], 0.0)

    rows = dict(
        image=images, maps=maps, live=live, label=tapped.labels, baseline=baselines, before=before, id=traced.ids
    )
    scores = jax.lax.map(one_image, rows)
    if choices.channel_softmax:
        # Eq. of Algorithm 1: over the channels that were scored; with none, the weights are all zero.
        weights = jnp.where(live, jax.nn.softmax(scores, where=live | ~live.any(1, keepdims=True)), 0.0)
    else:
        weights = scores
    if choices.prior_in_sum:
        weights = weights * prior
    raw = _tap.weighted_sum(weights, activations)
    tried = n_samples + choices.second_pass
    others = 1 + (choices.baseline != "none" or traced.baseline is not None)
    passes = live.sum(1, dtype=jnp.int32) * tried + others
    return _tap.to_saliency(raw, weights, tapped.logits, images.shape[1:-1], choices.normalize, passes)


def _spend(choices: Choices, n_channels: int) -> tuple[int, int]:
    """How many samples and at most how many channels a budget of passes an image pays for: channels first.

    Measured on real images (tests/bench/budget.py): one sample of many channels is nearer to the full map than many
    samples of few, and the channels of largest variance are the ones to keep.
    """
    budget = choices.budget or 0
    n_samples = min(choices.n_samples, max(1, budget // n_channels - choices.second_pass))
    return n_samples, max(1, budget // (n_samples + choices.second_pass))


def _baseline_scores(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"],
    baseline: Float[Array, "b *space c_in"] | None,
    choices: Choices,
) -> Float[Array, " b"]:
    """f^c(X_b) of each image, 0 for none."""
    if baseline is None:
        if choices.baseline == "none":
            return jnp.zeros(images.shape[0], jnp.float32)
        inputs: dict[str, Callable[[Array], Array]] = dict(zeros=jnp.zeros_like, blur=ops.blur, image=jnp.asarray)
        baseline = inputs[choices.baseline](images)
    return score_of(choices.score, apply(params, baseline), labels)


def _probe(
    apply: Apply,
    params: Params,
    row: dict[str, Any],
    traced: Traced,
    choices: Choices,
    n_samples: int,
    mesh: jax.sharding.Mesh | None,
) -> Probe:
    """How one image's channels are masked, made noisy, scored and reduced."""
    image, maps = row["image"], row["maps"]
    space = image.shape[:-1]
    if choices.precision != "float32":
        params = jax.tree.map(lambda leaf: _cast(leaf, choices.precision), params)
    sections = apply.sections
    # Common noise through a linear first layer: it answers to masked input and noise apart, once each, not once a pair.
    stem = sections.stem if sections and choices.noise == "common" and choices.noise_on is not None else None

    def masks(channels: Int[Array, " p"]) -> Float[Array, "p *space"]:
        picked = maps[channels]
        if choices.noise_on == "activation":
            return ops.resize(picked, space)
        if choices.normalize == "before_resize":
            return ops.resize(ops.unit(picked), space)
        return ops.unit(ops.resize(picked, space))

    def masked(planes: Float[Array, "p *space"]) -> Float[Array, "p *space c_in"]:
        return image[None] * planes[..., None]

    def spread(inputs: Float[Array, "p ..."]) -> Float[Array, "p ..."]:
        """The chunk's channels divided among the devices."""
        if mesh is None:
            return inputs
        return jax.lax.with_sharding_constraint(inputs, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))

    def respond(inputs: Float[Array, "m *space c_in"]) -> Float[Array, "m ..."]:
        """What is scored of network inputs: themselves, or the stem's response to them."""
        inputs = inputs.astype(choices.precision)
        return inputs if stem is None else stem(params, inputs)

    def prepare(channels: Int[Array, " p"]) -> dict[str, Array]:
        mask = spread(masks(channels))
        prepared = dict(mask=mask)
        if choices.noise_on is not None:
            noisy = masked(mask) if choices.noise_on == "masked_input" else mask
            prepared["std"] = _noise_std(choices.sigma_mode, traced.sigma, ops.value_range(noisy))
        if stem is not None:
            prepared["response"] = respond(masked(mask))
        return prepared

    shape = image.shape if choices.noise_on == "masked_input" else space

    def gaussian(key: Key[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
        """What is added to X ⊙ H per unit of the noise's standard deviation."""
        # Drawn flat, which changes no number: XLA's loops on CPUs are slow where the last axis is three colours.
        noise = jax.random.normal(jax.random.fold_in(key, sample), (math.prod(shape),), jnp.float32).reshape(shape)
        return noise if choices.noise_on == "masked_input" else image * noise[..., None]

    over_samples = jax.vmap(gaussian, in_axes=(None, 0))
    if stem is not None:
        # All N at once, so that memory grows with N: every channel needs them, and drawn again for each
        # chunk of a few channels they would cost what they save.
        every = jnp.arange(n_samples, dtype=jnp.int32)
        responses = jax.lax.map(lambda sample: respond(gaussian(traced.key, sample)[None])[0], every)

    def draw(prepared: Any, channels: Int[Array, " p"], samples: Int[Array, " s"]) -> Float[Array, "p s ..."]:
        if choices.noise_on is None:
            quiet = masked(prepared["mask"])
            if choices.path is None:
                return respond(quiet)[:, None]
            steps = _steps(choices.path, choices.n_samples)[samples]
            return spread(jax.vmap(lambda step: respond(step * quiet), out_axes=1)(steps))
        if stem is not None:
            quiet, std = prepared["response"][:, None], prepared["std"].astype(choices.precision)
            return spread(quiet + _times(std, responses[samples][None]))
        if choices.noise == "common":
            noise = over_samples(traced.key, samples)[None]
        else:
            own = jax.random.fold_in(traced.key, row["id"])
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(own, channels)
            noise = jax.vmap(over_samples, in_axes=(0, None))(keys, samples)
        noisy = masked(prepared["mask"])[:, None] + _times(prepared["std"], noise)
        return spread(noisy.astype(choices.precision))

    def early(inputs: Float[Array, "m ..."]) -> Float[Array, "m ..."]:
        """The features that the late part takes; the logits, where the network offers no sections."""
        if sections is None:
            return apply(params, inputs)
        return sections.early(params, sections.stem(params, inputs) if stem is None else inputs)

    def score(features: Float[Array, "m ..."]) -> Float[Array, " m"]:
        logits = features if sections is None else sections.late(params, features)
        return score_of(choices.score, logits, jnp.broadcast_to(row["label"], logits.shape[:1]))

    def reduce(scores: Float[Array, "p n"]) -> Float[Array, " p"]:
        return scores.max(1) if choices.reduce == "max" else scores.mean(1)

    def again(prepared: Any, reduced: Float[Array, " p"]) -> Float[Array, "p ..."]:
        return respond(_times(reduced, masked(prepared["mask"])))

    return Probe(prepare, draw, early, score, reduce, again if choices.second_pass else None)
