"""The files of `sscam explain`: figures, overlays, arrays, and what stands in the JSON report."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sscam_jax import plots
from sscam_jax._support import replacing
from sscam_jax.data.clips import VIDEO_ENDINGS
from sscam_jax.report.result import Explanation, by_class


def stems(paths: Sequence[pathlib.Path]) -> list[str]:
    """What each image's files begin with: its name without the ending, and as much more as tells it from the others.

    Example:
        >>> stems([pathlib.Path("a/goose.jpg"), pathlib.Path("a/goose.png"), pathlib.Path("duck.jpg")])
        ['goose-jpg', 'goose-png', 'duck']
        >>> stems([pathlib.Path("a/goose.jpg"), pathlib.Path("b/goose.jpg")])
        ['a-goose', 'b-goose']
    """
    # Files of one folder differ in their endings, files of one name in their folders.
    most = max((len(path.parts) for path in paths), default=0)
    ways = [(folders, ending) for folders in range(most) for ending in (False, True)]
    chosen: dict[pathlib.Path, str] = {}

    def label(path: pathlib.Path, folders: int, ending: bool) -> str:
        above = [part for part in path.parts[:-1][::-1][:folders][::-1] if part not in ("/", "..")]
        return "-".join([*above, path.stem, *([path.suffix[1:]] if ending else [])])

    for path in paths:
        # Case does not tell files apart on every system.
        rivals = [other for other in paths if other.stem.lower() == path.stem.lower()]
        for way in ways:
            labels = [label(other, *way).lower() for other in rivals]
            if len(set(labels)) == len(labels) and label(path, *way) not in chosen.values():
                chosen[path] = label(path, *way)
                break
        else:
            chosen[path] = f"{path.stem}-{len(chosen) + 1}"
    return [chosen[path] for path in paths]


def _slug(text: str, kept: str = "") -> str:
    # No spaces, slashes, colons or quotes: some system or shell refuses each of them.
    return re.sub(rf"[^a-z0-9{kept}]+", "-", text.lower()).strip("-")


def _overlays(each: Explanation, stem: pathlib.Path, style: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Write the overlays of one class of a photograph; where they are, by method."""
    written = {}
    for method, saliency in each.saliency.items():
        file = stem.with_name(f"{stem.name}_{_slug(method, '+.=')}.png")
        plots.save(plots.overlay(each.images[0], saliency.maps[0], **style), file)
        written[method] = dict(overlay=str(file))
    return written


def _class_report(each: Explanation, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was found for one class; of a film the mean probability, all seconds, and the first frame's passes."""
    methods = {
        method: dict(
            seconds=round(float(each.seconds[method].sum()), 3),
            passes=int(saliency.passes[0]),
            # `full` is 0 for a method without a budget: it always runs all its passes.
            full_passes=int(each.full[method][0]) or int(saliency.passes[0]),
            flat=bool(saliency.flat.any()),
            **files.get(method, {}),
        )
        for method, saliency in each.saliency.items()
    }
    probability = float(np.mean([shown.probability for shown in each.classes]))
    return dict(index=each.classes[0].label, name=each.classes[0].name, probability=probability, methods=methods)


def _write_arrays(found: Explanation, path: pathlib.Path) -> None:
    fields = {
        f"{method}/{field}": getattr(saliency, field)
        for method, saliency in found.saliency.items()
        for field in ("maps", "raw", "weights", "logits")
    }
    if found.is_film:
        fields["frames"] = [frame.number for frame in found.frames if frame is not None]
    # A stream, because NumPy adds ".npz" to a path that does not end so.
    with replacing(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, classes=[each.label for each in found.classes], **fields)


def write(
    found: Explanation, path: pathlib.Path, stem: pathlib.Path, *, arrays: bool, style: dict[str, Any]
) -> dict[str, Any]:
    """Write the files of one image.

    For an image `cat.jpg` these are `cat_figure.png`, an overlay `cat_281-tabby_ss-cam.png` for every class and
    method, and, where arrays are wanted, `cat_maps.npz`: `maps`, `raw` and `weights` of every method under
    `METHOD/maps` and so on, whose leading axis is the classes; and `classes`. For a film `cat.gif` they are a film
    `cat_281-tabby.gif` for every class, with all methods side by side, and the arrays' leading axis is the classes
    times the frames. A video gives `cat_281-tabby.mp4`.

    Args:
        found: what was found for the image.
        path: the image.
        stem: what the files' paths begin with.
        arrays: whether arrays are saved too.
        style: arguments of `plots.overlay`.

    Returns:
        The report of the image, in terms that JSON has.
    """
    classes, films = [], []
    for each in by_class(found):
        begin = stem.with_name(f"{stem.name}_{each.classes[0].label}-{_slug(each.classes[0].name)}")
        # A film of 16 frames and three methods would be 48 overlays: it is one film per class.
        if found.is_film:
            ending = ".mp4" if path.suffix.lower() in VIDEO_ENDINGS else ".gif"
            films.append(str(begin.with_name(begin.name + ending)))
            each.save_film(films[-1], **style)
        classes.append(_class_report(each, {} if found.is_film else _overlays(each, begin, style)))
    report: dict[str, Any] = dict(path=str(path), classes=classes)
    if found.is_film:
        report |= dict(figure=films[0], films=films)
    else:
        report["figure"] = str(stem.with_name(f"{stem.name}_figure.png"))
        plots.save(plots.figure(found.rows, **style), report["figure"])
    if arrays:
        report["maps"] = str(stem.with_name(f"{stem.name}_maps.npz"))
        _write_arrays(found, pathlib.Path(report["maps"]))
    return report
