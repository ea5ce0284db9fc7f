"""Photographs to arrays: every mode of image, damaged files, torchvision's rounding, the names of classes."""

import io
import pathlib
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sscam_jax import data
from sscam_jax.types import IMAGENET_MEAN as MEAN
from sscam_jax.types import IMAGENET_STD as STD


def _noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def _pixels(batch: object) -> np.ndarray:
    """8-bit pixels from normalised images."""
    return np.round((np.asarray(batch) * np.array(STD, np.float32) + np.array(MEAN, np.float32)) * 255)


# Modes


_GREY = Image.new("RGB", (9, 9), (128, 128, 128))
_OPAQUE = {mode: _GREY.convert(mode) for mode in ("L", "RGB", "CMYK", "YCbCr", "HSV")} | {
    "1": Image.new("1", (9, 9), 1),
    "P": _GREY.quantize(2),
    "I;16": Image.fromarray(np.full((9, 9), 128 * 257, np.uint16)),
    "I": Image.fromarray(np.full((9, 9), 128 * 257, np.int32)),
    "wide I": Image.fromarray(np.tile(np.int32([-1_000_000, 0, 1_000_000]), (9, 3))),
    "F": Image.fromarray(np.tile(np.float32([2, 2.5, 3]), (9, 3))),
}


@pytest.mark.parametrize("mode", _OPAQUE)
def test_grey_of_every_opaque_mode_is_grey(mode):
    """Mid-grey stays mid-grey, whatever the mode; where there is no agreed white, the middle of the range is."""
    image = _OPAQUE[mode]
    assert image.mode == mode.split()[-1]
    pixels = _pixels(data.preprocess(image, size=9))[0]
    np.testing.assert_allclose(pixels[4, 4], 255 if mode == "1" else 128, atol=1)


def test_sixteen_bits_keep_their_order():
    """Pillow's own conversion would clip everything above 255."""
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    opened = _pixels(data.preprocess(Image.fromarray(ramp), size=8))[0, ..., 0]
    np.testing.assert_allclose(opened, ramp / 257, atol=0.51)


def test_lab_becomes_rgb(tmp_path):
    Image.merge("LAB", [Image.new("L", (4, 4), value) for value in (137, 128, 128)]).save(tmp_path / "lab.tif")
    red, green, blue = data.open_image(tmp_path / "lab.tif").getpixel((0, 0))
    assert max(red, green, blue) - min(red, green, blue) <= 2
    assert 100 < green < 156


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_becomes_white(mode, tmp_path):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    if mode == "P":
        image = Image.new("P", (8, 8), 1)
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.paste(0, (0, 0, 4, 8))
        image.info["transparency"] = 1
        image.save(tmp_path / "image.png")
        image = Image.open(tmp_path / "image.png")
    else:
        image = image.convert(mode)
    pixels = _pixels(data.preprocess(image, size=8))[0]
    assert pixels[4, 1].tolist() == [0, 0, 0]
    assert pixels[4, 6].tolist() == [255, 255, 255]


def test_exif_orientation_is_applied(tmp_path):
    """Orientation 6: the stored picture is to be turned 90° clockwise."""
    stored = np.zeros((4, 8, 3), np.uint8)
    stored[:, :2] = 255  # the left edge becomes the top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    opened = np.asarray(data.open_image(tmp_path / "turned.png"))
    assert opened.shape == (8, 4, 3)
    assert (opened[:2] == 255).all() and (opened[2:] == 0).all()


