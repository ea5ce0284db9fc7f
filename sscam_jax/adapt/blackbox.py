"""Functions of NumPy arrays: a network behind ONNX Runtime, TFLite or a service, that JAX can't look into."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from sscam_jax.types import Apply, Params

Function = Callable[[np.ndarray], np.ndarray]


def black_box(function: Function, features: Function) -> tuple[Apply, Params]:
    """A function of NumPy arrays as a network to explain, by methods that only read its scores.

    These are `score_cam`, `ss_cam` (presets without gradients), `is_cam`, `rise`, `occlusion`, and `eigen_cam`, which
    reads activations only. JAX calls the functions on the host (`jax.pure_callback`), a chunk of images at a time.
    Methods that change activations or take gradients are refused, because the function can't be cut.

    Args:
        function: images [n, *space, c_in] -> logits [n, classes], for any n; without randomness, and without JAX
            inside, which may wait for itself. Pass the same function object again to reuse a compilation.
        features: images [n, *space, c_in] -> activations [n, *grid, c] of a layer, whose channels become masks, such
            as a second output of an ONNX model. `rise` and `occlusion` do not use them.

    Returns:
        The network, and its parameters: none, `()`.

    Raises:
        ValueError: a result of another shape; when it runs, a gradient, or activations that were changed.

    Example:
        >>> import jax.numpy as jnp
        >>> from sscam_jax import adapt, score_cam
        >>> def network(images):
        ...     return images.mean((1, 2))
        >>> apply, params = adapt.black_box(network, lambda images: images[:, ::2, ::2])
        >>> score_cam(apply, params, jnp.arange(48.0).reshape(1, 4, 4, 3), [0]).weights.shape
        (1, 3)
    """
    # JAX traces no parameters: whatever the functions hold is theirs.
    return Apply(_Features(features), _Head(function)), ()


@dataclasses.dataclass(frozen=True)
class _Features:
    function: Function

    def __call__(self, params: Params, images: Float[Array, "b *space c_in"]) -> tuple[Float[Array, "b ..."], Any]:
        result = _result(self.function, images.shape[1:], images.dtype, images.ndim - 1)
        activations = _called(self.function, result, images)
        # The head gets the image, from which the function starts, and the activations, to notice a change of them.
        return activations, (images, activations)


@dataclasses.dataclass(frozen=True)
class _Head:
    function: Function

    def __call__(self, params: Params, activations: Float[Array, "b ..."], carry: Any) -> Float[Array, "b n"]:
        images, before = carry
        result = _result(self.function, images.shape[1:], images.dtype, 1)
        return _without_gradient(self.function, result, images, activations, before)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _without_gradient(function: Function, result: Any, images: Array, activations: Array, before: Array) -> Array:
    # Without this check, a method that changes activations would read the same scores each time and give an empty map.
    changed = (activations != before).any(tuple(range(1, before.ndim)))

    def check(images: np.ndarray, changed: np.ndarray) -> np.ndarray:
        if changed.any():
            raise ValueError("a black box has no head to run on changed activations: use score_cam, ss_cam or rise")
        return function(images)

    return _called(check, result, images, changed)


@_without_gradient.defjvp
def _no_gradient(function: Function, result: Any, primals: Any, tangents: Any) -> Any:
    raise ValueError("a black box has no gradients: use a method without, such as score_cam, ss_cam or rise")


# Every trace asks for it, and a call of a service may be slow.
@functools.lru_cache(maxsize=64)
def _result(function: Function, shape: tuple[int, ...], dtype: Any, rank: int) -> tuple[tuple[int, ...], Any]:
    """Shape, without batch axis, and dtype of what a function gives, found by calling it on one black image."""
    found = np.asarray(function(np.zeros((1, *shape), dtype)))
    if found.ndim != rank + 1 or found.shape[0] != 1:
        expected = "[n, classes]" if rank == 1 else "[n, *grid, c]"
        raise ValueError(
            f"{getattr(function, '__name__', function)!r} gives shape {found.shape} for images of shape "
            f"{(1, *shape)}, expected {expected}"
        )
    # NumPy makes float64 of what it divides. JAX has it only where jax_enable_x64 is set, and else takes it as float32.
    return found.shape[1:], jax.dtypes.canonicalize_dtype(found.dtype)


def _called(function: Callable[..., np.ndarray], result: tuple[tuple[int, ...], Any], *arrays: Array) -> Array:
    """The function called on the host, its axes of `jax.vmap` joined with the batch axis."""
    shape, dtype = result
    ranks = [array.ndim for array in arrays]

    def call(*arrays: Any) -> np.ndarray:
        # `broadcast_all` puts the axes of `vmap` in front of the batch; the function knows one axis.
        batch = np.shape(arrays[0])[: np.ndim(arrays[0]) - ranks[0] + 1]
        joined = [np.asarray(array).reshape(-1, *np.shape(array)[len(batch) :]) for array in arrays]
        return np.asarray(function(*joined)).reshape(*batch, *shape)

    described = jax.ShapeDtypeStruct((arrays[0].shape[0], *shape), dtype)
    return jax.pure_callback(call, described, *arrays, vmap_method="broadcast_all")
