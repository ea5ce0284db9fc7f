"""Tables as files: what a reader sees, and the same numbers in full precision."""

import csv
import json
import pathlib

import numpy as np
import pytest

from sscam_jax.evaluation import comparison, tables
from sscam_jax.evaluation.statistics import Results
from tests.evaluation.test_comparison import SPECS, Spec, clear_cut, measured
from tests.evaluation.test_statistics import NAN, random_values


def lines(results: Results, specs=SPECS, baseline: str = "a", **options) -> list[str]:
    return tables.markdown(comparison.compare(results, specs, baseline=baseline, **options)).splitlines()


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


def rows(text: list[str], start: str) -> list[list[str]]:
    return [cells(line) for line in text if line.startswith(f"| {start}")]


def test_means_as_they_are_read():
    """The best bold, corrected marks on differences, controls last and beside the metric that one wins."""
    text = lines(clear_cut())
    table = text[text.index("## All images, n = 20") + 2 :]
    table = [cells(line) for line in table[: table.index("")]]
    names = [row[0] for row in table]
    assert names == ["method", "---", "`a`", "`b`", "`c:sigma=1`", "**Controls**", "`uniform`"]
    drop, energy = table[0][1:]
    control = table[-1][1].split(" [")[0]
    assert drop == f"Average Drop (%) ↓, n = 20 ⚠ uniform {control}" and energy == "Energy (%) ↑, n = 20"
    best = [[cell.startswith("**") for cell in row[1:]] for row in table[2:5]]
    assert best == [[False, True], [True, False], [False, False]]
    [title] = [line for line in text if line.startswith("### Paired differences")]
    assert title == "### Paired differences to `a`, 6 comparisons"
    bold = [[cell.startswith("**") for cell in rows(text, name)[1][1:]] for name in ("`b`", "`c")]
    assert bold == [[True, True], [True, False]]
    assert "* ⚠ Average Drop: the control `uniform` is at least as good as the best method, `b`" in text
    assert sum("⚠" in line for line in text) == 3, "the legend, the heading, the note"


def test_numbers():
    """Percentages with two decimals, the others with three, small ones with three digits; no value, no number."""
    specs = {"drop": SPECS["drop"], "road": SPECS["road"], "tiny": Spec("Tiny", unit=""), "energy": SPECS["energy"]}
    values = [[[[12.345678, 0.25, 0.00012345, NAN]] * 2, [[1.0, 2.0, 0.0, 33.0]] * 2]]
    text = lines(measured(values, ["drop", "road", "tiny", "energy"], ["a", "b"]), specs, baseline="b")
    means, differences = rows(text, "`a`")[:2]
    assert means[1:] == ["12.35", "0.250", "**0.000123**", "–"]
    assert differences[1:3] == ["+11.35", "-1.750"]


def test_without_an_interval_the_mean_stands_alone():
    text = lines(measured([[[[12.0]], [[13.0]]]], ["drop"], ["a", "b"]))
    assert rows(text, "`b`")[0] == ["`b`", "13.00"]
    assert rows(text, "`b`")[1] == ["`b`", "+1.00"]


def test_wide_tables_are_broken():
    specs = {f"m{k}": Spec(f"Metric {k}") for k in range(7)}
    text = lines(measured(random_values(1, 2, 3, 7), list(specs), ["a", "b"]), specs)
    headings = [len(row) for row in rows(text, "method")]
    assert headings == [6, 3, 6, 3, 3], "means, differences, flat maps and cost"


def test_spread_over_keys_is_shown_for_methods_that_have_one():
    values = random_values(2, 3, 4, 1)
    values[1, 0] = NAN
    values[1, 1] = values[0, 1]
    text = lines(measured(values, ["drop"], ["a", "b", "c"]))
    part = text[text.index("### Standard deviations over noise keys") :]
    part = part[: part.index("## Maps")]
    spread = np.float64(values[:, 2, :, 0]).mean(1).std(ddof=1)
    assert [row[0] for row in rows(part, "`")] == ["`c`"] and rows(part, "`c`")[0][1] == f"{spread:.3f}"
    assert not any("noise keys" in line for line in lines(measured(values[:1], ["drop"], ["a", "b", "c"]))[4:])


def test_what_was_left_out_is_named():
    bad = [f"bad{i}.jpg" for i in range(12)]
    text = lines(clear_cut(), unreadable=bad, without_class=["plain.jpg"], boxes_changed=["cut.jpg"], unfinished=["z"])
    [unreadable] = [line for line in text if "can't be read" in line]
    assert "(12): `bad0.jpg`, " in unreadable and "`bad9.jpg` and 2 more" in unreadable and "bad10" not in unreadable
    assert "* left out, since they have no class to explain (1): `plain.jpg`" in text
    assert "* measured with boxes that the crop or an error changed (1): `cut.jpg`" in text
    assert "* not measured yet: the same command goes on (1): `z`" in text
    document = tables.document(comparison.compare(clear_cut(), SPECS, baseline="a", unreadable=bad))
    assert document["unreadable"] == bad


def test_a_bar_in_a_name_breaks_no_table():
    text = lines(measured(random_values(1, 1, 2, 1), ["drop"], ["a|b"]), baseline="a|b")
    assert rows(text, r"`a\|b`")


def test_files_say_the_same(tmp_path: pathlib.Path):
    found = clear_cut()
    found.values[0, 0, 2, 1] = NAN
    found = comparison.compare(found._replace(single=np.arange(20) < 8), SPECS, baseline="b", per_class=["energy"])
    tables.write(found, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["table.csv", "table.json", "table.md"]
    assert (tmp_path / "table.md").read_text("utf-8") == tables.markdown(found)
    records = json.loads((tmp_path / "table.json").read_text("utf-8"))["records"]
    assert len(records) == 2 * 4 + 4
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as stream:
        read = list(csv.DictReader(stream))
    assert [dict(row) for row in read] == [
        {key: "" if value is None else str(value) for key, value in record.items()} for record in records
    ]
    [record] = [r for r in records if (r["section"], r["metric"], r["method"]) == ("All images", "energy", "a")]
    section = found.sections[0]
    assert record["mean"] == section.means.values[0, 1] and record["mean_high"] == section.means.high[0, 1]
    assert record["difference_low"] == section.to_baseline.low[0, 1]
    assert (record["images"], record["n"], record["per_class"]) == (20, 19, True)
    assert (record["best"], record["alike"], record["wins"], record["control"]) == (True, False, False, False)
    [control] = [r for r in records if (r["metric"], r["method"]) == ("drop", "uniform")]
    assert control["control"] and control["wins"] and control["key_spread"] is None


def test_the_same_results_give_the_same_bytes(tmp_path: pathlib.Path):
    texts = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        tables.write(comparison.compare(clear_cut(), SPECS, baseline="a"), folder)
        texts.append([file.read_bytes() for file in sorted(folder.iterdir())])
    assert texts[0] == texts[1]


def test_a_failed_write_leaves_what_was_there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "table.md").write_text("before")

    def full(self: pathlib.Path, *args, **kwargs) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        tables.write(comparison.compare(clear_cut(), SPECS, baseline="a"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["table.md"]
    assert (tmp_path / "table.md").read_text() == "before"
