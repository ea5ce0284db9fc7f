"""`sscam train-head`: teach a network the classes of a data set."""

import pathlib
from typing import Annotated

import typer

from sscam_jax.cli._options import Checkpoint, Data, Layer, Seed
from sscam_jax.cli._terminal import prepare_jax, user_errors, write


def train_head(
    data: Data,
    out: Annotated[pathlib.Path, typer.Option(metavar="FILE", help="The head's file to write, .safetensors.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="The network, see `sscam models`.")] = "squeezenet1_1",
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    test: Annotated[
        str | None, typer.Option(metavar="KIND:PATH", help="A data set to measure the result on, once.")
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="An image may show several classes, as in VOC: mAP, not accuracy.")
    ] = False,
    epochs: Annotated[int, typer.Option(metavar="INTEGER", help="The most epochs.", min=1)] = 60,
    learning_rate: Annotated[float, typer.Option(metavar="NUMBER", help="At the beginning.")] = 1e-3,
    seed: Seed = 0,
) -> None:
    """Train what comes after a layer on a data set's classes; what comes before keeps its parameters.

    A fifth of the images is kept back; the epoch that does best on them counts. The file has the trained parameters
    only, and `--checkpoint FILE` of the other commands puts them on top of the checkpoint that they belong to.

    \b
    Examples:
      sscam train-head --data stanford40:ROOT:train --test stanford40:ROOT:test --out stanford40.safetensors
      sscam train-head --data voc2007:VOCdevkit --multi-label --out voc.safetensors
      sscam train-head --data stanford40:ROOT:train --model resnet18 --layer layer3 --out last-stage.safetensors
    """
    with user_errors():
        if out.suffix != ".safetensors":  # before the work, not after it
            raise ValueError(f"--out is '{out}', expected a file that ends in .safetensors")
        prepare_jax()
        from sscam_jax import data as datasets
        from sscam_jax import networks, training

        source = datasets.source(data)
        later = None if test is None else datasets.source(test)
        chosen = {entry.name: entry for entry in networks.models()}
        base = checkpoint or (chosen[model].default_checkpoint if model in chosen else None)
        trained = training.train_head(
            model,
            source,
            checkpoint=base,
            layer=layer,
            multi_label=multi_label,
            epochs=epochs,
            learning_rate=learning_rate,
            seed=seed,
            progress=lambda epoch, value: write(f"epoch {epoch} of {epochs}: {value:.1f} %"),
        )
        about = {f"{trained.metric} kept back": f"{trained.value:.1f}"}
        if later is not None:
            apply, params = networks.load(model, checkpoint=trained.params, num_classes=len(trained.classes))
            value = training.evaluate_head(apply, params, later, multi_label=multi_label)
            about[f"{trained.metric} on {later.name}"] = f"{value:.1f}"
        out.parent.mkdir(parents=True, exist_ok=True)
        networks.save_head(
            out, trained.params, trained.head, model=model, base=str(base), classes=trained.classes, about=about
        )
        write(f"{out}: " + ", ".join(f"{name} {value} %" for name, value in about.items()))
