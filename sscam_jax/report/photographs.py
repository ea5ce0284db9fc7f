"""The report of photographs: one HTML file with the maps of every method, class and layer."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from sscam_jax import pages
from sscam_jax.cams import registry
from sscam_jax.evaluation import pictures
from sscam_jax.report import repeat
from sscam_jax.report.result import Explanation

# The longer side of a photograph in the page, in pixels. Raw maps of more values than these are kept in 16 bits.
_SIDE, _MANY = 480, 4096
_TOP = 5


def _probabilities(logits: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    # In float64 the five percentages add up; without the largest logit, exp overflows.
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    return exponentials / exponentials.sum()


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _top(found: Explanation, row: int, expected: int | None) -> list[dict[str, Any]]:
    """The five most probable classes, and the expected one where it is not among them."""
    shares = _probabilities(np.asarray(next(iter(found.saliency.values())).logits[row]))
    # Stable, so that the page is the same each time where two classes have the same probability.
    order = [int(label) for label in np.argsort(-shares, kind="stable")]
    shown = order[:_TOP]
    if expected is not None and expected not in shown:
        shown.append(expected)
    return [
        dict(
            name=found.request.name(label),
            probability=float(shares[label]),
            percent=_percent(shares[label]),
            bar=round(100 * float(shares[label]), 2),
            rank=order.index(label) + 1,
            expected=label == expected,
        )
        for label in shown
    ]


def _stored(raw: Float[np.ndarray, "*grid"], saliency_map: Float[np.ndarray, "*space"]) -> dict[str, Any]:
    """A raw map, and the map too where it does not follow from it."""
    # The page enlarges a raw map as the library does. Only a map that is not its enlargement is stored itself.
    kept = pictures.encoded(raw[None, None], saliency_map[None, None])[0, 0]
    entry = dict(raw=pages.array(raw if raw.size <= _MANY else raw.astype(np.float16)))
    return entry if kept.dtype != np.uint8 else entry | dict(map=pages.array(kept))


def _about(found: Explanation, method: str, row: int) -> str:
    """What a screen reader says of a map: where it is highest."""
    values = found.saliency[method].maps[row]
    what = f"{registry.title(method)} of {found.names[row]} for {found.classes[row].name}"
    if found.saliency[method].flat[row]:
        return f"{what}: flat, it says nothing"
    y, x = np.unravel_index(int(values.argmax()), values.shape)
    high, wide = ((place + 0.5) / side for place, side in zip((y, x), values.shape, strict=True))
    covered = float((values > 0.5).mean())
    return (
        f"{what}: highest at {100 * wide:.0f} % from the left and {100 * high:.0f} % from the top; "
        f"above one half on {100 * covered:.0f} % of the image"
    )


def _faithful(found: Explanation, method: str, row: int) -> str:
    if method not in found.faithfulness:
        return ""
    of = found.faithfulness[method]
    return f"drop {of.drop[row]:.1f} %, insertion {of.insertion[row]:.3f}, deletion {of.deletion[row]:.3f}"


def _curve(found: Explanation, kind: str, row: int) -> dict[str, Any]:
    """A curve and its area per method."""
    each = found.faithfulness.values()
    return dict(
        # Three digits are finer than a chart's pixels.
        values=[[round(float(value), 3) for value in getattr(of, f"{kind}_curve")[row]] for of in each],
        areas=[f"{getattr(of, kind)[row]:.3f}" for of in each],
    )


def _by_image(found: Explanation) -> list[tuple[str, list[int]]]:
    """The name and the rows of each image; every frame of a film is an image."""
    rows: dict[Any, list[int]] = {}
    for row, (name, frame) in enumerate(zip(found.names, found.frames, strict=True)):
        # By identity too: nothing keeps two images of an `Explanation` from having the same name.
        rows.setdefault((name, frame and frame.number, id(found.images[row])), []).append(row)
    return [(name if number is None else f"{name}, frame {number}", of) for (name, number, _), of in rows.items()]


class _Report:
    """What the template shows, gathered image after image; `maps` and `charts` are what the script reads."""

    def __init__(self, founds: Sequence[Explanation], expected: Sequence[int | None]) -> None:
        self.founds, self.expected = founds, expected
        self.maps: list[dict[str, Any]] = []
        self.charts: list[dict[str, Any]] = []

    def images(self) -> Iterator[dict[str, Any]]:
        for (name, rows), expected in zip(_by_image(self.founds[0]), self.expected, strict=True):
            yield self._image(name, rows, expected)

    def _image(self, name: str, rows: Sequence[int], expected: int | None) -> dict[str, Any]:
        first = self.founds[0]
        photo = first.images[rows[0]]
        top = _top(first, rows[0], expected)
        return dict(
            name=name,
            photo=pages.picture(photo, _SIDE),
            width=photo.width,
            height=photo.height,
            top=top,
            expected="" if expected is None else first.request.name(expected),
            right=top[0]["expected"],
            maps=[self._map(layer, row, m) for row in rows for layer in range(len(self.founds)) for m in self.methods],
            charts=[self._chart(i, row) for row in rows for i, found in enumerate(self.founds) if found.faithfulness],
        )

    @property
    def methods(self) -> range:
        return range(len(self.founds[0].saliency))

    def _map(self, layer: int, row: int, m: int) -> dict[str, Any]:
        found = self.founds[layer]
        method = list(found.saliency)[m]
        saliency, class_ = found.saliency[method], found.classes[row]
        self.maps.append(_stored(np.asarray(saliency.raw[row]), np.asarray(saliency.maps[row])))
        return {
            "index": len(self.maps) - 1,
            "layer": layer,
            "label": class_.label,
            "class": class_.name,
            "method": m,
            "title": registry.title(method),
            "cost": f"{found.passes(method, row)}, {found.seconds[method][row]:.2g} s",
            "flat": bool(saliency.flat[row]),
            "faithful": _faithful(found, method, row),
            "about": _about(found, method, row),
        }

    def _chart(self, layer: int, row: int) -> dict[str, Any]:
        found = self.founds[layer]
        self.charts.append({kind: _curve(found, kind, row) for kind in ("insertion", "deletion")})
        class_ = found.classes[row]
        return {"index": len(self.charts) - 1, "layer": layer, "label": class_.label, "class": class_.name}


def _layers(founds: Sequence[Explanation]) -> list[str]:
    """What tells the explanations apart: the layer, or all of the network's names where layers agree."""
    layers = [found.about.get("network", {}).get("layer", "") for found in founds]
    if len(set(layers)) == len(layers):
        return layers
    return [f"{i + 1}: {found.network}" for i, found in enumerate(founds)]


