"""One battery over every method: what must hold whatever the method computes."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from tests import toy
from tests.marks import quick

KEY = jax.random.key(3)
PARAMS = toy.on_device(toy.params())
IMAGES = jnp.asarray(toy.images(batch=4))
LABELS = jnp.array([0, 1, 2, 3])

# The same network, cut before its first layer.
EARLY = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: toy.mlp_head(params, *toy.features(params, a)))

METHODS = {
    "cam": functools.partial(sscam.cam, toy.LINEAR),
    "grad_cam": functools.partial(sscam.grad_cam, toy.MLP),
    "grad_cam_pp": functools.partial(sscam.grad_cam_pp, toy.MLP),
    "score_cam": functools.partial(sscam.score_cam, toy.MLP, chunk_size=4),
    "score_cam torchcam": functools.partial(sscam.score_cam, toy.MLP, preset="torchcam", chunk_size=4),
    "ss_cam": functools.partial(sscam.ss_cam, toy.MLP, key=KEY, n_samples=3, chunk_size=4),
    "ss_cam algorithm1": functools.partial(
        sscam.ss_cam, toy.MLP, key=KEY, preset="algorithm1", n_samples=2, chunk_size=4
    ),
    "ss_cam torchcam": functools.partial(sscam.ss_cam, toy.MLP, key=KEY, preset="torchcam", n_samples=2, chunk_size=4),
    "ss_cam common": functools.partial(sscam.ss_cam, toy.MLP, key=KEY, n_samples=3, noise="common", chunk_size=4),
    "is_cam": functools.partial(cams.is_cam, toy.MLP, n_samples=3, chunk_size=4),
    "is_cam torchcam": functools.partial(cams.is_cam, toy.MLP, preset="torchcam", n_samples=2, chunk_size=4),
    "xgrad_cam": functools.partial(cams.xgrad_cam, toy.MLP),
    "hires_cam": functools.partial(cams.hires_cam, toy.MLP),
    "layer_cam": functools.partial(cams.layer_cam, toy.MLP),
    "eigen_cam": functools.partial(cams.eigen_cam, toy.MLP),
    "eigen_grad_cam": functools.partial(cams.eigen_grad_cam, toy.MLP),
    "smooth_grad_cam_pp": functools.partial(cams.smooth_grad_cam_pp, toy.MLP, key=KEY, n_samples=2),
    "finer_cam": functools.partial(cams.finer_cam, toy.MLP, n_references=2),
    "shapley_cam": functools.partial(cams.shapley_cam, toy.MLP),
    "ablation_cam": functools.partial(cams.ablation_cam, toy.MLP, chunk_size=4),
    "recipro_cam": functools.partial(cams.recipro_cam, toy.MLP, chunk_size=8),
    "group_cam": functools.partial(cams.group_cam, toy.MLP, groups=4, percentile=50.0, chunk_size=2),
    "rise": functools.partial(cams.rise, toy.MLP, key=KEY, n_samples=20, cells=3, chunk_size=8),
    "occlusion": functools.partial(cams.occlusion, toy.MLP, window=4, stride=3, chunk_size=4),
    "over_layers": functools.partial(cams.over_layers, cams.layer_cam, toy.MLP, layers=[EARLY]),
    "over_augmentations": functools.partial(cams.over_augmentations, cams.grad_cam, toy.MLP),
}
# Their raw maps have the input's resolution.
FULL = ("rise", "occlusion", "over_layers", "over_augmentations")
# They go the same way through the engine as another one: gradient methods as Grad-CAM, Score-CAM and IS-CAM as SS-CAM,
# Recipro-CAM as Ablation-CAM, occlusion as RISE, a preset as its method. Every test of what a method computes has them;
# of how it runs, `make test-all` has them.
SAME_WAY = "grad_cam_pp xgrad_cam hires_cam layer_cam eigen_grad_cam finer_cam shapley_cam".split()
SAME_WAY += "score_cam is_cam recipro_cam occlusion".split()
SAME_WAY += ["score_cam torchcam", "ss_cam torchcam", "ss_cam algorithm1", "is_cam torchcam"]


def _method(name: str, *marks: pytest.MarkDecorator):
    """In one process, which compiles it once."""
    return pytest.param(name, marks=[pytest.mark.xdist_group(name), *marks])


every_method = pytest.mark.parametrize("name", [_method(n) for n in METHODS])
every_way = pytest.mark.parametrize("name", [_method(n, *[pytest.mark.slow] * (n in SAME_WAY)) for n in METHODS])


# Takes images of two spatial axes only, as most networks do.
PLANAR = sscam.Apply(lambda params, x: (jnp.einsum("bhwi,ic->bhwc", x, params["conv"]), ()), toy.mlp_head)


def close(left: sscam.Saliency, right: sscam.Saliency) -> None:
    for name, a, b in zip(left._fields, left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


def of_images(name: str, keep: list[int]) -> sscam.Saliency:
    """The method on some of the images, whose noise stays theirs."""
    ids = dict(ids=jnp.array(keep)) if "key" in METHODS[name].keywords else {}
    return METHODS[name](PARAMS, IMAGES[jnp.array(keep)], LABELS[jnp.array(keep)], **ids)


@every_method
def test_result(name):
    saliency = METHODS[name](PARAMS, IMAGES, LABELS)
    assert saliency.maps.shape == IMAGES.shape[:-1]
    assert saliency.raw.shape == (IMAGES.shape[:-1] if name in FULL else (4, 4, 5))
    assert saliency.weights.shape == (4, toy.CHANNELS)
    assert [array.dtype.name for array in saliency] == ["float32"] * 4 + ["bool", "int32"]
    assert saliency.maps.min() >= 0 and saliency.maps.max() <= 1
    logits = (toy.LINEAR if name == "cam" else toy.MLP)(PARAMS, IMAGES)
    np.testing.assert_allclose(saliency.logits, logits, rtol=1e-5)
    assert not saliency.flat.all()


@every_way
def test_jit_is_eager(name):
    close(jax.jit(METHODS[name])(PARAMS, IMAGES, LABELS), METHODS[name](PARAMS, IMAGES, LABELS))


@every_way
def test_batch_order_and_composition_change_nothing(name):
    whole = of_images(name, [0, 1, 2, 3])
    keep = [3, 1]
    close(of_images(name, keep), sscam.Saliency(*(array[jnp.array(keep)] for array in whole)))


@every_way
def test_ensemble_by_vmap_over_params(name):
    members = [PARAMS, toy.on_device(toy.params(seed=5))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.vmap(lambda params: METHODS[name](params, IMAGES, LABELS))(stacked)
    for i, params in enumerate(members):
        close(jax.tree.map(lambda array, row=i: array[row], together), METHODS[name](params, IMAGES, LABELS))


@every_way
def test_sharded_batch(name):
    """Images spread over four devices, by jax.shard_map, give the same maps."""
    mesh = jax.make_mesh((4,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))
    across, everywhere = jax.sharding.PartitionSpec("images"), jax.sharding.PartitionSpec()
    ids = jnp.arange(4)

    def explain(params, images, labels, ids):
        return METHODS[name](params, images, labels, **(dict(ids=ids) if "key" in METHODS[name].keywords else {}))

    specs = dict(mesh=mesh, in_specs=(everywhere, across, across, across), out_specs=across)
    sharded = jax.jit(jax.shard_map(explain, **specs))(PARAMS, IMAGES, LABELS, ids)
    close(sharded, METHODS[name](PARAMS, IMAGES, LABELS))


@every_way
def test_no_labels_explains_the_predicted_class(name):
    predicted = METHODS[name](PARAMS, IMAGES, LABELS).logits.argmax(-1)
    close(METHODS[name](PARAMS, IMAGES, None), METHODS[name](PARAMS, IMAGES, predicted))


@pytest.mark.parametrize("name", quick(["grad_cam"], ["grad_cam", "ss_cam", "rise"]))
@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3], np.arange(4), np.arange(4, dtype=np.uint8)], ids=["list", "int64", "uint8"]
)
def test_labels_of_any_integer_kind(name, labels):
    close(METHODS[name](PARAMS, IMAGES, labels), METHODS[name](PARAMS, IMAGES, LABELS))


@every_method
def test_nothing_is_ever_nan(name):
    """All-zero images, dead activations, a class of probability zero: finite, and `flat` says what is empty."""
    dead = PARAMS | dict(bias=jnp.full(toy.CHANNELS, -1e6))
    zero = METHODS[name](dead, jnp.zeros_like(IMAGES), LABELS)
    # Recipro-CAM's raw map is scores, here the same everywhere.
    raw = zero.raw - zero.raw[:, :1, :1] if name == "recipro_cam" else zero.raw
    assert zero.flat.all() and not zero.maps.any() and not raw.any()
    certain = PARAMS | dict(out=PARAMS["out"] * 1e4, linear=PARAMS["linear"] * 1e4)
    for saliency in (METHODS[name](certain, IMAGES, LABELS), METHODS[name](PARAMS, jnp.zeros_like(IMAGES), LABELS)):
        assert all(bool(jnp.isfinite(array).all()) for array in saliency)
        np.testing.assert_array_equal(saliency.flat, saliency.maps.max((1, 2)) == 0)


@every_way
def test_a_second_call_compiles_nothing(name):
    """Other images, labels, params, σ and keys of the same shapes trace the network no more."""
    traces = []

    def features(params, images):
        traces.append(images.shape)
        return toy.features(params, images)

    apply = sscam.Apply(features, toy.linear_head if name == "cam" else toy.mlp_head)
    method = functools.partial(METHODS[name].func, *METHODS[name].args[:-1])
    options = METHODS[name].keywords
    method(apply, PARAMS, IMAGES, LABELS, **options)
    first = len(traces)
    assert first > 0
    if "key" in options:
        options = options | dict(key=jax.random.key(11), ids=jnp.arange(4) + 9)
    for number in ("sigma", "keep", "gamma", "percentile"):
        if number in inspect.signature(method).parameters:
            options = options | {number: 0.4}
    method(apply, toy.on_device(toy.params(seed=2)), IMAGES + 1, LABELS[::-1], **options)
    assert len(traces) == first


@every_method
def test_errors(name, as_users_run_it):
    method = METHODS[name]
    with pytest.raises(ValueError, match=r"images have shape \(8, 3\), expected \[b, \*space, c_in\]"):
        method(PARAMS, IMAGES[0, :, 0], None)
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), expected \(4,\): one class index per image"):
        method(PARAMS, IMAGES, LABELS[:2])
    with pytest.raises(ValueError, match=r"labels \[-1, 4\] are not classes of this network; choose from 0 to 3"):
        method(PARAMS, IMAGES, [0, 4, -1, 1])
    for labels in (np.zeros(4), jnp.array([1.9, 2.9, 0.0, 0.0])):
        with pytest.raises(ValueError, match=r"labels have dtype float\d\d, expected integer class indices"):
            method(PARAMS, IMAGES, labels)
    with pytest.raises(ValueError, match="images have dtype uint8, expected floating point .* sscam_jax.preprocess"):
        method(PARAMS, jnp.zeros((2, 8, 10, 3), jnp.uint8), None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PLANAR, PARAMS, IMAGES[0]), r"images of shape \(8, 10, 3\): a single image is images\[None\]"),
        ((toy.MLP, PARAMS, jnp.moveaxis(IMAGES, -1, 1)), r"channels come last: jnp.moveaxis\(images, 1, -1\)"),
        ((toy.MLP, PARAMS, "goose.jpg"), r"images are a str, expected an array .* sscam_jax.preprocess"),
        ((toy.MLP, PARAMS, [IMAGES[0]]), r"images are a list, expected an array .* jnp.stack"),
        ((PARAMS, toy.MLP, IMAGES), "apply and params are in each other's place"),
        ((lambda params, x: x, PARAMS, IMAGES), "apply is a function, expected an sscam_jax.Apply: sscam_jax.adapt"),
        ((sscam.Apply(lambda p, x: x, toy.mlp_head), PARAMS, IMAGES), r"expected \(activations, carry\), where"),
        (
            (sscam.Apply(lambda p, x: (toy.features(p, x)[0], jnp.ones((1, 4))), toy.mlp_head), PARAMS, IMAGES),
            r"a carry with an array of shape \(1, 4\), expected \[4, ...\]",
        ),
    ],
)
def test_common_mistakes_are_named(arguments, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        sscam.grad_cam(*arguments)


def test_networks_that_do_not_fit(as_users_run_it):
    flat = sscam.Apply(lambda params, x: (x.reshape(x.shape[0], -1), ()), lambda params, a, carry: a)
    with pytest.raises(
        ValueError, match=r"activations of shape \(4, 240\) .* expected \[4, \*grid, c\] with 2 spatial"
    ):
        sscam.grad_cam(flat, PARAMS, IMAGES, None)
    maps = sscam.Apply(toy.features, lambda params, a, carry: a)
    with pytest.raises(ValueError, match=r"apply.head gives shape \(4, 4, 5, 6\), expected logits \[4, n\]"):
        sscam.grad_cam(maps, PARAMS, IMAGES, None)
    with pytest.raises(ValueError, match="not affine in the activations, so CAM is not defined"):
        sscam.cam(toy.MLP, PARAMS, IMAGES, None)
    dense = jnp.asarray(np.random.default_rng(0).normal(size=(4 * 5 * toy.CHANNELS, 3)), jnp.float32)
    flattened = sscam.Apply(toy.features, lambda params, a, carry: a.reshape(a.shape[0], -1) @ dense)
    with pytest.raises(ValueError, match="weighs positions unequally, so CAM is not defined"):
        sscam.cam(flattened, PARAMS, IMAGES, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(preset="papre"), "ss_cam's preset 'papre' is not known; choose from 'light', 'paper', 'paper_mean'"),
        (dict(noise_on="image"), "noise_on 'image' is not known; choose from 'masked_input', 'mask', 'activation'"),
        (dict(sigma_mode="s"), "sigma_mode 's' is not known; choose from 'inverse_range_squared', 'std'"),
        (dict(reduce="sum"), "reduce 'sum' is not known; choose from 'max', 'mean'"),
        (dict(score="prob"), "score 'prob' is not known; choose from 'probability', 'logit', .*, 'sigmoid'"),
        (dict(baseline="black"), "baseline 'black' is not known; choose from 'none', 'zeros', 'blur', 'image'"),
        (dict(baseline=np.zeros((3, 3))), r"baseline has shape \(3, 3\), expected \(8, 10, 3\) or \(4, 8, 10, 3\)"),
        (dict(prior="cam"), "prior 'cam' is not known; choose from None, 'grad_cam'"),
        (dict(normalize="no"), "normalize 'no' is not known; choose from 'after_resize', 'before_resize'"),
        (dict(noise="shared"), "noise 'shared' is not known; choose from 'independent', 'common'"),
        (dict(precision="int8"), "precision 'int8' is not known; choose from None, 'float32', 'bfloat16'"),
        (dict(budget=0), "budget=0 is too small, expected at least 1"),
        (dict(n_samples=0), "n_samples=0 is too small, expected at least 1"),
        (dict(chunk_size=0), "chunk_size=0 is too small, expected at least 1"),
        (dict(ids=jnp.arange(3)), r"ids have shape \(3,\), expected \(4,\): one integer per image"),
    ],
)  # fmt: skip
def test_choices_are_checked(given, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=KEY, **given)


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_keys_whose_draws_depend_on_the_batch_are_refused(kind):
    with pytest.raises(ValueError, match=f"key is of kind '{kind}', whose draws depend on the batch"):
        sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=jax.random.key(0, impl=kind))


def test_keys_of_the_old_style_are_the_same_keys(as_users_run_it):
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    maps = [sscam.ss_cam(toy.MLP, PARAMS, IMAGES, LABELS, key=key, n_samples=1).maps for key in (old, new)]
    np.testing.assert_array_equal(*maps)


def test_score_and_baseline_of_ones_own():
    def margin(logits, label):
        return logits[label] - logits.mean()

    saliency = sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS, score=margin, baseline=IMAGES[0])
    zero = sscam.score_cam(toy.MLP, PARAMS, IMAGES, LABELS, score=margin, baseline="none")
    logits = toy.MLP(PARAMS, IMAGES[:1])[0]
    shift = jnp.where(zero.weights == 0, 0.0, logits[LABELS][:, None] - logits.mean())
    np.testing.assert_allclose(saliency.weights, zero.weights - shift, rtol=1e-4, atol=1e-5)


def test_progress_counts_every_chunk():
    seen = []
    sscam.ss_cam(
        toy.MLP,
        PARAMS,
        IMAGES,
        LABELS,
        key=KEY,
        n_samples=3,
        chunk_size=2,
        progress=lambda done, total: seen.append((int(done), int(total))),
    )
    jax.effects_barrier()
    assert len({total for _, total in seen}) == 1
    total = seen[0][1]
    assert sorted(done for done, _ in seen) == list(range(1, total + 1))


def test_gradient_of_a_saliency_penalty():
    """The derivative of Grad-CAM's map with respect to the parameters (a second derivative) is that of differences."""
    # tanh, for finite differences of a ReLU's slope say nothing.
    smooth = sscam.Apply(
        toy.features, lambda params, a, carry: jnp.tanh(a @ params["hidden"]).mean((1, 2)) @ params["out"]
    )

    def penalty(scale):
        params = PARAMS | dict(hidden=PARAMS["hidden"] * scale)
        return (sscam.grad_cam(smooth, params, IMAGES, LABELS).raw ** 2).sum()

    slope = jax.grad(penalty)(jnp.float32(0.3))
    step = 1e-2
    difference = (penalty(jnp.float32(0.3 + step)) - penalty(jnp.float32(0.3 - step))) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-2)


