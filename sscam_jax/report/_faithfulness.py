"""How faithful each map of an explanation is: Average Drop, insertion, deletion."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sscam_jax import metrics
from sscam_jax.report._network import Network
from sscam_jax.report._plan import Request
from sscam_jax.types import Saliency


class Faithfulness(NamedTuple):
    """What the probability of the class does when the image is changed by a map; see `metrics`.

    Attributes:
        drop: Average Drop in percent; lower is better.
        insertion: the area under the insertion curve, in [0, 1]; higher is better.
        deletion: the area under the deletion curve, in [0, 1]; lower is better.
        insertion_curve: the probability after each step.
        deletion_curve: the probability after each step.
        shares: the share of changed pixels after each step.
    """

    drop: Float[np.ndarray, " rows"]
    insertion: Float[np.ndarray, " rows"]
    deletion: Float[np.ndarray, " rows"]
    insertion_curve: Float[np.ndarray, "rows s"]
    deletion_curve: Float[np.ndarray, "rows s"]
    shares: Float[np.ndarray, " s"]


def measured(
    network: Network,
    images: Float[Array, "b *space c"],
    labels: Sequence[int],
    saliency: Mapping[str, Saliency],
    request: Request,
) -> dict[str, Faithfulness]:
    """Measure the maps of an image, or of the frames of a film, row by row.

    Args:
        network: what was explained.
        images: what the network sees.
        labels: the classes.
        saliency: the maps of every method: of the first class for all images, then of the second, …
        request: what was asked for.

    Returns:
        By method, a `Faithfulness` with the same rows.
    """
    rows = []
    for i in range(len(labels) * len(images)):
        # All methods of an image in one call: they share the unchanged image's pass, and one program serves all images.
        maps = jnp.stack([jnp.asarray(found.maps[i : i + 1]) for found in saliency.values()])
        # As `_explained` orders rows: all images of a class, then the next class.
        label, place = labels[i // len(images)], i % len(images)
        given = (network.apply, network.params, images[place : place + 1], jnp.array([label], jnp.int32), maps)
        colours = dict(mean=tuple(request.mean), std=tuple(request.std))
        drop = metrics.average_drop(metrics.confidence(*given, **colours, chunk_size=request.chunk_size))
        added = metrics.insertion(*given, chunk_size=request.chunk_size)
        removed = metrics.deletion(*given, chunk_size=request.chunk_size)
        rows.append(jax.device_get((drop, added.auc, removed.auc, added.curve, removed.curve)))
    joined = [np.concatenate(parts, axis=1) for parts in zip(*rows, strict=True)]  # each [methods, rows, …]
    shares = np.asarray(added.shares)
    return {text: Faithfulness._make([*(part[m] for part in joined), shares]) for m, text in enumerate(saliency)}
