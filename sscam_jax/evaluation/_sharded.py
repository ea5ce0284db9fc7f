"""The jitted functions of the loop over a data set: a batch's images, each device working on its share of them."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from sscam_jax import metrics as library
from sscam_jax.cams.registry import Method
from sscam_jax.types import Apply, Params, Saliency


class Maps(NamedTuple):
    """One method's answer to a batch: the fields of `Saliency` that are kept."""

    maps: Float[Array, "b *space"]
    raw: Float[Array, "b *grid"]
    flat: Bool[Array, " b"]
    passes: Int[Array, " b"]


def kept(saliency: Saliency) -> Maps:
    """The fields that the loop reads; channels' weights differ in number between layers."""
    return Maps(saliency.maps, saliency.raw, saliency.flat, saliency.passes)


def takes(method: Method, name: str) -> bool:
    """Whether the method has an argument of this name."""
    return name in inspect.signature(method).parameters


def shared(function: Callable[..., Any], mesh: Mesh, replicated: Sequence[bool]) -> Callable[..., Any]:
    """The function with every device working on its share of the images, axis 0 of the arguments not replicated."""
    everywhere, by_image = PartitionSpec(), PartitionSpec("images")
    specs = tuple(everywhere if each else by_image for each in replicated)
    if hasattr(jax, "shard_map"):
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=by_image, check_vma=False)
    from jax.experimental.shard_map import shard_map

    return shard_map(function, mesh=mesh, in_specs=specs, out_specs=by_image, check_rep=False)


@functools.partial(jax.jit, static_argnums=(0, 1))
def logits_of(apply: Apply, mesh: Mesh, params: Params, images: Float[Array, "b *space c"]) -> Float[Array, "b n"]:
    """The network's answers in float32."""
    return shared(lambda params, images: apply(params, images).astype(jnp.float32), mesh, (True, False))(params, images)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def maps_of(
    method: Method,
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
        given = {name: value for name, value in (("key", key), ("ids", ids)) if takes(method, name)}
        return kept(method(apply, params, images, labels, **given))

    return shared(share, mesh, (True, False, False, True, False))(params, images, labels, key, ids)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def columns_of(
    names: tuple[str, ...],
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
        def explain(_: Array) -> Array:
            raise AssertionError("a metric ran the methods again without saying so")

        case = library.Case(apply, params, images, labels, boxes, jnp.moveaxis(maps, 1, 0), key, ids, explain)
        return {name: column.T for name, column in library.measure(names, case).items()}

    replicated = (True, False, False, False, False, True, False)
    return shared(share, mesh, replicated)(params, images, labels, boxes, maps, key, ids)
