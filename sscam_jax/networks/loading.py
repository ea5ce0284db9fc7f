"""Parameters of networks: load them from a checkpoint, draw random ones, convert a checkpoint."""

import functools
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from sscam_jax import convert
from sscam_jax.convert import ndf, rules
from sscam_jax.convert.archives import unnested
from sscam_jax.convert.hub import fetch_repository, is_repository
from sscam_jax.convert.read import clean
from sscam_jax.networks import head as heads
from sscam_jax.networks.network import Network, cut, template
from sscam_jax.networks.registry import NETWORKS, checkpoints_of, find, template_of
from sscam_jax.types import Apply, Params

Checkpoint = str | os.PathLike[str] | Mapping[str, Any] | None


_FORMAT = "sscam_jax"  # the metadata of a converted file has this format


def init_params(name: str, key: Key[Array, ""], *, num_classes: int = 1000) -> Params:
    """Draw random parameters: He-normal kernels, zero biases, and batch normalisations that are the identity.

    The entries of a kernel have variance 2 / fan_in. So the activations keep their scale through ReLU layers.

    Args:
        name: the name of the network, one of `models()`.
        key: the random key.
        num_classes: the number of logits.

    Returns:
        The parameters, as `load` returns them.

    Raises:
        ValueError: the network is not known, or `num_classes` is less than 1.

    Example:
        >>> init_params("squeezenet1_1", jax.random.key(0), num_classes=2)["classifier"]["1"]["bias"].tolist()
        [0.0, 0.0]

    References:
        He et al., Delving Deep into Rectifiers (arXiv 1502.01852).
    """
    # Drawn in the order of the paths, so the parameters depend on the key and the network only.
    shapes = {path: leaf.shape for path, leaf in rules.flatten(template_of(find(name), num_classes)).items()}
    kernels = {path: shape for path, shape in shapes.items() if path.endswith(".kernel")}
    arrays = dict(zip(kernels, _he_normal(key, tuple(kernels.values())), strict=True))
    for path in shapes.keys() - kernels.keys():
        arrays[path] = jnp.full(shapes[path], float(path.endswith(("scale", ".var"))), jnp.float32)
    return rules.unflatten(arrays)


@functools.partial(jax.jit, static_argnames="shapes")
def _he_normal(key: Key[Array, ""], shapes: tuple[tuple[int, ...], ...]) -> list[Float[Array, "..."]]:
    # One draw for all kernels, because one draw per kernel takes seconds to compile.
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
    scales = [math.sqrt(2 / math.prod(shape[:-1])) for shape in shapes]
    return [scale * part.reshape(shape) for scale, part, shape in zip(scales, parts, shapes, strict=True)]


def _hint(tensors: Mapping[str, np.ndarray]) -> str:
    """Name the network whose checkpoint this seems to be: at least nine tenths of its tensors are there."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    for network in NETWORKS.values():
        shapes = rules.torchvision_shapes(convert.RULES[network.name], template(network, 1))
        # The last layer has another shape with other classes, hence nine tenths and not all.
        same = [name for name, shape in shapes.items() if name in tensors and tensors[name].shape == shape]
        if len(same) >= 0.9 * len(shapes):
            found.append((len(same), network.name, shapes))
    if not found:
        return ""
    # All tensors of ResNet-18 are in a file of ResNet-34 too, so the network that has most of them is meant.
    _, model, shapes = max(found, key=lambda each: each[0])
    [bias] = [name for name, shape in shapes.items() if shape == (1,)]
    classes = f" with {len(tensors[bias])} classes" if bias in tensors and tensors[bias].ndim else ""
    return f" (it looks like one of {model!r}{classes})"


def _fill(
    tensors: Mapping[str, np.ndarray], network: Network, num_classes: int, origin: str, ours: bool
) -> dict[str, Any]:
    """Return the parameters. `ours` says that the tensors have the paths of the parameters, not torchvision's names."""
    table = rules.CONVERTED if ours else convert.RULES[network.name]
    try:
        if not ours and ndf.is_ndf(tensors):
            tensors = ndf.ndf_to_torchvision(tensors)
        return rules.torchvision_to_flax(tensors, table, template_of(network, num_classes))
    except rules.ConversionError as error:
        raise rules.ConversionError(
            f"{origin} is not a checkpoint of {network.name!r} with {num_classes} classes{_hint(tensors)}: {error}"
        ) from None


