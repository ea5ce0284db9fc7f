"""Which images are shown, and where they and their boxes are drawn; how it looks is for eyes."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from sscam_jax import plots
from sscam_jax.evaluation import gallery
from sscam_jax.evaluation.gallery import Explained
from tests.evaluation.test_comparison import Spec, measured
from tests.evaluation.test_statistics import NAN, random_values

NO_BOX = np.full((1, 4), -1.0)


def photo(height: int = 20, width: int = 20) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def picture_of(cell) -> np.ndarray:
    return np.asarray(cell.get_images()[0].get_array())


def clips_nothing(drawing: Figure) -> None:
    """Every text lies inside the page, and no text on another's or on a picture."""
    drawing.draw_without_rendering()
    *cells, bar = drawing.axes
    texts = [text for text in (*drawing.texts, *(cell.title for cell in cells)) if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for box in (*boxes, *(label.get_window_extent() for label in bar.get_yticklabels())):
        assert drawing.bbox.contains(box.x0, box.y0) and drawing.bbox.contains(box.x1, box.y1)
    for i, box in enumerate(boxes):
        others = boxes[:i] + boxes[i + 1 :]
        pictures = [cell.get_window_extent().shrunk(0.98, 0.98) for cell in cells]
        assert not any(other.overlaps(box) for other in others + pictures), texts[i].get_text()


def test_pick_by_direction():
    values = np.array([7.0, 1.0, 5.0, NAN, 3.0, 9.0, 4.0, 2.0, 8.0, 6.0])
    assert gallery.pick(values, "higher") == {"best": [5, 8], "typical": [9, 2], "worst": [1, 7]}
    assert gallery.pick(values, "lower") == {"best": [1, 7], "typical": [6, 2], "worst": [5, 8]}


@pytest.mark.parametrize("n", range(9))
def test_pick_shows_no_image_twice(n):
    picked = gallery.pick(np.arange(float(n)), "lower", count=2)
    shown = [image for images in picked.values() for image in images]
    assert len(set(shown)) == len(shown) == min(n, 3 * min(2, -(-n // 3)))
    assert picked["best"] == list(range(min(n, 2 if n > 3 else 1)))
    assert n < 2 or picked["worst"][0] == n - 1
    assert n < 5 or (n - 1) // 2 in picked["typical"], "the median"


def test_equal_values_stand_in_the_order_of_the_images():
    assert gallery.pick(np.zeros(6), "higher", count=1)["best"] == [0]


def test_gallery_shows_the_picked_images():
    values = np.stack([random_values(1, 2, 7, 1)[0], np.full((2, 7, 1), 50.0)])
    values[0, 1, :, 0] = [3, 7, 1, 5, 2, 6, 4]
    found = measured(values, ["drop"], ["a", "ss-cam:paper,sigma=1"])
    asked = []

    def load(method: str, image: int) -> Explained:
        asked.append((method, image))
        return Explained(photo(), f"class {image}", np.full((2, 2), image / 10, np.float32), NO_BOX)

    drawing = gallery.gallery(found, "drop", Spec("Average Drop", better="lower"), load, count=1)
    assert asked[3:] == [("ss-cam:paper,sigma=1", image) for image in (2, 6, 1)], "of the first key"
    *cells, _ = drawing.axes
    assert [cell.get_title() for cell in cells[3:]] == ["class 2\n1.00 %", "class 6\n4.00 %", "class 1\n7.00 %"]
    for cell, image in zip(cells[3:], (2, 6, 1), strict=True):
        drawn = plots.overlay(photo(), np.full((2, 2), image / 10, np.float32))
        np.testing.assert_array_equal(picture_of(cell), drawn)
    assert [text.get_text() for text in drawing.texts[:5]] == [
        "Average Drop, lower is better", "a", "best", "typical", "worst"
    ]  # fmt: skip


def test_gallery_draws_boxes_where_they_are():
    """The top right quarter of a photograph wider than high, which is drawn smaller than it is."""
    boxes = np.array([[0.0, 0.5, 0.5, 1.0], [-1.0] * 4])
    example = Explained(photo(600, 1200), "", np.eye(3), boxes)
    drawing = gallery.gallery(measured([[[[1.0]]]], ["energy"], ["a"]), "energy", Spec("Energy"), lambda *_: example)
    cell = drawing.axes[0]
    [box] = cell.patches
    height, width = picture_of(cell).shape[:2]
    assert width == pytest.approx(2 * height, abs=1) and width < 1200
    left, bottom, right, top = cell.get_xlim()[0], cell.get_ylim()[0], cell.get_xlim()[1], cell.get_ylim()[1]
    assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx(((left + right) / 2, right))
    assert (box.get_y(), box.get_y() + box.get_height()) == pytest.approx((top, (top + bottom) / 2))


def test_gallery_leaves_out_methods_without_values():
    values = random_values(1, 3, 4, 1)
    values[0, 1] = NAN
    drawing = gallery.gallery(
        measured(values, ["road"], ["a", "b", "c"]),
        "road",
        Spec("ROAD", unit=""),
        lambda *_: Explained(photo(), "", np.eye(3), NO_BOX),
    )
    assert [text.get_text() for text in drawing.texts if len(text.get_text()) == 1] == ["a", "c"]
    assert len(drawing.axes) == 2 * 4 + 1


def test_gallery_clips_nothing():
    methods = ["grad-cam", "ss-cam:paper,sigma=1,samples=35,noise=common,precision=bfloat16"]
    found = measured(random_values(1, 2, 9, 1), ["road"], methods)
    title = "black and gold garden spider, Argiope aurantia"
    drawing = gallery.gallery(
        found, "road", Spec("ROAD", unit=""), lambda *_: Explained(photo(30, 90), title, np.eye(3), NO_BOX)
    )
    clips_nothing(drawing)
    clips_nothing(
        gallery.gallery(
            measured([[[[1.0]]]], ["energy"], ["a"]),
            "energy",
            Spec("Energy in the box of the object on images of one box"),
            lambda *_: Explained(photo(90, 30), title, np.eye(3), NO_BOX),
        )
    )


def test_gallery_refuses():
    found = measured([[[[NAN, 1.0]]]], ["drop", "energy"], ["a"])
    with pytest.raises(ValueError, match="metric 'road' is not in the results; choose from 'drop', 'energy'"):
        gallery.gallery(found, "road", Spec("ROAD"), lambda *_: Explained(photo(), "", np.eye(3), NO_BOX))
    with pytest.raises(ValueError, match="no image has a value of 'drop': choose another metric of 'drop'"):
        gallery.gallery(found, "drop", Spec("Drop"), lambda *_: Explained(photo(), "", np.eye(3), NO_BOX))


def row(title: str, shade: float, height: int = 20, width: int = 30) -> plots.Row:
    return plots.Row(
        photo(height, width), title, {"Grad-CAM": np.full((2, 2), shade), "SS-CAM": np.full((2, 2), shade + 0.1)}
    )


def test_side_by_side_has_the_papers_layout():
    """Left the left rows, right the right ones, each the photograph and then its maps."""
    left = [row("applauding", 0.0), row("blowing bubbles", 0.2)]
    right = [row("cat", 0.4), row("boat", 0.6)]
    *cells, _ = gallery.side_by_side(left, right).axes
    places = [cell.get_position() for cell in cells]
    order = sorted(range(len(cells)), key=lambda i: (-round(places[i].y0, 2), places[i].x0))
    assert [cells[i].get_title() for i in order] == [
        "applauding", "Grad-CAM", "SS-CAM", "cat", "Grad-CAM", "SS-CAM",
        "blowing bubbles", "", "", "boat", "", "",
    ]  # fmt: skip
    shown = [picture_of(cells[i]) for i in order]
    for i, shade in ((1, 0.0), (2, 0.1), (4, 0.4), (5, 0.5), (7, 0.2), (11, 0.7)):
        np.testing.assert_array_equal(shown[i], plots.overlay(photo(20, 30), np.full((2, 2), shade)))
    np.testing.assert_array_equal(shown[0], np.asarray(photo(20, 30)))


def test_side_by_side_clips_nothing():
    left = [row("a person who is rowing a boat on a lake", 0.0, 60, 30), row("b", 0.2, 10, 90)]
    clips_nothing(gallery.side_by_side(left, [row("cat", 0.4), row("a boat or a ship of any size", 0.6)]))


def test_side_by_side_refuses():
    with pytest.raises(ValueError, match="same number of rows, at least one; got 2 and 1: leave out what"):
        gallery.side_by_side([row("a", 0.0), row("b", 0.0)], [row("c", 0.0)])
    with pytest.raises(ValueError, match="at least one; got 0 and 0"):
        gallery.side_by_side([], [])
    other = row("c", 0.0)._replace(maps={"CAM": np.eye(2)})
    with pytest.raises(ValueError, match=r"every row needs the columns \('Grad-CAM', 'SS-CAM'\), got \('CAM',\): give"):
        gallery.side_by_side([row("a", 0.0)], [other])
