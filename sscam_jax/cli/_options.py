"""The options of the commands by name, so that the signature of a command reads as a list."""

import pathlib
from typing import Annotated, Any

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
    typer.Option(metavar="INTEGER", help="Number of classes of the checkpoint; default: a head's, else 1000.", min=1),
]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="The target layer; default: the network's, see `sscam models`.")
]
Out = Annotated[pathlib.Path, typer.Option(metavar="DIR", help="The folder to write to.")]

# A metavar is given everywhere, because typer's own names the Python type, as in "TEXT".

# Of `sscam explain`, `sscam report` and `sscam demo`.
Method = Annotated[
    list[str],
    typer.Option(metavar="NAME[:PRESET][,OPTION=VALUE…]", help="A method, see `sscam methods`; repeatable."),
]
Budget = Annotated[
    int | None,
    typer.Option(
        metavar="INTEGER", help="Scoring passes per map, for methods that take a budget; default: 256.", min=1
    ),
]
Full = Annotated[bool, typer.Option("--full", help="Run all scoring passes, which takes minutes on a CPU.")]
Class = Annotated[
    list[str] | None,
    typer.Option("--class", metavar="NAME|INDEX", help="A class to explain, repeatable; default: the most probable."),
]
NoiseSeed = Annotated[
    int, typer.Option("--seed", metavar="INTEGER", help="The seed of all noise.", min=0, max=2**32 - 1)
]
Frames = Annotated[
    int, typer.Option(metavar="INTEGER", help="The most frames of a film, evenly spaced; 1: its first.", min=1)
]
ChunkSize = Annotated[
    int | None,
    typer.Option(metavar="INTEGER", help="Network inputs scored at once; default: what suits the device.", min=1),
]

# Of `sscam explain` alone.
Photographs = Annotated[list[str], typer.Argument(metavar="PATH", help="Images, videos, folders of images, or globs.")]
Maps = Annotated[str | None, typer.Option(metavar="npz", help="Also save maps, raw maps and weights as arrays.")]
Colours = Annotated[str, typer.Option(metavar="NAME", help="A colour map of matplotlib: viridis, turbo, jet …")]
Background = Annotated[str, typer.Option(metavar="NAME", help="The photograph below the map: grey or colour.")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        metavar="INTEGER",
        help="The most pixels: larger JPEGs are read smaller, others refused; default: Pillow's.",
        min=1,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of the table.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what it will cost; write no file.")]

# Of `sscam report` alone.
PhotographsOrRun = Annotated[
    list[str], typer.Argument(metavar="PATH", help="Images, videos, folders of images, or globs; or one run folder.")
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
    typer.Option(
        "--data", metavar="KIND:PATH", help="With a run folder: the data set that it measured, to show its photographs."
    ),
]

# Of `sscam evaluate` and `sscam ablate`; `sscam train-head` has the data set and the seed too.
Data = Annotated[
    str,
    typer.Option(metavar="KIND:PATH", help="The data set; kinds: ilsvrc2012, voc2007, stanford40, folder, csv, tfds."),
]
RunFolder = Annotated[pathlib.Path, typer.Option("--out", metavar="DIR", help="The run folder.")]
Limit = Annotated[
    int | None, typer.Option(metavar="INTEGER", help="Measure this many images, drawn at random; default: all.", min=1)
]
Seed = Annotated[
    int,
    typer.Option(metavar="INTEGER", help="The seed of the choice of images and of all noise.", min=0, max=2**32 - 1),
]
Keys = Annotated[
    int,
    typer.Option(
        metavar="INTEGER", help="How often each method that draws noise is run, with other noise each time.", min=1
    ),
]
Target = Annotated[
    str, typer.Option(metavar="NAME", help="The class to explain: truth (the data set's) or predicted (the network's).")
]
Fit = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="How images become square: squash (whole image) or crop (shorter side to 256, centre 224)."
    ),
]
BatchSize = Annotated[int, typer.Option(metavar="INTEGER", help="Images that are read and measured at once.", min=1)]
Workers = Annotated[
    int, typer.Option(metavar="INTEGER", help="Processes that decode images; 0: threads of this process.", min=0)
]

# Of `sscam evaluate` alone.
Mean = Annotated[
    list[str] | None,
    typer.Option(metavar="NUMBERS", help="Mean of red, green and blue that the network expects; default: ImageNet's."),
]
Std = Annotated[
    list[str] | None, typer.Option(metavar="NUMBERS", help="The standard deviation that goes with the mean.")
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:PRESET][,OPTION=VALUE…] …",
        help="Methods between spaces, see `sscam methods`; default: the paper's four.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME …",
        help="Metrics between spaces; default: the usual ones, with those of boxes where there are boxes.",
    ),
]
Processes = Annotated[
    int, typer.Option(metavar="INTEGER", help="Number of processes that share the run folder.", min=1)
]
Process = Annotated[int, typer.Option(metavar="INTEGER", help="Index of this process, counted from 0.", min=0)]

# Of `sscam ablate` alone.
Preset = Annotated[str, typer.Option(metavar="PRESET[,OPTION=VALUE…]", help="The preset of SS-CAM whose σ and N vary.")]
Sigmas = Annotated[list[str], typer.Option("--sigma", metavar="NUMBERS", help="Values of σ between spaces.")]
Samples = Annotated[list[str], typer.Option(metavar="INTEGERS", help="Values of N between spaces.")]

# Of `sscam train-head` alone.
HeadFile = Annotated[
    pathlib.Path, typer.Option("--out", metavar="FILE", help="The file to write; it ends in .safetensors.")
]
KnownModel = Annotated[str, typer.Option("--model", metavar="NAME", help="The network, see `sscam models`.")]
Test = Annotated[str | None, typer.Option(metavar="KIND:PATH", help="A data set to measure the trained network on.")]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="An image may show several classes, as in VOC: mAP, not accuracy.")
]
Epochs = Annotated[int, typer.Option(metavar="INTEGER", help="The largest number of epochs.", min=1)]
LearningRate = Annotated[float, typer.Option(metavar="NUMBER", help="The learning rate at the beginning.")]


def words(given: list[str] | None) -> list[str]:
    """The words of an option that takes several between spaces and is repeatable."""
    return [word for each in given or [] for word in each.split()]


def numbers(given: list[str] | None, name: str, kind: type[int] | type[float] = float) -> list[Any]:
    """The words of an option as numbers."""
    found = []
    for word in words(given):
        try:
            found.append(kind(word))
        except ValueError:
            raise ValueError(f"{name} '{word}' is not {'an integer' if kind is int else 'a number'}") from None
    return found