def test_gradient_through_score_cam():
    def total(scale):
        params = PARAMS | dict(out=PARAMS["out"] * scale)
        return sscam.score_cam(toy.MLP, params, IMAGES, LABELS, chunk_size=4, score="logit").raw.sum()

    slope = jax.grad(total)(jnp.float32(1.0))
    step = 1e-2
    difference = (total(jnp.float32(1 + step)) - total(jnp.float32(1 - step))) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=2e-2)


@pytest.mark.parametrize(
    "method",
    [
        cams.score_cam,
        cams.rise,
        cams.occlusion,
        cams.recipro_cam,
        cams.group_cam,
        cams.ablation_cam,
    ],  # fmt: skip
)
def test_a_single_logit_has_no_probability(method):
    head = sscam.Apply(toy.features, lambda params, activations, carry: toy.mlp_head(params, activations, carry)[:, :1])
    options = dict(key=KEY) if method is cams.rise else {}
    for score in ("probability", "log_probability"):
        with pytest.raises(ValueError, match="single logit is the same .*; choose from 'logit', 'sigmoid'"):
            method(head, PARAMS, IMAGES, None, score=score, **options)
    assert not sscam.score_cam(head, PARAMS, IMAGES, None, score="sigmoid", baseline="none").flat.all()


@every_way
@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_half_precision_runs_in_every_method(name, dtype):
    """Parameters and images of half precision: near the map of float32, which all results are in."""
    half = jax.tree.map(lambda leaf: leaf.astype(dtype), (PARAMS, IMAGES))
    found, whole = METHODS[name](*half, LABELS), METHODS[name](PARAMS, IMAGES, LABELS)
    assert [array.dtype.name for array in found] == ["float32"] * 4 + ["bool", "int32"]
    assert all(bool(jnp.isfinite(array).all()) for array in found)
    np.testing.assert_allclose(found.logits, whole.logits, atol=0.2)


