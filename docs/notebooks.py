"""Run the notebooks and write them as pages: `python docs/notebooks.py [NAME …]` writes docs/notebooks/.

It needs `pip install '.[dev]'` and takes some minutes on two CPU cores.
"""

import base64
import io
import pathlib
import shutil
import sys
import tempfile
from typing import Any

import nbclient
import nbformat
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
PAGES = ROOT / "docs" / "notebooks"
WIDTH = 1000
# Longer outputs are cut: a page is for reading.
LINES = 40


def executed(path: pathlib.Path) -> Any:
    """A notebook with its outputs, run in an empty folder."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=resources).execute()
    return notebook


def fenced(text: str, kind: str) -> str:
    """A block of code or of output."""
    lines = text.rstrip().split("\n")
    if kind == "text" and len(lines) > LINES:
        lines = [*lines[:LINES], "…"]
    return "\n".join([f"```{kind}", *lines, "```"])


def picture(png: str, file: pathlib.Path) -> str:
    """Save a picture small enough for a page; the line that shows it."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        image.thumbnail((WIDTH, 4 * WIDTH))
        image.convert("RGB").save(file, quality=82)
    return f"![What the cell above draws]({file.relative_to(PAGES).as_posix()})"


def output(data: Any, file: pathlib.Path) -> str:
    """One output of a cell."""
    if data.output_type == "stream":
        # Progress and warnings are no part of what a cell shows.
        return fenced(data.text, "text") if data.name == "stdout" else ""
    if "image/png" in data.data:
        return picture(data.data["image/png"], file)
    if "image/gif" in data.data:
        film = file.with_suffix(".gif")
        film.write_bytes(base64.b64decode(data.data["image/gif"]))
        return f"![What the cell above draws]({film.relative_to(PAGES).as_posix()})"
    if "text/markdown" in data.data:
        return data.data["text/markdown"]
    return fenced(data.data["text/plain"], "text") if "text/plain" in data.data else ""


def write(path: pathlib.Path) -> None:
    """Run a notebook and write its page and its pictures."""
    folder = PAGES / path.stem
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = []
    for i, cell in enumerate(executed(path).cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(fenced(cell.source, "py"))
        outputs = [output(data, folder / f"{i}-{j}.webp") for j, data in enumerate(cell.outputs)]
        # What a kernel sends in pieces is one output.
        parts.append("\n\n".join(filter(None, outputs)).replace("\n```\n\n```text\n", "\n"))
    note = f"*This page is `notebooks/{path.name}` with its outputs, written by `docs/notebooks.py`.*"
    heading, _, rest = "\n\n".join(filter(None, parts)).partition("\n")
    (PAGES / f"{path.stem}.md").write_text(f"{heading}\n\n{note}\n{rest}\n", "utf-8")
    if not any(folder.iterdir()):
        folder.rmdir()


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")):
        write(ROOT / "notebooks" / f"{name}.ipynb")
