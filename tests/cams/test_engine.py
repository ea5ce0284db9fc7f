"""What makes the scoring core fast must change its numbers by rounding only."""

import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax.cams import _run, _scores
from sscam_jax.networks import init_params
from sscam_jax.networks.registry import NETWORKS
from sscam_jax.types import Sections
from tests import toy
from tests.cams.explained import IMAGES, KEY, LABELS, PARAMS
from tests.marks import quick


def toy_sections(seen: list[int], read: list[int]) -> Sections:
    """The toy in two: each part notes how many rows it is given."""

    def early(params, images):
        jax.debug.callback(lambda: seen.append(images.shape[0]))
        return toy.mlp_hidden(params, toy.features(params, images)[0])

    def late(params, features):
        jax.debug.callback(lambda: read.append(features.shape[0]))
        return toy.mlp_out(params, features)

    return Sections(early, late)


@pytest.mark.parametrize(
    ("preset", "noise"),
    quick(
        [("light", "independent"), ("light", "common")],
        itertools.product(sscam.SS_CAM_PRESETS, ["independent", "common"]),
    ),
)
def test_sections_are_the_plain_path(preset, noise):
    options = dict(key=KEY, preset=preset, noise=noise, n_samples=3, chunk_size=4)
    plain = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, **options)
    shared = sscam.ss_cam(
        dataclasses.replace(toy.MLP, sections=toy_sections([], [])), PARAMS, IMAGES, LABELS, **options
    )
    for name, a, b in zip(plain._fields, plain, shared, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("method", "chunk_size", "early", "late"),
    quick(
        [(sscam.score_cam, 3, [2, 2], [2, 2]), (sscam.ss_cam, 16, [2] * 10, [16] * 2)],
        [
            (sscam.score_cam, 3, [2, 2], [2, 2]),  # a chunk of three has room for one block
            (sscam.score_cam, 1, [1] * 4, [1] * 4),
            (sscam.score_cam, 16, [2, 2], [6]),
            (sscam.ss_cam, 16, [2] * 10, [16] * 2),
            (sscam.ss_cam, 40, [2] * 10, [30]),
        ],
    ),
)
def test_early_layers_run_in_blocks_late_ones_on_a_chunk(monkeypatch, method, chunk_size, early, late):
    """Four of six channels vary: on a CPU the early part sees two at once, and none that is constant."""
    monkeypatch.setattr(_run, "_CACHE", 1)  # even the toy's arrays overflow it
    seen: list[int] = []
    read: list[int] = []
    apply = dataclasses.replace(toy.MLP, sections=toy_sections(seen, read))
    dead = PARAMS | dict(conv=PARAMS["conv"].at[:, 4:].set(0.0))
    options = dict(key=KEY, n_samples=5) if method is sscam.ss_cam else {}
    saliency = method(apply, dead, IMAGES[:1], [1], preset="torchcam", chunk_size=chunk_size, **options)
    jax.effects_barrier()
    assert (seen, read) == (early, late)
    plain = method(toy.MLP, dead, IMAGES[:1], [1], preset="torchcam", chunk_size=chunk_size, **options)
    np.testing.assert_allclose(saliency.weights, plain.weights, rtol=1e-4, atol=1e-6)


def test_an_accelerator_takes_a_whole_chunk(monkeypatch):
    seen: list[int] = []
    read: list[int] = []
    apply = dataclasses.replace(toy.MLP, sections=toy_sections(seen, read))
    options = dict(key=KEY, n_samples=5, chunk_size=16)
    here = sscam.ss_cam(toy.MLP, PARAMS, IMAGES[:1], [1], **options)
    monkeypatch.setattr(_run.jax, "default_backend", lambda: "gpu")
    there = sscam.ss_cam(apply, PARAMS, IMAGES[:1], [1], **options)
    jax.effects_barrier()
    # Six channels × five samples.
    assert (seen, read) == ([16, 16], [16, 16])
    np.testing.assert_allclose(here.weights, there.weights, rtol=1e-4, atol=1e-6)


