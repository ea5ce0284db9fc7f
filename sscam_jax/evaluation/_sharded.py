"""The jitted functions of the loop over a data set: a batch's images, each device working on its share of them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from sscam_jax.metrics import Case, Metric, measure
from sscam_jax.types import Apply, Params, Saliency


class Maps(NamedTuple):
    """What one method says of a batch: the fields of `Saliency` that the loop reads."""

    maps: Float[Array | np.ndarray, "b *space"]
    raw: Float[Array | np.ndarray, "b *grid"]
    flat: Bool[Array | np.ndarray, " b"]
    passes: Int[Array | np.ndarray, " b"]


def kept(name: str, found: Any, images: Any) -> Maps:
    """The fields that the loop reads of what a method gave: a `Saliency`, or an array of maps.

    Of an array nobody knows how many passes it took: -1.

    Raises:
        ValueError: it is neither, or not a map of each image.
    """
    shape = images.shape[:-1]
    if not isinstance(found, Saliency) and not isinstance(found, jax.Array | np.ndarray):
        raise ValueError(f"method '{name}' gave {type(found).__name__}, expected a Saliency or an array of maps")
    maps = found.maps if isinstance(found, Saliency) else found
    if maps.shape != shape:
        raise ValueError(
            f"method '{name}' gave maps of shape {maps.shape}, expected {shape}: one per image, at the input's "
            "resolution (sscam_jax.ops.resize brings them there)"
        )
    if isinstance(found, Saliency):
        return Maps(found.maps, found.raw, found.flat, found.passes)
    # Under `jax.jit` the array is traced; on the host it stays NumPy, so that nothing is sent to a device and back.
    array = jnp if isinstance(found, jax.Array) else np
    maps, space = found.astype(np.float32), tuple(range(1, found.ndim))
    return Maps(maps, maps, maps.max(space) == maps.min(space), array.full(shape[0], -1, np.int32))


def shared(function: Callable[..., Any], mesh: Mesh, replicated: Sequence[bool]) -> Callable[..., Any]:
    """The function with every device working on its share of the images, axis 0 of the arguments not replicated."""
    everywhere, by_image = PartitionSpec(), PartitionSpec("images")
    specs = tuple(everywhere if each else by_image for each in replicated)
    return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=by_image, check_vma=False)


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits_of(apply: Apply, mesh: Mesh, params: Params, images: Float[Array, "b *space c"]) -> Float[Array, "b n"]:
    """The logits in float32."""
    return shared(lambda params, images: apply(params, images).astype(jnp.float32), mesh, (True, False))(params, images)


# What chooses the program is static. Parameters and images are not, or every batch would compile it again.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def maps_of(
    name: str,
    method: Callable[..., Any],
    given: tuple[str, ...],
    apply: Apply,
    mesh: Mesh,
    params: Params,
    images: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    key: Key[Array, ""],
    ids: Int[Array, " b"],
) -> Maps:
    """A method of a few passes, on the whole batch, the images shared among the devices."""

    def share(params: Params, images: Array, labels: Array, key: Array, ids: Array) -> Maps:
        keywords = {keyword: value for keyword, value in (("key", key), ("ids", ids)) if keyword in given}
        return kept(name, method(apply, params, images, labels, **keywords), images)

    return shared(share, mesh, (True, False, False, True, False))(params, images, labels, key, ids)


Colours = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the images' channels."""


# One program for all of them: what metrics share, such as the passes of drop, increase and gain, is computed once.
@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def columns_of(
    metrics: tuple[tuple[str, Metric], ...],
    colours: Colours,
    apply: Apply,
    mesh: Mesh,
    params: Params,
    images: Float[Array, "b *space c"],
    labels: Int[Array, " b"],
    boxes: Float[Array, "b k 4"],
    maps: Float[Array, "b m *space"],
    key: Key[Array, ""],
    ids: Int[Array, " b"],
) -> dict[str, Float[Array, "b m"]]:
    """All metrics that look at maps alone, the images shared among the devices."""

    def share(
        params: Params, images: Array, labels: Array, boxes: Array, maps: Array, key: Array, ids: Array
    ) -> dict[str, Array]:
        case = Case(apply, params, images, labels, boxes, jnp.moveaxis(maps, 1, 0), key, ids, no_rerun, *colours)
        return {name: column.T for name, column in measure(dict(metrics), case).items()}

    replicated = (True, False, False, False, False, True, False)
    return shared(share, mesh, replicated)(params, images, labels, boxes, maps, key, ids)


def no_rerun(inputs: Array) -> Array:
    """What stands for the methods where a metric must not run them again."""
    raise ValueError("a metric ran the methods again without saying so: its Metric needs reruns=True")
