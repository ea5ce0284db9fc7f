"""Ridge-CAM: Score-CAM's masks and scores, read as a regression, together with Grad-CAM."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sscam_jax import ops
from sscam_jax.cams import _run, _scores, _tap
from sscam_jax.cams._scores import Engine, Work
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.gradient import grad_cam_weights
from sscam_jax.cams.presets import Score
from sscam_jax.types import Apply, Params, Saliency


def ridge_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    budget: int = 96,
    ridge: float | Float[Array, ""] = 1.0,
    score: Score = "probability",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Saliency:
    """Ridge-CAM: which places explain the scores of all masks together, where Score-CAM and Grad-CAM agree.

    L^c = (s(ReLU(G)) ⊙ s(ReLU(S)) ⊙ s(ReLU(M)))^⅓, the geometric mean of three maps of the same layer:

    * G = Σ_k w_k A_k is Grad-CAM.
    * S = Σ_k s_k A_k is Score-CAM with a blurred image B (`ops.blur`) in place of black:
      s_k = f^c(X ⊙ H_k + B ⊙ (1 − H_k)) with H_k = s(U(A_k)).
    * M is the ridge regression of these scores on the masks: M, b = argmin Σ_k (s_k − b − ⟨M, h_k⟩)² + λ‖M‖², with
      h_k = s(A_k), and with two more masks: h = 0, which shows B, and h = 1, which shows X.

    Score-CAM credits a place for the score of every mask that covers it, even if another place earned it. Regression
    asks what a place adds to the masks that cover it. M is still a weighted sum of the channels' masks.

    λ is the smoothing. Noise of variance v on every cell of the masks, averaged over infinitely many samples, adds
    K v ‖M‖² to the K squared errors: this is ridge regression, so no sample has to be drawn.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        budget: K, how many channels are scored: those of largest variance; static.
        ridge: λ as a multiple of the mean eigenvalue of the masks' Gram matrix, > 0; traced.
        score: f^c, "logit", "probability" (after the softmax), "log_probability", "sigmoid", or a function
            `(logits [n], label []) -> []`; static.
        chunk_size: network inputs scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's channels; None: where the arguments are. It changes the numbers by
            rounding only.

    Returns:
        `Saliency`; `weights` are s_k, 0 for channels that are not scored; `raw` is L^c at the layer's resolution.
        `passes` is the number of scored channels and 2: the image and B.

    Raises:
        ValueError: an unknown score, `budget` < 1, `ridge` ≤ 0, or shapes or labels that do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> ridge_cam(apply, jnp.eye(2), images, [0], score="logit").maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        An experiment of this library: on 128 images that did not choose it, it is not shown to be better than Grad-CAM
        or Score-CAM (docs/results.md). Scores: Wang et al., Score-CAM (arXiv 1910.01279). Noise as
        ridge: Bishop, Training with Noise is Equivalent to Tikhonov Regularization, 1995.
    """
    _tap.at_least_one(budget=budget)
    traced = _tap.scalar("ridge", ridge, 1e-6, 1e6)
    how = dict(chunk_size=chunk_size, devices=devices)
    return _run.run_scored(_ridge_cam, apply, params, images, labels, traced, (score, budget), **how)


class _Row(NamedTuple):
    """One image; with a leading axis b, all of them."""

    image: Float[Array, "*space c_in"]
    blurred: Float[Array, "*space c_in"]
    maps: Float[Array, "c *grid"]
    label: Int[Array, ""]
    whole: Float[Array, ""]  # f^c(X)


def _ridge_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    ridge: Float[Array, ""],
    choices: tuple[Score, int],
    engine: Engine,
) -> Saliency:
    score, budget = choices
    tapped = _tap.tap(apply, params, images, labels)
    passing = _scores.suited(apply, params, engine)
    activations = tapped.activations.astype(jnp.float32)
    gradient = _tap.weighted_sum(grad_cam_weights(apply, params, tapped), activations)

    def one_image(row: _Row) -> tuple[Array, Array, Array]:
        chosen, live = _of_largest_variance(row.maps, budget)
        # The last mask is empty: it shows B.
        maps = jnp.concatenate([row.maps[chosen], jnp.zeros_like(row.maps[:1])])
        live = jnp.concatenate([live, jnp.ones(1, bool)])

        def seen(channel: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
            mask = ops.unit(ops.resize(maps[channel][None], row.image.shape[:-1]))[0]
            return _scores.times(row.image, mask) + _scores.times(row.blurred, 1 - mask)

        work = Work(_scores.network_of(apply, passing), score, row.label, engine)
        found = jnp.where(live, _scores.scores(seen, work, live)[:, 0], 0.0)
        masks = jnp.concatenate([ops.unit(maps), jnp.ones_like(maps[:1])])
        regressed = _regressed(masks, jnp.append(found, row.whole), jnp.append(live, True), ridge)
        weights = jnp.zeros(row.maps.shape[0], jnp.float32).at[chosen].set(found[:-1])
        return regressed, weights, live.sum(dtype=jnp.int32)

    whole = _scores.score_of(score, tapped.logits, tapped.labels)
    rows = _Row(images, ops.blur(images), jnp.moveaxis(activations, -1, 1), tapped.labels, whole)
    regressed, weights, passes = jax.lax.map(one_image, rows)
    raw = _geometric_mean(gradient, _tap.weighted_sum(weights, activations), regressed)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1], passes=passes + 1)


def _of_largest_variance(maps: Float[Array, "c *grid"], budget: int) -> tuple[Int[Array, " k"], Bool[Array, " k"]]:
    """The channels to score, and which of them are not constant."""
    grid = tuple(range(1, maps.ndim))
    chosen = jnp.argsort(-maps.var(grid))[: min(budget, maps.shape[0])].astype(jnp.int32)
    return chosen, ops.value_range(maps[chosen]) > 0


def _regressed(
    masks: Float[Array, "n *grid"], scores: Float[Array, " n"], live: Bool[Array, " n"], ridge: Float[Array, ""]
) -> Float[Array, "*grid"]:
    """M = H̃ᵀ (H̃ H̃ᵀ + λ I)⁻¹ s̃, with ~ for what is left without the mean over the masks: b takes the mean."""
    count = live.sum().astype(jnp.float32)

    def centred(values: Float[Array, "n ..."]) -> Float[Array, "n ..."]:
        there = live.reshape(-1, *[1] * (values.ndim - 1))
        mean = jnp.where(there, values, 0.0).sum(0, keepdims=True) / count
        return jnp.where(there, values - mean, 0.0)

    design, target = centred(masks.reshape(masks.shape[0], -1)), centred(scores)
    gram = jnp.matmul(design, design.T, precision="highest")
    size = ridge * jnp.trace(gram) / count
    # Conjugate gradients and no factorisation: LAPACK's call can wait forever for threads that other devices hold.
    # With this ridge the condition number is small, and some twenty steps are exact to rounding.
    alphas, _ = jax.scipy.sparse.linalg.cg(
        lambda a: jnp.matmul(gram, a, precision="highest") + size * a, target, tol=1e-6, maxiter=100
    )
    return jnp.matmul(alphas, design, precision="highest").reshape(masks.shape[1:])


def _geometric_mean(*maps: Float[Array, "b *grid"]) -> Float[Array, "b *grid"]:
    """(Π s(ReLU(map)))^(1/n). A map that says nothing anywhere leaves the word to the others."""
    product, count = jnp.ones_like(maps[0]), jnp.zeros(maps[0].shape[0], jnp.float32)
    for each in maps:
        positive = jax.nn.relu(each)
        says = ops.value_range(positive) > 0
        where = says.reshape(-1, *[1] * (each.ndim - 1))
        product = product * jnp.where(where, ops.unit(positive), 1.0)
        count = count + says.astype(jnp.float32)
    shape = (-1, *[1] * (product.ndim - 1))
    root = jnp.where(product > 0, product, 1.0) ** (1 / jnp.maximum(count, 1.0)).reshape(shape)
    return jnp.where((product > 0) & (count > 0).reshape(shape), root, 0.0)