def test_blocks_follow_the_size_of_the_arrays():
    """On a CPU small arrays are run many at once, those that overflow the cache by twos."""
    small = _run.engine_for(toy.MLP, PARAMS, IMAGES, 64, None)
    wide = _run.engine_for(toy.MLP, PARAMS, jnp.zeros((1, 512, 512, 3)), 64, None)
    assert small.cpu and (small.block, wide.block) == (64, 2)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])  # without and with a bias
def test_sections_are_the_network(name):
    from sscam_jax.networks.network import cut
    from sscam_jax.networks.registry import find

    params = init_params(name, jax.random.key(0), num_classes=3)
    params = jax.tree.map(lambda leaf: leaf + 0.1 if leaf.ndim == 1 else leaf, params)
    apply = cut(find(name), 3, None)
    x = jax.random.normal(KEY, (1, 40, 45, 3))
    np.testing.assert_allclose(toy.in_sections(apply.sections, params, x), apply(params, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", quick(["resnet18", "squeezenet1_1", "vit_s_16", "swin_t"], NETWORKS))
def test_sections_of_every_network_fit_each_other(name):
    from sscam_jax.networks.network import cut, template
    from sscam_jax.networks.registry import find

    network = find(name)
    sections, params = cut(network, 1, None).sections, template(network, 1)
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    features = jax.eval_shape(sections.early, params, images)
    assert jax.eval_shape(sections.late, params, features).shape == (2, 1)
    # Those of a whole chunk are held: fewer numbers than the images have.
    assert features.size < images.size


@pytest.mark.parametrize(
    ("noise", "count"),
    quick([("independent", 8), ("common", 4)], itertools.product(["independent", "common"], [1, 2, 4, 8])),
)
def test_devices_share_an_image(noise, count):
    options = dict(key=KEY, noise=noise, n_samples=3, chunk_size=2)
    alone = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, **options)
    spread = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, **options, devices=jax.devices()[:count])
    assert len(spread.maps.sharding.device_set) == count
    for name, a, b in zip(alone._fields, alone, spread, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=name)


def test_score_cam_on_devices_under_jit():
    alone = sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS)
    spread = jax.jit(lambda p, x: sscam.score_cam(toy.MLP, p, x, LABELS, devices=jax.devices()[:4]))(PARAMS, IMAGES)
    np.testing.assert_allclose(alone.maps, spread.maps, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "noise"),
    quick(
        [("light", "independent"), ("light", "common")],
        [*((preset, "independent") for preset in sscam.SS_CAM_PRESETS), ("light", "common")],
    ),
)
def test_bfloat16_is_the_networks_alone(preset, noise):
    seen = set()

    def head(params, activations, carry):
        seen.add((activations.dtype.name, params["out"].dtype.name))
        return toy.mlp_head(params, activations, carry)

    apply = sscam.Apply(toy.features, head)
    options = dict(key=KEY, preset=preset, noise=noise, n_samples=3)
    full = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, **options)
    half = sscam.ss_cam(apply, PARAMS, IMAGES, LABELS, **options, precision="bfloat16")
    # The image as it is in float32, the noisy ones in bfloat16.
    assert seen == {("float32", "float32"), ("bfloat16", "bfloat16")}
    assert all(array.dtype in (jnp.float32, jnp.bool_, jnp.int32) for array in half)
    assert 0 < abs(full.weights - half.weights).max() < 0.05


