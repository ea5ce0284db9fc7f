"""CAMs that run the head on changed activations: Ablation-CAM drops channels, Recipro-CAM keeps positions."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sscam_jax.cams import _run, _scores, _tap
from sscam_jax.cams._scores import Engine, Work
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import Score
from sscam_jax.types import Apply, Params, Saliency


def ablation_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    score: Score = "logit",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Saliency:
    """Ablation-CAM: each channel weighted by the share of the class's score that is lost without it.

    L^c = ReLU(Σ_k w_k^c A_k) with w_k^c = (Y^c − Y_k^c) / |Y^c|, where Y_k^c is the score with A_k set to 0. The paper
    divides by Y^c. We divide by its magnitude, because a negative Y^c would turn the map inside out. If Y^c is 0, the
    differences are not divided.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        score: Y^c, "logit", "probability" (after the softmax), "log_probability", "sigmoid", or a function
            `(logits [n], label []) -> []`; static.
        chunk_size: activations scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's channels; None: where the arguments are. It changes the numbers by
            rounding only.

    Returns:
        `Saliency`; `weights` are w^c. `passes` is 1: after it only the head runs, once per channel that is not 0 and
        once more. If most of the network is in the head, these runs cost nearly as much as passes.

    Raises:
        ValueError: an unknown score, or shapes or labels that do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> ablation_cam(apply, jnp.eye(2), images, [0]).weights.tolist()
        [[1.0, 0.0]]

    References:
        Desai and Ramaswamy, Ablation-CAM, WACV 2020.
    """
    how = dict(chunk_size=chunk_size, devices=devices)
    return _run.run_scored(_ablation_cam, apply, params, images, labels, (), (score, None), **how)


def _ablation_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    traced: tuple[()],
    choices: tuple[Score, None],
    engine: Engine,
) -> Saliency:
    tapped = _tap.tap(apply, params, images, labels)
    passing = _scores.suited(apply, params, engine)
    n_channels = tapped.activations.shape[-1]

    def one_image(row: dict[str, Any]) -> Float[Array, " c"]:
        activations = row["activations"]

        def without(channel: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*grid c"]:
            kept = 1 - jax.nn.one_hot(channel, n_channels, dtype=activations.dtype)
            return activations * kept.reshape(*[1] * (activations.ndim - 1), n_channels)

        # A channel that is 0 everywhere cannot lose anything. The last version drops no channel: it is Y^c. It runs in
        # the same chunks as the others, so that equal inputs have equal scores, and their difference is exactly 0.
        live = jnp.append((activations != 0).any(tuple(range(activations.ndim - 1))), True)
        work = Work(_scores.head_of(apply, passing, row["carry"]), choices[0], row["label"], engine)
        scores = _scores.scores(without, work, live)[:, 0]
        whole = scores[-1]
        return jnp.where(live[:-1], whole - scores[:-1], 0.0) / jnp.where(whole == 0, 1.0, jnp.abs(whole))

    rows = dict(activations=tapped.activations, carry=tapped.carry, label=tapped.labels)
    weights = jax.lax.map(one_image, rows)
    raw = _tap.weighted_sum(weights, tapped.activations)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])


def recipro_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    gaussian: bool = False,
    score: Score = "probability",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Saliency:
    """Recipro-CAM: the class's score when the head sees one position of the activations at a time.

    L^c_n = f^c(M_n ⊗ A_n) at position n, brought to [0, 1]. A_n are the activations of all channels at n. M_n is 1 at n
    and 0 elsewhere, so M_n ⊗ A_n keeps position n and is 0 everywhere else. If the head is average pooling and a linear
    layer, and the score is the logit, this is CAM.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        gaussian: if true, M_n is ¼, ½, ¼ along every axis around n, and A_n is spread over these positions; static.
        score: f^c, "logit", "probability" (after the softmax), "log_probability", "sigmoid", or a function
            `(logits [n], label []) -> []`; static.
        chunk_size: activations scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's positions; None: where the arguments are. It changes the numbers by
            rounding only.

    Returns:
        `Saliency`; `raw` are the scores, `weights` are 0. `passes` is 1: after it only the head runs, once per
        position. If most of the network is in the head, these runs cost nearly as much as passes.

    Raises:
        ValueError: an unknown score, or shapes or labels that do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(4.0)
        >>> recipro_cam(apply, jnp.eye(2), images, [0], score="logit").raw[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Byun and Lee, ReciproCAM, CVPR Workshops 2024 (arXiv 2209.14074, Recipro-CAM).
    """
    how = dict(chunk_size=chunk_size, devices=devices)
    return _run.run_scored(_recipro_cam, apply, params, images, labels, (), (score, gaussian), **how)


def _recipro_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    traced: tuple[()],
    choices: tuple[Score, bool],
    engine: Engine,
) -> Saliency:
    score, gaussian = choices
    tapped = _tap.tap(apply, params, images, labels)
    passing = _scores.suited(apply, params, engine)
    grid = tapped.activations.shape[1:-1]
    n_positions = tapped.activations[0, ..., 0].size

    def one_image(row: dict[str, Any]) -> Float[Array, "*grid"]:
        def at(position: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*grid c"]:
            channels = row["activations"].reshape(n_positions, -1)[position]
            mask = _position_mask(position, grid, gaussian)[..., None].astype(channels.dtype)
            return jnp.broadcast_to(channels, row["activations"].shape) * mask

        work = Work(_scores.head_of(apply, passing, row["carry"]), score, row["label"], engine)
        return _scores.scores(at, work, jnp.ones(n_positions, bool))[:, 0].reshape(grid)

    rows = dict(activations=tapped.activations, carry=tapped.carry, label=tapped.labels)
    raw = jax.lax.map(one_image, rows)
    # The scores are brought to [0, 1] by their minimum and maximum. `to_saliency` has a ReLU, which must cut off
    # nothing: so the minimum is subtracted first.
    lowest = raw.min(tuple(range(1, raw.ndim)), keepdims=True)
    saliency = _tap.to_saliency(raw - lowest, _tap.no_weights(tapped), tapped, images.shape[1:-1])
    return _tap.finite(saliency._replace(raw=raw), tapped.known)


def _position_mask(position: Int[Array, ""], grid: tuple[int, ...], gaussian: bool) -> Float[Array, "*grid"]:
    """M_n: 1 at the position and 0 elsewhere, or ¼, ½, ¼ around it."""
    here, beside = (0.5, 0.25) if gaussian else (1.0, 0.0)
    # A product of one line per axis, because both are separable.
    lines = []
    for side, at in zip(grid, jnp.unravel_index(position, grid), strict=True):
        distance = jnp.abs(jnp.arange(side, dtype=jnp.int32) - at)
        lines.append(jnp.where(distance == 0, here, jnp.where(distance == 1, beside, 0.0)).astype(jnp.float32))
    return functools.reduce(jnp.multiply, jnp.ix_(*lines))
