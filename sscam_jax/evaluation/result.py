"""What an evaluation says: means with intervals, records, a data frame, the tables, a figure."""

import dataclasses
import html
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from sscam_jax._support import choose, imported
from sscam_jax.evaluation import comparison, page, tables
from sscam_jax.evaluation.comparison import Comparison
from sscam_jax.evaluation.intervals import LEVEL, Values
from sscam_jax.evaluation.run_folder import Stored
from sscam_jax.metrics import METRICS
from sscam_jax.types import Batches


class Mean(NamedTuple):
    """A method's mean over the images.

    Attributes:
        mean: of the n images.
        low: the interval's lower end; NaN where there is none.
        high: its upper end.
        n: how many images have a value.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True)
class Described:
    """What a run folder says of a metric.

    Attributes:
        title: the column's heading.
        unit: "%" or "".
        better: "higher" or "lower".
        needs_boxes: whether it is defined only for images with boxes.
        hits: whether its values are 0 or 100.
        fewest: how many images an interval needs.
    """

    title: str
    unit: str
    better: str
    needs_boxes: bool
    hits: bool
    fewest: int

    @classmethod
    def of(cls, name: str, about: Mapping[str, Any]) -> "Described":
        """What config.json says of a metric.

        Raises:
            ValueError: it does not say what a run writes.
        """
        known = METRICS.get(name, Values())  # earlier folders do not say `hits` and `fewest`
        try:
            found = cls(**dict(hits=known.hits, fewest=known.fewest) | dict(about))
        except TypeError as error:
            raise ValueError(f"config.json is damaged: of metric '{name}' it says {dict(about)}") from error
        choose(f"better of metric '{name}'", found.better, ("higher", "lower"))
        choose(f"unit of metric '{name}'", found.unit, ("%", ""))
        return found


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What an evaluation says. Printed, it is the table; `result["ss-cam", "energy"]` is one mean with its interval.

    Attributes:
        stored: what the run folder holds, one value per image in `stored.results`.
        comparison: what the tables say.
    """

    stored: Stored
    comparison: Comparison

    @classmethod
    def of(cls, stored: Stored, baseline: str | None = None) -> "Result":
        """Compare the methods of a run.

        Args:
            stored: what a run folder holds.
            baseline: the method that differences are taken to; None: Grad-CAM, or the first where it is missing.

        Returns:
            The result.
        """
        return cls(stored, compared(stored, baseline))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods, the controls last."""
        return self.comparison.methods

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics."""
        return tuple(self.comparison.sections[0].metrics)

    def __getitem__(self, place: tuple[str, str]) -> Mean:
        """The mean of (method, metric) over all images, with its interval.

        Raises:
            ValueError: the run has no such method or metric.
        """
        if not isinstance(place, tuple) or len(place) != 2:
            raise ValueError(f"result[{place!r}] is not one mean, expected result[method, metric]: records() has all")
        method, metric = place
        choose("method", method, self.methods)
        choose("metric", metric, self.metrics)
        section = self.comparison.sections[0]
        j, k = self.methods.index(method), self.metrics.index(metric)
        mean, low, high = (float(part[j, k]) for part in section.means[:3])
        return Mean(mean, low, high, int(section.n[k]))

    def records(self) -> list[dict[str, Any]]:
        """One flat record for every section, metric and method, as in `table.json`."""
        return tables.document(self.comparison)["records"]

    def frame(self) -> Any:
        """The records as a pandas data frame.

        Raises:
            ImportError: pandas is not installed.
        """
        return imported("pandas", "frame").DataFrame(self.records())

    def __repr__(self) -> str:
        return tables.markdown(self.comparison)

    def _repr_html_(self) -> str:
        table = page.table_of(self.comparison, self.comparison.sections[0])
        head = "".join(f"<th>{html.escape(each['title'])}, n = {each['n']}</th>" for each in table["metrics"])
        lines = []
        for row in table["means"]:
            name = html.escape(row["method"]) + (" (control)" if row["control"] else "")
            cells = (html.escape(cell["text"]) for cell in row["cells"])
            bold = (cell["bold"] for cell in row["cells"])
            marked = (f"<b>{cell}</b>" if best else cell for cell, best in zip(cells, bold, strict=True))
            lines.append(f"<tr><th>{name}</th>{''.join(f'<td>{cell}</td>' for cell in marked)}</tr>")
        marks = f"mean [{100 * LEVEL:g} % interval]; bold: the best mean; ⚠: a control as good as the best"
        notes = [f"{table['images']} images; {marks}", *page.left_out(self.comparison)]
        below = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
        return f"<table><tr><th>method</th>{head}</tr>{''.join(lines)}</table>{below}"

    def report(self, path: str | os.PathLike[str], *, batches: Batches | None = None) -> None:
        """Write one HTML file that needs nothing else: tables, charts, examples, differences image by image.

        Args:
            path: the file.
            batches: the images of the run, as they were given to `evaluate`; None: no photographs and maps.

        Raises:
            MissingPackageError: Jinja is not installed.
            OSError: the file can't be written.
            ValueError: the batches are of other images.
        """
        page.write(self.stored, self.comparison, pathlib.Path(path), batches=batches)

    def plot(self) -> Figure:
        """Every method's mean with its interval, a panel for each metric; for `plots.save`."""
        count = len(self.metrics)
        drawing = Figure(figsize=(2.2 + 2.4 * count, 0.9 + 0.28 * len(self.methods)), layout="constrained")
        panels = drawing.subplots(1, count, sharey=True, squeeze=False)[0]
        specs: Mapping[str, Any] = self.comparison.sections[0].metrics
        for panel, (metric, spec) in zip(panels, specs.items(), strict=True):
            for y, method in enumerate(self.methods):
                one = self[method, metric]
                colour = "0.6" if comparison.is_control(method) else "C0"
                panel.plot([one.low, one.high], [y, y], color=colour, linewidth=1.5)
                panel.plot([one.mean], [y], "o", color=colour, markersize=5)
            panel.set_title(f"{spec.title}{' (%)' if spec.unit else ''}\n{spec.better} is better", fontsize=9)
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_yticks(range(len(self.methods)), self.methods)
        panels[0].invert_yaxis()  # the first method on top, as in the tables
        return drawing


def compared(stored: Stored, baseline: str | None) -> Comparison:
    """What the tables of a run say."""
    methods, noted = stored.results.methods, stored.config["noted"]
    # VOC's pointing game is the mean over classes.
    voc = str(noted.get("data")).startswith("voc2007") and noted["settings"].get("target") == "truth"
    unreadable = [each.name for each in stored.problems if each.kind == "unreadable"]
    without = {each.name: each.why for each in stored.problems if each.kind == "annotation"}
    missing = [f"{name} ({without.get(name, 'the data set gives no class')})" for name in stored.skipped]
    boxes = [f"{each.name} ({each.why})" for each in stored.problems if each.kind == "boxes"]
    return comparison.compare(
        stored.results,
        {name: Described.of(name, about) for name, about in noted["metrics"].items()},
        baseline=baseline or ("grad-cam" if "grad-cam" in methods else methods[0]),
        per_class=["pointing"] if voc and "pointing" in noted["metrics"] else [],
        unreadable=unreadable,
        without_class=missing,
        boxes_changed=boxes,
        unfinished=stored.unfinished,
    )
