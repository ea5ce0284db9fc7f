"""Quantus in both directions: its metrics on maps of this package, and methods of this package in its metrics.

Quantus takes models of PyTorch and TensorFlow. Here it gets an `Apply` with its parameters behind the interface of its
models, so neither framework is needed. Its images are channels first, those of this package channels last.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sscam_jax._support import imported
from sscam_jax.metrics import Case, Metric, box_mask
from sscam_jax.metrics.sanity import cascade
from sscam_jax.types import Apply, Params, Saliency


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """What Quantus hands to its explanation functions in the place of a PyTorch or TensorFlow model.

    Attributes:
        apply: the network.
        params: its parameters.
        layers: paths in `params` that metrics of randomisation go through, see `metrics.cascade`.
    """

    apply: Apply
    params: Params
    layers: tuple[str, ...] = ()

    def logits(self, x: np.ndarray) -> np.ndarray:
        """From images [b, c, *space] to logits [b, n]."""
        return np.asarray(_logits(self.apply, self.params, jnp.asarray(x, jnp.float32)))

    def hidden(self, x: np.ndarray) -> np.ndarray:
        """From images [b, c, *space] to the target layer's activations [b, everything]."""
        activations, _ = self.apply.features(self.params, jnp.moveaxis(jnp.asarray(x, jnp.float32), 1, -1))
        return np.asarray(activations).reshape(len(x), -1)


@functools.partial(jax.jit, static_argnums=0)
def _logits(apply: Apply, params: Params, x: Float[Array, "b c *space"]) -> Float[Array, "b n"]:
    return apply(params, jnp.moveaxis(x, 1, -1))


