"""Convert the tensors of a checkpoint to the parameters of a network and back: one table of rules per network.

A rule is `regex -> (target, transform)`. The regular expression matches torchvision's name of a tensor. The target is
the path of the parameter that it fills: torchvision's module path and Flax's name of the array. The transform
rearranges the axes. A tensor or a parameter without a rule is an error.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Template = Mapping[str, Any]
"""A nested dict whose leaves have a shape and a dtype."""


class ConversionError(ValueError):
    """A checkpoint that does not fit the network. The message lists every problem."""


class Transform(NamedTuple):
    """How to rearrange torchvision's array to Flax's (`forward`), and Flax's to torchvision's (`backward`)."""

    forward: Callable[[Any], Any]
    backward: Callable[[Any], Any]


class Rule(NamedTuple):
    """One row of a table.

    Attributes:
        pattern: a regular expression for torchvision's name.
        target: the path of the parameter, or None for a tensor that inference does not need.
        transform: how the axes are rearranged.
    """

    pattern: str
    target: str | None
    transform: Transform


SAME = Transform(lambda x: x, lambda x: x)
DENSE = Transform(lambda x: x.transpose(1, 0), lambda x: x.transpose(1, 0))  # out, in -> in, out
CONV = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW -> HWIO
# PyTorch flattens [c, 7, 7] before this dense layer, Flax flattens [7, 7, c]: the rows are permuted to match.
FLATTENED = Transform(
    lambda x: x.reshape(x.shape[0], -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    lambda x: x.reshape(7, 7, -1, x.shape[1]).transpose(3, 2, 0, 1).reshape(x.shape[1], -1),
)

_RESNET_CONV = r"conv1|layer\d\.\d\.(?:conv\d|downsample\.0)"
_RESNET_NORM = r"bn1|layer\d\.\d\.(?:bn\d|downsample\.1)"
_SQUEEZENET = (
    Rule(r"(features\.0|features\.\d+\.(?:squeeze|expand1x1|expand3x3)|classifier\.1)\.weight", r"\1.kernel", CONV),
    Rule(r"(features\.0|features\.\d+\.(?:squeeze|expand1x1|expand3x3)|classifier\.1)\.bias", r"\1.bias", SAME),
)


def _layer(theirs: str, ours: str, array: str, transform: Transform) -> tuple[Rule, Rule]:
    """Return the rules of a module with a weight and a bias. `theirs` includes the mark before these words."""
    return Rule(f"{theirs}weight", f"{ours}.{array}", transform), Rule(f"{theirs}bias", f"{ours}.bias", SAME)


_ENCODER = r"(encoder\.layers\.encoder_layer_\d+"
# torchvision's names, the names in its older files (linear_1, linear_2), then timm's. All three store q, k and v, in
# this order, as the rows of one matrix. Within each, the heads follow one another.
_VIT = (
    *_layer(r"(conv_proj)\.", r"\1", "kernel", CONV),
    Rule("(class_token)", r"\1", SAME),
    Rule(r"(encoder\.pos_embedding)", r"\1", SAME),
    *_layer(rf"{_ENCODER}\.ln_[12]|encoder\.ln)\.", r"\1", "scale", SAME),
    *_layer(rf"{_ENCODER}\.self_attention\.in_proj)_", r"\1", "kernel", DENSE),
    *_layer(rf"{_ENCODER}\.(?:self_attention\.out_proj|mlp\.[03])|heads\.head)\.", r"\1", "kernel", DENSE),
    *_layer(rf"{_ENCODER}\.mlp)\.linear_1\.", r"\1.0", "kernel", DENSE),
    *_layer(rf"{_ENCODER}\.mlp)\.linear_2\.", r"\1.3", "kernel", DENSE),
    *_layer(r"patch_embed\.proj\.", "conv_proj", "kernel", CONV),
    Rule("cls_token", "class_token", SAME),
    Rule("pos_embed", "encoder.pos_embedding", SAME),
    *_layer(r"blocks\.(\d+)\.norm([12])\.", r"encoder.layers.encoder_layer_\1.ln_\2", "scale", SAME),
    *_layer(r"norm\.", "encoder.ln", "scale", SAME),
    *_layer(r"head\.", "heads.head", "kernel", DENSE),
    *(
        rule
        for theirs, ours in (
            (r"attn\.qkv", "self_attention.in_proj"),
            (r"attn\.proj", "self_attention.out_proj"),
            (r"mlp\.fc1", "mlp.0"),
            (r"mlp\.fc2", "mlp.3"),
        )
        for rule in _layer(rf"blocks\.(\d+)\.{theirs}\.", rf"encoder.layers.encoder_layer_\1.{ours}", "kernel", DENSE)
    ),
)
_SWIN = (
    *_layer(r"(features\.0\.0)\.", r"\1", "kernel", CONV),
    *_layer(r"(features\.0\.2|features\.\d\.norm|features\.\d\.\d\.norm[12]|norm)\.", r"\1", "scale", SAME),
    *_layer(r"(features\.\d\.\d\.(?:attn\.(?:qkv|proj)|mlp\.[03])|head)\.", r"\1", "kernel", DENSE),
    Rule(r"(features\.\d\.reduction)\.weight", r"\1.kernel", DENSE),
    Rule(r"(features\.\d\.\d\.attn\.relative_position_bias_table)", r"\1", SAME),
    Rule(r"features\.\d\.\d\.attn\.relative_position_index", None, SAME),  # computed from the size of the window
)
RULES: dict[str, tuple[Rule, ...]] = {
    "resnet18": (
        Rule(rf"({_RESNET_CONV})\.weight", r"\1.kernel", CONV),
        Rule(rf"({_RESNET_NORM})\.weight", r"\1.scale", SAME),
        Rule(rf"({_RESNET_NORM})\.bias", r"\1.bias", SAME),
        Rule(rf"({_RESNET_NORM})\.running_(mean|var)", r"\1.\2", SAME),
        Rule(rf"({_RESNET_NORM})\.num_batches_tracked", None, SAME),  # a counter of training
        Rule(r"fc\.weight", "fc.kernel", DENSE),
        Rule(r"fc\.bias", "fc.bias", SAME),
    ),
    "vgg16": (
        Rule(r"(features\.\d+)\.weight", r"\1.kernel", CONV),
        Rule(r"classifier\.0\.weight", "classifier.0.kernel", FLATTENED),
        Rule(r"(classifier\.[36])\.weight", r"\1.kernel", DENSE),
        Rule(r"((?:features|classifier)\.\d+)\.bias", r"\1.bias", SAME),
    ),
    "squeezenet1_0": _SQUEEZENET,
    "squeezenet1_1": _SQUEEZENET,
    "vit_b_16": _VIT,
    "vit_s_16": _VIT,
    "swin_t": _SWIN,
}
"""The table of each network. The first rule whose pattern matches a name is used.

