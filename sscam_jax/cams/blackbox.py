"""References that need no layer: RISE and occlusion, which use inputs and outputs of the network only."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from sscam_jax import ops
from sscam_jax.cams import _run, _scores, _tap
from sscam_jax.cams._scores import Engine, Work
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.presets import Score
from sscam_jax.types import Apply, Params, Saliency


def rise(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    key: Key[Array, ""],
    ids: Int[Array, " b"] | None = None,
    n_samples: int = 4000,
    cells: int = 7,
    keep: float | Float[Array, ""] = 0.5,
    score: Score = "probability",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Saliency:
    """RISE: the mean of random masks, each weighted by the class's score of the image under that mask.

    L^c = 1 / (p N) Σ_i f^c(X ⊙ M_i) M_i. A mask starts as a grid of s cells along each axis. Each
    cell is 1 with probability p, else 0. The grid is enlarged linearly to one cell more than the image, and cut to the
    image's size at a random offset within a cell. The mask of (image id, i) depends on the key and these two indices
    only. If all N scores are equal, the map is 0, because it would show the masks and nothing of the image.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        key: a key of `jax.random.key`, of JAX's default kind.
        ids: one integer per image [b] that seeds its masks; None: its position in the batch.
        n_samples: N; static.
        cells: s; static.
        keep: p, in (0, 1]; traced.
        score: f^c, "logit", "probability" (after the softmax), "log_probability", "sigmoid", or a function
            `(logits [n], label []) -> []`; static.
        chunk_size: network inputs scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's masks; None: where the arguments are. It changes the numbers by
            rounding only.

    Returns:
        `Saliency`; `raw` is L^c at the input's resolution, because there is no layer; `weights` are 0. `passes` is
        N + 1.

    Raises:
        ValueError: an unknown score, `n_samples` or `cells` < 1, shapes or labels that do not fit, or a key of kind
            rbg.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations[:, 1, 6] @ params)
        >>> images = jnp.ones((1, 8, 8, 2))
        >>> maps = rise(apply, jnp.eye(2), images, [0], key=jax.random.key(0), n_samples=200, score="logit").maps
        >>> (maps[0, 1, 6] > maps[0].mean()).item()
        True

    References:
        Petsiuk et al., RISE, BMVC 2018 (arXiv 1806.07421).
    """
    _tap.at_least_one(n_samples=n_samples, cells=cells)
    keep = _tap.scalar("keep", keep, 0.0, 1.0, lowest_too=False)
    labels = _tap.checked(apply, params, images, labels)
    traced = (_tap.image_keys(key, ids, images), keep)
    how = dict(chunk_size=chunk_size, devices=devices)
    return _run.run_scored(_rise, apply, params, images, labels, traced, (score, (n_samples, cells)), **how)


def _rise(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    traced: tuple[Key[Array, " b"], Float[Array, ""]],
    choices: tuple[Score, tuple[int, int]],
    engine: Engine,
) -> Saliency:
    (keys, keep), (score, (n_samples, cells)) = traced, choices
    tapped = _tap.tap(apply, params, images, labels)
    passing = _scores.suited(apply, params, engine)
    space = images.shape[1:-1]
    sides = tuple(-(-side // cells) for side in space)  # of a cell, in pixels

    def one_image(row: dict[str, Any]) -> Float[Array, "*space"]:
        # Masks are made again wherever they are needed: N masks of the image's size would not fit into memory.
        def mask(index: Int[Array, ""]) -> Float[Array, "*space"]:
            for_cells, for_offset = jax.random.split(jax.random.fold_in(row["key"], index))
            # A coarse grid, enlarged to one cell more than the image and cut at a random place: the mask is smooth, and
            # its cells lie everywhere.
            grid = jax.random.bernoulli(for_cells, keep, (cells,) * len(space)).astype(jnp.float32)
            offset = jax.random.randint(for_offset, (len(space),), 0, jnp.array(sides, jnp.int32), jnp.int32)
            enlarged = ops.resize(grid[None], tuple((cells + 1) * side for side in sides))[0]
            return jax.lax.dynamic_slice(enlarged, list(offset), space)

        def seen(index: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
            return _scores.times(row["image"], mask(index))

        work = Work(_scores.network_of(apply, passing), score, row["label"], engine)
        scores = _scores.scores(seen, work, jnp.ones(n_samples, bool))[:, 0]
        # A network that is blind to the masks says nothing about where, but a sum of random masks is never constant.
        scores = jnp.where(scores.max() == scores.min(), 0.0, scores)
        # The Monte Carlo estimate Σ f(X ⊙ M) M / (N E[M]), where E[M] is `keep`.
        return _scores.weighted_masks(scores / (n_samples * keep), mask, engine.chunk_size)

    raw = jax.lax.map(one_image, dict(image=images, label=tapped.labels, key=keys))
    passes = jnp.full(images.shape[0], 1 + n_samples, jnp.int32)
    return _tap.to_saliency(raw, _tap.no_weights(tapped), tapped, space, passes=passes)


def occlusion(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    window: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    score: Score = "probability",
    chunk_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Saliency:
    """Occlusion: what the class's score loses when a window of the image is hidden.

    L^c at a pixel is the mean of f^c(X) − f^c(X without w) over the windows w that cover the pixel. Hidden pixels are
    0, which is the mean colour for normalised images. Along each axis a window starts at every stride, and the last one
    ends with the image. Zeiler and Fergus map the score itself at the position of a grey square.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        window: the window's sides in pixels, one number for all axes or one per axis; None: a seventh of each side;
            static.
        stride: pixels between windows, one number or one per axis, at most the window's side; None: half of it; static.
        score: f^c, "logit", "probability" (after the softmax), "log_probability", "sigmoid", or a function
            `(logits [n], label []) -> []`; static.
        chunk_size: network inputs scored together on a device; None: what suits the device. When memory runs out, it
            is halved, with a warning, and remembered.
        devices: devices that share each image's windows; None: where the arguments are. It changes the numbers by
            rounding only.

    Returns:
        `Saliency`; `raw` is L^c, signed, at the input's resolution, because there is no layer; `weights` are 0.
        `passes` is the number of windows and 2.

    Raises:
        ValueError: an unknown score, a window that does not fit the image, a stride that leaves pixels out, or shapes
            or labels that do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 4, 4, 2)).at[0, 0, 1, 0].set(4.0)
        >>> occlusion(apply, jnp.eye(2), images, [0], window=2, stride=2, score="logit").raw[0].tolist()
        [[0.25, 0.25, 0.0, 0.0], [0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]

    References:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, on occlusion sensitivity.
    """
    checked = _tap.checked(apply, params, images, labels)
    space = images.shape[1:-1]
    windows = _per_axis("window", window, tuple(-(-side // 7) for side in space))
    strides = _per_axis("stride", stride, tuple(-(-side // 2) for side in windows))
    for side, wide, step in zip(space, windows, strides, strict=True):
        if not 1 <= step <= wide <= side:
            raise ValueError(
                f"window={windows} and stride={strides} do not fit images of {space}: expected "
                "1 ≤ stride ≤ window ≤ side along every axis"
            )
    how = dict(chunk_size=chunk_size, devices=devices)
    return _run.run_scored(_occlusion, apply, params, images, checked, (), (score, (windows, strides)), **how)


def _per_axis(name: str, given: int | tuple[int, ...] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    if given is None:
        return default
    values = (given,) * len(default) if isinstance(given, int) else tuple(given)
    if len(values) != len(default):
        raise ValueError(f"{name}={given} has {len(values)} axes, expected {len(default)}: one per spatial axis")
    return values


def _covered(side: int, window: int, stride: int) -> Bool[np.ndarray, "windows side"]:
    """Which pixels along one axis each window covers."""
    # The last window ends at the side's end, whatever the stride: without it the last pixels would have no value.
    starts = np.unique([*range(0, side - window, stride), side - window])[:, None]
    return (np.arange(side) >= starts) & (np.arange(side) < starts + window)


def _occlusion(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    traced: tuple[()],
    choices: tuple[Score, tuple[tuple[int, ...], tuple[int, ...]]],
    engine: Engine,
) -> Saliency:
    score, (windows, strides) = choices
    tapped = _tap.tap(apply, params, images, labels)
    passing = _scores.suited(apply, params, engine)
    space = images.shape[1:-1]
    covers = [_covered(*axis) for axis in zip(space, windows, strides, strict=True)]
    counts = tuple(len(cover) for cover in covers)
    n_windows = math.prod(counts)
    times_covered = functools.reduce(np.multiply.outer, [cover.sum(0) for cover in covers]).astype(np.float32)

    def hidden(index: Int[Array, ""]) -> Float[Array, "*space"]:
        """1 where the window covers the image. The last index stands for no window."""
        mask = jnp.float32(index < n_windows)
        for cover, at in zip(covers, jnp.unravel_index(index, counts), strict=True):
            mask = jnp.einsum("...,i->...i", mask, jnp.asarray(cover, jnp.float32)[at], precision="highest")
        return mask

    def one_image(row: dict[str, Any]) -> Float[Array, "*space"]:
        def without(index: Int[Array, ""], sample: Int[Array, ""]) -> Float[Array, "*space c_in"]:
            return _scores.times(row["image"], 1 - hidden(index))

        # The image as it is comes last. It runs in the same chunks as the others, so that equal inputs have equal
        # scores, and their difference is exactly 0.
        work = Work(_scores.network_of(apply, passing), score, row["label"], engine)
        scores = _scores.scores(without, work, jnp.ones(n_windows + 1, bool))[:, 0]
        return _scores.weighted_masks(scores[-1] - scores[:-1], hidden, engine.chunk_size) / times_covered

    raw = jax.lax.map(one_image, dict(image=images, label=tapped.labels))
    passes = jnp.full(images.shape[0], 2 + n_windows, jnp.int32)
    return _tap.to_saliency(raw, _tap.no_weights(tapped), tapped, space, passes=passes)
