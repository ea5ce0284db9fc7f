"""One visit to the app: what is asked for, what it will cost, and the maps, numbers and files that come of it."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from sscam_jax import data, networks, plots
from sscam_jax.cams import registry
from sscam_jax.report import _network, photographs, repeat
from sscam_jax.report._plan import Request
from sscam_jax.report.estimate import estimate
from sscam_jax.report.explain import Failed, explained
from sscam_jax.report.result import Explanation, together

MOST_PASSES = 1000
"""The largest budget of a map, and the largest N: of a method without a budget, N is what a map costs."""

MOST_NETWORKS = 2
"""The networks that can be compared."""

TWO_CLICKS = "Click two corners on the photograph to measure the energy in a box."
"""What is told before a corner is set."""

# Pixels of a photograph; photographs at once.
_PIXELS, _MOST_IMAGES = 25_000_000, 2


# A network, cut at the same layer, is the same object for all visitors, or its programs would be compiled for each.
# Four, because each layer is another entry with all its parameters.
@functools.lru_cache(maxsize=4)
def _loaded(checkpoint: str, layer: str) -> _network.Network:
    return _network.load(None, checkpoint, layer or None, None)


def _text(method: str, preset: str, sigma: int | float | None, samples: int | float | None) -> str:
    """A method with the settings that it has, as `registry.parse` reads it."""
    known = registry.options(method)
    if samples is None and "budget" not in known and known.get("n_samples", 0) > MOST_PASSES:
        samples = MOST_PASSES
    # One row of controls serves all methods, so a setting that a method does not have is left out, not refused.
    parts = [preset] if preset and preset in registry.ENTRIES[method].presets else []
    parts += [f"sigma={sigma:g}"] if sigma is not None and "sigma" in known else []
    parts += [f"n_samples={int(samples)}"] if samples is not None and "n_samples" in known else []
    return f"{method}:{','.join(parts)}" if parts else method


def _names(files: Sequence[str]) -> list[str]:
    """What the photographs are called; all pictures of a camera have the same file name."""
    names = [pathlib.Path(file).name for file in files]
    return names if len(set(names)) == len(names) else [f"{i} {name}" for i, name in enumerate(names, 1)]


def _photographs(files: Sequence[str]) -> dict[str, pathlib.Path]:
    """The photographs by their names, each of a size that this machine can take."""
    images = dict(zip(_names(files), map(pathlib.Path, files), strict=True))
    for name, path in images.items():
        # A small file can hold a huge picture, and a request keeps several copies of it.
        try:
            width, height = data.open_image(path).size
        except (ValueError, OSError) as error:
            # Where the server keeps uploads is not a visitor's business.
            raise ValueError(str(error).replace(str(path), name)) from error
        if width * height > _PIXELS:
            raise ValueError(f"{name} has {width * height:,} pixels, at most {_PIXELS:,} are taken: make it smaller")
    return images


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a visitor asked for, checked."""

    images: Mapping[str, pathlib.Path]
    networks: Sequence[_network.Network]
    requests: Sequence[Request]
    """One per network: each knows its own classes."""

    @classmethod
    def of(
        cls,
        files: Sequence[str] | None,
        checkpoints: Sequence[str],
        layer: str,
        methods: Sequence[str],
        classes: Sequence[str],
        preset: str,
        sigma: int | float | None,
        samples: int | float | None,
        budget: int | float,
        seed: int | float,
        measure: bool,
    ) -> "Asked":
        """Check what the controls say.

        Raises:
            ValueError: something is missing, too large or not known.
        """
        if not files:
            raise ValueError("there is no photograph: drop one, take one, or choose an example")
        if len(files) > _MOST_IMAGES or len(checkpoints) > MOST_NETWORKS or not checkpoints:
            raise ValueError(f"choose 1 to {MOST_NETWORKS} networks and at most {_MOST_IMAGES} photographs")
        if samples is not None and samples > MOST_PASSES:
            raise ValueError(f"N is {samples:g}, at most {MOST_PASSES} samples are taken: choose fewer")
        # Before a network is loaded: a wrong photograph is told at once.
        images = _photographs(files)
        texts = [_text(method, preset, sigma, samples) for method in methods]
        loaded = [_loaded(checkpoint, layer.strip()) for checkpoint in checkpoints]
        known = [networks.class_names(each.about["model"], each.about["checkpoint"]) for each in loaded]
        # Class 7 of one head is not class 7 of another.
        if classes and len(set(known)) > 1:
            raise ValueError("these networks know different classes: leave the classes empty, or choose one network")
        request = Request(
            methods=texts,
            budget=_budget(texts, min(int(budget), MOST_PASSES)),
            seed=int(seed),
            frames=1,  # an animation of hundreds of frames would keep all other visitors waiting
            faithfulness=measure,
        )
        requests = [
            dataclasses.replace(
                request, classes=tuple(classes), class_names=names, num_classes=len(names or range(1000))
            )
            for names in known
        ]
        return cls(images, loaded, requests)


