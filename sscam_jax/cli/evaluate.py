"""`sscam evaluate` and `sscam table`: methods measured on a data set."""

import os
from typing import Annotated

import typer

from sscam_jax.cli._options import (
    BatchSize,
    Checkpoint,
    Data,
    Fit,
    Keys,
    Layer,
    Limit,
    Model,
    NumClasses,
    RunFolder,
    Seed,
    Target,
    Workers,
    words,
)
from sscam_jax.cli._terminal import prepare_jax, user_errors, write


def chosen_model(model: str | None, checkpoint: str | os.PathLike[str] | None) -> str:
    """The network to measure: the one named, that of the checkpoint, or ResNet-18, the paper's."""
    from sscam_jax.report._network import model_of

    return model or ("resnet18" if checkpoint is None else model_of(checkpoint))


def evaluate(
    data: Data,
    out: RunFolder,
    model: Model = None,
    checkpoint: Checkpoint = None,
    num_classes: NumClasses = None,
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
    process: Annotated[int, typer.Option(metavar="INTEGER", help="Index of this process, from 0.", min=0)] = 0,
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
        given = dict(methods=words(methods), metrics=words(metrics))
        chosen = {name: value for name, value in given.items() if value}
        settings = by_name.Study(
            data=data,
            model=chosen_model(model, checkpoint),
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


def table(
    out: RunFolder,
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
