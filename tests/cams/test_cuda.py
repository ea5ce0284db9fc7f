"""Every method lowers for NVIDIA GPUs, on a machine without one: nothing in it is for CPUs only.

Lowering ends before XLA's own compiler, which `make accelerators` runs. Whether a program is fast, only a GPU tells.
"""

import inspect
import itertools
import re

import jax
import jax.numpy as jnp
import pytest

import sscam_jax as sscam
from sscam_jax.cams import registry
from tests import toy
from tests.marks import quick

PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=2))
METHODS = {name: [f"{name}:{preset}" for preset in entry.presets] or [name] for name, entry in registry.ENTRIES.items()}
# One preset of each method is in `make test`.
EVERY = quick([texts[0] for texts in METHODS.values()], itertools.chain.from_iterable(METHODS.values()))


def lowered(method, apply: sscam.Apply, **options) -> str:
    """The program for CUDA as text."""
    keywords = inspect.signature(method).parameters
    random = dict(key=jax.random.key(0)) if "key" in keywords else {}
    chunked = dict(chunk_size=4) if "chunk_size" in keywords else {}
    function = jax.jit(lambda params, images: method(apply, params, images, [1, 2], **random, **chunked, **options))
    exported = jax.export.export(function, platforms=["cuda"])(PARAMS, IMAGES)
    assert exported.platforms == ("cuda",)
    return exported.mlir_module()


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize("text", EVERY)
def test_lowers_for_cuda(on_a_gpu, text):
    method, _ = registry.parse(text)
    program = lowered(method, toy.LINEAR if text == "cam" else toy.MLP)
    targets = re.findall(r"custom_call @(\w+)", program)
    # LAPACK runs on the host; what stays are cuSOLVER and XLA's own.
    assert all(re.match("cu|Sharding|Eigh|mhlo", target) for target in targets), set(targets)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lowers_for_cuda_in_half_precision(on_a_gpu, precision):
    program = lowered(sscam.ss_cam, toy.MLP, precision=precision)
    assert dict(bfloat16="bf16", float16="f16")[precision] in program


def test_a_callback_would_be_refused(on_a_gpu):
    """The test above can fail: what calls back into Python does not lower for a device that is not there."""
    with pytest.raises(ValueError, match="different from the lowering platform cuda"):
        lowered(sscam.score_cam, toy.MLP, progress=lambda done, total: None)
