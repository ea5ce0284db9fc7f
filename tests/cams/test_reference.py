"""Every method and preset against its version in plain NumPy, for one, two and three spatial axes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import cams
from sscam_jax.cams import registry
from tests import toy
from tests.marks import quick
from tests.reference import cams as reference

KEY = jax.random.key(7)
LABELS = np.array([1, 2])
PARAMS = toy.params()
TOLERANCE = dict(rtol=1e-5, atol=2e-6)
every_rank = pytest.mark.parametrize("rank", [1, 2, 3])
# A method's own formula in two axes; that no method minds the number of axes is tested in `make test` by some of them.
two_axes = pytest.mark.parametrize("rank", quick([2], [1, 2, 3]))


def noise_of(image_id: int):
    """The documented law of the noise: the key folded with image id, channel and sample."""

    def noise(channel: int, sample: int, shape: tuple[int, ...]) -> np.ndarray:
        key = KEY
        for index in (image_id, channel, sample):
            key = jax.random.fold_in(key, index)
        return np.asarray(jax.random.normal(key, shape))

    return noise


def each_image(rank: int):
    """(index, image, activations, gradient, class) of a batch of two, in NumPy."""
    images = toy.images(rank)
    activations, _ = toy.features(PARAMS, images)
    for i, label in enumerate(LABELS):
        yield i, images[i], activations[i], toy.mlp_gradient(PARAMS, activations[i], label), label


def explain(method, rank, **options):
    return method(toy.MLP, toy.on_device(PARAMS), jnp.asarray(toy.images(rank)), LABELS, **options)


def network(images):
    return toy.mlp_head(PARAMS, *toy.features(PARAMS, images))


def head(activations):
    return toy.mlp_head(PARAMS, activations, ())


def compare(saliency: sscam.Saliency, raws: list[np.ndarray]) -> None:
    space = saliency.maps.shape[1:]
    for i, raw in enumerate(raws):
        np.testing.assert_allclose(saliency.raw[i], raw, **TOLERANCE)
        np.testing.assert_allclose(saliency.maps[i], reference.finish(raw, space), rtol=0, atol=1e-4)
        assert saliency.flat[i] == (saliency.maps[i].max() == 0)
    assert not saliency.flat.all()
    assert saliency.maps.dtype == saliency.raw.dtype == saliency.weights.dtype == jnp.float32


@every_rank
def test_cam(rank):
    saliency = sscam.cam(toy.LINEAR, toy.on_device(PARAMS), jnp.asarray(toy.images(rank)), LABELS)
    weights = PARAMS["linear"]
    compare(saliency, [reference.cam(a, weights[:, label]) for _, _, a, _, label in each_image(rank)])


@every_rank
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp"])
def test_gradient_methods(rank, method):
    raws = [getattr(reference, method)(a, g) for _, _, a, g, _ in each_image(rank)]
    compare(explain(getattr(sscam, method), rank), raws)


def of_preset(method: str, preset: str) -> dict:
    """A preset's choices, without those that change no formula."""
    choices = registry.options(method, preset=preset)
    return {name: value for name, value in choices.items() if name not in ("precision", "budget", "noise")}


def numpy_baseline(name: str, image: np.ndarray) -> np.ndarray | None:
    blurred = np.asarray(sscam.ops.blur(jnp.asarray(image)[None])[0])
    return {"none": None, "zeros": np.zeros_like(image), "image": image, "blur": blurred}[name]


@pytest.mark.parametrize(
    ("rank", "preset"), [(2, preset) for preset in sscam.SCORE_CAM_PRESETS] + [(1, "paper"), (3, "original")]
)
def test_score_cam(rank, preset):
    saliency = explain(sscam.score_cam, rank, preset=preset, chunk_size=4)
    choices = of_preset("score-cam", preset)
    raws = []
    for _, x, a, _, label in each_image(rank):
        choices["baseline"] = numpy_baseline(sscam.SCORE_CAM_PRESETS[preset].baseline, x)
        raws.append(reference.score_cam(network, x, a, label, **choices))
    compare(saliency, raws) if preset != "torchcam" else compare_low(saliency, raws)


def compare_low(saliency: sscam.Saliency, raws: list[np.ndarray]) -> None:
    """For normalize="before_resize": U(unit(ReLU(raw)))."""
    for i, raw in enumerate(raws):
        np.testing.assert_allclose(saliency.raw[i], raw, **TOLERANCE)
        wanted = reference.resize(reference.unit(np.maximum(raw, 0)), saliency.maps.shape[1:])
        np.testing.assert_allclose(saliency.maps[i], wanted, rtol=0, atol=1e-4)


SINGLE_CHOICES = [
    dict(noise_on="mask"),
    dict(noise_on="activation"),
    dict(sigma_mode="std", sigma=0.5),
    dict(sigma_mode="variance", sigma=0.5),
    dict(sigma_mode="relative", sigma=0.2),
    dict(reduce="mean"),
    dict(score="logit"),
    dict(score="log_probability", baseline="zeros"),
    dict(score="sigmoid"),
    dict(baseline="zeros"),
    dict(baseline="blur"),
    dict(baseline="image"),
    dict(channel_softmax=True),
    dict(prior="grad_cam"),
    dict(prior="grad_cam", prior_in_sum=True),
    dict(second_pass=True),
    dict(normalize="before_resize"),
]


