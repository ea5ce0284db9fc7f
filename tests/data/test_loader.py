"""Batches: pixels as torchvision's, order, padding, problems, shares of processes, restarts."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sscam_jax import data
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD

Boxes = list[tuple[float, float, float, float]]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def example(file: pathlib.Path, boxes: Boxes | None = None, **more: object) -> data.Example:
    array = None if boxes is None else np.array(boxes, np.float32).reshape(-1, 4)
    return data.Example(file.stem, file, 3, array, **more)


def of(*examples: data.Example) -> data.Source:
    return data.listed("these", None, examples)


def only(source: data.Source, **options: object) -> tuple[data.Loader, object]:
    batches = data.batches(source, **{"batch_size": len(source), "size": 14, **options})
    [batch] = batches
    return batches, batch


@pytest.fixture
def pictures(tmp_path) -> data.Source:
    """Seven small images of several shapes, the third damaged, with a box each."""
    examples = []
    for i in range(7):
        width, height = 20 + 3 * i, 30 - 2 * i
        file = tmp_path / f"{i}.png"
        noise(width, height, i).save(file)
        if i == 2:
            file.write_bytes(file.read_bytes()[:200])
        boxes = [(height / 4, width / 4, height / 2, width * 0.6)] * (1 + i % 2)
        examples.append(example(file, boxes))
    return of(*examples)


def same(one: object, other: object) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# Pixels


def torchvision_eval(image: Image.Image, resize: int, crop: int) -> np.ndarray:
    """torchvision's Resize(resize) and CenterCrop(crop) of a PIL image, by its definition: 8-bit pixels."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(resize * long / short)
    new = (resize, new_long) if width <= height else (new_long, resize)
    image = image.resize(new, Image.Resampling.BILINEAR)
    top, left = int(round((new[1] - crop) / 2.0)), int(round((new[0] - crop) / 2.0))
    return np.asarray(image)[top : top + crop, left : left + crop]


@pytest.mark.parametrize("width, height", [(500, 375), (375, 500), (227, 227), (333, 501), (90, 61)])
def test_pixels_are_torchvisions(width, height, tmp_path):
    file = tmp_path / "noise.png"
    noise(width, height).save(file)
    _, batch = only(of(example(file)), size=224, fit="crop")
    pixels = batch.images[0] * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)
    expected = torchvision_eval(Image.open(file), 256, 224) / 255
    assert np.abs(pixels - expected).max() < 1e-6


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_pixels_are_those_of_preprocess(fit, tmp_path):
    noise(50, 40).save(tmp_path / "a.jpg", quality=80)
    _, batch = only(of(example(tmp_path / "a.jpg")), fit=fit)
    np.testing.assert_array_equal(batch.images, data.preprocess(tmp_path / "a.jpg", size=14, fit=fit))


def test_bytes_are_read_like_files(tmp_path):
    noise(50, 40).save(tmp_path / "a.jpg")
    in_memory = data.Example("a", (tmp_path / "a.jpg").read_bytes(), 3)
    assert same(only(of(in_memory))[1], only(of(example(tmp_path / "a.jpg")))[1])


def test_grey_images_have_three_equal_channels(tmp_path):
    noise(50, 40).convert("L").save(tmp_path / "grey.jpg")
    _, batch = only(of(example(tmp_path / "grey.jpg")))
    pixels = batch.images[0] * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)
    np.testing.assert_allclose(pixels, pixels[..., :1].repeat(3, -1), atol=1e-6)
    assert batch.mask.all() and np.ptp(pixels) > 0.1


def test_image_and_box_are_turned_together(tmp_path):
    """Stored wide with a white left edge; orientation 6 makes the left edge the top."""
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    _, batch = only(of(example(tmp_path / "turned.png", [(0, 0, 16, 8)], size=(16, 32))), size=16, fit="squash")
    np.testing.assert_allclose(batch.boxes[0], [[0, 0, 0.25, 1]])
    assert (batch.images[0, :3] > 0).all() and (batch.images[0, 5:] < 0).all()


# Shape, order, padding


def test_batches_have_one_shape_and_types(pictures):
    for batch in data.batches(pictures, batch_size=3, size=14):
        shapes = {name: (array.shape, str(array.dtype)) for name, array in batch._asdict().items()}
        assert shapes == {
            "images": ((3, 14, 14, 3), "float32"),
            "labels": ((3,), "int32"),
            "boxes": ((3, 2, 4), "float32"),
            "ids": ((3,), "int32"),
            "mask": ((3,), "bool"),
        }


