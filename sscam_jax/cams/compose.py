"""Functions over methods: several layers' maps as one, and a map smoothed over changed images.

`functools.partial(over_layers, grad_cam, layers=...)` has the signature of every method.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sscam_jax import ops
from sscam_jax._support import choose
from sscam_jax.cams import _tap
from sscam_jax.cams._tap import Labels
from sscam_jax.types import Apply, Params, Saliency

Fusion = Literal["max", "mean"]


def over_layers(
    method: Callable[..., Saliency],
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    layers: Sequence[Apply],
    fusion: Fusion = "max",
    **options: Any,
) -> Saliency:
    """One method's maps at several layers, as one: their maximum or mean, brought to [0, 1] again.

    L = s(max_l L_l) or s(1/n Σ_l L_l), L_l the method's `maps` at layer l. (LayerCAM's own fusion scales maps by a
    tanh before the maximum, as torchcam's does; this does not.)

    Args:
        method: any method.
        apply: the network, cut at the first layer.
        params: its parameters, which all cuts share.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        layers: the same network, cut at the other layers.
        fusion: "max" or "mean".
        options: the method's own.

    Returns:
        `Saliency`; `raw` is the fused map at the input's resolution, before s(·), `weights` are those at the first
        layer, `passes` those of all layers.

    Raises:
        ValueError: an unknown fusion, or what the method raises.

    Example:
        >>> from sscam_jax.cams import layer_cam
        >>> def cut_at(scale):
        ...     return Apply(features=lambda params, x: (x[:, scale:], ()),
        ...                  head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 1, 1, 0].set(3.0)
        >>> over_layers(layer_cam, cut_at(0), jnp.eye(2), images, [0], layers=[cut_at(1)]).maps[0].tolist()
        [[0.0, 1.0], [0.0, 1.0]]

    References:
        Jiang et al., LayerCAM, IEEE Transactions on Image Processing 2021, on joining layers by the maximum.
    """
    choose("fusion", fusion, get_args(Fusion))
    found = [method(cut, params, images, labels, **options) for cut in (apply, *layers)]
    maps = jnp.stack([saliency.maps for saliency in found])
    raw = maps.max(0) if fusion == "max" else maps.mean(0)
    return _fused(found[0], raw, jnp.stack([saliency.passes for saliency in found]).sum(0, dtype=jnp.int32))


def over_augmentations(
    method: Callable[..., Saliency],
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    factors: Sequence[float] = (0.9, 1.0, 1.1),
    flip: int | None = -1,
    **options: Any,
) -> Saliency:
    """A method's map smoothed by test-time augmentation: the mean over mirrored and scaled images, mirrored back.

    L = s(1/n Σ_T T⁻¹ L(T(X))), T each factor times the image, as it is and mirrored; L is the method's `maps`. The
    class explained is that of the image as it is.

    Args:
        method: any method.
        apply: the network, cut at the target layer.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        factors: what the images are multiplied by.
        flip: the spatial axis along which they are mirrored, the last by default; None: none.
        options: the method's own.

    Returns:
        `Saliency`; `raw` is the mean at the input's resolution, before s(·), `weights` are the mean weights, `passes`
        those of all augmentations and one more.

    Raises:
        ValueError: no factors, a spatial axis that the images lack, or what the method raises.

    Example:
        >>> from sscam_jax.cams import grad_cam
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> over_augmentations(grad_cam, apply, jnp.eye(2), images, [0]).maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Gildenblat and contributors, pytorch-grad-cam 1.5.7, `aug_smooth`.
    """
    checked, rank = _tap.checked(apply, params, images, labels), images.ndim - 2
    if not factors:
        raise ValueError("factors is empty, expected at least one factor to multiply the images by")
    if flip is not None and not -rank <= flip < rank:
        raise ValueError(
            f"flip={flip} is not a spatial axis of images of shape {images.shape}; choose from 0 to {rank - 1}"
        )
    logits, predicted = _predicted(apply, params, images)
    classes = predicted if checked is None else checked
    axis = None if flip is None else 1 + flip % rank

    found = []
    for mirrored in (False,) if axis is None else (False, True):
        for factor in factors:
            changed = images * jnp.asarray(factor, images.dtype)
            saliency = method(apply, params, jnp.flip(changed, axis) if mirrored else changed, classes, **options)
            found.append(saliency._replace(maps=jnp.flip(saliency.maps, axis)) if mirrored else saliency)
    mean = jax.tree.map(lambda *leaves: jnp.stack(leaves).mean(0), *[(each.maps, each.weights) for each in found])
    passes = 1 + jnp.stack([saliency.passes for saliency in found]).sum(0, dtype=jnp.int32)
    return _fused(found[0]._replace(logits=logits, weights=mean[1]), mean[0], passes)


@functools.partial(jax.jit, static_argnums=0)
def _predicted(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"]
) -> tuple[Float[Array, "b n"], Int[Array, " b"]]:
    tapped = _tap.tap(apply, params, images, None)
    return tapped.logits, tapped.labels


def _fused(saliency: Saliency, raw: Float[Array, "b *space"], passes: Int[Array, " b"]) -> Saliency:
    return saliency._replace(maps=ops.unit(raw), raw=raw, flat=ops.value_range(raw) == 0, passes=passes)
