"""What all commands share: lines that leave the progress bar whole, tables of results, errors, JAX made ready."""

import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
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


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what the library raises about its input into one line and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # `sscam models | head`
        raise
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        # The library lists everything that is wrong with a checkpoint; here the first of it must do.
        first, *rest = (line.strip() for line in str(error).splitlines() or [""])
        more = f" (and {len(rest) - 1} more)" if len(rest) > 1 else ""
        _fail(" ".join([first, *rest[:1]]) + more)
    except KeyboardInterrupt:
        typer.echo("interrupted: what was written so far is whole", err=True)
        raise typer.Exit(130) from None


def _fail(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2) from None


def _cores() -> int:
    """The cores that this process may use, where the platform says; else all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_jax() -> None:
    """All cores are used, and compilations are kept on disk so that the next run of a command starts at once."""
    import jax

    from sscam_jax.convert import cache_folder

    # XLA's CPU backend computes most of a convolutional network on one core of a device: a device a core.
    # Where a GPU is the default, the CPU's devices are not used.
    jax.config.update("jax_num_cpu_devices", _cores())
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
