"""What every method does first and last: check and tap the network, and turn a raw map into a `Saliency`."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key

from sscam_jax import ops
from sscam_jax.types import Apply, Carry, Params, Saliency

Labels = Integer[Array, " b"] | Integer[np.ndarray, " b"] | Sequence[int] | None


class Tapped(NamedTuple):
    """A network's run, tapped at the target layer; `labels` are the predicted classes where none were given."""

    activations: Float[Array, "b *grid c"]
    carry: Carry
    logits: Float[Array, "b n"]
    labels: Int[Array, " b"]


@functools.lru_cache(maxsize=256)
def _shapes(apply: Apply, treedef: Any, leaves: tuple[tuple[tuple[int, ...], Any], ...]) -> tuple[Any, Any]:
    params, images = jax.tree.unflatten(treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves])
    activations, carry = jax.eval_shape(apply.features, params, images)
    return activations, jax.eval_shape(apply.head, params, activations, carry)


def _shapes_of(apply: Apply, params: Params, images: Array) -> tuple[Any, Any]:
    """Shapes of the activations and the logits."""
    leaves, treedef = jax.tree.flatten((params, images))
    return _shapes(apply, treedef, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))


def classes(apply: Apply, params: Params, images: Float[Array, "b *space c_in"]) -> int:
    """How many logits the network has."""
    return _shapes_of(apply, params, images)[1].shape[-1]


def checked(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels
) -> Int[Array, " b"] | None:
    """Check that network, images and labels fit together, before anything is computed; labels as int32."""
    if images.ndim < 3 or images.shape[0] == 0:
        raise ValueError(
            f"images have shape {images.shape}, expected [b, *space, c_in] with b ≥ 1 and at least one spatial axis: "
            "a single image is images[None]"
        )
    activations, logits = _shapes_of(apply, params, images)
    if activations.ndim != images.ndim or activations.shape[0] != images.shape[0]:
        raise ValueError(
            f"apply.features gives activations of shape {activations.shape} for images of shape {images.shape}, "
            f"expected [{images.shape[0]}, *grid, c] with {images.ndim - 2} spatial axes: cut the network where "
            "it still has them"
        )
    if logits.ndim != 2 or logits.shape[0] != images.shape[0]:
        raise ValueError(f"apply.head gives shape {logits.shape}, expected logits [{images.shape[0]}, n]")
    if labels is None:
        return None
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(f"labels have dtype {labels.dtype}, expected integer class indices")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels have shape {labels.shape}, expected {images.shape[:1]}: one class index an image")
    if not isinstance(labels, jax.core.Tracer):
        # NumPy, because under an outer jax.jit even a concrete array's operations are traced.
        wrong = sorted({int(label) for label in np.asarray(labels) if not 0 <= label < logits.shape[1]})
        if wrong:
            raise ValueError(f"labels {wrong} are not classes of this network; choose from 0 to {logits.shape[1] - 1}")
    return jnp.asarray(labels, jnp.int32)


def tap(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Int[Array, " b"] | None) -> Tapped:
    """Run the network once; where `labels` is None, explain the predicted classes."""
    activations, carry = apply.features(params, images)
    logits = apply.head(params, activations, carry).astype(jnp.float32)
    if labels is None:
        labels = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return Tapped(activations, carry, logits, labels)


def logit_gradients(apply: Apply, params: Params, tapped: Tapped) -> Float[Array, "b *grid c"]:
    """∂Y^c/∂A, the gradient of each image's logit of its class with respect to its activations."""
    return head_gradients(apply, params, tapped, jax.nn.one_hot(tapped.labels, tapped.logits.shape[-1]))


def head_gradients(
    apply: Apply, params: Params, tapped: Tapped, shares: Float[Array, "b n"]
) -> Float[Array, "b *grid c"]:
    """Σ_n shares_n ∂Y^n/∂A of each image."""

    def logits(activations: Float[Array, "b *grid c"]) -> Float[Array, "b n"]:
        return apply.head(params, activations, tapped.carry)

    out, pullback = jax.vjp(logits, tapped.activations)
    (gradients,) = pullback(shares.astype(out.dtype))
    return gradients.astype(jnp.float32)


def check_key(key: Key[Array, ""]) -> None:
    """Raise ValueError for keys whose draws depend on the batch."""
    kind = str(jax.random.key_impl(key))
    if "rbg" in kind:
        # Under jax.vmap its draws depend on what they are batched with: chunks would change the map.
        raise ValueError(f"key is of kind {kind!r}, whose draws depend on the batch; use jax.random.key(seed)")


def checked_ids(ids: Int[Array, " b"] | None, images: Float[Array, "b *space c_in"]) -> Int[Array, " b"]:
    """One integer an image; None are the positions in the batch."""
    ids = jnp.arange(images.shape[0], dtype=jnp.int32) if ids is None else jnp.asarray(ids)
    if ids.shape != images.shape[:1]:
        raise ValueError(f"ids have shape {ids.shape}, expected {images.shape[:1]}: one integer an image")
    return ids


def image_keys(
    key: Key[Array, ""], ids: Int[Array, " b"] | None, images: Float[Array, "b *space c_in"]
) -> Key[Array, " b"]:
    """A key for each image, of the key and its id alone; `ids=None` are the positions in the batch."""
    check_key(key)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, checked_ids(ids, images))


def weighted_sum(weights: Float[Array, "b c"], activations: Float[Array, "b *grid c"]) -> Float[Array, "b *grid"]:
    """Σ_k α_k A_k, in float32 whatever the network's precision."""
    return jnp.einsum("bc,b...c->b...", weights, activations.astype(jnp.float32), precision="highest")


def to_saliency(
    raw: Float[Array, "b *grid"],
    weights: Float[Array, "b c"],
    logits: Float[Array, "b n"],
    space: tuple[int, ...],
    normalize: str = "after_resize",
    passes: Int[Array, " b"] | None = None,
) -> Saliency:
    """unit(ReLU(U(raw))); `normalize="before_resize"` is U(unit(ReLU(raw))), as torchcam has it."""
    if normalize == "before_resize":
        positive = jax.nn.relu(raw)
        maps = ops.resize(ops.unit(positive), space)
    else:
        positive = jax.nn.relu(ops.resize(raw, space))
        maps = ops.unit(positive)
    # Interpolation can round a constant map's values apart, and unit() would make a map of that.
    flat = (ops.value_range(positive) == 0) | (ops.value_range(raw) == 0)
    maps = jnp.where(flat.reshape(-1, *[1] * (maps.ndim - 1)), 0.0, maps)
    if passes is None:
        passes = jnp.ones(raw.shape[0], jnp.int32)
    return Saliency(maps, raw, weights, logits, flat, passes)
