"""The options of the commands by name, so that the signature of a command reads as a list."""

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

# Of `sscam explain` alone.
Photographs = Annotated[list[str], typer.Argument(metavar="PATH", help="Images, videos, folders of images, or globs.")]
Maps = Annotated[str | None, typer.Option(metavar="npz", help="Save maps, raw maps and weights as arrays too.")]
Colours = Annotated[str, typer.Option(metavar="NAME", help="A colour map of matplotlib: viridis, turbo, jet …")]
Background = Annotated[str, typer.Option(metavar="NAME", help="The photograph in grey or colour.")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="INTEGER", help="Larger JPEGs are read smaller, others refused; default: Pillow's limit.", min=1
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of the table.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, say what it will cost, and do nothing.")]

# Of `sscam report` alone.
PhotographsOrRun = Annotated[
    list[str], typer.Argument(metavar="PATH", help="Images, folders of images, globs; or a run folder.")
]
Page = Annotated[pathlib.Path, typer.Option("--out", metavar="FILE", help="The HTML file.")]
Layers = Annotated[
    list[str] | None,
    typer.Option("--layer", metavar="NAME", help="A target layer, repeatable; default: the network's."),
]
Expected = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME|INDEX", help="The class that an image shows: once per image, or once for all."),
]
Faithfulness = Annotated[
    bool, typer.Option("--faithfulness", help="Add Average Drop and the insertion and deletion curves.")
]
RunData = Annotated[
    str | None,
    typer.Option("--data", metavar="KIND:PATH", help="For a run folder: its data set, to show photographs."),
]

# Of `sscam evaluate` and `sscam ablate`; `sscam train-head` has the data set and the seed too.
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

# Of `sscam evaluate` alone.
Methods = Annotated[
    list[str] | None,
    typer.Option(metavar="SPECS", help="NAME[:PRESET][,OPTION=VALUE…], several between spaces; repeatable."),
]
Metrics = Annotated[list[str] | None, typer.Option(metavar="NAMES", help="Several between spaces; repeatable.")]
Processes = Annotated[int, typer.Option(metavar="INTEGER", help="How many processes share the folder.", min=1)]
Process = Annotated[int, typer.Option(metavar="INTEGER", help="Index of this process, from 0.", min=0)]

# Of `sscam ablate` alone.
Preset = Annotated[str, typer.Option(metavar="PRESET[,OPTION=VALUE…]", help="The reading of SS-CAM that is varied.")]
Sigmas = Annotated[
    list[str], typer.Option("--sigma", metavar="NUMBERS", help="Values of σ, several between spaces; repeatable.")
]
Samples = Annotated[
    list[str], typer.Option(metavar="INTEGERS", help="Values of N, several between spaces; repeatable.")
]

# Of `sscam train-head` alone.
HeadFile = Annotated[
    pathlib.Path, typer.Option("--out", metavar="FILE", help="The head's file to write, .safetensors.")
]
KnownModel = Annotated[str, typer.Option("--model", metavar="NAME", help="The network, see `sscam models`.")]
Test = Annotated[str | None, typer.Option(metavar="KIND:PATH", help="A data set to measure the result on, once.")]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="An image may show several classes, as in VOC: mAP, not accuracy.")
]
Epochs = Annotated[int, typer.Option(metavar="INTEGER", help="The most epochs.", min=1)]
LearningRate = Annotated[float, typer.Option(metavar="NUMBER", help="At the beginning.")]


def words(given: list[str] | None) -> list[str]:
    """The words of an option that takes several between spaces and is repeatable."""
    return [word for each in given or [] for word in each.split()]
