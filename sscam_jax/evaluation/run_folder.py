"""The run folder: what was measured, batch by batch, so that a killed run goes on where it stopped.

    config.json                 everything that determines the result
    parts/0-of-1/000012.npz     one batch's `Part`, written beside and renamed: there or not, never half
    results.parquet, table.*    made of the parts when all are there, and by `sscam table`

Each process of several has a folder of parts and a lock of its own.
"""

import contextlib
import json
import os
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import filelock
import numpy as np

from sscam_jax._support import imported, replacing
from sscam_jax.evaluation.loop import Part
from sscam_jax.evaluation.statistics import Results

_FORMAT = 1
# The columns of results.parquet that are no metrics.
_ABOUT = ("image", "method", "key", "label", "predicted", "probability", "single_box", "flat", "passes")


class Stored(NamedTuple):
    """What a run folder holds.

    Attributes:
        config: as it was given.
        results: of all parts, in the data set's order.
        probability: of the explained class [n].
        raw: the maps at the target layer's resolution [r, m, n, *grid].
        problems: (id, name, why) of everything that was wrong with the data.
        unfinished: the processes that have not ended, by their numbers.
    """

    config: Mapping[str, Any]
    results: Results
    probability: np.ndarray
    raw: np.ndarray
    problems: Sequence[tuple[int, str, str]]
    unfinished: Sequence[int]


def _differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        there, now = (textwrap.shorten(json.dumps(each), 80, placeholder=" …") for each in (old, new))
        yield f"{path}: {there} there, {now} now"


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' is no run folder: it has no config.json")
    try:
        config = json.loads(path.read_text("utf-8"))
        found = config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged: it is not what a run writes") from error
    if found != _FORMAT:
        raise ValueError(f"'{folder}' was written in format {found}, this version reads format {_FORMAT}")
    return config


class Run:
    """A run folder that this process writes to; use it in a `with` block, which holds its lock.

    Args:
        folder: made where missing.
        config: everything that determines the result, in terms that JSON has: `methods`, `names` of the images by
            id, `processes`, and whatever else.
        process: (index, count) of this process.

    Raises:
        ValueError: the folder holds a run of another configuration, with the differences; another process is
            writing to it; it is not empty and no run folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run(pathlib.Path(folder), dict(processes=1, seed=0)) as run:
        ...         run.done
        ...     Run(pathlib.Path(folder), dict(processes=1, seed=1)).__enter__()
        Traceback (most recent call last):
            ...
        ValueError: '...' holds a run of another configuration (seed: 0 there, 1 now); choose another folder
    """

    def __init__(self, folder: pathlib.Path, config: Mapping[str, Any], process: tuple[int, int] = (0, 1)) -> None:
        self.folder, self.process = folder, process
        self.config = json.loads(json.dumps({"format": _FORMAT, **config}))
        self.parts = folder / "parts" / f"{process[0]}-of-{process[1]}"

    def __enter__(self) -> "Run":
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.json"
        if not path.exists():
            others = [each.name for each in self.folder.iterdir() if not each.name.startswith(".")]
            if others:
                raise ValueError(f"'{self.folder}' is no run folder, and not empty ({others[0]}, …): choose another")
            # Of processes that come at once the first one writes; `link` fails where the file is there.
            with contextlib.suppress(FileExistsError), replacing(self.folder / f".config-{self.process[0]}") as part:
                part.write_text(json.dumps(self.config, indent=1, sort_keys=True) + "\n", "utf-8")
                os.link(part, path)
            (self.folder / f".config-{self.process[0]}").unlink(missing_ok=True)
        found = _read_config(self.folder)
        if differences := sorted(_differences(found, self.config), key=len):
            raise ValueError(
                f"'{self.folder}' holds a run of another configuration ({'; '.join(differences[:5])}); "
                "choose another folder"
            )
        self.parts.mkdir(parents=True, exist_ok=True)
        self.lock = filelock.FileLock(self.folder / f".lock-{self.process[0]}-of-{self.process[1]}")
        try:
            self.lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise ValueError(
                f"another run is writing to '{self.folder}': wait for it, or choose another folder"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    @property
    def done(self) -> int:
        """How many batches of this process are there, from the first without a gap."""
        number = 0
        while (self.parts / f"{number:06}.npz").exists():
            number += 1
        return number

    def write(self, number: int, part: Part, problems: Sequence[tuple[int, str, str]]) -> None:
        """Write batch `number` of this process, with what was wrong with its images."""
        told = json.dumps([list(each) for each in problems])
        with replacing(self.parts / f"{number:06}.npz") as path, path.open("wb") as stream:
            np.savez_compressed(stream, problems=np.array(told), **part._asdict())
            stream.flush()
            os.fsync(stream.fileno())

    def finish(self) -> None:
        """Say that all batches of this process are there."""
        (self.parts / "finished").touch()


def _parts(folder: pathlib.Path) -> Iterator[tuple[Part, list[tuple[int, str, str]]]]:
    for path in sorted(folder.glob("parts/*-of-*/[0-9]*.npz")):
        with np.load(path) as archive:
            fields = {name: archive[name] for name in Part._fields}
            problems = [(int(i), str(name), str(why)) for i, name, why in json.loads(str(archive["problems"]))]
        yield Part(**fields)._replace(columns=tuple(map(str, fields["columns"]))), problems


def read(folder: pathlib.Path) -> Stored:
    """All parts of a run folder, of all its processes, as one.

    Args:
        folder: the run folder.

    Returns:
        `Stored`, whose results hold every image once, in the data set's order.

    Raises:
        FileNotFoundError: it is no run folder.
        ValueError: it is damaged, of another version, or nothing was measured yet.
    """
    config = _read_config(folder)
    found = list(_parts(folder))
    parts = [part for part, _ in found if len(part.ids)]
    if not parts:
        raise ValueError(f"'{folder}' holds no results: no batch with an image to explain is there yet")
    ids = np.concatenate([part.ids for part in parts])
    _, order = np.unique(ids, return_index=True)

    def joined(name: str, axis: int) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts], axis).take(order, axis)

    names = config["names"]
    results = Results(
        names=tuple(names.get(str(i), str(i)) for i in ids[order]),
        methods=tuple(config["methods"]),
        metrics=parts[0].columns,
        values=joined("values", 2),
        flat=joined("flat", 2),
        passes=joined("passes", 2),
        labels=joined("labels", 0),
        predicted=joined("predicted", 0),
        single=joined("single", 0),
    )
    problems = sorted({problem for _, problems in found for problem in problems})
    skipped = sorted({int(i) for part, _ in found for i in part.skipped})
    problems += [(i, names.get(str(i), str(i)), "no class to explain: skipped") for i in skipped]
    count = config["processes"]
    unfinished = [i for i in range(count) if not (folder / "parts" / f"{i}-of-{count}" / "finished").exists()]
    return Stored(config, results, joined("probability", 0), joined("raw", 2), problems, unfinished)


