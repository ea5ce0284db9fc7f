"""The CAMs of one backward pass through the head."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sscam_jax.cams import _tap
from sscam_jax.cams._tap import Labels, Tapped
from sscam_jax.types import Apply, Params, Saliency


def _spatial(activations: Float[Array, "b *grid c"]) -> tuple[int, ...]:
    return tuple(range(1, activations.ndim - 1))


def grad_cam_weights(apply: Apply, params: Params, tapped: Tapped) -> Float[Array, "b c"]:
    """α_k^c = GAP(∂Y^c/∂A_k), Eq. 4 of SS-CAM's paper."""
    gradients = _tap.logit_gradients(apply, params, tapped)
    return gradients.mean(_spatial(gradients))


Combine = Callable[[Float[Array, "b *grid c"], Float[Array, "b *grid c"]], tuple[Array, Array]]
"""(A, ∂Y^c/∂A) -> (raw map [b, *grid], weights [b, c])."""


@functools.partial(jax.jit, static_argnums=(0, 4))
def from_gradients(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    combine: Combine,
) -> Saliency:
    """Run a method that needs the activations and their gradients only."""
    tapped = _tap.tap(apply, params, images, labels)
    gradients = _tap.logit_gradients(apply, params, tapped)
    raw, weights = combine(tapped.activations.astype(jnp.float32), gradients)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])


def grad_cam(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """Grad-CAM: the activations weighted by the mean gradient of the class's logit.

    L^c = ReLU(Σ_k α_k^c A_k) with α_k^c = GAP(∂Y^c/∂A_k), Eq. 3-4 of SS-CAM's paper.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.

    Returns:
        `Saliency`; `weights` are α^c, in logits per unit of activation.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> grad_cam(apply, jnp.eye(2), images, [0]).weights.tolist()
        [[0.25, 0.0]]

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017 (arXiv 1610.02391).
    """
    return from_gradients(apply, params, images, _tap.checked(apply, params, images, labels), _grad)


def _grad(activations: Float[Array, "b *grid c"], gradients: Float[Array, "b *grid c"]) -> tuple[Array, Array]:
    weights = gradients.mean(_spatial(gradients))  # the paper's 1/Z Σ_ij; libraries that sum differ by the factor Z
    return _tap.weighted_sum(weights, activations), weights


def grad_cam_pp(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """Grad-CAM++: positive gradients weighted pixel by pixel, so that every instance of the class counts.

    L^c = ReLU(Σ_k w_k^c A_k) with w_k^c = Σ_ij a_ij ReLU(g_ij), a_ij = g_ij² / (2 g_ij² + (Σ_ab A_ab) g_ij³) and
    g = ∂Y^c/∂A_k. In the paper the class's score is exp(Y^c). Its derivatives are exp(Y^c) times these powers of g, and
    the common factor cancels in the map. A position with g = 0 has a = 0. The authors' released code also divides a by
    its sum over the positions; the paper does not.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.

    Returns:
        `Saliency`; `weights` are w^c.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(4.0)
        >>> grad_cam_pp(apply, jnp.eye(2), images, [0]).weights.tolist()
        [[0.333..., 0.0]]

    References:
        Chattopadhyay et al., Grad-CAM++, WACV 2018 (arXiv 1710.11063), Eq. 19.
    """
    return from_gradients(apply, params, images, _tap.checked(apply, params, images, labels), _grad_pp)


def _grad_pp(activations: Float[Array, "b *grid c"], gradients: Float[Array, "b *grid c"]) -> tuple[Array, Array]:
    space = _spatial(activations)
    # Numerator and denominator share g². It is divided out, because tiny gradients squared would underflow to 0 / 0.
    denominator = 2 + activations.sum(space, keepdims=True) * gradients
    a = jnp.where((gradients == 0) | (denominator == 0), 0.0, 1 / jnp.where(denominator == 0, 1.0, denominator))
    weights = (a * jax.nn.relu(gradients)).sum(space)
    return _tap.weighted_sum(weights, activations), weights


def xgrad_cam(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """XGrad-CAM: Grad-CAM with gradients averaged over positions in proportion to the activations.

    L^c = ReLU(Σ_k w_k^c A_k) with w_k^c = Σ_ij (A_k^ij / Σ_ab A_k^ab) ∂Y^c/∂A_k^ij. If the activations of a channel sum
    to 0, its weight is 0.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.

    Returns:
        `Saliency`; `weights` are w^c.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> xgrad_cam(apply, jnp.eye(2), images, [0]).weights.tolist()
        [[0.25, 0.0]]

    References:
        Fu et al., Axiom-based Grad-CAM, BMVC 2020 (arXiv 2008.02312), Eq. 7-8.
    """
    return from_gradients(apply, params, images, _tap.checked(apply, params, images, labels), _xgrad)


def _xgrad(activations: Float[Array, "b *grid c"], gradients: Float[Array, "b *grid c"]) -> tuple[Array, Array]:
    # After a ReLU a sum of 0 means a dead channel. Without one it can cancel, and the quotient has no meaning either.
    total = activations.sum(_spatial(activations))
    product = (activations * gradients).sum(_spatial(activations))
    weights = jnp.where(total == 0, 0.0, product / jnp.where(total == 0, 1.0, total))
    return _tap.weighted_sum(weights, activations), weights


def hires_cam(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """HiResCAM: gradient times activation at every position, without averaging the gradients.

    L^c = ReLU(Σ_k ∂Y^c/∂A_k ⊙ A_k). The authors' code leaves the ReLU to its caller. If the head is affine, `raw` sums
    to Y^c minus the bias.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.

    Returns:
        `Saliency`; `weights` are 0, because every position has its own.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> hires_cam(apply, jnp.eye(2), images, [0]).raw[0].tolist()
        [[0.0, 0.75], [0.0, 0.0]]

    References:
        Draelos and Carin, Use HiResCAM instead of Grad-CAM (arXiv 2011.08891).
    """
    return from_gradients(apply, params, images, _tap.checked(apply, params, images, labels), _hires)


def _hires(activations: Float[Array, "b *grid c"], gradients: Float[Array, "b *grid c"]) -> tuple[Array, Array]:
    return (activations * gradients).sum(-1), _none(activations)


def layer_cam(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """LayerCAM: every activation weighted by its own positive gradient, which keeps the detail of early layers.

    L^c = ReLU(Σ_k ReLU(∂Y^c/∂A_k) ⊙ A_k). `over_layers` joins the maps of several layers.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.

    Returns:
        `Saliency`; `weights` are 0, because every position has its own.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1].set(3.0)
        >>> layer_cam(apply, jnp.array([[1.0, 0.0], [-2.0, 1.0]]), images, [0]).raw[0].tolist()
        [[0.0, 0.75], [0.0, 0.0]]

    References:
        Jiang et al., LayerCAM, IEEE Transactions on Image Processing 2021.
    """
    return from_gradients(apply, params, images, _tap.checked(apply, params, images, labels), _layer)


def _layer(activations: Float[Array, "b *grid c"], gradients: Float[Array, "b *grid c"]) -> tuple[Array, Array]:
    return (activations * jax.nn.relu(gradients)).sum(-1), _none(activations)


def _none(activations: Float[Array, "b *grid c"]) -> Float[Array, "b c"]:
    """The weights of a method that does not weigh whole channels: 0."""
    return jnp.zeros((activations.shape[0], activations.shape[-1]), jnp.float32)
