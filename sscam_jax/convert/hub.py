"""Networks of the Hugging Face Hub: what a repository says of its network, and its weights as safetensors."""

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from sscam_jax._support import imported
from sscam_jax.convert.read import read_metadata
from sscam_jax.convert.unpickle import CheckpointError
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD

# timm's name of a network -> ours. timm's VGG and Swin have other names for their tensors, and its tf_mobilenetv3 pads
# as TensorFlow does.
ARCHITECTURES = {
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "densenet121", "convnext_tiny")},
    "efficientnet_b0": "efficientnet_b0",
    "mobilenetv2_100": "mobilenet_v2",
    "mobilenetv3_small_100": "mobilenet_v3_small",
    "mobilenetv3_large_100": "mobilenet_v3_large",
    **dict.fromkeys(("vit_base_patch16_224", "deit_base_patch16_224"), "vit_b_16"),
    **dict.fromkeys(("vit_small_patch16_224", "deit_small_patch16_224"), "vit_s_16"),
}
_WEIGHTS = "model.safetensors"


class Repository(NamedTuple):
    """What a repository holds.

    Attributes:
        model: the name of the network here.
        num_classes: the number of logits.
        weights: the verified file.
    """

    model: str
    num_classes: int
    weights: Path


def is_repository(name: str) -> bool:
    """Tell whether the name of a network is a repository: `timm/NAME` or `hf:OWNER/NAME`.

    Example:
        >>> is_repository("timm/resnet50.a1_in1k"), is_repository("hf:owner/name@v2"), is_repository("resnet50")
        (True, True, False)
    """
    return name.startswith(("timm/", "hf:"))


def fetch_repository(name: str) -> Repository:
    """Download the description and the weights of a repository, or find them in the Hub's cache.

    Only safetensors are read. A pickle in the repository is left alone. The sha256 of the weights is checked at every
    call. A warning says how images are normalised, if that is not ImageNet's mean and deviation.

    Args:
        name: `timm/NAME` or `hf:OWNER/NAME`, with `@REVISION` for another revision than `main`. The repository
            describes its network in timm's form, or its weights are a file of `convert_checkpoint`.

    Returns:
        The name of the network here, its number of classes and the file of the weights.

    Raises:
        MissingPackageError: the package huggingface_hub is not installed.
        CheckpointError: there is no such repository or no connection, the repository has no safetensors, its network is
            not one of those here, or the weights are damaged.

    Example:
        >>> fetch_repository("hf:name")
        Traceback (most recent call last):
        ...
        sscam_jax.convert.unpickle.CheckpointError: 'hf:name' is not a repository, expected hf:OWNER/NAME or timm/NAME

    References:
        The form of timm: https://huggingface.co/docs/hub/timm
    """
    repository, _, revision = name.removeprefix("hf:").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise CheckpointError(f"{name!r} is not a repository, expected hf:OWNER/NAME or timm/NAME")
    config = json.loads(_download(repository, "config.json", revision).read_text())
    architecture = config.get("architecture")
    if architecture is not None and architecture not in ARCHITECTURES:
        raise CheckpointError(_unknown(name, repr(architecture)))
    weights = _download(repository, _WEIGHTS, revision)
    _verify(name, weights)
    converted = read_metadata(weights).get("model")
    if architecture is None and converted is None:
        described = config.get("architectures") or config.get("model_type")
        raise CheckpointError(_unknown(name, f"{described!r} of transformers" if described else "not described"))
    _warn_of_normalisation(name, config.get("pretrained_cfg") or {})
    model = ARCHITECTURES[architecture] if architecture is not None else str(converted)
    return Repository(model, int(config.get("num_classes", 1000)), weights)


def _unknown(name: str, network: str) -> str:
    choices = ", ".join(map(repr, ARCHITECTURES))
    return (
        f"the network of {name!r} is {network}, and of timm's networks only {choices} can be loaded by name; "
        "adapt.torch takes any network of timm"
    )


def _download(repository: str, filename: str, revision: str) -> Path:
    hub = imported("huggingface_hub", "hub")
    from huggingface_hub import constants, errors

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)  # its client reads the variable when it is imported
    try:
        return Path(hub.hf_hub_download(repository, filename, revision=revision or None, endpoint=endpoint))
    except errors.LocalEntryNotFoundError as error:  # first, because it is a kind of EntryNotFoundError
        raise CheckpointError(
            f"{filename} of {repository!r} is not in the cache, and {endpoint} can't be reached: "
            "download the file elsewhere and give it as `checkpoint=`, with the name of the network"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise CheckpointError(f"{endpoint} has no repository {repository!r}, or it is private") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{repository!r} has no revision {revision!r}") from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(
            f"{repository!r} has no {filename}: only safetensors beside a config.json are read, no pickles"
        ) from error
    except errors.HfHubHTTPError as error:
        first = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{filename} of {repository!r} could not be downloaded: {first}") from error


def _verify(name: str, weights: Path) -> None:
    """Check the sha256, which is the name that the Hub's cache gives to the content of a large file."""
    blob = weights.resolve()
    # A small file has a git hash of 40 digits, and where the cache has no symbolic links there is no such name: then
    # there is nothing to compare with.
    if not re.fullmatch("[0-9a-f]{64}", blob.name):
        return
    with blob.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.name:
        raise CheckpointError(f"the weights of {name!r} have sha256 {digest}, expected {blob.name}: remove {blob}")


def _warn_of_normalisation(name: str, config: dict[str, Any]) -> None:
    mean, std = tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))
    if (mean, std) != (IMAGENET_MEAN, IMAGENET_STD):
        warnings.warn(
            f"images for {name!r} are normalised in their own way: sscam.preprocess(images, mean={mean}, std={std})",
            stacklevel=4,
        )
