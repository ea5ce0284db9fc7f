"""`sscam`, the command line: argument parsing, tables and exit codes; the work is done by the library.

Exit codes: 0 done; 1 some of several images could not be read, the others are done; 2 wrong input, said in one
line on stderr; 130 interrupted.
"""

import os
import sys
from typing import Annotated

import typer

from sscam_jax.cli import ablate, convert, evaluate, explain, report, train
from sscam_jax.cli import app as served

# JAX, Flax, matplotlib and Pillow are imported by the commands that use them: help answers at once.
app = typer.Typer(
    name="sscam",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except SystemExit as end:
        if end.code == 130:
            # XLA cannot be stopped, and the interpreter would wait for its threads before it ends.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(130)
        raise


def _version(wanted: bool) -> bool:
    if wanted:
        from sscam_jax import __version__

        typer.echo(f"sscam {__version__}")
        raise typer.Exit()
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Class activation maps: which parts of a photograph make a network see a class.

    \b
    Examples:
      sscam demo               three photographs, three methods, no download
      sscam explain cat.jpg    the most probable class of cat.jpg
      sscam models             networks, layers, checkpoints
      sscam methods            methods, presets, options
    """


# In the order in which `sscam --help` lists them.
app.command(no_args_is_help=True)(explain.explain)
app.command()(explain.demo)
app.command(no_args_is_help=True)(report.report)
app.command()(served.app)
app.command()(convert.methods)
app.command()(convert.models)
app.command(no_args_is_help=True)(convert.convert)
app.command(no_args_is_help=True)(evaluate.evaluate)
app.command(no_args_is_help=True)(ablate.ablate)
app.command(no_args_is_help=True)(evaluate.table)
app.command(no_args_is_help=True)(train.train_head)
