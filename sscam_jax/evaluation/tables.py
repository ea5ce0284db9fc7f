"""Results as tables: Markdown to be read, CSV and JSON in full precision.

Methods are rows, metrics columns. Controls have a block of their own: a metric that one of them wins is reported with
that control beside it.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sscam_jax._support import replacing
from sscam_jax.evaluation.comparison import MARGIN, Comparison, Section, Spec, is_control
from sscam_jax.evaluation.intervals import LEVEL, Estimates

_ARROW = {"higher": "↑", "lower": "↓"}
# More columns than these do not fit a page: the others follow in another table. Of long lists the first few are named.
_COLUMNS, _NAMED = 5, 10


def decimals_of(spec: Spec, values: Float[np.ndarray, " m"]) -> int:
    """Two for percentages; otherwise three, or as many as show three digits of the largest value."""
    largest = np.abs(values[np.isfinite(values)]).max(initial=0)
    return 2 if spec.unit == "%" else max(3, 2 - math.floor(math.log10(largest)) if largest else 0)


def with_interval(ends: Sequence[float], decimals: int, *, sign: str = "", mark: str = "{}") -> str:
    """A value, marked, and its interval: "**1.50** [1.00, 2.00]"; a dash where there is no value."""
    if math.isnan(ends[0]):
        return "–"
    value, low, high = (f"{end:{sign}.{decimals}f}" for end in ends)
    return mark.format(value) + ("" if math.isnan(ends[1]) else f" [{low}, {high}]")


def _cell(estimates: Estimates, j: int, k: int, decimals: int, **style: str) -> str:
    return with_interval([float(part[j, k]) for part in estimates], decimals, **style)


def lines_of(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Markdown of a table whose first row is the heading."""
    for i, row in enumerate(rows):
        yield "| " + " | ".join(text.replace("|", r"\|") for text in row) + " |"
        if i == 0:
            yield "|" + " --- |" * len(row)
    yield ""


def _blocks(found: Comparison, heading: Sequence[str], rows: Mapping[int, Sequence[str]]) -> Iterator[str]:
    """A table with the methods' rows, by their positions, and then the controls'."""
    lines = [("method", *heading)]
    for controls in (False, True):
        block = [(f"`{found.methods[j]}`", *row) for j, row in rows.items() if is_control(found.methods[j]) == controls]
        if block and controls:
            lines.append(("**Controls**", *[""] * len(heading)))
        lines += block
    yield from lines_of(lines)


def _winner(found: Comparison, section: Section, k: int) -> str:
    """The control that is as good as the best method by metric k, for the heading of the metric; else nothing."""
    if (winner := section.winner[k]) < 0:
        return ""
    values = section.means.values[:, k]
    places = decimals_of(list(section.metrics.values())[k], values)
    return f" ⚠ {found.methods[winner]} {values[winner]:.{places}f}"


def _notes(found: Comparison, section: Section) -> Iterator[str]:
    """A line for each metric that a control wins, and what that means."""
    for spec, winner, best in zip(section.metrics.values(), section.winner, section.best, strict=True):
        if winner >= 0:
            yield (
                f"* ⚠ {spec.title}: the control `{found.methods[winner]}` is at least as good as the best method, "
                f"`{found.methods[best]}`"
            )
    if (section.winner >= 0).any():
        yield from ("", "A metric that a control wins does not show by itself that a map explains anything.", "")


def _section_lines(found: Comparison, section: Section) -> Iterator[str]:
    specs = list(section.metrics.values())
    decimals = [decimals_of(spec, section.means.values[:, k]) for k, spec in enumerate(specs)]
    titles = [f"{spec.title}{' (%)' if spec.unit == '%' else ''} {_ARROW[spec.better]}" for spec in specs]

    def mean(j: int, k: int) -> str:
        mark = "**{}**" if j == section.best[k] else "{}"
        return _cell(section.means, j, k, decimals[k], mark=mark)

    def difference(j: int, k: int) -> str:
        mark = "**{}**" if section.clear[j, k] else "{}"
        mark += " ≈" if section.alike[j, k] else ""
        return _cell(section.to_baseline, j, k, decimals[k], sign="+", mark=mark)

    def spread(j: int, k: int) -> str:
        # One digit more than the mean, beside which a spread is small.
        return "–" if math.isnan(section.spread[j, k]) else f"{section.spread[j, k]:.{decimals[k] + 1}f}"

    def tables(headings: Sequence[str], rows: Sequence[int], cell: Callable[[int, int], str]) -> Iterator[str]:
        for begin in range(0, len(specs), _COLUMNS):
            page = range(begin, min(begin + _COLUMNS, len(specs)))
            yield from _blocks(found, [headings[k] for k in page], {j: [cell(j, k) for k in page] for j in rows})

    headings = [f"{title}, n = {section.n[k]}{_winner(found, section, k)}" for k, title in enumerate(titles)]
    every = range(len(found.methods))
    yield from (f"## {section.title}, n = {section.images}", "")
    yield from tables(headings, every, mean)
    yield from _notes(found, section)
    others = [j for j in every if found.methods[j] != found.baseline]
    if others:
        yield from (f"### Paired differences to `{found.baseline}`, {section.comparisons} comparisons", "")
        yield from tables(titles, others, difference)
    noisy = [j for j in every if np.nan_to_num(section.spread[j]).any()]
    if noisy:
        yield from ("### Standard deviations over noise keys", "")
        yield from tables(titles, noisy, spread)


