"""What every method does first and last: check the arguments, run the network once, assemble the `Saliency`."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from sscam_jax import ops
from sscam_jax.types import Apply, Carry, Params, Saliency

Labels = Integer[Array, " b"] | Integer[np.ndarray, " b"] | Sequence[int] | None


class Tapped(NamedTuple):
    """A network's run, tapped at the target layer; `labels` are the predicted classes where none were given."""

    activations: Float[Array, "b *grid c"]
    carry: Carry
    logits: Float[Array, "b n"]
    labels: Int[Array, " b"]
    known: Bool[Array, " b"]
    """Whether the label is a class of the network, which only values that are not traced are checked for."""


class Shapes(NamedTuple):
    """What a network makes of images of one shape."""

    activations: jax.ShapeDtypeStruct
    logits: jax.ShapeDtypeStruct


def checked(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Labels
) -> Int[Array, " b"] | None:
    """Check that network, images and labels fit together, before anything is computed; labels as int32."""
    _check_kinds(apply, params, images)
    n_classes = shapes(apply, params, images).logits.shape[1]
    if apply.imagenet:
        ops.check_normalised(images)
    if labels is None:  # the predicted class, which only the compiled part knows
        return None
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
    # Floats are refused, not rounded: [1.9] is a mistake, for instance a probability in the labels' place.
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels have dtype {labels.dtype}, expected integer class indices")
    if labels.shape != images.shape[:1]:
        # A network of any rank takes a single image [h, w, c] for h images of one axis, so only the labels tell.
        single = "; a single image is images[None]" if labels.size == 1 else ""
        raise ValueError(
            f"labels have shape {labels.shape}, expected {images.shape[:1]}: one class index per image{single}"
        )
    if not isinstance(labels, jax.core.Tracer):
        # NumPy, because under an outer jax.jit even a concrete array's operations are traced.
        wrong = sorted({int(label) for label in np.asarray(labels) if not 0 <= label < n_classes})
        if wrong:
            raise ValueError(f"labels {wrong} are not classes of this network; choose from 0 to {n_classes - 1}")
    return jnp.asarray(labels, jnp.int32)


def _check_kinds(apply: Any, params: Any, images: Any) -> None:
    """The commonest mistakes, each with its remedy."""
    if isinstance(params, Apply):  # without this, the first error would be one of JAX about a pytree
        raise ValueError("apply and params are in each other's place, expected (apply, params, images, labels)")
    if not isinstance(apply, Apply):
        raise ValueError(
            f"apply is a {type(apply).__name__}, expected an sscam_jax.Apply: sscam_jax.adapt.model makes one from a "
            "module of Flax, Equinox, Haiku, Keras or PyTorch, and Apply(features, head) from two functions"
        )
    if isinstance(images, (str, pathlib.PurePath)) or not hasattr(images, "ndim"):
        raise ValueError(
            f"images are a {type(images).__name__}, expected an array [b, *space, c_in]: sscam_jax.preprocess makes "
            "one from paths and PIL images, jnp.stack from a list of arrays"
        )
    if images.ndim < 3 or images.shape[0] == 0:
        raise ValueError(
            f"images have shape {images.shape}, expected [b, *space, c_in] with b ≥ 1 and at least one spatial axis: "
            "a single image is images[None]"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images have dtype {images.dtype}, expected floating point numbers as the network takes them: "
            "sscam_jax.preprocess makes them from photographs; pixels of 0 to 255 by hand are "
            "(images / 255 - mean) / std"
        )


def shapes(apply: Apply, params: Params, images: Float[Array, "b *space c_in"]) -> Shapes:
    """The shapes of activations and logits, checked.

    Raises:
        ValueError: the network does not take these images, or does not keep to the protocol.
    """
    try:
        (activations, carry), logits = _shapes_of(apply, params, images)
    except Exception as error:  # a network raises what it likes, for instance a TypeError of a convolution
        if remedy := _remedy(apply, params, images):
            raise ValueError(f"the network does not take images of shape {images.shape}: {remedy}") from error
        raise
    # Flattened activations have no positions, so no map can be made of them.
    b, rank = images.shape[0], images.ndim
    if activations.ndim != rank or activations.shape[0] != b:
        raise ValueError(
            f"apply.features gives activations of shape {activations.shape} for images of shape {images.shape}, "
            f"expected [{b}, *grid, c] with {rank - 2} spatial axes: cut the network where it still has them"
        )
    for leaf in jax.tree.leaves(carry):
        if leaf.shape[:1] != (b,):
            raise ValueError(f"apply.features gives a carry with an array of shape {leaf.shape}, expected [{b}, ...]")
    if logits.ndim != 2 or logits.shape[0] != b:
        remedy = _remedy(apply, params, images)
        raise ValueError(f"apply.head gives shape {logits.shape}, expected logits [{b}, n]{remedy and ': ' + remedy}")
    return Shapes(activations, logits)


