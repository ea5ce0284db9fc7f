"""Which network explains, where the caller leaves it open."""

import importlib.util
import os
import pathlib
from typing import NamedTuple

from sscam_jax import convert, networks
from sscam_jax.types import Apply, Params

# Small, quick on a CPU, and the one network whose weights ship in a package.
_MODEL, _PACKAGE, _PACKAGED = "squeezenet1_1", "ndf", "squeezenet1_1-ndf"


class Network(NamedTuple):
    """A network, ready to be explained.

    Attributes:
        apply: the network, cut at the target layer.
        params: its parameters.
        about: model, checkpoint and layer by name; empty for a network of the caller's.
    """

    apply: Apply
    params: Params
    about: dict[str, str]

    def __str__(self) -> str:
        """For a table's heading."""
        return ", ".join(f"{key} {value}" for key, value in self.about.items()) or "a network of your own"


def model_of(checkpoint: str | os.PathLike[str]) -> str:
    """The network that a checkpoint belongs to, by its known name, its metadata or the beginning of its file's name.

    Raises:
        ValueError: nothing of these says it.

    Example:
        >>> model_of("squeezenet1_1-ndf"), model_of("weights/resnet18-finetuned.pth")
        ('squeezenet1_1', 'resnet18')
    """
    text = os.fspath(checkpoint)
    if text in convert.KNOWN:
        return convert.KNOWN[text].model
    names = [model.name for model in networks.models()]
    # What the file says of itself comes before its name, which anyone can change.
    if os.path.isfile(text) and (stored := convert.read_metadata(pathlib.Path(text)).get("model")) in names:
        return str(stored)
    # Not pathlib: a URL is not a path on every system.
    file = text.rpartition("/")[2]
    # Of `vit_b_16` and a name that it begins with, the longer one.
    if found := [name for name in names if file.startswith(name)]:
        return max(found, key=len)
    if owners := [name for name in names if text in networks.heads(name)]:
        choices = " or ".join(f"'{name}-{text}'" for name in owners)
        raise ValueError(f"'{text}' is a head of {', '.join(map(repr, owners))}: name the model too, or {choices}")
    if not os.path.isfile(text) and "://" not in text:
        raise FileNotFoundError(
            f"checkpoint '{text}' is not a file, a URL or a known name; choose from "
            f"{', '.join(map(repr, convert.KNOWN))}"
        )
    raise ValueError(
        f"checkpoint '{text}' does not say which network it belongs to: name the model too; choose from "
        f"{', '.join(map(repr, names))}"
    )


def class_names(model: str | None, checkpoint: str | os.PathLike[str] | None) -> tuple[str, ...] | None:
    """The names of the classes where the weights are those of a head; None for others.

    Raises:
        ValueError: there is no model, and the checkpoint does not say which network it belongs to.
        FileNotFoundError: as above, and the checkpoint is not a file.

    Example:
        >>> class_names(None, "squeezenet1_1-stanford40")[:2]
        ('applauding', 'blowing_bubbles')
    """
    if model is None and checkpoint is not None:
        model = model_of(checkpoint)
    return networks.class_names(model, checkpoint)


def load(
    model: str | None, checkpoint: str | os.PathLike[str] | None, layer: str | None, num_classes: int | None
) -> Network:
    """Load the network that is asked for; what is left open is chosen.

    Args:
        model: the network; None: that of the checkpoint, or without one SqueezeNet 1.1.
        checkpoint: as `networks.load` takes it; None: with neither a model nor a checkpoint the weights of the
            package ndf where it is installed, else the model's default, which is downloaded.
        layer: as `networks.load` takes it.
        num_classes: as `networks.load` takes it.

    Returns:
        The network.

    Raises:
        ValueError: a name is not known, the checkpoint does not fit or can't be had.
        FileNotFoundError: the checkpoint's file does not exist.
    """
    if model is None:
        model = _MODEL if checkpoint is None else model_of(checkpoint)
        if checkpoint is None and importlib.util.find_spec(_PACKAGE):  # of a top-level package this runs nothing
            checkpoint = _PACKAGED
    apply, params = networks.load(model, layer=layer, checkpoint=checkpoint, num_classes=num_classes)
    [entry] = [entry for entry in networks.models() if entry.name == model]
    used = str(entry.default_checkpoint) if checkpoint is None else os.fspath(checkpoint)
    return Network(apply, params, dict(model=model, checkpoint=used, layer=layer or entry.default_layer))
