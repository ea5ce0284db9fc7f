"""Score-CAM and SS-CAM: the weights are scores of masked inputs, read off forward passes."""

from collections.abc import Sequence
from typing import Any, Unpack

import jax
from jaxtyping import Array, Float, Int, Key

from sscam_jax.cams import _run
from sscam_jax.cams._scores import Progress
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import SCORE_CAM_PRESETS, SS_CAM_PRESETS, ScoreCamChanges, SsCamChanges, resolve
from sscam_jax.types import Apply, Params, Saliency


def score_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    preset: str = "paper",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
    **changes: Unpack[ScoreCamChanges],
) -> Saliency:
    """Score-CAM: the activations weighted by the class's score of the image seen through each of them.

    L^c = ReLU(Σ_k α_k A_k) with α_k = C(A_k) = f^c(X ⊙ H_k) − f^c(X_b) and H_k = s(U(A_k)), Eq. 5-8 of SS-CAM's paper.
    Channels whose map is constant say nothing about where: they get weight 0 and no forward pass.

    The call returns when the maps are there, because it must notice when memory runs out.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        preset: the name of a row of `SCORE_CAM_PRESETS`.
        chunk_size: network inputs scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's channels; None: where the arguments are. It changes the numbers by
            rounding only.
        progress: called with (chunks done, chunks in all), from another thread; static: pass the same object again to
            reuse a compilation.
        **changes: values that replace those of the preset: `score`, `baseline`, `channel_softmax`, `normalize`,
            `precision`, `budget`; see `Choices`.

    Returns:
        `Saliency`; `weights` are α.

    Raises:
        ValueError: an unknown preset or value, or shapes or labels that do not fit.
        TypeError: an argument that the method does not have.

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
    choices = resolve("score_cam", SCORE_CAM_PRESETS, preset, changes, ScoreCamChanges)
    return _run.masked(
        apply, params, images, labels, choices, chunk_size=chunk_size, devices=devices, progress=progress
    )


def ss_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    key: Key[Array, ""],
    preset: str = "light",
    ids: Int[Array, " b"] | None = None,
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
    **changes: Unpack[SsCamChanges],
) -> Saliency:
    """SS-CAM: Score-CAM whose scores are smoothed over N noisy versions of every masked input.

    L^c = ReLU(Σ_k α_k A_k) with α_k the maximum (approach 2, Eq. 13-15) or the mean (approach 1, Eq. 9-11) of f^c over
    N noisy masked inputs. The paper's equations, its Algorithm 1 and published code disagree. So a preset names each
    reading:

    * `light` (the default): `paper` with σ = 0.5, at which the network still sees the photograph, and one sample per
      channel: more are not shown to change anything (docs/results.md). `n_samples=10` smooths as the paper does.
    * `paper`: approach 2 without gradients. The maximum of N = 10 probabilities; noise on X ⊙ H_k as in Algorithm 1
      (Eq. 15 has it on the mask); no baseline (C(·) of Eq. 7 subtracts one's score).
    * `paper_mean`: approach 1, the mean; noise on the mask (Eq. 11 has it on A_k, not normalised).
    * `algorithm1`: its steps: A_k times a weight in the mask, a second pass with the mask scaled by the maximum,
      softmax over the channels. Its weight, that of the linear layer, is Grad-CAM's here; its N − 1 samples are N.
    * `authors`: the notebooks behind the paper's tables: Grad-CAM's weight in the mask and in the sum.
    * `authors_released`: SSCAM1 of the authors' module: noise on the activation, which is not normalised, N = 35.
    * `torchcam`: torchcam's SSCAM: noise on the mask, mean of N = 35 logits, softmax over the channels.

    The noise of (image id, channel, sample) is seeded by the key and these three indices only. So chunks and devices
    change a map by rounding only; with `ids`, so do the order and the other images of the batch. Channels whose map is
    constant get weight 0 and no forward pass.

    The call returns when the maps are there, because it must notice when memory runs out.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        key: a key of `jax.random.key`, of JAX's default kind.
        preset: the name of a row of `SS_CAM_PRESETS`.
        ids: one integer per image [b] that seeds its noise. None stands for the position in the batch: then another
            order gives an image other noise.
        chunk_size: network inputs scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's channels; None: where the arguments are. It changes the numbers by
            rounding only.
        progress: called with (chunks done, chunks in all), from another thread; static: pass the same object again to
            reuse a compilation.
        **changes: values that replace those of the preset: `n_samples`, `sigma`, `noise_on`, `sigma_mode`, `reduce`,
            `prior`, `prior_in_sum`, `second_pass`, `noise`, and those of `score_cam`; see `Choices`.

    Returns:
        `Saliency`; `weights` are what multiplies A_k in the sum.

    Raises:
        ValueError: an unknown preset or value, shapes or labels that do not fit, or a key of kind rbg.
        TypeError: an argument that the method does not have.

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
        version by these two, whose equations these are. The last version, by Wang, Naidu, Michael and Kundu, has two
        methods that average: SS-CAM(1) with noise on the activation, SS-CAM(2) with noise on the masked input.
    """
    choices = resolve("ss_cam", SS_CAM_PRESETS, preset, changes, SsCamChanges)
    how: dict[str, Any] = dict(chunk_size=chunk_size, devices=devices, progress=progress)
    return _run.masked(apply, params, images, labels, choices, key, ids, **how)
