"""Finer-CAM: what distinguishes a class from similar classes."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sscam_jax.cams import _tap
from sscam_jax.cams._tap import Labels
from sscam_jax.types import Apply, Params, Saliency


def finer_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    n_references: int = 3,
    gamma: float | Float[Array, ""] = 0.6,
) -> Saliency:
    """Finer-CAM: Grad-CAM of the class's logit minus the logits of the classes nearest to it.

    L^c = ReLU(Σ_k α_k A_k) with α_k = GAP(∂(Y^c − γ/T Σ_t Y^{d_t})/∂A_k). The references d_1 … d_T are the classes
    other than c whose logits are nearest to Y^c. γ = 0 is Grad-CAM. All references have the same weight, as in
    torchcam. The authors' code weights them by their probabilities.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        n_references: T; if there are fewer other classes, all of them; static.
        gamma: γ, the share of the references' mean that is subtracted; traced.

    Returns:
        `Saliency`; `weights` are α, in logits per unit of activation.

    Raises:
        ValueError: `n_references` < 1, a network of one class, or shapes or labels that do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1].set(4.0)
        >>> finer_cam(apply, jnp.eye(2), images, [0], gamma=1.0).weights.tolist()
        [[0.25, -0.25]]

    References:
        Zhang et al., Finer-CAM, CVPR 2025 (arXiv 2501.11309).
    """
    _tap.at_least_one(n_references=n_references)
    checked = _tap.checked(apply, params, images, labels)
    return _finer_cam(apply, params, images, checked, _tap.scalar("gamma", gamma), n_references)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _finer_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    gamma: Float[Array, ""],
    n_references: int,
) -> Saliency:
    tapped = _tap.tap(apply, params, images, labels)
    n_classes = tapped.logits.shape[1]
    if n_classes < 2:
        raise ValueError("this network has one class, and Finer-CAM needs another to compare it with; use grad_cam")
    own = jax.nn.one_hot(tapped.labels, n_classes, dtype=jnp.float32)
    # Nearest in the logit, above or below: for an explained class that is not the predicted one both occur.
    distance = jnp.abs(tapped.logits - (own * tapped.logits).sum(1, keepdims=True))
    n_references = min(n_references, n_classes - 1)
    # The class itself would be the nearest of all.
    _, nearest = jax.lax.top_k(-jnp.where(own == 1, jnp.inf, distance), n_references)
    references = jax.nn.one_hot(nearest, n_classes, dtype=jnp.float32).mean(1)
    # The difference is linear in the logits, so one backward pass with these shares gives its gradient.
    gradients = _tap.head_gradients(apply, params, tapped, own - gamma * references)
    weights = gradients.mean(tuple(range(1, gradients.ndim - 1)))
    raw = _tap.weighted_sum(weights, tapped.activations)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])
