"""Functions that take a method: the maps of several layers as one map, and a map averaged over changed images.

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
    """The maps of a method at several layers as one map: their maximum or mean, brought to [0, 1] again.

    L = s(max_l L_l) or s(1/n Σ_l L_l), where L_l are the method's `maps` at layer l. The fusion in LayerCAM's code and
    in torchcam scales the maps by a tanh before the maximum. This one does not.

    Args:
        method: any method.
        apply: the network, cut at the first layer.
        params: its parameters, which all cuts share.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        layers: the same network, cut at the other layers.
        fusion: "max" or "mean".
        options: keyword arguments of the method.

    Returns:
        `Saliency`; `raw` is the fused map at the input's resolution before s(·), `weights` are those at the first
        layer, and `passes` is the sum over the layers.

    Raises:
        ValueError: an unknown fusion, or an error of the method.

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
    # `maps`, not `raw`: activations of different layers have different scales, and `maps` are all in [0, 1].
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

    L = s(1/n Σ_T T⁻¹ L(T(X))), where L are the method's `maps`. T multiplies the image by one of the factors, and
    mirrors it or not. All maps explain the same class: the given one, or the one predicted for the unchanged image.

    Args:
        method: any method.
        apply: the network, cut at the target layer.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        factors: the numbers that the images are multiplied by.
        flip: the spatial axis along which they are mirrored, by default the last; None: they are not mirrored.
        options: keyword arguments of the method.

    Returns:
        `Saliency`; `raw` is the mean at the input's resolution before s(·), `weights` are the mean weights, and
        `passes` is the sum over the augmentations plus one.

    Raises:
        ValueError: there are no factors, the images do not have the axis `flip`, or an error of the method.

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
    # Predicted once, for the image as it is: a darker copy can have another class, and maps of two classes do not add.
    logits, predicted = _predicted(apply, params, images)
    classes = predicted if checked is None else checked
    axis = None if flip is None else 1 + flip % rank

    found = []
    for mirrored in (False,) if axis is None else (False, True):
        for factor in factors:
            changed = images * jnp.asarray(factor, images.dtype)
            saliency = method(apply, params, jnp.flip(changed, axis) if mirrored else changed, classes, **options)
            # A flip is its own inverse, and a factor moves no pixel: T⁻¹ is the flip again.
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
    # `flat` is judged again: the mean of maps that vary can be constant.
    return saliency._replace(maps=ops.unit(raw), raw=raw, flat=ops.value_range(raw) == 0, passes=passes)