def _named(names: Sequence[str], what: str) -> Iterator[str]:
    if names:
        more = f" and {len(names) - _NAMED} more, named in table.json" if len(names) > _NAMED else ""
        yield f"* {what} ({len(names)}): {', '.join(f'`{name}`' for name in names[:_NAMED])}{more}"


def markdown(found: Comparison) -> str:
    """The tables to be read: means, paired differences, spread over keys, flat maps and cost.

    Args:
        found: the methods compared.

    Returns:
        Markdown. Percentages have two decimals.

    Example:
        >>> from sscam_jax.evaluation.comparison import compare
        >>> from sscam_jax.evaluation.statistics import Results
        >>> from sscam_jax.metrics import METRICS
        >>> no = np.zeros((1, 2, 2), bool)
        >>> values = np.float32([[[[1], [2]], [[3], [5]]]])
        >>> results = Results(("a", "b"), ("grad-cam", "uniform"), ("average-drop",), values, no, no.astype(int),
        ...                   np.array([3, 4]), np.array([3, 3]), no[0, 0])
        >>> found = compare(results, METRICS, baseline="grad-cam")
        >>> [line for line in markdown(found).splitlines() if "grad-cam" in line][0]
        '| `grad-cam` | **1.50** |'
    """
    first = found.sections[0]
    accuracy = "" if math.isnan(found.accuracy) else f", {found.accuracy:.2f} % of them classified as labelled"
    per_class = ", ".join(first.metrics[name].title for name in found.per_class)
    lines = [
        "# Evaluation",
        "",
        f"* images: {first.images}{accuracy}; noise keys: {found.keys}",
        *_named(found.unreadable, "left out, since they can't be read"),
        *_named(found.without_class, "left out, since they have no class to explain"),
        *_named(found.boxes_changed, "measured with boxes that the crop or an error changed"),
        *_named(found.unfinished, "not measured yet: the same command goes on"),
        f"* mean [{100 * LEVEL:g} % interval]; no interval: too few images for one that holds, or all have the same"
        " value; n: images that have a value for every method",
        *([f"* mean over classes of the means over their images: {per_class}"] if per_class else []),
        "* ↑ higher is better, ↓ lower is better; **bold**: the best mean, not a test; ⚠: a control is at least as good"
        " as the best method",
        "* differences: method − baseline on the same images. Each interval is for one difference alone. **Bold** is"
        " corrected for all comparisons under the heading (Benjamini-Hochberg, 5 % of the bold ones are expected to be"
        f" wrong). ≈: smaller than {MARGIN['%']:g} point (%) or {MARGIN['']:g} (others), by two one-sided tests,"
        " corrected in the same way. No mark: the images do not decide",
        "* flat maps say nothing; they are in the means, with what the metrics give a map of zeros",
        "",
    ]
    for section in found.sections:
        lines += _section_lines(found, section)
    costs = {
        j: (str(first.flat_maps[j]), "–" if first.passes[j] < 0 else f"{first.passes[j]:.0f}")
        for j in range(len(found.methods))
    }
    lines += ["## Maps", "", *_blocks(found, ["images with a flat map", "forward passes a map"], costs)]
    return "\n".join(lines)


def number(value: Any) -> float | int | None:
    """A number as JSON has it: NaN is none."""
    plain = getattr(value, "item", lambda: value)()
    return None if isinstance(plain, float) and math.isnan(plain) else plain


