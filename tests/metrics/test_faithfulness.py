"""Faithfulness: by hand, by plain NumPy, and as torchcam 0.5.0 and pytorch-grad-cam 1.5.7 have it."""

import functools
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics, ops
from sscam_jax.types import IMAGENET_MEAN as MEAN
from sscam_jax.types import IMAGENET_STD as STD
from tests import toy
from tests.cams.test_parity import features, mlp_head
from tests.golden.random_tensors import uniform

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/metrics_faithfulness.npz")
PARAMS = toy.on_device(toy.params())
LABELS = jnp.array([0, 2, 3], jnp.int32)

# A network whose logits are the mean of each colour.
COLOUR = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a.mean(tuple(range(1, a.ndim - 1))))
# A network that sees single pixels: the largest value of each colour.
BRIGHTEST = sscam.Apply(lambda params, x: (x, ()), lambda params, a, carry: a.max(tuple(range(1, a.ndim - 1))))


def softmax(logits) -> np.ndarray:
    powers = np.exp(np.asarray(logits, np.float64))
    return powers / powers.sum(-1, keepdims=True)


def some_maps(rank: int = 2, methods: int = 2, batch: int = 3) -> np.ndarray:
    space = toy.images(rank, 1).shape[1:-1]
    return np.random.default_rng(9).uniform(size=(methods, batch, *space)).astype(np.float32)


def confidences(before: float, *after: float, empty: bool = False) -> metrics.Confidence:
    return metrics.Confidence(jnp.array([before]), jnp.array(after).reshape(-1, 1), jnp.full((len(after), 1), empty))


class TestFormulas:
    """Of Y before and O after, in percent."""

    @pytest.mark.parametrize(
        ("before", "after", "drop", "increase", "gain"),
        [
            (0.5, 0.25, 50, 0, 0),
            (0.5, 0.75, 0, 100, 50),
            (0.8, 0.2, 75, 0, 0),
            (0.5, 0.5, 0, 0, 0),
            (0.5, 0.500001, 0, 0, 2e-4),  # rounding is no increase
            (0.5, 0.5001, 0, 100, 0.02),
            (1e-30, 2e-30, 0, 100, 0),  # nor is a tiny probability rounding
            (0.0, 0.0, 0, 0, 0),
            (0.0, 0.3, 0, 100, 30),
            (1.0, 1.0, 0, 0, 0),
            (1.0, 0.0, 100, 0, 0),
        ],
    )
    def test_by_hand(self, before, after, drop, increase, gain):
        found = confidences(before, after)
        assert metrics.average_drop(found).item() == pytest.approx(drop, abs=1e-4)
        assert metrics.average_increase(found).item() == increase
        assert metrics.average_gain(found).item() == pytest.approx(gain, abs=1e-3)

    def test_an_empty_map_gains_nothing_and_its_drop_counts(self):
        assert metrics.average_increase(confidences(0.2, 0.9, empty=True)).item() == 0
        assert metrics.average_gain(confidences(0.2, 0.9, empty=True)).item() == 0
        assert metrics.average_drop(confidences(0.5, 0.25, empty=True)).item() == 50

    def test_a_negative_logit_has_no_drop(self):
        assert metrics.average_drop(confidences(-2.0, -3.0)).item() == 0
        assert metrics.average_increase(confidences(-2.0, -1.0)).item() == 100

    def test_methods_and_images_keep_their_axes(self):
        found = metrics.Confidence(jnp.array([0.5, 1.0]), jnp.array([[0.25, 0.5], [0.5, 0.1]]), jnp.zeros((2, 2), bool))
        np.testing.assert_allclose(metrics.average_drop(found), [[50, 50], [0, 90]], rtol=1e-6)


