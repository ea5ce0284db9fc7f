"""CAMs of a principal component: no class in Eigen-CAM, activation times gradient in Eigen-Grad-CAM."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sscam_jax.cams import _tap
from sscam_jax.cams._tap import Labels
from sscam_jax.cams.gradient import from_gradients
from sscam_jax.types import Apply, Params, Saliency


def eigen_cam(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    center: bool = False,
) -> Saliency:
    """Eigen-CAM: the activations projected on their first right singular vector; the class plays no part.

    With A = U Σ Vᵀ (positions × channels), L = ReLU(A V_1); the paper has no ReLU. A singular vector has no sign of
    its own: here the projection's largest value by magnitude is positive.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; they change nothing.
        center: whether each channel's mean is subtracted first, as pytorch-grad-cam does; static.

    Returns:
        `Saliency`; `weights` are V_1.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(3.0)
        >>> eigen_cam(apply, jnp.eye(2), images, [0]).maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Muhammad and Yeasin, Eigen-CAM, IJCNN 2020 (arXiv 2008.00299).
    """
    _tap.checked(apply, params, images, labels)
    return _eigen_cam(apply, params, images, center)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _eigen_cam(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], center: bool) -> Saliency:
    tapped = _tap.tap(apply, params, images, None)
    raw, weights = _principal(tapped.activations.astype(jnp.float32), center)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])


def eigen_grad_cam(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None
) -> Saliency:
    """Eigen-Grad-CAM: the first principal component of activation times gradient.

    Eigen-CAM of G ⊙ A, G = ∂Y^c/∂A, with each channel's mean subtracted. It comes from pytorch-grad-cam and has no
    paper; its sign, LAPACK's there, is here that of the largest value by magnitude.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.

    Returns:
        `Saliency`; `weights` are V_1, which multiplies G ⊙ A.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(4.0)
        >>> eigen_grad_cam(apply, jnp.eye(2), images, [0]).maps[0].tolist()
        [[0.0, 1.0], [0.0, 0.0]]

    References:
        Gildenblat and contributors, pytorch-grad-cam 1.5.7, `EigenGradCAM`.
    """
    return from_gradients(apply, params, images, _tap.checked(apply, params, images, labels), _eigen_grad)


def _eigen_grad(activations: Float[Array, "b *grid c"], gradients: Float[Array, "b *grid c"]) -> tuple[Array, Array]:
    return _principal(activations * gradients, center=True)


def _principal(arrays: Float[Array, "b *grid c"], center: bool) -> tuple[Float[Array, "b *grid"], Float[Array, "b c"]]:
    """Each image's projection on the first right singular vector, and that vector."""
    rows = arrays.reshape(arrays.shape[0], -1, arrays.shape[-1])
    if center:
        rows = rows - rows.mean(1, keepdims=True)
    vectors = jax.vmap(_first_singular_vector)(rows)
    projected = jnp.einsum("bpc,bc->bp", rows, vectors, precision="highest")
    largest = jnp.take_along_axis(projected, jnp.abs(projected).argmax(1, keepdims=True), axis=1)
    sign = jnp.where(largest < 0, -1.0, 1.0)
    return (sign * projected).reshape(arrays.shape[:-1]), sign * vectors


def _first_singular_vector(rows: Float[Array, "p c"]) -> Float[Array, " c"]:
    """V_1 of A = U Σ Vᵀ, up to its sign; 0 where A is 0.

    (A Aᵀ)^(2^20), or (Aᵀ A)^(2^20) where that is the smaller, by squaring: what is left is U_1 U_1ᵀ, or V_1 V_1ᵀ. Not
    by `jnp.linalg.svd`: on CPU its LAPACK call hands its work to the threads that wait for it, and with as many devices
    as cores it never ends (JAX 0.10).
    """
    product = functools.partial(jnp.matmul, precision="highest")

    def scaled(array: Array) -> Array:
        largest = jnp.abs(array).max()
        return array / jnp.where(largest == 0, 1.0, largest)

    a = scaled(rows)
    wide = a.shape[0] <= a.shape[1]
    gram = scaled(product(a, a.T) if wide else product(a.T, a))
    power, _ = jax.lax.scan(lambda power, _: (scaled(product(power, power)), None), gram, length=20)
    vector = power[:, jnp.diagonal(power).argmax()]
    vector = product(vector, a) if wide else vector
    vector = scaled(product(product(a, vector), a))  # a power step more, for the last digits
    length = jnp.sqrt((vector**2).sum())
    return vector / jnp.where(length == 0, 1.0, length)
