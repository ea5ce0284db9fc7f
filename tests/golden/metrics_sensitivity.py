"""Golden values of Quantus 0.6.0's MaxSensitivity.

    python -m tests.golden.metrics_sensitivity   (from the repository's root; quantus 0.6.0, torch 2.13.0, jax 0.10.2)

needs torch, quantus==0.6.0 and jax. Images are drawn by name (random_tensors.py), the noise as this package documents
it, so that both see the same. The "explanation" is each pixel's mean square: no network is asked.
"""

import pathlib

import jax
import numpy as np
import quantus
import torch

from tests.golden.random_tensors import uniform

HERE = pathlib.Path(__file__).parent
SHAPE = (3, 12, 17, 3)
RADIUS, SAMPLES = 0.3, 4


def explain(images: np.ndarray) -> np.ndarray:
    """Images [..., h, w, 3] to maps [..., h, w]."""
    return (images**2).mean(-1)


def noise(sample: int) -> np.ndarray:
    """Sample i of every image: the key folded with the image's position, then with i."""

    def draw(image: int) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), image), sample)
        return jax.random.uniform(key, SHAPE[1:], minval=-RADIUS, maxval=RADIUS)

    return np.stack([draw(image) for image in range(SHAPE[0])])


def main() -> None:
    images = uniform("sensitivity.images", SHAPE)
    draws = iter(range(SAMPLES))
    metric = quantus.MaxSensitivity(
        nr_samples=SAMPLES,
        perturb_func=lambda arr, **_: arr + np.moveaxis(noise(next(draws)), -1, 1).reshape(arr.shape),
        abs=False,
        normalise=False,
        disable_warnings=True,
    )
    found = metric(
        model=torch.nn.Flatten(),
        x_batch=np.moveaxis(images, -1, 1),
        y_batch=np.zeros(SHAPE[0], int),
        a_batch=explain(images)[:, None],
        explain_func=lambda model, inputs, targets, **_: explain(np.moveaxis(inputs, 1, -1))[:, None],
    )
    np.savez_compressed(HERE / "metrics_sensitivity.npz", max_sensitivity=np.array(found, np.float32))


if __name__ == "__main__":
    main()
