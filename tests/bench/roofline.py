"""The fastest that runs can be on an accelerator, from what the compiler counts: writes results/roofline.md.

    PYTHONPATH=. python tests/bench/roofline.py

It reads results/accelerators.json. A pass takes at least its FLOPs over the device's peak and its bytes over the
bandwidth of its memory, whichever is longer. GPUs are given the FLOPs and bytes of the TPU's program.
"""

import argparse
import json
import pathlib
from typing import NamedTuple

from accelerators import figures

from tests.accelerators.programs import Cell, Figures

RESULTS = pathlib.Path(__file__).parent / "results"
IMAGES, CHANNELS, SAMPLES = 50_000, 512, 10


class Peak(NamedTuple):
    """FLOPs per second in bfloat16, without sparsity, and bytes per second of the memory; docs/large-runs.md cites."""

    flops: float
    bandwidth: float


PEAKS = {
    "TPU v5e": Peak(197e12, 819e9), "TPU v6e": Peak(918e12, 1638e9), "TPU v5p": Peak(459e12, 2765e9),
    "H100 SXM": Peak(989e12, 3350e9), "H200 SXM": Peak(989e12, 4800e9),
}  # fmt: skip


def rows(cell: Cell, found: Figures, one: Figures) -> str:
    """A network on every device: one chunk's work, without the single pass of the image, over its inputs."""
    flops, moved = (found.flops - one.flops) / cell.chunk, (found.moved - one.moved) / cell.chunk
    text = ""
    for device, peak in PEAKS.items():
        computing, moving = flops / peak.flops, moved / peak.bandwidth
        seconds = max(computing, moving)
        hours = [IMAGES * CHANNELS * samples * seconds / 3600 for samples in (1, SAMPLES)]
        text += (
            f"| {cell.network} | {device} | {1 / seconds:,.0f} ({'FLOPs' if computing > moving else 'bytes'}) "
            f"| {1e3 * CHANNELS * seconds:.1f} | {1e3 * CHANNELS * SAMPLES * seconds:.0f} "
            f"| {hours[0]:.2f} / {60 * hours[0] / 16:.1f} min | {hours[1]:.2f} / {60 * hours[1] / 16:.1f} min |\n"
        )
    return text


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    table = (
        "| network | device | passes per second (limit) | Score-CAM, ms | SS-CAM, ms | 50,000 Score-CAM, h / on 16 "
        "| 50,000 SS-CAM, h / on 16 |\n" + "|---" * 7 + "|\n"
    )
    for each in json.loads((RESULTS / "accelerators.json").read_text()):
        cell = Cell(**each["cell"])
        if (cell.method, cell.dtype, cell.devices) == ("ss-cam:paper", "bfloat16", 1):
            table += rows(cell, figures(each["found"]), figures(each["one"]))
    (RESULTS / "roofline.md").write_text(table)
    print(table)


if __name__ == "__main__":
    main()