class TestExplainedInputs:
    images = jnp.asarray(toy.images(batch=3))
    maps = jnp.asarray(some_maps())

    def test_soft(self):
        found = metrics.explained_inputs(self.images, self.maps)
        assert found.shape == (2, 3, 8, 10, 3)
        for m in range(2):
            for b in range(3):
                np.testing.assert_allclose(found[m, b], self.images[b] * self.maps[m, b][..., None], rtol=1e-6)

    def test_pixel_masks_before_normalisation_so_that_nothing_is_black(self):
        found = metrics.explained_inputs(self.images, self.maps, mask_space="pixel")
        pixels = np.asarray(self.images) * np.array(STD) + MEAN
        np.testing.assert_allclose(found[1], (pixels * np.asarray(self.maps)[1, ..., None] - MEAN) / STD, atol=1e-5)
        black = metrics.explained_inputs(self.images, 0 * self.maps, mask_space="pixel")
        np.testing.assert_allclose(black[0, 0, 0, 0], -np.array(MEAN) / STD, rtol=1e-6)
        whole = metrics.explained_inputs(self.images, 0 * self.maps + 1, mask_space="pixel")
        np.testing.assert_array_equal(whole[0], self.images)  # to the bit, or a map of ones would change confidences

    def test_top50_keeps_the_more_important_half(self):
        found = metrics.explained_inputs(self.images, self.maps, keep="top50")
        shown = self.maps > jnp.median(self.maps, axis=(2, 3), keepdims=True)
        np.testing.assert_array_equal(found, np.asarray(self.images) * np.asarray(shown)[..., None])
        ones = metrics.explained_inputs(self.images, 0 * self.maps + 1, keep="top50")
        np.testing.assert_array_equal(ones[0, 0, :4], self.images[0, :4])  # equal pixels: the earlier half
        assert not ones[0, 0, 4:].any()
        assert not metrics.explained_inputs(self.images, 0 * self.maps, keep="top50").any()

    def test_refused(self, as_users_run_it):
        with pytest.raises(ValueError, match=r"mask_space 'black' is not known; choose from 'normalised', 'pixel'"):
            metrics.explained_inputs(self.images, self.maps, mask_space="black")
        with pytest.raises(ValueError, match=r"keep 'half' is not known; choose from 'soft', 'top50'"):
            metrics.explained_inputs(self.images, self.maps, keep="half")
        with pytest.raises(ValueError, match=r"mean has 1 values, expected 3: one per channel"):
            metrics.explained_inputs(self.images, self.maps, mask_space="pixel", mean=(0.5,))
        with pytest.raises(ValueError, match=r"maps have shape \(3, 8, 10\).*expected \[m, 3, 8, 10\]"):
            metrics.explained_inputs(self.images, self.maps[0])
        with pytest.raises(ValueError, match=r"maps have shape \(2, 3, 10, 8\)"):
            metrics.explained_inputs(self.images, jnp.swapaxes(self.maps, 2, 3))
        with pytest.raises(ValueError, match=r"maps have shape \(0, 3, 8, 10\).*at least one of each"):
            metrics.explained_inputs(self.images, self.maps[:0])


