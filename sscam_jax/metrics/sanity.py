"""Sanity checks: a map that explains a network changes when the network's parameters, or the class, do."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sscam_jax.metrics._passes import each
from sscam_jax.metrics.agreement import spearman, ssim
from sscam_jax.types import Params


class Similarity(NamedTuple):
    """How alike maps are to what they were; high where a method does not look at what was changed.

    Attributes:
        rank_correlation: Spearman's, in [−1, 1].
        ssim: structural similarity, at most 1.
    """

    rank_correlation: Float[Array, "..."]
    ssim: Float[Array, "..."]


def _similarity(a: Float[Array, "m b *space"], b: Float[Array, "m b *space"]) -> Similarity:
    axes = a.ndim - 2
    return Similarity(spearman(a, b, spatial_axes=axes), ssim(a, b, spatial_axes=axes))


def cascade(params: Params, layers: Sequence[str], *, key: Key[Array, ""]) -> Iterator[tuple[str, Params]]:
    """Parameters with more and more layers randomised.

    A layer is randomised by permuting the values within each of its arrays: nothing learned is left, but scales stay
    and variances stay positive. (Adebayo et al. draw from the initialiser, which a pytree does not know.) An array is
    permuted in the same way whichever layers are named.

    Args:
        params: the network's parameters.
        layers: paths in the pytree, such as "layer4" or "features/12", from the output back: each comes on top of those
            before it. A layer is everything under its path.
        key: a key of `jax.random.key`.

    Returns:
        An iterator over each layer's name and the parameters after it.

    Raises:
        ValueError: a layer without parameters, or whose parameters all belong to layers before it.

    Example:
        >>> params = {"conv": jnp.arange(4.0), "fc": jnp.arange(4.0)}
        >>> for layer, changed in cascade(params, ["fc", "conv"], key=jax.random.key(0)):
        ...     print(layer, [name for name in params if (changed[name] != params[name]).any()])
        fc ['fc']
        conv ['conv', 'fc']

    References:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    values = [leaf for _, leaf in leaves]
    done: set[int] = set()
    for layer in layers:
        found = {i for i, path in enumerate(paths) if f"{path}/".startswith(f"{layer}/")}
        if not found - done:
            known = sorted({path.rpartition("/")[0] or path for path in paths})
            why = "has no parameters but those of layers before it" if found else "is not in params"
            raise ValueError(
                f"layer {layer!r} {why}; choose from {', '.join(map(repr, known))}, or what they are under"
            )
        for i in found - done:
            flat = jnp.asarray(values[i]).reshape(-1)
            values[i] = jax.random.permutation(jax.random.fold_in(key, i), flat).reshape(jnp.shape(values[i]))
        done |= found
        yield layer, jax.tree.unflatten(structure, values)


def cascading_randomisation(
    explain: Callable[[Params], Float[Array, "m b *space"]],
    params: Params,
    layers: Sequence[str],
    *,
    key: Key[Array, ""],
) -> dict[str, Similarity]:
    """How alike the maps stay as the network's layers are randomised, from the output back.

    A method whose maps stay alike does not look at what those layers learned. Similarity to a flat map is 0 in rank
    correlation.

    Args:
        explain: the methods as a function of the parameters, with images and labels fixed: maps [m, b, *space].
        params: the network's parameters.
        layers: as in `cascade`.
        key: a key of `jax.random.key`.

    Returns:
        For each layer, in their order, the `Similarity` [m, b] of the maps with all layers up to it randomised.

    Raises:
        ValueError: layers that `cascade` refuses, or maps smaller than SSIM's window of 11 pixels.

    Example:
        >>> params = {"conv": jnp.arange(256.0), "fc": jnp.arange(256.0)}
        >>> found = cascading_randomisation(lambda params: params["conv"].reshape(1, 1, 16, 16) / 255, params,
        ...                                 ["fc", "conv"], key=jax.random.key(0))
        >>> {layer: similarity.rank_correlation.round(1).tolist() for layer, similarity in found.items()}
        {'fc': [[1.0]], 'conv': [[...]]}

    References:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    maps = explain(params)
    return {layer: _similarity(maps, explain(changed)) for layer, changed in cascade(params, layers, key=key)}


def random_logit(
    explain: Callable[[Int[Array, " b"]], Float[Array, "m b *space"]],
    labels: Int[Array, " b"],
    n_classes: int,
    *,
    key: Key[Array, ""],
    ids: Int[Array, " b"] | None = None,
) -> Similarity:
    """How alike the maps of each image's class and of another, random class are.

    A method whose maps are alike does not look at the class.

    Args:
        explain: the methods as a function of the classes, with images and parameters fixed: maps [m, b, *space].
        labels: class indices [b].
        n_classes: how many classes the network has, at least two.
        key: a key of `jax.random.key`.
        ids: an integer an image [b] that its random class belongs to; None: its position in the batch.

    Returns:
        The `Similarity` [m, b].

    Raises:
        ValueError: fewer than two classes, or maps smaller than SSIM's window of 11 pixels.

    Example:
        >>> ramp = jnp.linspace(0, 1, 256).reshape(1, 1, 16, 16)
        >>> random_logit(lambda labels: ramp, jnp.array([0]), 10, key=jax.random.key(0)).rank_correlation.tolist()
        [[1.0]]

    References:
        Sixt et al., When Explanations Lie: Why Many Modified BP Attributions Fail, ICML 2020.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes={n_classes} is too small, expected at least 2: another class is explained")

    def draw(key: Key[Array, ""], label: Int[Array, ""]) -> Int[Array, ""]:
        return (label + jax.random.randint(key, (), 1, n_classes)) % n_classes

    others = jax.vmap(draw)(each(key, ids, labels.shape[0]), labels)
    return _similarity(explain(labels), explain(others))
