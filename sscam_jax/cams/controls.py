"""Control maps, which explain nothing or nearly nothing. They show what value a metric gives to such maps.

They have the signature of every method, so that every table can have them beside the methods. If a control wins on a
metric, the metric is no evidence for a method. `uniform_map`, `gaussian_map` and `fake_cam` depend on shapes only, not
on the network or the image. `maps` is drawn at the input's resolution and `raw` at the target layer's. Their weights
are 0, and `flat` is true only where `maps` is zero.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from sscam_jax.cams import _tap
from sscam_jax.cams._tap import Labels
from sscam_jax.types import Apply, Params, Saliency

# The Gaussian's standard deviation as a share of each side: the image spans ±2 σ.
_SIGMA = 0.25

# The next three depend on shapes only. NumPy draws them, once per compilation, because XLA would take seconds to fold
# such constants.


def _gaussian(shape: tuple[int, ...]) -> Float[np.ndarray, "*space"]:
    # Odd integers around 0 are exactly symmetric in floating point; i − (side − 1)/2 divided by σ need not be.
    offsets = [(2 * np.arange(side) + 1 - side) / (2 * side * _SIGMA) for side in shape]
    heights = np.exp(-0.5 * sum(offset**2 for offset in np.ix_(*offsets)))
    span = np.ptp(heights)  # 0 on a grid of one position
    return ((heights - heights.min()) / (span if span else 1.0)).astype(np.float32)


def _all_but_a_corner(shape: tuple[int, ...]) -> Float[np.ndarray, "*space"]:
    ones = np.ones(shape, np.float32)
    ones[(0,) * len(shape)] = 0
    return ones


def _ones(shape: tuple[int, ...]) -> Float[np.ndarray, "*space"]:
    return np.ones(shape, np.float32)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _drawn(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    draw: Callable[[tuple[int, ...]], np.ndarray],
) -> Saliency:
    """The same map for every image. The network runs only because `Saliency` has its logits."""
    tapped = _tap.tap(apply, params, images, labels)
    n_images, *grid, channels = tapped.activations.shape
    one, raw = draw(images.shape[1:-1]), draw(tuple(grid))
    return Saliency(
        maps=jnp.broadcast_to(one, (n_images, *one.shape)),
        raw=jnp.broadcast_to(raw, (n_images, *raw.shape)),
        weights=jnp.zeros((n_images, channels), jnp.float32),
        logits=tapped.logits,
        flat=jnp.full(n_images, not one.any()),
        passes=jnp.ones(n_images, jnp.int32),
    )


def uniform_map(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """Control: 1 everywhere.

    It is the only constant map that is not marked `flat`, because it is constant on purpose. It hides nothing of the
    image, and its energy in a box is the box's share of the area.

    Args:
        apply: the network; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; checked, but they change nothing.

    Returns:
        `Saliency`; `maps` are 1.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> uniform_map(apply, jnp.eye(2), jnp.zeros((1, 2, 2, 2)), [0]).maps[0].tolist()
        [[1.0, 1.0], [1.0, 1.0]]

    References:
        Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021,
        whose FakeCAM is this map except for one pixel.
    """
    return _drawn(apply, params, images, _tap.checked(apply, params, images, labels), _ones)


def gaussian_map(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None
) -> Saliency:
    """Control: a Gaussian at the centre of the image, where photographs tend to show their object.

    unit(exp(−½ Σ_axes ((p − ½ side) / (¼ side))²)). The standard deviation is a quarter of each side.

    Args:
        apply: the network; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; checked, but they change nothing.

    Returns:
        `Saliency`, the same map for every image.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> gaussian_map(apply, jnp.eye(2), jnp.zeros((1, 3, 2, 2)), [0]).maps[0].tolist()
        [[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]

    References:
        Judd et al., Learning to Predict Where Humans Look, ICCV 2009, on the centre as a baseline.
    """
    return _drawn(apply, params, images, _tap.checked(apply, params, images, labels), _gaussian)


def fake_cam(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """Control: FakeCAM, which is 1 everywhere except for one pixel in the corner.

    It says nothing about the class, and hides nearly nothing, so its Average Drop is nearly 0.

    Args:
        apply: the network; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; checked, but they change nothing.

    Returns:
        `Saliency`, the same map for every image: 0 at the first position along every axis, else 1.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> fake_cam(apply, jnp.eye(2), jnp.zeros((1, 2, 2, 2)), [0]).maps[0].tolist()
        [[0.0, 1.0], [1.0, 1.0]]

    References:
        Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021.
    """
    return _drawn(apply, params, images, _tap.checked(apply, params, images, labels), _all_but_a_corner)


def random_map(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    key: Key[Array, ""],
    ids: Int[Array, " b"] | None = None,
) -> Saliency:
    """Control: noise at the target layer's resolution, resized to the input like every map.

    unit(U(R)), where the values of R are independent and uniform in [0, 1). R depends on the key and the image's id
    only.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; checked, but they change nothing.
        key: a key of `jax.random.key`, of JAX's default kind.
        ids: one integer per image [b] that seeds its noise; None: its position in the batch.

    Returns:
        `Saliency`; `raw` is the noise, `weights` are 0.

    Raises:
        ValueError: the shapes or labels do not fit, or a key of kind rbg.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> saliency = random_map(apply, jnp.eye(2), jnp.zeros((1, 4, 4, 2)), [0], key=jax.random.key(0))
        >>> saliency.maps.min().item(), saliency.maps.max().item()
        (0.0, 1.0)

    References:
        Hooker et al., A Benchmark for Interpretability Methods in Deep Neural Networks, NeurIPS 2019.
    """
    _tap.check_key(key)
    ids = _tap.checked_ids(ids, images)
    return _random_map(apply, params, images, _tap.checked(apply, params, images, labels), key, ids)


@functools.partial(jax.jit, static_argnums=0)
def _random_map(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    key: Key[Array, ""],
    ids: Int[Array, " b"],
) -> Saliency:
    tapped = _tap.tap(apply, params, images, labels)
    n_images, *grid, channels = tapped.activations.shape
    own = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, ids)
    # On the grid of the layer, not of the image: noise as smooth as the maps that it is compared with.
    raw = jax.vmap(lambda one: jax.random.uniform(one, tuple(grid), jnp.float32))(own)
    return _tap.to_saliency(raw, jnp.zeros((n_images, channels), jnp.float32), tapped, images.shape[1:-1])


def mean_activation(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None
) -> Saliency:
    """Control: the mean of the activations over the channels. It does not depend on the class.

    L = ReLU(1/c Σ_k A_k). It shows where the layer is active, not which class that supports.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; checked, but they change nothing.

    Returns:
        `Saliency`; every weight is 1/c.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1].set(3.0)
        >>> mean_activation(apply, jnp.eye(2), images, [0]).maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017, on activation-based attention.
    """
    return _mean_activation(apply, params, images, _tap.checked(apply, params, images, labels))


@functools.partial(jax.jit, static_argnums=0)
def _mean_activation(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Int[Array, " b"] | None
) -> Saliency:
    tapped = _tap.tap(apply, params, images, labels)
    n_images, channels = tapped.activations.shape[0], tapped.activations.shape[-1]
    # As a method of equal weights it goes through the same sum, resizing and ReLU as every other.
    weights = jnp.full((n_images, channels), 1 / channels, jnp.float32)
    raw = _tap.weighted_sum(weights, tapped.activations)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])