def test_first_frame_of_several(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert data.open_image(tmp_path / "two.gif").getpixel((0, 0)) == (255, 0, 0)


# Damage


def test_not_an_image(tmp_path):
    (tmp_path / "notes.jpg").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.jpg is not an image that Pillow can read"):
        data.open_image(tmp_path / "notes.jpg")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"])
def test_damaged_files_are_one_error_with_their_name(kind, tmp_path):
    """Cut anywhere, or with bytes overwritten: an image or a ValueError, nothing else, not even a warning."""
    buffer = io.BytesIO()
    Image.fromarray(_noise(24, 30)).save(buffer, kind)
    whole, random = buffer.getvalue(), np.random.default_rng(1)
    file, refused = tmp_path / "image.bin", 0
    for cut in range(1, len(whole), max(1, len(whole) // 25)):
        flipped = bytearray(whole)
        for position in random.integers(0, len(whole), 5):
            flipped[position] = random.integers(256)
        for damaged in (whole[:cut], bytes(flipped)):
            file.write_bytes(damaged)
            try:
                data.open_image(file)
            except ValueError as error:
                refused += 1
                assert "image.bin" in str(error)
    assert refused > 10


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: No such file"):
        data.open_image(tmp_path / "none.jpg")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        data.open_image(tmp_path)


@pytest.mark.parametrize("times", [1.5, 3])  # Pillow warns up to twice its limit and raises beyond
def test_decompression_bomb(times, tmp_path, monkeypatch):
    Image.new("1", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(10_000 / times))
    with pytest.raises(ValueError, match=r"bomb\.png is refused as a decompression bomb"):
        data.open_image(tmp_path / "bomb.png")


# Resizing


@pytest.mark.parametrize(
    ("height", "width", "size", "resized", "corner"),
    [
        # Worked out by hand from torchvision's definitions of Resize(int) and CenterCrop.
        (480, 640, 224, (256, 341), (16, 58)),  # 256·640/480 = 341.3; (341−224)/2 = 58.5, to even 58
        (640, 480, 224, (341, 256), (58, 16)),
        (333, 500, 224, (256, 384), (16, 80)),
        (500, 375, 224, (341, 256), (58, 16)),
        (100, 100, 224, (256, 256), (16, 16)),
        (300, 517, 224, (256, 441), (16, 108)),  # (441−224)/2 = 108.5, to even 108
        (60, 90, 32, (37, 55), (2, 12)),  # round(32·256/224) = 37; (37−32)/2 = 2.5 to 2, 11.5 to 12
    ],
)
def test_crop_is_torchvisions(height, width, size, resized, corner):
    image = Image.fromarray(_noise(height, width))
    top, left = corner
    expected = np.asarray(image.resize(resized[::-1], Image.Resampling.BILINEAR))[top : top + size, left : left + size]
    np.testing.assert_array_equal(_pixels(data.preprocess(image, size=size, fit="crop"))[0], expected)


def test_squash_shows_the_whole_image():
    """Every source pixel weighs in (antialiasing): the mean survives a fivefold reduction of noise."""
    noise = _noise(1120, 560)
    pixels = _pixels(data.preprocess(Image.fromarray(noise)))[0]
    assert pixels.shape == (224, 224, 3)
    assert abs(pixels.mean() - noise.mean()) < 0.5
    assert pixels.std() < 0.5 * noise.std()
    halves = Image.fromarray(np.repeat(np.uint8([[[0] * 3, [255] * 3]]), 100, axis=0).repeat(300, axis=1))
    squashed = _pixels(data.preprocess(halves))[0, ..., 0]
    assert (squashed[:, :110] == 0).all() and (squashed[:, 114:] == 255).all()


def test_normalisation_and_batches(tmp_path):
    Image.new("RGB", (5, 5), (255, 0, 51)).save(tmp_path / "a.png")
    batch = data.preprocess([tmp_path / "a.png", str(tmp_path / "a.png"), Image.new("L", (7, 3), 255)], size=4)
    assert batch.shape == (3, 4, 4, 3) and batch.dtype == np.float32
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225]
    np.testing.assert_allclose(batch[0, 0, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(batch[0], batch[1])


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "no images: expected a path, a PIL image, an array or a sequence"),
        (Image.new("RGB", (4, 4)), dict(size=0), "size is 0, expected at least 1"),
        (Image.new("RGB", (0, 4)), {}, "image 0 is empty: 0×4 pixels"),
        (Image.new("RGB", (1, 4000)), dict(fit="crop"), r"1×4000 pixels is too narrow for fit 'crop'.*'squash'"),
    ],
)
def test_preprocess_refuses(images, options, message):
    with pytest.raises(ValueError, match=message):
        data.preprocess(images, **options)


def test_arrays_are_images_too():
    """Alone, in a list and as a batch, an array of pixels gives what its PIL image gives."""
    colour, grey = _noise(20, 30), _noise(20, 30, 1)
    expected = data.preprocess(Image.fromarray(colour), size=8)
    for images in (colour, [colour], colour[None], jnp.asarray(colour), (jnp.asarray(colour),)):
        np.testing.assert_array_equal(data.preprocess(images, size=8), expected)
    opaque = np.concatenate([colour, np.full((20, 30, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(data.preprocess(opaque, size=8), expected)
    expected = data.preprocess(Image.fromarray(grey[..., 0]), size=8)
    for images in (grey, grey[..., 0]):
        np.testing.assert_array_equal(data.preprocess(images, size=8), expected)


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((8, 8, 3), np.float32), r"shape \(8, 8, 3\) and type float32"),
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\) and type uint8"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), r"shape \(2, 8, 8, 3\) and type uint8"),
    ],
)
def test_other_arrays_are_refused_with_the_remedy(array, what):
    with pytest.raises(ValueError, match=f"image 0 is an array of {what}, expected uint8 .*255.*transpose"):
        data.preprocess(array)


def test_any_mean_and_std():
    image = Image.new("RGB", (5, 5), (255, 0, 51))
    constants = dict(mean=(0.5, 0.25, 0.2), std=(0.5, 0.25, 1.0))
    batch = data.preprocess(image, size=4, **constants)
    np.testing.assert_allclose(batch[0, 0, 0], [1, -1, 0], atol=1e-6)
    assert data.photograph(np.asarray(batch[0]), **constants).getpixel((0, 0)) == (255, 0, 51)
    for mean, std in (((0.5, 0.5), (1.0, 1.0)), ((0.0,) * 3, (1.0, 0.0, 1.0))):
        with pytest.raises(ValueError, match="expected three values each.* positive std"):
            data.preprocess(image, mean=mean, std=std)


def test_floats_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="image 0 .*not finite"):
        data.preprocess(Image.fromarray(np.full((4, 4), np.nan, np.float32)))


