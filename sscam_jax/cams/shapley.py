"""ShapleyCAM: gradient and curvature of the head."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sscam_jax._support import choose
from sscam_jax.cams import _tap
from sscam_jax.cams._scores import score_of
from sscam_jax.cams._tap import Labels
from sscam_jax.types import Apply, Params, Saliency

Utility = (
    Literal["residual_softmax", "logit", "probability", "log_probability"]
    | Callable[[Float[Array, " n"], Int[Array, ""]], Float[Array, ""]]
)


def shapley_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    utility: Utility = "residual_softmax",
) -> Saliency:
    """ShapleyCAM: the activations weighted by their Shapley values, to second order.

    L^c = ReLU(Σ_k w_k^c A_k) with w_k^c = GAP(∂u/∂A_k − ½ (H A)_k), where H is the Hessian of the utility u with
    respect to the activations. By default u = Y^c + log p^c, the logit plus the logarithm of its probability (the
    paper's residual softmax, ReST). If u is the logit and the head is piecewise linear, H = 0 and this is Grad-CAM.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        utility: u, "residual_softmax", "logit", "probability", "log_probability", or a function
            `(logits [n], label []) -> []` that is twice differentiable; static.

    Returns:
        `Saliency`; `weights` are w^c.

    Raises:
        ValueError: an unknown utility, or shapes or labels that do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(4.0)
        >>> shapley_cam(apply, jnp.eye(2), images, [0], utility="logit").weights.tolist()
        [[0.25, 0.0]]

    References:
        Cai, CAMs as Shapley Value-based Explainers, The Visual Computer (arXiv 2501.06261).
    """
    if not callable(utility):
        choose("utility", utility, get_args(get_args(Utility)[0]))
    return _shapley_cam(apply, params, images, _tap.checked(apply, params, images, labels), utility)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _shapley_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    utility: Utility,
) -> Saliency:
    tapped = _tap.tap(apply, params, images, labels)

    def total(activations: Float[Array, "b *grid c"]) -> Float[Array, ""]:
        logits = apply.head(params, activations, tapped.carry)
        if utility == "residual_softmax":
            both = [score_of(name, logits, tapped.labels) for name in ("logit", "log_probability")]
            return (both[0] + both[1]).sum()
        return score_of(utility, logits, tapped.labels).sum()

    # Images do not mix, so the Hessian of the sum over the batch has one block per image. A forward derivative of the
    # gradient gives H A without H, which would have a row and a column for every activation.
    gradients, curved = jax.jvp(jax.grad(total), (tapped.activations,), (tapped.activations,))
    # Minus, because the expansion starts at A and goes back to 0: u(A) − u(A − A_k) = ∂u·A_k − ½ A_k H A_k + …
    slopes = gradients.astype(jnp.float32) - 0.5 * curved.astype(jnp.float32)
    weights = slopes.mean(tuple(range(1, slopes.ndim - 1)))
    raw = _tap.weighted_sum(weights, tapped.activations)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])