def _remedy(apply: Apply, params: Params, images: Array) -> str:
    """How the images must be turned for the network to give logits; empty if that is not what is wrong."""
    turned = {
        "a single image is images[None]": lambda x: x[None],
        "channels come last: jnp.moveaxis(images, 1, -1)": lambda x: jnp.moveaxis(x, 1, -1),
        "channels come last: jnp.moveaxis(image, 0, -1)[None]": lambda x: jnp.moveaxis(x, 0, -1)[None],
    }
    for remedy, turn in turned.items():
        try:
            _, logits = _shapes_of(apply, params, jax.eval_shape(turn, images))
        except Exception:  # whatever it raises, this was not the remedy
            continue
        if logits.ndim == 2:
            return remedy
    return ""


def _shapes_of(apply: Apply, params: Params, images: Any) -> tuple[Any, Any]:
    """Shapes of what `features` gives, and of the logits."""
    # Only what can be hashed goes into the cache: no array is kept alive by it.
    leaves, treedef = jax.tree.flatten((params, images))
    return _traced_shapes(apply, treedef, tuple(map(_shape_of, leaves)))


def _shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """A leaf's shape and dtype, and its sharding where that is part of its type."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    # Under an explicit mesh the sharding is part of the type, and without it `eval_shape` would refuse the network.
    kind = jax.typeof(leaf)
    mesh = getattr(kind.sharding, "mesh", None)
    explicit = mesh is not None and not mesh.empty and jax.sharding.AxisType.Explicit in mesh.axis_types
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, sharding=kind.sharding if explicit else None)


@functools.lru_cache(maxsize=256)
def _traced_shapes(apply: Apply, treedef: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> tuple[Any, Any]:
    # Tracing a deep network takes a tenth of a second; a second call with the same shapes must not.
    params, images = jax.tree.unflatten(treedef, leaves)
    found = jax.eval_shape(apply.features, params, images)
    if not isinstance(found, tuple) or len(found) != 2:
        given = jax.tree.map(lambda leaf: leaf.shape, found)
        raise ValueError(
            f"apply.features gives {given}, expected (activations, carry), where carry is () for a network whose head "
            "needs the activations alone"
        )
    return found, jax.eval_shape(apply.head, params, *found)


def scalar(name: str, value: Any, lowest: float = -np.inf, highest: float = np.inf, lowest_too: bool = True) -> Array:
    """A number as a traced float32, checked where its value is known.

    Raises:
        ValueError: it is not a single number, or it is out of range.
    """
    # A vector would broadcast along whatever axis comes last, for instance one σ per channel. So it is refused.
    shape = np.shape(value)
    if shape != ():
        raise ValueError(f"{name} has shape {shape}, expected a single number")
    if not isinstance(value, jax.core.Tracer):
        number = float(value)
        if not (lowest <= number <= highest) or (number == lowest and not lowest_too):
            sign = "≤" if lowest_too else "<"
            raise ValueError(f"{name}={number:g} is not possible, expected {lowest:g} {sign} {name} ≤ {highest:g}")
    return jnp.asarray(value, jnp.float32)


def at_least_one(**counts: int | None) -> None:
    """Raise ValueError for a count below 1; None stands for no limit."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} is too small, expected at least 1")


def tap(apply: Apply, params: Params, images: Float[Array, "b *space c_in"], labels: Int[Array, " b"] | None) -> Tapped:
    """Run the network once; where `labels` is None, explain the predicted classes."""
    activations, carry = apply.features(params, images)
    # Not `apply(params, images)`: the activations come from the same pass as the logits.
    logits = apply.head(params, activations, carry).astype(jnp.float32)
    if labels is None:
        labels = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # JAX clamps or wraps an index that is out of range, differently by operation. So labels are clamped once, here, and
    # `known` remembers which were not classes: their maps become flat.
    inside = jnp.clip(labels, 0, logits.shape[1] - 1)
    return Tapped(activations, carry, logits, inside, labels == inside)


