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

pytestmark = pytest.mark.usefixtures("quick_compilation")

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
# Each in one process, which compiles it once.
every_method = pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in METHODS])


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


@every_method
def test_jit_is_eager(name):
    close(jax.jit(METHODS[name])(PARAMS, IMAGES, LABELS), METHODS[name](PARAMS, IMAGES, LABELS))


@every_method
def test_batch_order_and_composition_change_nothing(name):
    whole = of_images(name, [0, 1, 2, 3])
    for keep in ([2], [3, 1]):
        close(of_images(name, keep), sscam.Saliency(*(array[jnp.array(keep)] for array in whole)))


@every_method
def test_ensemble_by_vmap_over_params(name):
    members = [PARAMS, toy.on_device(toy.params(seed=5))]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = jax.vmap(lambda params: METHODS[name](params, IMAGES, LABELS))(stacked)
    for i, params in enumerate(members):
        close(jax.tree.map(lambda array, row=i: array[row], together), METHODS[name](params, IMAGES, LABELS))


@every_method
def test_sharded_batch(name):
    """Images spread over four devices, by jax.shard_map, give the same maps."""
    mesh = jax.make_mesh((4,), ("images",), axis_types=(jax.sharding.AxisType.Auto,))
    across, everywhere = jax.sharding.PartitionSpec("images"), jax.sharding.PartitionSpec()
    ids = jnp.arange(4)

    def explain(params, images, labels, ids):
        return METHODS[name](params, images, labels, **(dict(ids=ids) if "key" in METHODS[name].keywords else {}))

    specs = dict(mesh=mesh, in_specs=(everywhere, across, across, across), out_specs=across, check_vma=False)
    sharded = jax.jit(jax.shard_map(explain, **specs))(PARAMS, IMAGES, LABELS, ids)
    close(sharded, METHODS[name](PARAMS, IMAGES, LABELS))


@every_method
def test_no_labels_explains_the_predicted_class(name):
    predicted = METHODS[name](PARAMS, IMAGES, LABELS).logits.argmax(-1)
    close(METHODS[name](PARAMS, IMAGES, None), METHODS[name](PARAMS, IMAGES, predicted))


@pytest.mark.parametrize("name", ["grad_cam", "ss_cam", "rise"])
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


@every_method
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
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), expected \(4,\): one class index an image"):
        method(PARAMS, IMAGES, LABELS[:2])
    with pytest.raises(ValueError, match=r"labels \[-1, 4\] are not classes of this network; choose from 0 to 3"):
        method(PARAMS, IMAGES, [0, 4, -1, 1])
    with pytest.raises(ValueError, match="labels have dtype float64, expected integer class indices"):
        method(PARAMS, IMAGES, np.zeros(4))


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(preset="papre"), "preset 'papre' is not one of ss_cam; choose from 'light', 'paper', 'paper_mean'"),
        (dict(noise_on="image"), "noise_on='image' is not a choice; choose from 'masked_input', 'mask', 'activation'"),
        (dict(sigma_mode="s"), "sigma_mode='s' is not a choice; choose from 'inverse_range_squared', 'std'"),
        (dict(reduce="sum"), "reduce='sum' is not a choice; choose from 'max', 'mean'"),
        (dict(score="prob"), "score='prob' is not a choice; choose from 'probability', 'logit', .*, 'sigmoid'"),
        (dict(baseline="black"), "baseline='black' is not a choice; choose from 'none', 'zeros', 'blur', 'image'"),
        (dict(baseline=np.zeros((3, 3))), r"baseline has shape \(3, 3\), expected \(8, 10, 3\) or \(4, 8, 10, 3\)"),
        (dict(prior="cam"), "prior='cam' is not a choice; choose from None, 'grad_cam'"),
        (dict(normalize="no"), "normalize='no' is not a choice; choose from 'after_resize', 'before_resize'"),
        (dict(noise="shared"), "noise='shared' is not a choice; choose from 'independent', 'common'"),
        (dict(precision="float16"), "precision='float16' is not a choice; choose from 'float32', 'bfloat16'"),
        (dict(budget=0), "budget=0 is too small, expected at least 1"),
        (dict(n_samples=0), "n_samples=0 is too small, expected at least 1"),
        (dict(chunk_size=0), "chunk_size=0 is too small, expected at least 1"),
        (dict(ids=jnp.arange(3)), r"ids have shape \(3,\), expected \(4,\): one integer an image"),
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


@pytest.mark.parametrize("score", ["probability", "log_probability"])
def test_a_single_logit_has_no_probability(score):
    head = sscam.Apply(toy.features, lambda params, activations, carry: toy.mlp_head(params, activations, carry)[:, :1])
    params, images = toy.on_device(toy.params()), jnp.asarray(toy.images())
    with pytest.raises(ValueError, match="single logit is the same for every input; choose from 'logit', 'sigmoid'"):
        sscam.score_cam(head, params, images, None, score=score)
    assert not sscam.score_cam(head, params, images, None, score="sigmoid", baseline="none").flat.all()
