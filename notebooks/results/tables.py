"""The paper's tables on its three data sets, a hundred photographs at a time.

    python notebooks/results/tables.py ASSETS NAME [SLICES]

ASSETS is the folder of real weights and images. NAME is resnet18_tables or squeezenet1_0_tables (Tables 1 and 2,
ILSVRC-2012), or squeezenet1_1_stanford40 or squeezenet1_1_voc2007 (with the head that knows these classes, on images
that the head has not seen). The photographs come in the random order of `data.subset`, seed 0, so that every number of
slices is a random sample. A slice that is done is added to `NAME.parquet`, and what computed it to `NAME.config.json`,
which also has the first slice's fingerprint; another call goes on with the next one. A slice that is interrupted goes
on in its run folder, in `runs/`. SLICES is how many to have at the end; default: all.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from heads import voc_split  # beside this file

import sscam_jax as sscam
from sscam_jax import data, networks
from sscam_jax.types import Apply, Params

RESULTS = pathlib.Path(__file__).parent
SLICE = 100
# With 128 passes a map is that of the 128 channels which vary most, one sample each.
METHODS = (
    "grad-cam", "grad-cam++", "layer-cam", "score-cam:budget=128", "ss-cam:paper,budget=128", "ss-cam:budget=128",
)  # fmt: skip
METRICS = (
    "average-drop", "average-increase", "average-gain", "average-drop-authors", "average-increase-authors",
    "energy", "energy-over-area", "pointing",
)  # fmt: skip


def study(assets: pathlib.Path, name: str) -> tuple[Apply, Params, data.Source]:
    """The network and the images of a table."""
    network, _, images = name.rpartition("_")
    if images == "tables":
        source = data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}")
        return *networks.load(network, checkpoint=assets / "weights" / f"{network}.pth"), source
    source = voc_split(assets)[1] if images == "voc2007" else data.source(f"stanford40:{assets / 'Stanford40'}:test")
    return *networks.load(network, checkpoint=images), source


def main(assets: pathlib.Path, name: str, slices: int | None = None) -> None:
    """Measure the slices that are not there yet."""
    table, about = RESULTS / f"{name}.parquet", RESULTS / f"{name}.config.json"
    config = json.loads(about.read_text("utf-8")) if about.is_file() else dict(slices=[])
    done = config["slices"]
    apply, params, source = study(assets, name)
    order = np.random.RandomState(0).permutation(len(source))
    for first in range(0, len(source), SLICE)[:slices]:
        if any(each["first"] == first for each in done):
            continue
        part = dataclasses.replace(source, ids=source.ids[order[first : first + SLICE]])
        out = pathlib.Path("runs") / f"{name}-{first:04d}"
        sscam.evaluate(apply, params, data.batches(part, batch_size=10), METHODS, METRICS, out=out)
        values = pyarrow.parquet.read_table(out / "results.parquet")
        if table.is_file():
            before = pyarrow.parquet.read_table(table)
            # A call that was killed between the two files has written this slice's values already.
            again = pyarrow.compute.is_in(before["image"], pyarrow.compute.unique(values["image"]))
            values = pyarrow.concat_tables([before.filter(pyarrow.compute.invert(again)), values])
        pyarrow.parquet.write_table(values, table)
        made = json.loads((out / "config.json").read_text("utf-8"))["fingerprint"]
        done.append(dict(first=first, n=len(part), source=made["source"], machine=made["machine"]))
        config.setdefault("fingerprint", made)
        about.write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        print(f"{name}: {sum(each['n'] for each in done)} of {len(source)}", flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:4]))
