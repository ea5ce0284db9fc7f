"""Energy in the box and the pointing game: values by hand, Quantus's, axis order, and what must not change them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sscam_jax.metrics.localization import box_mask, energy_in_box, energy_over_area, pointing_game, single_box
from tests.golden import metrics_quantus

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden/metrics_quantus.npz")
RNG = np.random.default_rng(0)
NONE = [-1.0] * 4


def random_boxes(*shape: int) -> np.ndarray:
    corners = np.sort(RNG.uniform(size=(*shape, 2, 2)), axis=-2)
    return corners.reshape(*shape, 4).astype(np.float32)


MAPS = jnp.asarray(RNG.uniform(size=(3, 4, 10, 14)), jnp.float32)
BOXES = random_boxes(4, 2)
BOXES[1, 1] = NONE
METRICS = [energy_in_box, energy_over_area, pointing_game]
every = pytest.mark.parametrize("function", METRICS, ids=lambda function: function.__name__)


def test_mask_by_hand():
    # From 0.5 to 2 rows, from 1 to 2.75 columns.
    mask = box_mask(jnp.array([[[0.25, 0.25, 1.0, 0.6875]]]), (2, 4))
    np.testing.assert_allclose(mask[0], [[0, 0.5, 0.375, 0], [0, 1, 0.75, 0]], atol=1e-6)


def test_mask_of_a_box_within_one_pixel():
    mask = box_mask(jnp.array([[[0.6, 0.6, 0.8, 0.9]]]), (2, 2))
    np.testing.assert_allclose(mask[0], [[0, 0], [0, 0.2 * 0.3 * 4]], atol=1e-6)


def test_mask_has_the_boxes_area():
    boxes = random_boxes(20, 1)
    sides = boxes[..., 2:] - boxes[..., :2]
    np.testing.assert_allclose(box_mask(boxes, (13, 17)).mean((1, 2)), sides.prod(-1)[:, 0], atol=1e-5)


def test_mask_is_the_union():
    """Boxes with edges between pixels: overlaps count once, rows of -1 and boxes without area not at all."""
    boxes = np.array([[[0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 1], NONE, [0.8, 0.1, 0.8, 0.9]]], np.float32)
    expected = np.zeros((8, 12))
    expected[:4, :6] = expected[2:6, 3:] = 1
    np.testing.assert_array_equal(box_mask(boxes, (8, 12))[0], expected)
    np.testing.assert_array_equal(box_mask(np.full((1, 2, 4), -1, np.float32), (8, 12)), np.zeros((1, 8, 12)))
    np.testing.assert_array_equal(box_mask(np.zeros((2, 0, 4), np.float32), (8, 12)), np.zeros((2, 8, 12)))


def test_single_box():
    half, more = [0, 0.5, 1, 1], [0, 0, 0.9, 0.6]
    boxes = np.array([[half, NONE], [NONE, half], [more, NONE], [half, half], [NONE, NONE]], np.float32)
    assert single_box(boxes).tolist() == [True, True, False, False, False]


@every
def test_top_right_corner(function):
    """A map that is hot in the top right corner, and a box there, in the three other corners."""
    maps = jnp.zeros((1, 40, 60)).at[0, 2:6, 50:58].set(1.0).at[0, 4, 54].set(2.0)
    right, bottom = 0.75, 0.75
    corners = [[0, right, 0.25, 1], [0, 0, 0.25, 0.25], [bottom, 0, 1, 0.25], [bottom, right, 1, 1]]
    values = [function(maps, np.array([[corner]], np.float32)).item() for corner in corners]
    best = {energy_in_box: 100, energy_over_area: 16, pointing_game: 100}[function]
    np.testing.assert_allclose(values, [best, 0, 0, 0], rtol=1e-6)


def test_energy_by_hand():
    maps = jnp.array([[[1.0, 2.0], [3.0, 4.0]]]) / 10
    # The left column's lower half and half of the lower right pixel: 3 + 2 of 10, on 3/8 of the area.
    boxes = jnp.array([[[0.5, 0.0, 1.0, 0.75]]])
    np.testing.assert_allclose(energy_in_box(maps, boxes), [50], rtol=1e-6)
    np.testing.assert_allclose(energy_over_area(maps, boxes), [0.5 / 0.375], rtol=1e-6)


def test_energy_is_quantus_relevance_mass_accuracy():
    got = energy_in_box(jnp.asarray(metrics_quantus.maps()), metrics_quantus.boxes())
    np.testing.assert_allclose(got, 100 * GOLDEN["relevance_mass_accuracy"], rtol=1e-5)


def test_pointing_is_quantus():
    """Without tolerance, which Quantus lacks."""
    got = pointing_game(jnp.asarray(metrics_quantus.maps()), metrics_quantus.boxes(), tolerance=0)
    np.testing.assert_array_equal(got, 100 * GOLDEN["pointing_game"])
    assert 0 < got.mean() < 100


def test_a_uniform_map_is_chance():
    boxes = random_boxes(6, 1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)[:, 0]
    uniform = jnp.ones((6, 50, 70))
    np.testing.assert_allclose(energy_in_box(uniform, boxes), 100 * area, rtol=1e-4)
    np.testing.assert_allclose(energy_over_area(uniform, boxes), np.ones(6), rtol=1e-5)
    boxes = np.array([[[0, 0, 0.5, 0.5]]], np.float32)
    np.testing.assert_allclose(pointing_game(jnp.ones((1, 10, 10)), boxes, tolerance=0), [25], rtol=1e-6)


@every
def test_a_zero_map_is_a_miss(function):
    np.testing.assert_array_equal(function(jnp.zeros((2, 4, 8, 8)), BOXES), np.zeros((2, 4)))


@every
def test_only_images_without_a_box_are_nan(function):
    boxes = BOXES.copy()
    boxes[2] = NONE
    values = np.asarray(function(MAPS, boxes))
    np.testing.assert_array_equal(np.isnan(values), np.broadcast_to(np.arange(4) == 2, (3, 4)))
    np.testing.assert_array_equal(np.isnan(function(MAPS, np.zeros((4, 0, 4), np.float32))), np.ones((3, 4)))


@every
def test_leading_axes_and_jit(function):
    values = function(MAPS, BOXES)
    assert values.shape == (3, 4) and values.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(function)(MAPS, BOXES), values, rtol=1e-6)
    np.testing.assert_allclose(function(MAPS[2], BOXES), values[2], rtol=1e-6)
    np.testing.assert_allclose(function(MAPS[None], BOXES)[0], values, rtol=1e-6)
    np.testing.assert_allclose(function(MAPS[:, 3:], BOXES[3:]), values[:, 3:], rtol=1e-6)


@every
def test_scaling_the_map_changes_nothing(function):
    np.testing.assert_allclose(function(MAPS / 8, BOXES), function(MAPS, BOXES), rtol=1e-5)


@every
def test_flips_and_transposes_of_map_and_box_together(function):
    option = dict(tolerance=2.0) if function is pointing_game else {}
    values = function(MAPS, BOXES, **option)
    assert np.unique(values).size > 1
    box = np.where(BOXES < 0, np.nan, BOXES)
    moved = [
        (MAPS[..., ::-1, :], np.stack([1 - box[..., 2], box[..., 1], 1 - box[..., 0], box[..., 3]], -1)),
        (MAPS[..., ::-1], np.stack([box[..., 0], 1 - box[..., 3], box[..., 2], 1 - box[..., 1]], -1)),
        (MAPS.swapaxes(-1, -2), box[..., [1, 0, 3, 2]]),
    ]
    for maps, boxes in moved:
        np.testing.assert_allclose(function(maps, np.nan_to_num(boxes, nan=-1.0), **option), values, rtol=1e-4)


@pytest.mark.parametrize(
    ("y", "x", "hit"),
    # The box is rows 40 to 60, columns 100 to 120; a pixel's centre lies half a pixel in.
    [
        (50, 110, True),
        (25, 110, True), (24, 110, False), (74, 110, True), (75, 110, False),
        (50, 85, True), (50, 84, False), (50, 134, True), (50, 135, False),
        (30, 90, True), (29, 89, True), (28, 88, False), (69, 129, True), (71, 131, False),
        (110, 50, False),
    ],
)  # fmt: skip
def test_tolerance_of_the_pointing_game(y, x, hit):
    """15 pixels at 224, the distance of the maximum from the box, by the diagonal at corners."""
    maps = jnp.full((1, 224, 224), 0.3).at[0, y, x].set(0.4)
    boxes = np.array([[[40, 100, 60, 120]]], np.float32) / 224
    assert pointing_game(maps, boxes).item() == 100 * hit


def test_ties_of_the_pointing_game():
    """Equal maxima share: three of these four are in a box, one only thanks to the second box."""
    maps = jnp.zeros((1, 8, 8)).at[0, [0, 1, 1, 7], [0, 0, 1, 7]].set(0.9).at[0, 0, 1].set(0.5)
    one, two = [0, 0, 0.25, 0.125], [0.75, 0.75, 1, 1]
    assert pointing_game(maps, np.array([[one, NONE]], np.float32), tolerance=0).item() == 50
    assert pointing_game(maps, np.array([[one, two]], np.float32), tolerance=0).item() == 75