def _converted_model(path: pathlib.Path) -> str | None:
    """Return the network of a file that `convert_checkpoint` wrote; None for other files."""
    metadata = convert.read_metadata(path)
    return metadata.get("model", "no network") if metadata.get("format") == _FORMAT else None


def _read(path: pathlib.Path, network: Network, num_classes: int) -> dict[str, Any]:
    tensors = convert.read_checkpoint(path)
    model = _converted_model(path)
    if model not in (None, network.name):
        raise ValueError(f"{path} holds converted parameters of {model!r}, expected {network.name!r}")
    return _fill(tensors, network, num_classes, str(path), ours=model is not None)


def _locate(checkpoint: str | os.PathLike[str] | None, network: Network) -> pathlib.Path:
    """Return the file of a checkpoint, which is given as a path, a URL, a known name or None (the default)."""
    names = checkpoints_of(network)
    choices = ", ".join(map(repr, names)) or "none"
    if checkpoint is None and not names:
        raise ValueError(f"no checkpoint of {network.name!r} is known; give a file or a URL as `checkpoint`")
    name = names[0] if checkpoint is None else os.fspath(checkpoint)
    if name in convert.KNOWN:
        if name not in names:
            model = convert.KNOWN[name].model
            raise ValueError(
                f"checkpoint {name!r} belongs to {model!r}, not to {network.name!r}; choose from {choices}, "
                f"or load {model!r}"
            )
        return convert.fetch(name)
    if name.startswith(("http://", "https://")):
        return convert.fetch(name)
    if not os.path.isfile(name):
        raise FileNotFoundError(
            f"checkpoint {name!r} is not a file, a URL or a known name; the known names of {network.name!r} are "
            f"{choices}"
        )
    return pathlib.Path(name)


def _array(tensor: Any) -> np.ndarray:
    # NumPy refuses PyTorch tensors that require gradients, that are on a device or that are bfloat16.
    return tensor.detach().cpu().float().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)