def logit_gradients(apply: Apply, params: Params, tapped: Tapped) -> Float[Array, "b *grid c"]:
    """∂Y^c/∂A, the gradient of each image's logit of its class with respect to its activations."""
    return head_gradients(
        apply, params, tapped, jax.nn.one_hot(tapped.labels, tapped.logits.shape[-1], dtype=jnp.float32)
    )


def head_gradients(
    apply: Apply, params: Params, tapped: Tapped, shares: Float[Array, "b n"]
) -> Float[Array, "b *grid c"]:
    """Σ_n shares_n ∂Y^n/∂A of each image."""

    def logits(activations: Float[Array, "b *grid c"]) -> Float[Array, "b n"]:
        return apply.head(params, activations, tapped.carry)

    # Images do not mix, so one backward pass gives the gradients of all images.
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
    """One integer per image; None stands for the positions in the batch."""
    ids = jnp.arange(images.shape[0], dtype=jnp.int32) if ids is None else jnp.asarray(ids)
    if ids.shape != images.shape[:1]:
        raise ValueError(f"ids have shape {ids.shape}, expected {images.shape[:1]}: one integer per image")
    return ids


def image_keys(
    key: Key[Array, ""], ids: Int[Array, " b"] | None, images: Float[Array, "b *space c_in"]
) -> Key[Array, " b"]:
    """A key per image, made of the key and the image's id alone; `ids=None` stands for the positions in the batch."""
    check_key(key)
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, checked_ids(ids, images))


def weighted_sum(weights: Float[Array, "b c"], activations: Float[Array, "b *grid c"]) -> Float[Array, "b *grid"]:
    """Σ_k α_k A_k, in float32 whatever the network's precision."""
    # "highest", because GPUs and TPUs multiply float32 matrices with fewer bits by default.
    return jnp.einsum("bc,b...c->b...", weights, activations.astype(jnp.float32), precision="highest")


def no_weights(tapped: Tapped) -> Float[Array, "b c"]:
    """The weights of a method that does not weigh whole channels: 0."""
    return jnp.zeros((tapped.activations.shape[0], tapped.activations.shape[-1]), jnp.float32)


def to_saliency(
    raw: Float[Array, "b *grid"],
    weights: Float[Array, "b c"],
    tapped: Tapped,
    space: tuple[int, ...],
    normalize: str = "after_resize",
    passes: Int[Array, " b"] | None = None,
) -> Saliency:
    """unit(ReLU(U(raw))); `normalize="before_resize"` is U(unit(ReLU(raw))), as torchcam has it."""
    if normalize == "before_resize":
        positive = jax.nn.relu(raw)
        maps = ops.resize(ops.unit(positive), space)
    else:
        # U before the ReLU: in the other order, zeros between cells would become positive, and regions wider.
        positive = jax.nn.relu(ops.resize(raw, space))
        maps = ops.unit(positive)
    # Interpolation can round a constant map's values apart, and unit() would make a map of that.
    flat = (ops.value_range(positive) == 0) | (ops.value_range(raw) == 0)
    if passes is None:
        passes = jnp.ones(raw.shape[0], jnp.int32)
    return finite(Saliency(maps, raw, weights, tapped.logits, flat, passes), tapped.known)


def finite(saliency: Saliency, known: Bool[Array, " b"]) -> Saliency:
    """Set the maps to zero, and `flat`, where the label is not a class or something is not finite."""
    # The logits count too: Eigen-CAM's map can be finite where they are not.
    parts = (saliency.maps, saliency.raw, saliency.weights, saliency.logits)
    sound = functools.reduce(
        jnp.logical_and, [jnp.isfinite(part).all(tuple(range(1, part.ndim))) for part in parts], known
    )

    def kept(part: Float[Array, "b ..."], where: Bool[Array, " b"]) -> Float[Array, "b ..."]:
        return jnp.where(where.reshape(-1, *[1] * (part.ndim - 1)), part, 0.0)

    flat = saliency.flat | ~sound
    return saliency._replace(
        maps=kept(saliency.maps, ~flat), raw=kept(saliency.raw, sound), weights=kept(saliency.weights, sound), flat=flat
    )
