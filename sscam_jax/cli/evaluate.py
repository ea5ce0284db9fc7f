"""The commands about whole data sets: `sscam evaluate`, `sscam ablate` and `sscam table`."""

import pathlib
from typing import Annotated, Any

import typer

from sscam_jax.cli._terminal import prepare_jax, user_errors, write

Data = Annotated[str, typer.Option(metavar="KIND:PATH", help="The data set, as in ilsvrc2012:ROOT.")]
Out = Annotated[pathlib.Path, typer.Option(metavar="DIR", help="The run folder.")]
Model = Annotated[str, typer.Option(metavar="NAME", help="The network; `sscam models` lists them.")]
Checkpoint = Annotated[
    str | None,
    typer.Option(metavar="FILE|NAME|URL", help="The weights; default: the network's first known checkpoint."),
]
NumClasses = Annotated[int, typer.Option(metavar="INTEGER", help="The classes that the checkpoint knows.", min=1)]
Layer = Annotated[
    str | None, typer.Option(metavar="NAME", help="The target layer; default: the last convolutional stage.")
]
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
_SIGMA, _SAMPLES = ["0.5 1 2 4 8"], ["1 4 10"]


def _words(given: list[str] | None) -> list[str]:
    return [word for each in given or [] for word in each.split()]


def _given(options: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None and value != []}


def evaluate(
    data: Data,
    out: Out,
    model: Model = "resnet18",
    checkpoint: Checkpoint = None,
    num_classes: NumClasses = 1000,
    layer: Layer = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(metavar="SPECS", help="NAME[:PRESET][,OPTION=VALUE…], several between spaces; repeatable."),
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(metavar="NAMES", help="Several between spaces; repeatable.")
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    keys: Keys = 1,
    target: Target = "truth",
    fit: Fit = "squash",
    batch_size: BatchSize = 16,
    workers: Workers = 0,
    processes: Annotated[int, typer.Option(metavar="INTEGER", help="How many processes share the folder.", min=1)] = 1,
    process: Annotated[int, typer.Option(metavar="INTEGER", help="Which of them this is, from 0.", min=0)] = 0,
) -> None:
    """Measure methods on a data set.

    Every batch is written when it is done; the same command goes on after any interruption and ends with the same
    table. The folder gets table.md, .csv, .json, results.parquet and gallery.png. Uniform, Gaussian, random,
    mean-activation and FakeCAM maps are always measured beside the methods.

    \b
    Examples:
      sscam evaluate --data ilsvrc2012:ROOT --out run --limit 100
      sscam evaluate --data ilsvrc2012:ROOT --out run --methods "grad-cam ss-cam:paper ss-cam:paper,sigma=1"
      sscam evaluate --data voc2007:VOCdevkit --target predicted --metrics "energy pointing" --out run
      sscam evaluate --data folder:photos --target predicted --out run

    Exit code 2: wrong input. 130: interrupted; the same command goes on.
    """
    with user_errors():
        prepare_jax()
        from sscam_jax.evaluation import by_name

        if process >= processes:
            raise ValueError(f"process {process} is not one of {processes}: choose from 0 to {processes - 1}")
        chosen = _given(dict(methods=_words(methods), metrics=_words(metrics)))
        settings = by_name.Study(
            data=data,
            model=model,
            checkpoint=checkpoint,
            num_classes=num_classes,
            layer=layer,
            limit=limit,
            seed=seed,
            keys=keys,
            target=target,  # type: ignore[arg-type]  # checked by the loop
            fit=fit,
            batch_size=batch_size,
            **chosen,  # type: ignore[arg-type]
        )
        by_name.run(settings, out, workers=workers, process=(process, processes))
        write((out / "table.md").read_text("utf-8"))


def _number(word: str, name: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f"{name} '{word}' is not {'an integer' if kind is int else 'a number'}") from None


def ablate(
    data: Data,
    out: Out,
    preset: Annotated[
        str, typer.Option(metavar="PRESET[,OPTION=VALUE…]", help="The reading of SS-CAM that is varied.")
    ] = "paper",
    sigma: Annotated[
        list[str], typer.Option(metavar="NUMBERS", help="Values of σ, several between spaces; repeatable.")
    ] = _SIGMA,
    samples: Annotated[
        list[str], typer.Option(metavar="INTEGERS", help="Values of N, several between spaces; repeatable.")
    ] = _SAMPLES,
    model: Model = "resnet18",
    checkpoint: Checkpoint = None,
    num_classes: NumClasses = 1000,
    layer: Layer = None,
    limit: Limit = None,
    seed: Seed = 0,
    keys: Keys = 1,
    target: Target = "truth",
    fit: Fit = "squash",
    batch_size: BatchSize = 16,
    workers: Workers = 0,
) -> None:
    """Vary SS-CAM's σ and N, and test what the paper concludes of them.

    Measured are the energy in the box and the agreement with the maps of Score-CAM and Grad-CAM, on data with boxes.
    The folder is that of `sscam evaluate`, resumed in the same way; it gets grid.md, .json and .png too.
    A map takes N forward passes a channel: the defaults are 75 for each channel and image.

    \b
    Examples:
      sscam ablate --data ilsvrc2012:ROOT --out ablation --limit 40
      sscam ablate --data ilsvrc2012:ROOT --out ablation --sigma "0 1 4" --samples "1 10" --keys 3 --limit 40
      sscam ablate --data voc2007:VOCdevkit --target predicted --preset paper,score=logit --out logits

    Exit code 2: wrong input. 130: interrupted; the same command goes on.
    """
    with user_errors():
        prepare_jax()
        from sscam_jax.evaluation import by_name, grid, grid_report

        sigmas = [_number(word, "sigma", float) for word in _words(sigma)]
        counts = [_number(word, "samples", int) for word in _words(samples)]
        settings = by_name.Study(
            data=data,
            model=model,
            checkpoint=checkpoint,
            num_classes=num_classes,
            layer=layer,
            limit=limit,
            seed=seed,
            keys=keys,
            target=target,  # type: ignore[arg-type]  # checked by the loop
            fit=fit,
            batch_size=batch_size,
        )
        grid_report.ablate(settings, grid.grid(preset, sigmas, counts), out, workers=workers)
        write((out / "ablation.md").read_text("utf-8"))


def table(
    out: Out,
    baseline: Annotated[
        str | None, typer.Option(metavar="SPEC", help="The method to take differences to; default: grad-cam.")
    ] = None,
) -> None:
    """Make a run folder's tables again, of all of its processes and of another baseline.

    \b
    Examples:
      sscam table --out run
      sscam table --out run --baseline score-cam
    """
    with user_errors():
        from sscam_jax.evaluation import study

        write(repr(study.table(out, baseline=baseline)))
