"""Score-CAM and SS-CAM: the weights are scores of masked inputs, read off forward passes."""

from collections.abc import Sequence
from types import EllipsisType
from typing import Literal

import jax
from jaxtyping import Array, Float, Int, Key

from sscam_jax.cams import _run, _tap
from sscam_jax.cams._probe import Progress
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import (
    SCORE_CAM_PRESETS,
    SS_CAM_PRESETS,
    Baseline,
    Noise,
    NoiseOn,
    Normalize,
    Precision,
    Reduce,
    Score,
    SigmaMode,
    resolve,
)
from sscam_jax.types import Apply, Params, Saliency


def score_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels,
    *,
    preset: str = "paper",
    score: Score | EllipsisType = ...,
    baseline: Baseline | EllipsisType = ...,
    channel_softmax: bool | EllipsisType = ...,
    normalize: Normalize | EllipsisType = ...,
    precision: Precision = "float32",
    budget: int | None = None,
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
) -> Saliency:
    """Score-CAM: the activations weighted by the class's score of the image seen through each of them.

    L^c = ReLU(Σ_k α_k A_k) with α_k = C(A_k) = f^c(X ⊙ H_k) − f^c(X_b), H_k = s(U(A_k)), Eq. 5-8 of SS-CAM's paper.
    Channels whose map is constant say nothing about where: they get weight 0 and no forward pass.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        preset: a row of `SCORE_CAM_PRESETS`; the arguments below replace single choices of it.
        score: f^c, "probability" (after the softmax), "logit", "sigmoid" (of the logit: for several classes at
            once), "log_probability" (never positive: without a baseline or `channel_softmax` its map is flat), or a
            function `(logits [n], label []) -> []` (static:
            pass the same function object to reuse a compilation).
        baseline: X_b, whose score is subtracted: "none", "zeros" (the mean colour, for normalised images),
            "blur", "image" (the image itself), or an array [*space, c_in] or [b, *space, c_in].
        channel_softmax: whether α is a softmax over the channels' scores.
        normalize: "after_resize" is s(U(A)), as the paper has it; "before_resize" is U(s(A)).
        precision: the network's in the scoring passes, "float32" or "bfloat16"; masks, noise, scores and sums are
            float32 either way.
        budget: scoring passes that an image may take; None: all. It buys samples last: one sample of the channels of
            largest variance, until all have one, then a second of each. The other channels get weight 0.
        chunk_size: network inputs scored at once on a device; None: what suits the device. Out of memory, it is
            halved, with a warning.
        devices: devices that share each image's channels; None: where the arguments are. It changes the numbers
            by rounding only.
        progress: called with (chunks done, chunks in all), from another thread; static: pass the same object
            again to reuse a compilation.

    Returns:
        `Saliency`; `weights` are α.

    Raises:
        ValueError: an unknown preset or choice, or shapes or labels that do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> score_cam(apply, jnp.eye(2), images, [0], score="logit").weights.tolist()
        [[0.75, 0.0]]

    References:
        Wang et al., Score-CAM, CVPR Workshops 2020 (arXiv 1910.01279); Naidu and Michael, SS-CAM (arXiv 2006.14255).
    """
    given = dict(
        score=score,
        baseline=baseline,
        channel_softmax=channel_softmax,
        normalize=normalize,
        precision=precision,
        budget=budget,
    )
    values = resolve("score_cam", SCORE_CAM_PRESETS, preset, given)
    unused = dict(key=jax.random.key(0), ids=None, sigma=0.0)
    return _run.explain(apply, params, images, labels, values | unused, chunk_size, progress, devices)


