"""`sscam ablate`: SS-CAM over a grid of σ and N."""

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
    Model,
    NumClasses,
    RunFolder,
    Seed,
    Target,
    Workers,
    words,
)
from sscam_jax.cli._terminal import prepare_jax, user_errors, write
from sscam_jax.cli.evaluate import chosen_model

_SIGMA, _SAMPLES = ["0.5 1 2 4 8"], ["1 4 10"]


def _number(word: str, name: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f"{name} '{word}' is not {'an integer' if kind is int else 'a number'}") from None


def ablate(
    data: Data,
    out: RunFolder,
    preset: Annotated[
        str, typer.Option(metavar="PRESET[,OPTION=VALUE…]", help="The reading of SS-CAM that is varied.")
    ] = "paper",
    sigma: Annotated[
        list[str], typer.Option(metavar="NUMBERS", help="Values of σ, several between spaces; repeatable.")
    ] = _SIGMA,
    samples: Annotated[
        list[str], typer.Option(metavar="INTEGERS", help="Values of N, several between spaces; repeatable.")
    ] = _SAMPLES,
    model: Model = None,
    checkpoint: Checkpoint = None,
    num_classes: NumClasses = None,
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
    The folder is that of `sscam evaluate`, resumed in the same way; it gets ablation.md, .json and .png too.
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

        sigmas = [_number(word, "sigma", float) for word in words(sigma)]
        counts = [_number(word, "samples", int) for word in words(samples)]
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
        )
        grid_report.ablate(settings, grid.grid(preset, sigmas, counts), out, workers=workers)
        write((out / "ablation.md").read_text("utf-8"))
