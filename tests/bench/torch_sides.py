"""The other side: torchcam, pytorch-grad-cam and a loop by hand in PyTorch; no JAX in this file."""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch_networks import NETWORKS

# Both libraries import torchvision for nothing that is used here.
STUBS = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
if importlib.util.find_spec("torchvision") is None:
    sys.modules.update({name: mock.MagicMock() for name in STUBS})
import pytorch_grad_cam  # noqa: E402
import torchcam.methods  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: E402

for stub in STUBS:  # torch.compile asks whether there is a torchvision
    if isinstance(sys.modules.get(stub), mock.Mock):
        del sys.modules[stub]

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCHES = (128, 256, 512) if DEVICE.type == "cuda" else (8, 16, 32, 64)
STD = 2.0


class Cut(nn.Module):
    """A network whose target layer's output, or some channels of it, is also shown to `target`, which gets hooked."""

    def __init__(self, network: nn.Module, layer: str, channels: list[int] | None) -> None:
        super().__init__()
        self.network, self.layer, self.channels = network, layer, slice(None) if channels is None else channels
        self.target = nn.Identity()
        network.get_submodule(layer).register_forward_hook(self._show)

    def _show(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        self.target(output[:, self.channels])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def load(name: str, tensors: Mapping[str, np.ndarray | torch.Tensor] | None) -> nn.Module:
    """The network for inference; its parameters stay PyTorch's own random ones where none are given."""
    network = NETWORKS[name]()
    if tensors is not None:
        tensors = {
            key: value.detach() if isinstance(value, torch.Tensor) else torch.tensor(np.array(value))
            for key, value in tensors.items()
        }
        missing, unexpected = network.load_state_dict(tensors, strict=False)
        if unexpected or any(not key.endswith("num_batches_tracked") for key in missing):
            raise ValueError(f"tensors do not fit {name}: missing {missing}, unexpected {unexpected}")
    return network.eval().requires_grad_(True).to(DEVICE)


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def image_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.moveaxis(images, -1, 1)).contiguous().to(DEVICE)


def torchcam_map(method: str, network: nn.Module, target: str, x: torch.Tensor, label: int, **options) -> np.ndarray:
    """As torchcam's documentation has it; Grad-CAM needs gradients in the forward pass."""
    with getattr(torchcam.methods, method)(network, target, input_shape=tuple(x.shape[1:]), **options) as extractor:
        with contextlib.nullcontext() if method == "GradCAM" else torch.inference_mode():
            scores = network(x)
        [[saliency]] = extractor(label, scores)
    synchronize()
    return saliency.detach().cpu().numpy()


def pytorch_grad_cam_map(method: str, network: nn.Module, target: nn.Module, x: torch.Tensor, label: int) -> np.ndarray:
    with getattr(pytorch_grad_cam, method)(model=network, target_layers=[target]) as cam:
        [saliency] = cam(input_tensor=x, targets=[ClassifierOutputTarget(label)])
    synchronize()
    return saliency


@torch.inference_mode()
def by_hand(
    cut: Cut, run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, label: int, samples: int, batch: int
) -> np.ndarray:
    """torchcam's SS-CAM with common noise: one plane a sample, masks made a batch at a time, buffers reused."""
    shown: list[torch.Tensor] = []
    handle = cut.target.register_forward_hook(lambda module, inputs, output: shown.append(output))
    baseline = cut(x)[0, label]
    handle.remove()
    low, high = shown[0].amin((2, 3), keepdim=True), shown[0].amax((2, 3), keepdim=True)
    masks = ((shown[0] - low) / (high - low + 1e-8))[0, :, None]
    noise = STD * x * torch.randn(samples, 1, *x.shape[2:], device=x.device)
    noise = noise.contiguous(memory_format=torch.channels_last)
    scores = x.new_zeros(len(masks))
    for start in range(0, len(masks), batch):
        upsampled = F.interpolate(masks[start : start + batch], x.shape[2:], mode="bilinear", align_corners=False)
        masked = (upsampled * x).contiguous(memory_format=torch.channels_last)
        noisy = torch.empty_like(masked)
        for sample in range(samples):
            torch.add(masked, noise[sample : sample + 1], out=noisy)
            with torch.autocast("cuda", torch.bfloat16, enabled=DEVICE.type == "cuda"):
                scores[start : start + batch] += run(noisy)[:, label]
    weights = torch.softmax(scores / samples - baseline, 0)
    saliency = F.relu(torch.einsum("c,chw->hw", weights, shown[0][0]))
    saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    synchronize()
    return saliency.cpu().numpy()


def compiled(network: nn.Module, x: torch.Tensor) -> tuple[Callable[[torch.Tensor], torch.Tensor], str]:
    """On a GPU the network through torch.compile, where that works; and what was done, in words."""
    if DEVICE.type == "cpu":
        return network, "channels_last"
    run = torch.compile(network)
    try:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            run(x)
    except RuntimeError as error:  # what every failure inside torch.compile derives from
        return network, f"channels_last, bfloat16 autocast; torch.compile failed: {str(error).splitlines()[0]}"
    return run, "channels_last, bfloat16 autocast, torch.compile"


@torch.inference_mode()
def best_batch(run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, most: int, autocast: bool = False) -> int:
    """The batch with the fastest passes, of those that the channels fill."""

    def seconds(batch: int) -> float:
        inputs = x.expand(batch, *x.shape[1:]).contiguous(memory_format=torch.channels_last)
        times = []
        for _ in range(4):
            began = time.perf_counter()
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast and DEVICE.type == "cuda"):
                run(inputs)
            synchronize()
            times.append(time.perf_counter() - began)
        return min(times[1:]) / batch

    return min([batch for batch in BATCHES if batch <= most] or [most], key=seconds)