@every_way
def test_double_precision_runs_in_every_method(name):
    with jax.enable_x64(True):
        params, images = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), (PARAMS, IMAGES))
        found = METHODS[name](params, images, LABELS)
    assert [array.dtype.name for array in found] == ["float32"] * 4 + ["bool", "int32"]
    np.testing.assert_allclose(found.maps, METHODS[name](PARAMS, IMAGES, LABELS).maps, atol=2e-3)


@every_method
def test_what_is_not_finite_gives_a_flat_map(name):
    """One NaN pixel, images near the smallest numbers, infinite parameters: zero and flat, and the others unharmed."""
    spoilt = IMAGES.at[1, 0, 0, 0].set(jnp.nan)
    found, whole = METHODS[name](PARAMS, spoilt, LABELS), METHODS[name](PARAMS, IMAGES, LABELS)
    assert found.flat[1] and not found.maps[1].any()
    for field in ("maps", "raw", "weights"):
        assert bool(jnp.isfinite(getattr(found, field)).all())
    others = jnp.array([0, 2, 3])
    np.testing.assert_allclose(found.maps[others], whole.maps[others], atol=1e-5)
    tiny = METHODS[name](PARAMS, IMAGES * 1e-20, LABELS)
    assert all(bool(jnp.isfinite(getattr(tiny, field)).all()) for field in ("maps", "raw", "weights"))


