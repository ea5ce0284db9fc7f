"""Tables 1 and 2 of the paper, a hundred photographs at a time.

    python notebooks/results/tables.py ASSETS NETWORK [SLICES]

ASSETS is the folder of real weights and images, NETWORK is resnet18 or squeezenet1_0. The photographs come in the
random order of `data.subset`, seed 0, so that every number of slices is a random sample. A slice that is done is added
to `tables_NETWORK.parquet`, and what computed it to `tables_NETWORK.json`; another call goes on with the next one. A
slice that is interrupted goes on in its run folder, in `runs/`. SLICES is how many to have at the end; default: all.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pyarrow
import pyarrow.parquet

import sscam_jax as sscam
from sscam_jax import data, networks

RESULTS = pathlib.Path(__file__).parent
SLICE = 100
# A map of 128 passes is the map of the 128 channels that vary most, one sample each.
METHODS = ("grad-cam", "grad-cam++", "score-cam:budget=128", "ss-cam:paper,budget=128", "ss-cam:budget=128")
METRICS = (
    "average-drop", "average-increase", "average-gain", "average-drop-authors", "average-increase-authors",
    "energy", "energy-over-area", "pointing",
)  # fmt: skip


def measure(assets: pathlib.Path, network: str, first: int) -> tuple[pyarrow.Table, dict]:
    """The slice that begins at place `first` of the order: its values, and what computed them."""
    source = data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}")
    order = np.random.RandomState(0).permutation(len(source))
    source = dataclasses.replace(source, ids=source.ids[order[first : first + SLICE]])
    apply, params = networks.load(network, checkpoint=assets / "weights" / f"{network}.pth")
    out = pathlib.Path("runs") / f"tables-{network}-{first:04d}"
    batches = data.batches(source, batch_size=10, size=224, fit="squash")
    sscam.evaluate(apply, params, batches, METHODS, METRICS, out=out)
    about = json.loads((out / "config.json").read_text("utf-8"))["fingerprint"]
    kept = {name: about[name] for name in ("params", "source", "methods", "machine")}
    return pyarrow.parquet.read_table(out / "results.parquet"), dict(first=first, n=len(source), **kept)


def main(assets: pathlib.Path, network: str, slices: int | None = None) -> None:
    """Measure what is not there yet."""
    table, about = (RESULTS / f"tables_{network}.{suffix}" for suffix in ("parquet", "json"))
    done = json.loads(about.read_text("utf-8")) if about.is_file() else []
    total = len(data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}"))
    for first in range(0, total, SLICE)[:slices]:
        if any(each["first"] == first for each in done):
            continue
        values, made = measure(assets, network, first)
        if table.is_file():
            values = pyarrow.concat_tables([pyarrow.parquet.read_table(table), values])
        pyarrow.parquet.write_table(values, table)
        done.append(made)
        about.write_text(json.dumps(done, indent=1) + "\n", "utf-8")
        print(f"{network}: {sum(each['n'] for each in done)} of {total}", flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:4]))
