"""IS-CAM: Score-CAM whose scores are integrated from a black image to the masked one."""

from collections.abc import Sequence
from typing import Unpack

import jax
from jaxtyping import Array, Float

from sscam_jax.cams import _run
from sscam_jax.cams._scores import Progress
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import IS_CAM_PRESETS, IsCamChanges, resolve
from sscam_jax.types import Apply, Params, Saliency


def is_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    preset: str = "straight",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
    **changes: Unpack[IsCamChanges],
) -> Saliency:
    """IS-CAM: Score-CAM whose scores are means over N fractions of every masked input.

    L^c = ReLU(Σ_k α_k A_k) with α_k = 1/N Σ_i f^c(t_i · X ⊙ H_k) − f^c(X_b), H_k = s(U(A_k)). The two readings in use
    are presets, which differ in t_i:

    * `straight`: t_i = i/N, our reading of "integrated": the score's integral along the straight path from 0 to the
      masked input. No published code does this. Otherwise Score-CAM's `paper`.
    * `torchcam`: t_i = Σ_j≤i j/N, the running sums, which end at (N + 1)/2. This is torchcam's code; its documentation
      begins the sums at j = 0 and ends them at i − 1. Otherwise Score-CAM's `torchcam`.

    Channels whose map is constant get weight 0 and no forward pass. The call returns when the maps are there, because
    it must notice when memory runs out.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        preset: the name of a row of `IS_CAM_PRESETS`.
        chunk_size: network inputs scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's channels; None: where the arguments are. It changes the numbers by
            rounding only.
        progress: called with (chunks done, chunks in all), from another thread; static: pass the same object again to
            reuse a compilation.
        **changes: values that replace those of the preset: `n_samples` (N), `path` (t), and those of `score_cam`; see
            `Choices`.

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
        >>> is_cam(apply, jnp.eye(2), images, [0], n_samples=2, score="logit").weights.tolist()
        [[0.5625, 0.0]]

    References:
        Naidu et al., IS-CAM: Integrated Score-CAM for axiomatic-based explanations (arXiv 2010.03023).
    """
    choices = resolve("is_cam", IS_CAM_PRESETS, preset, changes, IsCamChanges)
    return _run.masked(
        apply, params, images, labels, choices, chunk_size=chunk_size, devices=devices, progress=progress
    )
