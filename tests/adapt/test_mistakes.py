"""The table of mistakes in docs/networks.md: each is made here, and its message must say what the table says."""

import os
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from flax import nnx

import sscam_jax as sscam
from sscam_jax import adapt

os.environ.setdefault("KERAS_BACKEND", "jax")

KEY = jax.random.key(0)
IMAGES = jnp.ones((1, 8, 8, 3))
PAGE = pathlib.Path(__file__).parent.parent.parent / "docs" / "networks.md"


def table() -> dict[tuple[str, str], str]:
    """The rows of the page: framework and mistake -> message, in which … stands for what is left out."""
    section = PAGE.read_text("utf-8").partition("### Common mistakes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| `(.+)` \|$", section, re.MULTILINE)
    return {(framework, mistake): message for framework, mistake, message in rows}


class NNXNet(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv, self.norm = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, *, rngs, train=False):
        return self.dense(jax.nn.relu(self.norm(self.conv(x), use_running_average=not train)).mean((1, 2)))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(3)(nn.relu(nn.BatchNorm(not train)(nn.Conv(4, (3, 3))(x))).mean((1, 2)))


def flax_nnx(layer: str = "conv", **options: Any) -> Any:
    return sscam.grad_cam(*adapt.flax_nnx(NNXNet(), layer, **options), IMAGES, [0])


def linen(*collections: str, **options: Any) -> Any:
    variables = LinenNet().init(KEY, IMAGES, False)
    chosen = {name: variables[name] for name in collections} if collections else variables
    return sscam.grad_cam(*adapt.linen(LinenNet(), chosen, "Conv_0", **options), IMAGES, [0])


def equinox(images: jax.Array = IMAGES, layer: str = "layers.1", with_state: bool = False) -> Any:
    eqx = pytest.importorskip("equinox")

    def make():
        norm = [eqx.nn.BatchNorm(4, "batch", mode="ema")] if with_state else []
        pool = eqx.nn.Lambda(lambda x: x.mean((1, 2)))
        return eqx.nn.Sequential([eqx.nn.Conv2d(3, 4, 3, key=KEY), *norm, eqx.nn.Lambda(jax.nn.relu), pool])

    return sscam.grad_cam(*adapt.equinox(eqx.nn.make_with_state(make)()[0], layer), images, [0])


def haiku(layer: str = "conv2_d", is_training: bool = False, keep_state: bool = True) -> Any:
    hk = pytest.importorskip("haiku")

    def network(x, is_training):
        return hk.Linear(3)(hk.BatchNorm(True, True, 0.9)(hk.Conv2D(4, 3)(x), is_training).mean((1, 2)))

    transformed = hk.transform_with_state(network)
    params, state = transformed.init(KEY, IMAGES, True)
    given = dict(state=state) if keep_state else {}
    return sscam.grad_cam(*adapt.haiku(transformed, params, layer, is_training=is_training, **given), IMAGES, [0])


def keras(end: str | None = None, built: bool = True) -> Any:
    keras = pytest.importorskip("keras")
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([*layers, keras.layers.Dense(3, activation=end, name="dense")], name="small")
    if built:
        model.build((None, 8, 8, 3))
    return adapt.keras(model, "conv")


def torch(training: bool = False, layer: str = "0") -> Any:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchax")
    return adapt.torch(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()).train(training), layer)


def plain(network: Any) -> Any:
    return sscam.grad_cam(*adapt.plain(network, jnp.ones((3, 4))), IMAGES, [0])


def black_box(method: Any = sscam.grad_cam) -> Any:
    apply, params = adapt.black_box(lambda images: images.mean((1, 2)), lambda images: images)
    return method(apply, params, IMAGES, [0])


MISTAKES = {
    ("any", "a module instead of an `Apply`"): lambda: sscam.grad_cam(NNXNet(), None, IMAGES, [0]),
    ("any", "the adapter of another framework"): lambda: adapt.flax_nnx(LinenNet(), "Conv_0"),
    ("NNX", "another layer's name"): lambda: flax_nnx("layer4", rngs=None),
    ("NNX", "an argument of the call is missing"): lambda: flax_nnx(),
    ("NNX", "training mode"): lambda: flax_nnx(rngs=None, train=True),
    ("Linen", "an argument of the call is missing"): lambda: linen(),
    ("Linen", "training mode"): lambda: linen(train=True),
    ("Linen", "a collection is missing"): lambda: linen("params", train=False),
    ("Equinox", "channels first in the images"): lambda: equinox(IMAGES.transpose(0, 3, 1, 2)),
    ("Equinox", "an index as in Python"): lambda: equinox(layer="layers[1]"),
    ("Equinox", "a state left out"): lambda: equinox(with_state=True),
    ("Haiku", "a name that is nearly right"): lambda: haiku("conv2d"),
    ("Haiku", "training mode"): lambda: haiku(is_training=True),
    ("Haiku", "a state left out"): lambda: haiku(keep_state=False),
    ("Keras", "a softmax at the end"): lambda: keras("softmax"),
    ("Keras", "a model that is not built"): lambda: keras(built=False),
    ("PyTorch", "training mode"): lambda: torch(training=True),
    ("PyTorch", "another layer's name"): lambda: torch(layer="layer4"),
    ("a function", "the tap is not called"): lambda: plain(lambda params, images, tap: (images @ params).mean((1, 2))),
    ("a function", "several outputs"): lambda: plain(
        lambda params, images, tap: {"logits": tap(images @ params).mean((1, 2))}
    ),
    ("NumPy", "a method with gradients"): black_box,
}


@pytest.fixture(autouse=True)
def as_beginners_run_it(as_users_run_it):
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_the_table_has_these_mistakes():
    assert list(table()) == list(MISTAKES)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda pair: ": ".join(pair))
def test_message(mistake):
    parts = map(re.escape, table()[mistake].split("…"))
    with pytest.raises(ValueError, match=re.compile(".*".join(parts), re.DOTALL)):
        MISTAKES[mistake]()
