"""Golden activations and logits of timm's MobileNets, in float64, with weights under timm's names.

    python tests/golden/timm_networks.py     (from the repository's root)

Made with torch 2.12.0, torchvision 0.27.0, timm 1.0.31 and numpy 2.4. It writes timm_networks.npz.
"""

import pathlib
import re

import numpy as np
import torch
from random_tensors import weight
from torchvision_networks import CLASSES, SIZE, images, run, timm

HERE = pathlib.Path(__file__).parent
NETWORKS = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
}


def golden_of(name: str) -> dict[str, np.ndarray]:
    module = timm.create_model(NETWORKS[name], num_classes=CLASSES)
    module.load_state_dict(
        {
            key: torch.from_numpy(weight(key, tuple(value.shape))) if value.ndim else value
            for key, value in module.state_dict().items()
        }
    )
    module.double().eval()
    blocks = [path for path, _ in module.named_modules() if re.fullmatch(r"blocks\.\d\.\d", path)]
    # timm's norms include the activation. MobileNetV3's last convolution is a block.
    paths = ["bn1", *blocks, *(["bn2"] if name == "mobilenet_v2" else [])]
    stages = {path: f"features.{number}" for number, path in enumerate(paths)}
    return run(module, stages, SIZE) | {"smallest": module(images(1, 1)).float().numpy()}


def shapes_of(name: str) -> dict[str, np.ndarray]:
    """The names and shapes of timm's tensors, as a text per tensor."""
    state = timm.create_model(NETWORKS[name], num_classes=CLASSES).state_dict()
    return {"tensors": np.array([f"{key} {','.join(map(str, value.shape))}" for key, value in state.items()])}


if __name__ == "__main__":
    with torch.no_grad():
        golden = {f"{name}/{key}": array for name in NETWORKS for key, array in golden_of(name).items()}
    golden |= {f"{name}/{key}": array for name in NETWORKS for key, array in shapes_of(name).items()}
    np.savez_compressed(HERE / "timm_networks.npz", **golden)