class TestConfidence:
    @pytest.mark.parametrize("rank", [1, 2, 3])
    def test_every_method_on_every_image(self, rank):
        images, maps = jnp.asarray(toy.images(rank, batch=3)), jnp.asarray(some_maps(rank))
        found = metrics.confidence(toy.MLP, PARAMS, images, LABELS, maps, chunk_size=2)
        before = softmax(toy.MLP(PARAMS, images))
        np.testing.assert_allclose(found.before, before[np.arange(3), LABELS], rtol=1e-5)
        for m in range(2):
            after = softmax(toy.MLP(PARAMS, images * maps[m][..., None]))
            np.testing.assert_allclose(found.after[m], after[np.arange(3), LABELS], rtol=1e-5)
        assert not found.empty.any()

    def test_chunks_change_rounding_only(self):
        images, maps = jnp.asarray(toy.images(batch=3)), jnp.asarray(some_maps())
        one, all_at_once = (
            metrics.confidence(toy.MLP, PARAMS, images, LABELS, maps, keep="top50", chunk_size=size)
            for size in (1, 1000)
        )
        np.testing.assert_allclose(one.after, all_at_once.after, rtol=1e-5)
        with pytest.raises(ValueError, match="chunk_size=0 is too small"):
            metrics.confidence(toy.MLP, PARAMS, images, LABELS, maps, chunk_size=0)

    @pytest.mark.parametrize("mask_space", ["normalised", "pixel"])
    def test_a_map_of_ones_changes_nothing(self, mask_space):
        images = jnp.asarray(toy.images(batch=3))
        ones = jnp.ones((2, 3, 8, 10))
        found = metrics.confidence(toy.MLP, PARAMS, images, LABELS, ones, mask_space=mask_space)
        for formula in (metrics.average_drop, metrics.average_increase, metrics.average_gain):
            np.testing.assert_allclose(formula(found), 0, atol=1e-3)

    def test_a_box_in_the_top_right_corner(self):
        image = jnp.zeros((1, 4, 6, 3)).at[0, 0, 5, 1].set(24 * np.log(2.0))  # the second colour's mean is log 2
        corner, swapped = jnp.zeros((4, 6)).at[0, 5].set(1.0), jnp.zeros((4, 6)).at[3, 0].set(1.0)
        found = metrics.confidence(COLOUR, (), image, jnp.array([1]), jnp.stack([corner, swapped])[:, None])
        np.testing.assert_allclose(found.before, [0.5], rtol=1e-6)  # 2 / (1 + 2 + 1)
        np.testing.assert_allclose(found.after, [[0.5], [1 / 3]], rtol=1e-6)
        np.testing.assert_allclose(metrics.average_drop(found), [[0], [100 / 3]], rtol=1e-5, atol=1e-4)

    def test_an_empty_map_is_marked(self):
        images, maps = jnp.asarray(toy.images(batch=3)), jnp.asarray(some_maps()).at[1, 2].set(0.0)
        found = metrics.confidence(toy.MLP, PARAMS, images, LABELS, maps)
        assert found.empty.tolist() == [[False] * 3, [False, False, True]]
        nothing = softmax(toy.MLP(PARAMS, jnp.zeros((1, 8, 10, 3))))[0, 3]
        np.testing.assert_allclose(found.after[1, 2], nothing, rtol=1e-5)

    def test_the_authors_show_the_mask_itself(self):
        images = jnp.asarray(toy.images(batch=3))
        maps = jnp.asarray(some_maps())
        maps = maps.at[0, 0, 0, 0].set(50.4 / 255).at[0, 0, 0, 1].set(50.6 / 255)  # 8-bit values 50 and 51
        found = metrics.confidence(toy.MLP, PARAMS, images, LABELS, maps, protocol="authors", chunk_size=2)
        np.testing.assert_allclose(found.before, toy.MLP(PARAMS, images).max(-1), rtol=1e-5)
        white = np.round(255 * np.asarray(maps)) > 50
        assert white[0, 0, 0, :2].tolist() == [False, True]
        for m in range(2):
            pictures = (white[m][..., None] * np.ones(3) - MEAN) / STD
            np.testing.assert_allclose(
                found.after[m], toy.MLP(PARAMS, jnp.asarray(pictures, jnp.float32)).max(-1), rtol=1e-4
            )

    def test_refused(self, as_users_run_it):
        images, maps = jnp.asarray(toy.images(batch=3)), jnp.asarray(some_maps())
        with pytest.raises(ValueError, match="protocol 'notebook' is not known; choose from 'paper', 'authors'"):
            metrics.confidence(toy.MLP, PARAMS, images, LABELS, maps, protocol="notebook")


