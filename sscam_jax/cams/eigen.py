"""CAMs of a principal component: of the activations in Eigen-CAM, of activation times gradient in Eigen-Grad-CAM."""

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
    """Eigen-CAM: the activations projected on their first right singular vector. It does not depend on the class.

    L = ReLU(A V_1), where A = U Σ Vᵀ is the matrix of positions × channels. The paper has no ReLU. The sign of a
    singular vector is arbitrary. We choose it so that the value of largest magnitude in A V_1 is positive.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b], or None; checked, but they change nothing.
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
    tapped = _tap.tap(apply, params, images, None)  # any label is fine, because the class plays no part
    raw, weights = _principal(tapped.activations.astype(jnp.float32), center)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1])


def eigen_grad_cam(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels = None
) -> Saliency:
    """Eigen-Grad-CAM: the first principal component of activation times gradient.

    Eigen-CAM of G ⊙ A with G = ∂Y^c/∂A, where the mean of each channel is subtracted. The method comes from
    pytorch-grad-cam and has no paper. There the sign is what LAPACK returns. Here the value of largest magnitude is
    positive.

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
    """V_1 of A = U Σ Vᵀ, up to its sign; 0 if A is 0.

    The smaller of A Aᵀ and Aᵀ A is squared 20 times. The power 2^20 leaves its largest eigenvalue only, so the result
    is U_1 U_1ᵀ or V_1 V_1ᵀ up to a factor. `jnp.linalg.svd` is not used: on CPUs LAPACK gives its work to the threads
    that wait for it, and with as many devices as cores it never ends (seen with JAX 0.10).
    """
    product = functools.partial(jnp.matmul, precision="highest")

    def scaled(array: Array) -> Array:
        largest = jnp.abs(array).max()  # without this the powers would overflow or vanish
        return array / jnp.where(largest == 0, 1.0, largest)

    a = scaled(rows)
    wide = a.shape[0] <= a.shape[1]
    gram = scaled(product(a, a.T) if wide else product(a.T, a))
    power, _ = jax.lax.scan(lambda power, _: (scaled(product(power, power)), None), gram, length=20)
    vector = power[:, jnp.diagonal(power).argmax()]
    vector = product(vector, a) if wide else vector
    # One more power step on A itself: in A Aᵀ the rounding errors are squared.
    vector = scaled(product(product(a, vector), a))
    length = jnp.sqrt((vector**2).sum())
    return vector / jnp.where(length == 0, 1.0, length)