A target of `None` stands for a tensor that inference does not need.
"""
# A converted file has the paths of the parameters as names.
CONVERTED = (Rule(r"(.+)", r"\1", SAME),)
# The last words of torchvision's names.
_LEAVES = ("weight", "bias", "running_mean", "running_var")


def _match(name: str, rules: tuple[Rule, ...]) -> tuple[str | None, Transform] | None:
    for rule in rules:
        if found := re.fullmatch(rule.pattern, name):
            return (None if rule.target is None else found.expand(rule.target)), rule.transform
    return None


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested dict to a dict from dotted paths to leaves.

    Example:
        >>> flatten({"fc": {"kernel": 1, "bias": 2}})
        {'fc.kernel': 1, 'fc.bias': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Build the nested dict from dotted paths: the inverse of `flatten`.

    Example:
        >>> unflatten({"fc.kernel": 1, "fc.bias": 2})
        {'fc': {'kernel': 1, 'bias': 2}}
    """
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, last = path.split(".")
        inner = nested
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return nested


class _Tensor(NamedTuple):
    """The torchvision tensor that fills a parameter."""

    name: str
    transform: Transform
    shape: tuple[int, ...]


def _tensor(path: str, array: Any, rules: tuple[Rule, ...]) -> _Tensor:
    """Return the torchvision tensor that fills the parameter at `path`."""
    # The rules run from torchvision's names to paths. To invert them, try every name that the module may have.
    module = path.rpartition(".")[0]
    for name in (path, *(f"{module}{mark}{leaf}" for mark in "._" for leaf in _LEAVES)):
        if (found := _match(name, rules)) and found[0] == path:
            return _Tensor(name, found[1], jax.eval_shape(found[1].backward, array).shape)
    raise ConversionError(f"unmatched: no rule fills the parameter {path!r}")


