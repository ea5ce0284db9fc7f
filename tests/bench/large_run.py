"""A run of 50,000 images by many processes, on a simulated clock: where the time goes. Writes results/large_run.md.

    python tests/bench/large_run.py

The shares are those of `evaluation.study`, and parts are written, found again and merged by `evaluation.run_folder`.
Only the measuring of a batch is simulated: it takes its images' passes at a given rate, and a process may be slower
than others, or die and come back. What is written and read is timed on this machine's disk.
"""

import argparse
import pathlib
import resource
import statistics
import tempfile
import time
import types
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from overlap import photographs

from sscam_jax import data
from sscam_jax.evaluation import run_folder, study
from sscam_jax.evaluation.loop import Part

RESULTS = pathlib.Path(__file__).parent / "results"
IMAGES, BATCH = 50_000, 16
METRICS = ("average-drop", "average-increase", "average-gain", "energy")


class Setting(NamedTuple):
    """What a run is simulated with.

    Attributes:
        processes: how many share the run.
        seconds: of an image whose channels all vary, on one process.
        start: seconds until a process measures: the network is loaded, programs are compiled.
        slow: how much longer the slowest tenth of the processes takes.
        deaths: the mean number of times that a process dies during the run.
        back: seconds until a dead process comes back.
        varying: whether images differ in how many of their channels vary.
    """

    processes: int
    seconds: float = 0.5
    start: float = 120.0
    slow: float = 1.0
    deaths: float = 0.0
    back: float = 60.0
    varying: bool = False