def against_reference(rank: int, preset: str, given: dict) -> None:
    given = dict(n_samples=3) | given
    saliency = explain(sscam.ss_cam, rank, key=KEY, preset=preset, chunk_size=4, **given)
    choices = of_preset("ss-cam", preset) | given
    raws = []
    for i, x, a, g, label in each_image(rank):
        prior = g.mean(tuple(range(rank))) if choices["prior"] else None
        own = choices | dict(baseline=numpy_baseline(choices["baseline"], x), prior=prior)
        raws.append(reference.ss_cam(network, x, a, label, noise_of(i), **own))
    if choices["normalize"] == "before_resize":
        compare_low(saliency, raws)
    else:
        compare(saliency, raws)


@pytest.mark.parametrize("preset", sscam.SS_CAM_PRESETS)
def test_ss_cam_presets(preset):
    against_reference(2, preset, {})


@pytest.mark.parametrize("preset", ["paper", "torchcam"])
@pytest.mark.parametrize("rank", [1, 3])
def test_ss_cam_other_ranks(rank, preset):
    against_reference(rank, preset, {})


@pytest.mark.parametrize("given", quick(SINGLE_CHOICES[::2], SINGLE_CHOICES), ids=str)
def test_ss_cam_single_choices(given):
    against_reference(2, "paper", given)


def compare_scaled(saliency, raws):
    """Errors relative to the largest value: for methods that divide or take differences."""
    space = saliency.maps.shape[1:]
    for i, raw in enumerate(raws):
        # 5e-7: a difference of two probabilities near 1 has their rounding errors, however small it is.
        np.testing.assert_allclose(saliency.raw[i], raw, rtol=1e-4, atol=max(1e-5 * np.abs(raw).max(), 5e-7))
        np.testing.assert_allclose(saliency.maps[i], reference.finish(raw, space), rtol=0, atol=2e-4)
        assert saliency.flat[i] == (raw.max() <= 0)
    assert not saliency.flat.all()


@two_axes
@pytest.mark.parametrize("name", ["xgrad_cam", "hires_cam", "layer_cam"])
def test_methods_that_weight_by_position(rank, name):
    raws = [getattr(reference, name)(a, g) for _, _, a, g, _ in each_image(rank)]
    compare_scaled(explain(getattr(cams, name), rank), raws)


@two_axes
@pytest.mark.parametrize("center", [False, True])
def test_eigen_cam(rank, center):
    saliency = explain(cams.eigen_cam, rank, center=center)
    compare_scaled(saliency, [reference.principal(a, center) for _, _, a, _, _ in each_image(rank)])
    np.testing.assert_allclose((saliency.weights**2).sum(1), 1, rtol=1e-5)


@two_axes
def test_eigen_grad_cam(rank):
    raws = [reference.principal(a * g, True) for _, _, a, g, _ in each_image(rank)]
    compare_scaled(explain(cams.eigen_grad_cam, rank), raws)


@two_axes
def test_smooth_grad_cam_pp(rank):
    ids, sigma, raws = jnp.array([5, 9]), 0.7, []
    for i, x, a, _, label in each_image(rank):
        keys = [jax.random.fold_in(jax.random.fold_in(KEY, ids[i]), sample) for sample in range(3)]
        noisy = [x + np.float32(sigma) * np.asarray(jax.random.normal(key, x.shape)) for key in keys]
        gradients = [toy.mlp_gradient(PARAMS, toy.features(PARAMS, each[None])[0][0], label) for each in noisy]
        raws.append(reference.smooth_grad_cam_pp(a, gradients))
    compare_scaled(explain(cams.smooth_grad_cam_pp, rank, key=KEY, ids=ids, n_samples=3, sigma=sigma), raws)


@two_axes
@pytest.mark.parametrize("n", [1, 3])
def test_finer_cam(rank, n):
    raws = []
    for _, x, a, _, label in each_image(rank):
        gradient_of = functools.partial(toy.mlp_gradient, PARAMS, a)
        raws.append(reference.finer_cam(a, gradient_of, network(x[None])[0], label, n, 0.6))
    compare_scaled(explain(cams.finer_cam, rank, n_references=n), raws)


@two_axes
@pytest.mark.parametrize("utility", ["residual_softmax", "probability"])
def test_shapley_cam(rank, utility):
    raws = []
    for _, _, a, _, label in each_image(rank):

        def gradient_at(activations, label=label):
            each = [toy.mlp_gradient(PARAMS, activations, d) for d in range(toy.CLASSES)]
            p = reference.softmax(head(activations[None])[0])
            mean = sum(share * g for share, g in zip(p, each, strict=True))
            return p[label] * (each[label] - mean) if utility == "probability" else 2 * each[label] - mean

        raws.append(reference.shapley_cam(a.astype(np.float64), gradient_at))
    compare_scaled(explain(cams.shapley_cam, rank, utility=utility), raws)