def test_out_of_memory_halves_the_chunk(monkeypatch):
    whole = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=KEY, n_samples=2, chunk_size=12)
    compiled, tried = _run._compiled, []

    def small_device(function, apply, mesh, choices, engine, *arguments):
        tried.append(engine.chunk_size)
        if tried[-1] > 3:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
        return compiled(function, apply, mesh, choices, engine, *arguments)

    monkeypatch.setattr(_run, "_compiled", small_device)
    monkeypatch.setattr(_run, "_fitting", {})
    with pytest.warns(RuntimeWarning, match="out of memory: going on with chunk_size=") as warned:
        halved = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=KEY, n_samples=2, chunk_size=12)
    assert tried == [12, 6, 3] and len(warned) == 2
    np.testing.assert_allclose(whole.weights, halved.weights, rtol=1e-5)
    # What fits is remembered: the next call neither fails nor warns.
    sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=KEY, n_samples=2, chunk_size=12)
    assert tried == [12, 6, 3, 3]

    def broken_device(*arguments):
        raise jax.errors.JaxRuntimeError("INTERNAL: the device is gone")

    monkeypatch.setattr(_run, "_compiled", broken_device)
    with pytest.raises(jax.errors.JaxRuntimeError, match="the device is gone"):
        sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS)


@pytest.mark.parametrize(("platform", "suiting"), [("cpu", 16), ("gpu", 128), ("tpu", 128)])
def test_chunk_for_a_device(monkeypatch, as_users_run_it, platform, suiting):
    device = types.SimpleNamespace(platform=platform, device_kind=f"a {platform}")
    monkeypatch.setattr(_run, "_fitting", {})
    assert _run.chunk_for(toy.MLP, IMAGES, None, [device]) == suiting
    assert _run.chunk_for(toy.MLP, IMAGES, 1000, [device]) == 1000
    _run._fitting[_run._place(toy.MLP, IMAGES, device)] = 8
    assert _run.chunk_for(toy.MLP, IMAGES, None, [device]) == 8
    assert _run.chunk_for(toy.MLP, IMAGES, 3, [device]) == 3
    assert _run.chunk_for(toy.MLP, IMAGES[:1], None, [device]) == suiting  # other shapes take other memory


def test_the_compiler_tells_what_fits(monkeypatch):
    """A chunk whose program takes more memory than is free is cut down before it runs, and asked for once."""
    compiled, asked, ran = _run._compiled, [], []

    class Program:
        def lower(self, *call):
            asked.append(call[4].chunk_size)
            return compiled.lower(*call)

        def __call__(self, *call):
            ran.append(call[4].chunk_size)
            return compiled(*call)

    def needed(chunk_size):
        engine = _run.engine_for(toy.MLP, PARAMS, IMAGES, chunk_size, None)
        score_cam = sscam.SCORE_CAM_PRESETS["pytorch_grad_cam"]
        traced = _run.Traced(None, jnp.float32(0), None, None)
        call = (_run.scored, toy.MLP, None, score_cam, engine, PARAMS, IMAGES, LABELS, traced)
        sizes = compiled.lower(*call).compile().memory_analysis()
        return sizes.temp_size_in_bytes + sizes.output_size_in_bytes

    wide = dataclasses.replace(toy.MLP, features=lambda params, x: toy.features(params, x))
    assert needed(6) > needed(3) > needed(1)
    monkeypatch.setattr(_run, "_compiled", Program())
    monkeypatch.setattr(_run, "_fitting", {})
    monkeypatch.setattr(_run, "_asked", set())
    monkeypatch.setattr(_run, "_free_memory", lambda device: needed(3))
    options = dict(labels=LABELS, preset="pytorch_grad_cam", chunk_size=6)
    with pytest.warns(RuntimeWarning, match="out of memory: going on with chunk_size=3"):
        cut = sscam.score_cam(wide, PARAMS, IMAGES, **options)
    sscam.score_cam(wide, PARAMS, IMAGES, **options)
    assert (asked, ran) == ([6, 3], [3, 3])
    monkeypatch.setattr(_run, "_free_memory", lambda device: None)
    monkeypatch.setattr(_run, "_fitting", {})
    np.testing.assert_allclose(cut.weights, sscam.score_cam(wide, PARAMS, IMAGES, **options).weights, rtol=1e-5)
    assert asked == [6, 3]