# Every σ that a visitor types is another key.
_MOST_FORECASTS = 256
_forecasts: dict[Any, list[tuple[str, int, float]]] = {}


def forecast(asked: Asked) -> list[list[Any]]:
    """What each method will cost on this machine: network, method, passes, seconds.

    A forecast compiles and times a chunk. It is kept, because other photographs need nearly as many passes.
    """
    rows = []
    for network, request in zip(asked.networks, asked.requests, strict=True):
        # Without its classes, one forecast serves visitors of all classes: a class takes the same passes.
        maps = len(asked.images) * max(1, len(request.labels()))
        one = dataclasses.replace(request, classes=())
        key = (network.apply, *network.about.values(), *one.methods, one.budget)
        if key not in _forecasts:
            if len(_forecasts) == _MOST_FORECASTS:
                _forecasts.clear()
            first = data.open_image(next(iter(asked.images.values())))
            _forecasts[key] = [(each.method, each.passes, each.seconds) for each in estimate(first, 1, network, one)]
        for method, passes, seconds in _forecasts[key]:
            rows.append([network.about["model"], method, maps * passes, round(maps * seconds, 2)])
    return rows


def found_so_far(asked: Asked) -> Iterator[list[Explanation]]:
    """An explanation per network, after each method one more method."""
    done: list[Explanation] = []
    seen: tuple[int, ...] = ()
    for network, request in zip(asked.networks, asked.requests, strict=True):
        if seen and request.class_names == asked.requests[0].class_names:
            # This network explains what the first one sees.
            request = dataclasses.replace(request, classes=seen)
        so_far: Explanation | None = None
        for method in request.methods:
            # One method per call: the visitor sees its maps before the next one runs, and can stop there.
            one = dataclasses.replace(request, methods=[method], budget=_budget([method], request.budget))
            parts = list(explained(asked.images, network, one))
            if failed := [each for each in parts if isinstance(each, Failed)]:
                raise ValueError(str(failed[0].error))
            new = together([each for each in parts if isinstance(each, Explanation)])
            so_far = new if so_far is None else _with(so_far, new)
            # The report names what was asked for: until now these methods, not all.
            there = list(so_far.saliency)
            said = dataclasses.replace(request, methods=there, budget=_budget(there, request.budget))
            so_far = dataclasses.replace(so_far, request=said)
            yield [*done, so_far]
        assert so_far is not None
        done.append(so_far)
        seen = seen or tuple(dict.fromkeys(each.label for each in so_far.classes))


def _budget(methods: Sequence[str], budget: Any) -> Any:
    """A budget where one of the methods takes one: a request of others refuses it."""
    return budget if any("budget" in registry.parse(method)[1] for method in methods) else "auto"


def _with(found: Explanation, new: Explanation) -> Explanation:
    """An explanation with the methods of another one too."""
    about = dict(found.about, methods={**found.about["methods"], **new.about["methods"]})
    names = ("saliency", "seconds", "full", "faithfulness")
    joined: dict[str, Any] = {name: {**getattr(found, name), **getattr(new, name)} for name in names}
    return dataclasses.replace(found, about=about, **joined)