def _settings(founds: Sequence[Explanation]) -> Iterator[tuple[str, str]]:
    first = founds[0]
    for i, found in enumerate(founds):
        yield f"network {i + 1}" if len(founds) > 1 else "network", found.network
        yield "hash of its parameters", str(found.about.get("parameters", "unknown"))
    for note in first.notes:
        yield "note", note
    for method, choices in first.about.get("methods", {}).items():
        yield method, ", ".join(f"{name}={value}" for name, value in choices.items()) or "no options"
    for field in dataclasses.fields(first.request):
        # The methods stand above with all their choices; names of classes would fill pages.
        if field.name not in ("methods", "class_names"):
            yield field.name, str(getattr(first.request, field.name))
    for name in ("device", "xla_flags", "matmul_precision"):
        yield name.replace("_", " "), str(first.about.get(name, "unknown"))
    yield "hash of the package's source", str(first.about.get("source", "unknown"))
    yield from pages.versions()


def _commands(
    founds: Sequence[Explanation], paths: Sequence[str] | None, expected: Sequence[str | int]
) -> Iterator[tuple[str, str]]:
    first = founds[0]
    # Names have no folders, so a command made of paths is found from where it was called.
    names = list(paths or dict.fromkeys(first.names))
    networks = [found.about.get("network", {}) for found in founds]
    # An array has no file that a command could name.
    if (command := repeat.shell(names, networks, first.request, expected)) and not _unnamed(names):
        yield "The command that makes this report again", command
    for found, network in zip(founds, networks, strict=True):
        yield "The same in Python", repeat.python(names, network, found.request)


