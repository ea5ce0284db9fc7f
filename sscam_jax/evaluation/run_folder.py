"""The run folder: what was measured, batch by batch, so that a killed run goes on where it stopped.

    config.json                 what the numbers depend on, and what is noted beside it
    parts/000012.npz            batch 12, written beside and renamed: there or not, never half
    parts/damaged-000012.npz    a part that could not be read, moved aside; the batch is measured again
    parts/count                 how many batches there are, where only reading the data told
    results.parquet, table.*    made of the parts

Several processes share a folder: each measures its share of the batches, and has a lock of its own.
"""

import contextlib
import json
import os
import pathlib
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import filelock
import numpy as np

from sscam_jax._support import replacing
from sscam_jax.evaluation.fingerprint import differences
from sscam_jax.evaluation.loop import Part
from sscam_jax.evaluation.statistics import Results
from sscam_jax.types import Problem

_FORMAT = 2
_ARRAYS = tuple(name for name in Part._fields if name != "maps")
# What NumPy raises on a damaged archive.
_DAMAGED = (zipfile.BadZipFile, KeyError, ValueError, OSError, EOFError)


class Seal(NamedTuple):
    """What a batch was measured on.

    Attributes:
        arrays: a hash of its arrays.
        read_from: a hash of the files that it was read from; "" where only reading tells.
    """

    arrays: str
    read_from: str


class Stored(NamedTuple):
    """What a run folder holds.

    Attributes:
        config: as it was written.
        results: of all parts, in the order of the images' ids.
        probability: of the explained class [n].
        places: the part that holds each image, and its row there.
        problems: everything that is wrong with the data.
        skipped: the names of the images without a class to explain.
        unfinished: the names of the images that are not measured yet, or of their batches.
    """

    config: Mapping[str, Any]
    results: Results
    probability: np.ndarray
    places: Sequence[tuple[pathlib.Path, int]]
    problems: Sequence[Problem]
    skipped: Sequence[str]
    unfinished: Sequence[str]

    def kept_maps(self, image: int, method: str) -> np.ndarray:
        """What draws one image's maps by a method [keys, ...], see `pictures`."""
        path, row = self.places[image]
        with np.load(path) as archive:
            return archive[f"maps/{self.results.methods.index(method)}"][:, row]


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' is not a run folder: it has no config.json")
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

    `config.json` is written with the first part, so a call that fails before leaves nothing behind.

    Args:
        folder: made where missing.
        fingerprint: everything that determines the numbers, in terms that JSON has.
        noted: what is kept beside it and may differ: `methods` and `metrics` in order, `names`, `batch_size`, `count`.
        process: (index, count) of this process.

    Raises:
        ValueError: the folder holds a run with another fingerprint, with the differences; another process is
            writing to it; it is not empty and not a run folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run(pathlib.Path(folder), dict(seed=0), {}) as run:
        ...         run.finish(0)
        ...     Run(pathlib.Path(folder), dict(seed=1), {}).__enter__()
        Traceback (most recent call last):
            ...
        ValueError: '...' holds a run of another configuration (seed: 0 there, 1 now); choose another folder...
    """

    def __init__(
        self,
        folder: pathlib.Path,
        fingerprint: Mapping[str, Any],
        noted: Mapping[str, Any],
        process: tuple[int, int] = (0, 1),
    ) -> None:
        self.folder, self.process, self.parts = folder, process, folder / "parts"
        self.config = json.loads(json.dumps(dict(format=_FORMAT, fingerprint=fingerprint, noted=noted)))
        self.done: dict[int, Seal] = {}

    def __enter__(self) -> "Run":
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "config.json").exists():
            self._compare()
        elif others := [each.name for each in self.folder.iterdir() if not each.name.startswith(".")]:
            raise ValueError(f"'{self.folder}' is not empty and is not a run folder ({others[0]}, …): choose another")
        index, count = self.process
        self.lock = filelock.FileLock(self.folder / f".lock-{index}-of-{count}")
        try:
            self.lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise ValueError(
                f"another run is writing to '{self.folder}': wait for it, or choose another folder"
            ) from error
        try:
            for number, path in _numbered(self.folder).items():
                if number % count == index:
                    self._take(number, path)
        except BaseException:
            self.lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def _compare(self) -> None:
        found = list(differences(_read_config(self.folder)["fingerprint"], self.config["fingerprint"]))
        if found:
            more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
            raise ValueError(
                f"'{self.folder}' holds a run of another configuration ({'; '.join(found[:5])}{more}); choose another "
                "folder. `sscam table --out` shows what this one holds"
            )

    def _take(self, number: int, path: pathlib.Path) -> None:
        """Note a part that is there; move a damaged one aside."""
        try:
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"{damaged} has another checksum")
            with np.load(path) as fields:
                self.done[number] = Seal(*map(str, fields["seal"]))
        except _DAMAGED as error:
            aside = path.with_name(f"damaged-{path.name}")
            os.replace(path, aside)
            warnings.warn(
                f"'{path}' is damaged ({error}): moved to '{aside.name}', and its batch is measured again",
                RuntimeWarning,
                stacklevel=4,
            )

    def _claim(self) -> None:
        """Write config.json, or find that another process has written the same."""
        path = self.folder / "config.json"
        if not path.exists():
            # Of processes that come at once the first one writes; `link` fails where the file is there.
            part = self.folder / f".config-{self.process[0]}"
            with contextlib.suppress(FileExistsError), replacing(part) as fresh:
                fresh.write_text(json.dumps(self.config, indent=1, ensure_ascii=False) + "\n", "utf-8")
                os.link(fresh, path)
            part.unlink(missing_ok=True)
        self._compare()
        self.parts.mkdir(exist_ok=True)

    def write(self, number: int, part: Part, problems: Sequence[Problem], seal: Seal) -> None:
        """Write batch `number`, with what is wrong with its images and what it was measured on."""
        self._claim()
        fields: dict[str, Any] = {name: getattr(part, name) for name in _ARRAYS}
        fields |= {f"maps/{m}": maps for m, maps in enumerate(part.maps)}
        told = json.dumps([list(each) for each in problems])
        with replacing(self.parts / f"{number:06}.npz") as path, path.open("wb") as stream:
            np.savez_compressed(stream, problems=np.array(told), seal=np.array(seal), **fields)
            stream.flush()
            os.fsync(stream.fileno())
        self.done[number] = seal

    def finish(self, count: int) -> None:
        """Say how many batches there are, as far as this process knows."""
        self._claim()
        if (known := _count(self.folder)) is None or known < count:
            with replacing(self.parts / "count") as path:
                path.write_text(f"{count}\n", "utf-8")


def _count(folder: pathlib.Path) -> int | None:
    """How many batches a process has found."""
    path = folder / "parts" / "count"
    return int(path.read_text("utf-8")) if path.is_file() else None


def _numbered(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The parts by their batches' numbers."""
    return {int(path.stem): path for path in sorted((folder / "parts").glob("[0-9]*.npz"))}


