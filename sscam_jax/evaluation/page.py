"""The report of a run: tables, charts, examples and differences image by image, as one HTML file."""

import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from sscam_jax import data, pages
from sscam_jax.evaluation import fingerprint, gallery, statistics, tables
from sscam_jax.evaluation.comparison import Comparison, Section, is_control
from sscam_jax.evaluation.run_folder import Stored
from sscam_jax.types import Batches

# The longer side of a photograph in pixels; how many photographs a page holds besides those of the examples.
_SIDE, _MOST = 160, 500
_EXAMPLES = 2


def _rounded(value: float) -> float | None:
    # Five digits, more than a chart shows: values are most of the file where photographs are left out.
    return None if math.isnan(value) else float(f"{value:.5g}")


def table_of(found: Comparison, section: Section) -> dict[str, Any]:
    """A section's means, and its differences to the baseline, as rows of cells."""
    specs = list(section.metrics.values())
    decimals = [tables.decimals_of(spec, section.means.values[:, k]) for k, spec in enumerate(specs)]

    def cell(estimates: Any, j: int, k: int, sign: str, marks: str, bold: bool) -> dict[str, Any]:
        ends = [float(part[j, k]) for part in estimates]
        text = tables.with_interval(ends, decimals[k], sign=sign)
        return dict(value=_rounded(ends[0]), text=f"{text} {marks}".strip(), bold=bold)

    def means(j: int) -> list[dict[str, Any]]:
        wins = ["⚠" if section.winner[k] == j else "" for k in range(len(specs))]
        return [cell(section.means, j, k, "", wins[k], bool(j == section.best[k])) for k in range(len(specs))]

    def differences(j: int) -> list[dict[str, Any]]:
        marks = ["≈" if alike else "" for alike in section.alike[j]]
        return [cell(section.to_baseline, j, k, "+", marks[k], bool(section.clear[j, k])) for k in range(len(specs))]

    rows = [dict(method=method, control=is_control(method)) for method in found.methods]
    return dict(
        title=section.title,
        images=section.images,
        comparisons=section.comparisons,
        metrics=[dict(title=_title(spec), n=int(n)) for spec, n in zip(specs, section.n, strict=True)],
        means=[row | dict(cells=means(j)) for j, row in enumerate(rows)],
        differences=[row | dict(cells=differences(j)) for j, row in enumerate(rows) if row["method"] != found.baseline],
    )


def _title(spec: Any) -> str:
    arrow = {"higher": "↑", "lower": "↓"}[spec.better]
    return f"{spec.title}{' (%)' if spec.unit == '%' else ''} {arrow}"


def _dots(found: Comparison) -> Iterator[dict[str, Any]]:
    """A panel per metric of all images: every method's mean and interval, as places from 0 to 100."""
    section = found.sections[0]
    for k, spec in enumerate(section.metrics.values()):
        ends = np.stack([part[:, k] for part in section.means])
        if np.isnan(ends[0]).all():
            continue
        low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
        places = 100 * (ends - low) / ((high - low) or 1.0)  # equal means have no scale: all stand at 0
        decimals = tables.decimals_of(spec, ends[0])
        rows = [
            dict(
                method=method,
                control=is_control(method),
                place=[_rounded(float(place)) for place in places[:, j]],
                text=tables.with_interval([float(end) for end in ends[:, j]], decimals),
            )
            for j, method in enumerate(found.methods)
        ]
        yield dict(title=_title(spec), low=f"{low:.{decimals}f}", high=f"{high:.{decimals}f}", rows=rows)


def _picks(stored: Stored, found: Comparison, sample: statistics.Sample) -> dict[str, dict[str, dict[str, list[int]]]]:
    """By metric and method, its best, typical and worst images."""
    specs = found.sections[0].metrics
    return {
        metric: {
            method: dict[str, list[int]](**gallery.pick(_values(sample, m, k), specs[metric].better, count=_EXAMPLES))
            for m, method in enumerate(stored.results.methods)
            if not is_control(method)
        }
        for k, metric in enumerate(sample.metrics)
    }


def _values(sample: statistics.Sample, m: int, k: int) -> np.ndarray:
    """One value per image, NaN where there is none."""
    return np.where(sample.weights[:, k] > 0, sample.values[m, :, k], np.nan)


def _photographs(stored: Stored, batches: Batches, wanted: Iterable[int]) -> tuple[dict[int, str], tuple[int, int]]:
    """The wanted images, by their place in the results, and the input's size."""
    names = batches.names
    place_of = {name: place for place, name in enumerate(stored.results.names)}
    # Read once, batch by batch: a data set need not fit in memory, and only the small pictures are kept.
    keep, found, space = set(wanted), {}, (0, 0)
    for _, batch, _ in batches.read(range(batches.count or 0)):
        space = (batch.images.shape[1], batch.images.shape[2])
        for image, number, there in zip(np.asarray(batch.images), batch.ids, batch.mask, strict=True):
            place = place_of.get(str(number) if names is None else names[int(number)]) if there else None
            if place in keep:
                photo = data.photograph(image, mean=batches.mean, std=batches.std)
                found[place] = pages.picture(photo, _SIDE)
    return found, space


