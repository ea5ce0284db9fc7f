"""Smooth Grad-CAM++: gradients averaged over noisy images."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sscam_jax.cams import _tap
from sscam_jax.cams._tap import Labels
from sscam_jax.types import Apply, Params, Saliency


def smooth_grad_cam_pp(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Labels = None,
    *,
    key: Key[Array, ""],
    ids: Int[Array, " b"] | None = None,
    n_samples: int = 4,
    sigma: float | Float[Array, ""] = 0.3,
) -> Saliency:
    """Smooth Grad-CAM++: Grad-CAM++ with powers of the gradient that are means over N noisy images.

    L^c = ReLU(Σ_k w_k^c A_k) with w_k^c = Σ_ij a_ij ReLU(D1_ij), a_ij = D2_ij / (2 D2_ij + (Σ_ab A_ab) D3_ij) and
    Dp = 1/N Σ_n g_n^p. Here g_n is the gradient ∂Y^c/∂A_k at X + ε_n with ε_n ~ N(0, σ²), and A are the activations of
    the image without noise. The paper prints D1 as the numerator of a. We take D2, as Grad-CAM++ and torchcam do,
    because D1 looks like a misprint. A position with D2 = 0 has a = 0.

    The noise of (image id, sample) depends on the key and these two indices only.

    Args:
        apply: the network, cut at the target layer; static.
        params: its parameters.
        images: [b, *space, c_in], as the network takes them.
        labels: class indices [b]; None explains the predicted class.
        key: a key of `jax.random.key`, of JAX's default kind.
        ids: one integer per image [b] that seeds its noise; None: its position in the batch.
        n_samples: N; static.
        sigma: σ, in the unit of the images; traced, so another value compiles nothing.

    Returns:
        `Saliency`; `weights` are w^c. `passes` is N + 1.

    Raises:
        ValueError: the shapes or labels do not fit, `n_samples` < 1, or a key of kind rbg.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> images = jnp.zeros((1, 2, 2, 2)).at[0, 0, 1, 0].set(4.0)
        >>> smooth_grad_cam_pp(apply, jnp.eye(2), images, [0], key=jax.random.key(0)).weights.tolist()
        [[0.333..., 0.0]]

    References:
        Omeiza et al., Smooth Grad-CAM++ (arXiv 1908.01224).
    """
    _tap.at_least_one(n_samples=n_samples)
    checked = _tap.checked(apply, params, images, labels)
    keys = _tap.image_keys(key, ids, images)
    return _smooth_grad_cam_pp(apply, params, images, checked, keys, _tap.scalar("sigma", sigma, 0.0), n_samples)


@functools.partial(jax.jit, static_argnums=(0, 6))
def _smooth_grad_cam_pp(
    apply: Apply,
    params: Params,
    images: Float[Array, "b *space c_in"],
    labels: Int[Array, " b"] | None,
    keys: Key[Array, " b"],
    sigma: Float[Array, ""],
    n_samples: int,
) -> Saliency:
    tapped = _tap.tap(apply, params, images, labels)

    def one(sample: Int[Array, ""]) -> Float[Array, "3 b *grid c"]:
        def draw(key: Key[Array, ""]) -> Float[Array, "*space c_in"]:
            return jax.random.normal(jax.random.fold_in(key, sample), images.shape[1:], jnp.float32)

        noisy = images + (sigma * jax.vmap(draw)(keys)).astype(images.dtype)
        # The class of the image without noise: noise can change the prediction.
        gradients = _tap.logit_gradients(apply, params, _tap.tap(apply, params, noisy, tapped.labels))
        return jnp.stack([gradients, gradients**2, gradients**3])

    def add(total: Float[Array, "3 b *grid c"], sample: Int[Array, ""]) -> tuple[Float[Array, "3 b *grid c"], None]:
        return total + one(sample), None

    # The sum starts with sample 0 instead of zeros, because it needs the shape of the gradients anyway.
    first = one(jnp.int32(0))
    total, _ = jax.lax.scan(add, first, jnp.arange(1, n_samples, dtype=jnp.int32))
    # Powers first, then means: the mean of g² is not the square of the mean.
    d1, d2, d3 = total / n_samples
    activations = tapped.activations.astype(jnp.float32)
    space = tuple(range(1, activations.ndim - 1))
    denominator = 2 * d2 + activations.sum(space, keepdims=True) * d3
    a = jnp.where(denominator == 0, 0.0, d2 / jnp.where(denominator == 0, 1.0, denominator))
    weights = (a * jax.nn.relu(d1)).sum(space)
    raw = _tap.weighted_sum(weights, activations)
    passes = jnp.full(images.shape[0], 1 + n_samples, jnp.int32)
    return _tap.to_saliency(raw, weights, tapped, images.shape[1:-1], passes=passes)
