"""What an explanation found: maps, classes, a picture, a table."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from PIL import Image

from sscam_jax import plots
from sscam_jax.cams import registry
from sscam_jax.types import Saliency

_NAME, _CLASS = 40, 26


class Class(NamedTuple):
    """A class that was explained.

    Attributes:
        label: its index.
        name: its name.
        probability: what the network gives it, after the softmax, in [0, 1].
    """

    label: int
    name: str
    probability: float


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """What `explain` found: a row per image and class.

    In a notebook it shows its figure, in a terminal its table.

    Attributes:
        images: the photograph of each row.
        names: what the image of each row is called: its file's name, or "image 0".
        classes: the class of each row, with the network's probability.
        saliency: by method, as it was asked for, its `Saliency` in NumPy; entry i of every array is row i's.
        seconds: by method, how long each row's map took. A method's first map includes its compilation.
        full: by method, the passes that each row's map takes without a budget; 0 for methods that have no budget.
        network: the network in words.
    """

    images: Sequence[Image.Image]
    names: Sequence[str]
    classes: Sequence[Class]
    saliency: Mapping[str, Saliency]
    seconds: Mapping[str, Float[np.ndarray, " rows"]]
    full: Mapping[str, Int[np.ndarray, " rows"]]
    network: str

    @property
    def rows(self) -> list[plots.Row]:
        """The rows of the figure, for `plots.figure` in another style."""
        rows = []
        for i, (photo, found) in enumerate(zip(self.images, self.classes, strict=True)):
            titles = {method: registry.title(method) for method in self.saliency}
            maps = {titles[method]: saliency.maps[i] for method, saliency in self.saliency.items()}
            captions = {title: f"{self.passes(m, i)}\n{self.seconds[m][i]:.2g} s" for m, title in titles.items()}
            rows.append(plots.Row(photo, f"{found.name}\n{_percent(found)}", maps, captions))
        return rows

    @property
    def figure(self) -> Figure:
        """All rows in one picture: the photograph, then a map per method."""
        return plots.figure(self.rows)

    def passes(self, method: str, row: int) -> str:
        """What a map took, in words: "257 of 5,121 passes" where a budget kept it from more."""
        took, full = int(self.saliency[method].passes[row]), int(self.full[method][row])
        of = f" of {full:,}" if took < full else ""
        return f"{took:,}{of} {'pass' if took == 1 and not of else 'passes'}"

    def save(self, path: Any) -> None:
        """Save the figure, whole or not at all.

        Args:
            path: the file; its ending says the format: .png, .jpg, .pdf or .svg.

        Raises:
            OSError: the file can't be written.
            ValueError: the ending is not of a format that can be written.
        """
        plots.save(self.figure, path)

    def __repr__(self) -> str:
        """The table, with the network above it."""
        table = Table(self.names, list(self.saliency))
        return "\n".join([self.network, table.heading(), *table.lines(self), *table.notes(self)])

    def _repr_png_(self) -> bytes:
        stream = io.BytesIO()
        self.figure.savefig(stream, format="png")
        return stream.getvalue()


def stacked(parts: Sequence[Saliency]) -> Saliency:
    """Maps of the same method as one, their images in order."""
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def together(parts: Sequence[Explanation]) -> Explanation:
    """Explanations by the same network and methods as one, their rows in order."""
    first = parts[0]

    def joined(arrays: str, method: str) -> Any:
        return np.concatenate([getattr(part, arrays)[method] for part in parts])

    return dataclasses.replace(
        first,
        images=[image for part in parts for image in part.images],
        names=[name for part in parts for name in part.names],
        classes=[found for part in parts for found in part.classes],
        saliency={method: stacked([part.saliency[method] for part in parts]) for method in first.saliency},
        seconds={method: joined("seconds", method) for method in first.saliency},
        full={method: joined("full", method) for method in first.saliency},
    )


def _percent(found: Class) -> str:
    return f"{100 * found.probability:.1f} %"


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


class Table:
    """Explanations as lines of text, a line per image and class; the lines can be told as they come."""

    def __init__(self, names: Sequence[str], methods: Sequence[str]) -> None:
        self.methods = list(dict.fromkeys(methods))
        self.width = min(_NAME, max(map(len, [*names, "image"])))

    def _line(self, image: str, name: str, probability: str, cells: Sequence[str]) -> str:
        # A method's column has room for its name and for hours of seconds.
        columns = [cell.rjust(max(len(method), 9)) for cell, method in zip(cells, self.methods, strict=True)]
        first = f"{_clip(image, self.width):<{self.width}}  {_clip(name, _CLASS):<{_CLASS}}  {probability:>11}"
        return "  ".join([first, *columns])

    def heading(self) -> str:
        """The line above the columns."""
        return self._line("image", "class", "probability", self.methods)

    def lines(self, found: Explanation) -> list[str]:
        """The lines of an explanation."""
        lines = []
        for i, (name, shown) in enumerate(zip(found.names, found.classes, strict=True)):
            seconds = [f"{found.seconds[method][i]:.2f} s" for method in self.methods]
            lines.append(self._line(name, shown.name, _percent(shown), seconds))
        return lines

    def notes(self, found: Explanation) -> list[str]:
        """What budgets kept from running."""
        shown = {method: found.passes(method, 0) for method in self.methods}
        return [f"{method}: {passes} per map" for method, passes in shown.items() if " of " in passes]