class TestCurves:
    image = jnp.zeros((1, 2, 3, 3)).at[0, 0, 2, 0].set(np.log(6.0)).at[0, 1, 0, 0].set(np.log(2.0))
    label = jnp.array([0])

    def test_deletion_by_hand(self):
        """The label's logit is the brightest pixel left: log 6, log 2, then 0; the others' are 0."""
        maps = jnp.array([[[[0.1, 0.2, 1.0], [0.5, 0.0, 0.0]]]])  # order: (0,2), (1,0), (0,1), (0,0), (1,1), (1,2)
        found = metrics.deletion(BRIGHTEST, (), self.image, self.label, maps, steps=3, chunk_size=3)
        np.testing.assert_allclose(found.shares, [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
        np.testing.assert_allclose(found.curve[0, 0], [6 / 8, 1 / 3, 1 / 3, 1 / 3], rtol=1e-5)
        np.testing.assert_allclose(found.auc, [[(6 / 8 + 1 / 3) / 6 + 2 / 9]], rtol=1e-5)
        swapped = jnp.array([[[[0.1, 0.5, 0.2], [0.3, 1.0, 0.0]]]])
        worse = metrics.deletion(BRIGHTEST, (), self.image, self.label, swapped, steps=6)
        np.testing.assert_allclose(worse.curve[0, 0], [*[6 / 8] * 4, *[1 / 3] * 3], rtol=1e-5)

    def test_equal_pixels_go_by_position(self):
        found = metrics.deletion(BRIGHTEST, (), self.image, self.label, jnp.ones((1, 1, 2, 3)), steps=6)
        np.testing.assert_allclose(found.curve[0, 0], [6 / 8, 6 / 8, 6 / 8, 2 / 4, 1 / 3, 1 / 3, 1 / 3], rtol=1e-5)

    def test_insertion_starts_blurred_and_ends_with_the_image(self):
        images, maps = jnp.asarray(toy.images(batch=3)), jnp.asarray(some_maps())
        found = metrics.insertion(toy.MLP, PARAMS, images, LABELS, maps, steps=7, sigma=2.0, chunk_size=5)
        assert found.curve.shape == (2, 3, 8)
        blurred = ops.blur(images, sigma=2.0)
        for share, wanted in ((0, blurred), (7, images)):
            probabilities = softmax(toy.MLP(PARAMS, wanted))[np.arange(3), LABELS]
            np.testing.assert_allclose(found.curve[..., share], np.stack([probabilities] * 2), rtol=1e-5)
        order = np.argsort(-np.asarray(maps)[1, 2].ravel(), kind="stable")[: round(80 * 3 / 7)]
        mixed = np.array(blurred[2]).reshape(-1, 3)
        mixed[order] = np.asarray(images[2]).reshape(-1, 3)[order]
        logits = toy.MLP(PARAMS, jnp.asarray(mixed.reshape(1, 8, 10, 3)))
        np.testing.assert_allclose(found.curve[1, 2, 3], softmax(logits)[0, 3], rtol=1e-5)
        np.testing.assert_allclose(found.auc, np.trapezoid(found.curve, found.shares, axis=-1), rtol=1e-5)

    @pytest.mark.parametrize("rank", [1, 3])
    def test_other_ranks(self, rank):
        images, maps = jnp.asarray(toy.images(rank, batch=3)), jnp.asarray(some_maps(rank))
        found = metrics.deletion(toy.MLP, PARAMS, images, LABELS, maps, steps=2)
        empty = softmax(toy.MLP(PARAMS, 0 * images))[np.arange(3), LABELS]
        np.testing.assert_allclose(found.curve[0, :, -1], empty, rtol=1e-5)

    def test_only_the_order_counts(self):
        images, maps = jnp.asarray(toy.images(batch=3)), jnp.asarray(some_maps())
        run = functools.partial(metrics.deletion, toy.MLP, PARAMS, images, LABELS, steps=4)
        np.testing.assert_array_equal(run(maps).curve, run(maps**2 / 3).curve)

    def test_empty_maps(self):
        nothing = jnp.zeros((1, 1, 2, 3))
        assert metrics.insertion(BRIGHTEST, (), self.image, self.label, nothing, steps=2, sigma=1.0).auc.item() == 0
        assert metrics.deletion(BRIGHTEST, (), self.image, self.label, nothing, steps=2).auc.item() > 0

    def test_too_many_steps(self):
        with pytest.raises(ValueError, match="steps=7 is not possible with maps of 6 pixels; choose from 1 to 6"):
            metrics.deletion(BRIGHTEST, (), self.image, self.label, jnp.ones((1, 1, 2, 3)), steps=7)


class TestGoldens:
    """torchcam 0.5.0 and pytorch-grad-cam 1.5.7 on the draws of tests/golden/metrics_faithfulness.py."""

    apply, params = sscam.Apply(features, mlp_head), jnp.float32(4.0)
    images = jnp.asarray(uniform("metrics.images", (2, 30, 40, 3)))
    labels = jnp.array([1, 3])
    maps = jnp.asarray(np.abs(uniform("metrics.maps", (3, 2, 30, 40))))

    def given(self, function, **options):
        return function(self.apply, self.params, self.images, self.labels, self.maps, **options)

    @functools.cached_property
    def confidence(self):
        return self.given(metrics.confidence)

    def test_torchcams_drop_and_increase(self):
        """Shares, ours are percent; it divides by Y + 1e-7."""
        found = metrics.average_drop(self.confidence)
        assert found.max() > 5
        np.testing.assert_allclose(found, 100 * GOLDEN["torchcam/drop"], atol=1e-3)
        increase = metrics.average_increase(self.confidence)
        assert {0, 100} == set(increase.ravel().tolist())
        np.testing.assert_array_equal(increase, 100 * GOLDEN["torchcam/increase"])

    def test_pytorch_grad_cams_drop_is_not_divided(self):
        """Its DropInConfidence is max(0, Y − O) where the metric's source divides by Y."""
        found = metrics.average_drop(self.confidence) / 100 * self.confidence.before[None]
        np.testing.assert_allclose(found, GOLDEN["pytorch_grad_cam/drop"], atol=1e-5)
        increase = metrics.average_increase(self.confidence)
        np.testing.assert_array_equal(increase, 100 * GOLDEN["pytorch_grad_cam/increase"])

    def test_torchcams_deletion_and_insertion(self):
        found = self.given(metrics.deletion, steps=20).auc
        np.testing.assert_allclose(found, GOLDEN["torchcam/deletion"], rtol=1e-4)
        found = self.given(metrics.insertion, steps=20, sigma=2.0).auc
        np.testing.assert_allclose(found, GOLDEN["torchcam/insertion"], rtol=1e-4)
