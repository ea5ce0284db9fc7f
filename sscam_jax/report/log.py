"""Maps while a network is trained: `sscam.log` hands an overlay per image and method to whatever keeps pictures."""

import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from sscam_jax import data, plots
from sscam_jax._support import imported, replacing
from sscam_jax.report.result import Explanation
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Saliency

Picture = UInt8[np.ndarray, "height width 3"]


@runtime_checkable
class Log(Protocol):
    """What keeps pictures of training steps."""

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Keep an 8-bit RGB picture [height, width, 3] under a name such as "maps/0/ss-cam"."""


class Folder:
    """Keep pictures as files, `maps-0-ss-cam/000100.png`, and make a film of them.

    Args:
        path: the folder; made where missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Folder(folder).picture(100, "maps/0/ss-cam", np.zeros((4, 4, 3), np.uint8))
        ...     [file.relative_to(folder).as_posix() for file in pathlib.Path(folder).rglob("*.png")]
        ['maps-0-ss-cam/000100.png']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)

    def _folder(self, name: str) -> pathlib.Path:
        # A name such as "maps/0/ss-cam:sigma=1" is one folder on every system.
        return self.path / re.sub(r"[^\w.+=-]+", "-", name)

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Write the picture, whole or not at all."""
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        plots.save(picture, folder / f"{step:06}.png")

    def film(self, name: str, path: str | os.PathLike[str], *, seconds: float = 0.4) -> None:
        """Write the pictures of a name as an animated GIF, in the order of their steps.

        Args:
            name: as it was given to `picture`.
            path: the GIF.
            seconds: how long each picture is shown.

        Raises:
            ValueError: there is no picture of this name.
        """
        # By number: "1000000" comes before "999999" as text.
        files = sorted(self._folder(name).glob("*.png"), key=lambda file: int(file.stem))
        if not files:
            there = ", ".join(repr(each.name) for each in sorted(self.path.glob("*"))) or "nothing"
            raise ValueError(f"'{self.path}' holds no picture of '{name}'; there is {there}")
        first, *others = (Image.open(file).convert("RGB") for file in files)
        # The format is named, because the temporary file does not end in ".gif".
        with replacing(pathlib.Path(path)) as part:
            first.save(part, "GIF", save_all=True, append_images=others, duration=round(1000 * seconds), loop=0)


class TensorBoard:
    """Keep pictures in a TensorBoard log.

    Args:
        writer: a `SummaryWriter` of tensorboardX, PyTorch or clu, or a folder, for which tensorboardX makes one.

    Raises:
        MissingPackageError: a folder is given and tensorboardX is not installed.
    """

    def __init__(self, writer: Any) -> None:
        # Imported here, as the others are: whoever keeps a folder needs none of them.
        if isinstance(writer, str | os.PathLike):
            writer = imported("tensorboardX", "log").SummaryWriter(os.fspath(writer))
        self.writer = writer

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Add the picture, and write it out."""
        # Written out at once: pictures are seen while training goes on, and stay if it is killed.
        self.writer.add_image(name, picture, step, dataformats="HWC")
        self.writer.flush()


class WandB:
    """Keep pictures in a run of Weights & Biases.

    Args:
        run: what `wandb.init` returned.
    """

    def __init__(self, run: Any) -> None:
        self.run = run

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Log the picture."""
        self.run.log({name: imported("wandb", "log").Image(picture)}, step=step)


class Aim:
    """Keep pictures in a run of Aim.

    Args:
        run: an `aim.Run`.
    """

    def __init__(self, run: Any) -> None:
        self.run = run

    def picture(self, step: int, name: str, picture: Picture) -> None:
        """Track the picture."""
        self.run.track(imported("aim", "log").Image(picture), name=name, step=step)


@functools.singledispatch
def _rows(found: Any, images: Any, mean: Sequence[float], std: Sequence[float]) -> dict[str, list[Picture]]:
    raise TypeError(f"found is a {type(found).__name__}, expected what `sscam.explain` or a method returns")


@_rows.register
def _(found: Explanation, images: Any, mean: Any, std: Any) -> dict[str, list[Picture]]:
    photos = found.images if images is None else images
    return {method: _overlays(photos, np.asarray(of.maps), mean, std) for method, of in found.saliency.items()}


@_rows.register
def _(found: Saliency, images: Any, mean: Any, std: Any) -> dict[str, list[Picture]]:
    if images is None:
        raise ValueError("images is None: a `Saliency` holds no photographs; expected the images that it explains")
    return {"map": _overlays(images, np.asarray(found.maps), mean, std)}


def _overlays(images: Any, maps: Float[np.ndarray, "b h w"], mean: Any, std: Any) -> list[Picture]:
    if len(images) != len(maps):
        raise ValueError(f"{len(images)} images and {len(maps)} maps: expected one map per image")
    return [plots.overlay(_photo(image, mean, std), each) for image, each in zip(images, maps, strict=True)]


def _photo(image: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """A photograph; a float array is one that `preprocess` made."""
    # Floats are normalised and below 0: as they are, they would be drawn almost black.
    if isinstance(image, Image.Image) or np.asarray(image).dtype == np.uint8:
        return image
    return data.photograph(np.asarray(image, np.float32), mean=mean, std=std)


def log(
    step: int,
    images: Any,
    found: Explanation | Saliency,
    *,
    to: Log | str | os.PathLike[str],
    name: str = "maps",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> None:
    """Keep the maps of a training step: an overlay per image and method.

    Call it with the same validation images as training goes on, and the maps show what the network learns to use.

    Args:
        step: the number of the step (≥ 0).
        images: the b images: photographs (PIL images or uint8 arrays), or network inputs [b, h, w, 3] that
            `preprocess` made. None: the photographs that an `Explanation` holds.
        found: what `sscam.explain` or a method such as `sscam.grad_cam` returned for these images.
        to: where they are kept: `TensorBoard`, `WandB`, `Aim` or `Folder` of `sscam_jax.report.log`, any object with
            the method `picture(step, name, picture)`, or a path, which is a `Folder`.
        name: what the pictures' names begin with; "maps/0/ss-cam" is image 0 by SS-CAM.
        mean: the mean that network inputs are normalised by.
        std: the standard deviation that network inputs are normalised by.

    Raises:
        TypeError: `found` or `to` is of another type.
        ValueError: the step is negative, or there is not one map per image.

    Example:
        >>> import tempfile
        >>> import jax.numpy as jnp
        >>> from sscam_jax import Apply, grad_cam
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images = jnp.ones((1, 8, 8, 3)).at[:, :4].set(0.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log(0, images, grad_cam(apply, (), images), to=folder)
        ...     [file.relative_to(folder).as_posix() for file in pathlib.Path(folder).rglob("*.png")]
        ['maps-0-map/000000.png']
    """
    if step < 0:
        raise ValueError(f"step is {step}, expected at least 0")
    # Checked before any overlay is drawn, and before anything is written.
    target = Folder(to) if isinstance(to, str | os.PathLike) else to
    if not isinstance(target, Log):
        raise TypeError(f"to is a {type(to).__name__}, expected a path or an object with a method 'picture'")
    for method, pictures in _rows(found, images, mean, std).items():
        for i, picture in enumerate(pictures):
            target.picture(step, f"{name}/{i}/{method}", picture)
