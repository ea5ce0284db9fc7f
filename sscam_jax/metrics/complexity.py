"""How simple is a map? Complexity, sparseness, coherency, and ADCC that combines them with the drop.

Maps are [*m, *space] in [0, 1] with any leading axes (methods, images); every function gives one value a map.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sscam_jax.metrics.agreement import pearson


def _flat(maps: Float[Array, "..."], spatial_axes: int) -> Float[Array, "*m n"]:
    if not 1 <= spatial_axes <= maps.ndim:
        raise ValueError(
            f"spatial_axes={spatial_axes} does not fit maps of shape {maps.shape}; choose from 1 to {maps.ndim}"
        )
    return maps.reshape(*maps.shape[: maps.ndim - spatial_axes], -1).astype(jnp.float32)


def complexity(maps: Float[Array, "..."], *, spatial_axes: int = 2) -> Float[Array, "..."]:
    """L1 complexity: how much of the image the map keeps.

    100 · mean of the map, in percent, 0 to 100; lower is simpler. A zero map gets 0, the best value: read it beside
    another metric. (Quantus's `Complexity` is something else: the entropy of the map's distribution.)

    Args:
        maps: [*m, *space] in [0, 1].
        spatial_axes: how many of the last axes are space.

    Returns:
        Percent [*m].

    Raises:
        ValueError: the maps have fewer axes than `spatial_axes`.

    Example:
        >>> complexity(jnp.array([[1.0, 0.5], [0.0, 0.0]])).item()
        37.5

    References:
        Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021.
    """
    return 100 * _flat(maps, spatial_axes).mean(-1)


def sparseness(maps: Float[Array, "..."], *, spatial_axes: int = 2) -> Float[Array, "..."]:
    """Gini index of the map: how few pixels carry it.

    G = Σ_i (2 i − n − 1) m_i / (n Σ m), with the n pixels sorted upwards and i from 1; 0 for a uniform map, 1 − 1/n
    where one pixel has it all; higher is sparser. A zero map gets 0.

    Args:
        maps: [*m, *space], ≥ 0.
        spatial_axes: how many of the last axes are space.

    Returns:
        Gini indices [*m].

    Raises:
        ValueError: the maps have fewer axes than `spatial_axes`.

    Example:
        >>> sparseness(jnp.array([[[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])).tolist()
        [0.75, 0.0]

    References:
        Chalasani et al., Concise Explanations of Neural Networks using Adversarial Training, ICML 2020.
    """
    ordered = jnp.sort(_flat(maps, spatial_axes), axis=-1)
    n = ordered.shape[-1]
    rank = (2 * jnp.arange(1, n + 1, dtype=jnp.float32) - n - 1) / n
    total = ordered.sum(-1)
    weighted = jnp.einsum("...i,i->...", ordered, rank, precision="highest")
    return jnp.where(total > 0, weighted / jnp.where(total > 0, total, 1.0), 0.0)


def coherency(
    maps: Float[Array, "..."], explained: Float[Array, "..."], *, spatial_axes: int = 2
) -> Float[Array, "..."]:
    """Does the explanation explain itself? Correlation of a map with the map of the input that it leaves.

    100 · (1 + r) / 2, with r Pearson's correlation of the map of X and the map of M ⊙ X by the same method and class,
    in percent, 0 to 100; higher is better. Maps that have nothing to do with one another get 50; where one of them is
    constant and so says nothing: 0.

    Args:
        maps: maps of the images [*m, *space].
        explained: maps of the images as the first maps leave them [*m, *space].
        spatial_axes: how many of the last axes are space.

    Returns:
        Percent [*m].

    Raises:
        ValueError: the shapes differ, or have fewer axes than `spatial_axes`.

    Example:
        >>> maps = jnp.array([[0.0, 1.0], [0.0, 0.5]])
        >>> coherency(maps, maps).item(), coherency(maps, jnp.zeros((2, 2))).item()
        (100.0, 0.0)

    References:
        Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021.
    """
    correlation = pearson(maps, explained, spatial_axes=spatial_axes)
    a, b = _flat(maps, spatial_axes), _flat(explained, spatial_axes)
    varies = (a.max(-1) > a.min(-1)) & (b.max(-1) > b.min(-1))
    return jnp.where(varies, 50 * (1 + correlation), 0.0)


def adcc(coherency: Float[Array, "*m"], complexity: Float[Array, "*m"], drop: Float[Array, "*m"]) -> Float[Array, "*m"]:
    """ADCC: Average Drop, Coherency and Complexity in one number, their harmonic mean.

    3 / (1 / coherency + 1 / (100 − complexity) + 1 / (100 − drop)), in percent, 0 to 100; higher is better, and 0 where
    one of the three is 0. Of single images it is a value an image; of means over a data set, the data set's.

    Args:
        coherency: percent [*m].
        complexity: percent [*m].
        drop: the drop of the class's probability, percent [*m].

    Returns:
        Percent [*m].

    Example:
        >>> f"{adcc(jnp.float32(90), jnp.float32(40), jnp.float32(10)):.2f}"
        '77.14'

    References:
        Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021.
    """
    parts = jnp.stack([coherency, 100 - complexity, 100 - drop])
    positive = (parts > 0).all(0)
    return jnp.where(positive, 3 / (1 / jnp.where(parts > 0, parts, 1.0)).sum(0), 0.0)