def test_the_last_batch_is_filled_up(pictures):
    *_, last = data.batches(pictures, batch_size=3, size=14)
    assert last.ids.tolist() == [6, -1, -1] and last.mask.tolist() == [True, False, False]
    assert last.labels.tolist() == [3, -1, -1]
    assert (last.boxes[1:] == -1).all() and (last.images[1:] == 0).all() and (last.images[0] != 0).any()


def test_order_and_length(pictures):
    batches = data.batches(pictures, batch_size=3, size=14)
    assert len(batches) == 3
    assert [batch.ids.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]


def test_missing_boxes_are_rows_of_minus_one(pictures):
    _, batch = only(pictures)
    there = (batch.boxes >= 0).all(-1).sum(-1)
    assert there.tolist() == [1, 2, 0, 2, 1, 2, 1]  # image 2 can't be read
    assert ((batch.boxes >= 0).all(-1) | (batch.boxes == -1).all(-1)).all()


def test_a_data_set_without_boxes_has_one_empty_row(tmp_path):
    noise(20, 20).save(tmp_path / "a.png")
    batches, batch = only(data.source(f"folder:{tmp_path}"))
    assert batch.boxes.tolist() == [[[-1] * 4]] and batch.labels.tolist() == [-1] and batches.problems == []


def test_batches_are_read_by_their_numbers(pictures):
    """Which of them are read changes none: processes may share them in any way."""
    batches = data.batches(pictures, batch_size=2, size=14)
    whole = list(batches)
    for numbers in ([0, 2], [1, 3], [3], [], [2, 9]):
        found = list(batches.read(numbers))
        assert [number for number, _, _ in found] == [number for number in numbers if number < 4]
        assert all(same(batch, whole[number]) for number, batch, _ in found)


def test_a_batchs_digest_follows_what_it_is_read_from(pictures):
    batches = data.batches(pictures, batch_size=2, size=14)
    before = [batches.digest(number) for number in range(4)]
    file = pictures.examples[3].image
    pixels = bytearray(file.read_bytes())
    pixels[-20] ^= 1  # the file's size stays
    file.write_bytes(pixels)
    after = [batches.digest(number) for number in range(4)]
    assert [number for number in range(4) if before[number] != after[number]] == [1]


def test_workers_give_the_same_batches_and_problems(pictures):
    here, there = (data.batches(pictures, batch_size=2, size=14, workers=workers) for workers in (0, 2))
    assert all(same(a, b) for a, b in zip(here, there, strict=True))
    assert here.problems == there.problems and len(here.problems) == 1


def test_reading_in_the_middle_reads_nothing_before(pictures):
    whole = list(data.batches(pictures, batch_size=2, size=14))
    pictures.examples[0].image.unlink()
    pictures.examples[3].image.unlink()
    again = list(data.batches(pictures, batch_size=2, size=14).read([2, 3]))
    assert all(same(a, b) for a, (_, b, _) in zip(whole[2:], again, strict=True))
    assert not any(problems for _, _, problems in again), "images 0 and 3 are gone, but before"


def test_any_mean_and_std(pictures):
    plain, half = (
        data.batches(pictures, batch_size=7, size=14, **more) for more in ({}, dict(mean=(0.5,) * 3, std=(0.5,) * 3))
    )
    [one], [other] = plain, half
    pixels = one.images * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)
    there = one.mask
    np.testing.assert_allclose(other.images[there], (pixels[there] - 0.5) / 0.5, atol=1e-5)


def test_rows_of_a_table_are_a_data_set(tmp_path):
    """Hugging Face's columns: pictures, 8-bit arrays, undecoded bytes, paths."""
    image = noise(20, 16)
    image.save(tmp_path / "a.png")
    bytes_ = (tmp_path / "a.png").read_bytes()
    forms = [image, np.asarray(image), dict(bytes=bytes_, path=None), str(tmp_path / "a.png"), bytes_]
    rows = [dict(picture=form, target=i, objects=[[0, 0, 8, 10]]) for i, form in enumerate(forms)]
    source = data.from_rows(rows, image="picture", label="target", boxes="objects")
    [batch] = data.batches(source, batch_size=5, size=14)
    for one in batch.images[1:]:
        np.testing.assert_array_equal(one, batch.images[0])
    assert batch.labels.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(batch.boxes[:, 0], [[0, 0, 0.5, 0.5]] * 5)
    with pytest.raises(ValueError, match="'rows' has no column 'label'; choose from 'picture', 'target', 'objects'"):
        data.from_rows(rows, image="picture")
    with pytest.raises(ValueError, match="data set 'mine' is empty: expected at least one row"):
        data.from_rows([], name="mine")


def test_stopping_early_and_starting_again(pictures):
    batches = data.batches(pictures, batch_size=2, size=14)
    first = next(iter(batches))
    assert same(first, next(iter(batches)))
    assert len(list(batches)) == 4


# Problems


