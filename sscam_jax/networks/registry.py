"""The networks by name, their layers and their known checkpoints."""

from typing import NamedTuple

from sscam_jax import convert
from sscam_jax._support import choose
from sscam_jax.networks.convnext import CONVNEXT_TINY
from sscam_jax.networks.densenet import DENSENET121
from sscam_jax.networks.efficientnet import EFFICIENTNET_B0, EFFICIENTNET_LITE0
from sscam_jax.networks.mobilenet import MOBILENET_V2, MOBILENET_V3_LARGE, MOBILENET_V3_SMALL
from sscam_jax.networks.network import Network, stage_names, template
from sscam_jax.networks.resnet import RESNET18, RESNET34, RESNET50, RESNET101
from sscam_jax.networks.squeezenet import SQUEEZENET1_0, SQUEEZENET1_1
from sscam_jax.networks.swin import SWIN_T
from sscam_jax.networks.vgg import VGG16_NETWORK
from sscam_jax.networks.vit import VIT_B_16, VIT_S_16
from sscam_jax.types import Params

# In the order in which `models` lists them.
NETWORKS = {
    network.name: network
    for network in (
        *(RESNET18, RESNET34, RESNET50, RESNET101, VGG16_NETWORK, SQUEEZENET1_0, SQUEEZENET1_1, DENSENET121),
        *(MOBILENET_V2, MOBILENET_V3_SMALL, MOBILENET_V3_LARGE, EFFICIENTNET_B0, EFFICIENTNET_LITE0),
        *(CONVNEXT_TINY, VIT_B_16, VIT_S_16, SWIN_T),
    )
}


class Model(NamedTuple):
    """A network that `load` knows.

    Attributes:
        name: the name of the network.
        default_layer: the layer that is explained by default. For a CNN it is the layer of the SS-CAM paper, for a ViT
            the input of the last attention, for Swin the last maps.
        checkpoints: the names of its known checkpoints.
        default_checkpoint: the checkpoint that `load` takes by default; None if no checkpoint is known.
    """

    name: str
    default_layer: str
    checkpoints: tuple[str, ...]
    default_checkpoint: str | None

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers where it can be cut. A group such as `layer4` stands for its last stage."""
        # Not a field, because the network is built to find its layers, and who wants one network builds no other.
        network = NETWORKS[self.name]
        return network.groups + stage_names(network)


def checkpoints_of(network: Network) -> tuple[str, ...]:
    """The names of a network's known checkpoints; the first is the default."""
    return tuple(name for name, known in convert.KNOWN.items() if known.model == network.name)


def models() -> tuple[Model, ...]:
    """List the networks that `load` knows, with their layers and known checkpoints.

    Returns:
        One entry per network.

    Example:
        >>> [model.name for model in models()][:4]
        ['resnet18', 'resnet34', 'resnet50', 'resnet101']
        >>> models()[0].default_layer
        'layer4'

    References:
        Layers are named after torchvision's modules: https://docs.pytorch.org/vision/stable/models.html
    """
    return tuple(
        Model(
            network.name,
            network.default_layer,
            checkpoints_of(network),
            next(iter(checkpoints_of(network)), None),
        )
        for network in NETWORKS.values()
    )


def find(name: str) -> Network:
    """A network by its name.

    Raises:
        ValueError: it is not known.
    """
    choose("network", name, NETWORKS)
    return NETWORKS[name]


def template_of(network: Network, num_classes: int) -> Params:
    """The shapes and types of a network's parameters.

    Raises:
        ValueError: `num_classes` is less than 1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")
    return template(network, num_classes)
