"""Models of Keras 3 on its JAX backend."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from jaxtyping import Array, Float

from sscam_jax._support import imported
from sscam_jax.adapt import _names
from sscam_jax.adapt.layout import Layout
from sscam_jax.adapt.tap import Inputs, Logits, Network, Tap, cut
from sscam_jax.types import Apply, Params


def keras(
    model: Any,
    layer: str,
    *,
    inputs: Inputs = (),
    logits: Logits = None,
    channels_first: bool = False,
    tokens: int | None = None,
    grid: tuple[int, ...] | None = None,
    **kwargs: Any,
) -> tuple[Apply, Params]:
    """A Keras 3 model on the JAX backend as a network to explain, cut after one of its layers.

    Functional, sequential and subclassed models are taken, and models inside models. The model runs with
    `training=False`. Its own weights stay as they are.

    Args:
        model: the model, built. It is called as `model([images, *inputs])`, or as `model(images)` without inputs.
        layer: the name of the layer whose output is explained, such as "conv5_block3_out"; inside another model or
            layer its path, such as "mobilenet/conv_1".
        inputs: as in `plain`.
        logits: as in `plain`.
        channels_first: as in `plain`; Keras's default is channels last.
        tokens: as in `plain`.
        grid: as in `plain`.
        kwargs: keyword arguments of the call.

    Returns:
        The network, and its parameters: {"trainable": [...], "non_trainable": [...]}, in the model's order.

    Raises:
        ImportError: Keras is not installed.
        ValueError: another backend, a model that is not built, no such layer, or a last layer that ends in a softmax
            or sigmoid; the message names the remedy. When it runs: a layer that does not run just once.

    Example:
        >>> from sscam_jax import adapt, grad_cam
        >>> def explain(model, images):
        ...     model.get_layer("predictions").activation = None  # logits, instead of probabilities
        ...     return grad_cam(*adapt.keras(model, "conv5_block3_out"), images, None).maps
    """
    _names.check_adapter(model, "keras")
    network, params = keras_network(model, layer, kwargs)
    # With several outputs, the end of the model does not say where the chosen one comes from.
    if logits is None:
        _refuse_probabilities(model)
    layout = Layout(channels_first, tokens, grid)
    return cut(network, params, layer, inputs=inputs, logits=logits, layout=layout)


def keras_network(model: Any, layer: str | None, kwargs: Mapping[str, Any]) -> tuple[Network, Params]:
    """The network that taps the layer, or all layers where it is None, and its parameters."""
    backend = imported("keras", "keras").backend.backend()
    # On another backend the layers give tensors that JAX cannot trace, and Keras would fail far from the cause.
    if backend != "jax":
        raise ValueError(
            f"Keras runs on the backend {backend!r}, expected 'jax': set the environment variable KERAS_BACKEND=jax "
            "before keras is imported"
        )
    if not model.built:
        raise ValueError(f"model {model.name!r} is not built, so it has no weights: call it on images once")
    names = dict(_layers(model, ""))
    if layer is not None and layer not in names:
        raise _names.unknown_layer(layer, f"of {model.name}", names)
    # Lists in the order of the model: `stateless_call` takes them so, and names of variables may repeat.
    params = {
        "trainable": [variable.value for variable in model.trainable_variables],
        "non_trainable": [variable.value for variable in model.non_trainable_variables],
    }
    return _Keras(model, layer, tuple(sorted(kwargs.items()))), params


def _layers(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The layers inside a layer by their paths."""
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        name = f"{path}/{inner.name}" if path else inner.name
        yield name, inner
        yield from _layers(inner, name)


def _refuse_probabilities(model: Any) -> None:
    """Raise ValueError where the last layer of a functional model gives probabilities."""
    last = model
    # A model may end in a model. A subclassed one has no `outputs`; the trace still warns of its probabilities.
    while len(getattr(last, "outputs", None) or ()) == 1:
        last = last.outputs[0]._keras_history.operation
    activation = getattr(getattr(last, "activation", None), "__name__", type(last).__name__.lower())
    if activation in ("softmax", "sigmoid"):
        remedy = "set its attribute activation to keras.activations.linear"
        if not hasattr(last, "activation"):
            remedy = "end the model before it, keras.Model(model.inputs, model.layers[-2].output)"
        raise ValueError(
            f"model {model.name!r} ends in a {activation}, in layer {last.name!r}, but methods expect logits: {remedy} "
            "(models of keras.applications: or build with classifier_activation=None)"
        )


@dataclasses.dataclass(frozen=True)
class _Keras:
    model: Any
    layer: str | None
    kwargs: tuple[tuple[str, Any], ...]

    def __call__(self, params: Params, images: Float[Array, "b ..."], tap: Tap, *inputs: Any) -> Any:
        trainable, before = params["trainable"], params["non_trainable"]
        given = [images, *inputs] if inputs else images
        with contextlib.ExitStack() as stack:
            # Tapped for this trace only. The model is not copied, because Keras cannot copy every subclass.
            for name, layer in _layers(self.model, ""):
                if self.layer in (None, name):
                    stack.enter_context(_tapped(layer, functools.partial(tap, name)))
            outputs, after = self.model.stateless_call(trainable, before, given, training=False, **dict(self.kwargs))
        # By identity, as traced values cannot be compared. A generator of random numbers counts up, for example.
        changed = [
            variable.path
            for variable, old, new in zip(self.model.non_trainable_variables, before, after, strict=True)
            if old is not new
        ]
        if changed:
            raise ValueError(f"the state of {self.model.name} changes with training=False too, at {', '.join(changed)}")
        return outputs


@contextlib.contextmanager
def _tapped(layer: Any, tap: Any) -> Iterator[None]:
    """Hand what a layer's `call` gives to the tap; past Keras's own setattr, which would track it."""
    call, before = layer.call, vars(layer).get("call")
    vars(layer)["call"] = lambda *args, **kwargs: tap(call(*args, **kwargs))
    try:
        yield
    finally:
        del vars(layer)["call"]
        if before is not None:
            vars(layer)["call"] = before
