"""What `sscam explain`, `sscam report` and `sscam demo` were asked for: files, methods, budget, classes."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from sscam_jax.cli._terminal import message, write

if TYPE_CHECKING:
    from sscam_jax.report._plan import Request

METHODS = ["grad-cam", "score-cam", "ss-cam"]
"""The methods where none is named: those of `report._plan`, whose import takes the seconds that help does not have."""

# What phones write and Pillow does not read.
_HEIC = (".heic", ".heif")
# An image that can't be explained, and why.
Failure = tuple[pathlib.Path, str]


def chosen_budget(budget: int | None, full: bool) -> Any:
    if full and budget is not None:
        raise ValueError(f"--full runs all passes, --budget {budget} bounds them: choose one of the two")
    # None is a value of the library, "no bound", so an option that is not given can't stand for it.
    return None if full else "auto" if budget is None else budget


def chosen_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """What each file is called in the table: its name, and its path where two have one name."""
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]


def chosen_request(
    model: str | None,
    checkpoint: str | None,
    num_classes: int | None,
    methods: Sequence[str],
    classes: Sequence[str] | None,
    **more: Any,
) -> "Request":
    """What is asked for, with the classes that the checkpoint names."""
    from sscam_jax.report import _network, _plan

    names = _network.class_names(model, checkpoint)
    more |= dict(num_classes=num_classes or len(names or range(1000)), class_names=names)
    return _plan.Request(methods=methods, classes=classes or (), **more)


def chosen_photographs(paths: Sequence[str]) -> tuple[list[pathlib.Path], list[Failure]]:
    """The files that are there, and those that can't be explained with the reason; all told before any work."""
    from sscam_jax import data
    from sscam_jax.data.clips import VIDEO_ENDINGS

    found, failed = [], []
    remedies = dict.fromkeys(_HEIC, "Pillow does not read HEIC, convert it to JPEG first")
    remedies |= dict.fromkeys(VIDEO_ENDINGS, "a folder stands for its images, name a video itself")
    # `find_images` takes only what Pillow reads from a folder; what it passes over is told of, with a remedy.
    for folder in filter(pathlib.Path.is_dir, map(pathlib.Path, paths)):
        for file in sorted(folder.iterdir()):
            if remedy := remedies.get(file.suffix.lower()):
                write(f"note: {file} is left out: {remedy}", error=True)
    for path in data.find_images(paths):
        if path.suffix.lower() in _HEIC:
            failed.append((path, f"{path} is a HEIC file, which Pillow does not read: convert it to JPEG first"))
        elif not path.exists():
            failed.append((path, f"{path}: No such file or directory"))
        else:
            found.append(path)
    for _, reason in failed:
        write(f"error: {reason}", error=True)
    if not found:
        raise typer.Exit(2)
    return found, failed


def why_unread(error: Exception) -> str:
    """Why an image can't be read, with a remedy that exists on a command line."""
    if "decompression bomb" in str(error):
        name = str(error).partition(" is refused")[0]
        return f"{name} has more pixels than --max-pixels allows; raise it for a file that you trust"
    return message(error)
