"""The documentation site: it builds without a warning, names everything public, and its code runs."""

import contextlib
import html.parser
import importlib
import importlib.util
import io
import pathlib
import pkgutil
import re
import sys
import textwrap
from typing import Any, NamedTuple, get_type_hints

import griffe
import pytest

import sscam_jax as sscam
from sscam_jax.cams import registry

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PUBLIC = (
    "sscam_jax",
    *(f"sscam_jax.{name}" for name in ("adapt", "cams", "convert", "data", "metrics", "networks", "plots")),
)
for package in PUBLIC:  # `named` looks among the modules that were imported
    importlib.import_module(package)
PAGES = ["../README.md", *sorted(page.name for page in DOCS.glob("*.md"))]

# One worker builds the site once.
pytestmark = pytest.mark.xdist_group("docs")


class Objects(html.parser.HTMLParser):
    """The objects that a page documents, by their ids."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = dict(attrs).get("id") or ""
        if name.partition(".")[0] == "sscam_jax":
            self.found.add(name)


def _is_module(path: str) -> bool:
    """Whether a dotted path names a module, which the package's lazy imports may not have loaded yet."""
    try:
        return importlib.util.find_spec(path) is not None and bool(importlib.import_module(path))
    except ModuleNotFoundError:
        return False


def named(path: str) -> Any:
    """What a dotted path stands for; of a module and a function of one name, `package.name` is the function."""
    module, _, rest = path.rpartition(".")
    while module and not _is_module(module):
        module, _, name = module.rpartition(".")
        rest = f"{name}.{rest}"
    return pkgutil.resolve_name(f"{module}:{rest}") if module else sys.modules[path]


def exported(package: str) -> dict[str, Any]:
    module = importlib.import_module(package)
    return {f"{package}.{name}": getattr(module, name) for name in module.__all__}


@pytest.fixture(scope="module")
def documented(site) -> dict[str, Any]:
    objects = Objects()
    for page in site.glob("api/**/index.html"):
        objects.feed(page.read_text("utf-8"))
    return {path: named(path) for path in objects.found}


def test_a_path_is_what_it_says():
    assert named("sscam_jax") is sscam and named("sscam_jax.cams") is sscam.cams
    assert named("sscam_jax.metrics.complexity.complexity") is named("sscam_jax.metrics.complexity")
    assert named("sscam_jax.Apply.__call__") is sscam.Apply.__call__


def missing(wanted: dict[str, Any], documented: dict[str, Any]) -> list[str]:
    there = {id(value) for value in documented.values()}
    return [path for path, value in wanted.items() if id(value) not in there]


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_name_is_on_a_page(package, documented):
    assert missing(exported(package), documented) == []


@pytest.mark.parametrize("module", ["sscam_jax.ops", "sscam_jax.types"])
def test_every_function_and_class_of_a_module_is_on_a_page(module, documented):
    its = {f"{module}.{name}": value for name, value in vars(importlib.import_module(module)).items()}
    public = {path: value for path, value in its.items() if getattr(value, "__module__", "") == module}
    wanted = {path: value for path, value in public.items() if not path.rpartition(".")[2].startswith("_")}
    assert wanted and missing(wanted, documented) == []


def test_a_name_that_is_on_no_page_is_found(documented):
    assert missing({"sscam_jax.cams.gradient.from_gradients": sscam.cams.gradient.from_gradients}, documented)


def test_everything_on_a_page_says_what_it_is(documented):
    package = griffe.load("sscam_jax", search_paths=[ROOT])
    assert package.docstring and len(documented) > 100
    names = [path.removeprefix("sscam_jax.") for path in documented if path != "sscam_jax"]
    assert [name for name in names if not package[name].docstring] == []


def test_the_guide_names_every_method():
    guide = (DOCS / "choosing.md").read_text("utf-8")
    functions = {name: value for name in sscam.__all__ if callable(value := getattr(sscam, name))}
    methods = [name for name, value in functions.items() if get_type_hints(value).get("return") is sscam.Saliency]
    assert "ss_cam" in methods
    assert [name for name in methods if f"| [`{name}`][sscam_jax.{name}] |" not in guide] == []


def test_every_method_has_a_page_with_formula_picture_and_reference(site):
    methods = {name: entry for name, entry in registry.ENTRIES.items() if name not in registry.CONTROLS}
    for name, entry in methods.items():
        function = entry.method.__name__
        page = (site / "api" / "methods" / function / "index.html").read_text("utf-8")
        assert 'class="arithmatex"' in page and f'id="sscam_jax.{function}"' in page
        assert f"sscam explain cat.jpg --method {name}" in page
        assert f"gallery/{function}.webp" in page or name == "cam"  # the gallery's network has no map of it


def test_llms_txt_names_every_page(site):
    text = (site / "llms.txt").read_text("utf-8")
    pages = {file.parent.relative_to(site).as_posix() for file in site.rglob("index.html")}
    assert {link.strip("/") or "." for link in re.findall(r"^- \[.*?\]\((.*?)/?\): .{9}", text, re.MULTILINE)} == pages


class Block(NamedTuple):
    """A `python` block of a page, and what the `text` block below it says that it prints."""

    line: int
    code: str
    output: str | None


def blocks(page: str) -> list[Block]:
    """The code of a page. Other libraries' code is in blocks named `py`."""
    text = (DOCS / page).read_text("utf-8")
    fence = r"^( *)```python[^\n]*\n(.*?)^ *```\n(?:\n```text\n(.*?)^```)?"
    return [
        Block(text[: found.start(2)].count("\n"), textwrap.dedent(found[2]), found[3])
        for found in re.finditer(fence, text, re.MULTILINE | re.DOTALL)
    ]


def words(output: str) -> list[str | float]:
    """What is printed, as words and numbers without the seconds, which are never the same."""
    found = re.sub(r"[\d.]+ s\b|[\[\](),]", " ", output).split()
    return [float(word) if re.fullmatch(r"-?\d+\.?\d*", word) else word for word in found]


CODE = [page for page in PAGES if blocks(page)]
# They take most of the time, and README.md has the code of index.md.
LONG = ("index.md", "tutorial.md", "targets.md", "choosing.md", "coming-from.md", "networks.md", "gallery.md")


@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] if p in LONG else []) for p in CODE])
def test_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page}
    for block in blocks(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            # Errors name the line of the page.
            exec(compile("\n" * block.line + block.code, page, "exec"), names)
        if block.output is not None:
            assert words(printed.getvalue()) == pytest.approx(words(block.output), rel=0.02, abs=0.2), block.line
        # Whoever reads the page sees what the code prints.
        assert block.output is not None or page != "tutorial.md" or not printed.getvalue()


def test_pages_with_code_are_tested():
    assert {"../README.md", "index.md", "tutorial.md", "networks.md", "coming-from.md"} <= set(CODE)
    assert sum(block.output is not None for block in blocks("tutorial.md")) > 5
    assert words("(3, 13) goose 94.0 %  0.61 s\n[[56.6 0. ]]") == [3, 13, "goose", 94.0, "%", 56.6, 0]