def ss_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels,
    *,
    key: Key[Array, ""],
    preset: str = "light",
    ids: Int[Array, " b"] | None = None,
    n_samples: int | EllipsisType = ...,
    sigma: float | Float[Array, ""] | EllipsisType = ...,
    noise_on: NoiseOn | EllipsisType = ...,
    sigma_mode: SigmaMode | EllipsisType = ...,
    reduce: Reduce | EllipsisType = ...,
    score: Score | EllipsisType = ...,
    baseline: Baseline | EllipsisType = ...,
    channel_softmax: bool | EllipsisType = ...,
    prior: Literal["grad_cam"] | EllipsisType | None = ...,
    prior_in_sum: bool | EllipsisType = ...,
    second_pass: bool | EllipsisType = ...,
    normalize: Normalize | EllipsisType = ...,
    noise: Noise = "independent",
    precision: Precision = "float32",
    budget: int | None = None,
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
) -> Saliency:
    """SS-CAM: Score-CAM whose scores are smoothed over N noisy versions of every masked input.

    L^c = ReLU(Σ_k α_k A_k) with α_k the maximum (approach 2, Eq. 13-15) or the mean (approach 1, Eq. 9-11) of
    f^c over N noisy masked inputs. The paper's equations, its Algorithm 1 and published code disagree, so a preset
    names each reading:

    * `light` (the default): `paper` with σ = 0.5, at which the network still sees the photograph; better than
      `paper` on forty of them, and not to be told from Score-CAM (docs/results.md).
    * `paper`: approach 2 without gradients, maximum of N = 10 probabilities; noise on X ⊙ H_k as in Algorithm 1 (Eq. 15
      has it on the mask), and no baseline (C(·) of Eq. 7 subtracts one's score).
    * `paper_mean`: approach 1, mean; noise on the mask (Eq. 11 has it on A_k, not normalised).
    * `algorithm1`: its steps: A_k times a weight in the mask, a second pass with the mask scaled by the maximum,
      softmax over the channels. Its weight, the linear layer's, is Grad-CAM's here, and its N − 1 samples are N.
    * `authors`: the notebooks behind the paper's tables: Grad-CAM's weight in the mask and in the sum.
    * `authors_released`: SSCAM1 of the authors' module: noise on the activation, which is not normalised, N = 35.
    * `torchcam`: torchcam's SSCAM: noise on the mask, mean of N = 35 logits, softmax over the channels.

    The noise of (image id, channel, sample) depends on the key and these three indices only: chunks, batches and
    devices cannot change it. Channels whose map is constant get weight 0 and no forward pass.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        key: a key of `jax.random.key`, of JAX's default kind.
        preset: a row of `SS_CAM_PRESETS`; the arguments below replace single choices of it.
        ids: an integer an image [b] that its noise belongs to; None: its position in the batch.
        n_samples: N.
        sigma: σ; traced, so another value compiles nothing.
        noise_on: what the noise is added to: "masked_input" X ⊙ H_k + ε (a value a pixel and colour), "mask"
            X ⊙ (H_k + ε), or "activation" X ⊙ (U(A_k) + ε), without s(·).
        sigma_mode: the noise's standard deviation from σ and from the range r (maximum − minimum, per channel) of
            what the noise is added to: "inverse_range_squared" (σ/r)², "std" σ, "variance" √σ, "relative" σ·r.
        reduce: "max" or "mean" of the N scores.
        score: f^c, as in `score_cam`.
        baseline: X_b, as in `score_cam`.
        channel_softmax: whether α is a softmax over the channels' scores.
        prior: "grad_cam" multiplies A_k by Grad-CAM's weight before the mask is made; None does not.
        prior_in_sum: whether that weight also multiplies A_k in the final sum.
        second_pass: whether the score of a channel is f^c(S·H_k ⊙ X), with S the reduced score of its samples.
        normalize: "after_resize" is s(U(A)), as the paper has it; "before_resize" is U(s(A)).
        noise: "independent", or "common": sample i of every channel and image is the same noise, scaled by the
            channel's standard deviation. A network's linear first layer, where it offers one (`Sections`), runs once a
            channel and once a sample then, and the N responses to the noise are held.
        precision: the network's in the scoring passes, "float32" or "bfloat16"; masks, noise, scores and sums are
            float32 either way.
        budget: scoring passes that an image may take; None: all. It buys samples last: one sample of the channels of
            largest variance, until all have one, then a second of each. The other channels get weight 0.
        chunk_size: network inputs scored at once on a device; None: what suits the device. Out of memory, it is
            halved, with a warning.
        devices: devices that share each image's channels; None: where the arguments are. It changes the numbers
            by rounding only.
        progress: called with (chunks done, chunks in all), from another thread; static: pass the same object
            again to reuse a compilation.

    Returns:
        `Saliency`; `weights` are what multiplies A_k in the sum.

    Raises:
        ValueError: an unknown preset or choice, shapes or labels that do not fit, or a key of kind rbg.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> saliency = ss_cam(apply, jnp.eye(2), images, [0], key=jax.random.key(0), n_samples=2)
        >>> saliency.maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Naidu and Michael, SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization (arXiv 2006.14255), in the
        version by these two, whose equations these are; the last, by Wang, Naidu, Michael and Kundu, has two methods
        that average, SS-CAM(1) with noise on the activation, SS-CAM(2) with noise on the masked input.
    """
    _tap.check_key(key)
    given = dict(
        n_samples=n_samples,
        sigma=sigma,
        noise_on=noise_on,
        sigma_mode=sigma_mode,
        reduce=reduce,
        score=score,
        baseline=baseline,
        channel_softmax=channel_softmax,
        prior=prior,
        prior_in_sum=prior_in_sum,
        second_pass=second_pass,
        normalize=normalize,
        noise=noise,
        precision=precision,
        budget=budget,
    )
    values = resolve("ss_cam", SS_CAM_PRESETS, preset, given) | dict(key=key, ids=ids)
    return _run.explain(apply, params, images, labels, values, chunk_size, progress, devices)
