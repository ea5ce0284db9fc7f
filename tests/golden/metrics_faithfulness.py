"""Golden values of the metrics of torchcam 0.5.0 and pytorch-grad-cam 1.5.7.

    python tests/golden/metrics_faithfulness.py      (from the repository's root; made with torch 2.13.0, jax 0.10.2)

needs what maps.py needs. The network is that of maps.py; images and maps are drawn by name (random_tensors.py). Each
image and map is measured on its own, for these libraries return means over the data set. Two things are set right
before the comparison: torchcam's insertion starts from the image that this package's starts from, and ROAD adds no
noise.
"""

import contextlib
import functools
import pathlib

import numpy as np
import torch
from maps import Small, nchw
from pytorch_grad_cam.metrics import cam_mult_image
from pytorch_grad_cam.metrics import road as road_metrics
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from random_tensors import uniform
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

from sscam_jax import ops

HERE = pathlib.Path(__file__).parent
LABELS = [1, 3]
SOFTMAX = functools.partial(torch.softmax, dim=-1)


class Given:
    """An extractor of torchcam's whose map is given."""

    def __init__(self, model: torch.nn.Module, cam: np.ndarray) -> None:
        self.model, self.cam = model, torch.tensor(cam)[None]

    def __call__(self, class_idx: object, scores: object) -> list[torch.Tensor]:
        return [self.cam]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]

    def _hooks_off(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


def torchcam_values(model: torch.nn.Module, x: torch.Tensor, start: torch.Tensor, cam: np.ndarray, label: int) -> dict:
    extractor = Given(model, cam)
    both = ClassificationMetric(extractor, SOFTMAX)
    deletion = DeletionInsertionMetric(extractor, SOFTMAX)
    insertion = DeletionInsertionMetric(extractor, SOFTMAX, baseline=start)
    for metric in (both, deletion, insertion):
        metric.update(x, [label])
    found = both.summary()
    return {
        "torchcam/drop": found["avg_drop"],
        "torchcam/increase": found["conf_increase"],
        "torchcam/deletion": deletion.summary()["deletion_auc"],
        "torchcam/insertion": insertion.summary()["insertion_auc"],
    }


def pytorch_grad_cam_values(model: torch.nn.Module, x: torch.Tensor, cam: np.ndarray, label: int) -> dict:
    metrics = {
        "drop": cam_mult_image.DropInConfidence(),
        "increase": cam_mult_image.IncreaseInConfidence(),
        "road_morf": road_metrics.ROADMostRelevantFirstAverage(),
        "road_lerf": road_metrics.ROADLeastRelevantFirstAverage(),
        "road": road_metrics.ROADCombined(),
    }
    targets = [ClassifierOutputSoftmaxTarget(label)]
    return {f"pytorch_grad_cam/{name}": metric(x, cam[None], targets, model)[0] for name, metric in metrics.items()}


def main() -> None:
    road_metrics.NoisyLinearImputer.__init__.__defaults__ = (0.0, road_metrics.neighbors_weights)
    images = uniform("metrics.images", (2, 30, 40, 3))
    maps = np.abs(uniform("metrics.maps", (3, 2, 30, 40)))
    model = Small("mlp", scale=4.0)
    start = nchw(np.asarray(ops.blur(images, sigma=2.0)))
    x = nchw(images)
    rows = [
        torchcam_values(model, x[i : i + 1], start[i : i + 1], cam[i], LABELS[i])
        | pytorch_grad_cam_values(model, x[i : i + 1], cam[i], LABELS[i])
        for cam in maps
        for i in range(2)
    ]
    golden = {name: np.array([row[name] for row in rows], np.float32).reshape(3, 2) for name in rows[0]}
    kept = torch.tensor(maps[0, 0] < np.percentile(maps[0, 0], 40)).float()
    golden["pytorch_grad_cam/imputed"] = np.moveaxis(road_metrics.NoisyLinearImputer()(x[0], kept).numpy(), 0, -1)
    np.savez_compressed(HERE / "metrics_faithfulness.npz", **golden)


if __name__ == "__main__":
    main()
