"""Control maps: what a metric gives to maps that explain nothing, or hardly anything.

They have the signature of every method, so that they can stand in every table beside the methods: a metric that one of
them wins is no evidence. `uniform_map`, `gaussian_map` and `fake_cam` look neither at the network nor at the image;
they are drawn at the input's resolution, and `raw` is the same drawn at the target layer's. Their weights are 0, and
`flat` is true only where `maps` is zero.
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

# The Gaussian's standard deviation as a share of each side: ±2 σ is the image.
_SIGMA = 0.25


# They depend on shapes alone, so NumPy draws them, once a compilation: XLA takes seconds to fold such constants.


def _gaussian(shape: tuple[int, ...]) -> Float[np.ndarray, "*space"]:
    # Odd numbers about 0: exactly as far on one side as on the other.
    offsets = [(2 * np.arange(side) + 1 - side) / (2 * side * _SIGMA) for side in shape]
    heights = np.exp(-0.5 * sum(offset**2 for offset in np.ix_(*offsets)))
    span = np.ptp(heights)
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
    """The same map for every image; the network is run for its logits only."""
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
    """Control: the same everywhere, 1.

    The one constant map that is not `flat`, for it is meant: it keeps the whole image, and its energy in a box is the
    box's share of the area.

    Args:
        apply: the network; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; they change nothing.

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
        whose FakeCAM is this map but for one pixel.
    """
    return _drawn(apply, params, images, _tap.checked(apply, params, images, labels), _ones)


def gaussian_map(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None
) -> Saliency:
    """Control: a Gaussian in the middle of the image, where photographers put what they photograph.

    unit(exp(−½ Σ_axes ((p − ½ side) / (¼ side))²)): the standard deviation is a quarter of each side.

    Args:
        apply: the network; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; they change nothing.

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
    """Control: FakeCAM, 1 everywhere but for one pixel in the corner.

    It says nothing about the class, and masks nothing: Average Drop is nearly 0.

    Args:
        apply: the network; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; they change nothing.

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
    """Control: noise, at the target layer's resolution, brought to the input's like every map.

    unit(U(R)) with R independent and uniform in [0, 1); it depends on the key and the image's id only.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; they change nothing.
        key: a key of `jax.random.key`, of JAX's default kind.
        ids: an integer an image [b] that its noise belongs to; None: its position in the batch.

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
    raw = jax.vmap(lambda one: jax.random.uniform(one, tuple(grid), jnp.float32))(own)
    return _tap.to_saliency(raw, jnp.zeros((n_images, channels), jnp.float32), tapped, images.shape[1:-1])


def mean_activation(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None
) -> Saliency:
    """Control: the plain mean of the activations, whatever the class.

    ReLU(1/c Σ_k A_k): what the network looks at, not why it answers as it does.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; they change nothing.

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
    weights = jnp.full((n_images, channels), 1 / channels, jnp.float32)
    raw = _tap.weighted_sum(weights, tapped.activations)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])
