"""What the compilers say of the methods' programs on TPUs and GPUs: writes results/accelerators.json and two tables.

    export JAX_PLATFORMS=cpu PYTHONPATH=.
    python tests/bench/accelerators.py       # the cells of `make accelerators`, for hours
    python tests/bench/accelerators.py --on resnet18 bfloat16 v5e 1      # every method here

It compiles what is not stored yet, and stores each cell as soon as it is there. It needs no TPU and no GPU, but the
packages `libtpu` and `jax-cuda12-plugin` (extra `aot`).
"""

import argparse
import json
import pathlib
import re
import time

from sscam_jax.cams import registry
from tests.accelerators.programs import (
    GPUS,
    TPUS,
    Cell,
    Figures,
    bare,
    compiled,
    covering,
    every_method,
    problems,
    scored,
)

RESULTS = pathlib.Path(__file__).parent / "results"


def measured(cell: Cell, stored: list[dict]) -> dict:
    """A cell's figures, those of a plain pass of a chunk, and for a scoring method those of the image's own pass."""
    whole = "float32" if "precision" in registry.parse(cell.method)[1] else cell.dtype
    known = {tuple(each[name]["of"]): each[name] for each in stored for name in ("plain", "one") if each[name]}

    def of(dtype: str, count: int) -> dict:
        what = (cell.network, dtype, cell.device, count)
        return known.get(what) or dict(of=what, **bare(*what)._asdict())

    plain, found = of(cell.dtype, cell.chunk), compiled(cell)
    one = of(whole, 1) if scored(cell.method) else None
    return dict(
        cell=cell._asdict(), found=found._asdict(), plain=plain, one=one,
        problems=problems(cell, found, figures(plain)),
    )  # fmt: skip


def figures(stored: dict) -> Figures:
    """The figures of a stored program."""
    return Figures(**{name: stored[name] for name in Figures._fields})


def row(stored: dict) -> str:
    """A cell as a row of the table."""
    cell, found, plain = Cell(**stored["cell"]), *(figures(stored[name]) for name in ("found", "plain"))
    # A scoring method also runs the image once as it is; that belongs to no chunk.
    alone = figures(stored["one"]) if stored["one"] else Figures(0, 0, 0, 0, (), ())
    counts = ""
    if cell.device in TPUS:
        ratios = ((getattr(found, of) - getattr(alone, of)) / getattr(plain, of) for of in ("flops", "moved"))
        counts = " | ".join(f"{ratio:.2f}" for ratio in ratios) + " | "
    return (
        f"| {cell.method} | {cell.network} | {cell.dtype} | {cell.devices} × {cell.device} | {cell.chunk} "
        f"| {found.temporaries / 2**20:.0f} ({plain.temporaries / 2**20:.0f}) | {counts}"
        f"{found.seconds / plain.seconds:.1f} | {len(found.collectives)} |\n"
    )


def header(devices: tuple[str, ...]) -> str:
    """The table's first two lines; the compiler for GPUs counts neither FLOPs nor bytes."""
    columns = ["method", "network", "passes in", "devices", "chunk", "temporaries, MiB"]
    columns += ["FLOPs", "bytes"] * (devices == TPUS) + ["compilation", "meetings"]
    return f"| {' | '.join(columns)} |\n" + "|---" * len(columns) + "|\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", nargs=4, metavar=("NETWORK", "DTYPE", "DEVICE", "COUNT"), help="every method on these")
    parser.add_argument("--only", default=".*", help="methods that match this pattern in full")
    parser.add_argument("--devices", nargs="+", default=[*TPUS, *GPUS], choices=[*TPUS, *GPUS])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so long")
    options = parser.parse_args()
    cells = covering(TPUS) + covering(GPUS)
    if options.on:
        network, dtype, device, count = options.on
        chunks = {method: 128 if scored(method) else 8 for method in every_method()}
        cells = [Cell(method, network, dtype, device, int(count), chunk) for method, chunk in chunks.items()]
    store, began = RESULTS / "accelerators.json", time.monotonic()
    stored = json.loads(store.read_text()) if store.exists() else []
    for cell in cells:
        wanted = re.fullmatch(options.only, cell.method) and cell.device in options.devices
        if not wanted or any(Cell(**each["cell"]) == cell for each in stored):
            continue
        if time.monotonic() - began > options.seconds:
            break
        stored.append(measured(cell, stored))
        print(*cell, stored[-1]["problems"], flush=True)
        store.write_text(json.dumps(stored, indent=1) + "\n")
    names = every_method()
    ordered = sorted(stored, key=lambda each: (list(each["cell"].values())[1:], names.index(each["cell"]["method"])))
    for name, devices in (("accelerators", TPUS), ("accelerators_gpu", GPUS)):
        rows = [row(each) for each in ordered if each["cell"]["device"] in devices]
        (RESULTS / f"{name}.md").write_text(header(devices) + "".join(rows))


if __name__ == "__main__":
    main()
