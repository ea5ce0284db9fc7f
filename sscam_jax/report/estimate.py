"""What an explanation will cost, before it runs."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
from PIL import Image

from sscam_jax import cams, data
from sscam_jax.report._network import Network
from sscam_jax.report._plan import Request, bound, plan

# A backward pass costs about two forward passes.
_WITH_GRADIENT = 3


class Estimate(NamedTuple):
    """What a method will cost for all images and classes: forward passes, seconds, and bytes at once."""

    method: str
    passes: int
    seconds: float
    bytes: int | None


def estimate(first: Image.Image, images: int, network: Network, request: Request) -> Iterator[Estimate]:
    """What `explain` will cost, from the passes that the first image takes and one chunk of them, which is timed.

    Args:
        first: the first image.
        images: how many there are, with all frames of films.
        network: what explains.
        request: what is asked for.

    Yields:
        An estimate per method. Compilation, figures and files come on top.

    Raises:
        ValueError: a setting is not possible.
    """
    apply, params, _ = network
    methods = plan(request, apply, params, None)
    inputs = data.preprocess(first, size=request.size, mean=request.mean, std=request.std)
    maps = images * max(1, len(request.labels()))  # without a class: the most probable one of each image
    devices = jax.local_devices() if jax.local_device_count() > 1 else None
    one = cams.cost(apply, params, inputs, chunk_size=request.chunk_size, devices=devices)
    # A method of one pass runs one image, for which a chunk's seconds per image would be too few.
    alone = cams.cost(apply, params, inputs, chunk_size=1)
    for text in methods:
        method, _ = bound(text, request)
        # Of a compiled program that returns the passes alone, XLA leaves out the passes themselves.
        count = jax.jit(lambda params, images, method=method: method(apply, params, images, None).passes)
        passes = int(count(params, inputs)[0])
        used = alone if passes == 1 else one
        seconds = maps * passes * used.seconds / used.passes * (_WITH_GRADIENT if passes == 1 else 1)
        yield Estimate(text, maps * passes, seconds, used.bytes)
