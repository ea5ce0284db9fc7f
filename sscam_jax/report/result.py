"""What an explanation found: maps, classes, a picture, a table."""

import base64
import dataclasses
import html
import itertools
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from PIL import Image

from sscam_jax import data, plots
from sscam_jax.cams import registry
from sscam_jax.plots.films import FILM_ENDINGS
from sscam_jax.report._faithfulness import Faithfulness
from sscam_jax.report._plan import Request
from sscam_jax.types import Saliency

# Characters of a name and of a class in the table: with three methods a line fits in 120.
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
        frames: the row's place in its animation or video; None for a photograph.
        classes: the class of each row, with the network's probability.
        saliency: by method, as it was asked for, its `Saliency` in NumPy; entry i of every array is row i's.
        seconds: by method, how long each row's map took. A method's first map includes its compilation.
        full: by method, the passes that each row's map takes without a budget; 0 for methods that have no budget.
        network: the network in words.
        request: what was asked for.
        about: what else the maps depend on: the network by name, its parameters' hash, every choice, versions.
        faithfulness: by method, Average Drop, insertion and deletion of each row, where they were asked for.
        notes: what else must be known of the images, a line each.
    """

    images: Sequence[Image.Image]
    names: Sequence[str]
    frames: Sequence[data.Frame | None]
    classes: Sequence[Class]
    saliency: Mapping[str, Saliency]
    seconds: Mapping[str, Float[np.ndarray, " rows"]]
    full: Mapping[str, Int[np.ndarray, " rows"]]
    network: str
    request: Request = dataclasses.field(default_factory=Request)
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    faithfulness: Mapping[str, Faithfulness] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def rows(self) -> list[plots.Row]:
        """The rows of the figure, for `plots.figure` in another style."""
        rows = []
        for i, (photo, found) in enumerate(zip(self.images, self.classes, strict=True)):
            titles = {method: registry.title(method) for method in self.saliency}
            maps = {titles[method]: saliency.maps[i] for method, saliency in self.saliency.items()}
            captions = {title: f"{self.passes(m, i)}\n{self.seconds[m][i]:.2g} s" for m, title in titles.items()}
            frame = self.frames[i]
            when = "" if frame is None else f"\n{frame.time:.2f} s"
            rows.append(plots.Row(photo, f"{found.name}\n{_percent(found.probability)}{when}", maps, captions))
        return rows

    @property
    def is_film(self) -> bool:
        """Whether the rows are several frames of one animation or video."""
        return len(set(self.names)) == 1 and len({frame and frame.number for frame in self.frames}) > 1

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
        """Save the figure, whole or not at all. Frames of a film are saved as a film where the ending is that of one.

        Args:
            path: the file; its ending says the format: .png, .jpg, .pdf or .svg; for a film .gif, .webp or .mp4.

        Raises:
            OSError: the file can't be written.
            ValueError: the ending is not of a format that can be written.
            MissingPackageError: an MP4 needs the package av, which is not installed.
        """
        if self.is_film and pathlib.Path(path).suffix.lower() in FILM_ENDINGS:
            self.save_film(path)
        else:
            plots.save(self.figure, path)

    def save_film(self, path: Any, **style: Any) -> None:
        """Save the rows as a film, one after another, as long as each is shown; see `plots.save_film`."""
        times = [frame.time for frame in self.frames if frame is not None]
        # After the last frame of a class comes no other: it is shown as long as the one before.
        gaps = np.diff(times)
        shown = [gap if gap > 0 else gaps[i - 1] for i, gap in enumerate([*gaps, 0.0])]
        plots.save_film(self.rows, path, seconds=shown, **style)

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        others: "Sequence[Explanation]" = (),
        expected: Sequence[str | int] | None = None,
    ) -> None:
        """Write one HTML file that needs nothing else: photographs, maps, probabilities, settings.

        It has switches for methods, classes, layers and colours, shows the value under the pointer, and offers each
        overlay and raw map as a download.

        Args:
            path: the file.
            others: explanations of the same images and classes at other layers or by other networks.
            expected: the class that each image shows, by name or index: one per image, or one for all of them.

        Raises:
            MissingPackageError: Jinja is not installed.
            OSError: the file can't be written.
            ValueError: the others have other images or classes, or an expected class is not known.
        """
        from sscam_jax.report import photographs  # it needs this class

        photographs.write([self, *others], pathlib.Path(path), expected=expected)

    def __repr__(self) -> str:
        """The table, with the network above it."""
        table = Table(self.names, list(self.saliency))
        below = [*self.notes, *frames_left_out(self), *passes_left_out(self)]
        return "\n".join([self.network, table.heading(), *table.lines(self), *below])

    def _repr_html_(self) -> str:
        """The picture, or the film, with the table below it; text has the page's own colours."""
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, "shown.gif" if self.is_film else "shown.png")
            self.save(file)
            shown = base64.b64encode(file.read_bytes()).decode()
        # max-width: a notebook's output is narrower than the figure of many methods.
        picture = f'<img style="max-width: 100%" src="data:image/{file.suffix[1:]};base64,{shown}">'
        return f"{picture}<pre>{html.escape(repr(self))}</pre>"


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
        frames=[frame for part in parts for frame in part.frames],
        classes=[found for part in parts for found in part.classes],
        saliency={method: stacked([part.saliency[method] for part in parts]) for method in first.saliency},
        seconds={method: joined("seconds", method) for method in first.saliency},
        full={method: joined("full", method) for method in first.saliency},
        faithfulness={method: _joined([part.faithfulness[method] for part in parts]) for method in first.faithfulness},
        notes=[note for part in parts for note in part.notes],
    )


