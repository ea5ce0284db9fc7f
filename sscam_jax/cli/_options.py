"""Options that several commands share, each once."""

import pathlib
from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The network, see `sscam models`; default: that of the checkpoint."),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="FILE|NAME|URL", help="The weights; default: the network's first known checkpoint."),
]
NumClasses = Annotated[
    int | None,
    typer.Option(metavar="INTEGER", help="The classes that the checkpoint knows; default: a head's, else 1000.", min=1),
]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="The target layer; default: the last convolutional stage.")
]
Out = Annotated[pathlib.Path, typer.Option(metavar="DIR", help="The folder to write to.")]

# Of `sscam explain`, `sscam report` and `sscam demo`.
Method = Annotated[
    list[str],
    typer.Option(metavar="NAME[:PRESET][,OPTION=VALUE…]", help="A method, see `sscam methods`; repeatable."),
]
Budget = Annotated[
    int | None,
    typer.Option(metavar="INTEGER", help="Scoring passes per map, of methods that take a budget; default: 256.", min=1),
]
Full = Annotated[bool, typer.Option("--full", help="Run all passes: minutes on a CPU.")]
Class = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="NAME|INDEX", help="Class to explain, repeatable; default: the top one."),
]
NoiseSeed = Annotated[int, typer.Option("--seed", metavar="INTEGER", help="Of all noise.", min=0, max=2**32 - 1)]
Frames = Annotated[
    int, typer.Option(metavar="INTEGER", help="Of an animation or video, evenly spaced; 1: the first.", min=1)
]
ChunkSize = Annotated[
    int | None,
    typer.Option(metavar="INTEGER", help="Network inputs scored at once; default: right for the device.", min=1),
]

# Of `sscam evaluate` and `sscam ablate`.
Data = Annotated[str, typer.Option(metavar="KIND:PATH", help="The data set, as in ilsvrc2012:ROOT.")]
RunFolder = Annotated[pathlib.Path, typer.Option("--out", metavar="DIR", help="The run folder.")]
Limit = Annotated[int | None, typer.Option(metavar="INTEGER", help="Images, drawn at random; default: all.", min=1)]
Seed = Annotated[
    int, typer.Option(metavar="INTEGER", help="Of the choice of images and of all noise.", min=0, max=2**32 - 1)
]
Keys = Annotated[int, typer.Option(metavar="INTEGER", help="How often methods that draw noise are run.", min=1)]
Target = Annotated[str, typer.Option(metavar="NAME", help="The class to explain: truth or predicted.")]
Fit = Annotated[
    str, typer.Option(metavar="NAME", help="squash (the whole image) or crop (shorter side to 256, centre 224).")
]
BatchSize = Annotated[int, typer.Option(metavar="INTEGER", help="Images at once.", min=1)]
Workers = Annotated[int, typer.Option(metavar="INTEGER", help="Processes that decode images.", min=0)]


def words(given: list[str] | None) -> list[str]:
    """The words of an option that takes several between spaces and is repeatable."""
    return [word for each in given or [] for word in each.split()]
