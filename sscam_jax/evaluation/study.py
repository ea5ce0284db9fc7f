"""`evaluate`: methods measured on a data set, with any network, into a run folder."""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import filelock
import jax
import numpy as np
from tqdm import tqdm

from sscam_jax import data
from sscam_jax.evaluation import fingerprint, loop, parquet, run_folder, tables
from sscam_jax.evaluation.methods import Methods
from sscam_jax.evaluation.plan import Plan, Target, plan
from sscam_jax.evaluation.result import Described, Result
from sscam_jax.evaluation.run_folder import Run, Seal
from sscam_jax.metrics import Metric
from sscam_jax.types import Apply, Batch, Batches, Params

# Seconds between two lines of progress where there is no terminal.
_QUIET = 30.0


class Meter:
    """Maps and passes done: a bar in a terminal or notebook, else now and then a line on stderr."""

    def __init__(self, images: int | None, per_image: int) -> None:
        self.images, self.per_image = images, per_image
        self.maps, self.passes, self.began = 0, 0, time.monotonic()
        self.told = self.began
        # A bar overwrites its line, which a log file cannot do; a notebook is no terminal, and tqdm draws there.
        self.quiet = not sys.stderr.isatty() and "ipykernel" not in sys.modules
        total = None if images is None else images * per_image
        self.bar = tqdm(total=total, unit="map", disable=self.quiet)

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def __call__(self, maps: int, passes: int) -> None:
        self.maps, self.passes = self.maps + maps, self.passes + passes
        self.bar.update(maps)
        # Not drawn again: `update` has drawn the bar if it was time to.
        self.bar.set_postfix(images=self.maps // self.per_image, passes=self.passes, refresh=False)
        now = time.monotonic()
        if self.quiet and now - self.told > _QUIET:
            self.told = now
            print(self.line(now - self.began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """What is done after some seconds, and what is left."""
        done = self.maps / self.per_image
        of = "" if self.images is None else f" of {self.images}"
        text = f"{done:.0f}{of} images, {self.passes} passes, {self.passes / seconds:.0f} a second"
        if self.images is None or not done:
            return text
        return f"{text}, {(self.images - done) * seconds / done / 60:.0f} min left"


def _seal(batch: Batch, batches: Batches, number: int) -> Seal:
    return Seal(fingerprint.arrays(batch._asdict(), "batch"), batches.digest(number) or "")


def _check_done(run: Run, batches: Batches, first: Seal) -> None:
    """Refuse to go on where a measured batch was of other images; a stream is checked while it is read."""
    for number, seal in sorted(run.done.items()):
        # Batch 0 is read anyway, for its shapes. The hash of the files of the others is known without decoding them.
        now = batches.digest(number)
        if (seal.arrays != first.arrays) if number == 0 else (now is not None and seal.read_from != now):
            raise _other_images(run, number)


def _other_images(run: Run, number: int) -> ValueError:
    return ValueError(
        f"'{run.folder}' holds a run on other images: those of batch {number}, which is measured, have changed since; "
        "choose another folder. `sscam table --out` shows what this one holds"
    )


def _todo(run: Run, count: int | None) -> Iterator[int]:
    """The batches of this process that no part holds; where only reading tells how many there are, all of them."""
    index, step = run.process
    if count is None:
        return itertools.count(index, step)
    return (number for number in range(index, count, step) if number not in run.done)


def _images(batches: Batches, numbers: Iterable[int]) -> int:
    size = batches.batch_size
    # By names where there are any, because the last batch may not be full.
    total = len(batches.names) if batches.names is not None else (batches.count or 0) * size
    return sum(min(size, total - number * size) for number in numbers)


def _first(batches: Batches) -> Batch:
    for _, batch, _ in batches.read([0]):
        return batch
    raise ValueError(
        "batches is empty: expected at least one batch of images. An iterator can be read once only: make it anew"
    )


class _Ids:
    """The ids of all images measured so far: each may come once.

    The ids of a stream are known only when they are read. `run_folder.read` compares those of all processes.
    """

    def __init__(self, folder: pathlib.Path, done: Iterable[int]) -> None:
        self.batch_of: dict[int, int] = {}
        for number in done:
            with np.load(folder / "parts" / f"{number:06}.npz") as part:
                self.add(number, part["ids"])

    def add(self, number: int, ids: np.ndarray) -> None:
        for i in map(int, ids):
            if self.batch_of.setdefault(i, number) != number:
                raise ValueError(
                    f"id {i} comes twice, in the batches {self.batch_of[i]} and {number}: every image needs an id of "
                    "its own, numbered on from batch to batch"
                )


def _measure(run: Run, of: Plan, batches: Batches, seal: Seal) -> None:
    """Measure what this process has to, and write it."""
    todo = _todo(run, batches.count)
    if batches.count is not None:  # listed, because the meter says how much is left
        todo = iter(numbers := list(todo))
    images = None if batches.count is None else _images(batches, numbers)
    count, ids = 0, _Ids(run.folder, run.done)
    with Meter(images, of.maps_per_image) as tell:
        for number, batch, problems in batches.read(todo):
            count = number + 1
            now = seal if number == 0 else _seal(batch, batches, number)
            if number in run.done and run.done[number].arrays != now.arrays:
                raise _other_images(run, number)
            if number in run.done:  # only a stream gives these: its images have to be read to reach the next ones
                continue
            ids.add(number, np.asarray(batch.ids)[np.asarray(batch.mask)])
            run.write(number, loop.measure(of, batch, tell), problems, now)
    # The end of a stream tells how many batches there are; parts of an earlier call may lie behind it.
    run.finish(batches.count or max(count, *(number + 1 for number in run.done), 0))


def evaluate(
    apply: Apply,
    params: Params,
    batches: Batches | Iterable[Batch],
    methods: Methods,
    metrics: Sequence[str] | Mapping[str, Metric],
    *,
    out: str | os.PathLike[str],
    maps: Mapping[str, Any] | None = None,
    seed: int = 0,
    keys: int = 1,
    target: Target = "truth",
    process: tuple[int, int] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Result:
    """Measure methods on batches of any data set, with any network, into a run folder.

    Every batch is written when it is measured. A second call with the same arguments goes on where the first one
    stopped, and ends with the same tables; one whose numbers could differ is refused. Controls (uniform, Gaussian,
    random, mean activation, FakeCAM) are measured beside the methods. The folder gets `table.md`, `table.csv`,
    `table.json`, and `results.parquet` where pyarrow is installed.

    Args:
        apply: the network, cut at the target layer.
        params: its parameters: a tree of arrays.
        batches: `data.batches`, `data.from_arrays`, `data.from_dicts`, or an iterable of `Batch`es of one shape.
        methods: texts for `cams.registry.parse` ("ss-cam:paper,sigma=1"), functions with a method's first four
            arguments that return a `Saliency` or an array of maps [b, *space] in [0, 1], or both; a mapping gives
            them other names. Empty where `maps` has all.
        metrics: names of `metrics.METRICS`, or metrics by name.
        out: the run folder; made where missing.
        maps: maps that another program made, by name: an npz file with the ids as names, a mapping by id, or an array
            [n, *space] whose row i belongs to id i.
        seed: of all random numbers.
        keys: how often methods that draw random numbers are run, each time with another noise.
        target: explain the class that the data gives ("truth") or the network's ("predicted").
        process: (index, count): of `count` processes that share the folder this is number `index`. It measures every
            `count`-th batch. None: what `jax.distributed` says, one process where it is not initialised.
        about: what else shall be compared with what the folder holds, in terms that JSON has.

    Returns:
        What is measured so far, by all processes.

    Raises:
        ValueError: an argument is not possible, or the folder holds a run whose numbers could differ.

    Example:
        >>> import tempfile
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images = np.float32([[[[1, 0], [0, 1]], [[0, 1], [0, 1]]]])
        >>> batch = Batch(images, np.int32([0]), np.float32([[[0, 0, 0.5, 0.5]]]), np.int32([0]), np.array([True]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = evaluate(apply, (), [batch], ["grad-cam"], ["energy"], out=folder)
        >>> found["grad-cam", "energy"].mean
        100.0
    """
    given = data.as_batches(batches)
    # Asked now, because a script may initialise `jax.distributed` after it has imported this package.
    share = process or (jax.process_index(), jax.process_count())
    if not 0 <= share[0] < share[1]:
        raise ValueError(f"process is {share}, expected (index, count) with index from 0 to count - 1")
    first = _first(given)
    colours = (tuple(given.mean), tuple(given.std))
    chosen: dict[str, Any] = dict(maps=maps, key=jax.random.key(seed), keys=keys, target=target, colours=colours)
    # Before the folder is touched: a mistake that left a config.json behind would have the corrected call refused.
    of = plan(apply, params, first, methods, metrics, **chosen)
    seal, folder = _seal(first, given, 0), pathlib.Path(out)
    settings = dict(seed=seed, keys=keys, target=target)
    identity = _identity(of, given, seal, settings, about or {})
    with Run(folder, identity, _noted(of, given, settings), share) as run:
        _check_done(run, given, seal)
        _measure(run, of, given, seal)
    return table(folder)


def _identity(
    of: Plan, batches: Batches, first: Seal, settings: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What determines the numbers: settings in words first, because a refusal names the first differences."""
    try:
        json.dumps(about)
    except TypeError as error:
        raise ValueError(f"about is {about!r}, expected texts, numbers, lists and dicts of them: {error}") from error
    return dict(
        settings=settings,
        about=dict(about),
        data=dict(batches.about),
        images=dict(first_batch=first.arrays),
        **of.identity,
        machine=fingerprint.machine(),
        source=fingerprint.source(),
        # Parts hold methods by their position.
        order=dict(methods=list(of.explainers), metrics=list(of.metrics)),
    )


def _noted(of: Plan, batches: Batches, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept beside the fingerprint and may differ."""
    names = None if batches.names is None else {str(i): name for i, name in batches.names.items()}
    about = [field.name for field in dataclasses.fields(Described)]
    return dict(
        settings=dict(settings),
        methods=list(of.explainers),
        metrics={name: {each: getattr(metric, each) for each in about} for name, metric in of.metrics.items()},
        data=batches.about.get("name"),
        names=names,
        batch_size=batches.batch_size,
        count=batches.count,
        devices=of.mesh.size,
    )


def table(out: str | os.PathLike[str], *, baseline: str | None = None) -> Result:
    """Make a run folder's tables of what it holds, whatever made it.

    Args:
        out: the run folder.
        baseline: the method that differences are taken to; None: Grad-CAM, or the first where it is missing.

    Returns:
        What the tables say.

    Raises:
        ValueError: the baseline is not among the methods, or nothing was measured yet.
        FileNotFoundError: it is not a run folder.
    """
    folder = pathlib.Path(out)
    # Of processes that end together, the last to write has read everything. No lock in a folder that is not a run's.
    with filelock.FileLock(folder / ".lock-tables") if (folder / "config.json").is_file() else contextlib.nullcontext():
        result = Result.of(run_folder.read(folder), baseline)
        tables.write(result.comparison, folder)
        if importlib.util.find_spec("pyarrow"):  # an extra: who has not installed it gets the tables all the same
            parquet.write(result.stored, folder / "results.parquet")
    return result
