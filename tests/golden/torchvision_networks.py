"""Golden activations and logits of torchvision's own networks, in float64.

    python tests/golden/torchvision_networks.py     (from the repository's root)

Made with torch 2.13.0, torchvision 0.28.0, timm 1.0.31 and numpy 2.4. It writes torchvision_networks.npz from random
weights under torchvision's names. torchvision has no EfficientNet-Lite0; this one is timm's `tf_efficientnet_lite0`.
"""

import pathlib
import re
import sys
import types

import numpy as np
import torch
from random_tensors import summary, uniform, weight

# torchvision's compiled operators need the same build of torch, and no classifier needs them.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
import timm  # noqa: E402
import torchvision  # noqa: E402

HERE = pathlib.Path(__file__).parent
CLASSES = 7
SIZE = (97, 70)
SMALLEST = {"densenet121": 29, "convnext_tiny": 32}  # the others take an image of one pixel
NETWORKS = (
    *("resnet34", "resnet50", "resnet101", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("efficientnet_b0", "convnext_tiny"),
)
# Where the maps are that a network can be cut at.
STAGES = {
    "resnet": r"conv1|bn1|relu|maxpool|layer\d\.\d+",
    "densenet": r"features\.\w+",
    "mobilenet": r"features\.\d+",
    "efficientnet": r"features\.[08]|features\.[1-7]\.\d",
    "convnext": r"features\.\d\.\d",
}
MEAN, STD = (torch.tensor(each).double()[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def images(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(uniform("images", (1, height, width, 3))).permute(0, 3, 1, 2).double()


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).contiguous().numpy()


def run(module: torch.nn.Module, stages: dict[str, str], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Run a network. `stages` has the name of each stage, by the path of its module."""
    seen, handles = {}, []
    for path, child in module.named_modules():
        if path in stages:
            # Later layers may work in place, so each output is read at once.
            hook = lambda _, __, y, name=stages[path]: seen.update({name: summary(nhwc(y))})  # noqa: E731
            handles.append(child.register_forward_hook(hook))
    seen["logits"] = module(images(*size)).float().numpy()
    for handle in handles:
        handle.remove()
    return seen


def golden_of(name: str) -> dict[str, np.ndarray]:
    module = getattr(torchvision.models, name)(num_classes=CLASSES)
    module.load_state_dict(
        {
            key: torch.from_numpy(weight(key, tuple(value.shape))) if value.ndim else value
            for key, value in module.state_dict().items()
        }
    )
    module.double().eval()
    pattern = next(pattern for kind, pattern in STAGES.items() if name.startswith(kind))
    stages = {path: path for path, _ in module.named_modules() if re.fullmatch(pattern, path)}
    seen = run(module, stages, SIZE)
    if name == "densenet121":
        seen["relu"] = summary(nhwc(torch.relu(module.features(images(*SIZE)))))
    smallest = SMALLEST.get(name, 1)
    return seen | {"smallest": module(images(smallest, smallest)).float().numpy()}


def lite0() -> dict[str, np.ndarray]:
    """timm's network, with the weights that have torchvision's names in this project."""
    module = timm.create_model("tf_efficientnet_lite0", num_classes=CLASSES)

    def ours(theirs: str) -> str:
        outer = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.8.0", "bn2": "features.8.1"}
        outer["classifier"] = "classifier.1"
        path, _, leaf = theirs.rpartition(".")
        if path in outer:
            return f"{outer[path]}.{leaf}"
        _, stage, block, part = path.split(".")
        parts = ["conv_dw", "bn1", "conv_pw", "bn2"] if stage == "0" else ["conv_pw", "bn1", "conv_dw", "bn2"]
        pair, inner = divmod([*parts, "conv_pwl", "bn3"].index(part), 2)
        return f"features.{int(stage) + 1}.{block}.block.{pair}.{inner}.{leaf}"

    module.load_state_dict(
        {
            key: torch.from_numpy(weight(ours(key), tuple(value.shape))) if value.ndim else value
            for key, value in module.state_dict().items()
        }
    )
    module.double().eval()
    module.register_forward_pre_hook(lambda _, args: ((args[0] * STD + MEAN - 127 / 255) / (128 / 255),))
    stages = {"bn1": "features.0", "bn2": "features.8"}  # timm's norms include the activation
    for path, _ in module.named_modules():
        if found := re.fullmatch(r"blocks\.(\d)\.(\d)", path):
            stages[path] = f"features.{int(found[1]) + 1}.{found[2]}"
    return run(module, stages, SIZE) | {"smallest": module(images(1, 1)).float().numpy()}


if __name__ == "__main__":
    golden = {}
    with torch.no_grad():
        for name in (*NETWORKS, "efficientnet_lite0"):
            tensors = lite0() if name == "efficientnet_lite0" else golden_of(name)
            golden |= {f"{name}/{key}": array for key, array in tensors.items()}
    np.savez_compressed(HERE / "torchvision_networks.npz", **golden)
