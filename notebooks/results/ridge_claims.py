"""The tables of Ridge-CAM's confirmation.

    python notebooks/results/ridge_claims.py

The values are read from `ridge_confirm.npz` beside this file: one per image, network, method and metric. They were
measured at commit c585a36 by its `notebooks/results/ridge.py`. The method was then removed: no claim held.

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

import pathlib

import numpy as np
from scipy import stats

from sscam_jax.evaluation.intervals import holm

NETWORKS = ("squeezenet1_1", "squeezenet1_0", "resnet18")
METHODS = ("grad-cam", "score-cam", "ridge-cam")
POWERS = {"grad-cam": (1.0, 2.0), "score-cam": (1.0, 2.0), "ridge-cam": (0.5, 1.0, 1.5, 2.0)}
STORED = pathlib.Path(__file__).parent / "ridge_confirm.npz"
MARGINS = {"insertion": 0.005, "deletion": 0.005, "road": 0.005, "pointing": 1.0}
LOWER = ("deletion", "drop")


def localised(iou: np.ndarray) -> np.ndarray:
    """MaxBoxAccV2's share of each image [n, methods], in percent: found at IoU .3, .5, .7, at each best threshold."""
    found = 0.0
    for level in (0.3, 0.5, 0.7):
        hits = 100.0 * (iou >= level)  # [n, methods, thresholds]
        best = hits.mean(0).argmax(-1)
        found = found + np.stack([hits[:, m, best[m]] for m in range(hits.shape[1])], 1)
    return found / 3


def columns(values: dict[str, np.ndarray], network: int) -> dict[str, np.ndarray]:
    """Each metric [n, methods], the higher the better."""
    first = [
        sum(len(POWERS[name]) for name in METHODS[:m]) + POWERS[METHODS[m]].index(1.0) for m in range(len(METHODS))
    ]
    there = ~np.isnan(values["energy"][network]).any(1)  # images with a box
    found = {name: values[name][network][there] for name in ("insertion", "deletion", "road", "pointing")}
    found["MaxBoxAccV2"] = localised(values["iou"][network][there])
    found |= {name: values[name][network][there][:, first] for name in ("energy", "drop")}
    return {name: -each if name in LOWER else each for name, each in found.items()}


def above(difference: np.ndarray, margin: float) -> float:
    """The one-sided p-value of: the mean difference is above this."""
    if difference.std() == 0:  # no spread, so no test: nothing is claimed
        return 1.0
    return float(stats.ttest_1samp(difference, margin, alternative="greater").pvalue)


def at_equal_drop(values: dict[str, np.ndarray], network: int) -> tuple[float, np.ndarray]:
    """The power whose drop is not above Grad-CAM's, and the difference of the energies."""
    energy, drop = values["energy"][network], values["drop"][network]
    start = len(POWERS["grad-cam"]) + len(POWERS["score-cam"])
    ridge = range(start, start + len(POWERS["ridge-cam"]))
    fitting = [column for column in ridge if drop[:, column].mean() <= drop[:, 0].mean()] or [start]
    difference = energy[:, fitting[-1]] - energy[:, 0]
    return POWERS["ridge-cam"][fitting[-1] - start], difference[~np.isnan(difference)]


def main(values: dict[str, np.ndarray]) -> None:
    """Print the means, the differences with their intervals, and the claims after Holm's correction."""
    claims: list[tuple[str, float, float]] = []
    for n, network in enumerate(NETWORKS):
        found = columns(values, n)
        print(f"\n**{network}**, {len(found['energy'])} images\n")
        print("| |" + "|".join(found) + "|\n|---|" + "---|" * len(found))
        for m, method in enumerate(METHODS):
            means = [abs(each[:, m].mean()) if name in LOWER else each[:, m].mean() for name, each in found.items()]
            print(
                f"| `{method}` |" + "|".join(f" {mean:.3f} " if mean < 2 else f" {mean:.1f} " for mean in means) + "|"
            )
        for against in (0, 1):
            cells = []
            for each in found.values():
                difference = each[:, 2] - each[:, against]
                half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
                cells.append(f" {round(difference.mean(), 9):+.3g} ± {half:.2g} ")
            print(f"| better than `{METHODS[against]}` by |" + "|".join(cells) + "|")
        for name, margin in MARGINS.items():
            both = [above(found[name][:, 2] - found[name][:, m], -margin) for m in (0, 1)]
            worst = min((found[name][:, 2] - found[name][:, m]).mean() for m in (0, 1))
            claims.append((f"{network}: {name} not worse by {margin:g}", worst, max(both)))
        for name in ("insertion", "deletion", "MaxBoxAccV2", "pointing"):
            difference = found[name][:, 2] - found[name][:, 1]
            claims.append((f"{network}: {name} better than Score-CAM", difference.mean(), above(difference, 0.0)))
        power, difference = at_equal_drop(values, n)
        claims.append(
            (f"{network}: 3 points more energy than Grad-CAM, p = {power:g}", difference.mean(), above(difference, 3))
        )
    print("\n| claim | difference | p (Holm) | |\n|---|---|---|---|")
    for (text, mean, _), p in zip(claims, holm(np.array([p for *_, p in claims])), strict=True):
        print(f"| {text} | {mean:+.3g} | {p:.3g} | {'holds' if p < 0.05 else ''} |")


if __name__ == "__main__":
    main(dict(np.load(STORED)))
