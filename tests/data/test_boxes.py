"""Boxes through turn, resize and crop: found again where their pixels went."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from sscam_jax.data.boxes import fitted_boxes, turned
from sscam_jax.data.preprocess import crop_window, fitted
from sscam_jax.types import IMAGENET_MEAN as MEAN
from sscam_jax.types import IMAGENET_STD as STD

UPRIGHT = 1


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32)


def painted(width: int, height: int, box: tuple[int, int, int, int]) -> Image.Image:
    """A black image, white inside the box y0, x0, y1, x1."""
    pixels = np.zeros((height, width, 3), np.uint8)
    y0, x0, y1, x1 = box
    pixels[y0:y1, x0:x1] = 255
    return Image.fromarray(pixels)


def white(array: np.ndarray) -> np.ndarray:
    """Where a network's input is white, as a box y0, x0, y1, x1 in shares."""
    bright = (array * np.array(STD, np.float32) + np.array(MEAN, np.float32))[..., 0] > 0.5
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]) / len(array)


# By hand. At size 14 the crop brings the shorter side to 16 and cuts a margin of one pixel from it.


def test_top_right_corner_of_a_wide_image():
    """32×16 pixels stay as they are; the window is rows 1 to 15, columns 9 to 23."""
    assert crop_window(32, 16, 14) == (32, 16, 9, 1)
    found, problems = fitted_boxes(boxes((0, 16, 4, 23), (0, 20, 8, 32)), 32, 16, UPRIGHT, 14, "crop")
    np.testing.assert_allclose(found * 14, [[0, 7, 3, 14], [0, 11, 7, 14]], atol=1e-5)
    assert problems == []


def test_top_right_corner_of_a_tall_image():
    """16×32 pixels: the window is rows 9 to 23, columns 1 to 15. The very corner is not in it."""
    assert crop_window(16, 32, 14) == (16, 32, 1, 9)
    found, problems = fitted_boxes(boxes((8, 12, 12, 16), (0, 12, 4, 16)), 16, 32, UPRIGHT, 14, "crop")
    np.testing.assert_allclose(found * 14, [[0, 11, 3, 14]], atol=1e-5)
    assert problems == ["box 0, 12, 4, 16 (y0, x0, y1, x1) is outside the crop: dropped"]


def test_squash_keeps_every_share():
    found, problems = fitted_boxes(boxes((0, 24, 4, 32)), 32, 16, UPRIGHT, 14, "squash")
    np.testing.assert_allclose(found, [[0, 0.75, 0.25, 1]])
    assert problems == []


def test_a_box_that_only_touches_the_window_is_outside():
    found, problems = fitted_boxes(boxes((4, 0, 8, 9), (4, 23, 8, 32)), 32, 16, UPRIGHT, 14, "crop")
    assert found.shape == (0, 4) and len(problems) == 2


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_boxes_that_no_image_has(fit):
    given = boxes((4, 4, 4, 8), (8, 8, 4, 12), (0, 40, 8, 50), (-9, 4, -2, 8), (4, np.nan, 8, 8))
    found, problems = fitted_boxes(given, 32, 16, UPRIGHT, 14, fit)
    assert found.shape == (0, 4)
    assert problems == [
        "box 4, 4, 4, 8 (y0, x0, y1, x1) has no area: dropped",
        "box 8, 8, 4, 12 (y0, x0, y1, x1) has no area: dropped",
        "box 0, 40, 8, 50 (y0, x0, y1, x1) is outside the image of 32×16 pixels: dropped",
        "box -9, 4, -2, 8 (y0, x0, y1, x1) is outside the image of 32×16 pixels: dropped",
        "box 4, nan, 8, 8 (y0, x0, y1, x1) has no area: dropped",
    ]


def test_a_box_beyond_the_image_is_clipped_and_named_past_one_pixel():
    found, problems = fitted_boxes(boxes((4, 24, 8, 34), (4, 24, 8, 33)), 32, 16, UPRIGHT, 14, "squash")
    np.testing.assert_allclose(found, [[0.25, 0.75, 0.5, 1]] * 2)
    assert problems == ["box 4, 24, 8, 34 (y0, x0, y1, x1) extends beyond the image of 32×16 pixels: clipped"]


def test_no_boxes():
    found, problems = fitted_boxes(np.zeros((0, 4), np.float32), 32, 16, UPRIGHT, 14, "crop")
    assert found.shape == (0, 4) and problems == []


# By pixels: paint the box, fit the picture, and find the box where the paint is.


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize(
    "width, height, box",
    [(500, 375, (10, 330, 120, 420)), (333, 500, (80, 200, 190, 320)), (227, 227, (20, 120, 90, 200))],
)
def test_boxes_follow_their_pixels(width, height, box, fit):
    found, problems = fitted_boxes(boxes(box), width, height, UPRIGHT, 224, fit)
    np.testing.assert_allclose(found[0], white(fitted(painted(width, height, box), 224, fit)), atol=0.75 / 224)
    assert problems == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_image(orientation):
    box = (2, 5, 6, 17)
    image = painted(20, 11, box)
    image.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(image)
    inside = np.asarray(upright)[..., 0] == 255
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    [found] = turned(boxes(box), 20, 11, orientation)
    assert found.tolist() == [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]


@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_the_crop_is_that_of_the_upright_image(orientation):
    box = (60, 300, 160, 420)
    image = painted(500, 375, box)
    image.getexif()[0x0112] = orientation
    found, _ = fitted_boxes(boxes(box), 500, 375, orientation, 224, "crop")
    upright = ImageOps.exif_transpose(image)
    np.testing.assert_allclose(found[0], white(fitted(upright, 224, "crop")), atol=0.75 / 224)