@pytest.mark.parametrize("chunk_size", quick([3, 16], [1, 3, 16, 100]))
def test_walk_scores_each_live_input_once(chunk_size):
    for total, n_live, block in itertools.product([1, 5, 17], [0, 1, 4, 17], [1, 2, 100]):
        engine = _scores.Engine(chunk_size, min(block, chunk_size))
        forward = _scores.Forward(lambda x: x, lambda x: x)
        n_live = min(n_live, total)
        found = _scores.walk(
            lambda i: (i + 1).astype(jnp.float32)[None], forward, lambda x: x[:, 0], total, jnp.int32(n_live), engine,
            lambda done: None,
        )  # fmt: skip
        # Past the last live one a block is filled up with others, or skipped.
        assert found.shape == (total,) and found[:n_live].tolist() == list(range(1, n_live + 1)), (total, n_live, block)
        assert set(found[n_live:].tolist()) <= {0.0, *range(n_live + 1, total + 1)}


@pytest.mark.parametrize(
    ("budget", "passes"), quick([(4, 4), (17, 12)], [(1, 1), (4, 4), (6, 6), (17, 12), (18, 18), (1000, 60)])
)
def test_budget_is_kept(budget, passes):
    """6 channels and N = 10: the budget buys channels, then whole samples."""
    saliency = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=KEY, n_samples=10, budget=budget, chunk_size=4)
    assert saliency.passes.tolist() == [1 + passes] * 2
    assert ((saliency.weights != 0).sum(1) == min(budget, 6)).all()


@pytest.mark.parametrize(("budget", "passes"), quick([(11, 8)], [(1, 1), (4, 4), (11, 8), (40, 40), (1000, 40)]))
def test_budget_is_spent_on_live_channels(budget, passes):
    """Four of six channels are live, N = 10: what the dead ones would have cost buys samples."""
    dead = PARAMS | dict(conv=PARAMS["conv"].at[:, 4:].set(0.0))
    saliency = sscam.ss_cam(toy.MLP, dead, IMAGES, LABELS, key=KEY, n_samples=10, budget=budget, chunk_size=4)
    assert saliency.passes.tolist() == [1 + passes] * 2
    full = sscam.ss_cam(toy.MLP, dead, IMAGES, LABELS, key=KEY, n_samples=passes // 4 or 1, chunk_size=4)
    kept = saliency.weights != 0
    np.testing.assert_allclose(saliency.weights[kept], full.weights[kept], rtol=1e-5)


def test_budget_keeps_the_channels_of_largest_variance():
    few = sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS, budget=2, chunk_size=4)
    full = sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS, chunk_size=4)
    variance = toy.features(PARAMS, IMAGES)[0].var((1, 2))
    for i in range(2):
        kept = np.argsort(variance[i])[-2:]
        assert set(np.flatnonzero(few.weights[i])) == set(kept.tolist())
        np.testing.assert_allclose(few.weights[i, kept], full.weights[i, kept], rtol=1e-5)
    second = sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=KEY, preset="algorithm1", n_samples=4, budget=7)
    # One noisy pass and the second pass for each of three channels, the zeros image, the image itself.
    assert second.passes.tolist() == [3 * 2 + 2] * 2


@pytest.mark.parametrize("count", [None, 4])
def test_cost_counts_what_is_then_run(count):
    devices = None if count is None else jax.devices()[:count]
    dead = PARAMS | dict(conv=PARAMS["conv"].at[:, 4:].set(0.0))
    cost = sscam.cost(toy.MLP, dead, IMAGES, n_samples=3, chunk_size=4, devices=devices)
    saliency = sscam.ss_cam(toy.MLP, dead, IMAGES, LABELS, key=KEY, n_samples=3, chunk_size=4, devices=devices)
    assert cost.passes == saliency.passes.sum() == 2 * (4 * 3 + 1)
    assert cost.seconds > 0 and cost.bytes > IMAGES[0].nbytes


def test_another_process_s_devices_are_not_asked(monkeypatch):
    """Of several processes only the first has `jax.devices()[0]`; a device elsewhere does not tell its memory."""
    monkeypatch.setattr(jax, "devices", lambda: pytest.fail("the first device of all processes was asked"))
    assert sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS, chunk_size=4).maps.shape == IMAGES.shape[:-1]
