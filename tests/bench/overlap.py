"""Whether the devices wait for the host while `evaluate` runs: writes results/overlap.md.

    python tests/bench/overlap.py --images 48 --batch 8

Images are decoded from JPEG files by the package's own reader, and a network of random weights is explained. The loop's
stages are timed where they happen. The devices work while the loop waits for the network and the metrics; in the rest
of the time they have nothing to do.
"""

import argparse
import contextlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
from PIL import Image

import sscam_jax as sscam
from sscam_jax import data
from sscam_jax.cams import _run
from sscam_jax.evaluation import loop, run_folder
from sscam_jax.networks import init_params
from sscam_jax.networks.network import cut
from sscam_jax.networks.registry import find

RESULTS = pathlib.Path(__file__).parent / "results"


def photographs(folder: pathlib.Path, count: int) -> None:
    """JPEG files of the size of ImageNet's, and their labels."""
    rng, lines = np.random.default_rng(0), ["path,label"]
    for i in range(count):
        coarse = rng.integers(0, 256, (25, 33, 3), np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=92)
        lines.append(f"{i}.jpg,{i % 5}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


class Clock:
    """Seconds per stage, and when each began and ended."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float, float]] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keywords: Any) -> Any:
            began = time.perf_counter()
            result = jax.block_until_ready(function(*args, **keywords))
            self.spans.append((name, began, time.perf_counter()))
            return result

        return wrapped

    def iterated(self, name: str, iterator: Iterator[Any]) -> Iterator[Any]:
        step = self.timed(name, lambda: next(iterator, None))
        while (item := step()) is not None:
            yield item


def run(method: str, options: argparse.Namespace) -> str:
    """An evaluation, as a row of the table: the shares of its time, from the first batch that was written on."""
    clock = Clock()
    apply = cut(find("squeezenet1_1"), 5, None)
    params = init_params("squeezenet1_1", jax.random.key(0), num_classes=5)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as patches:
        folder = pathlib.Path(name)
        photographs(folder, options.images)
        batches = data.batches(data.source(f"csv:{folder / 'labels.csv'}"), batch_size=options.batch)
        read = batches.read
        for where, attribute, timed in (
            (type(batches), "read", lambda self, numbers: clock.iterated("reading", read(numbers))),
            (run_folder.Run, "write", clock.timed("writing", run_folder.Run.write)),
            (loop, "logits_of", clock.timed("devices", loop.logits_of)),
            (loop, "maps_of", clock.timed("devices", loop.maps_of)),
            (loop, "columns_of", clock.timed("devices", loop.columns_of)),
            (_run, "run", clock.timed("devices", _run.run)),
        ):
            patches.enter_context(mock.patch.object(where, attribute, timed))
        sscam.evaluate(apply, params, batches, [method], ["average-drop"], out=folder / "run")
    # The first batch waits for the compiler, and is read once more for its shapes.
    ready = next(end for name, _, end in clock.spans if name == "writing")
    steady = [span for span in clock.spans if span[1] >= ready]
    total = steady[-1][2] - ready
    shares = {
        stage: sum(end - begin for name, begin, end in steady if name == stage) / total
        for stage in ("devices", "reading", "writing")
    }
    cells = [f"{share:.1%}" for share in (*shares.values(), 1 - sum(shares.values()))]
    return f"| {method} | {total:.1f} | {' | '.join(cells)} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["grad-cam", "score-cam:paper,budget=32"])
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    table = "| method | seconds | devices work | waits for a batch | writes | other work of the host |\n"
    table += "|---" * 6 + "|\n"
    table += "".join(run(method, options) for method in options.methods)
    print(table)
    (RESULTS / "overlap.md").write_text(table)


if __name__ == "__main__":
    main()
