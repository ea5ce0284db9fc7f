"""Whether a map shows what the network uses: the class's confidence when the image is seen through the map.

Maps are [m, b, *space], m methods of the same b images; a metric gives one value a method and image [m, b]. A map that
is zero everywhere has nothing to say: where higher is better it scores 0, whatever the network answers to an empty
image; where lower is better it gets the value that comes out.
"""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sscam_jax.metrics._passes import check_fit, empty, logits_of, probability, ranks
from sscam_jax.types import Apply, Params

MaskSpace = Literal["normalised", "pixel"]
Keep = Literal["soft", "top50"]
Protocol = Literal["paper", "authors"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Two passes over equal inputs may differ by rounding: that is no increase.
_ROUNDING = 1e-5


class Confidence(NamedTuple):
    """The network's confidence before and after each image is replaced by what its maps show of it.

    Attributes:
        before: of the image [b].
        after: of what each map shows [m, b].
        empty: the map is zero everywhere.
    """

    before: Float[Array, " b"]
    after: Float[Array, "m b"]
    empty: Bool[Array, "m b"]


def _choice(name: str, value: str, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is not known; choose from {', '.join(map(repr, get_args(choices)))}")


def _of_colours(values: tuple[float, ...], images: Float[Array, "... c"], name: str) -> Float[Array, "... c"]:
    if len(values) != images.shape[-1]:
        raise ValueError(f"{name} has {len(values)} values, expected {images.shape[-1]}: one for each channel")
    return jnp.asarray(values, images.dtype).reshape(*[1] * (images.ndim - 1), -1)


def explained_inputs(
    images: Float[Array, "b *space c"],
    maps: Float[Array, "m b *space"],
    *,
    mask_space: MaskSpace = "normalised",
    keep: Keep = "soft",
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> Float[Array, "m b *space c"]:
    """What each map shows of its image: M ⊙ X.

    Args:
        images: b images as the network takes them.
        maps: m maps of each, in [0, 1].
        mask_space: "normalised" multiplies the image as the network takes it, so that what is hidden has the mean
            colour; "pixel" multiplies before normalisation, so that it is black.
        keep: "soft" multiplies by the map; "top50" by 1 on the half of the pixels that are most important and 0
            elsewhere, ties in favour of the earlier pixel; an empty map shows nothing either way.
        mean: the mean that was subtracted from each channel; "pixel" reads it.
        std: the standard deviation that each channel was then divided by.

    Returns:
        The inputs [m, b, *space, c].

    Raises:
        ValueError: an unknown choice, or maps, mean or std that do not fit the images.

    Example:
        >>> explained_inputs(jnp.ones((1, 1, 2, 3)), jnp.array([[[[0.5, 1.0]]]]))[0, 0, 0, :, 0].tolist()
        [0.5, 1.0]
    """
    _choice("mask_space", mask_space, MaskSpace)
    _choice("keep", keep, Keep)
    check_fit(images, maps)
    if keep == "top50":
        half = ranks(maps) < maps[0, 0].size // 2
        maps = jnp.where(half & ~empty(maps).reshape(*maps.shape[:2], *[1] * (maps.ndim - 2)), 1.0, 0.0)
    shown = maps[..., None].astype(images.dtype) * images[None]
    if mask_space == "pixel":
        # (M (X std + mean) − mean) / std, without the rounding of going there and back.
        black = _of_colours(mean, shown, "mean") / _of_colours(std, shown, "std")
        shown = shown - (1 - maps[..., None].astype(images.dtype)) * black
    return shown


def _binary_pictures(
    images: Float[Array, "b *space c"],
    maps: Float[Array, "m b *space"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "m b *space c"]:
    """Each map itself as a black-and-white picture, normalised: white where its 8-bit value is over 50."""
    white = jnp.round(255 * maps) > 50
    shape = (*maps.shape, images.shape[-1])
    pictures = jnp.broadcast_to(white[..., None], shape).astype(images.dtype)
    return (pictures - _of_colours(mean, pictures, "mean")) / _of_colours(std, pictures, "std")


@functools.partial(jax.jit, static_argnames=("apply", "mask_space", "keep", "protocol", "mean", "std", "chunk_size"))
def confidence(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    maps: Float[Array, "m b *space"],
    *,
    mask_space: MaskSpace = "normalised",
    keep: Keep = "soft",
    protocol: Protocol = "paper",
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
    chunk_size: int | None = None,
) -> Confidence:
    """Confidence of the network before and after: what average drop, increase and gain are made of.

    One pass over the images and over what every map shows of them, in chunks.

    Args:
        apply: the network; static.
        params: its parameters.
        images: b images as the network takes them.
        labels: the class whose probability is the confidence [b].
        maps: m maps of each image, in [0, 1].
        mask_space: as in `explained_inputs`.
        keep: as in `explained_inputs`.
        protocol: "paper": the class's softmax probability, of the image and of M ⊙ X. "authors", to show what the
            numbers of the paper's Table 1 measured: the map in 8 bits is thresholded at > 50/255, and **the binary
            mask itself, as a black-and-white picture,** is given to the network in place of the image; the confidence
            is the largest logit of any class, `mask_space` and `keep` are not read. (The authors' notebooks write the
            map as a JPEG; its compression, which moves values near the threshold, is not imitated.)
        mean: the mean that was subtracted from each channel.
        std: the standard deviation that each channel was then divided by.
        chunk_size: network inputs held at once; None: what suits the device.

    Returns:
        The `Confidence`.

    Raises:
        ValueError: an unknown choice, or arguments that do not fit the images.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images, maps = jnp.ones((1, 2, 2, 3)).at[..., 0].set(2.0), jnp.zeros((1, 1, 2, 2))
        >>> found = confidence(apply, (), images, jnp.array([0]), maps)
        >>> found.before.round(3).tolist(), found.after.round(3).tolist()
        ([0.57...], [[0.33...]])
    """
    _choice("protocol", protocol, Protocol)
    check_fit(images, maps)
    m, b = maps.shape[:2]

    def inputs(chunk: Int[Array, " p"]) -> Float[Array, "p *space c"]:
        method, image = chunk // b, images[chunk % b]
        seen = maps[jnp.minimum(method, m - 1), chunk % b][None]
        if protocol == "authors":
            shown = _binary_pictures(image, seen, mean, std)[0]
        else:
            shown = explained_inputs(image, seen, mask_space=mask_space, keep=keep, mean=mean, std=std)[0]
        # After the methods come the images as they are: in the same pass, so that a map of ones changes nothing.
        return jnp.where((method == m).reshape(-1, *[1] * (image.ndim - 1)), image, shown)

    logits = logits_of(apply, params, inputs, (m + 1) * b, chunk_size).reshape(m + 1, b, -1)
    found = logits.max(-1) if protocol == "authors" else probability(logits, labels)
    return Confidence(found[m], found[:m], empty(maps))


def average_drop(confidence: Confidence) -> Float[Array, "m b"]:
    """Average Drop: the share of the confidence that is lost when only the explanation is seen, in percent.

    100 max(0, Y − O) / Y with Y before and O after, in [0, 100]; lower is better. Where Y ≤ 0 (a probability that
    underflows, or a negative logit of the authors' protocol) nothing can be lost: 0. An empty map is not excused: it
    has the drop of an empty image. The mean over images is the paper's figure.

    Args:
        confidence: what `confidence` found.

    Returns:
        One percentage a method and image [m, b].

    Example:
        >>> average_drop(Confidence(jnp.array([0.5]), jnp.array([[0.25], [0.9]]), jnp.zeros((2, 1), bool))).tolist()
        [[50.0], [0.0]]

    References:
        Chattopadhyay et al., Grad-CAM++, WACV 2018; Naidu and Michael, SS-CAM (arXiv 2006.14255), Table 1.
    """
    before, after = confidence.before[None], confidence.after
    positive = before > 0
    return jnp.where(positive, 100 * jnp.maximum(before - after, 0) / jnp.where(positive, before, 1.0), 0.0)


def average_increase(confidence: Confidence) -> Float[Array, "m b"]:
    """Average Increase in confidence: whether the explanation alone makes the network surer, in percent.

    100 · 1[Y < O] with Y before and O after: 0 or 100; higher is better. Strict, and by more than a relative 1e-5,
    which is rounding. An empty map scores 0.

    Args:
        confidence: what `confidence` found.

    Returns:
        0 or 100 for each method and image [m, b]; the mean over images is the percentage of images.

    Example:
        >>> average_increase(Confidence(jnp.array([0.8]), jnp.array([[0.6], [0.9]]), jnp.zeros((2, 1), bool))).tolist()
        [[0.0], [100.0]]

    References:
        Chattopadhyay et al., Grad-CAM++, WACV 2018; Naidu and Michael, SS-CAM (arXiv 2006.14255), Table 1.
    """
    before, after = confidence.before[None], confidence.after
    return jnp.where((after - before > _ROUNDING * jnp.abs(before)) & ~confidence.empty, 100.0, 0.0)


def average_gain(confidence: Confidence) -> Float[Array, "m b"]:
    """Average Gain: the share of the missing confidence that the explanation alone adds, in percent.

    100 max(0, O − Y) / (1 − Y) with probabilities Y before and O after, in [0, 100]; higher is better. Where Y = 1
    nothing is missing: 0. An empty map scores 0.

    Args:
        confidence: what `confidence` found, in probabilities: not by the authors' protocol.

    Returns:
        One percentage a method and image [m, b].

    Example:
        >>> average_gain(Confidence(jnp.array([0.5]), jnp.array([[0.75]]), jnp.zeros((1, 1), bool))).tolist()
        [[50.0]]

    References:
        Zhang et al., Opti-CAM: Optimizing saliency maps for interpretability (arXiv 2301.07002).
    """
    before, after = confidence.before[None], confidence.after
    missing = (before < 1) & ~confidence.empty
    return jnp.where(missing, 100 * jnp.maximum(after - before, 0) / jnp.where(missing, 1 - before, 1.0), 0.0)
