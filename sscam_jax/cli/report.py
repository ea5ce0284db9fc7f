"""`sscam report`: photographs, or a run folder, as one HTML file."""

import pathlib
from typing import TYPE_CHECKING, Any

import typer

from sscam_jax.cli._chosen import (
    METHODS,
    chosen_budget,
    chosen_names,
    chosen_photographs,
    chosen_request,
    why_unread,
)
from sscam_jax.cli._options import (
    Budget,
    Checkpoint,
    ChunkSize,
    Class,
    Expected,
    Faithfulness,
    Frames,
    Full,
    Layers,
    Method,
    Model,
    NoiseSeed,
    NumClasses,
    Page,
    PhotographsOrRun,
    RunData,
)
from sscam_jax.cli._terminal import prepare_jax, user_errors, write

if TYPE_CHECKING:
    from sscam_jax.report._plan import Request
    from sscam_jax.report.result import Explanation


def report(
    paths: PhotographsOrRun,
    out: Page = pathlib.Path("report.html"),
    model: Model = None,
    checkpoint: Checkpoint = None,
    layer: Layers = None,
    method: Method = METHODS,
    class_: Class = None,
    expected: Expected = None,
    faithfulness: Faithfulness = False,
    budget: Budget = None,
    full: Full = False,
    seed: NoiseSeed = 0,
    frames: Frames = 16,
    chunk_size: ChunkSize = None,
    num_classes: NumClasses = None,
    data: RunData = None,
) -> None:
    """Write photographs and maps, or a run, as one HTML file.

    The file can be sent to others: it needs no other file and no connection. For photographs it shows the maps of every
    method, class and layer side by side, the most probable classes, every setting, and the command to repeat it. For a
    run folder it shows tables, charts, examples, and differences image by image.

    With neither --model nor --checkpoint the network is SqueezeNet 1.1.

    \b
    Examples:
      sscam report cat.jpg
      sscam report photos --method ss-cam --faithfulness --out photos.html
      sscam report cat.jpg --class tabby --class "tiger cat" --expected tabby
      sscam report cat.jpg --layer features.7 --layer features.12
      sscam report run --data ilsvrc2012:ROOT --out run.html

    Exit code 1: some of several images could not be read, the others are in the file. 2: wrong input.
    """
    with user_errors():
        # Before the minutes of work that end with this file.
        if not out.absolute().parent.is_dir():
            raise ValueError(f"the folder of '{out}' does not exist")
        # A run writes this file with its first batch, so a folder that has it is a run's.
        if len(paths) == 1 and pathlib.Path(paths[0], "config.json").is_file():
            _of_run(pathlib.Path(paths[0]), out, data)
            return
        if data is not None:
            raise ValueError(f"--data is for a run folder, which '{paths[0]}' is not: it has no config.json")
        from sscam_jax.report import photographs

        how = dict(budget=chosen_budget(budget, full), frames=frames, chunk_size=chunk_size, faithfulness=faithfulness)
        request = chosen_request(model, checkpoint, num_classes, method, class_, seed=seed, **how)
        there, failed = chosen_photographs(paths)
        files = dict(zip(chosen_names(there), there, strict=True))
        prepare_jax()
        founds = _explained(files, (model, checkpoint, num_classes), layer or [None], request, failed)
        photographs.write(founds, out, expected=expected, paths=paths)
        write(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    if failed:
        raise typer.Exit(1)


def _explained(
    files: dict[str, pathlib.Path],
    wanted: tuple[str | None, str | None, int | None],
    layers: list[Any],
    request: "Request",
    failed: list[tuple[pathlib.Path, str]],
) -> list["Explanation"]:
    """What each layer gives; images that can't be read are told once and added to `failed`."""
    from sscam_jax.report import _network
    from sscam_jax.report import explain as work
    from sscam_jax.report.result import together

    model, checkpoint, num_classes = wanted
    founds = []
    for i, layer in enumerate(layers):
        network = _network.load(model, checkpoint, layer, num_classes)
        parts = []
        for found in work.explained(files, network, request):
            if not isinstance(found, work.Failed):
                parts.append(found)
            # It fails for every layer, and is told of once.
            elif i == 0:
                failed.append((files[found.name], why_unread(found.error)))
                write(f"error: {failed[-1][1]}", error=True)
        if not parts:
            raise typer.Exit(2)
        founds.append(together(parts))
    return founds


def _of_run(folder: pathlib.Path, out: pathlib.Path, data: str | None) -> None:
    from sscam_jax.evaluation import by_name, study

    result = study.table(folder)
    # A run folder keeps no photographs: they are read from the data set again, as the run read them.
    result.report(out, batches=None if data is None else by_name.batches_again(result.stored.config, data))
    write(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
