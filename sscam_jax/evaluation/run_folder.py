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
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import filelock
import numpy as np

from sscam_jax._support import replacing
from sscam_jax.evaluation import config, parts
from sscam_jax.evaluation.fingerprint import differences
from sscam_jax.evaluation.loop import Part
from sscam_jax.evaluation.parts import DamagedPartError, Seal
from sscam_jax.evaluation.statistics import Results
from sscam_jax.types import Problem


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
        # As the file will give it back: lists for tuples, texts for numbers as keys. Otherwise it would seem to differ.
        self.config = json.loads(json.dumps(dict(format=config.FORMAT, fingerprint=fingerprint, noted=noted)))
        self.done: dict[int, Seal] = {}

    def __enter__(self) -> "Run":
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / "config.json").exists():
            self._compare()
        # Hidden files are locks of a call that failed before it wrote, or what a desktop leaves behind.
        elif others := [each.name for each in self.folder.iterdir() if not each.name.startswith(".")]:
            raise ValueError(f"'{self.folder}' is not empty and is not a run folder ({others[0]}, …): choose another")
        index, count = self.process
        # A lock per share: processes of one run do not wait for one another, and the same share cannot run twice.
        self.lock = filelock.FileLock(self.folder / f".lock-{index}-of-{count}")
        try:
            self.lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise ValueError(
                f"another run is writing to '{self.folder}': wait for it, or choose another folder"
            ) from error
        try:
            for number, path in parts.numbered(self.folder).items():
                if number % count == index:  # the others are for their own process to move aside
                    self._take(number, path)
        except BaseException:  # Ctrl-C too: `__exit__` is not called where `__enter__` fails
            self.lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def _compare(self) -> None:
        found = list(differences(config.read(self.folder)["fingerprint"], self.config["fingerprint"]))
        if found:
            more = f"; and {len(found) - 5} more" if len(found) > 5 else ""
            raise ValueError(
                f"'{self.folder}' holds a run of another configuration ({'; '.join(found[:5])}{more}); choose another "
                "folder. `sscam table --out` shows what this one holds"
            )

    def _take(self, number: int, path: pathlib.Path) -> None:
        """Note a part that is there; move a damaged one aside."""
        try:
            self.done[number] = parts.seal_of(path, len(self.config["noted"].get("methods", ())))
        except DamagedPartError as error:
            # Kept, because a disk that damages files has to be found.
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
        # The file may be another process's, written after this one's `__enter__`.
        self._compare()
        self.parts.mkdir(exist_ok=True)

    def write(self, number: int, part: Part, problems: Sequence[Problem], seal: Seal) -> None:
        """Write batch `number`, with what is wrong with its images and what it was measured on."""
        self._claim()
        parts.write(self.parts / f"{number:06}.npz", part, problems, seal)
        self.done[number] = seal

    def finish(self, count: int) -> None:
        """Say how many batches there are, as far as this process knows."""
        self._claim()
        # Only upwards: a stream may end early for one process, and the longest one is the data set.
        if (known := _count(self.folder)) is None or known < count:
            with replacing(self.parts / "count") as path:
                path.write_text(f"{count}\n", "utf-8")


def _count(folder: pathlib.Path) -> int | None:
    """How many batches a process has found."""
    path = folder / "parts" / "count"
    if not path.is_file():
        return None
    text = path.read_text("utf-8", errors="replace").strip()
    # Seven digits at most: a damaged count would be a list of batches without end.
    if not text.isdecimal() or len(text) > 7:
        raise ValueError(
            f"'{path}' is damaged: it holds {text[:20]!r}, expected the number of batches. Delete it and "
            "run the same command again"
        )
    return int(text)


def _readable(folder: pathlib.Path, methods: int) -> dict[int, parts.Read]:
    """The parts that are not damaged, by their batches' numbers."""
    found = {}
    for number, path in parts.numbered(folder).items():
        with contextlib.suppress(DamagedPartError):  # `_unfinished` names them
            found[number] = parts.read(path, methods)
    return found


def _unfinished(folder: pathlib.Path, noted: Mapping[str, Any], there: Mapping[int, Any]) -> list[str]:
    """The images, or batches, that no part holds."""
    count = _count(folder) if noted.get("count") is None else noted["count"]
    missing = [] if count is None else [number for number in range(count) if number not in there]
    files = parts.numbered(folder)
    damaged = [f" (its part {number:06}.npz is damaged)" if number in files else "" for number in missing]
    names = list((noted.get("names") or {}).values())
    size, found = noted.get("batch_size", 1), []
    for number, why in zip(missing, damaged, strict=True):
        found += [name + why for name in names[number * size : (number + 1) * size] or [f"batch {number}"]]
    return found if count is not None else ["what follows in the data set"]


def _with_images(folder: pathlib.Path, found: Mapping[int, parts.Read]) -> list[parts.Read]:
    """The parts that hold an image; an error where there is none."""
    if full := [part for part in found.values() if len(part.arrays["ids"])]:
        return full
    why = "no batch is measured yet. Run `sscam evaluate`, or sscam.evaluate, with this folder first"
    if found:
        why = "no image has a class to explain. Explain the predicted class, target='predicted', in another folder"
    raise ValueError(f"'{folder}' holds no results: {why}")


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
    said = config.read(folder)
    noted = config.notes(folder, said)
    found = _readable(folder, len(noted["methods"]))
    full = _with_images(folder, found)
    ids = np.concatenate([part.arrays["ids"] for part in full])
    # By ids: which part holds an image depends on the batch size, and tables must not.
    order = np.argsort(ids, kind="stable")
    if len(twice := ids[order][1:][ids[order][1:] == ids[order][:-1]]):
        raise ValueError(
            f"'{folder}' holds images twice, of ids {twice[:5].tolist()}: each image needs its own id. Parts of two "
            "runs are mixed: measure again in another folder"
        )

    def joined(name: str, axis: int) -> np.ndarray:
        return np.concatenate([part.arrays[name] for part in full], axis).take(order, axis)

    names = noted.get("names") or {}
    results = Results(
        names=tuple(names.get(str(i), str(i)) for i in ids[order]),
        methods=tuple(noted["methods"]),
        metrics=tuple(map(str, full[0].arrays["columns"])),
        values=joined("values", 2),
        flat=joined("flat", 2),
        passes=joined("passes", 2),
        labels=joined("labels", 0),
        predicted=joined("predicted", 0),
        single=joined("single", 0),
    )
    places = [(part.path, row) for part in full for row in range(len(part.arrays["ids"]))]
    skipped = sorted({int(i) for part in found.values() for i in part.arrays["skipped"]})
    return Stored(
        config=said,
        results=results,
        probability=joined("probability", 0),
        places=[places[i] for i in order],
        problems=sorted({problem for part in found.values() for problem in part.problems}),
        skipped=[names.get(str(i), str(i)) for i in skipped],
        unfinished=_unfinished(folder, noted, found),
    )
