"""Overlays and figures as arrays; how they look is for eyes."""

import pathlib

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from PIL import Image

from sscam_jax import plots


def _photo(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_overlay_is_colour_over_grey_at_the_photographs_resolution():
    photo = _photo(48, 64)
    drawn = plots.overlay(photo, jnp.zeros((7, 7)), alpha=0.25)
    assert drawn.shape == (48, 64, 3) and drawn.dtype == np.uint8
    grey = np.asarray(photo.convert("L"), np.float64)[..., None]
    lowest = 255 * np.array(matplotlib.colormaps["inferno"](0.0)[:3])
    np.testing.assert_allclose(drawn, 0.75 * grey + 0.25 * lowest, atol=1)


def test_overlay_puts_the_map_where_it_is():
    """The top right corner of the map is the top right corner of a photograph of another shape."""
    corner = np.zeros((4, 4), np.float32)
    corner[0, 3] = 1
    drawn = plots.overlay(Image.new("RGB", (200, 100)), corner, alpha=1.0).astype(int).sum(-1)
    assert np.unravel_index(drawn.argmax(), drawn.shape)[0] < 25
    assert np.unravel_index(drawn.argmax(), drawn.shape)[1] > 150
    assert drawn[:50, 150:].mean() > 3 * drawn[50:, :150].mean()


def test_overlay_grows_lighter_with_the_map():
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(2, 0)
    drawn = plots.overlay(Image.new("RGB", (256, 2), "grey"), ramp)
    lightness = np.asarray(Image.fromarray(drawn).convert("L"), int)[0]
    assert (np.diff(lightness) >= -1).all() and lightness[-1] - lightness[0] > 100


@pytest.mark.parametrize("values", [[[0.0, 1.5]], [[-0.1, 1.0]], [[np.nan, 0.5]]])
def test_overlay_refuses_what_is_no_map(values):
    with pytest.raises(ValueError, match=r"a map to be drawn is in \[0, 1\], this one in"):
        plots.overlay(_photo(4, 4), np.float32(values))


def test_overlay_refuses_alpha():
    with pytest.raises(ValueError, match=r"alpha is 1\.1, expected 0 to 1"):
        plots.overlay(_photo(4, 4), np.zeros((2, 2), np.float32), alpha=1.1)


def _rows(*shapes: tuple[int, int]) -> list[plots.Row]:
    half = np.linspace(0, 1, 49, dtype=np.float32).reshape(7, 7)
    title = "black and gold garden spider and its kin\n12.3 %"
    return [plots.Row(_photo(*shape), title, {"Grad-CAM": half, "SS-CAM": half.T}) for shape in shapes]


def test_figure_has_the_papers_layout():
    drawing = plots.figure(_rows((60, 80), (400, 100), (30, 300)))
    *cells, bar = drawing.axes
    assert len(cells) == 9
    titles = [cell.get_title() for cell in cells]
    assert titles[0].replace("\n", " ") == "black and gold garden spider and its kin 12.3 %"
    assert titles[1:3] == ["Grad-CAM", "SS-CAM"]
    assert titles[4:6] == ["", ""]
    assert bar.get_ylim() == (0, 1)


def test_figure_clips_nothing_and_keeps_proportions():
    """Every title and tick lies inside the page, no title runs into another picture, no picture is stretched."""
    drawing = plots.figure(_rows((60, 80), (400, 100), (30, 300)))
    drawing.draw_without_rendering()
    page = drawing.bbox
    *cells, bar = drawing.axes
    boxes = [cell.get_window_extent() for cell in cells]
    for cell in cells:
        text = cell.title.get_window_extent()
        assert not cell.get_title() or page.contains(text.x0, text.y0) and page.contains(text.x1, text.y1)
        assert not cell.get_title() or not any(box.shrunk(0.99, 0.99).overlaps(text) for box in boxes)
        height, width = cell.get_images()[0].get_array().shape[:2]
        data = cell.transData.transform([(0, 0), (width, height)])
        drawn_width, drawn_height = np.abs(data[1] - data[0])
        assert drawn_height / drawn_width == pytest.approx(height / width, rel=0.01)
    for label in bar.get_yticklabels():
        text = label.get_window_extent()
        assert page.contains(text.x0, text.y0) and page.contains(text.x1, text.y1)
    assert bar.get_window_extent().height <= max(box.y1 for box in boxes) - min(box.y0 for box in boxes) + 1


def test_figure_refuses():
    with pytest.raises(ValueError, match="at least one row"):
        plots.figure([])
    first, second = _rows((8, 8), (8, 8))
    second = second._replace(maps={"SS-CAM": second.maps["SS-CAM"]})
    with pytest.raises(ValueError, match=r"every row needs the columns \('Grad-CAM', 'SS-CAM'\), got \('SS-CAM',\)"):
        plots.figure([first, second])


@pytest.mark.parametrize("name", ["figure.png", "figure.pdf", "figure.svg", "figure.JPG"])
def test_figures_are_saved(name, tmp_path):
    plots.save(plots.figure(_rows((8, 8))), tmp_path / name)
    start = (tmp_path / name).read_bytes()[:8]
    assert {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "jpg": b"\xff\xd8"}[name[-3:].lower()] in start
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_saved_overlay_reads_back(tmp_path):
    drawn = plots.overlay(_photo(20, 30), np.eye(5, dtype=np.float32))
    plots.save(drawn, tmp_path / "overlay.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "overlay.png")), drawn)


def test_save_refuses_an_ending(tmp_path):
    drawn = plots.overlay(_photo(4, 4), np.eye(2, dtype=np.float32))
    with pytest.raises(ValueError, match=r"overlay\.doc' does not end like a picture; choose from '\.png', '\.jpg'"):
        plots.save(drawn, tmp_path / "overlay.doc")
    assert list(tmp_path.iterdir()) == []


def test_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    file = tmp_path / "overlay.png"
    file.write_bytes(b"before")

    def full(self: Image.Image, path: pathlib.Path, kind: str) -> None:
        pathlib.Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        plots.save(np.zeros((2, 2, 3), np.uint8), file)
    assert file.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [file]
