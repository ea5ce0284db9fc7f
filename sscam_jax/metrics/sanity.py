"""Sanity checks: the map must change when the parameters of the network, or the class, change."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from sscam_jax.metrics._passes import each
from sscam_jax.metrics.agreement import spearman, ssim
from sscam_jax.types import Params


class Similarity(NamedTuple):
    """How similar maps are before and after a change. A high value means that the method does not use what changed.

    Attributes:
        rank_correlation: Spearman's rank correlation, in [−1, 1].
        ssim: structural similarity, at most 1.
    """

    rank_correlation: Float[Array, "..."]
    ssim: Float[Array, "..."]


def _similarity(a: Float[Array, "m b *space"], b: Float[Array, "m b *space"]) -> Similarity:
    axes = a.ndim - 2
    return Similarity(spearman(a, b, spatial_axes=axes), ssim(a, b, spatial_axes=axes))


def cascade(params: Params, layers: Sequence[str], *, key: Key[Array, ""]) -> Iterator[tuple[str, Params]]:
    """Randomise the layers of a network one after the other.

    Randomising a layer permutes the values within each of its arrays. This destroys what was learned, but keeps the
    scale, and variances stay positive. (Adebayo et al. draw from the initialiser, which a pytree does not have.) The
    permutation of an array does not depend on the other layers in the list.

    Args:
        params: the parameters of the network.
        layers: paths in the pytree, such as "layer4" or "features/12", starting at the output. Each layer is randomised
            in addition to those before it. A layer is everything under its path.
        key: a key from `jax.random.key`.

    Returns:
        An iterator over the name of each layer and the parameters after its randomisation.

    Raises:
        ValueError: a layer has no parameters, or all its parameters belong to layers before it in the list.

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
        # With the slash, or "layer1" would stand for "layer10" too.
        found = {i for i, path in enumerate(paths) if f"{path}/".startswith(f"{layer}/")}
        if not found - done:
            known = sorted({path.rpartition("/")[0] or path for path in paths})
            why = "has only parameters of layers before it in the list" if found else "is not in params"
            raise ValueError(
                f"layer {layer!r} {why}; choose from {', '.join(map(repr, known))}, or the start of such a path"
            )
        # The key of an array comes from its own number, not from the order of the layers.
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
    """Compare the maps before and after the layers of the network are randomised, starting at the output.

    If the maps stay similar, the method does not use what these layers learned. The rank correlation with a flat map
    is 0.

    Args:
        explain: the methods as a function of the parameters, for fixed images and labels. It returns maps
            [m, b, *space].
        params: the parameters of the network.
        layers: as in `cascade`.
        key: a key from `jax.random.key`.

    Returns:
        By layer, in the given order, the `Similarity` [m, b] of the maps after this layer and all layers before it in
        the list are randomised.

    Raises:
        ValueError: `cascade` refuses the layers, or the maps are smaller than SSIM's window of 11 pixels.

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
    """Compare the map of each image's class with the map of another, random class.

    If the maps are similar, the method does not use the class.

    Args:
        explain: the methods as a function of the classes, for fixed images and parameters. It returns maps
            [m, b, *space].
        labels: class indices [b].
        n_classes: the number of classes of the network, at least two.
        key: a key from `jax.random.key`.
        ids: one integer per image [b], which seeds its random class. None is the position in the batch.

    Returns:
        The `Similarity` [m, b].

    Raises:
        ValueError: `n_classes` is less than two, or the maps are smaller than SSIM's window of 11 pixels.

    Example:
        >>> ramp = jnp.linspace(0, 1, 256).reshape(1, 1, 16, 16)
        >>> random_logit(lambda labels: ramp, jnp.array([0]), 10, key=jax.random.key(0)).rank_correlation.tolist()
        [[1.0]]

    References:
        Sixt et al., When Explanations Lie: Why Many Modified BP Attributions Fail, ICML 2020.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes={n_classes} is too small, expected at least 2: another class is needed")

    def draw(key: Key[Array, ""], label: Int[Array, ""]) -> Int[Array, ""]:
        # Adding 1 to n − 1 modulo n reaches every class except the label itself, with equal probability.
        return (label + jax.random.randint(key, (), 1, n_classes)) % n_classes

    others = jax.vmap(draw)(each(key, ids, labels.shape[0]), labels)
    return _similarity(explain(labels), explain(others))