def _records(found: Comparison) -> Iterator[dict[str, Any]]:
    """One record for every section, metric and method."""
    for section in found.sections:
        for k, (name, spec) in enumerate(section.metrics.items()):
            about = dict(section=section.title, metric=name, title=spec.title, unit=spec.unit, better=spec.better)
            for j, method in enumerate(found.methods):
                each = dict(per_class=name in found.per_class, method=method, control=is_control(method))
                yield about | each | _numbers(section, j, k)


def _numbers(section: Section, j: int, k: int) -> dict[str, Any]:
    """What a section knows of method j by metric k."""
    record: dict[str, Any] = dict(images=section.images, n=number(section.n[k]), flat=number(section.flat[j, k]))
    for key, part in (("mean", section.means), ("difference", section.to_baseline)):
        ends = (number(end[j, k]) for end in part)
        record |= zip((key, f"{key}_low", f"{key}_high"), ends, strict=True)
    return record | dict(
        p=number(section.p[j, k]),
        clear=bool(section.clear[j, k]),
        best=bool(j == section.best[k]),
        alike=bool(section.alike[j, k]),
        wins=bool(j == section.winner[k]),
        key_spread=number(section.spread[j, k]),
        flat_maps=number(section.flat_maps[j]),
        passes=number(section.passes[j]),
    )


def document(found: Comparison) -> dict[str, Any]:
    """The whole comparison in terms that JSON has, in full precision.

    Args:
        found: the methods compared.

    Returns:
        What was compared, and under "records" one flat record for every section, metric and method; None where
        there is no value. `difference` is to the baseline, `p` its p-value
        before, `clear` its mark after the correction; `alike`: smaller than the margin; `wins`: a control that is at
        least as good as the best method.

    Example:
        >>> from sscam_jax.evaluation.comparison import compare
        >>> from sscam_jax.evaluation.statistics import Results
        >>> from sscam_jax.metrics import METRICS
        >>> no = np.zeros((1, 2, 2), bool)
        >>> values = np.float32([[[[1], [2]], [[3], [5]]]])
        >>> results = Results(("a", "b"), ("grad-cam", "uniform"), ("average-drop",), values, no, no.astype(int),
        ...                   np.array([3, 4]), np.array([3, 3]), no[0, 0])
        >>> found = compare(results, METRICS, baseline="grad-cam")
        >>> [(record["method"], record["difference"]) for record in document(found)["records"]]
        [('grad-cam', 0.0), ('uniform', 2.5)]
    """
    about = dict(methods=list(found.methods), baseline=found.baseline, per_class=list(found.per_class), keys=found.keys)
    interval = dict(level=LEVEL, margin=MARGIN, comparisons=[each.comparisons for each in found.sections])
    accuracy = None if math.isnan(found.accuracy) else found.accuracy
    names = ("unreadable", "without_class", "boxes_changed", "unfinished")
    left_out = {name: list(getattr(found, name)) for name in names}
    return dict(**about, interval=interval, accuracy=accuracy, **left_out, records=list(_records(found)))


def write(found: Comparison, folder: Path) -> None:
    """Write `table.md`, `table.csv` and `table.json`, each whole or not at all.

    The CSV file has the JSON file's records as its lines.

    Args:
        found: the methods compared.
        folder: where to; it exists.

    Raises:
        OSError: a file can't be written.

    Example:
        >>> from sscam_jax.evaluation.comparison import compare
        >>> from sscam_jax.evaluation.statistics import Results
        >>> from sscam_jax.metrics import METRICS
        >>> no = np.zeros((1, 2, 2), bool)
        >>> values = np.float32([[[[1], [2]], [[3], [5]]]])
        >>> results = Results(("a", "b"), ("grad-cam", "uniform"), ("average-drop",), values, no, no.astype(int),
        ...                   np.array([3, 4]), np.array([3, 3]), no[0, 0])
        >>> found = compare(results, METRICS, baseline="grad-cam")
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(found, Path(folder))
        ...     sorted(os.listdir(folder))
        ['table.csv', 'table.json', 'table.md']
    """
    content = document(found)
    # Line ends are fixed, here and below: the same run gives the same bytes on every system.
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(content["records"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(content["records"])
    texts = {
        "table.md": markdown(found),
        "table.csv": lines.getvalue(),
        # NaN is not JSON: programs that are strict refuse the file.
        "table.json": json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        with replacing(folder / name) as part:
            part.write_text(text, encoding="utf-8", newline="\n")
