"""The report of photographs: what the file holds, and every control of it in a real browser."""

import base64
import dataclasses
import io
import json
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

import sscam_jax as sscam
from sscam_jax.report import _faithfulness, photographs, repeat
from sscam_jax.report._plan import Request
from tests.browser import CHROMIUM, browser
from tests.report.test_explain import APPLY, PARAMS, _photo

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>.png"
CLASSES = ("left & <b>bold</b>", "<script>document.title='taken'</script>", 'quoted "right"')
SMALL = dict(model=(APPLY, PARAMS), num_classes=3, class_names=CLASSES, size=56, budget=8)
METHODS = ["grad-cam", "score-cam", "rise:n_samples=8"]

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


@pytest.fixture(scope="module")
def found():
    """Two images and two classes at one layer; the second explanation stands for another layer."""
    first = sscam.explain([_photo(), _photo(60, 90, 1)], **SMALL, methods=METHODS, classes=[0, 1], faithfulness=True)
    names = [HOSTILE if name == "image 0" else "duck.png" for name in first.names]
    first = dataclasses.replace(first, names=names, about=first.about | dict(network=dict(layer="layer3")))
    return first, dataclasses.replace(first, about=first.about | dict(network=dict(layer="layer4")))


@pytest.fixture(scope="module")
def file(found, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    found[0].report(path, others=[found[1]], expected=[2, 0])
    return path


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with browser() as opened:
        yield opened


def _data(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_faithfulness_is_that_of_the_metrics(found):
    images = sscam.preprocess(found[0].images[2], size=56)
    maps = np.stack([saliency.maps[3:4] for saliency in found[0].saliency.values()])
    curve = sscam.metrics.insertion(APPLY, PARAMS, images, np.array([1]), maps)
    measured = [of.insertion[3] for of in found[0].faithfulness.values()]
    np.testing.assert_allclose(measured, curve.auc[:, 0], atol=1e-5)
    drop = sscam.metrics.average_drop(sscam.metrics.confidence(APPLY, PARAMS, images, np.array([1]), maps))
    np.testing.assert_allclose([of.drop[3] for of in found[0].faithfulness.values()], drop[:, 0], atol=1e-3)


def test_the_file_holds_everything_and_asks_for_nothing(file):
    text = file.read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []
    assert "://" not in text
    assert HOSTILE not in text and CLASSES[1] not in text
    assert text.count("<script") == 2  # the data and the script: no name became one
    data = _data(text)
    assert len(data["maps"]) == 2 * 2 * 2 * 3 and len(data["charts"]) == 2 * 2 * 2
    assert data["layers"] == ["layer3", "layer4"]
    for setting in ("jaxlib", "hash of its parameters", "seed", "cells=7", "Python"):
        assert setting in text


def test_what_is_refused(found, tmp_path):
    with pytest.raises(ValueError, match="give one class per image, 2, or one for all"):
        found[0].report(tmp_path / "a.html", expected=[0, 1, 2])
    with pytest.raises(ValueError, match="class 'up' is not an index"):
        found[0].report(tmp_path / "a.html", expected=["up"])
    other = sscam.explain(_photo(), **SMALL, methods=METHODS)
    with pytest.raises(ValueError, match="expected the same images and classes"):
        found[0].report(tmp_path / "a.html", others=[other])
    assert list(tmp_path.iterdir()) == []


def test_what_repeats_it():
    request = Request(methods=["ss-cam:paper"], classes=["tiger cat", 3], budget=5, seed=2, faithfulness=True)
    network = dict(model="resnet18", checkpoint="a b.pth", layer="layer3")
    assert repeat.shell(["-x.jpg"], [network, network | dict(layer="layer4")], request) == (
        "sscam report ./-x.jpg --model resnet18 --checkpoint 'a b.pth' --layer layer3 --layer layer4 --method "
        "ss-cam:paper --class 'tiger cat' --class 3 --budget 5 --faithfulness --seed 2 --out report.html"
    )
    assert repeat.shell(["x.jpg"], [{}], request) is None
    assert repeat.shell(["x.jpg"], [network], Request(size=128)) is None
    asked = {}
    code = repeat.python(["x.jpg"], network, request).replace("import sscam_jax as sscam", "")
    recorder = type("found", (), dict(report=lambda self, path: asked.update(path=path)))
    explain = lambda images, **options: asked.update(images=images, **options) or recorder()  # noqa: E731
    exec(code, dict(sscam=type("sscam", (), dict(explain=staticmethod(explain)))))
    assert asked["images"] == ["x.jpg"] and asked["path"] == "report.html" and asked["layer"] == "layer3"
    fields = ("methods", "classes", "budget", "seed", "faithfulness")
    assert Request(**{name: asked[name] for name in fields}) == request


# In a real browser

VISIBLE = "[...document.querySelectorAll('figure.map:not([hidden])')].length"
DRAWN = "document.querySelector('figure.map:not([hidden])').dataset.drawn === '{}'"


@pytest.fixture(scope="module", autouse=True)
def quick(request):
    """The networks are so small that compiling is all they cost."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def _opened(page, file, width=1280, scheme="light"):
    page.resize(width)
    page.prefer(scheme)
    page.open(file.as_uri())
    page.run("document.querySelector('figure.map:not([hidden])').scrollIntoView()")
    assert page.wait(DRAWN.format("plasma"))
    return page


@needs_browser
def test_names_stay_text(page, file):
    _opened(page, file)
    assert page.run("document.title") == "Class activation maps"
    assert page.run("document.querySelector('article h2').textContent") == HOSTILE
    assert CLASSES[1] in page.run("[...document.querySelectorAll('tbody th')].map(e => e.textContent).join()")
    assert page.run("document.querySelectorAll('script').length") == 2
    assert page.problems == []


@needs_browser
def test_the_browser_computes_the_same_maps(page, file, found):
    _opened(page, file)
    for index, (row, method) in {0: (0, "grad-cam"), 1: (0, "score-cam"), 2: (0, "rise:n_samples=8")}.items():
        values = page.run(f"mapOf('{index}').then((map) => [...map.values])")
        expected = found[0].saliency[method].maps[row]
        np.testing.assert_allclose(np.reshape(values, expected.shape), expected, atol=1 / 250)


@needs_browser
def test_switches(page, file):
    _opened(page, file)
    assert page.run(VISIBLE) == 2 * 3  # two images, three methods; the first class and layer
    page.choose("#class", "")
    page.choose("#layer", "")
    assert page.run(VISIBLE) == 2 * 3 * 2 * 2
    page.choose("#class", "1")
    assert page.run(VISIBLE) == 2 * 3 * 2
    page.choose("#layer", "1")
    page.click("input[name=method][value='0']")
    assert page.run(VISIBLE) == 2 * 2
    methods = "[...new Set([...document.querySelectorAll('figure.map:not([hidden])')].map((e) => e.dataset.method))]"
    assert page.run(methods) == ["1", "2"]
    page.choose("#colours", "viridis")
    assert page.wait(DRAWN.format("viridis"))
    style = "getComputedStyle(document.querySelector('figure.map:not([hidden]) {}')).{}"
    assert page.run(style.format("img", "filter")) == "grayscale(1)"
    page.click("#grey")
    assert page.run(style.format("img", "filter")) == "none"
    page.run("document.querySelector('#opacity').focus()")
    for _ in range(5):
        page.press("ArrowLeft")
    assert page.run("document.querySelector('#opacity-value').textContent") == "95 %"
    assert float(page.run(style.format("canvas", "opacity"))) == pytest.approx(0.95)
    assert page.problems == []


@needs_browser
def test_the_value_under_the_pointer_and_by_keyboard(page, file, found):
    _opened(page, file)
    page.hover("figure.map:not([hidden]) canvas", 0.25, 0.75)
    output = "document.querySelector('figure.map:not([hidden]) output').textContent"
    value, across, down = re.match(r"([\d.]+) at (\d+) % from the left, (\d+) %", page.wait(output)).groups()
    assert abs(int(across) - 25) <= 1 and abs(int(down) - 75) <= 1
    expected = found[0].saliency["grad-cam"].maps[0]
    assert float(value) == pytest.approx(expected[41:43, 13:15].mean(), abs=0.02)
    outputs = "[...document.querySelectorAll('article figure.map:not([hidden]) output')].map((e) => e.textContent)"
    told = page.run(outputs)
    assert all("25 % from the left" in text for text in told[:3]) and not any("left" in text for text in told[3:])
    page.run("document.querySelector('figure.map:not([hidden]) canvas').focus()")
    page.press("ArrowRight")
    page.wait(f"{output}.includes('27 % from the left')")
    assert page.run("document.querySelector('figure.map:not([hidden]) output').ariaLive") == "polite"
    assert page.problems == []


@needs_browser
def test_downloads(page, file, found, tmp_path):
    _opened(page, file)
    page.downloads(tmp_path)
    page.click("article:nth-of-type(2) figure.map:not([hidden]) [data-get=raw]")
    raw = np.load(io.BytesIO(page.downloaded(tmp_path / "duck_0_grad-cam_layer3.npy")))
    np.testing.assert_array_equal(raw, found[0].saliency["grad-cam"].raw[2])
    page.click("article:nth-of-type(2) figure.map:not([hidden]) [data-get=overlay]")
    picture = Image.open(io.BytesIO(page.downloaded(tmp_path / "duck_0_grad-cam_layer3.png")))
    expected = sscam.plots.overlay(found[0].images[2], found[0].saliency["grad-cam"].maps[2])
    assert picture.size == (60, 90)
    assert np.abs(np.asarray(picture.convert("RGB"), int) - expected).mean() < 3  # JPEG and rounding
    assert page.problems == []


@needs_browser
def test_curves_are_drawn_when_they_are_opened(page, file, found):
    _opened(page, file)
    chart = "article:nth-of-type(2) details.curves:not([hidden])"
    assert page.run(f"document.querySelector('{chart} svg')") is None
    page.click(f"{chart} summary")
    page.wait(f"document.querySelectorAll('{chart} polyline').length === 2 * 3")
    points = page.run(f"document.querySelectorAll('{chart} polyline')[2].getAttribute('points')")
    across, down = np.array([point.split(",") for point in points.split()], float).T
    of = found[0].faithfulness["rise:n_samples=8"]
    np.testing.assert_allclose(across, 200 * of.shares, atol=0.02)
    np.testing.assert_allclose(down, 100 - 100 * of.insertion_curve[2], atol=0.06)
    captions = f"[...document.querySelectorAll('{chart} figcaption')].map((each) => each.textContent)"
    insertion, deletion = page.run(captions)
    assert insertion.startswith("Insertion: the probability of the class. A larger area is better.")
    assert insertion.endswith(f"RISE (n_samples=8) {of.insertion[2]:.3f}")
    assert deletion.endswith(f"RISE (n_samples=8) {of.deletion[2]:.3f}")
    assert page.nameless() == [] and page.problems == []


@needs_browser
def test_keyboard_and_screen_reader(page, file):
    page.resize(1280)
    page.open(file.as_uri())
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "Skip to the content"
    reached = set()
    for _ in range(120):
        page.press("Tab")
        reached.add(page.run("document.activeElement.id || document.activeElement.tagName"))
    assert {"opacity", "colours", "grey", "layer", "class", "print", "CANVAS", "SUMMARY", "BUTTON", "A"} <= reached
    nameless = page.nameless()
    assert nameless == []
    page.run("document.querySelector('th button').focus()")
    page.press("Enter")
    assert page.run("document.querySelector('th').getAttribute('aria-sort')") == "ascending"
    rows = "[...document.querySelectorAll('table.sortable tbody th')].map((e) => e.textContent)"
    assert page.run(rows) == [HOSTILE, "duck.png"]
    page.press("Enter")
    assert page.run(rows) == ["duck.png", HOSTILE]
    assert page.problems == []


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(page, file, width, scheme):
    _opened(page, file, width, scheme)
    page.run("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    page.wait("document.querySelectorAll('details.curves:not([hidden]) figure.chart').length === 2 * 2")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.faint() == []
    assert page.problems == []


@needs_browser
def test_it_prints_what_was_not_scrolled_to(page, file):
    page.resize(400)
    page.open(file.as_uri())
    page.wait("document.querySelectorAll('figure.map:not([data-drawn])').length === 0")
    pdf = base64.b64decode(page.do("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", pdf)) >= 3  # the table, and a page per image
    assert page.problems == []


@needs_browser
@pytest.mark.slow
def test_the_largest_page(page, tmp_path):
    """200 images and three methods stay below 30 MB, and what is out of sight is neither laid out nor drawn."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    photo = Image.fromarray(noise).resize((640, 427))
    found = sscam.explain(_photo(), **SMALL, methods=["grad-cam", "score-cam", "cam"], faithfulness=True)
    many = found.__class__(
        images=[photo.rotate(i) for i in range(200)],
        names=[f"image {i}" for i in range(200)],
        frames=[None] * 200,
        classes=list(found.classes) * 200,
        network="a network",
        request=found.request,
        faithfulness={
            m: _faithfulness.Faithfulness(*_times(of[:-1], 200), of.shares) for m, of in found.faithfulness.items()
        },
        **{
            name: {m: _times(each, 200) for m, each in getattr(found, name).items()}
            for name in ("saliency", "seconds", "full")
        },
    )
    file = tmp_path / "many.html"
    photographs.write([many], file)
    assert file.stat().st_size < 30e6
    _opened(page, file)
    took = page.run("performance.timing.loadEventEnd - performance.timing.navigationStart")
    print(f"{file.stat().st_size / 1e6:.1f} MB, loaded in {took} ms")
    drawn = page.run("document.querySelectorAll('figure[data-drawn]').length")
    assert drawn < 100  # only what is near the window
    laid_out = "[...document.querySelectorAll('article')].map((e) => e.firstElementChild.checkVisibility(AUTO))"
    seen = page.run(laid_out.replace("AUTO", "{contentVisibilityAuto: true}"))
    assert seen[0] and sum(seen) < 20
    assert page.run("document.querySelectorAll('polyline').length") == 0
    assert page.problems == []


def _times(each, count):
    if isinstance(each, tuple):
        parts = [np.concatenate([part] * count) for part in each]
        return type(each)(*parts) if hasattr(each, "_fields") else parts
    return np.concatenate([each] * count)