def test_every_problem_is_named_once(tmp_path):
    for name in ("gone", "cut", "text", "fine", "resized"):
        noise(32, 16).save(tmp_path / f"{name}.jpg")
    (tmp_path / "gone.jpg").unlink()
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:400])
    (tmp_path / "text.jpg").write_text("hello")
    source = of(
        example(tmp_path / "gone.jpg", [(0, 0, 4, 4)]),
        example(tmp_path / "cut.jpg", [(0, 0, 4, 4)]),
        example(tmp_path / "text.jpg", [(0, 0, 4, 4)]),
        example(tmp_path / "fine.jpg", [(4, 0, 8, 6), (4, 10, 8, 14), (4, 10, 4, 14)]),
        example(tmp_path / "resized.jpg", [(0, 0, 4, 4)], size=(375, 500)),
        example(tmp_path / "fine.jpg", problem="its annotation fine.xml is missing"),
    )
    batches, batch = only(source, fit="crop")
    assert batch.mask.tolist() == [False, False, False, True, True, True]
    assert batch.ids.tolist() == list(range(6)), "what can't be read keeps its id"
    assert (batch.boxes >= 0).all(-1).sum(-1).tolist() == [0, 0, 0, 1, 0, 0]
    assert (batch.images[:3] == 0).all()
    list(batches)
    assert [(each.id, each.name, each.why) for each in batches.problems] == [
        (0, "gone", f"unreadable: {tmp_path / 'gone.jpg'}: No such file or directory"),
        (1, "cut", batches.problems[1].why),
        (2, "text", f"unreadable: {tmp_path / 'text.jpg'} is not an image that Pillow can read"),
        (3, "fine", "box 4, 10, 4, 14 (y0, x0, y1, x1) has no area: dropped"),
        (3, "fine", "box 4, 0, 8, 6 (y0, x0, y1, x1) is outside the crop: dropped"),
        (4, "resized", "its boxes were drawn on 500×375 pixels, the file has 32×16: boxes dropped"),
        (5, "fine", "its annotation fine.xml is missing"),
    ]
    kinds = ["unreadable"] * 3 + ["boxes"] * 3 + ["annotation"]
    assert [each.kind for each in batches.problems] == kinds
    assert batches.problems[1].why.startswith(f"unreadable: {tmp_path / 'cut.jpg'} is truncated or damaged: ")


@pytest.mark.usefixtures("as_users_run_it")
def test_arguments_are_checked(pictures):
    for options, message in (
        ({"batch_size": 0}, "batch_size is 0, expected at least 1 image"),
        ({"fit": "pad"}, "fit 'pad' is not known; choose from 'squash', 'crop'"),
        ({"size": 0}, "size is 0, expected at least 1 pixel"),
        ({"workers": -1}, "workers is -1, expected 0 or more processes"),
        ({"mean": (0.5,)}, r"mean is \(0.5,\) and std is .*, expected three values each"),
        ({"std": (1, 1, 0)}, r"std is \(1, 1, 0\), expected three values each, .* and a positive std"),
    ):
        with pytest.raises(ValueError, match=message):
            data.batches(pictures, **{"batch_size": 2, **options})


def test_importing_the_package_imports_nothing_of_the_extra():
    script = """
import sys
import sscam_jax.data
extra = ("grain", "tensorflow_datasets", "array_record", "pyarrow", "scipy.io", "tensorflow")
sys.exit(", ".join(name for name in extra if name in sys.modules) or 0)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_without_the_extra_the_error_says_what_to_install(pictures, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"package 'grain' is not installed: run pip install '\.\[data\]'"):
        data.batches(pictures, batch_size=2)


# Real files


@pytest.mark.parametrize("spec", ["ilsvrc2012:ILSVRC2012", "voc2007:VOCdevkit", "stanford40:Stanford40:train"])
def test_real_files_load_without_problems_but_lost_boxes(assets, spec):
    kind, _, rest = spec.partition(":")
    batches = data.batches(data.subset(data.source(f"{kind}:{assets / rest}"), 48, 1), batch_size=16)
    for batch in batches:
        assert batch.mask.all() and (batch.labels >= 0).all()
        pixels = batch.images * np.array(IMAGENET_STD, np.float32) + np.array(IMAGENET_MEAN, np.float32)
        assert pixels.min() > -1e-6 and pixels.max() < 1 + 1e-6 and (pixels.std((1, 2, 3)) > 0.02).all()
        there = (batch.boxes != -1).all(-1)
        assert ((batch.boxes >= 0) & (batch.boxes <= 1))[there].all()
        assert (batch.boxes[..., 2:] > batch.boxes[..., :2])[there].all()
    assert all(problem.why.endswith("is outside the crop: dropped") for problem in batches.problems)
