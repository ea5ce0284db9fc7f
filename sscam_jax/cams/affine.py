"""CAM, the first of them, which is defined only for a head that is affine and treats all positions alike."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sscam_jax.cams import _tap
from sscam_jax.cams._tap import Labels
from sscam_jax.types import Apply, Params, Saliency


def cam(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None) -> Saliency:
    """CAM: the activations weighted by the class's weights in the linear layer after average pooling.

    L^c = ReLU(Σ_k w_k^c A_k), as in SS-CAM's paper (Eq. 1-2). Zhou et al. (Eq. 2) have no ReLU. The weights are
    computed as Σ_ij ∂Y^c/∂A_k^ij, which is w_k^c if the head is average pooling and a linear layer. Other heads have no
    such weights and are refused: a head that is not affine, and a head that treats positions unequally, for instance a
    linear layer on flattened activations.

    Args:
        apply: the network, cut at its last convolutional layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.

    Returns:
        `Saliency`; `weights` are w^c.

    Raises:
        ValueError: the head is not affine in the activations, it weighs positions unequally (this check needs a call
            that is not traced), or the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> cam(apply, jnp.eye(2), images, [0]).maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016 (arXiv 1512.04150).
    """
    # Whether positions weigh the same depends on values, so it is known only after the run.
    saliency, pooled = _cam(apply, params, images, _tap.checked(apply, params, images, labels))
    if not isinstance(pooled, jax.core.Tracer) and not pooled:
        raise ValueError(
            "the head of this network weighs positions unequally, so CAM is not defined: it needs a network that ends "
            "in average pooling and a linear layer, cut just before them; use hires_cam"
        )
    return saliency


@functools.partial(jax.jit, static_argnums=0)
def _cam(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Int[Array, " b"] | None
) -> tuple[Saliency, Bool[Array, ""]]:
    """The maps, and whether the head gives all positions the same weight."""
    tapped = _tap.tap(apply, params, images, labels)

    def gradients(activations: Float[Array, "b *grid c"]) -> Float[Array, "b *grid c"]:
        return _tap.logit_gradients(apply, params, tapped._replace(activations=activations))

    # While tracing, so that it costs no pass: the message comes before anything is computed.
    if _depends_on_input(gradients, tapped.activations):
        raise ValueError(
            "the head of this network is not affine in the activations, so CAM is not defined: it needs a network "
            "that ends in average pooling and a linear layer, cut just before them; use grad_cam, which equals CAM "
            "there and is defined everywhere"
        )
    slopes = gradients(tapped.activations)
    space = tuple(range(1, slopes.ndim - 1))
    weights = slopes.sum(space)
    spread = slopes.max(space) - slopes.min(space)
    # Pooling gives every position the same slope up to rounding. NaN passes this check: such a map is flat.
    pooled = ~(spread > 1e-3 * jnp.abs(slopes).max()).any()
    raw = _tap.weighted_sum(weights, tapped.activations)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1]), pooled


def _depends_on_input(function: Callable[[Array], Array], argument: Array) -> bool:
    """Whether any output of the function can depend on its argument's values.

    Conservative: a dependence that cancels counts. A head is affine exactly when its gradient is constant.
    """
    jaxpr = jax.make_jaxpr(function)(argument).jaxpr
    reached = {id(variable) for variable in jaxpr.invars}
    for equation in jaxpr.eqns:
        if any(id(variable) in reached for variable in equation.invars):
            reached.update(id(variable) for variable in equation.outvars)
    return any(id(variable) in reached for variable in jaxpr.outvars)
