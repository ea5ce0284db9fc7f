"""Every table of docs/results.md has the numbers of the stored values in notebooks/results, and no table is unknown."""

import json
import pathlib
import re
import runpy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "notebooks" / "results"
CLAIMS = runpy.run_path(str(RESULTS / "claims.py"))
NETWORKS = {"ResNet-18": "resnet18", "SqueezeNet 1.1": "squeezenet1_1", "SqueezeNet 1.0": "squeezenet1_0"}
REFERENCES = {"σ = 4": "ss-cam:paper,budget=320", "Score-CAM": "score-cam"}
# Of every section: the runs of its means, and the families of its differences.
SECTIONS = {
    "Chosen: 40 images": ([], ["σ = 0.5 against 4"]),
    "Confirmed: 60 other images": ([], ["confirmed"]),
    "Is the default better than Score-CAM?": ([], ["σ = 0.5 against Score-CAM"]),
    "The paper's tables: ResNet-18 and SqueezeNet 1.0, 40 images": (
        ["resnet18_40", "squeezenet1_0_40"],
        ["the paper's preset against the methods that it names"],
    ),
    "The reading of the authors' notebooks": ([], ["the reading of the authors' notebooks"]),
    "Ten samples or one": ([], ["ten samples against one"]),
    "Logits with a softmax over the channels, SqueezeNet 1.1, 40 images": (
        [],
        ["logits with a softmax over channels"],
    ),
    "Every other method, SqueezeNet 1.1, 40 images": (["squeezenet1_1_40"], []),
    "Methods of a few passes, 2009 images": (
        ["squeezenet1_1_all", "resnet18_all", "squeezenet1_0_all"],
        ["methods of a few passes", "class or not"],
    ),
    "Stanford40 and VOC 2007, with networks that know their classes": (
        ["stanford40_squeezenet1_1", "squeezenet1_1_voc"],
        [],
    ),
    "SS-CAM on Stanford40, 200 images": (["squeezenet1_1_stanford40"], ["SS-CAM on Stanford40"]),
    "The other presets, SqueezeNet 1.1, 12 images": (["squeezenet1_1_12"], ["the other presets, on 12 images"]),
}
CHOSEN = {
    "Grad-CAM": "grad-cam",
    "Score-CAM": "score-cam",
    "√(Grad-CAM · ReLU(keep + f(X) − drop)), 64 channels": "gc*two64",
    "regression alone": "rk1",
    "√(Grad-CAM · regression)": "gc*rk1",
    "**∛(Grad-CAM · regression · Score-CAM, blurred)**": "gc*rk1*scb",
}


class Table(NamedTuple):
    """A table of the page: its section, its heading and its rows, cell by cell."""

    section: str
    heading: list[str]
    rows: list[list[str]]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip()[1:-1].split("|")]


def tables(text: str) -> Iterator[Table]:
    for part in re.split(r"^##+ ", text, flags=re.MULTILINE)[1:]:
        for block in re.findall(r"(?:^\|.*\n)+", part, re.MULTILINE):
            heading, _, *rows = map(cells, block.splitlines())
            yield Table(part.partition("\n")[0], heading, rows)


TABLES = list(tables((ROOT / "docs" / "results.md").read_text("utf-8")))


def of(kind: str) -> list[Table]:
    """The tables of a kind."""
    return [table for table in TABLES if kind_of(table) == kind]


def kind_of(table: Table) -> str:
    if table.section in SECTIONS:
        return "differences" if "p (Holm)" in table.heading else "means"
    return table.section


def test_the_page_has_no_other_tables():
    known = {"Which images", "σ and N, SqueezeNet 1.1, 16 images", "Chosen: at most 30 images"}
    assert {kind_of(table) for table in TABLES} == known | {"differences", "means", "Confirmed: other images"}


