"""Kill an evaluation at random moments, again and again: `python -m tests.reliability.campaign [KILLS]`.

Each round starts one or two processes and kills them with SIGKILL at a random moment, until the run is done; then its
tables are compared with those of a run that nothing disturbed. It prints how many batches were lost or doubled.
"""

import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

from tests.reliability.small_run import BATCHES

TABLES = ("table.md", "table.csv", "table.json")


def start(out: pathlib.Path, index: int, count: int) -> subprocess.Popen:
    """One process of a run."""
    command = [sys.executable, "-m", "tests.reliability.small_run", str(out), str(index), str(count)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)


def finish(out: pathlib.Path, count: int) -> None:
    """Run to the end."""
    processes = [start(out, index, count) for index in range(count)]
    assert [process.wait() for process in processes] == [0] * count


def killed(out: pathlib.Path, count: int, after: float, moment: float) -> int:
    """Start, wait until a further batch is there (or all are) and a moment more, and kill; how many were killed."""
    before = len(list(out.glob("parts/[0-9]*.npz")))
    processes = [start(out, index, count) for index in range(count)]
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and len(list(out.glob("parts/[0-9]*.npz"))) == before:
        if all(process.poll() is not None for process in processes):
            break
        time.sleep(0.005)
    time.sleep(moment)
    hit = 0
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            hit += 1
        process.wait()
    return hit


def check(out: pathlib.Path, whole: pathlib.Path) -> tuple[int, int, bool]:
    """Images lost, images doubled, and whether the tables have the same bytes."""
    ids = [int(i) for path in sorted(out.glob("parts/[0-9]*.npz")) for i in np.load(path)["ids"]]
    same = all((out / name).read_bytes() == (whole / name).read_bytes() for name in TABLES)
    return 2 * BATCHES - len(set(ids)), len(ids) - len(set(ids)), same


def campaign(folder: pathlib.Path, kills: int, count: int, seed: int = 0) -> tuple[int, int, int, int, int]:
    """Kills, runs, images lost, images doubled, and runs whose tables differ."""
    rng = random.Random(seed)
    whole = folder / f"whole-{count}"
    finish(whole, 1)
    done = runs = lost = doubled = differ = 0
    while done < kills:
        out = folder / f"run-{count}-{runs}"
        for _ in range(min(6, kills - done)):
            # A third of the kills come before a batch is done: in the imports, the compilation, the first write.
            early = rng.random() < 1 / 3
            done += killed(out, count, rng.uniform(0.1, 3) if early else 60, rng.uniform(0, 0.05))
        finish(out, count)
        a, b, same = check(out, whole)
        runs, lost, doubled, differ = runs + 1, lost + a, doubled + b, differ + (not same)
    return done, runs, lost, doubled, differ


def main() -> None:
    """The long campaign."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            found = campaign(pathlib.Path(folder), kills, count)
        print(
            "{} kills in {} runs of {count} process(es): {} lost, {} doubled, {} tables differ".format(
                *found, count=count
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
