"""Overlays and figures as arrays; how they look is for eyes."""

import pathlib

import jax.numpy as jnp
import matplotlib
import matplotlib.style
import numpy as np
import pytest
from PIL import Image

from sscam_jax import metrics, plots


def _photo(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def _saturation(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).convert("HSV"), int)[..., 1]


def _bump(height: int = 9, width: int = 12) -> np.ndarray:
    """A map with one peak and a rim of zeros."""
    y, x = np.mgrid[:height, :width]
    bump = np.exp(-((y - 3) ** 2 + (x - 8) ** 2) / 6).astype(np.float32)
    bump = (bump - bump.min()) / np.ptp(bump)
    return bump / bump.max()


@pytest.mark.parametrize("colours", ["plasma", "viridis", "jet"])
@pytest.mark.parametrize("background", ["grey", "colour"])
def test_the_strongest_place_is_the_strongest_colour_and_the_bar_shows_it(colours, background):
    height, width = 90, 120
    photo = Image.fromarray(np.random.default_rng(0).integers(60, 200, (height, width, 1), np.uint8).repeat(3, 2))
    drawn = plots.overlay(photo, _bump(), colours=colours, background=background)
    enlarged = np.asarray(Image.fromarray(_bump()).resize((width, height), Image.Resampling.BILINEAR))
    peak = np.unravel_index(enlarged.argmax(), enlarged.shape)
    assert _saturation(drawn)[peak] >= _saturation(drawn).max() - 3
    bar = 255 * plots.drawn_colours(colours=colours)(np.linspace(0, 1, 256))[:, :3]
    assert np.abs(bar - drawn[peak]).max(1).min() <= 1.5
    # The bar is the overlay of a ramp over middle grey.
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None].repeat(2, 0)
    shown = plots.overlay(Image.new("RGB", (256, 2), (128, 128, 128)), ramp, colours=colours)
    np.testing.assert_allclose(shown[0], bar, atol=1.5)


def test_where_the_map_is_zero_the_photograph_is_as_it_was():
    photo = _photo(48, 64)
    drawn = plots.overlay(photo, jnp.zeros((7, 7)), contours=(0.5,))
    assert drawn.shape == (48, 64, 3) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, np.asarray(photo.convert("L").convert("RGB")))
    np.testing.assert_array_equal(plots.overlay(photo, jnp.zeros((7, 7)), background="colour"), np.asarray(photo))


def test_overlay_mixes_as_its_formula_says():
    photo = _photo(10, 10)
    drawn = plots.overlay(photo, np.full((2, 2), 0.5, np.float32), opacity=0.6, background="colour", colours="viridis")
    half = 255 * np.array(matplotlib.colormaps["viridis"](0.5)[:3])
    np.testing.assert_allclose(drawn, 0.7 * np.asarray(photo, np.float64) + 0.3 * half, atol=1.5)


def test_overlay_puts_the_map_where_it_is():
    """The top right corner of the map is the top right corner of a photograph of another shape."""
    corner = np.zeros((4, 4), np.float32)
    corner[0, 3] = 1
    drawn = plots.overlay(Image.new("RGB", (200, 100)), corner).astype(int).sum(-1)
    assert np.unravel_index(drawn.argmax(), drawn.shape)[0] < 25
    assert np.unravel_index(drawn.argmax(), drawn.shape)[1] > 150
    assert drawn[:50, 150:].mean() > 3 * drawn[50:, :150].mean()


@pytest.mark.parametrize(
    "given",
    [
        lambda pixels: pixels,
        lambda pixels: jnp.asarray(pixels),
        lambda pixels: pixels.astype(np.float32) / 255,
        lambda pixels: Image.fromarray(pixels),
    ],
)
def test_photographs_are_images_or_arrays(given):
    pixels = np.asarray(_photo(20, 30))
    expected = plots.overlay(Image.fromarray(pixels), _bump())
    np.testing.assert_array_equal(plots.overlay(given(pixels), _bump()), expected)
    grey = pixels[..., 0]
    np.testing.assert_array_equal(plots.overlay(given(grey), _bump()), plots.overlay(Image.fromarray(grey), _bump()))


def test_one_photograph_or_many():
    photo, other = np.asarray(_photo(20, 30)), np.asarray(_photo(20, 30))[::-1]
    maps = np.stack([_bump(), _bump()[:, ::-1]])
    one = [plots.overlay(photo, each) for each in maps]
    np.testing.assert_array_equal(plots.overlay(photo, maps), one)
    np.testing.assert_array_equal(plots.overlay(photo, maps[:1]), one[:1])
    expected = [one[0], plots.overlay(other, maps[1])]
    np.testing.assert_array_equal(plots.overlay(np.stack([photo, other]), maps), expected)
    np.testing.assert_array_equal(plots.overlay([Image.fromarray(photo), other], maps), expected)


