"""`sscam train-head`: teach a network the classes of a data set."""

from typing import Any

from sscam_jax.cli._options import (
    Checkpoint,
    Data,
    Epochs,
    HeadFile,
    KnownModel,
    Layer,
    LearningRate,
    MultiLabel,
    Seed,
    Test,
)
from sscam_jax.cli._terminal import prepare_jax, user_errors, write


def _default_checkpoint(model: str) -> str | None:
    """The network's first known checkpoint, whose name the head's file keeps: the head belongs to its parameters."""
    from sscam_jax import networks

    known = {entry.name: entry.default_checkpoint for entry in networks.models()}
    return known.get(model)


def train_head(
    data: Data,
    out: HeadFile,
    model: KnownModel = "squeezenet1_1",
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    test: Test = None,
    multi_label: MultiLabel = False,
    epochs: Epochs = 60,
    learning_rate: LearningRate = 1e-3,
    seed: Seed = 0,
) -> None:
    """Train a network's last layers on the classes of a data set.

    What comes before the target layer keeps its parameters. A fifth of the images is kept back, and the parameters of
    the epoch that does best on them are written. The file holds the trained parameters only: `--checkpoint FILE` of the
    other commands puts them on top of the checkpoint that they were trained with.

    \b
    Examples:
      sscam train-head --data stanford40:ROOT:train --out stanford40.safetensors
      sscam train-head --data voc2007:VOCdevkit --multi-label --out voc.safetensors
      sscam train-head --data stanford40:ROOT --layer features.9 --out more.safetensors
    """
    with user_errors():
        if out.suffix != ".safetensors":  # before the work, not after it
            raise ValueError(f"--out is '{out}', expected a file that ends in .safetensors")
        prepare_jax()
        from sscam_jax import data as datasets
        from sscam_jax import networks, training

        source = datasets.source(data)
        # A wrong path is told before the training, not after it.
        later = None if test is None else datasets.source(test)
        base = checkpoint or _default_checkpoint(model)
        how: dict[str, Any] = dict(multi_label=multi_label, epochs=epochs, learning_rate=learning_rate, seed=seed)

        def tell(epoch: int, value: float) -> None:
            write(f"epoch {epoch} of {epochs}: {value:.1f} %")

        trained = training.train_head(model, source, checkpoint=base, layer=layer, progress=tell, **how)
        about = {f"{trained.metric} kept back": f"{trained.value:.1f}"}
        if later is not None:
            apply, params = networks.load(model, checkpoint=trained.params, num_classes=len(trained.classes))
            value = training.evaluate_head(apply, params, later, multi_label=multi_label)
            about[f"{trained.metric} on {later.name}"] = f"{value:.1f}"
        out.parent.mkdir(parents=True, exist_ok=True)
        # The name of the base and not its parameters: `load` puts both together.
        networks.save_head(
            out, trained.params, trained.head, model=model, base=str(base), classes=trained.classes, about=about
        )
        write(f"{out}: " + ", ".join(f"{name} {value} %" for name, value in about.items()))
