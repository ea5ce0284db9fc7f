"""What the compiler says of the methods' programs on TPUs: writes results/accelerators.json and accelerators.md.

    PYTHONPATH=. python tests/bench/accelerators.py       # the cells of `make accelerators`, for hours
    PYTHONPATH=. python tests/bench/accelerators.py --on resnet18 bfloat16 v5e 1      # every method here

It compiles what is not stored yet, and stores each cell as soon as it is there. It needs no TPU, but the package
`libtpu` (extra `aot`).
"""

import argparse
import json
import pathlib
import re
import time

from sscam_jax.cams import registry
from tests.accelerators.programs import Cell, Figures, bare, compiled, covering, every_method, problems, scored

RESULTS = pathlib.Path(__file__).parent / "results"
HEADER = (
    "| method | network | passes in | devices | chunk | temporaries, MiB | FLOPs | bytes | compilation | meetings |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def measured(cell: Cell, stored: list[dict]) -> dict:
    """A cell's figures, those of a plain pass of a chunk, and those of a pass of the image as it is."""
    whole = "float32" if "precision" in registry.parse(cell.method)[1] else cell.dtype
    known = {tuple(each[name]["of"]): each[name] for each in stored for name in ("plain", "one")}

    def of(dtype: str, count: int) -> dict:
        what = (cell.network, dtype, cell.device, count)
        return known.get(what) or dict(of=what, **bare(*what)._asdict())

    plain, one, found = of(cell.dtype, cell.chunk), of(whole, 1), compiled(cell)
    return dict(
        cell=cell._asdict(), found=found._asdict(), plain=plain, one=one,
        problems=problems(cell, found, figures(plain)),
    )  # fmt: skip


def figures(stored: dict) -> Figures:
    """The figures of a stored program."""
    return Figures(**{name: stored[name] for name in Figures._fields})


def row(stored: dict) -> str:
    """A cell as a row of the table."""
    cell, found, plain, one = Cell(**stored["cell"]), *(figures(stored[name]) for name in ("found", "plain", "one"))
    # A scoring method also runs the image once as it is; that belongs to no chunk.
    alone = one if scored(cell.method) else Figures(0, 0, 0, 0, (), ())
    flops, moved = ((getattr(found, of) - getattr(alone, of)) / getattr(plain, of) for of in ("flops", "moved"))
    return (
        f"| {cell.method} | {cell.network} | {cell.dtype} | {cell.devices} × {cell.device} | {cell.chunk} "
        f"| {found.temporaries / 2**20:.0f} ({plain.temporaries / 2**20:.0f}) | {flops:.2f} | {moved:.2f} "
        f"| {found.seconds / plain.seconds:.1f} | {len(found.collectives)} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs=4, metavar=("NETWORK", "DTYPE", "DEVICE", "COUNT"), help="every method on these")
    parser.add_argument("--only", default=".*", help="methods that match this pattern in full")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so long")
    options = parser.parse_args()
    cells = covering()
    if options.on:
        network, dtype, device, count = options.on
        chunks = {method: 128 if scored(method) else 8 for method in every_method()}
        cells = [Cell(method, network, dtype, device, int(count), chunk) for method, chunk in chunks.items()]
    store, began = RESULTS / "accelerators.json", time.monotonic()
    stored = json.loads(store.read_text()) if store.exists() else []
    for cell in cells:
        if not re.fullmatch(options.only, cell.method) or any(Cell(**each["cell"]) == cell for each in stored):
            continue
        if time.monotonic() - began > options.seconds:
            break
        stored.append(measured(cell, stored))
        print(*cell, stored[-1]["problems"], flush=True)
        store.write_text(json.dumps(stored, indent=1) + "\n")
    names = every_method()
    ordered = sorted(stored, key=lambda each: (list(each["cell"].values())[1:], names.index(each["cell"]["method"])))
    (RESULTS / "accelerators.md").write_text(HEADER + "".join(map(row, ordered)))


if __name__ == "__main__":
    main()