def _boxed(picture: UInt8[np.ndarray, "h w 3"], box: Sequence[float] | None) -> UInt8[np.ndarray, "h w 3"]:
    """A picture with the box y0, x0, y1, x1, in shares, drawn on it: white and black, to be seen on every colour."""
    if box is None:
        return picture
    image, (height, width) = Image.fromarray(picture), picture.shape[:2]
    y0, x0, y1, x1 = (round(each * (side - 1)) for each, side in zip(box, 2 * (height, width), strict=True))
    line = max(1, height // 150)  # a photograph is shown smaller than it is, and one pixel would vanish
    draw = ImageDraw.Draw(image)
    draw.rectangle((x0, y0, x1, y1), outline="black", width=2 * line)
    draw.rectangle((x0, y0, x1, y1), outline="white", width=line)
    return np.asarray(image)


def overlays(founds: Sequence[Explanation], box: Sequence[float] | None) -> list[tuple[np.ndarray, str]]:
    """Pictures with captions, for a gallery, with the box y0, x0, y1, x1 where there is one."""
    several = len({found.network for found in founds}) > 1
    shown = []
    for found in founds:
        for i, class_ in enumerate(found.classes):
            for method, saliency in found.saliency.items():
                network = f", {found.about['network']['model']}" if several else ""
                caption = f"{registry.title(method)}: {class_.name}, {100 * class_.probability:.1f} %{network}"
                shown.append((_boxed(plots.overlay(found.images[i], saliency.maps[i]), box), caption))
    return shown


def numbers(founds: Sequence[Explanation], box: Sequence[float] | None) -> list[list[Any]]:
    """A row per map: the probability, and where they are measured drop, insertion, deletion, energy in the box."""
    rows = []
    for found in founds:
        for i, class_ in enumerate(found.classes):
            for method, saliency in found.saliency.items():
                row = [found.about["network"]["model"], found.names[i], class_.name, method]
                row += [round(100 * class_.probability, 2), found.passes(method, i)]
                of = found.faithfulness.get(method)
                measured = ["", "", ""] if of is None else [of.drop[i], of.insertion[i], of.deletion[i]]
                row += [value if value == "" else round(float(value), 4) for value in measured]
                rows.append([*row, "" if box is None else round(energy(np.asarray(saliency.maps[i]), box), 2)])
    return rows


def energy(values: Float[np.ndarray, "h w"], box: Sequence[float]) -> float:
    """The percentage of a map's energy inside a box given as shares y0, x0, y1, x1; see `metrics.energy`."""
    height, width = values.shape
    y0, x0, y1, x1 = box
    inside = values[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
    return 100 * float(inside.sum() / values.sum()) if values.any() else 0.0


def files_of(founds: Sequence[Explanation], folder: pathlib.Path) -> list[str]:
    """The report, the picture and the arrays, as files to download; networks of other classes have reports apart."""
    figure, arrays = folder / "figure.png", folder / "maps.npz"
    # A report puts the networks' maps of the same class side by side.
    alike = len({tuple(found.request.class_names or ()) for found in founds}) == 1
    groups = [founds] if alike else [[found] for found in founds]
    reports = [folder / ("report.html" if i == 1 else f"report_{i}.html") for i in range(1, len(groups) + 1)]
    for some, report in zip(groups, reports, strict=True):
        photographs.write(some, report)
    founds[0].save(figure)
    fields = {
        f"{i}/{method}/{name}": getattr(saliency, name)
        for i, found in enumerate(founds)
        for method, saliency in found.saliency.items()
        for name in ("maps", "raw", "weights", "logits")
    }
    np.savez_compressed(arrays, **fields)
    return [*map(str, reports), str(figure), str(arrays)]


def python_lines(founds: Sequence[Explanation]) -> str:
    """The Python that repeats what was found, for each network."""
    return "\n\n".join(
        repeat.python(list(dict.fromkeys(found.names)), found.about["network"], found.request) for found in founds
    )


def new_photograph(file: str | None) -> tuple[Any, Any, str]:
    """Another photograph, or none: no corners, no box, and what to tell, for instance that it can't be read."""
    try:
        _photographs([] if file is None else [file])
    except (ValueError, OSError) as error:
        return [], None, str(error)
    return [], None, TWO_CLICKS


def corner(file: str, corners: Sequence[Sequence[float]], x: float, y: float) -> tuple[Any, Any, str]:
    """A click on a photograph: two of them are opposite corners of a box.

    Args:
        file: the photograph.
        corners: those that were clicked before, each y, x as shares of the photograph.
        x: the click's column in pixels.
        y: its row in pixels.

    Returns:
        The corners, the box y0, x0, y1, x1 or None, and what to tell.
    """
    photo = data.open_image(file)
    place = [y / photo.height, x / photo.width]
    # After two corners, a third click begins another box.
    if len(corners) != 1:
        return [place], None, "One corner is set. Click at the opposite one."
    (ya, xa), (yb, xb) = corners[0], place
    box = [min(ya, yb), min(xa, xb), max(ya, yb), max(xa, xb)]
    told = ", ".join(
        f"{name} {100 * each:.0f} %" for name, each in zip(("top", "left", "bottom", "right"), box, strict=True)
    )
    return [*corners, place], box, f"Box: {told}"
