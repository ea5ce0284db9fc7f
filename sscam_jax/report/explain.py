"""From photographs to maps and a picture in one call: the work behind `sscam.explain` and `sscam explain`."""

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from PIL import Image

from sscam_jax import data
from sscam_jax._support import MissingPackageError
from sscam_jax.evaluation import fingerprint
from sscam_jax.report import _faithfulness, _network
from sscam_jax.report._network import Network, load
from sscam_jax.report._plan import FRAMES, METHODS, Planned, Request, plan
from sscam_jax.report._progress import Progress
from sscam_jax.report.result import Class, Explanation, read_smaller, stacked, together
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD, Apply, Params, Saliency

T = TypeVar("T")

# Frames at once: their activations and gradients are in memory together.
_BATCH = 32

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Array
"""A path, a PIL image, or an array of uint8 pixels."""


class Failed(NamedTuple):
    """An image that can't be read, and why."""

    name: str
    error: Exception


def waited(work: Callable[[], T], progress: Progress) -> T:
    """Do work in a thread, so that Ctrl-C ends the waiting at once although XLA goes on, and progress moves."""
    # Not `with`, which waits for the thread at the end: Ctrl-C would be heard when XLA is done.
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(work)
        while wait([future], timeout=0.1).not_done:
            progress.tick()
        return future.result()
    finally:
        pool.shutdown(wait=False)


@functools.partial(jax.jit, static_argnums=0)
def _looked(
    apply: Apply, params: Params, images: Float[Array, "b *space c_in"]
) -> tuple[Float[Array, "b n"], Int[Array, " b"]]:
    """The logits, and how many channels of the target layer are not constant."""
    activations, carry = apply.features(params, images)
    axes = tuple(range(1, activations.ndim - 1))
    live = (activations.max(axes) > activations.min(axes)).sum(-1, dtype=jnp.int32)
    return apply.head(params, activations, carry).astype(jnp.float32), live


def _timed(method: Planned, images: Array, label: int) -> tuple[Saliency, Float[np.ndarray, " b"]]:
    """The maps of some images, and the seconds that each took."""
    began = time.perf_counter()
    # device_get waits for the values: JAX returns before they are computed, and the time would be that of asking.
    saliency = jax.device_get(method.run(images, jax.device_put(np.full(len(images), label, np.int32))))
    return saliency, np.full(len(images), (time.perf_counter() - began) / len(images))


def _explained(
    clip: data.Clip, name: str, network: Network, request: Request, methods: Mapping[str, Planned], tell: Progress
) -> Explanation:
    """All classes and methods of one image, or of the frames of one film, many frames in one call."""
    images = data.preprocess(clip.images, size=request.size, mean=request.mean, std=request.std)
    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    tell.begin(name, "", None)
    looked = [waited(functools.partial(_looked, network.apply, network.params, batch), tell) for batch in batches]
    tell.seen.add("")  # compiled: the next image is not told of compilation
    logits, live = (np.concatenate(each) for each in zip(*looked, strict=True))
    if not np.isfinite(logits).all():
        raise ValueError(f"the network returned logits that are not finite for {name}: look for NaN in its parameters")
    # Without the largest logit in all of them, exp overflows from 89 on.
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    # One class for all frames, or the maps of a film would be of several.
    labels = request.labels() or [int(probabilities.mean(0).argmax())]
    found: dict[str, list[tuple[Saliency, Any]]] = {text: [] for text in methods}
    for label in labels:
        for text, method in methods.items():
            for batch in batches:
                tell.begin(f"{name}, {text}", text, method.passes and method.passes * len(batch))
                found[text].append(waited(functools.partial(_timed, method, batch, label), tell))
                tell.end(len(batch))
    saliency = {text: stacked([saliency for saliency, _ in each]) for text, each in found.items()}
    tell.begin(f"{name}, faithfulness", "faithfulness", None)
    measure = functools.partial(_faithfulness.measured, network, images, labels, saliency, request)
    measured = waited(measure, tell) if request.faithfulness else {}
    return Explanation(
        images=[*clip.images] * len(labels),
        names=[name] * len(images) * len(labels),
        frames=[*clip.frames] * len(labels),
        classes=[Class(label, request.name(label), float(each[label])) for label in labels for each in probabilities],
        saliency=saliency,
        seconds={text: np.concatenate([seconds for _, seconds in each]) for text, each in found.items()},
        full={text: np.array([method.full(int(n)) for n in live] * len(labels)) for text, method in methods.items()},
        network=str(network),
        request=request,
        faithfulness=measured,
        notes=read_smaller(clip, name),
    )


def _array(leaf: Any) -> Any:
    # Parameters of the caller's own network may hold plain numbers, which have no type and shape to hash.
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _about(network: Network, methods: Mapping[str, Planned]) -> dict[str, Any]:
    """What else the maps depend on: the network, its parameters, every choice of the methods, versions."""
    return dict(
        network=dict(network.about),
        methods={text: dict(method.choices) for text, method in methods.items()},
        parameters=fingerprint.arrays(jax.tree.map(_array, network.params)),
        source=fingerprint.source(),
        **fingerprint.machine(),
    )


