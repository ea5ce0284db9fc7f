"""Weights and inputs that the golden generators and the tests draw alike, so that no weights are stored.

Everything is uniform and comes from the raw bits of PCG64, whose stream NumPy keeps the same in all versions,
seeded with the CRC-32 of the tensor's name.
"""

import math
import zlib

import numpy as np


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform float32 numbers in [-1, 1] that depend on the name and the shape alone."""
    size = math.prod(shape)
    bits = np.random.PCG64(zlib.crc32(name.encode())).random_raw((size + 1) // 2).astype("<u8").view("<u4")
    return (bits[:size].astype(np.float32) * np.float32(2**-31) - np.float32(1)).reshape(shape)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a checkpoint, in PyTorch's layout.

    Kernels have variance 2 / fan_in, so that activations keep their scale; batch normalisation's statistics
    and scales are neither 0 nor 1.
    """
    values = uniform(name, shape)
    if len(shape) > 1:
        return values * np.float32(math.sqrt(6 / math.prod(shape[1:])))
    if name.endswith(("weight", "running_var")):
        return 1 + values / 2
    return values / 4


def summary(array: np.ndarray) -> np.ndarray:
    """An array's norm, then 128 of its entries."""
    picked = np.random.PCG64(zlib.crc32(str(array.shape).encode())).random_raw(128) % np.uint64(array.size)
    norm = np.linalg.norm(array.astype(np.float64).ravel())
    return np.concatenate([[norm], array.ravel()[picked.astype(np.int64)]]).astype(np.float32)