def _unnamed(names: Sequence[str]) -> bool:
    """Whether an image was an array, which has no file."""
    return any(name.startswith("image ") and name[6:].isdecimal() for name in names)


def _shares(founds: Sequence[Explanation]) -> list[float]:
    """The share of changed pixels after each step of a curve: the same of all."""
    of = next((each for found in founds for each in found.faithfulness.values()), None)
    return [] if of is None else [round(float(share), 4) for share in of.shares]


def _check_others(founds: Sequence[Explanation]) -> None:
    first, *others = founds
    shown = [(name, class_.label) for name, class_ in zip(first.names, first.classes, strict=True)]
    for other in others:
        theirs = [(name, class_.label) for name, class_ in zip(other.names, other.classes, strict=True)]
        if theirs != shown:
            raise ValueError(
                f"others explain {theirs[:3]} …, the first explains {shown[:3]} …: expected the same images and "
                "classes; name the classes in both calls"
            )
        if list(other.saliency) != list(first.saliency):
            raise ValueError(
                f"others have the methods {', '.join(other.saliency)}, expected {', '.join(first.saliency)}"
            )


def _expected(found: Explanation, given: Sequence[str | int] | None) -> list[int | None]:
    """The expected class of each image, as indices."""
    images = len(_by_image(found))
    if given is None:
        return [None] * images
    # A string is a sequence too: "cat" would be the classes c, a and t.
    if isinstance(given, str) or len(given) not in (1, images):
        raise ValueError(f"expected is {given!r}: give one class per image, {images}, or one for all of them")
    labels: list[int | None] = [found.request.label(each) for each in given]
    return labels * images if len(labels) == 1 else labels


def write(
    founds: Sequence[Explanation],
    path: pathlib.Path,
    *,
    expected: Sequence[str | int] | None = None,
    paths: Sequence[str] | None = None,
) -> None:
    """Write the report of explanations of the same images.

    Args:
        founds: explanations at one or several layers.
        path: the file.
        expected: the class that each image shows, by name or index; one per image, or one for all of them.
        paths: what the command to repeat it names; None: the images' names.

    Raises:
        MissingPackageError: Jinja is not installed.
        OSError: the file can't be written.
        ValueError: the explanations have other images, classes or methods, or an expected class is not known.
    """
    # The page puts row i of every explanation side by side, so their rows must be of the same images and classes.
    _check_others(founds)
    first = founds[0]
    report = _Report(founds, _expected(first, expected))
    images = list(report.images())
    methods, layers = [registry.title(method) for method in first.saliency], _layers(founds)
    data = dict(
        colours=pages.colours(),
        size=[first.request.size] * 2,
        maps=report.maps,
        charts=report.charts,
        shares=_shares(founds),
        titles=methods,
        methods=list(first.saliency),
        layers=layers,
    )
    pages.write(
        path,
        "photographs.html",
        ("maps.js", "photographs.js"),
        data,
        title=images[0]["name"] if len(images) == 1 else "Class activation maps",
        subtitle=f"Which parts of {'the image' if len(images) == 1 else 'each image'} a network uses for a class: "
        + "; ".join(dict.fromkeys(found.network for found in founds)),
        images=images,
        methods=methods,
        layers=layers,
        # Where each image has one class, a switch of classes would hide whole images.
        classes={class_.label: class_.name for class_ in first.classes} if len(images) < len(first.names) else {},
        expected=expected is not None,
        colours=pages.COLOURS,
        settings=list(_settings(founds)),
        commands=list(_commands(founds, paths, expected or ())),
    )