def explained(
    images: Mapping[str, ImageLike | data.Clip], network: Network, request: Request
) -> Iterator[Explanation | Failed]:
    """Explain image after image.

    Args:
        images: by their names; of a film, its frames are explained.
        network: what explains.
        request: what is asked for.

    Yields:
        What was found for an image, or that it can't be read.

    Raises:
        ValueError: a setting is not possible with this network, or its logits are not finite.
    """
    with Progress() as progress:
        methods = plan(request, network.apply, network.params, progress)
        about = _about(network, methods)
        each = max(1, len(request.labels())) * len(methods)
        progress.expect(each * len(images))
        for name, image in images.items():
            try:
                clip = image if isinstance(image, data.Clip) else data.clip(image, name, request.frames)
            except (ValueError, OSError, MissingPackageError) as error:
                progress.expect(-each)
                yield Failed(name, error)
                continue
            # How many frames a file has is known only now.
            progress.expect(each * (len(clip.images) - 1))
            found = _explained(clip, name, network, request, methods, progress)
            yield dataclasses.replace(found, about=about)


def _named(images: ImageLike | Sequence[ImageLike]) -> dict[str, ImageLike]:
    """The images by names: a file's name, the whole path where two files share one, or "image 0"."""
    single = isinstance(images, str | os.PathLike | Image.Image) or getattr(images, "ndim", 4) < 4
    given: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
    if not given:
        raise ValueError("no images: expected a path, a PIL image, an array or a sequence of at least one of them")
    paths = [pathlib.Path(image) if isinstance(image, str | os.PathLike) else None for image in given]
    files = [path.name for path in paths if path is not None]
    names = [
        f"image {i}" if path is None else path.name if files.count(path.name) == 1 else str(path)
        for i, path in enumerate(paths)
    ]
    return dict(zip(names, given, strict=True))


def _network_of(
    model: str | tuple[Apply, Params] | None,
    checkpoint: str | os.PathLike[str] | None,
    layer: str | None,
    num_classes: int | None,
) -> Network:
    if not isinstance(model, tuple):
        return load(model, checkpoint, layer, num_classes)
    if checkpoint is not None or layer is not None:
        raise ValueError("checkpoint and layer are for a network by name, model is one of your own")
    return Network(*model, {})


def explain(
    images: ImageLike | Sequence[ImageLike],
    *,
    model: str | tuple[Apply, Params] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    methods: Sequence[str] = METHODS,
    classes: Sequence[str | int] | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    budget: int | Literal["auto"] | None = "auto",
    seed: int = 0,
    frames: int = FRAMES,
    size: int = 224,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    chunk_size: int | None = None,
    faithfulness: bool = False,
) -> Explanation:
    """Explain photographs: from a path to a picture in one call.

    The whole photograph is shown to the network, squashed to size × size. In a notebook the result shows its picture,
    in a terminal its table. Progress goes to stderr.

    Args:
        images: a path, a PIL image, an array of uint8 pixels [h, w, 3], or a sequence of them. A path or
            a PIL image may be of an animated GIF, WebP or PNG; a path of a video needs the package av.
        model: a network by its name, one of `models()`, or your own as `(apply, params)`. None: the network of the
            checkpoint, or without one SqueezeNet 1.1.
        checkpoint: its weights, as `load` takes them. With neither model nor checkpoint those of the package ndf where
            it is installed, which need no download.
        layer: where a network given by name is cut; None: its default layer.
        methods: methods as on the command line: "grad-cam", "ss-cam:paper,sigma=1".
        classes: names or indices of classes; None: each image's most probable one.
        num_classes: how many classes the network knows; None: a head's, else 1000.
        class_names: their names; None: those of a head, ImageNet's for 1000 classes, else "class 0" and so on.
        budget: scoring passes per map, for the methods that take a budget: "auto" is 256, which takes seconds; None is
            all of them. A budget in a method's text comes first.
        seed: of all noise. The noise of an image does not depend on the images beside it.
        frames: the largest number of frames of an animation or video that are explained, evenly spaced, all for the
            same class; 1: its first frame.
        size: the side in pixels of what the network sees.
        mean: the mean that the network's images are normalised by.
        std: the standard deviation that the network's images are normalised by.
        chunk_size: network inputs scored at once; None: what suits the device.
        faithfulness: also measure Average Drop, insertion and deletion of every map, in 67 more passes per map.

    Returns:
        `Explanation`: `.figure`, `.report(path)`, `.save(path)`, `.saliency[method]`, `.classes`.

    Raises:
        ValueError: a method, class, network or setting is not possible, or an image can't be read.
        FileNotFoundError: an image or the checkpoint does not exist.
        MissingPackageError: a video needs the package av, which is not installed.

    Example:
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> photo = Image.new("RGB", (64, 48), "red")
        >>> photo.paste("blue", (0, 0, 32, 48))
        >>> found = explain(photo, model=(apply, ()), methods=["grad-cam"], num_classes=3, class_names=["r", "g", "b"])
        >>> found.classes[0].name, found.saliency["grad-cam"].maps.shape
        ('b', (1, 224, 224))

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Figure 4.
    """
    if class_names is None and not isinstance(model, tuple):
        class_names = _network.class_names(model, checkpoint)
    request = Request(
        methods=methods,
        classes=classes or (),
        num_classes=num_classes or len(class_names or range(1000)),
        class_names=class_names,
        budget=budget,
        seed=seed,
        frames=frames,
        size=size,
        mean=mean,
        std=std,
        chunk_size=chunk_size,
        faithfulness=faithfulness,
    )
    # Images first: a wrong path is told before a network is loaded.
    clips = {name: data.clip(image, name, frames) for name, image in _named(images).items()}
    network = _network_of(model, checkpoint, layer, num_classes)
    return together([found for found in explained(clips, network, request) if isinstance(found, Explanation)])