@every_method
def test_traced_labels_that_are_no_class_give_a_flat_map(name):
    if name == "eigen_cam":
        pytest.skip("the class plays no part")
    found = jax.jit(METHODS[name])(PARAMS, IMAGES, jnp.array([0, -1, 4, 3]))
    assert found.flat[1:3].all() and not found.maps[1:3].any() and not found.raw[1:3].any()
    whole = METHODS[name](PARAMS, IMAGES, LABELS)
    for i in (0, 3):
        np.testing.assert_allclose(found.maps[i], whole.maps[i], atol=1e-5)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        (cams.ss_cam, dict(sigma=jnp.array([0.1, 5.0])), r"sigma has shape \(2,\), expected a single number"),
        (cams.finer_cam, dict(gamma=jnp.ones(2)), r"gamma has shape \(2,\), expected a single number"),
        (cams.rise, dict(keep=jnp.ones(2)), r"keep has shape \(2,\), expected a single number"),
        (cams.group_cam, dict(percentile=jnp.ones(2)), r"percentile has shape \(2,\), expected a single number"),
        (cams.ss_cam, dict(sigma=-1.0), "sigma=-1 is not possible, expected 0 ≤ sigma"),
        (cams.smooth_grad_cam_pp, dict(sigma=-1.0), "sigma=-1 is not possible, expected 0 ≤ sigma"),
        (cams.rise, dict(keep=0.0), "keep=0 is not possible, expected 0 < keep ≤ 1"),
        (cams.group_cam, dict(percentile=101.0), "percentile=101 is not possible, expected 0 ≤ percentile ≤ 100"),
        (cams.ss_cam, dict(preset="algorithm1", budget=1), "budget=1 is too small: with second_pass"),
    ],
)
def test_numbers_are_checked(method, given, message, as_users_run_it):
    options = dict(key=KEY) if "key" in inspect.signature(method).parameters else {}
    with pytest.raises(ValueError, match=message):
        method(toy.MLP, PARAMS, IMAGES, LABELS, **options, **given)


