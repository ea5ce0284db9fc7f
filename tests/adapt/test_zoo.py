"""Networks of other packages, which nobody here wrote, with random parameters, under every method."""

import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import sscam_jax as sscam
from sscam_jax import adapt
from sscam_jax.cams import registry

KEY = jax.random.key(0)
SIZE, CLASSES = 64, 5
# Every method but CAM, whose head must be one linear layer, and the controls, with as few passes as it can do with.
# The first two on every network, the others on the one that compiles soonest.
METHODS = [
    "grad-cam",
    "ss-cam:paper,score=logit,n_samples=1,budget=2",
    "score-cam:paper,score=logit,budget=2",
    "grad-cam++",
    "xgrad-cam",
    "hires-cam",
    "layer-cam",
    "smooth-grad-cam++:n_samples=1",
    "finer-cam",
    "shapley-cam",
    "eigen-cam",
    "eigen-grad-cam",
    "ablation-cam",
    "recipro-cam",
    "group-cam:groups=2",
    "is-cam:straight,score=logit,n_samples=1",
    "rise:n_samples=2,cells=2",
    "occlusion:window=32,stride=32",
]
# Each place or pixel has its own weight, not each channel.
WITHOUT_WEIGHTS = {"hires-cam", "layer-cam", "recipro-cam", "rise", "occlusion"}
AT_THE_INPUT = {"rise", "occlusion"}


@pytest.fixture(autouse=True)
def as_their_users_run_them():
    """Other people's networks promote types and ranks, and warn."""
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        yield


def images(size: int = SIZE) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=(1, size, size, 3)), jnp.float32)


