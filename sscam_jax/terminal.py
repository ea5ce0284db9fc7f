"""What the command line says: lines that leave the progress bar whole, and the table of results."""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm


def write(line: str, error: bool = False) -> None:
    """A line on stdout or stderr that leaves the progress bar whole."""
    tqdm.write(line, file=sys.stderr if error else sys.stdout)


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


class Table:
    """The table on the terminal, a row whenever an image's class is done."""

    def __init__(self, names: Sequence[str], methods: Sequence[str]) -> None:
        self.methods = list(dict.fromkeys(methods))
        self.width = min(40, max(map(len, [*names, "image"])))
        self._row("image", "class", "probability", self.methods)

    def _row(self, image: str, name: str, probability: str, cells: Sequence[str]) -> None:
        # A method's column has room for its title and for hours of seconds.
        columns = [cell.rjust(max(len(method), 9)) for cell, method in zip(cells, self.methods, strict=True)]
        first = f"{_clip(image, self.width):<{self.width}}  {_clip(name, 26):<26}  {probability:>11}"
        write("  ".join([first, *columns]))

    def add(self, report: dict[str, Any]) -> None:
        """The rows of one image."""
        image = pathlib.Path(report["path"]).name
        for row in report["classes"]:
            seconds = [f"{row['methods'][method]['seconds']:.2f} s" for method in self.methods]
            self._row(image, row["name"], f"{100 * row['probability']:.1f} %", seconds)
            for method in self.methods:
                if row["methods"][method]["flat"]:
                    write(f"note: {method} of {image} for '{row['name']}' is flat: it says nothing", error=True)