def test_unknown_choices_are_named(as_users_run_it):
    with pytest.raises(
        TypeError, match=r"ss_cam\(\) got an unexpected keyword argument 'sgima'; choose from .*'sigma'"
    ):
        sscam.ss_cam(toy.MLP, PARAMS, IMAGES, key=KEY, sgima=1.0)
    with pytest.raises(TypeError, match=r"score_cam\(\) got an unexpected keyword argument 'sigma'"):
        sscam.score_cam(toy.MLP, PARAMS, IMAGES, sigma=1.0)
    for flag in ("no", "False", 3):
        with pytest.raises(ValueError, match=f"channel_softmax {flag!r} is not known; choose from False, True"):
            sscam.score_cam(toy.MLP, PARAMS, IMAGES, channel_softmax=flag)


def test_dead_channels_cost_no_pass_under_vmap():
    """Two members with one live channel each, not the same: two channels' chunks run, not all six."""
    seen = []

    def head(params, activations, carry):
        jax.debug.callback(lambda _: seen.append(1), activations[0, 0, 0, 0])
        return toy.mlp_head(params, activations, carry)

    apply = sscam.Apply(toy.features, head)
    members = [PARAMS | dict(conv=jnp.zeros_like(PARAMS["conv"]).at[:, k].set(PARAMS["conv"][:, k])) for k in (1, 4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    one = functools.partial(sscam.score_cam, apply, baseline="none", chunk_size=1)
    together = jax.vmap(lambda params: one(params, IMAGES[:1], LABELS[:1]))(stacked)
    jax.effects_barrier()
    # Each member: the image as it is, and one live channel.
    assert len(seen) == 2 * 2
    for i, params in enumerate(members):
        close(jax.tree.map(lambda array, row=i: array[row], together), one(params, IMAGES[:1], LABELS[:1]))


def test_explicit_sharding():
    """Images sharded as part of their type go through every check."""
    mesh = jax.make_mesh((4,), ("b",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        images = jax.device_put(IMAGES, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("b")))
        params = jax.device_put(PARAMS, jax.NamedSharding(mesh, jax.sharding.PartitionSpec()))
        labels = jax.device_put(LABELS, jax.NamedSharding(mesh, jax.sharding.PartitionSpec("b")))
        found = sscam.grad_cam(toy.MLP, params, images, labels)
    np.testing.assert_allclose(found.maps, sscam.grad_cam(toy.MLP, PARAMS, IMAGES, LABELS).maps, atol=1e-5)


def test_a_saliency_prints_its_shapes():
    text = repr(sscam.grad_cam(toy.MLP, PARAMS, IMAGES))
    assert text.startswith("Saliency(maps=float32[4, 8, 10], raw=float32[4, 4, 5]") and len(text) < 200