def picked(found: Explanation, rows: Sequence[int]) -> Explanation:
    """Some rows of an explanation."""
    kept = list(rows)
    lists = {name: [getattr(found, name)[i] for i in kept] for name in ("images", "names", "frames", "classes")}
    arrays = {
        name: {method: jax.tree.map(lambda array: array[kept], each) for method, each in getattr(found, name).items()}
        for name in ("saliency", "seconds", "full")
    }
    arrays["faithfulness"] = {
        method: Faithfulness._make([*(each[kept] for each in of[:-1]), of.shares])
        for method, of in found.faithfulness.items()
    }
    return dataclasses.replace(found, **lists, **arrays)  # type: ignore[arg-type]


def by_class(found: Explanation) -> list[Explanation]:
    """An explanation by image and class: one row each, of a film one per frame."""
    of = [(name, shown.label) for name, shown in zip(found.names, found.classes, strict=True)]
    # groupby joins neighbours only, and rows are in this order: all frames of a class, then the next class.
    return [picked(found, list(rows)) for _, rows in itertools.groupby(range(len(of)), of.__getitem__)]


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _joined(parts: Sequence[Faithfulness]) -> Faithfulness:
    rows = [np.concatenate(each) for each in zip(*(part[:-1] for part in parts), strict=True)]
    return Faithfulness._make([*rows, parts[0].shares])


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


class Table:
    """Explanations as lines of text, a line per image or film, and class; the lines can be told as they come."""

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
        """The lines of an explanation: of a film the mean probability and the seconds of all frames."""
        lines = []
        for each in by_class(found):
            probability = float(np.mean([shown.probability for shown in each.classes]))
            seconds = [f"{each.seconds[method].sum():.2f} s" for method in self.methods]
            lines.append(self._line(each.names[0], each.classes[0].name, _percent(probability), seconds))
        return lines


def passes_left_out(found: Explanation) -> list[str]:
    """What budgets kept from running."""
    # Of the first map: the others of a method differ by a few dead channels.
    shown = {method: found.passes(method, 0) for method in found.saliency}
    return [f"{method}: {passes} per map" for method, passes in shown.items() if " of " in passes]


def read_smaller(clip: data.Clip, name: str) -> list[str]:
    """That a large JPEG was decoded at a smaller size, if it was."""
    if clip.stored is None:
        return []
    width, height = clip.stored
    # The image may be turned, so the longer sides are compared.
    scale = round(max(width, height) / max(clip.images[0].size))
    return [f"{name}: {width} × {height} pixels exceed the limit, it is read at 1/{scale} of its width and height"]


def frames_left_out(found: Explanation) -> list[str]:
    """Which frames of files with several were explained, and which were not."""
    explained: dict[tuple[str, int], set[int]] = {}
    for name, frame in zip(found.names, found.frames, strict=True):
        if frame is not None:
            explained.setdefault((name, frame.total), set()).add(frame.number)
    which = {1: "the first is"}
    return [
        f"{name}: {which.get(len(each), f'{len(each)}, evenly spaced, are')} explained of {total} frames"
        for (name, total), each in explained.items()
        if len(each) < total
    ]