def randomised(params):
    """Parameters with the zeros, with which some networks begin, replaced: they would give no signal."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype)
            if jnp.issubdtype(leaf.dtype, jnp.floating) and not leaf.any()
            else leaf
        ),
        params,
    )


class Case(NamedTuple):
    """A network and its adapted form.

    Attributes:
        apply: the adapted network.
        params: its parameters.
        shape: the shape of the maps at its layer.
        run: the network itself, by its own framework: what to do to the layer's output -> the logits.
        tokens: how many tokens come before the patches.
    """

    apply: sscam.Apply
    params: Any
    shape: tuple[int, ...]
    run: Callable[[Callable[[jax.Array], jax.Array]], jax.Array]
    tokens: int = 0


def haiku_case(make: Callable[..., Any], layer: str, shape: tuple[int, ...]) -> Case:
    hk = pytest.importorskip("haiku")
    transformed = hk.transform_with_state(lambda x, is_training: make(hk)(x, is_training))
    params, state = transformed.init(KEY, images(), True)
    params = randomised(params)

    def run(change):
        def intercept(method, args, kwargs, context):
            output = method(*args, **kwargs)
            at_the_layer = context.method_name == "__call__" and context.module.module_name == layer
            return change(output) if at_the_layer else output

        with hk.intercept_methods(intercept):
            return transformed.apply(params, state, None, images(), False)[0]

    return Case(*adapt.haiku(transformed, params, layer, state=state, is_training=False), shape, run)


def haiku_resnet() -> Case:
    return haiku_case(lambda hk: hk.nets.ResNet18(CLASSES), "res_net18/~/block_group_2", (4, 4, 256))


def haiku_mobilenet() -> Case:
    layer = "mobile_net_v1/mobile_net_v1_block_10"
    return haiku_case(lambda hk: hk.nets.MobileNetV1(num_classes=CLASSES), layer, (4, 4, 512))


def linen_resnet() -> Case:
    jax_resnet = pytest.importorskip("jax_resnet")
    module = jax_resnet.ResNet18(n_classes=CLASSES)
    variables = randomised(module.init(KEY, images()))

    def run(change):
        def intercept(method, args, kwargs, context):
            output = method(*args, **kwargs)
            at_the_layer = context.method_name == "__call__" and context.module.path == ("layers_7",)
            return change(output) if at_the_layer else output

        with nn.intercept_methods(intercept):
            return module.apply(variables, images())

    return Case(*adapt.linen(module, variables, "layers_7"), (4, 4, 256), run)


def equinox_case(model: Any, where: Callable[[Any], Any], layer: str, **options: Any) -> Case:
    eqx = pytest.importorskip("equinox")

    class Changed(eqx.Module):
        inner: Any
        change: Callable[[jax.Array], jax.Array]

        def __call__(self, *args, **kwargs):
            return self.change(self.inner(*args, **kwargs))

    def run(change):
        changed = eqx.tree_at(where, model, replace_fn=lambda inner: Changed(inner, change))
        return changed(images()[0].transpose(2, 0, 1), inference=True)[None]

    return Case(*adapt.equinox(model, layer, inference=True, **options), (4, 4, 24), run, options.get("tokens", 0))


def equimo_models():
    """From 2.0 on, which needs Python 3.12, equimo has its networks in another module."""
    pytest.importorskip("equimo")
    version = int(importlib.metadata.version("equimo").partition(".")[0])
    return importlib.import_module("equimo.vision.models" if version > 1 else "equimo.models")


def equinox_convnext() -> Case:
    model = equimo_models().ConvNeXt(3, depths=[1, 1, 1, 1], dims=[8, 16, 24, 32], num_classes=CLASSES, key=KEY)
    return equinox_case(model, lambda model: model.blocks[2], "blocks.2")


def equinox_vit() -> Case:
    """A class token and a register come before the patches."""
    options = dict(reg_tokens=1, num_classes=CLASSES, global_pool="token")
    sizes = dict(dim=24, patch_size=16, num_heads=[2], depths=[2])
    model = equimo_models().VisionTransformer(SIZE, 3, key=KEY, **sizes, **options)
    return equinox_case(model, lambda model: model.blocks[0].blocks[0], "blocks.0.blocks.0", tokens=2)


NETWORKS = [haiku_resnet, linen_resnet, equinox_convnext, equinox_vit, haiku_mobilenet]
# The adapted network is cut in two by the same code for all frameworks, so all methods run on two of them: on tokens
# and on maps. test_frameworks.py has a small network of each framework.
CASES = [
    *(
        # A second network of Haiku tells nothing new of the adapter.
        pytest.param(
            network,
            METHODS[:2],
            id=network.__name__,
            marks=[pytest.mark.slow, *[pytest.mark.zoo] * (network is haiku_mobilenet)],
        )
        for network in NETWORKS
    ),
    *(
        pytest.param(network, METHODS[2:], id=f"{network.__name__}, others", marks=pytest.mark.slow)
        for network in (equinox_vit, equinox_convnext)
    ),
]


def test_no_method_is_left_out():
    assert {spec.partition(":")[0] for spec in METHODS} == set(registry.METHODS) - set(registry.CONTROLS) - {"cam"}


def by_hand(case: Case, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Grad-CAM by the network's own framework, and the logits: the gradient at a zero that is added to the layer."""

    def logit(zero):
        found = []

        def change(output):
            found.append(output)
            return output + zero

        logits = case.run(change)
        return logits[0, label], (found[0], logits)

    shape = jax.eval_shape(lambda: logit(0.0)[1][0]).shape
    gradient, (activations, logits) = jax.jit(jax.grad(logit, has_aux=True))(jnp.zeros(shape))
    if shape[1:] == case.shape:
        pass
    elif len(shape) == 2:  # one image's tokens
        gradient, activations = (each[case.tokens :].reshape(1, *case.shape) for each in (gradient, activations))
    else:  # one image's maps, channels first
        gradient, activations = (jnp.moveaxis(each, 0, -1)[None] for each in (gradient, activations))
    return np.einsum("c,hwc->hw", gradient[0].mean((0, 1)), activations[0]), logits


@pytest.mark.parametrize(("network", "specs"), CASES)
def test_methods(network, specs):
    case = network()
    first = None
    for spec in specs:
        method, _ = registry.parse(spec)
        key = dict(key=KEY) if registry.draws(method) else {}
        saliency = method(case.apply, case.params, images(), [1], **key)
        name = spec.partition(":")[0]
        grid = (SIZE, SIZE) if name in AT_THE_INPUT else case.shape[:-1]
        assert saliency.raw.shape == (1, *grid), name
        assert saliency.weights.shape == (1, case.shape[-1]), name
        assert saliency.logits.shape == (1, CLASSES) and saliency.logits.any(), name
        first = saliency.logits if first is None else first
        np.testing.assert_allclose(saliency.logits, first, rtol=1e-3, atol=1e-3, err_msg=name)
        assert saliency.raw.any() and saliency.weights.any() == (name not in WITHOUT_WEIGHTS), name
        assert all(np.isfinite(each).all() for each in saliency), name
        if name == "grad-cam":
            expected, logits = by_hand(case, 1)
            np.testing.assert_allclose(saliency.logits, logits, rtol=1e-3, atol=1e-3 * np.abs(logits).max())
            np.testing.assert_allclose(saliency.raw[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
