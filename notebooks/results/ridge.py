"""Does Ridge-CAM localise better than Score-CAM and explain no worse? Measure it, one image at a time.

    python notebooks/results/ridge.py ASSETS FOLDER [FIRST LAST]

ASSETS is the folder of real weights and images; FOLDER gets one file per image and network, and a later call goes on.
`python notebooks/results/ridge_claims.py` makes the tables.

The protocol, written before any image was confirmed (24 November 2026):

* Order: `numpy.random.default_rng(2026).permutation(2009)` of ILSVRC2012's validation images there. Places 0 to 299
  were for choosing; places 0 to 29 were used (SqueezeNet 1.1: 0 to 21). Confirmed on places 300, 301, ... up to at
  most 1299. How many is set by the time that the machine has, not by results. Places 1300 to 2008 are kept aside.
* Chosen: the geometric mean of Grad-CAM, blur-filled Score-CAM and the ridge regression of its scores, K = 96
  channels, λ = 1, probabilities. Nothing is changed after this.
* Networks: SqueezeNet 1.1, SqueezeNet 1.0, ResNet-18; images squashed to 224; the labelled class.
* Against: Grad-CAM; Score-CAM `paper` with the same 96 channels (budget=96); their squares as controls (for rank
  metrics a square is the map itself).
* Metrics: insertion and deletion (16 steps), ROAD (30 and 70 %), pointing game, MaxBoxAccV2, energy in the box,
  Average Drop.
* Claims for each network, Holm's correction over all of them: not worse than the better of Grad-CAM and Score-CAM by
  more than .005 (insertion, deletion, ROAD) or 1 point (pointing game); better than Score-CAM on two of insertion,
  deletion, MaxBoxAccV2, pointing game; 3 points more energy than Grad-CAM at Grad-CAM's Average Drop, where the power
  p of the map (0.5, 1, 1.5 or 2, the same for all images) is the largest whose mean Average Drop is not above
  Grad-CAM's.
"""

import dataclasses
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sscam_jax import cams, data, metrics, networks
from sscam_jax._support import replacing
from sscam_jax.types import Batch

NETWORKS = ("squeezenet1_1", "squeezenet1_0", "resnet18")
METHODS = ("grad-cam", "score-cam", "ridge-cam")
POWERS = {"grad-cam": (1.0, 2.0), "score-cam": (1.0, 2.0), "ridge-cam": (0.5, 1.0, 1.5, 2.0)}


def measured(apply: Any, params: Any, batch: Batch) -> dict[str, np.ndarray]:
    """Every metric of the three methods on a batch of one image."""
    images, labels = jnp.asarray(batch.images), jnp.asarray(batch.labels)
    boxes, ids = jnp.asarray(batch.boxes), jnp.asarray(batch.ids)
    found = [
        cams.grad_cam(apply, params, images, labels),
        cams.score_cam(apply, params, images, labels, budget=96),
        cams.ridge_cam(apply, params, images, labels),
    ]
    maps = jnp.stack([saliency.maps for saliency in found])
    powers = jnp.concatenate([maps[m] ** p for m, name in enumerate(METHODS) for p in POWERS[name]])[:, None]
    network = apply, apply.for_cpu(params) if apply.for_cpu else params, images, labels
    road = metrics.road(*network, maps, key=jax.random.key(0), ids=ids, percentiles=(30, 70))
    return dict(
        insertion=metrics.insertion(*network, maps, steps=16).auc[:, 0],
        deletion=metrics.deletion(*network, maps, steps=16).auc[:, 0],
        road=road.combined[:, 0],
        pointing=metrics.pointing_game(maps, boxes)[:, 0],
        iou=metrics.box_iou(maps, boxes)[:, 0],
        energy=metrics.energy_in_box(powers, boxes)[:, 0],
        drop=metrics.average_drop(metrics.confidence(*network, powers))[:, 0],
        flat=jnp.stack([saliency.flat for saliency in found])[:, 0],
    )


def main(assets: pathlib.Path, folder: pathlib.Path, first: int, last: int) -> None:
    """Measure the images at these places of the order, all networks of one image before the next image."""
    folder.mkdir(parents=True, exist_ok=True)
    source = data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}")
    order = np.random.default_rng(2026).permutation(len(source))[first:last]
    loaded = {name: networks.load(name, checkpoint=assets / "weights" / f"{name}.pth") for name in NETWORKS}
    for place, image in enumerate(order.tolist(), first):
        [batch] = data.batches(dataclasses.replace(source, ids=np.array([image])), batch_size=1)
        for name, (apply, params) in loaded.items():
            file = folder / f"{name}-{place:04d}.npz"
            if not file.exists():
                values = {key: np.asarray(value) for key, value in measured(apply, params, batch).items()}
                with replacing(file) as part, part.open("wb") as opened:
                    np.savez(opened, image=image, **values)
        print(place, flush=True)


if __name__ == "__main__":
    places = [int(text) for text in sys.argv[3:5]] or [300, 1300]
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), *places)
