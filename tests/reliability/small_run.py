"""A small evaluation that takes a while: `python -m tests.reliability.small_run OUT INDEX COUNT`.

Twelve batches of two images; a method on the host sleeps, so that a kill can come at any moment.
"""

import pathlib
import sys
import time

import jax

jax.config.update("jax_platforms", "cpu")

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import sscam_jax as sscam  # noqa: E402

BATCHES = 12
IMAGES = np.random.default_rng(0).normal(size=(2 * BATCHES, 8, 8, 3)).astype(np.float32)


def features(params, images):
    """The images."""
    return images, ()


def head(params, activations, carry):
    """A linear layer after pooling."""
    return activations.mean((1, 2)) @ params


def slow(apply, params, images, labels):
    """The brightness, after a moment."""
    time.sleep(0.01)
    return np.abs(np.asarray(images)).max(-1) / 10


def main(out: pathlib.Path, index: int, count: int) -> None:
    """Evaluate, as one of several processes."""
    batches = sscam.data.from_arrays(IMAGES, labels=np.arange(2 * BATCHES) % 3, batch_size=2)
    params = jnp.eye(3)
    apply = sscam.Apply(features, head)
    sscam.evaluate(
        apply, params, batches, {"slow": slow, "grad-cam": "grad-cam"}, ["average-drop", "complexity"],
        out=out, process=(index, count),
    )  # fmt: skip


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
