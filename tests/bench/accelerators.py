"""What the compiler says of the methods' programs on TPUs: writes results/accelerators.json and accelerators.md.

    python tests/bench/accelerators.py --only 'resnet18.*' --seconds 3000

It compiles cells of `tests.accelerators.programs.covering` whose text matches, those that are not stored yet, and
stores each as soon as it is there. It needs no TPU, but the package `libtpu` (extra `aot`).
"""

import argparse
import json
import pathlib
import re
import time

from tests.accelerators.programs import Cell, Figures, bare, compiled, covering, problems, scored

RESULTS = pathlib.Path(__file__).parent / "results"
HEADER = (
    "| method | network | passes in | devices | chunk | temporaries, MiB | FLOPs | bytes | compilation | meetings |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def measured(cell: Cell) -> dict:
    """A cell's figures, those of a plain pass of a chunk, and those of a pass of one image."""
    plain, one = (bare(cell.network, cell.dtype, cell.device, count) for count in (cell.chunk, 1))
    found = compiled(cell)
    return dict(
        cell=cell._asdict(), found=found._asdict(), plain=plain._asdict(), one=one._asdict(),
        problems=problems(cell, found, plain),
    )  # fmt: skip


def row(stored: dict) -> str:
    """A cell as a row of the table."""
    cell, found, plain, one = Cell(**stored["cell"]), *(Figures(**stored[name]) for name in ("found", "plain", "one"))
    # A scoring method also runs the image once as it is; that belongs to no chunk.
    alone = one if scored(cell.method) else Figures(0, 0, 0, 0, (), ())
    flops, moved = ((getattr(found, of) - getattr(alone, of)) / getattr(plain, of) for of in ("flops", "moved"))
    return (
        f"| {cell.method} | {cell.network} | {cell.dtype} | {cell.devices} × {cell.device} | {cell.chunk} "
        f"| {found.temporaries / 2**20:.0f} ({plain.temporaries / 2**20:.0f}) | {flops:.2f} | {moved:.2f} "
        f"| {found.seconds / plain.seconds:.1f} | {len(found.collectives)} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=".*", help="cells whose words, joined by -, match this pattern in full")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so long")
    options = parser.parse_args()
    store, began = RESULTS / "accelerators.json", time.monotonic()
    stored = json.loads(store.read_text()) if store.exists() else []
    for cell in covering():
        text = "-".join(map(str, cell))
        if not re.fullmatch(options.only, text) or any(Cell(**each["cell"]) == cell for each in stored):
            continue
        if time.monotonic() - began > options.seconds:
            break
        stored.append(measured(cell))
        print(text, stored[-1]["problems"], flush=True)
        store.write_text(json.dumps(stored, indent=1) + "\n")
    ordered = sorted(stored, key=lambda each: covering().index(Cell(**each["cell"])))
    (RESULTS / "accelerators.md").write_text(HEADER + "".join(map(row, ordered)))


if __name__ == "__main__":
    main()