@pytest.mark.parametrize("table", of("means"), ids=lambda table: f"{table.section[:20]}: {table.heading[0]}")
def test_tables_of_means_are_complete(table):
    metrics = tuple(name.split()[0] for name in table.heading[1:])
    found = {run: [cells(line) for line in CLAIMS["means"](run, metrics)[2:]] for run in SECTIONS[table.section][0]}
    assert table.rows in found.values(), found


def claimed(line: str) -> tuple[str, str, str, str, str, float, str]:
    """Of a line of claims.py: network, method, reference, metric, difference, p, and what is told."""
    run, pair, metric, _, difference, p, told = cells(line)
    method, other = (each.strip("`") for each in pair.split(" − "))
    return run.rpartition("_")[0], method, other, metric, difference, float(p), told


def holds(row: list[str], line: tuple[str, str, str, str, str, float, str]) -> bool:
    """Whether a row of the page is this line."""
    network, *who, metric, difference, p, told = row
    named = [REFERENCES.get(each, each.strip("`")) in line[1:3] for each in who]
    same = (NETWORKS[network], metric, difference, told) == (line[0], *line[3:5], line[6])
    return same and all(named) and float(p) == pytest.approx(line[5], rel=0.01)


@pytest.mark.parametrize("table", of("differences"), ids=lambda table: f"{table.section[:20]}, {len(table.rows)}")
def test_differences_are_those_of_the_stored_values(table):
    families = CLAIMS["FAMILIES"] | {"confirmed": CLAIMS["CONFIRM"]}
    found = [claimed(line) for name in SECTIONS[table.section][1] for line in CLAIMS["family"](families[name])]
    assert [row for row in table.rows if sum(holds(row, line) for line in found) != 1] == []


def test_differences_of_two_methods_name_them():
    for table in of("differences"):
        assert len({tuple(row[:-3]) for row in table.rows}) == len(table.rows), table.section


def test_the_ablation_is_the_stored_one():
    [table] = of("σ and N, SqueezeNet 1.1, 16 images")
    stored = json.loads((RESULTS / "ablation-squeezenet1_1_16.json").read_text())["records"]

    def mean(sigma: str, samples: int, column: str) -> float:
        [found] = [
            each["mean"]
            for each in stored
            if (each["sigma"], each["n_samples"], each["column"]) == (float(sigma), samples, column)
        ]
        return found

    for sigma, *energies, score, grad in table.rows:
        assert energies == [f"{mean(sigma, n, 'energy'):.1f}" for n in (1, 4, 10)]
        assert [score, grad] == [f"{mean(sigma, 10, f'to-{m}'):.2f}"[1:] for m in ("score-cam", "grad-cam")]


@pytest.mark.parametrize("table", of("Chosen: at most 30 images"), ids=lambda table: table.heading[0])
def test_what_was_chosen_has_the_stored_means(table):
    stored = np.load(RESULTS / "ridge_choose.npz")
    name, n = table.heading[0].split(", n = ")
    methods = stored["methods"].tolist()
    for label, *row in table.rows:
        values = [stored[f"{NETWORKS[name]}/{key}"] for key in ("ins", "de", "drop", "en", "po", "iou")]
        assert {len(each) for each in values} == {int(n)}
        means = [np.nanmean(each[:, methods.index(CHOSEN[label])], dtype=float) for each in values]
        assert row == [f"{mean:.3f}"[1:] if mean < 1 else f"{mean:.1f}" for mean in means]


def test_what_was_confirmed_is_what_the_script_prints(capsys):
    runpy.run_path(str(RESULTS / "ridge_claims.py"), run_name="__main__")
    text = capsys.readouterr().out
    printed = [cells(line) for line in text.splitlines() if line.startswith("| `") or line.startswith("| better")]
    assert [row for table in of("Confirmed: other images") for row in table.rows] == printed
    assert text.count("not worse by") + text.count("better than Score-CAM") + text.count("3 points more") == 27
    assert "holds |" not in text