def test_contours_hold_their_share_of_the_energy():
    """A square of ones in a field of a tenth: half of the energy lies in the square."""
    values = np.full((40, 40), 0.1, np.float32)
    values[10:20, 10:20] = 1
    plain = plots.overlay(Image.new("RGB", (40, 40)), values)
    lined = plots.overlay(Image.new("RGB", (40, 40)), values, contours=(0.3,))
    changed = (plain != lined).any(-1)
    ring = np.zeros((40, 40), bool)
    ring[9:21, 9:21] = True
    ring[11:19, 11:19] = False
    np.testing.assert_array_equal(changed, ring)
    assert (lined[10, 10] == 255).all() and (lined[9, 10] == 0).all()  # white inside a dark edge


def test_boxes_are_drawn_where_they_are():
    boxes = np.array([[0.25, 0.5, 0.75, 1.0], [-1, -1, -1, -1]])
    drawn = plots.overlay(Image.new("RGB", (40, 20)), np.zeros((2, 2), np.float32), boxes=boxes)
    line = (drawn == (0, 229, 255)).all(-1)
    rows, columns = np.nonzero(line)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 14, 20, 39)
    assert not line[6:14, 21:39].any()


@pytest.mark.parametrize("values", [[[0.0, 1.5]], [[-0.1, 1.0]], [[np.nan, 0.5]]])
def test_overlay_refuses_what_is_no_map(values):
    with pytest.raises(ValueError, match=r"a map to be drawn is in \[0, 1\], this one in"):
        plots.overlay(_photo(4, 4), np.float32(values))


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(opacity=1.1), r"opacity is 1\.1, expected 0 to 1"),
        (dict(colours="rainbows"), "colours 'rainbows' is not a colour map of matplotlib"),
        (dict(contours=(1.5,)), r"contours has 1\.5, expected shares"),
    ],
)
def test_overlay_refuses_a_style(options, message):
    with pytest.raises(ValueError, match=message):
        plots.overlay(_photo(4, 4), np.zeros((2, 2), np.float32), **options)


@pytest.mark.parametrize(
    "photo,maps,message",
    [
        (np.zeros((8, 8, 4), np.uint8), (2, 2), r"a photograph is \[h, w, 3\] or \[h, w\], this array is \[8, 8, 4\]"),
        (np.full((8, 8, 3), -2.0), (2, 2), r"in \[-2, -2\]; for a network's input give sscam_jax\.data\.photograph"),
        (np.zeros((8, 8, 3), np.int32), (2, 2), "this array is int32"),
        ([_photo(4, 4), _photo(4, 4)], (2, 2), "one map needs one photograph, got 2"),
        ([_photo(4, 4), _photo(4, 5)], (2, 2, 2), "2 maps need one photograph, or 2 of one size; got 2 of 4×4, 5×4"),
        (np.zeros((3, 8, 8, 3), np.uint8), (2, 2, 2), "got 3 of 8×8"),
    ],
)
def test_overlay_refuses_what_is_no_photograph(photo, maps, message):
    with pytest.raises(ValueError, match=message):
        plots.overlay(photo, np.zeros(maps, np.float32))


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


def test_figures_wrap_and_have_captions():
    maps = {f"method {i}": np.eye(7, dtype=np.float32) for i in range(7)}
    row = plots.Row(_photo(40, 40), "tench\n91.3 %", maps, {"method 6": "256 of 5,120 passes"})
    *cells, _ = plots.figure([row, row]).axes
    assert len(cells) == 16
    tops = [round(cell.get_position().y1, 3) for cell in cells[:8]]
    assert len(set(tops[:5])) == 1 and len(set(tops[5:])) == 1 and tops[5] < tops[0]
    # A second row has its own titles where rows take several lines.
    assert [cell.get_title() for cell in cells[8:]] == ["tench\n91.3 %", *maps]
    assert cells[7].get_xlabel() == "256 of 5,120 passes" and cells[6].get_xlabel() == ""
    *cells, _ = plots.figure([row], columns=8).axes
    assert len({round(cell.get_position().y1, 2) for cell in cells}) == 1


def test_figure_refuses():
    with pytest.raises(ValueError, match="columns is 0, expected at least 1"):
        plots.figure(_rows((8, 8)), columns=0)
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
    with pytest.raises(ValueError, match=r"overlay\.doc' does not end like a picture; choose from '\.png', '\.jpg', "):
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


def test_compare_is_a_figure_of_one_row():
    maps = {"layer3": _bump(), "layer4": np.eye(7, dtype=np.float32)}
    photo, bar = np.asarray(_photo(30, 40)), 1
    drawing = plots.compare(photo, maps, title="tench", columns=2, cells=True)
    assert [axes.get_title() for axes in drawing.axes[:-bar]] == ["tench", "layer3", "layer4"]
    shown = [axes.get_images()[0].get_array() for axes in drawing.axes[:-bar]]
    np.testing.assert_array_equal(shown[2], plots.overlay(photo, maps["layer4"], cells=True))


def test_cells_are_the_maps_own():
    """Four values and no more; without cells there are values between them."""
    values = np.array([[0.0, 0.25], [0.5, 1.0]], np.float32)
    black = Image.new("RGB", (60, 40))
    drawn = plots.overlay(black, values, cells=True)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 4
    assert (drawn[:20, 30:] == drawn[0, -1]).all() and (drawn[20:, 30:] == drawn[-1, -1]).all()
    assert len(np.unique(plots.overlay(black, values).reshape(-1, 3), axis=0)) > 20


