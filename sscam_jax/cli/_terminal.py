"""What all commands share: lines that leave the progress bar whole, errors, JAX made ready."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from tqdm import tqdm

from sscam_jax._support import MissingPackageError


def write(line: str, error: bool = False) -> None:
    """A line on stdout or stderr that leaves the progress bar whole."""
    tqdm.write(line, file=sys.stderr if error else sys.stdout)


def message(error: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    # The library lists everything that is wrong with a checkpoint; here the first of it must do.
    first, *rest = (line.strip() for line in str(error).splitlines() or [""])
    more = f" (and {len(rest) - 1} more)" if len(rest) > 1 else ""
    return " ".join([first, *rest[:1]]) + more


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what the library raises about its input into one line and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # `sscam models | head`
        raise
    except (OSError, ValueError, MissingPackageError) as error:
        typer.echo(f"error: {message(error)}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("interrupted: what was written so far is whole", err=True)
        raise typer.Exit(130) from None


def _cores() -> int:
    """The cores that this process may use, where the platform says; else all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_PATIENT = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600 --xla_cpu_collective_call_terminate_timeout_seconds=86400"
)


def prepare_jax() -> None:
    """All cores are used, and compilations are kept on disk so that the next run of a command starts at once."""
    import jax

    from sscam_jax.convert import cache_folder

    # XLA's CPU backend computes most of a convolutional network on one core of a device: a device a core.
    # Where a GPU is the default, the CPU's devices are not used.
    jax.config.update("jax_num_cpu_devices", _cores())
    # On a busy machine one core falls behind, and XLA ends a process whose devices waited 40 s for each other. The
    # user's own flags come last and win. JAX 0.7 does not know these two, and an unknown flag ends the process too.
    if jax.__version_info__ >= (0, 10):
        os.environ["XLA_FLAGS"] = f"{_PATIENT} {os.environ.get('XLA_FLAGS', '')}".strip()
    # A folder that the user chose, by JAX_COMPILATION_CACHE_DIR for instance, is kept.
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
        # JAX keeps what took a second to compile. The dozens of smaller programs of a command take seconds together.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
