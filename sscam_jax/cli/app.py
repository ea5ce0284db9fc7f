"""`sscam app`: the library in a browser."""

from typing import Annotated

import typer

from sscam_jax.cli._terminal import prepare_jax, user_errors


def app(
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME", help="A checkpoint that visitors may choose, repeatable; default: SqueezeNet 1.1."
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The address to serve at; 0.0.0.0: everyone who can reach this machine."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="The port; default: the first free one from 7860 on.")
    ] = None,
) -> None:
    """Serve the library in a browser.

    Drop a photograph, choose methods, compare maps. It needs gradio: pip install '.[app]' in a clone of the repository.
    Only this machine can reach it, unless --host says otherwise. Nothing is sent elsewhere, and uploads are deleted
    after ten minutes.

    \b
    Examples:
      sscam app
      sscam app --checkpoint squeezenet1_1-stanford40 --port 8000
    """
    with user_errors():
        from sscam_jax.report import app as served

        # Before the first network: JAX takes the number of devices only until it has started.
        prepare_jax()
        served.launch(served.build(checkpoint or served.CHECKPOINTS), host=host, port=port)
