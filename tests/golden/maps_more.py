"""Golden maps of torchcam 0.5.0 and pytorch-grad-cam 1.5.7, for the methods that maps.py has not.

    python tests/golden/maps_more.py      (from the repository's root; made with torch 2.13.0, jax 0.10.2)

needs what maps.py needs, whose small network and images these are. For Smooth Grad-CAM++ the logits are scaled up,
which makes the epsilon in torchcam's denominator too small to be seen, and the noise is drawn as this package
documents it.
"""

import jax
import numpy as np
import torch
import torchcam.methods
from maps import HERE, KEY, LABELS, Small, nchw, pytorch_grad_cam, pytorch_grad_cam_maps, torchcam_maps
from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST, ClassifierOutputTarget
from random_tensors import uniform

SAMPLES, SIGMA = 3, 0.5


def noise(sample: int, images: np.ndarray) -> torch.Tensor:
    """Sample i of every image, as `smooth_grad_cam_pp` draws it: the key folded with image and sample."""
    keys = [jax.random.fold_in(jax.random.fold_in(KEY, image), sample) for image in range(len(images))]
    return nchw(np.stack([np.array(jax.random.normal(key, images.shape[1:])) for key in keys]))


def smooth_maps(model: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    x = nchw(images)
    extractor = torchcam.methods.SmoothGradCAMpp(model, "body", num_samples=SAMPLES, std=SIGMA, input_shape=x.shape[1:])
    draws = iter(range(SAMPLES))
    extractor._distrib.sample = lambda size: SIGMA * noise(next(draws), images)
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
    mlp, linear = Small("mlp"), Small("linear", scale=1000.0)
    for method in ("XGradCAM", "LayerCAM", "FinerCAM"):
        golden[f"torchcam/{method}"] = torchcam_maps(method, mlp, "body", images, LABELS)
    golden["torchcam/ISCAM"] = torchcam_maps("ISCAM", mlp, "body", images, LABELS, num_samples=4)
    golden["torchcam/SmoothGradCAMpp/linear"] = smooth_maps(linear, images)
    golden["torchcam/SmoothGradCAMpp/mlp"] = smooth_maps(Small("mlp", scale=1000.0), images)
    for method in ("XGradCAM", "HiResCAM", "LayerCAM", "AblationCAM", "EigenCAM", "EigenGradCAM"):
        golden[f"pytorch_grad_cam/{method}"] = pytorch_grad_cam_maps(method, mlp, mlp.body, images, LABELS)
    golden["pytorch_grad_cam/ShapleyCAM/logit"] = with_target("ShapleyCAM", mlp, images, ClassifierOutputTarget)
    golden["pytorch_grad_cam/ShapleyCAM/residual_softmax"] = with_target(
        "ShapleyCAM", mlp, images, ClassifierOutputReST
    )
    golden["pytorch_grad_cam/FinerCAM"] = finer_maps(mlp, images, LABELS[0])
    golden["pytorch_grad_cam/LayerCAM/aug_smooth"] = with_target(
        "LayerCAM", mlp, images, ClassifierOutputTarget, aug_smooth=True
    )
    np.savez_compressed(HERE / "maps_more.npz", **{name: value.astype(np.float32) for name, value in golden.items()})


if __name__ == "__main__":
    main()
