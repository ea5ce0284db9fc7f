"""Does a map show what the network uses? The confidence in the class when the image is multiplied by the map.

Maps are [m, b, *space]: m methods on the same b images. A metric returns one value per method and image [m, b]. If
higher is better, a map that is zero everywhere scores 0, whatever the network returns for an empty image. If lower is
better, it gets the value of the formula.
"""

import functools
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sscam_jax._support import choose
from sscam_jax.metrics._passes import check_fit, empty, logits_of, probability, ranks
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Apply, Params

MaskSpace = Literal["normalised", "pixel"]
Keep = Literal["soft", "top50"]
Protocol = Literal["paper", "authors"]

# Two passes on equal inputs may differ by rounding. A smaller relative difference is not an increase.
_ROUNDING = 1e-5


class Confidence(NamedTuple):
    """The confidence of the network in the image, and in what each map shows of it.

    Attributes:
        before: the confidence in the image [b].
        after: the confidence in the masked image [m, b].
        empty: whether the map is zero everywhere [m, b].
    """

    before: Float[Array, " b"]
    after: Float[Array, "m b"]
    empty: Bool[Array, "m b"]


def _of_colours(values: tuple[float, ...], images: Float[Array, "... c"], name: str) -> Float[Array, "... c"]:
    if len(values) != images.shape[-1]:
        raise ValueError(f"{name} has {len(values)} values, expected {images.shape[-1]}: one per channel")
    return jnp.asarray(values, images.dtype).reshape(*[1] * (images.ndim - 1), -1)


