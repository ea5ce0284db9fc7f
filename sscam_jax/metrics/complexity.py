"""How simple is a map? Complexity, sparseness, coherency, and ADCC, which combines two of them with the drop.

Maps are [*m, *space] in [0, 1], with any leading axes (methods, images). Every function returns one value per map.
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
    """L1 complexity: how much of the image does the map keep?

    100 · mean of the map, in percent from 0 to 100. Lower is simpler. A zero map gets 0, the best value, so read it
    together with another metric. Quantus's `Complexity` is a different metric: the entropy of the map.

    Args:
        maps: maps [*m, *space] in [0, 1].
        spatial_axes: the number of spatial axes, which are the last ones.

    Returns:
        Percent, one value per map [*m].

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
    """Gini index: is the map concentrated on few pixels?

    G = Σ_i (2 i − n − 1) m_i / (n Σ m), where m_1 ≤ … ≤ m_n are the pixels. A uniform map has 0, and a map with a
    single non-zero pixel has 1 − 1/n. Higher is sparser. A zero map gets 0.

    Args:
        maps: maps [*m, *space], ≥ 0.
        spatial_axes: the number of spatial axes, which are the last ones.

    Returns:
        One Gini index per map [*m].

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
    # The inner `where` keeps the derivative finite: that of 0 / 0 would be NaN even where it is not selected.
    return jnp.where(total > 0, weighted / jnp.where(total > 0, total, 1.0), 0.0)


def coherency(
    maps: Float[Array, "..."], explained: Float[Array, "..."], *, spatial_axes: int = 2
) -> Float[Array, "..."]:
    """Coherency: does the method give the same map when the image is masked by its own map?

    100 · (1 + r) / 2, where r is Pearson's correlation of the map of X and the map of M ⊙ X, by the same method and for
    the same class. In percent from 0 to 100. Higher is better. Unrelated maps get 50. If one of the maps is constant,
    the value is 0.

    Args:
        maps: the maps of the images [*m, *space].
        explained: the maps of the masked images [*m, *space].
        spatial_axes: the number of spatial axes, which are the last ones.

    Returns:
        Percent, one value per map [*m].

    Raises:
        ValueError: the shapes differ, or have fewer axes than `spatial_axes`.

    Example:
        >>> maps = jnp.array([[0.0, 1.0], [0.0, 0.5]])
        >>> coherency(maps, maps).item(), coherency(maps, jnp.zeros((2, 2))).item()
        (100.0, 0.0)

    References:
        Poppi et al., Revisiting the Evaluation of Class Activation Mapping for Explainability, CVPR Workshops 2021.
    """
    # `pearson` returns 0 for constant maps, which would become 50 here, as good as unrelated maps.
    correlation = pearson(maps, explained, spatial_axes=spatial_axes)
    a, b = _flat(maps, spatial_axes), _flat(explained, spatial_axes)
    varies = (a.max(-1) > a.min(-1)) & (b.max(-1) > b.min(-1))
    return jnp.where(varies, 50 * (1 + correlation), 0.0)


def adcc(coherency: Float[Array, "*m"], complexity: Float[Array, "*m"], drop: Float[Array, "*m"]) -> Float[Array, "*m"]:
    """ADCC: the harmonic mean of coherency, 100 − complexity and 100 − drop.

    3 / (1 / coherency + 1 / (100 − complexity) + 1 / (100 − drop)), in percent from 0 to 100. Higher is better. The
    value is 0 if one of the three terms is 0. Given the values of images, it returns one value per image. Given means
    over a data set, it returns the value of the data set.

    Args:
        coherency: coherency in percent [*m].
        complexity: complexity in percent [*m].
        drop: the drop of the probability in percent [*m].

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