@two_axes
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_ablation_cam(rank, score):
    raws = [reference.ablation_cam(head, a, label, score) for _, _, a, _, label in each_image(rank)]
    compare_scaled(explain(cams.ablation_cam, rank, score=score, chunk_size=4), raws)


@pytest.mark.parametrize(("rank", "gaussian"), [(1, False), (2, False), (2, True), (3, True)])
def test_recipro_cam(rank, gaussian):
    saliency = explain(cams.recipro_cam, rank, gaussian=gaussian, chunk_size=16)
    for i, _, a, _, label in each_image(rank):
        raw = reference.recipro_cam(head, a, label, "probability", gaussian)
        np.testing.assert_allclose(saliency.raw[i], raw, rtol=1e-4)
        wanted = reference.unit(reference.resize(raw, saliency.maps.shape[1:]))
        np.testing.assert_allclose(saliency.maps[i], wanted, atol=2e-4)


@pytest.mark.parametrize(
    ("rank", "preset", "given"),
    [
        (2, "straight", {}),
        (2, "torchcam", {}),
        (1, "straight", {}),
        (3, "torchcam", {}),
        (2, "torchcam", dict(path="straight")),
    ],
)
def test_is_cam(rank, preset, given):
    given = dict(n_samples=3) | given
    saliency = explain(cams.is_cam, rank, preset=preset, chunk_size=4, **given)
    choices, raws = of_preset("is-cam", preset) | given, []
    for _, x, a, _, label in each_image(rank):
        choices["baseline"] = x if preset == "torchcam" else np.zeros_like(x)
        raws.append(reference.is_cam(network, x, a, label, **choices))
    for i, raw in enumerate(raws):
        np.testing.assert_allclose(saliency.raw[i], raw, rtol=1e-4, atol=1e-5)
        space = saliency.maps.shape[1:]
        low = reference.resize(reference.unit(np.maximum(raw, 0)), space)
        np.testing.assert_allclose(
            saliency.maps[i], low if preset == "torchcam" else reference.finish(raw, space), atol=2e-4
        )


@two_axes
@pytest.mark.parametrize(("groups", "percentile"), [(4, 50.0), (32, 70.0)])
def test_group_cam(rank, groups, percentile):
    raws = []
    blurred = np.asarray(sscam.ops.blur(jnp.asarray(toy.images(rank))))
    for i, x, a, g, label in each_image(rank):
        options = dict(groups=groups, percentile=percentile, score="probability")
        raws.append(reference.group_cam(network, x, blurred[i], a, g, label, **options))
    saliency = explain(cams.group_cam, rank, groups=groups, percentile=percentile, chunk_size=3)
    for i, raw in enumerate(raws):
        np.testing.assert_allclose(sscam.ops.resize(saliency.raw, raw.shape)[i], raw, rtol=1e-3, atol=1e-6)
        # A map is the raw one over its largest value, and so are its errors: a group's score is a small difference.
        off = max(1e-3, 1e-6 / np.max(raw, initial=1e-6))
        np.testing.assert_allclose(saliency.maps[i], reference.unit(np.maximum(raw, 0)), atol=off)


@two_axes
def test_rise(rank):
    cells, keep, ids, raws = 3, 0.6, jnp.array([4, 8]), []
    for i, x, _, _, label in each_image(rank):
        masks = []
        for sample in range(12):
            for_cells, for_offset = jax.random.split(jax.random.fold_in(jax.random.fold_in(KEY, ids[i]), sample))
            grid = np.asarray(jax.random.bernoulli(for_cells, keep, (cells,) * rank), np.float32)
            sides = jnp.array([-(-side // cells) for side in x.shape[:-1]], jnp.int32)
            offset = np.asarray(jax.random.randint(for_offset, (rank,), 0, sides))
            masks.append(reference.rise_mask(grid, offset, x.shape[:-1]))
        raws.append(reference.rise(network, x, label, np.float32(masks), keep, "probability"))
    saliency = explain(cams.rise, rank, key=KEY, ids=ids, n_samples=12, cells=cells, keep=keep, chunk_size=5)
    compare_scaled(saliency, raws)


@pytest.mark.parametrize(
    ("rank", "window", "stride"), [(1, 3, 2), (2, (4, 3), (3, 2)), (2, None, None), (3, (4, 5, 6), 4)]
)
def test_occlusion(rank, window, stride):
    saliency = explain(cams.occlusion, rank, window=window, stride=stride, chunk_size=16)
    sides = toy.images(rank).shape[1:-1]
    windows = tuple(-(-side // 7) for side in sides) if window is None else np.broadcast_to(window, rank)
    strides = tuple(-(-side // 2) for side in windows) if stride is None else np.broadcast_to(stride, rank)
    options = dict(window=windows, stride=strides, score="probability")
    compare_scaled(
        saliency, [reference.occlusion(network, x, label, **options) for _, x, _, _, label in each_image(rank)]
    )
