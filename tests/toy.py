"""A small network in NumPy and JAX alike, for inputs of any spatial rank."""

import jax.numpy as jnp
import numpy as np

import sscam_jax as sscam

CLASSES, CHANNELS, COLOURS = 4, 6, 3


def params(seed: int = 0, channels: int = CHANNELS, classes: int = CLASSES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = dict(
        conv=(COLOURS, channels), bias=(channels,), hidden=(channels, 8), out=(8, classes), linear=(channels, classes)
    )
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def images(rank: int = 2, batch: int = 2, seed: int = 1, size: int = 8) -> np.ndarray:
    # Unequal sides, so that swapped axes show.
    space = tuple(size + 2 * axis for axis in range(rank))
    return np.random.default_rng(seed).normal(size=(batch, *space, COLOURS)).astype(np.float32)


def _space(array) -> tuple[int, ...]:
    return tuple(range(1, array.ndim - 1))


def features(params, x):
    """Mean over blocks of two along each spatial axis, a 1×1 convolution, ReLU."""
    for axis in _space(x):
        x = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :]).mean(axis + 1)
    x = x @ params["conv"]
    x = x + params["bias"].reshape(*[1] * (x.ndim - 1), -1)
    return x.clip(0), ()


def mlp_head(params, activations, carry):
    """1×1 convolution, ReLU, average pooling, linear layer: not affine, unlike `linear_head`."""
    return mlp_out(params, mlp_hidden(params, activations))


def mlp_hidden(params, activations):
    hidden = activations @ params["hidden"]
    return hidden.clip(0).mean(_space(hidden))


def mlp_out(params, hidden):
    return hidden @ params["out"]


def linear_head(params, activations, carry):
    return activations.mean(_space(activations)) @ params["linear"]


def mlp_gradient(params: dict[str, np.ndarray], activations: np.ndarray, label: int) -> np.ndarray:
    """∂Y^c/∂A of one image's `mlp_head`, by hand; activations [*grid, c]."""
    hidden = activations @ params["hidden"]
    return ((hidden > 0) * params["out"][:, label]) @ params["hidden"].T / np.prod(activations.shape[:-1])


MLP = sscam.Apply(features, mlp_head)
LINEAR = sscam.Apply(features, linear_head)


def in_sections(sections: sscam.Sections, params, x):
    """The whole network, by its two sections."""
    return sections.late(params, sections.early(params, x))


def on_device(tree: dict[str, np.ndarray]) -> dict[str, jnp.ndarray]:
    return {name: jnp.asarray(value) for name, value in tree.items()}
