"""Group-CAM: groups of channels, each scored as one mask."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sscam_jax import ops
from sscam_jax.cams import _run, _scores, _tap
from sscam_jax.cams._scores import Engine, Work
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.gradient import grad_cam_weights
from sscam_jax.cams.presets import Score
from sscam_jax.types import Apply, Params, Saliency


def group_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    groups: int = 32,
    percentile: float | Float[Array, ""] = 70.0,
    score: Score = "probability",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Saliency:
    """Group-CAM: Grad-CAMs of groups of channels, each weighted by the class's score of the image under that map.

    L^c = ReLU(Σ_g α_g H_g) with H_g = s(U(D(ReLU(Σ_k∈g α_k A_k)))) and α_g = f^c(X ⊙ H_g + B ⊙ (1 − H_g)) − f^c(B).
    Here α_k are Grad-CAM's weights, and D(·) sets all values up to a percentile of the map to 0. B is the blurred image
    (`ops.blur` with σ = 10 pixels; the authors' code has σ = 50 with a kernel of 51 pixels). A group has ⌈c / G⌉
    neighbouring channels. A group whose map is constant has weight 0 and needs no pass.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        groups: G, the largest number of groups; static.
        percentile: of each group's map, in [0, 100]; traced.
        score: f^c, "logit", "probability" (after the softmax), "log_probability", "sigmoid", or a function
            `(logits [n], label []) -> []`; static.
        chunk_size: network inputs scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's groups; None: where the arguments are. It changes the numbers by
            rounding only.

    Returns:
        `Saliency`; the weight of a channel is α_g of its group; `raw` is Σ_g α_g H_g at the layer's resolution.
        `passes` is the number of groups that are not constant and 2.

    Raises:
        ValueError: an unknown score, `groups` < 1, or shapes or labels that do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> group_cam(apply, jnp.eye(2), images, [0]).maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Zhang et al., Group-CAM (arXiv 2103.13859).
    """
    _tap.at_least_one(groups=groups)
    traced = _tap.scalar("percentile", percentile, 0.0, 100.0)
    how = dict(chunk_size=chunk_size, devices=devices)
    return _run.run_scored(_group_cam, apply, params, images, labels, traced, (score, groups), **how)


def _group_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    percentile: Float[Array, ""],
    choices: tuple[Score, int],
    engine: Engine,
) -> Saliency:
    score, groups = choices
    tapped = _tap.tap(apply, params, images, labels)
    weights = grad_cam_weights(apply, params, tapped)
    passing = _scores.suited(apply, params, engine)
    space, n_channels = images.shape[1:-1], weights.shape[1]
    size = -(-n_channels // groups)  # the last group has fewer channels, or there is one group less

    def one_image(row: dict[str, Any]) -> tuple[Float[Array, "*grid"], Float[Array, " g"], Int[Array, ""]]:
        # The last mask is empty, so its score is f^c(B). It runs in the same chunks as the others, so that equal inputs
        # have equal scores, and their difference is exactly 0.
        maps = _group_maps(row["weighted"], size, percentile)
        maps = jnp.concatenate([maps, jnp.zeros_like(maps[:1])])
        live = (ops.value_range(maps) > 0).at[-1].set(True)

        def seen(group: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
            mask = ops.unit(ops.resize(maps[group][None], space))[0]
            return _scores.times(row["image"], mask) + _scores.times(row["blurred"], 1 - mask)

        work = Work(_scores.network_of(apply, passing), score, row["label"], engine)
        scores = _scores.scores(seen, work, live)[:, 0]
        alphas = jnp.where(live, scores - scores[-1], 0.0)[:-1]
        units = jax.lax.map(functools.partial(_unit_at_full_size, space=space), maps[:-1])
        raw = jnp.einsum("g,g...->...", alphas, units, precision="highest")
        return raw, alphas, live.sum(dtype=jnp.int32)

    weighted = tapped.activations.astype(jnp.float32) * weights.reshape(
        weights.shape[0], *[1] * (images.ndim - 2), n_channels
    )
    rows = dict(image=images, blurred=ops.blur(images), weighted=weighted, label=tapped.labels)
    raw, alphas, passes = jax.lax.map(one_image, rows)
    return _tap.to_saliency(raw, jnp.repeat(alphas, size, axis=1)[:, :n_channels], tapped, space, passes=1 + passes)


def _group_maps(weighted: Float[Array, "*grid c"], size: int, percentile: Float[Array, ""]) -> Float[Array, "g *grid"]:
    """D(ReLU(Σ_k∈g α_k A_k)) of each group of `size` neighbouring channels; the last group can have fewer."""
    groups = -(-weighted.shape[-1] // size)
    padded = jnp.pad(weighted, [(0, 0)] * (weighted.ndim - 1) + [(0, groups * size - weighted.shape[-1])])
    summed = padded.reshape(*weighted.shape[:-1], groups, size).sum(-1)
    maps = jax.nn.relu(jnp.moveaxis(summed, -1, 0))
    # Of each group's own map: groups with small values keep their peaks too.
    least = jnp.percentile(maps, percentile, axis=tuple(range(1, maps.ndim)), keepdims=True)
    return jnp.where(maps > least, maps, 0.0)


def _unit_at_full_size(layer_map: Float[Array, "*grid"], *, space: tuple[int, ...]) -> Float[Array, "*grid"]:
    """The map that U takes to s(U(D)), at the layer's resolution.

    U is linear and keeps constants, so s(U(D)) = U((D − min U(D)) / range of U(D)). The sum over the groups therefore
    needs no full resolution.
    """
    enlarged = ops.resize(layer_map[None], space)
    span = ops.value_range(enlarged)[0]
    return (layer_map - enlarged.min()) * jnp.where(span == 0, 0.0, 1 / jnp.where(span == 0, 1.0, span))