def _check(stored: Stored, batches: Batches) -> None:
    there, now = stored.config["fingerprint"]["data"], json.loads(json.dumps(dict(batches.about)))
    if other := list(fingerprint.differences(there, now)):
        raise ValueError(
            f"batches are of other images than the run ({'; '.join(other[:5])}): give the batches that were measured"
        )
    if batches.count is None:
        raise ValueError(
            "batches is a stream, expected numbered batches, in which a photograph can be found: give a list of batches"
        )


def _examples(picks: Mapping[str, Any]) -> set[tuple[int, str]]:
    """The images that are examples, each with its method."""
    return {
        (image, method)
        for methods in picks.values()
        for method, ranks in methods.items()
        for images in ranks.values()
        for image in images
    }


def _maps(stored: Stored, examples: set[tuple[int, str]]) -> tuple[list[Any], dict[str, int]]:
    """The maps of all examples, and the place of each by "image method"."""
    maps: list[Any] = []
    places: dict[str, int] = {}
    for image, method in sorted(examples):
        kept = stored.kept_maps(image, method)[0]
        if kept.ndim == 2:  # sounds and volumes have no photograph for a map to lie on
            places[f"{image} {method}"] = len(maps)
            maps.append(dict(map=pages.array(kept)) if kept.dtype == np.uint8 else dict(raw=pages.array(kept)))
    return maps, places


def _settings(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    def flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, Mapping) and value:  # an empty one is shown as it is, or its line would be missing
            for key, each in value.items():
                yield from flat(each, f"{name}.{key}" if name else str(key))
        else:
            yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    yield from flat(config["fingerprint"], "")
    yield "this page was made by", ", ".join(f"{name} {number}" for name, number in pages.versions())


def left_out(found: Comparison) -> list[str]:
    """Four sentences at most: the images that are missing or changed, and why."""
    named = (
        (found.unreadable, "left out, since they can't be read"),
        (found.without_class, "left out, since they have no class to explain"),
        (found.boxes_changed, "measured with boxes that the crop or an error changed"),
        (found.unfinished, "not measured yet"),
    )
    return [f"{len(names)} images {what}: {', '.join(names[:10])}" for names, what in named if names]


def _content(stored: Stored, found: Comparison, batches: Batches | None) -> dict[str, Any]:
    """What the page's JavaScript draws: values by method, metric and image; photographs and maps where known."""
    sample = statistics.sample(stored.results, per_class=found.per_class)
    picks = _picks(stored, found, sample)
    specs = found.sections[0].metrics
    m, k = len(stored.results.methods), len(sample.metrics)
    values = [[[_rounded(each) for each in _values(sample, j, i)] for i in range(k)] for j in range(m)]
    return dict(
        colours=pages.colours(),
        methods=list(found.methods),
        controls=[is_control(method) for method in found.methods],
        baseline=found.baseline,
        metrics=[_metric(name, specs[name]) for name in sample.metrics],
        names=list(stored.results.names),
        values=values,
        picks=picks,
        **_pictures(stored, batches, picks),
    )


def _pictures(stored: Stored, batches: Batches | None, picks: Mapping[str, Any]) -> dict[str, Any]:
    """The first photographs and those of the examples, with the examples' maps; nothing without batches."""
    if batches is None:
        return dict(size=[0, 0], photos={}, maps=[], places={})
    _check(stored, batches)
    examples = _examples(picks)
    most = range(min(_MOST, len(stored.results.names)))
    photos, space = _photographs(stored, batches, {*most, *(image for image, _ in examples)})
    maps, places = _maps(stored, examples)
    # JSON's keys are strings.
    return dict(size=list(space), photos={str(i): photo for i, photo in photos.items()}, maps=maps, places=places)


def _metric(name: str, spec: Any) -> dict[str, str]:
    return dict(name=name, title=_title(spec), better=spec.better, unit=spec.unit)


def write(stored: Stored, found: Comparison, path: pathlib.Path, *, batches: Batches | None = None) -> None:
    """Write the report of a run.

    Args:
        stored: what the run folder holds.
        found: the methods compared.
        path: the file.
        batches: the images of the run, to show photographs; None: without.

    Raises:
        MissingPackageError: Jinja is not installed.
        OSError: the file can't be written.
        ValueError: the batches are of other images.
    """
    content = _content(stored, found, batches)
    accuracy = "" if math.isnan(found.accuracy) else f", {found.accuracy:.1f} % of them classified as labelled"
    pages.write(
        path,
        "run.html",
        ("maps.js", "run.js"),
        content,
        title="Evaluation",
        subtitle=f"{found.sections[0].images} images{accuracy}; {len(found.methods)} methods",
        sections=[table_of(found, section) for section in found.sections],
        baseline=found.baseline,
        dots=list(_dots(found)),
        metrics=content["metrics"],
        methods=found.methods,
        shown=[method for method in found.methods if not is_control(method)],
        has_photos=bool(content["photos"]),
        notes=left_out(found),
        settings=list(_settings(stored.config)),
        commands=[],
    )
