"""Every method of the registry on drawn networks, images and labels: a finite map in [0, 1], or the documented error.

What is static (shapes, dtypes, presets) is drawn, because each draw costs a compilation; the images of one batch are of
all the kinds that values can be of. The draws are the same in every run.
"""

import dataclasses
import functools
import inspect
import zlib
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import sscam_jax as sscam
from sscam_jax import cams
from sscam_jax.cams import registry
from tests import toy
from tests.marks import quick

pytestmark = pytest.mark.usefixtures("as_users_run_it")

FIXED = dict(deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck))

# So that a map costs tens of passes, not thousands.
FEWER = {
    "ss-cam": dict(n_samples=2),
    "is-cam": dict(n_samples=2),
    "rise": dict(n_samples=5, cells=2),
    "group-cam": dict(groups=2),
    "smooth-grad-cam++": dict(n_samples=2),
}
# Whatever the class and the network say, these maps are the same.
DRAWN = ("uniform", "gaussian", "fake-cam", "random")
# For these the class plays no part, so a label that is no class cannot spoil the map.
CLASSLESS = (*DRAWN, "mean-activation", "eigen-cam")

# What an image's values can be, made of the same normal numbers.
KINDS = {
    "ordinary": lambda x: x,
    "zero": np.zeros_like,
    "constant": lambda x: np.full_like(x, 0.7),
    "one pixel": lambda x: np.where(np.arange(x.size).reshape(x.shape) == x.size // 2, x, 0),
    "tiny": lambda x: x * 1e-30,
    "huge": lambda x: x * 1e30,
    "negative": lambda x: -np.abs(x),
    "NaN": lambda x: np.where(x == x.max(), np.nan, x),
    "infinite": lambda x: np.where(x == x.max(), np.inf, x),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One network with images and labels."""

    space: tuple[int, ...]
    channels: int
    classes: int
    dtype: str
    kinds: tuple[str, ...]
    labels: tuple[int, ...] | None
    traced: bool
    scale: float
    preset: str | None


@st.composite
def cases(draw: st.DrawFn, name: str) -> Case:
    classes = draw(st.sampled_from([4, 2, 1]))
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=5).map(tuple))
    label = st.integers(-2, classes + 1) if draw(st.booleans()) else st.integers(0, classes - 1)
    size = len(kinds)
    return Case(
        space=draw(st.sampled_from([(8, 6), (2, 2), (4, 2), (12,), (4, 2, 6)])),
        channels=draw(st.sampled_from([5, 1])),
        classes=classes,
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float16", "float64"])),
        kinds=kinds,
        labels=draw(st.none() | st.lists(label, min_size=size, max_size=size).map(tuple)),
        traced=draw(st.booleans()),
        scale=draw(st.sampled_from([1.0, 0.0, 1e-15, 1e15])),
        preset=draw(st.sampled_from([None, *registry.ENTRIES[name].presets])),
    )


def network(name: str, case: Case) -> tuple[sscam.Apply, dict[str, np.ndarray], np.ndarray]:
    """The case's network with its parameters, and the images before they have their dtype."""
    rng = np.random.default_rng(0)
    params = toy.params(channels=case.channels, classes=case.classes)
    params = {part: array * case.scale if part == "conv" else array for part, array in params.items()}
    images = [KINDS[kind](rng.normal(size=(*case.space, toy.COLOURS))) for kind in case.kinds]
    return toy.LINEAR if name == "cam" else toy.MLP, params, np.stack(images)


def settings(name: str) -> dict[str, Any]:
    key = dict(key=jax.random.key(0)) if registry.draws(registry.METHODS[name]) else {}
    return FEWER.get(name, {}) | key


def expected_error(name: str, case: Case) -> str | None:
    """The documented error of a case, if it has one."""
    if case.labels is not None and not case.traced and not all(0 <= label < case.classes for label in case.labels):
        return "are not classes of this network; choose from 0 to"
    if case.classes > 1:
        return None
    if name == "finer-cam":
        return "this network has one class"
    score = registry.options(name, preset=case.preset).get("score")
    return "of a network with a single logit is the same" if score in ("probability", "log_probability") else None


def explain(name: str, case: Case) -> sscam.Saliency:
    apply, params, images = network(name, case)
    options = settings(name) | (dict(preset=case.preset) if case.preset else {})
    run = functools.partial(registry.METHODS[name], apply, **options)
    with jax.enable_x64(case.dtype == "float64"), np.errstate(over="ignore"):
        params, images = jax.tree.map(lambda leaf: jnp.asarray(leaf, case.dtype), (params, images))
        labels = None if case.labels is None else jnp.asarray(case.labels, jnp.int32)
        found = (jax.jit(run) if case.traced else run)(params, images, labels)
        return jax.tree.map(np.asarray, found)


def check(name: str, case: Case) -> None:
    if error := expected_error(name, case):
        with pytest.raises(ValueError, match=error):
            explain(name, case)
        return
    found, b = explain(name, case), len(case.kinds)
    assert found.maps.shape == (b, *case.space) and found.weights.shape == (b, case.channels)
    assert found.raw.shape in {(b, *case.space), (b, *(side // 2 for side in case.space))}
    assert found.logits.shape == (b, case.classes) and found.flat.shape == found.passes.shape == (b,)
    assert [array.dtype.name for array in found] == ["float32"] * 4 + ["bool", "int32"]
    for field in ("maps", "raw", "weights"):
        assert np.isfinite(getattr(found, field)).all(), field
    assert (found.maps >= 0).all() and (found.maps <= 1).all() and (found.passes >= 1).all()
    np.testing.assert_array_equal(found.flat, ~found.maps.reshape(b, -1).any(1))
    for i, kind in enumerate(case.kinds):
        inside = case.labels is None or 0 <= case.labels[i] < case.classes
        # An infinite pixel can end at a ReLU, and then it spoils nothing.
        spoilt = kind == "NaN" or not np.isfinite(found.logits[i]).all()
        if (spoilt and name not in DRAWN) or not (inside or name in CLASSLESS):
            assert found.flat[i] and not found.raw[i].any() and not found.weights[i].any(), (i, kind)


def hold(name: str, examples: int) -> None:
    """`check` on that many cases, which the method's name seeds: each method has its own."""

    @hypothesis.seed(zlib.crc32(name.encode()))
    @hypothesis.settings(max_examples=examples, **FIXED)
    @hypothesis.given(cases(name))
    def drawn(case: Case) -> None:
        check(name, case)

    drawn()


# One method of each way through the engine; each case compiles a program.
FEW = ("grad-cam", "ss-cam", "ablation-cam", "rise")


@pytest.mark.parametrize(
    ("name", "examples"),
    quick([(name, 2) for name in FEW], [*((name, 2) for name in FEW), *((name, 10) for name in registry.ENTRIES)]),
)
def test_cases(name, examples):
    hold(name, examples)
    jax.clear_caches()


@pytest.mark.parametrize("name", quick([*FEW, "smooth-grad-cam++"], registry.ENTRIES))
def test_passes_are_the_images_that_go_through_the_network(name):
    """With a chunk of 1, because a larger one is filled up. What only the head does again is no pass."""
    seen: list[int] = []

    def features(params: Any, images: jax.Array) -> Any:
        jax.debug.callback(lambda: seen.append(images.shape[0]))
        return toy.features(params, images)

    apply = sscam.Apply(features, toy.linear_head if name == "cam" else toy.mlp_head)
    method = registry.METHODS[name]
    one = dict(chunk_size=1) if "chunk_size" in inspect.signature(method).parameters else {}
    params = toy.params() | dict(bias=np.array([0, 0, 0, 0, 0, -1e6], np.float32))  # the last channel is dead
    images = jnp.asarray(toy.images(batch=2))
    found = method(apply, toy.on_device(params), images, None, **settings(name), **one)
    jax.effects_barrier()
    assert sum(seen) == found.passes.sum()


@pytest.mark.parametrize("name", ["over_layers", "over_augmentations"])
def test_methods_over_methods(name):
    """The two that take a method are not in the registry; Grad-CAM is what they run."""
    method = functools.partial(getattr(cams, name), cams.grad_cam)
    options = dict(layers=[toy.MLP]) if name == "over_layers" else {}
    images = np.stack([make(toy.images(batch=1)[0]) for make in KINDS.values()]).astype(np.float32)
    found = method(toy.MLP, toy.on_device(toy.params()), jnp.asarray(images), None, **options)
    for field in ("maps", "raw", "weights"):
        assert np.isfinite(getattr(found, field)).all(), field
    assert found.maps.min() >= 0 and found.maps.max() <= 1
    np.testing.assert_array_equal(found.flat, ~np.asarray(found.maps).reshape(len(KINDS), -1).any(1))
