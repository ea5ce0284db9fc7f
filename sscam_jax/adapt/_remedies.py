"""What to do about the commonest mistakes, said where they show."""

import dataclasses
import re
import warnings
from collections.abc import Callable
from typing import Any

import jax

from sscam_jax.adapt._probabilities import last_activation
from sscam_jax.adapt.layout import Layout

_MISSING = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)")


def warn_of_probabilities(jaxpr: Any, output: int) -> None:
    """Warn where what is taken for the logits comes out of a softmax or a sigmoid."""
    activation = last_activation(jaxpr, jaxpr.outvars[output])
    if activation is not None:
        warnings.warn(
            f"the network ends in a {activation}, but methods expect logits: gradients vanish where a probability is "
            f"near 1, and score='probability' takes a softmax of its own. Return what goes into the {activation}.",
            stacklevel=2,
        )


def explain(error: Exception, runs: Callable[[Layout, jax.ShapeDtypeStruct], None], layout: Layout, image: Any) -> None:
    """Raise an error that names the remedy: an argument is missing, or the images need another layout.

    Args:
        error: what the network raised.
        runs: run the network with another layout, or on an image of another shape; raises where that fails.
        layout: the layout that failed.
        image: shape and dtype of one image that failed.

    Raises:
        ValueError: an argument is missing, or the network runs on the image laid out otherwise; the message says
            how.
    """
    # The layout is not the cause, so no other is tried.
    if isinstance(error, TypeError) and (missing := _MISSING.search(str(error))):
        raise ValueError(
            f"the network takes more than images ({error}): give {missing[1]} to the adapter as keyword arguments, "
            "such as train=False or rngs=None, or further arrays by inputs="
        ) from error
    other = dataclasses.replace(layout, channels_first=not layout.channels_first)
    last, *rest = image.shape
    in_adapter = (f"channels_first={other.channels_first} in the adapter", other, image.shape)
    in_images = ("the channels last in the images, jnp.moveaxis(images, 1, -1)", layout, (*rest, last))
    # Either may mend the other's mistake; colours are fewer than pixels.
    first, second = (in_adapter, in_images) if image.shape[-1] <= image.shape[0] else (in_images, in_adapter)
    batch = ("a batch axis: a single image is images[None]", layout, (last, *image.shape))
    for remedy, tried, shape in (first, second, batch):
        try:
            runs(tried, jax.ShapeDtypeStruct(shape, image.dtype))
        except Exception:  # of any type: the network's own
            continue
        raise ValueError(
            f"the network does not run on images of shape [b, {', '.join(map(str, image.shape))}] "
            f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}), but it does with {remedy}"
        ) from error