def durations(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """Seconds per batch. The share of channels that vary is between .7 and 1, as in the stored runs of ResNet-18."""
    images = np.full(IMAGES, setting.seconds)
    if setting.varying:
        images = images * rng.uniform(0.7, 1.0, IMAGES)
    return np.add.reduceat(images, np.arange(0, IMAGES, BATCH))


def share(index: int, setting: Setting, done: set[int], count: int) -> Iterator[int]:
    """The batches of a process, by the code that an evaluation runs."""
    return study._todo(types.SimpleNamespace(process=(index, setting.processes), done=done), count)


def finished(setting: Setting, seed: int = 0) -> list[float]:
    """When each process is done with its share, in seconds."""
    rng = np.random.default_rng(seed)
    takes, ends = durations(setting, rng), []
    slow = set(range(0, setting.processes, 10)) if setting.slow > 1 else set()
    ideal = takes.sum() / setting.processes
    for index in range(setting.processes):
        factor = setting.slow if index in slow else 1.0
        clock, done = setting.start, set()
        dies = clock + rng.exponential(ideal / setting.deaths) if setting.deaths else np.inf
        todo = share(index, setting, done, len(takes))
        while (number := next(todo, None)) is not None:
            if clock + takes[number] * factor <= dies:
                clock += takes[number] * factor
                done.add(number)
                continue
            # The batch at hand is lost, those that were written are not.
            clock = dies + setting.back + setting.start
            dies = clock + rng.exponential(ideal / setting.deaths)
            todo = share(index, setting, done, len(takes))
        assert len(done) == len(takes[index :: setting.processes])
        ends.append(clock)
    return ends


def row(name: str, setting: Setting, seeds: int = 20) -> str:
    """The run's time over the time of equal work without any loss, and how long processes wait for the last."""
    losses, waits = [], []
    for seed in range(seeds):
        ends = finished(setting, seed)
        ideal = durations(setting, np.random.default_rng(seed)).sum() / setting.processes
        losses.append(max(ends) / ideal - 1)
        waits.append(1 - statistics.mean(ends) / max(ends))
    hours = IMAGES * setting.seconds / setting.processes / 3600
    return (
        f"| {name} | {setting.processes} | {hours:.2f} | {statistics.median(losses):.1%} | "
        f"{statistics.median(waits):.1%} |\n"
    )


def simulated() -> str:
    """The table of what is lost to what."""
    kinds = dict(
        start=dict(start=120.0), images=dict(start=0.0, varying=True), stragglers=dict(start=0.0, slow=1.25),
        deaths=dict(start=120.0, deaths=1.0), cached=dict(start=20.0, deaths=1.0),
    )  # fmt: skip
    said = dict(
        start="start and compilation, 120 s", images="images that take .7 to 1 of the passes",
        stragglers="a tenth of the processes 1.25 times slower", deaths="each process dies once, on average",
        cached="the same, programs from a cache: start 20 s",
    )  # fmt: skip
    rows = [row(said[kind], Setting(count, **given)) for kind, given in kinds.items() for count in (8, 16, 32, 64)]
    return "| what | processes | hours without it | longer by | processes wait |\n|---|---|---|---|---|\n" + "".join(
        rows
    )


def part(ids: np.ndarray, methods: int, rng: np.random.Generator) -> Part:
    """What is stored of a batch: random figures, and maps of the size of ResNet-18's last layer."""
    shape, n = (1, methods, len(ids)), len(ids)
    values = rng.random((*shape, len(METRICS)), np.float32)
    maps = tuple(rng.random((1, n, 7, 7), np.float32) for _ in range(methods))
    zeros = np.zeros(n, np.int32)
    return Part(
        METRICS, ids, zeros, zeros, rng.random(n, np.float32), np.ones(n, bool), values, np.zeros(shape, bool),
        np.full(shape, 5121, np.int32), maps, np.zeros(0, np.int32),
    )  # fmt: skip


def stored(methods: int = 9, processes: int = 16) -> str:
    """Really write a run's parts in shares, find them again, and read them as one."""
    rng, count = np.random.default_rng(0), -(-IMAGES // BATCH)
    noted = dict(
        methods=[f"m{i}" for i in range(methods)], metrics={}, settings={}, names=None, batch_size=BATCH, count=count
    )
    with tempfile.TemporaryDirectory() as name:
        folder, wrote = pathlib.Path(name) / "run", 0.0
        for index in range(processes):
            with run_folder.Run(folder, {}, noted, (index, processes)) as run:
                for number in study._todo(run, count):
                    ids = np.arange(number * BATCH, min(IMAGES, (number + 1) * BATCH))
                    fresh = part(ids, methods, rng)
                    began = time.perf_counter()
                    run.write(number, fresh, [], run_folder.Seal("0" * 64, "0" * 64))
                    wrote += time.perf_counter() - began
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        began = time.perf_counter()
        with run_folder.Run(folder, {}, noted, (0, 1)) as again:
            assert not list(study._todo(again, count))
        found = time.perf_counter() - began
        began = time.perf_counter()
        assert len(run_folder.read(folder).results.names) == IMAGES
        merged = time.perf_counter() - began
    return (
        f"{count} parts of {BATCH} images, {methods} methods, maps of 7 × 7: {size / 2**20:.0f} MiB. Writing a part "
        f"takes {1e3 * wrote / count:.0f} ms, looking through all of them at a restart {found:.0f} s, and reading them "
        f"as one {merged:.0f} s, on one core of this machine.\n"
    )


def read(count: int = 128) -> str:
    """Photographs that one core reads, decodes, resizes and crops in a second, and the memory of this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        photographs(folder, count)
        size = sum(path.stat().st_size for path in folder.glob("*.jpg")) / count
        batches = data.batches(data.source(f"csv:{folder / 'labels.csv'}"), batch_size=BATCH, workers=0)
        began = time.process_time()
        assert sum(1 for _ in batches.read(range(count // BATCH))) == count // BATCH
        rate = count / (time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"A core reads, decodes, resizes and crops {rate:.0f} JPEG files of 500 × 375 pixels and {size / 1000:.0f} kB "
        f"per second of processor time. The process that did all of this took {peak:.1f} GiB of memory at most.\n"
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    (RESULTS / "large_run.md").write_text(simulated() + "\n" + stored() + "\n" + read())
    print((RESULTS / "large_run.md").read_text())


if __name__ == "__main__":
    main()
