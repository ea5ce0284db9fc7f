"""The work behind `sscam ablate`: a run over a grid of σ and N, and the table and figure of what it says."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sscam_jax import plots
from sscam_jax._support import replacing
from sscam_jax.evaluation import by_name, tables
from sscam_jax.evaluation.grid import ENERGIES, GRAD_CAM, MORE, SCORE_CAM, TITLES, Ablation, Grid, analyse
from sscam_jax.evaluation.intervals import LEVEL

# What the figure shows beside the grid: the two methods, and what no score at all would give.
_BESIDE = {SCORE_CAM: "--", GRAD_CAM: ":", "mean-activation": "-."}


def ablate(study: by_name.Study, grid: Grid, out: pathlib.Path, *, workers: int = 0) -> None:
    """Measure a grid's methods, Score-CAM and Grad-CAM into a run folder, and write what comes out of it.

    The folder is that of `by_name.run`, resumed in the same way, with `ablation.md`, `.json` and `.png` more.

    Args:
        study: what to measure them on; its methods and metrics are replaced.
        grid: σ and N.
        out: the run folder; made where missing.
        workers: processes that decode images.

    Raises:
        ValueError: a setting is not possible, the data set has no boxes, or the folder holds another run.
        FileNotFoundError: the data or the checkpoint is not there.
    """
    study = dataclasses.replace(study, methods=(SCORE_CAM, GRAD_CAM, *grid.specs()), metrics=ENERGIES)
    found = analyse(by_name.run(study, out, workers=workers).stored, grid, study.size)
    with replacing(out / "ablation.md") as part:
        part.write_text(markdown(found), "utf-8", newline="\n")
    with replacing(out / "ablation.json") as part:
        part.write_text(json.dumps(document(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    plots.save(draw(found), out / "ablation.png")


def _text(ends: Sequence[float], column: str, sign: str = "") -> str:
    return tables.with_interval(ends, 2 if column == "energy" else 3, sign=sign)


def markdown(found: Ablation) -> str:
    """The claims and the grid, to be read.

    Args:
        found: the grid's results.

    Returns:
        Markdown.
    """
    flat = [f"`{method}` {count}" for method, count in zip(found.methods, found.flat, strict=True) if count]
    heading = [
        f"# `ss-cam:{found.grid.preset}` over σ and N",
        "",
        f"* images: {found.images}, of which {found.n[0]} have boxes; noise keys: {found.keys}",
        f"* mean [{100 * LEVEL:g} % interval], over images; differences are paired on the same images",
        "* rank correlation: Spearman's over the pixels of two maps at the input's resolution; 1: the same order",
        *([f"* images with a flat map, which correlates with nothing: {', '.join(flat)}"] if flat else []),
        "",
    ]
    return "\n".join([*heading, *_claims(found), *_grid(found)])


def _claims(found: Ablation) -> Iterator[str]:
    """What the paper claims, whether it is held, and the differences that say so."""
    yield from ("## The paper's claims", "")
    for claim, verdict in found.verdicts.items():
        yield f"* {claim}: **{verdict}**"
    yield from (
        "",
        "A claim is held if the intervals of all of its differences are above 0, not held if that of one is below 0.",
        "",
        "| claim | difference | mean | |",
        "| --- | --- | --- | --- |",
    )
    for each in found.findings:
        mean = _text(each[2:], "energy" if each.claim.startswith(MORE) else "", "+")
        yield f"| {each.claim} | {each.measured} | {mean} | {each.verdict} |"
    yield ""


def _grid(found: Ablation) -> Iterator[str]:
    """A table over σ and N for each column, then the methods beside the grid."""

    def cell(method: str, column: str) -> str:
        place = found.methods.index(method), found.columns.index(column)
        return _text([float(part[place]) for part in found.means], column)

    def rows(heading: Sequence[str], lines: Mapping[str, Sequence[str]]) -> Iterator[str]:
        return tables.lines_of([heading, *((name, *cells) for name, cells in lines.items())])

    samples, varied = found.grid.samples, found.grid.specs()
    for column, title in TITLES.items():
        table = {
            f"σ = {sigma:g}": [cell(found.grid.spec(sigma, n), column) for n in samples] for sigma in found.grid.sigmas
        }
        yield from (f"## {title}", "", *rows(["", *(f"N = {n}" for n in samples)], table))
    others = {f"`{name}`": [cell(name, column) for column in TITLES] for name in found.methods if name not in varied}
    yield from ("## Beside them", "", *rows(["method", *TITLES.values()], others))


def document(found: Ablation) -> dict[str, Any]:
    """The claims and the grid in terms that JSON has, in full precision.

    Args:
        found: the grid's results.

    Returns:
        What was compared, the claims, and under "records" one for every method and column; None for no value.
    """

    varied = found.grid.specs()
    records = []
    for j, method in enumerate(found.methods):
        sigma, n_samples = varied.get(method, (None, None))
        for k, column in enumerate(found.columns):
            mean, low, high = (tables.number(part[j, k]) for part in found.means)
            about = dict(method=method, sigma=sigma, n_samples=n_samples, column=column, n=int(found.n[k]))
            records.append(about | dict(mean=mean, low=low, high=high, flat_maps=int(found.flat[j])))
    findings: list[dict[str, Any]] = [
        {name: tables.number(value) if isinstance(value, float) else value for name, value in each._asdict().items()}
        | dict(verdict=each.verdict)
        for each in found.findings
    ]
    return dict(
        **found.grid._asdict(),
        images=found.images,
        keys=found.keys,
        level=LEVEL,
        verdicts=found.verdicts,
        findings=findings,
        records=records,
    )


def draw(found: Ablation) -> Figure:
    """Every column over σ, a line for each N, and over N, a line for each σ, with their intervals.

    Args:
        found: the grid's results.

    Returns:
        A figure, for `plots.save`.
    """
    grid = found.grid
    figure = Figure(figsize=(15, 6.2), dpi=130, layout="constrained")
    panels = figure.subplots(2, len(TITLES))
    directions = (
        ("σ", grid.sigmas, "N", grid.samples, lambda x, line: grid.spec(x, line)),
        ("N", grid.samples, "σ", grid.sigmas, lambda x, line: grid.spec(line, x)),
    )
    for row, (axis, values, name, lines, spec) in zip(panels, directions, strict=True):
        shown: dict[str, Any] = {}
        for k, (panel, (column, title)) in enumerate(zip(row, TITLES.items(), strict=True)):
            specs = {f"{name} = {line:g}": [spec(x, line) for x in values] for line in lines}
            shown |= _curves(panel, found, k, specs) | _levels(panel, found, k, column)
            panel.set_xticks(range(len(values)), [f"{value:g}" for value in values])
            panel.set_xlabel(axis)
            panel.set_title(title if axis == "σ" else "", fontsize=10)
            panel.spines[["top", "right"]].set_visible(False)
        legend = dict(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
        row[-1].legend(shown.values(), shown.keys(), **legend)
    figure.suptitle(f"ss-cam:{grid.preset}, {found.images} images, bands: {100 * LEVEL:g} % intervals", fontsize=11)
    return figure


def _curves(panel: Axes, found: Ablation, k: int, specs: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Column k of each line's methods with its interval, and what the legend calls it."""
    shown = {}
    for i, (name, methods) in enumerate(specs.items()):
        at = [found.methods.index(method) for method in methods]
        mean, low, high = (part[at, k] for part in found.means)
        colour = colormaps["viridis"](0.9 * i / (len(specs) - 1))
        # Evenly spaced: σ = 0 has no place on a logarithmic axis.
        places = range(len(methods))
        [shown[name]] = panel.plot(places, mean, "o-", color=colour, markersize=4)
        panel.fill_between(places, low, high, color=colour, alpha=0.13, linewidth=0)
    return shown


def _levels(panel: Axes, found: Ablation, k: int, column: str) -> dict[str, Any]:
    """A horizontal line for each method beside the grid, and what the legend calls it."""
    shown = {}
    for beside, style in _BESIDE.items():
        # The rank correlation of a method with itself is 1.
        if column != f"to-{beside}":
            level = found.means.values[found.methods.index(beside), k]
            shown[beside] = panel.axhline(level, linestyle=style, color="0.35", linewidth=1)
    return shown