def load(
    name: str, *, layer: str | None = None, checkpoint: Checkpoint = None, num_classes: int | None = None
) -> tuple[Apply, Params]:
    """Load a network, cut at the layer to explain, and its parameters.

    The network takes float32 images [b, height, width, 3] in RGB, normalised with ImageNet's mean and standard
    deviation. Two loads of the same network, layer and number of classes give equal `Apply` objects. They share one
    compilation.

    Args:
        name: the network, one of `models()`; or a repository of the Hugging Face Hub, `timm/NAME` or `hf:OWNER/NAME`,
            which says its network and number of classes itself (extra `hub`; `convert.hub`).
        layer: the layer to cut after, by torchvision's module path. A ViT also takes timm's names. None is the
            default layer of `models()`.
        checkpoint: where the parameters come from:

            - None: the default known checkpoint of the network.
            - The name of another known checkpoint.
            - The name of a head that comes with the library, such as "stanford40" (`heads`) or
              "squeezenet1_1-stanford40"; or a head's file.
            - A URL.
            - A file: .pth, .safetensors, .npz or .pkl with torchvision's names, or a converted file.
            - A mapping from torchvision's names to arrays or PyTorch tensors. As in a file, it may be nested under
              "state_dict", and the names may have the prefix `module.`.
            - Parameters, as this function returns them.

            The tensors of ViT, EfficientNet and ConvNeXt may also have timm's names.
        num_classes: the number of logits of the checkpoint; None: what a head or a repository says, else 1000.

    Returns:
        The network, hashed by value, and its parameters: a nested dict of float32 arrays.

    Raises:
        ValueError: the network, layer or checkpoint is not known, or the checkpoint does not fit the network.
        FileNotFoundError: the file of the checkpoint does not exist.

    Example:
        >>> params = init_params("squeezenet1_1", jax.random.key(0), num_classes=2)
        >>> apply, params = load("squeezenet1_1", checkpoint=params, num_classes=2)
        >>> jax.jit(apply)(params, jnp.zeros((1, 32, 32, 3))).shape
        (1, 2)

    References:
        ResNet: arXiv 1512.03385. VGG: 1409.1556. SqueezeNet: 1602.07360. DenseNet: 1608.06993. MobileNet: 1801.04381
        and 1905.02244. EfficientNet: 1905.11946. ConvNeXt: 2201.03545. ViT: 2010.11929. Swin: 2103.14030.
    """
    if is_repository(name):
        if checkpoint is not None:
            raise ValueError(f"{name!r} has its own weights: leave `checkpoint` out, or name one of `models()`")
        found = fetch_repository(name)
        if num_classes not in (None, found.num_classes):
            raise ValueError(f"num_classes is {num_classes}, but {name!r} has {found.num_classes} classes")
        name, num_classes, checkpoint = found
    network = find(name)
    head = heads.find(name, checkpoint)
    if num_classes is None:
        num_classes = 1000 if head is None else len(head.classes)
    apply = cut(network, num_classes, layer)  # before the checkpoint, so that a wrong layer costs no download
    if head is not None:
        whole = heads.put(head, load(name, checkpoint=heads.base_of(head))[1], template_of(network, num_classes))
        params = rules.unflatten(whole)
    elif isinstance(checkpoint, Mapping):
        checkpoint = unnested(checkpoint)
        try:
            tensors = clean({key: _array(tensor) for key, tensor in rules.flatten(checkpoint).items()})
        except convert.CheckpointError as error:
            raise convert.CheckpointError(f"the mapping: {error}") from error
        ours = any(isinstance(value, Mapping) for value in checkpoint.values())
        params = _fill(tensors, network, num_classes, "the mapping", ours)
    else:
        params = _read(_locate(checkpoint, network), network, num_classes)
    # A copy, because JAX may share memory with the mapping, and its owner may change the mapping later. NumPy makes it:
    # `jnp.array` would compile a program for every shape.
    return apply, jax.device_put(jax.tree.map(np.array, params))


def convert_checkpoint(
    source: str | os.PathLike[str], name: str, target: str | os.PathLike[str], *, num_classes: int = 1000
) -> None:
    """Convert a checkpoint to a file with this library's parameter names, or back to torchvision's names.

    The source decides the direction: a converted file is converted back.

    Args:
        source: the checkpoint: a file or the name of a known checkpoint.
        name: the network, one of `models()`.
        target: the file to write, .safetensors or .npz.
        num_classes: the number of logits of the checkpoint.

    Raises:
        ValueError: the network is not known, the checkpoint does not fit, or the target has another suffix.
        FileNotFoundError: the source does not exist.

    Example:
        >>> import tempfile
        >>> params = init_params("squeezenet1_1", jax.random.key(0), num_classes=2)
        >>> state_dict = rules.flax_to_torchvision(params, convert.RULES["squeezenet1_1"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     theirs, ours = pathlib.Path(folder, "theirs.npz"), pathlib.Path(folder, "ours.safetensors")
        ...     convert.write_checkpoint(theirs, state_dict)
        ...     convert_checkpoint(theirs, "squeezenet1_1", ours, num_classes=2)
        ...     apply, params = load("squeezenet1_1", checkpoint=ours, num_classes=2)

    References:
        The rules: `sscam_jax.convert.rules`.
    """
    network = find(name)
    source = _locate(source, network)
    back = _converted_model(source) is not None
    params = _read(source, network, num_classes)
    if back:
        convert.write_checkpoint(target, rules.flax_to_torchvision(params, convert.RULES[name]))
    else:
        convert.write_checkpoint(target, rules.flatten(params), metadata={"format": _FORMAT, "model": name})