def explained_inputs(
    images: Float[Array, "b *space c"],
    maps: Float[Array, "m b *space"],
    *,
    mask_space: MaskSpace = "normalised",
    keep: Keep = "soft",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Float[Array, "m b *space c"]:
    """Multiply each image by its maps: M ⊙ X, the part of the image that the map shows.

    Args:
        images: b images as the network takes them.
        maps: m maps per image, in [0, 1].
        mask_space: "normalised" multiplies the normalised image, so hidden pixels have the mean colour. "pixel"
            multiplies before normalisation, so hidden pixels are black.
        keep: "soft" multiplies by the map. "top50" multiplies by 1 on the most important half of the pixels and by 0
            elsewhere. Ties break in row-major order. With both, an empty map hides the whole image.
        mean: the mean that was subtracted from each channel. Only "pixel" needs it.
        std: the standard deviation that each channel was divided by. Only "pixel" needs it.

    Returns:
        The masked images [m, b, *space, c].

    Raises:
        ValueError: a choice is not known, or `maps`, `mean` or `std` do not fit the images.

    Example:
        >>> explained_inputs(jnp.ones((1, 1, 2, 3)), jnp.array([[[[0.5, 1.0]]]]))[0, 0, 0, :, 0].tolist()
        [0.5, 1.0]
    """
    choose("mask_space", mask_space, get_args(MaskSpace))
    choose("keep", keep, get_args(Keep))
    check_fit(images, maps)
    if keep == "top50":
        # By rank, not by the median's value: then it is half of the pixels whatever the number of ties.
        half = ranks(maps) < maps[0, 0].size // 2
        maps = jnp.where(half & ~empty(maps).reshape(*maps.shape[:2], *[1] * (maps.ndim - 2)), 1.0, 0.0)
    shown = maps[..., None].astype(images.dtype) * images[None]
    if mask_space == "pixel":
        # This is (M (X std + mean) − mean) / std, rearranged so that M = 1 returns X exactly.
        black = _of_colours(mean, shown, "mean") / _of_colours(std, shown, "std")
        shown = shown - (1 - maps[..., None].astype(images.dtype)) * black
    return shown


def _binary_pictures(
    images: Float[Array, "b *space c"],
    maps: Float[Array, "m b *space"],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Float[Array, "m b *space c"]:
    """Turn each map into a normalised black-and-white picture: white where its 8-bit value is above 50."""
    # 50 of 255, strictly above, on the 8-bit picture that the notebooks save before they read it again.
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
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    chunk_size: int | None = None,
) -> Confidence:
    """Measure the confidence of the network in each image and in what each map shows of it.

    `average_drop`, `average_increase` and `average_gain` are computed from the result. The network runs once per image
    and once per map, in chunks.

    Args:
        apply: the network; static.
        params: its parameters.
        images: b images as the network takes them.
        labels: the class whose probability is the confidence [b].
        maps: m maps per image, in [0, 1].
        mask_space: as in `explained_inputs`.
        keep: as in `explained_inputs`.
        protocol: "paper" measures the softmax probability of the class, for the image and for M ⊙ X. "authors" measures
            what the numbers in Table 1 of the SS-CAM paper are: the 8-bit map is thresholded at > 50, the network gets
            **the binary mask as a black-and-white picture** instead of the image, and the confidence is the largest
            logit of any class. `mask_space` and `keep` have no effect then. (The authors' notebooks store the map as a
            JPEG first. Its compression changes values near the threshold. This is not imitated.)
        mean: the mean that was subtracted from each channel.
        std: the standard deviation that each channel was divided by.
        chunk_size: the largest number of network inputs in memory. None chooses by device.

    Returns:
        The `Confidence`.

    Raises:
        ValueError: a choice is not known, or an argument does not fit the images.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images, maps = jnp.ones((1, 2, 2, 3)).at[..., 0].set(2.0), jnp.zeros((1, 1, 2, 2))
        >>> found = confidence(apply, (), images, jnp.array([0]), maps)
        >>> found.before.round(3).tolist(), found.after.round(3).tolist()
        ([0.57...], [[0.33...]])
    """
    choose("protocol", protocol, get_args(Protocol))
    check_fit(images, maps)
    m, b = maps.shape[:2]

    def inputs(chunk: Int[Array, " p"]) -> Float[Array, "p *space c"]:
        method, image = chunk // b, images[chunk % b]
        seen = maps[jnp.minimum(method, m - 1), chunk % b][None]
        if protocol == "authors":
            shown = _binary_pictures(image, seen, mean, std)[0]
        else:
            shown = explained_inputs(image, seen, mask_space=mask_space, keep=keep, mean=mean, std=std)[0]
        # The original images follow the methods in the same pass, so a map of ones gives exactly the same logits.
        return jnp.where((method == m).reshape(-1, *[1] * (image.ndim - 1)), image, shown)

    logits = logits_of(apply, params, inputs, (m + 1) * b, chunk_size).reshape(m + 1, b, -1)
    # The largest logit of any class, so before and after can be about two different classes: so the notebooks have it.
    found = logits.max(-1) if protocol == "authors" else probability(logits, labels)
    return Confidence(found[m], found[:m], empty(maps))


def average_drop(confidence: Confidence) -> Float[Array, "m b"]:
    """Average Drop: how much of the confidence is lost when the network sees only the explanation, in percent.

    100 max(0, Y − O) / Y, where Y is the confidence before and O the confidence after. In [0, 100]. Lower is better.
    The value is 0 if Y ≤ 0: a probability that underflows, or a negative logit in the authors' protocol. An empty map
    gets the drop of an empty image. The figure in papers is the mean over images.

    Args:
        confidence: the result of `confidence`.

    Returns:
        One percentage per method and image [m, b].

    Example:
        >>> average_drop(Confidence(jnp.array([0.5]), jnp.array([[0.25], [0.9]]), jnp.zeros((2, 1), bool))).tolist()
        [[50.0], [0.0]]

    References:
        Chattopadhyay et al., Grad-CAM++, WACV 2018; Naidu and Michael, SS-CAM (arXiv 2006.14255), Table 1.
    """
    before, after = confidence.before[None], confidence.after
    positive = before > 0  # both `where`s are needed: a division by 0 in the branch not taken makes a gradient NaN
    return jnp.where(positive, 100 * jnp.maximum(before - after, 0) / jnp.where(positive, before, 1.0), 0.0)


def average_increase(confidence: Confidence) -> Float[Array, "m b"]:
    """Average Increase: is the confidence higher when the network sees only the explanation?

    100 · 1[O > Y], where Y is the confidence before and O the confidence after: 0 or 100. Higher is better. A relative
    difference of up to 1e-5 counts as rounding. An empty map scores 0.

    Args:
        confidence: the result of `confidence`.

    Returns:
        0 or 100 per method and image [m, b]. The mean over images is the percentage of images.

    Example:
        >>> average_increase(Confidence(jnp.array([0.8]), jnp.array([[0.6], [0.9]]), jnp.zeros((2, 1), bool))).tolist()
        [[0.0], [100.0]]

    References:
        Chattopadhyay et al., Grad-CAM++, WACV 2018; Naidu and Michael, SS-CAM (arXiv 2006.14255), Table 1.
    """
    before, after = confidence.before[None], confidence.after
    return jnp.where((after - before > _ROUNDING * jnp.abs(before)) & ~confidence.empty, 100.0, 0.0)


def average_gain(confidence: Confidence) -> Float[Array, "m b"]:
    """Average Gain: how much of the missing confidence does the explanation alone add, in percent?

    100 max(0, O − Y) / (1 − Y), where Y is the probability before and O the probability after. In [0, 100]. Higher is
    better. The value is 0 if Y = 1. An empty map scores 0.

    Args:
        confidence: the result of `confidence` with the protocol "paper", because the formula needs probabilities.

    Returns:
        One percentage per method and image [m, b].

    Example:
        >>> average_gain(Confidence(jnp.array([0.5]), jnp.array([[0.75]]), jnp.zeros((1, 1), bool))).tolist()
        [[50.0]]

    References:
        Zhang et al., Opti-CAM: Optimizing saliency maps for interpretability (arXiv 2301.07002).
    """
    before, after = confidence.before[None], confidence.after
    missing = (before < 1) & ~confidence.empty
    return jnp.where(missing, 100 * jnp.maximum(after - before, 0) / jnp.where(missing, 1 - before, 1.0), 0.0)
