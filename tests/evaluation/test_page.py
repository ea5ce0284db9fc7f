"""The report of a run: what the file holds, and every control of it in a real browser."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import sscam_jax as sscam
from sscam_jax import data
from tests.browser import CHROMIUM, browser

HOSTILE = "<script>document.title='taken'</script>"
METHODS, METRICS = ["grad-cam", "score-cam"], ["average-drop", "insertion"]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")


def _features(params, images):
    return jax.numpy.concatenate([images, images[:, ::-1]], -1)[:, ::4, ::4], ()


def _head(params, activations, carry):
    return activations.mean((1, 2)) @ params


APPLY = sscam.Apply(_features, _head)
PARAMS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on nine images, of which one has a hostile name."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for i in range(9):
        name = f"{i}.png" if i else f"{HOSTILE.replace('/', '')}.png"
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((32, 32)).save(folder / name)
    batches = data.batches(data.source(f"folder:{folder}"), batch_size=4, size=32)
    out = tmp_path_factory.mktemp("run")
    jax.config.update("jax_disable_most_optimizations", True)
    result = sscam.evaluate(APPLY, PARAMS, batches, METHODS, METRICS, out=out, target="predicted")
    jax.config.update("jax_disable_most_optimizations", False)
    file = out / "report.html"
    result.report(file, batches=batches)
    return result, batches, file


@pytest.fixture(scope="module")
def page(run):
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with browser() as opened:
        yield opened


def _opened(page, file, width=1280, scheme="light"):
    page.resize(width)
    page.prefer(scheme)
    page.open(file.as_uri())
    return page


def test_the_file_says_what_the_result_says(run):
    result, _, file = run
    text = file.read_text("utf-8")
    assert HOSTILE not in text and text.count("<script") == 2
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []
    content = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert content["methods"] == list(result.methods) and len(content["photos"]) == 9
    for m, method in enumerate(result.methods):
        for k, metric in enumerate(result.metrics):
            assert np.mean(content["values"][m][k]) == pytest.approx(result[method, metric].mean, rel=1e-3)
            assert f'data-value="{float(f"{result[method, metric].mean:.5g}")}"' in text
    best = content["picks"]["insertion"]["score-cam"]["best"][0]
    assert content["values"][1][1][best] == max(content["values"][1][1])


def test_other_images_are_refused_and_none_are_needed(run, tmp_path):
    result, batches, _ = run
    other = data.batches(batches.source, batch_size=3, size=32)
    with pytest.raises(
        ValueError, match=r"batches are of other images than the run \(.* there, .* now\): give the batches"
    ):
        result.report(tmp_path / "a.html", batches=other)
    result.report(tmp_path / "b.html")
    assert "made without the data set" in (tmp_path / "b.html").read_text("utf-8")


def test_a_stream_is_refused(run, tmp_path):
    """A run on this stream would have noted `about`; only its place in the configuration is taken here."""
    result, _, _ = run
    stream = data.from_dicts(iter([dict(image=np.zeros((2, 8, 8, 3), np.float32), label=np.zeros(2, int))]))
    config = dict(result.stored.config, fingerprint=dict(data=dict(stream.about)))
    noted = dataclasses.replace(result, stored=result.stored._replace(config=config))
    with pytest.raises(ValueError, match="batches is a stream, expected numbered batches, .* give a list of batches"):
        noted.report(tmp_path / "a.html", batches=stream)


@needs_browser
def test_tables_sort(page, run):
    _opened(page, run[2])
    methods = "[...document.querySelectorAll('table:first-of-type tbody th')].map((e) => e.firstChild.data.trim())"
    page.run("document.querySelectorAll('th button')[1].focus()")
    page.press("Enter")
    result = run[0]
    expected = sorted(result.methods, key=lambda method: result[method, "average-drop"].mean)
    assert page.run(methods)[: len(expected)] == expected
    page.press("Enter")
    assert page.run(methods)[: len(expected)] == expected[::-1]
    assert page.problems == []


@needs_browser
def test_charts(page, run):
    result, _, file = run
    _opened(page, file)
    assert page.run("document.querySelectorAll('#scatter circle').length") == 9
    page.hover("#scatter circle")
    output = "document.querySelector('.beside output').textContent"
    assert "Average Drop" in page.wait(output)
    assert page.run("document.querySelector('.beside img').src").startswith("data:image/jpeg")
    page.run("document.querySelector('#scatter').focus()")
    before = page.run(output)
    page.press("ArrowRight")
    assert page.run(output) != before
    page.choose("#scatter-method", "1")
    assert page.run("document.querySelector('#scatter').ariaLabel").startswith("score-cam")
    content = json.loads(page.run("document.getElementById('data').textContent"))
    first, second = np.array(content["values"][1][1]), np.array(content["values"][0][1])
    page.choose("#pairs-metric", "1")
    said = page.run("document.querySelector('#pairs-count').textContent")
    assert f"score-cam is better on {(first > second).sum()} of 9 images" in said
    assert page.run("document.querySelectorAll('#pairs rect').length") == 9
    assert page.run("document.querySelectorAll('#examples figure canvas').length") == 2 * 6
    page.choose("#examples-metric", "1")
    assert page.run("document.querySelectorAll('#examples figure').length") == 2 * 6
    page.wait("document.querySelector('#examples canvas').width === 32")
    assert page.problems == []


@needs_browser
def test_it_fits_on_paper_in_light_colours(page, run):
    _opened(page, run[2], 700, "dark")
    dark = "getComputedStyle(document.body).backgroundColor === 'rgb(22, 24, 27)'"
    assert page.run(dark)
    scheme = dict(name="prefers-color-scheme", value="dark")
    page.do("Emulation.setEmulatedMedia", media="print", features=[scheme])
    tables = "[...document.querySelectorAll('table')].map((each) => each.getBoundingClientRect().right)"
    right, dark = max(page.run(tables)), page.run(dark)
    page.do("Emulation.setEmulatedMedia", media="", features=[])
    assert right <= 700 and not dark


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(page, run, width, scheme):
    _opened(page, run[2], width, scheme)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    widths = page.run("[...document.querySelectorAll('.settings td')].map((each) => each.clientWidth)")
    assert min(widths) > 150  # not a letter per line beside a long name
    assert page.faint() == [] and page.nameless() == []
    assert page.run("document.title") == "Evaluation"
    assert page.problems == []
