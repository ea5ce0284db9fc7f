"""IS-CAM: Score-CAM whose scores are integrated from a black image to the masked one."""

from collections.abc import Sequence
from types import EllipsisType

import jax
from jaxtyping import Array, Float

from sscam_jax.cams import _run
from sscam_jax.cams._probe import Progress
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import IS_CAM_PRESETS, Baseline, Normalize, Path, Precision, Score, resolve
from sscam_jax.types import Apply, Params, Saliency


def is_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels,
    *,
    preset: str = "straight",
    n_samples: int | EllipsisType = ...,
    path: Path | EllipsisType = ...,
    score: Score | EllipsisType = ...,
    baseline: Baseline | EllipsisType = ...,
    channel_softmax: bool | EllipsisType = ...,
    normalize: Normalize | EllipsisType = ...,
    precision: Precision = "float32",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    progress: Progress | None = None,
) -> Saliency:
    """IS-CAM: Score-CAM whose scores are means over N fractions of every masked input.

    L^c = ReLU(Σ_k α_k A_k) with α_k = 1/N Σ_i f^c(t_i · X ⊙ H_k) − f^c(X_b), H_k = s(U(A_k)). The two readings in use
    are presets, which differ in t_i:

    * `straight`: t_i = i/N, the integral of the score along the straight path from 0 to the masked input; otherwise
      Score-CAM's `paper`.
    * `torchcam`: t_i = Σ_j≤i j/N, the running sums, which end at (N + 1)/2; otherwise Score-CAM's `torchcam`. This is
      torchcam's code; its documentation begins the sums at j = 0 and ends them at i − 1.

    Channels whose map is constant get weight 0 and no forward pass.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        preset: a row of `IS_CAM_PRESETS`; the arguments below replace single choices of it.
        n_samples: N.
        path: t, "straight" or "running_sum".
        score: f^c, as in `score_cam`.
        baseline: X_b, as in `score_cam`.
        channel_softmax: whether α is a softmax over the channels' scores.
        normalize: "after_resize" is s(U(A)); "before_resize" is U(s(A)).
        precision: the network's in the scoring passes, "float32" or "bfloat16".
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
        >>> is_cam(apply, jnp.eye(2), images, [0], n_samples=2, score="logit").weights.tolist()
        [[0.5625, 0.0]]

    References:
        Naidu et al., IS-CAM: Integrated Score-CAM for axiomatic-based explanations (arXiv 2010.03023).
    """
    given = dict(
        n_samples=n_samples,
        path=path,
        score=score,
        baseline=baseline,
        channel_softmax=channel_softmax,
        normalize=normalize,
        precision=precision,
    )
    values = resolve("is_cam", IS_CAM_PRESETS, preset, given)
    unused = dict(key=jax.random.key(0), ids=None, sigma=0.0)
    return _run.explain(apply, params, images, labels, values | unused, chunk_size, progress, devices)
