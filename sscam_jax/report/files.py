"""The files of `sscam explain`: figures, overlays, arrays, and what stands in the JSON report."""

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sscam_jax import plots
from sscam_jax._support import replacing
from sscam_jax.report.result import Explanation


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
    return re.sub(rf"[^a-z0-9{kept}]+", "-", text.lower()).strip("-")


def write(
    found: Explanation, path: pathlib.Path, stem: pathlib.Path, *, arrays: bool, style: dict[str, Any]
) -> dict[str, Any]:
    """Write the files of one image.

    For an image `cat.jpg` these are `cat_figure.png`, an overlay `cat_281-tabby_ss-cam.png` for every class and
    method, and, where arrays are wanted, `cat_maps.npz`: `maps`, `raw` and `weights` of every method under
    `METHOD/maps` and so on, whose leading axis is the classes; and `classes`.

    Args:
        found: what was found for the image.
        path: the image.
        stem: what the files' paths begin with.
        arrays: whether arrays are saved too.
        style: arguments of `plots.overlay`.

    Returns:
        The report of the image, in terms that JSON has.
    """
    classes = []
    for i, each in enumerate(found.classes):
        methods = {}
        for method, saliency in found.saliency.items():
            name = f"{stem.name}_{each.label}-{_slug(each.name)}_{_slug(method, '+.=')}.png"
            plots.save(plots.overlay(found.images[i], saliency.maps[i], **style), stem.with_name(name))
            methods[method] = dict(
                seconds=round(float(found.seconds[method][i]), 3),
                passes=int(saliency.passes[i]),
                full_passes=int(found.full[method][i]) or int(saliency.passes[i]),
                flat=bool(saliency.flat[i]),
                overlay=str(stem.with_name(name)),
            )
        classes.append(dict(index=each.label, name=each.name, probability=each.probability, methods=methods))
    figure = stem.with_name(f"{stem.name}_figure.png")
    plots.save(plots.figure(found.rows, **style), figure)
    report: dict[str, Any] = dict(path=str(path), figure=str(figure), classes=classes)
    if arrays:
        report["maps"] = str(stem.with_name(f"{stem.name}_maps.npz"))
        fields = {
            f"{method}/{field}": getattr(saliency, field)
            for method, saliency in found.saliency.items()
            for field in ("maps", "raw", "weights", "logits")
        }
        with replacing(pathlib.Path(report["maps"])) as part, part.open("wb") as stream:
            np.savez_compressed(stream, classes=[each.label for each in found.classes], **fields)
    return report