def test_warnings_of_pillow_do_not_leak(tmp_path):
    """A palette image with transparency in bytes makes Pillow warn; the user did nothing wrong."""
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "p.png", transparency=b"\xff\x80")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.open_image(tmp_path / "p.png").getpixel((0, 0)) == (255, 0, 0)


# Classes


def test_class_names():
    assert [data.class_name(i) for i in (0, 207, 281, 999)] == ["tench", "golden retriever", "tabby", "toilet tissue"]
    assert data.class_index("Carassius auratus") == data.class_index("goldfish") == 1
    assert data.class_index("golden_retriever") == data.class_index(" GOLDEN  retriever ") == data.class_index(207)
    unambiguous = [i for i in range(1000) if i not in (134, 517, 638, 639)]
    # Some classes' first name is another's second: only names that stand for one class must lead back.
    back = [i for i in unambiguous if _index_or_none(data.class_name(i)) == i]
    assert len(back) > 980


def _index_or_none(name: str) -> int | None:
    try:
        return data.class_index(name)
    except ValueError:
        return None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("golden retreiver", "not one of ImageNet's; did you mean 'golden retriever'"),
        ("retriever", "did you mean .*'golden retriever'"),
        ("qqqqqqqq", "'qqqqqqqq' is not one of ImageNet's; give one of its 1000 names or an index, 0 to 999"),
        ("", "class '' is not one of ImageNet's"),
        ("crane", r"'crane' stands for 2 of ImageNet's classes; choose from 134 \(crane\), 517 \(crane\)"),
        ("maillot", r"choose from 638 \(maillot\), 639 \(maillot, tank suit\)"),
        ("1000", "class 1000 is not one of ImageNet's; choose from 0 to 999"),
        ("-1", "class -1 is not one of ImageNet's"),
        (1000, "class 1000 is not one of ImageNet's"),
    ],
)
def test_class_misses(name, message):
    with pytest.raises(ValueError, match=message):
        data.class_index(name)


def test_class_order_is_the_challenges(assets):
    lines = (assets / "ILSVRC2012" / "synset_words.txt").read_text().splitlines()
    ours = (pathlib.Path(data.__file__).parent / "imagenet_classes.txt").read_text().splitlines()
    assert [line.replace("\t", " ") for line in ours if line[0] != "#"] == lines


# Files


def test_find_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.png", "deep/c.webp", "deep/d.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*paths: str) -> list[str]:
        return [path.as_posix() for path in data.find_images(paths)]

    assert found(".") == ["a.PNG", "b.jpg"]
    assert found("b.jpg", ".") == ["b.jpg", "a.PNG"]
    assert found("*.jpg", "**/*.webp") == ["b.jpg", "deep/c.webp"]
    assert found("missing.jpg") == ["missing.jpg"]
    (tmp_path / "x[1].png").touch()  # a file wins over a pattern
    assert found("x[1].png") == ["x[1].png"]
    with pytest.raises(ValueError, match=r"no file matches '\*\.tif'"):
        found("*.tif")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="folder 'empty' has no image"):
        found("empty")