class _Read(NamedTuple):
    path: pathlib.Path
    arrays: Mapping[str, np.ndarray]
    problems: Sequence[Problem]


def _read_part(path: pathlib.Path) -> _Read | None:
    """A part without its maps; None where it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
            return _Read(path, arrays, [Problem(*each) for each in json.loads(str(archive["problems"]))])
    except _DAMAGED:
        return None


def _unfinished(folder: pathlib.Path, noted: Mapping[str, Any], there: Mapping[int, Any]) -> list[str]:
    """The images, or batches, that no part holds."""
    count = _count(folder) if noted.get("count") is None else noted["count"]
    missing = [] if count is None else [number for number in range(count) if number not in there]
    damaged = [f" (its part {number:06}.npz is damaged)" if number in _numbered(folder) else "" for number in missing]
    names = list((noted.get("names") or {}).values())
    size, found = noted.get("batch_size", 1), []
    for number, why in zip(missing, damaged, strict=True):
        found += [name + why for name in names[number * size : (number + 1) * size] or [f"batch {number}"]]
    return found if count is not None else ["what follows in the data set"]


def read(folder: pathlib.Path) -> Stored:
    """All parts of a run folder, as one.

    Args:
        folder: the run folder.

    Returns:
        `Stored`, whose results hold every image once, in the order of their ids.

    Raises:
        FileNotFoundError: it is not a run folder.
        ValueError: it is damaged, of another version, two parts hold the same image, or nothing was measured yet.
    """
    config = _read_config(folder)
    noted = config["noted"]
    found = {number: part for number, path in _numbered(folder).items() if (part := _read_part(path))}
    parts = [part for part in found.values() if len(part.arrays["ids"])]
    if not parts:
        why = "no image has a class to explain" if found else "no batch is measured yet"
        raise ValueError(f"'{folder}' holds no results: {why}")
    ids = np.concatenate([part.arrays["ids"] for part in parts])
    order = np.argsort(ids, kind="stable")
    if len(twice := ids[order][1:][ids[order][1:] == ids[order][:-1]]):
        raise ValueError(f"'{folder}' holds images twice, of ids {twice[:5].tolist()}: each image needs its own id")

    def joined(name: str, axis: int) -> np.ndarray:
        return np.concatenate([part.arrays[name] for part in parts], axis).take(order, axis)

    names = noted.get("names") or {}
    results = Results(
        names=tuple(names.get(str(i), str(i)) for i in ids[order]),
        methods=tuple(noted["methods"]),
        metrics=tuple(map(str, parts[0].arrays["columns"])),
        values=joined("values", 2),
        flat=joined("flat", 2),
        passes=joined("passes", 2),
        labels=joined("labels", 0),
        predicted=joined("predicted", 0),
        single=joined("single", 0),
    )
    places = [(part.path, row) for part in parts for row in range(len(part.arrays["ids"]))]
    skipped = sorted({int(i) for part in found.values() for i in part.arrays["skipped"]})
    return Stored(
        config=config,
        results=results,
        probability=joined("probability", 0),
        places=[places[i] for i in order],
        problems=sorted({problem for part in found.values() for problem in part.problems}),
        skipped=[names.get(str(i), str(i)) for i in skipped],
        unfinished=_unfinished(folder, noted, found),
    )
