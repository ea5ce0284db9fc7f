"""Every method and preset against the plain NumPy version, for one, two and three spatial axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from tests import toy
from tests.reference import cams as reference

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(7)
LABELS = np.array([1, 2])
TOLERANCE = dict(rtol=1e-5, atol=2e-6)


def noise_of(image_id: int):
    """The documented law of the noise: the key folded with image id, channel and sample."""

    def noise(channel: int, sample: int, shape: tuple[int, ...]) -> np.ndarray:
        key = KEY
        for index in (image_id, channel, sample):
            key = jax.random.fold_in(key, index)
        return np.asarray(jax.random.normal(key, shape))

    return noise


def each_image(rank: int):
    """(index, image, activations, gradient) of a batch of two, in NumPy."""
    weights, images = toy.params(), toy.images(rank)
    activations, _ = toy.features(weights, images)
    for i, label in enumerate(LABELS):
        yield i, images[i], activations[i], toy.mlp_gradient(weights, activations[i], label)


def compare(saliency: sscam.Saliency, raws: list[np.ndarray], space: tuple[int, ...]) -> None:
    for i, raw in enumerate(raws):
        np.testing.assert_allclose(saliency.raw[i], raw, **TOLERANCE)
        np.testing.assert_allclose(saliency.maps[i], reference.finish(raw, space), rtol=0, atol=1e-4)
        assert saliency.flat[i] == (saliency.maps[i].max() == 0)
    assert not saliency.flat.all()
    assert saliency.maps.dtype == saliency.raw.dtype == saliency.weights.dtype == jnp.float32


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_cam(rank):
    images = toy.images(rank)
    saliency = sscam.cam(toy.LINEAR, toy.on_device(toy.params()), jnp.asarray(images), LABELS)
    weights = toy.params()["linear"]
    compare(saliency, [reference.cam(a, weights[:, LABELS[i]]) for i, _, a, _ in each_image(rank)], images.shape[1:-1])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("method", ["grad_cam", "grad_cam_pp"])
def test_gradient_methods(rank, method):
    images = toy.images(rank)
    saliency = getattr(sscam, method)(toy.MLP, toy.on_device(toy.params()), jnp.asarray(images), LABELS)
    compare(saliency, [getattr(reference, method)(a, g) for _, _, a, g in each_image(rank)], images.shape[1:-1])


def network(images: np.ndarray) -> np.ndarray:
    weights = toy.params()
    return toy.mlp_head(weights, *toy.features(weights, images))


def numpy_baseline(name: str, image: np.ndarray) -> np.ndarray | None:
    blurred = np.asarray(sscam.ops.blur(jnp.asarray(image)[None])[0])
    return {"none": None, "zeros": np.zeros_like(image), "image": image, "blur": blurred}[name]


@pytest.mark.parametrize(
    ("rank", "preset"), [(2, preset) for preset in sscam.SCORE_CAM_PRESETS] + [(1, "paper"), (3, "original")]
)
def test_score_cam(rank, preset):
    images = toy.images(rank)
    params = toy.on_device(toy.params())
    saliency = sscam.score_cam(toy.MLP, params, jnp.asarray(images), LABELS, preset=preset, chunk_size=4)
    choices = dict(sscam.SCORE_CAM_PRESETS[preset])
    raws = []
    for i, x, a, _ in each_image(rank):
        choices["baseline"] = numpy_baseline(sscam.SCORE_CAM_PRESETS[preset]["baseline"], x)
        raws.append(reference.score_cam(network, x, a, LABELS[i], **choices))
    compare(saliency, raws, images.shape[1:-1]) if preset != "torchcam" else compare_low(saliency, raws)


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
    images = toy.images(rank)
    params = toy.on_device(toy.params())
    given = dict(n_samples=3) | given
    saliency = sscam.ss_cam(toy.MLP, params, jnp.asarray(images), LABELS, key=KEY, preset=preset, chunk_size=4, **given)
    choices = dict(sscam.SS_CAM_PRESETS[preset]) | given
    raws = []
    for i, x, a, g in each_image(rank):
        prior = g.mean(tuple(range(rank))) if choices["prior"] else None
        own = choices | dict(baseline=numpy_baseline(choices["baseline"], x), prior=prior)
        raws.append(reference.ss_cam(network, x, a, LABELS[i], noise_of(i), **own))
    if choices["normalize"] == "before_resize":
        compare_low(saliency, raws)
    else:
        compare(saliency, raws, images.shape[1:-1])


@pytest.mark.parametrize("preset", sscam.SS_CAM_PRESETS)
def test_ss_cam_presets(preset):
    against_reference(2, preset, {})


@pytest.mark.parametrize("preset", ["paper", "torchcam"])
@pytest.mark.parametrize("rank", [1, 3])
def test_ss_cam_other_ranks(rank, preset):
    against_reference(rank, preset, {})


@pytest.mark.parametrize("given", SINGLE_CHOICES, ids=str)
def test_ss_cam_single_choices(given):
    against_reference(2, "paper", given)