class _Model:
    """A `Network` behind the interface of Quantus's models, see `_interface`."""

    model: Network
    softmax: bool

    def predict(self, x: np.ndarray, **_: Any) -> np.ndarray:
        logits = self.model.logits(x)
        return np.asarray(jax.nn.softmax(logits)) if self.softmax else logits

    def shape_input(
        self, x: np.ndarray, shape: Sequence[int], channel_first: bool | None = None, batched: bool = False
    ) -> np.ndarray:
        return x if batched else x.reshape(1, *shape)

    def get_model(self) -> Network:
        return self.model

    def get_softmax_arg_model(self) -> Network:
        return self.model

    def state_dict(self) -> dict[str, np.ndarray]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(self.model.params)
        return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}

    def get_random_layer_generator(self, order: str = "top_down", seed: int = 42) -> Iterator[tuple[str, Network]]:
        layers = self.model.layers[:: -1 if order == "bottom_up" else 1]
        for chain in [[layer] for layer in layers] if order == "independent" else [layers]:
            for layer, params in cascade(self.model.params, chain, key=jax.random.key(seed)):
                yield layer, dataclasses.replace(self.model, params=params)

    @property
    def random_layer_generator_length(self) -> int:
        return len(self.model.layers)

    def get_hidden_representations(self, x: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        return self.model.hidden(x)

    def add_mean_shift_to_first_layer(self, input_shift: float, shape: Sequence[int]) -> Any:
        raise NotImplementedError(
            "input invariance moves a shift of the input into the bias of the first layer, and an Apply does not "
            "say which of its parameters that is: choose another metric"
        )


@functools.cache
def _interface() -> Callable[..., Any]:
    """`_Model` as a class of Quantus; made when it is asked for, since Quantus is an extra."""
    return type("Model", (_Model, imported("quantus", "quantus").ModelInterface), {})


def _wrapped(theirs: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(model: Any, channel_first: bool, softmax: bool, *more: Any, **options: Any) -> Any:
        if isinstance(model, Network):
            return _interface()(model, channel_first, softmax)
        return theirs(model, channel_first, softmax, *more, **options)

    return wrapped


def explain_func(
    method: Callable[..., Any], apply: Apply, params: Params, **options: Any
) -> Callable[..., Float[np.ndarray, "b *space"]]:
    """A method as the `explain_func` of Quantus.

    Args:
        method: any method of this package, or a function with its first four arguments.
        apply: the network, cut at the target layer.
        params: its parameters. Where `scores` runs a metric that randomises layers, the random ones are used.
        **options: of the method, such as `key` and `preset`.

    Returns:
        `explain_func(model, inputs [b, c, *space], targets [b], **ignored) -> maps [b, *space]`, in [0, 1].

    Example:
        >>> from sscam_jax.cams import grad_cam
        >>> apply = Apply(lambda params, x: (x, ()), lambda params, activations, carry: activations.mean((1, 2)))
        >>> explain = explain_func(grad_cam, apply, ())
        >>> explain(None, np.ones((2, 3, 4, 4), np.float32), np.array([0, 1])).shape
        (2, 4, 4)
    """

    def explain(model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> Float[np.ndarray, "b *space"]:
        images = jnp.moveaxis(jnp.asarray(inputs, jnp.float32), 1, -1)
        given = model.params if isinstance(model, Network) else params
        found = method(apply, given, images, jnp.asarray(targets, jnp.int32), **options)
        return np.array(found.maps if isinstance(found, Saliency) else found)  # a copy: Quantus works in place

    return explain


def scores(
    metric: Callable[..., Any],
    apply: Apply,
    params: Params,
    images: Float[Array | np.ndarray, "b *space c"],
    labels: Int[Array | np.ndarray, " b"],
    *,
    maps: Float[Array | np.ndarray, "b *space"] | None = None,
    masks: Bool[np.ndarray, "b 1 *space"] | None = None,
    explain: Callable[..., Any] | None = None,
    layers: Sequence[str] = (),
    softmax: bool = True,
) -> Any:
    """Call a metric of Quantus with a network of this package.

    Args:
        metric: an object of one of Quantus's metrics, such as `quantus.PixelFlipping()`.
        apply: the network.
        params: its parameters.
        images: as the network takes them.
        labels: the classes that the maps explain.
        maps: the maps; None: `explain` makes them.
        masks: true where the object is, for metrics of localisation.
        explain: what `explain_func` gives, for metrics that explain changed images or networks.
        layers: paths in `params`, from the output on, for metrics that randomise layers; see `metrics.cascade`.
        softmax: whether the metric sees probabilities; otherwise logits.

    Returns:
        What the metric returns, mostly a list of one number per image.

    Raises:
        ValueError: there are neither maps nor `explain`, the maps do not fit the images, `metric` is a class; and what
            the metric raises.
        ImportError: Quantus is not installed.
        NotImplementedError: the metric needs what an `Apply` does not tell (input invariance).

    References:
        Hedström et al., Quantus: An Explainable AI Toolkit for Responsible Evaluation of Neural Network Explanations
        and Beyond (JMLR 2023).
    """
    if maps is None and explain is None:
        raise ValueError("maps and explain are both None, expected one of them: explain=explain_func(method, …)")
    if isinstance(metric, type):
        raise ValueError(f"metric is the class {metric.__name__}, expected an object of it: {metric.__name__}()")
    if maps is not None and np.shape(maps) != np.shape(images)[:-1]:
        raise ValueError(
            f"maps have shape {np.shape(maps)} for images of shape {np.shape(images)}, expected "
            f"{np.shape(images)[:-1]}: sscam_jax.ops.resize brings them there"
        )
    utils = imported("quantus", "quantus").helpers.utils
    # Quantus takes PyTorch's and TensorFlow's models only. This one function of it decides, so it learns of a third.
    with mock.patch.object(utils, "get_wrapped_model", _wrapped(utils.get_wrapped_model)):
        return metric(
            model=Network(apply, params, tuple(layers)),
            x_batch=np.ascontiguousarray(np.moveaxis(np.asarray(images), -1, 1)),
            y_batch=np.asarray(labels),
            a_batch=None if maps is None else np.array(maps),  # a copy: Quantus works in place
            s_batch=None if masks is None else np.array(masks),
            explain_func=explain,
            channel_first=True,
            softmax=softmax,
            batch_size=len(labels),  # one batch, so that the network is compiled once
        )


@dataclasses.dataclass(frozen=True, eq=False)
class _Values:
    """The values of a Quantus metric for a `Case`. Its class and options tell it from others in a fingerprint."""

    make: Callable[..., Any]
    options: dict[str, Any]
    needs_boxes: bool

    def __call__(self, case: Case) -> Float[Array, "m b"]:
        images, labels = np.asarray(case.images), np.asarray(case.labels)
        masks = None
        if self.needs_boxes:
            height, width = images.shape[1:-1]
            masks = np.asarray(box_mask(case.boxes, (height, width)))[:, None] >= 0.5
        boxed = np.ones(len(images), bool) if masks is None else masks.any((1, 2, 3))
        values = np.full((len(case.maps), len(images)), np.nan, np.float32)
        for j, maps in enumerate(np.asarray(case.maps)):
            # Quantus refuses a map of equal values, and knows no image without an object.
            live = boxed & (np.ptp(maps.reshape(len(maps), -1), axis=1) > 0)
            if live.any():
                chosen = dict(maps=maps[live], masks=None if masks is None else masks[live])
                values[j, live] = self._of(case, images[live], labels[live], chosen)
        return jnp.asarray(values)

    def _of(self, case: Case, images: np.ndarray, labels: np.ndarray, chosen: dict[str, Any]) -> np.ndarray:
        found = np.asarray(scores(self.make(**self.options), case.apply, case.params, images, labels, **chosen))
        if found.shape != labels.shape:
            raise ValueError(
                f"{self.make.__name__} gave values of shape {found.shape}, expected one per image ({labels.shape}): "
                "some metrics of Quantus need return_auc_per_sample=True"
            )
        return found.astype(np.float32)


def metric(make: Callable[..., Any], *, needs_boxes: bool = False, **options: Any) -> Metric:
    """A metric of Quantus as a `Metric`, for `sscam.evaluate` and `metrics.measure`.

    It must give one number per image from the map, the network and the object's place. Metrics that explain again
    (robustness, randomisation) are for `scores`. Quantus refuses a map of equal values: it gets NaN, so the table
    leaves this image out for all methods. A pixel belongs to the object where boxes cover half of the pixel.

    Args:
        make: the metric's class, such as `quantus.Sparseness`.
        needs_boxes: whether it needs the object's place (localisation).
        **options: of the class. Where they do not say otherwise, maps stay as they are (`abs` and `normalise` are
            False), and warnings and bars are off.

    Returns:
        The metric. Its direction is what Quantus states.

    Raises:
        ValueError: it is not a class, or states no direction.
    """
    better = getattr(getattr(make, "score_direction", None), "value", None)
    if better not in ("higher", "lower") or not isinstance(make, type):
        raise ValueError(
            f"{make!r} is not a class that states the direction of its scores, expected one such as "
            "quantus.Sparseness; its options are keywords"
        )
    # Maps are in [0, 1] already: what Quantus normalises would be another map than the one that is named.
    quiet = dict(abs=False, normalise=False, disable_warnings=True, display_progressbar=False)
    title = f"{make.__name__} (Quantus)"
    return Metric(_Values(make, quiet | options, needs_boxes), better, title, needs_boxes=needs_boxes)
