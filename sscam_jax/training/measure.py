"""What a data set shows, and how well a network names it: accuracy and mean average precision."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from sscam_jax import data
from sscam_jax.types import Apply, Params


class Pictures(NamedTuple):
    """The images of a data set, each once, and what is on them.

    Attributes:
        ids: the place in the data set of each image's first example [n].
        targets: whether the image shows the class [n, classes].
    """

    ids: Int[np.ndarray, " n"]
    targets: Bool[np.ndarray, "n classes"]


def pictures(source: data.Source) -> Pictures:
    """Gather the examples of a data set by image: VOC has one per image and class.

    Raises:
        ValueError: the data set has no list of classes, or an example has no class.
    """
    if source.classes is None:
        raise ValueError(f"{source.name} has no list of classes, so there is nothing to learn; choose another data set")
    found: dict[Any, tuple[int, set[int]]] = {}
    for place, example in enumerate(source):
        if example.label < 0:
            raise ValueError(f"example '{example.name}' of {source.name} has no class, expected one of each image")
        # Files share the path, TFDS's records the bytes; images in memory are the same if they are one object.
        image = example.image if isinstance(example.image, (pathlib.Path, bytes)) else id(example.image)
        found.setdefault(image, (place, set()))[1].add(example.label)
    targets = np.zeros((len(found), len(source.classes)), bool)
    for row, (_, labels) in enumerate(found.values()):
        targets[row, sorted(labels)] = True
    return Pictures(np.array([place for place, _ in found.values()]), targets)


def accuracy(scores: Float[np.ndarray, "n classes"], targets: Bool[np.ndarray, "n classes"]) -> float:
    """The share of images, in percent, whose highest score is that of a class on the image.

    Example:
        >>> accuracy(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[True, False], [False, True]]))
        50.0
    """
    return 100 * float(targets[np.arange(len(scores)), scores.argmax(1)].mean())


def mean_average_precision(scores: Float[np.ndarray, "n classes"], targets: Bool[np.ndarray, "n classes"]) -> float:
    """The mean over the classes of their average precision, in percent.

    AP = Σ_i precision(i) / positives, where i runs over the places of the positive images in the list that is sorted by
    score. This is the area under the precision-recall curve without interpolation, as VOC measures it since 2010.
    Classes without a positive image do not count.

    Example:
        >>> mean_average_precision(np.array([[0.9], [0.8], [0.7]]), np.array([[True], [False], [True]])).__round__(1)
        83.3
    """
    found = []
    for column, there in zip(scores.T, targets.T, strict=True):
        if there.any():
            # Stable: images of equal scores stay in their order, so that the value is the same on every machine.
            hits = there[np.argsort(-column, kind="stable")]
            found.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return 100 * float(np.mean(found))


def metric(multi_label: bool) -> tuple[str, Any]:
    return ("mAP", mean_average_precision) if multi_label else ("accuracy", accuracy)


def rows(
    source: data.Source, ids: Int[np.ndarray, " n"], size: int, batch_size: int = 16
) -> Iterator[Float[np.ndarray, "batch_size h w 3"]]:
    """The images at these places of a data set, in full batches: the last one is padded with black."""
    chosen = dataclasses.replace(source, ids=source.ids[ids])
    loader = data.batches(chosen, batch_size=batch_size, size=size)
    for batch in loader:
        yield np.asarray(batch.images)
    # An image that cannot be read would be learned as grey.
    if unread := [problem for problem in loader.problems if problem.kind == "unreadable"]:
        raise ValueError(f"{len(unread)} images of {source.name} cannot be read, the first is {unread[0].name}")


def evaluate_head(
    apply: Apply, params: Params, source: data.Source, *, multi_label: bool = False, size: int = 224
) -> float:
    """The accuracy or mAP of a network on a data set whose classes are its logits.

    Args:
        apply: the network.
        params: its parameters.
        source: the data set; class i belongs to logit i.
        multi_label: whether an image may have several classes: mAP instead of accuracy.
        size: the height and width of the images in pixels.

    Returns:
        The accuracy or mAP in percent.

    Raises:
        ValueError: the network has another number of logits than the data set has classes.
    """
    seen = pictures(source)
    run = jax.jit(apply)
    logits = np.concatenate([np.asarray(run(params, images)) for images in rows(source, seen.ids, size)])
    # Without the rows that fill the last batch.
    logits = logits[: len(seen.ids)]
    if logits.shape[1] != seen.targets.shape[1]:
        raise ValueError(
            f"the network has {logits.shape[1]} logits, expected {seen.targets.shape[1]}: one for each class of "
            f"{source.name}"
        )
    return metric(multi_label)[1](logits, seen.targets)
