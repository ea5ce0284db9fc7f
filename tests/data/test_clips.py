"""Animations and videos as frames: which are read, when they are shown, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from sscam_jax import data

COLOURS = ("red", "lime", "blue", "white", "black")


def _frames(size: tuple[int, int] = (32, 16)) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in COLOURS]


def _colours(clip: data.Clip) -> list[tuple[int, ...]]:
    return [image.getpixel((5, 5)) for image in clip.images]


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_frames_are_evenly_spaced_with_their_times(ending, tmp_path):
    file, frames = tmp_path / f"a.{ending}", _frames()
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=[100, 200, 300, 400, 500], lossless=True)
    clip = data.clip(file, "a", 3)
    assert [frame.number for frame in clip.frames] == [0, 1, 3] and {frame.total for frame in clip.frames} == {5}
    np.testing.assert_allclose([frame.time for frame in clip.frames], [0, 0.1, 0.6])
    assert _colours(clip) == [(255, 0, 0), (0, 255, 0), (255, 255, 255)]
    assert len(data.clip(str(file), "a", 9).images) == 5
    first = data.clip(file, "a", 1)
    assert _colours(first) == [(255, 0, 0)] and first.frames == [data.Frame(0, 5, 0.0)]
    with Image.open(file) as opened:
        assert _colours(data.clip(opened, "a", 3)) == _colours(clip)


def test_pages_are_no_animation(tmp_path):
    """A TIFF of several pages, or the previews of a camera: the first image, and that there are others."""
    frames = _frames()
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    clip = data.clip(tmp_path / "a.tif", "a", 16)
    assert _colours(clip) == [(255, 0, 0)] and clip.frames == [data.Frame(0, 5, 0.0)]


def test_a_photograph_is_one_frame(tmp_path):
    photo = Image.new("RGB", (8, 4), "red")
    exif = Image.Exif()
    exif[274] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    for given, size in [(tmp_path / "a.jpg", (4, 8)), (photo, (8, 4)), (np.asarray(photo), (8, 4))]:
        clip = data.clip(given, "a", 16)
        assert clip.frames == [None] and [image.size for image in clip.images] == [size]


def test_what_cannot_be_read_is_named(tmp_path):
    frames = _frames()
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:60])
    with pytest.raises(ValueError, match=r"cut\.gif is (truncated or damaged|not an image)"):
        data.clip(tmp_path / "cut.gif", "cut.gif", 16)
    with pytest.raises(FileNotFoundError, match=r"none\.gif: No such file"):
        data.clip(tmp_path / "none.gif", "none.gif", 16)


def _film(av, path, frames: list[Image.Image]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = (*frames[0].size, "yuv420p")
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def test_videos(tmp_path):
    av = pytest.importorskip("av", reason="the package av reads videos")
    _film(av, tmp_path / "a.mp4", _frames())
    clip = data.clip(tmp_path / "a.mp4", "a.mp4", 3)
    assert [frame.number for frame in clip.frames] == [0, 1, 3] and {frame.total for frame in clip.frames} == {5}
    np.testing.assert_allclose([frame.time for frame in clip.frames], [0, 0.1, 0.3], atol=0.01)
    # Videos store colours with loss.
    np.testing.assert_allclose(_colours(clip), [(255, 0, 0), (0, 255, 0), (255, 255, 255)], atol=20)
    with pytest.raises(FileNotFoundError, match=r"none\.mp4: No such file"):
        data.clip(tmp_path / "none.mp4", "none.mp4", 3)
    (tmp_path / "bad.mp4").write_bytes(b"no film" * 50)
    with pytest.raises(ValueError, match=r"bad\.mp4 is not a video that can be read, or damaged: Invalid data"):
        data.clip(tmp_path / "bad.mp4", "bad.mp4", 3)


@pytest.mark.parametrize(("limit", "scale"), [(20_000, 2), (5_000, 4), (1_500, 8)])
def test_a_large_jpeg_is_decoded_at_a_smaller_size(limit, scale, tmp_path, monkeypatch):
    """Upright, and with its edges where they are in the whole picture."""
    whole = Image.new("RGB", (300, 203), "red")
    whole.paste("blue", (0, 0, 150, 203))
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    whole.save(tmp_path / "large.jpg", exif=exif, quality=95)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    [image], _, stored = data.clip(tmp_path / "large.jpg", "large", 1)
    assert stored == (300, 203)
    assert image.size == (-(-203 // scale), -(-300 // scale))
    top, bottom = (image.getpixel((image.width // 2, int(share * image.height))) for share in (0.45, 0.55))
    assert top[2] > 200 > 50 > top[0] and bottom[0] > 200 > 50 > bottom[2]


@pytest.mark.parametrize(("name", "options"), [("a.jpg", dict(progressive=True)), ("a.png", {}), ("tiny.jpg", {})])
def test_other_large_images_are_refused(name, options, tmp_path, monkeypatch):
    Image.new("RGB", (300, 200)).save(tmp_path / name, **options)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500 if name == "tiny.jpg" else 20_000)
    with pytest.raises(ValueError, match="is refused as a decompression bomb"):
        data.clip(tmp_path / name, "a", 1)
