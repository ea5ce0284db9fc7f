"""Names: of layers, close ones first; of frameworks; and of the items of a pytree."""

import difflib
from collections.abc import Iterable
from typing import Any

# A deep network has thousands of layers; an error of that length hides its first line.
_MOST = 60

# Where the base class of a framework's models is defined -> the adapter that takes them.
_ADAPTERS = {
    "flax.nnx": "flax_nnx",
    "flax.linen": "linen",
    "equinox": "equinox",
    "haiku": "haiku",
    "keras": "keras",
    "torch": "torch",
    "transformers.modeling_flax_utils": "huggingface",
}


def unknown_layer(layer: str, where: str, names: Iterable[str]) -> ValueError:
    """What to raise where no layer has this name; `where` says of what, such as "of Net"."""
    # A layer that runs twice taps its name twice.
    names = list(dict.fromkeys(names))
    close = difflib.get_close_matches(layer, names, n=5)
    ordered = close + [name for name in names if name not in close]
    more = f" and {len(ordered) - _MOST} more" if len(ordered) > _MOST else ""
    choices = ", ".join(map(repr, ordered[:_MOST])) + more
    return ValueError(f"layer {layer!r} is not a module {where}, nor a method of one; choose from {choices}")


def adapter_of(model: Any) -> str | None:
    """The name of the adapter for a model, by where its classes are defined; nothing is imported."""
    # By the name of the module, so that asking about one framework does not import the others. The user's own class
    # comes first in the order of bases and matches nothing.
    for cls in type(model).__mro__:
        for place, adapter in _ADAPTERS.items():
            # The dots keep "keras" from matching "keras_hub".
            if f"{cls.__module__}.".startswith(f"{place}."):
                return adapter
    return None


def check_adapter(model: Any, expected: str) -> None:
    """Refuse a model of another framework.

    Raises:
        ValueError: the model is not one for the adapter `expected`; the message names the right one.
    """
    found = adapter_of(model)
    if found == expected:
        return
    kind = f"a {type(model).__module__}.{type(model).__qualname__}"
    if found == "huggingface":
        # Of a model with batch normalisation, `params` holds both collections already.
        variables = "model.params" if "batch_stats" in model.params else '{"params": model.params}'
        remedy = f'adapt.linen(model.module, {variables}, layer, logits="logits", deterministic=True)'
    elif found is not None:
        remedy = f"adapt.{found}"
    else:
        remedy = "adapt.plain for a function of your own, or sscam.Apply for two"
    raise ValueError(f"adapt.{expected} is given {kind}; use {remedy}")


def keys(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """A path of a pytree as plain keys, indices and attributes."""
    return tuple(next(getattr(key, name) for name in ("key", "idx", "name") if hasattr(key, name)) for key in path)