def test_a_figure_follows_the_style_of_a_dark_page():
    with matplotlib.style.context("dark_background"):
        drawing = plots.compare(_photo(8, 8), {"Grad-CAM": np.eye(2, dtype=np.float32)}, title="tench")
    assert drawing.get_facecolor()[:3] == (0, 0, 0)
    assert {axes.title.get_color() for axes in drawing.axes[:2]} == {"white"}
    assert drawing.axes[1].xaxis.label.get_color() == "white"


def test_curves_are_what_the_metrics_found():
    shares = np.linspace(0, 1, 5, dtype=np.float32)
    values = np.random.default_rng(0).uniform(size=(2, 3, 5)).astype(np.float32)
    found = metrics.Curve(values.mean(-1), values, shares)
    drawing = plots.curve({"insertion": found, "deletion": found}, ["Grad-CAM", "SS-CAM"], image=1)
    left, right = drawing.axes
    assert [axes.get_title() for axes in (left, right)] == ["insertion", "deletion"]
    for i, line in enumerate(left.lines):
        np.testing.assert_allclose(line.get_xdata(), 100 * shares)
        np.testing.assert_allclose(line.get_ydata(), values[i, 1])
    texts = [text.get_text() for text in right.get_legend().get_texts()]
    assert texts == [f"Grad-CAM: {values[0, 1].mean():.3f}", f"SS-CAM: {values[1, 1].mean():.3f}"]
    with pytest.raises(ValueError, match="'insertion' has 2 methods and 3 images, got 1 names of methods and image 0"):
        plots.curve({"insertion": found}, ["Grad-CAM"])
    with pytest.raises(ValueError, match="and image 3"):
        plots.curve({"insertion": found}, ["a", "b"], image=3)
    with pytest.raises(ValueError, match="no curves: expected at least one"):
        plots.curve({}, [])


def _film_rows(count: int) -> list[plots.Row]:
    """A peak that walks from left to right."""
    maps = [np.eye(count, dtype=np.float32)[[i] * count] for i in range(count)]
    grey = _photo(60, 80).convert("L").convert("RGB")
    return [plots.Row(grey, f"tench\n{i} s", {"Grad-CAM": each}) for i, each in enumerate(maps)]


def _peak(picture: Image.Image) -> float:
    """Where the strongest colour is, across the middle of the picture of the map, from 0 to 1."""
    pixels = np.asarray(picture.convert("RGB"), int)
    height, width = pixels.shape[:2]
    # The photograph is left of the map and grey, the colour bar right of it.
    row = np.ptp(pixels[height // 2, round(0.45 * width) : round(0.88 * width)], axis=-1)
    return float(np.argmax(row) / len(row))


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_films_show_one_row_after_another(ending, tmp_path):
    file = tmp_path / f"film.{ending}"
    plots.save_film(_film_rows(4), file, seconds=[0.1, 0.2, 0.3, 0.4])
    with Image.open(file) as film:
        assert film.n_frames == 4
        peaks, times = [], []
        for i in range(4):
            film.seek(i)
            film.load()
            peaks.append(_peak(film))
            times.append(film.info["duration"])
    assert times == [100, 200, 300, 400] and peaks == sorted(set(peaks))
    assert [path.name for path in tmp_path.iterdir()] == [f"film.{ending}"]


def test_a_gif_keeps_the_strongest_colour(tmp_path):
    """256 colours: the peak is a few pixels, and must not become paler."""
    plots.save_film(_film_rows(2), tmp_path / "film.gif", seconds=[1.0, 1.0])
    with Image.open(tmp_path / "film.gif") as film:
        gif = np.asarray(film.convert("RGB"), int)
    assert np.ptp(gif, axis=-1).max() > 190


def test_films_as_mp4(tmp_path):
    av = pytest.importorskip("av", reason="the package av writes MP4")
    plots.save_film(_film_rows(3), tmp_path / "film.mp4", seconds=[0.1, 0.2, 0.3])
    with av.open(str(tmp_path / "film.mp4")) as container:
        frames = list(container.decode(video=0))
    # The last frame comes twice, so that it is shown for its time.
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.3, 0.6], atol=0.002)
    peaks = [_peak(frame.to_image()) for frame in frames[:3]]
    assert peaks == sorted(set(peaks))


def test_films_refuse(tmp_path):
    with pytest.raises(
        ValueError, match=r"film\.png' does not end like a film; choose from '\.gif', '\.webp', '\.mp4'"
    ):
        plots.save_film(_film_rows(2), tmp_path / "film.png", seconds=[1.0, 1.0])
    with pytest.raises(ValueError, match="needs frames and a time for each, got 2 frames and 1 times"):
        plots.save_film(_film_rows(2), tmp_path / "film.gif", seconds=[1.0])
    assert list(tmp_path.iterdir()) == []
