"""`sscam evaluate` and `sscam table`: methods measured on a data set."""

import os
from typing import Annotated, Any

import typer

from sscam_jax.cli._options import (
    BatchSize,
    Checkpoint,
    Data,
    Fit,
    Keys,
    Layer,
    Limit,
    Mean,
    Methods,
    Metrics,
    Model,
    NumClasses,
    Process,
    Processes,
    RunFolder,
    Seed,
    Std,
    Target,
    Workers,
    numbers,
    words,
)
from sscam_jax.cli._terminal import prepare_jax, user_errors, write


def chosen_model(model: str | None, checkpoint: str | os.PathLike[str] | None) -> str:
    """The network to measure: the one named, that of the checkpoint, or ResNet-18, the paper's."""
    from sscam_jax.report._network import model_of

    return model or ("resnet18" if checkpoint is None else model_of(checkpoint))


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others have the defaults of a study, so there is one place for these."""
    return {name: value for name, value in options.items() if value}


def evaluate(
    data: Data,
    out: RunFolder,
    model: Model = None,
    checkpoint: Checkpoint = None,
    num_classes: NumClasses = None,
    layer: Layer = None,
    methods: Methods = None,
    metrics: Metrics = None,
    limit: Limit = None,
    seed: Seed = 0,
    keys: Keys = 1,
    target: Target = "truth",
    fit: Fit = "squash",
    mean: Mean = None,
    std: Std = None,
    batch_size: BatchSize = 16,
    workers: Workers = 0,
    processes: Processes = 1,
    process: Process = 0,
) -> None:
    """Measure methods on a data set.

    Every batch is written when it is done. After an interruption the same command goes on, and ends with the same
    table. The folder gets table.md, table.csv, table.json, results.parquet and gallery.png. Maps that explain nothing
    (uniform, Gaussian, random, mean-activation and FakeCAM) are always measured beside the methods.

    With neither --model nor --checkpoint the network is ResNet-18.

    \b
    Examples:
      sscam evaluate --data ilsvrc2012:ROOT --out run --limit 100
      sscam evaluate --data ilsvrc2012:ROOT --out two --methods "grad-cam ss-cam"
      sscam evaluate --data ilsvrc2012:ROOT --out box --metrics "energy pointing"
      sscam evaluate --data voc2007:VOCdevkit --out voc --target predicted
      sscam evaluate --data folder:photos --out mine --target predicted
      sscam evaluate --data csv:own.csv --out vit --checkpoint timm/NAME --mean ".5 .5 .5" --std ".5 .5 .5"

    Exit code 2: wrong input. 130: interrupted; the same command goes on.
    """
    with user_errors():
        prepare_jax()
        from sscam_jax.evaluation import by_name

        # Typer checks one option at a time; this one has a bound that another option gives.
        if process >= processes:
            raise ValueError(f"process {process} is not one of {processes}: choose from 0 to {processes - 1}")
        images = dict(limit=limit, fit=fit, mean=numbers(mean, "mean"), std=numbers(std, "std"), batch_size=batch_size)
        settings = by_name.Study(
            data=data,
            model=chosen_model(model, checkpoint),
            seed=seed,
            keys=keys,
            target=target,  # type: ignore[arg-type]  # checked by the loop
            **_given(checkpoint=checkpoint, num_classes=num_classes, layer=layer, **images),
            **_given(methods=words(methods), metrics=words(metrics)),
        )
        by_name.run(settings, out, workers=workers, process=(process, processes))
        write((out / "table.md").read_text("utf-8"))


def table(
    out: RunFolder,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="The method that the others are compared with; default: grad-cam."),
    ] = None,
) -> None:
    """Write a run folder's tables again.

    They hold what all processes of the run have measured so far, and differences to another method if you name one.

    \b
    Examples:
      sscam table --out run
      sscam table --out run --baseline score-cam
    """
    with user_errors():
        from sscam_jax.evaluation import study

        write(repr(study.table(out, baseline=baseline)))