def write_parquet(stored: Stored, path: pathlib.Path) -> None:
    """Every value of a run, a row for each image, method and noise key, for other programs.

    Args:
        stored: the run.
        path: the file to write.

    Raises:
        ImportError: pyarrow is not installed.
    """
    pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
    results = stored.results
    keys, methods, n, _ = results.values.shape
    measured = (results.passes > 0).reshape(-1)

    def spread(values: Any, axis: int) -> np.ndarray:
        shape = [1, 1, 1]
        shape[axis] = -1
        return np.broadcast_to(np.asarray(values).reshape(shape), (keys, methods, n)).reshape(-1)[measured]

    columns: dict[str, Any] = dict(
        image=spread(results.names, 2),
        method=spread(results.methods, 1),
        key=spread(range(keys), 0),
        label=spread(results.labels, 2),
        predicted=spread(results.predicted, 2),
        probability=spread(stored.probability, 2),
        single_box=spread(results.single, 2),
        flat=results.flat.reshape(-1)[measured],
        passes=results.passes.reshape(-1)[measured],
    )
    columns |= {name: results.values[..., k].reshape(-1)[measured] for k, name in enumerate(results.metrics)}
    with replacing(path) as part:
        parquet.write_table(pyarrow.table(columns), part)


def read_parquet(path: pathlib.Path) -> Results:
    """What `write_parquet` wrote: a run's values without its maps.

    Args:
        path: the file.

    Returns:
        The results, images and methods in the order of the run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what a run writes.
        ImportError: pyarrow is not installed.
    """
    pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file '{path}'")
    try:
        table = parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"'{path}' is not what a run writes: {error}") from error
    if absent := [name for name in _ABOUT if name not in table.column_names]:
        raise ValueError(f"'{path}' is not what a run writes: it has no column {', '.join(map(repr, absent))}")
    columns = {name: table[name].to_numpy() for name in table.column_names}

    def numbered(name: str) -> tuple[tuple[str, ...], np.ndarray]:
        words = columns[name].tolist()
        places = {word: i for i, word in enumerate(dict.fromkeys(words))}
        return tuple(places), np.array([places[word] for word in words], int)

    (names, n), (methods, m) = numbered("image"), numbered("method")
    metrics = tuple(name for name in columns if name not in _ABOUT)
    keys = columns["key"]
    shape = (int(keys.max(initial=0)) + 1, len(methods), len(names))

    def spread(values: np.ndarray, empty: Any, *more: int) -> np.ndarray:
        array = np.full((*shape, *more), empty, values.dtype)
        array[keys, m, n] = values
        return array

    _, first = np.unique(n, return_index=True)
    values = np.stack([columns[name] for name in metrics], -1)
    return Results(
        names=names,
        methods=methods,
        metrics=metrics,
        values=spread(values, np.nan, len(metrics)),
        flat=spread(columns["flat"], False),
        passes=spread(columns["passes"], 0),
        labels=columns["label"][first],
        predicted=columns["predicted"][first],
        single=columns["single_box"][first],
    )