def torchvision_shapes(rules: tuple[Rule, ...], template: Template) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors in a torchvision checkpoint of a network.

    Args:
        rules: the table of the network.
        template: the nested dict of its parameters. Only their shapes are used.

    Returns:
        The shape of every tensor that fills a parameter, by torchvision's name.

    Example:
        >>> fc = {"fc": {"kernel": jax.ShapeDtypeStruct((512, 10), np.float32)}}
        >>> torchvision_shapes(RULES["resnet18"], fc)
        {'fc.weight': (10, 512)}
    """
    tensors = (_tensor(path, leaf, rules) for path, leaf in flatten(template).items())
    return {tensor.name: tensor.shape for tensor in tensors}


def torchvision_to_flax(
    state_dict: Mapping[str, np.ndarray], rules: tuple[Rule, ...], template: Template
) -> dict[str, Any]:
    """Fill the parameters of a network from the tensors of a torchvision checkpoint, each exactly once.

    Args:
        state_dict: tensors by torchvision's names.
        rules: the table of the network.
        template: the nested dict of its parameters. Only their shapes are used.

    Returns:
        The parameters: a nested dict of float32 NumPy arrays. They may share memory with the checkpoint's tensors.

    Raises:
        ConversionError: a tensor matches no rule, no tensor or two tensors fill a parameter, a shape is wrong, or a
            value is not finite. One message lists every problem.

    Example:
        >>> fc = {"fc": {"bias": jax.ShapeDtypeStruct((2,), np.float32)}}
        >>> torchvision_to_flax({"fc.bias": np.array([1, 2])}, RULES["resnet18"], fc)
        {'fc': {'bias': array([1., 2.], dtype=float32)}}
    """
    expected = {path: _tensor(path, leaf, rules) for path, leaf in flatten(template).items()}
    sources: dict[str, list[str]] = {path: [] for path in expected}
    problems = []
    for name, tensor in state_dict.items():
        match _match(name, rules):
            case (None, _):
                continue
            case (str(path), _) if path in sources:
                sources[path].append(name)
            case _:
                problems.append(f"unmatched: {name} {np.shape(tensor)}")
    flat = {}
    for path, names in sources.items():
        name, transform, shape = expected[path]
        if len(names) != 1:
            problems.append(f"filled twice: {path} by {names}" if names else f"missing: {name} {shape}")
            continue
        tensor = np.asarray(state_dict[names[0]]).astype(np.float32, copy=False)
        if tensor.shape != shape:
            problems.append(f"wrong shape: {names[0]} is {tensor.shape}, expected {shape}")
        elif not np.isfinite(tensor).all():
            problems.append(f"not finite: {names[0]} holds NaN or infinity")
        else:
            flat[path] = np.ascontiguousarray(transform.forward(tensor))
    if problems:
        raise ConversionError("\n  ".join([f"{len(problems)} tensors do not fit:", *problems]))
    return unflatten(flat)


def flax_to_torchvision(params: Mapping[str, Any], rules: tuple[Rule, ...]) -> dict[str, np.ndarray]:
    """Convert the parameters of a network to the tensors of a torchvision checkpoint.

    This is the inverse of `torchvision_to_flax`.

    Args:
        params: the nested dict of the parameters.
        rules: the table of the network.

    Returns:
        Tensors by torchvision's names, without `num_batches_tracked`.

    Raises:
        ConversionError: no rule fills one of the parameters.

    Example:
        >>> flax_to_torchvision({"fc": {"kernel": np.ones((512, 10))}}, RULES["resnet18"])["fc.weight"].shape
        (10, 512)
    """
    tensors = {}
    for path, array in flatten(params).items():
        name, transform, _ = _tensor(path, array, rules)
        tensors[name] = np.ascontiguousarray(transform.backward(np.asarray(array)))
    return tensors
