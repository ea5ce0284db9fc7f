"""The documentation site in a real browser: nothing overflows, no picture is missing, nothing comes from elsewhere."""

import pathlib

import pytest

from tests.browser import CHROMIUM, browser, served

pytestmark = [
    pytest.mark.xdist_group("docs"),  # one worker builds the site once
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]

# What is wider than the place it has. On a phone tables and formulas may be scrolled within themselves.
OVERFLOWING = """
(() => {
  const wide = [];
  if (document.documentElement.scrollWidth > innerWidth) wide.push(`page: ${document.documentElement.scrollWidth}`);
  const scrolls = (element) => {
    for (let each = element; each && each.tagName !== "ARTICLE"; each = each.parentElement)
      if (["auto", "scroll", "hidden"].includes(getComputedStyle(each).overflowX)) return true;
    return false;
  };
  const article = document.querySelector("article");
  for (const each of article.querySelectorAll("*"))
    if (each.getBoundingClientRect().right > innerWidth + 1 && !scrolls(each)) wide.push(each.outerHTML.slice(0, 200));
  const blocks = innerWidth < 1280 ? "pre > code" : "pre > code, .md-typeset__scrollwrap, .arithmatex";
  for (const each of article.querySelectorAll(blocks))
    if (each.scrollWidth > each.clientWidth + 1) wide.push(each.textContent.slice(0, 200));
  return wide;
})()
"""

PICTURES = """
Promise.all([...document.images].map((image) => {
  image.loading = "eager";
  return image.decode().then(() => "", () => image.src);
})).then((found) => found.filter(Boolean))
"""


@pytest.fixture(scope="module")
def page(site):
    with served(site) as address, browser() as opened:
        opened.address = address
        yield opened


def _pages(site: pathlib.Path) -> list[str]:
    return sorted(file.parent.relative_to(site).as_posix() for file in site.rglob("index.html"))


def _check(page, path: str) -> dict[str, list[str]]:
    found = {}
    page.resize(1280)
    page.open(f"{page.address}{path}/")
    found["missing pictures"] = page.run(PICTURES)
    for width in (1280, 400):
        page.resize(width)
        found[f"too wide at {width}"] = page.run(OVERFLOWING)
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        found[f"faint in {scheme}"] = page.faint("article")
    found["problems"] = page.problems
    return {what: each for what, each in found.items() if each}


MAIN = (".", "tutorial", "gallery", "results", "api/methods", "api/methods/ss_cam")


@pytest.mark.parametrize("path", MAIN)
def test_a_page_in_a_browser(page, path):
    assert _check(page, path) == {}


@pytest.mark.slow
def test_every_page_in_a_browser(page, site):
    pages = _pages(site)
    assert set(MAIN) < set(pages) and len(pages) > 30
    assert {path: wrong for path in pages if (wrong := _check(page, path))} == {}


def test_formulas_are_typeset(page):
    page.open(f"{page.address}semantics/")
    assert page.run("document.querySelectorAll('.arithmatex').length") > 3
    assert page.run("document.querySelectorAll('.arithmatex:not(:has(.katex))').length") == 0
    assert page.run("document.querySelectorAll('.katex-error').length") == 0


def test_tables_on_a_phone(page):
    """Code in a table wraps after punctuation only, and prose has a readable width."""
    page.resize(400)
    page.open(f"{page.address}choosing/")
    sizes = "[...document.querySelectorAll('td code')].filter((e) => e.textContent === 'grad_cam').map((e) => [%s])"
    lines = "e.getClientRects().length"
    assert page.run(sizes % lines) == [[1], [1]]
    assert page.run("Math.min(...[...document.querySelectorAll('td.long')].map((e) => e.clientWidth))") >= 110
    page.open(f"{page.address}api/methods/grad_cam/")
    assert page.run("document.querySelector('td:has(.doc-md-description)').clientWidth") > 300


def test_what_is_wrong_is_found(page, tmp_path_factory):
    """The checks can fail."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "index.html").write_text(
        "<article style='width: 200px'><div style='width: 9999px; color: #888'>x</div><img src='none.png'>"
        "<script>console.error('oh'); fetch('http://192.0.2.1/').catch(() => 0)</script></article>"
    )
    with served(folder) as address:
        page.resize(1280)
        page.open(address)
        assert page.run(PICTURES) == [f"{address}none.png"]
        assert len(page.run(OVERFLOWING)) == 2
        assert [each[:3] for each in page.faint("article")] == ["3.5"]
    told = "\n".join(page.problems)
    assert "console: " in told and "request to another host: http://192.0.2.1/" in told
