"""`sscam ablate`: SS-CAM over a grid of σ and N."""

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
    Preset,
    RunFolder,
    Samples,
    Seed,
    Sigmas,
    Target,
    Workers,
    numbers,
)
from sscam_jax.cli._terminal import prepare_jax, user_errors, write
from sscam_jax.cli.evaluate import chosen_model

# A repeatable option takes a list; `numbers` splits its texts.
_SIGMA, _SAMPLES = ["0.5 1 2 4 8"], ["1 4 10"]


def ablate(
    data: Data,
    out: RunFolder,
    preset: Preset = "paper",
    sigma: Sigmas = _SIGMA,
    samples: Samples = _SAMPLES,
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
    """Vary σ and N of SS-CAM, and test the paper's claims.

    It measures the energy in the box and the agreement with the maps of Score-CAM and Grad-CAM, so the data set needs
    boxes. The run folder is one of `sscam evaluate`, resumed in the same way, with ablation.md, ablation.json and
    ablation.png. A map takes N forward passes per channel: the default grid takes 75 per channel and image.

    With neither --model nor --checkpoint the network is ResNet-18.

    \b
    Examples:
      sscam ablate --data ilsvrc2012:ROOT --out ablation --limit 40
      sscam ablate --data ilsvrc2012:ROOT --out small --sigma "0 1" --samples "1 10"
      sscam ablate --data ilsvrc2012:ROOT --out logits --preset paper,score=logit
      sscam ablate --data voc2007:VOCdevkit --out voc --target predicted

    Exit code 2: wrong input. 130: interrupted; the same command goes on.
    """
    with user_errors():
        prepare_jax()
        from sscam_jax.evaluation import by_name, grid, grid_report

        varied = grid.grid(preset, numbers(sigma, "sigma"), numbers(samples, "samples", int))
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
        grid_report.ablate(settings, varied, out, workers=workers)
        write((out / "ablation.md").read_text("utf-8"))
