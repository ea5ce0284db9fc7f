"""How few passes give nearly the map of all of them: the frontier behind `budget=`.

    python tests/bench/budget.py ASSETS OUT [--model squeezenet1_1] [--preset paper] [--images 30] [--samples 10]

ASSETS holds `ILSVRC2012/` in the official layout with boxes, and `weights/MODEL.pth`. Every channel's N scores are
taken once for each image and kept in OUT (a rerun goes on where it stopped); the strategies are then replayed on
them. Fidelity to the map of all passes: Spearman's rank correlation of the full-resolution maps, and the change of the
energy inside the boxes of the class. Writes OUT/budget_MODEL_PRESET.json and .png and prints the table. Needs scipy.
"""

import argparse
import csv
import json
import pathlib
import random
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.cluster.vq import kmeans2
from scipy.stats import spearmanr

import sscam_jax as sscam
from sscam_jax import ops


def collect(assets: pathlib.Path, out: pathlib.Path, model: str, preset: str, images: int, samples: int):
    """Yield (activations [h, w, c], scores [n, c], boxes [m, 4] as y0, x0, y1, x1 in [0, 1]) of random images."""
    with open(assets / "ILSVRC2012/val_index.csv") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    apply, params = sscam.load(model, checkpoint=assets / f"weights/{model}.pth")
    for i, row in enumerate(rows[:images]):
        kept = out / f"{model}_{preset}_{samples}_{i}.npz"
        if not kept.is_file():
            photo = sscam.preprocess(assets / "ILSVRC2012/val" / f"{row['image']}.JPEG")
            scores = [
                # One sample at a time, so that every sample's score is seen; the channels' softmax comes later.
                sscam.ss_cam(
                    apply, params, photo, [int(row["label"])], key=jax.random.key(n), preset=preset, n_samples=1,
                    channel_softmax=False,
                ).weights[0]
                for n in range(samples)
            ]  # fmt: skip
            root = ElementTree.parse(assets / "ILSVRC2012/bbox/val" / f"{row['image']}.xml").getroot()
            corners = [
                [float(o.findtext(f"bndbox/{k}")) for k in ("ymin", "xmin", "ymax", "xmax")]
                for o in root.iter("object")
            ]
            size = [float(root.findtext(f"size/{k}")) for k in ("height", "width")]
            activations = apply.features(params, photo)[0][0]
            np.savez_compressed(kept, activations=activations, scores=scores, boxes=np.array(corners) / (size * 2))
        stored = np.load(kept)
        yield stored["activations"].astype(np.float32), stored["scores"], stored["boxes"]
        print(f"\rimage {i + 1} of {images}", end="", flush=True)
    print()


def strategies(activations: np.ndarray, scores: np.ndarray, reduce):
    """Yield (name, passes, reduced score of every channel, NaN where it has none)."""
    flat = activations.reshape(-1, activations.shape[-1])
    live = np.flatnonzero(np.ptp(flat, 0) > 0)
    by_variance = live[np.argsort(-flat.var(0)[live])]
    at_random = np.random.default_rng(0).permutation(live)
    masks = (flat[:, live] - flat[:, live].min(0)) / np.ptp(flat[:, live], 0)
    masks = (masks / np.linalg.norm(masks, axis=0)).T
    total = len(live) * len(scores)

    def only(channels, n):
        reduced = np.full(flat.shape[1], np.nan)
        reduced[channels] = reduce(scores[:n])[channels]
        return reduced

    for factor in (2, 4, 8, 16, 32, 64):
        for n in (1, 2, 5, 10):
            count = int(total / factor / n)
            if 1 <= count <= len(live) and n <= len(scores):
                yield f"largest variance, N = {n}", count * n, only(by_variance[:count], n)
                yield f"random channels, N = {n}", count * n, only(at_random[:count], n)
                if n in (1, 10):
                    centres, label = kmeans2(masks, count, minit="++", seed=0, missing="warn")
                    reduced, used = np.full(flat.shape[1], np.nan), 0
                    for k in np.unique(label):
                        members = np.flatnonzero(label == k)
                        medoid = members[((masks[members] - centres[k]) ** 2).sum(1).argmin()]
                        reduced[live[members]] = reduce(scores[:n])[live[medoid]]
                        used += 1
                    yield f"clusters' medoids, N = {n}", used * n, reduced
    for share in (0.02, 0.05, 0.1, 0.2):
        best = live[np.argsort(-(scores[0] * np.ptp(flat, 0))[live])][: max(1, int(share * len(live)))]
        reduced = only(live, 1)
        reduced[best] = reduce(scores)[best]
        yield "N = 1, then all samples of the best", len(live) + (len(scores) - 1) * len(best), reduced
    for n in (1, 2, 5):
        yield "all channels, fewer samples", len(live) * n, only(live, n)


def final_map(activations: np.ndarray, reduced: np.ndarray, softmax: bool) -> np.ndarray:
    scored = ~np.isnan(reduced)
    if softmax:
        weights = np.where(scored, np.exp(reduced - np.nanmax(reduced)), 0)
    else:
        weights = np.where(scored, reduced, 0)
    raw = jnp.asarray(activations @ weights.astype(np.float32))[None]
    return np.asarray(ops.unit(jax.nn.relu(ops.resize(raw, (56, 56)))))[0]


def energy(saliency: np.ndarray, boxes: np.ndarray) -> float:
    inside = np.zeros(saliency.shape, bool)
    for y0, x0, y1, x1 in np.rint(boxes * len(saliency)).astype(int):
        inside[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = True
    return float(saliency[inside].sum() / max(saliency.sum(), 1e-12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--preset", default="paper", choices=["paper", "torchcam"])
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--samples", type=int, default=10)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    choices = sscam.SS_CAM_PRESETS[given.preset]
    reduce = (lambda s: s.max(0)) if choices.reduce == "max" else (lambda s: s.mean(0))
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    for activations, scores, boxes in collect(**vars(given)):
        full = final_map(activations, reduce(scores), choices.channel_softmax)
        total = int((np.ptp(activations, (0, 1)) > 0).sum()) * len(scores)
        for name, passes, reduced in strategies(activations, scores, reduce):
            saliency = final_map(activations, reduced, choices.channel_softmax)
            rank = spearmanr(saliency.ravel(), full.ravel())[0] if np.ptp(saliency) > 0 else 0.0
            # Strategies are compared at equal shares of the passes, rounded to powers of √2.
            share = round(2 * np.log2(total / passes))
            found.setdefault((name, share), []).append(
                (passes / total, rank, energy(saliency, boxes) - energy(full, boxes))
            )
    table = [
        dict(
            strategy=name,
            fewer=float(1 / np.mean([row[0] for row in rows])),
            images=len(rows),
            spearman_median=float(np.median([row[1] for row in rows])),
            spearman_10th=float(np.quantile([row[1] for row in rows], 0.1)),
            energy_change_mean=float(np.mean([row[2] for row in rows])),
            energy_change_absolute=float(np.mean(np.abs([row[2] for row in rows]))),
        )
        for (name, _), rows in found.items()
        if len(rows) >= given.images // 2
    ]
    table.sort(key=lambda row: (row["strategy"], row["fewer"]))
    stem = given.out / f"budget_{given.model}_{given.preset}"
    stem.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    print("| strategy | fewer passes | Spearman, median | 10th percentile | energy in the box, change |")
    print("|---|---|---|---|---|")
    for row in table:
        print(
            f"| {row['strategy']} | {row['fewer']:.1f} × | {row['spearman_median']:.3f} | {row['spearman_10th']:.3f} "
            f"| {row['energy_change_mean']:+.3f} |"
        )
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name in dict.fromkeys(row["strategy"] for row in table):
        line = [row for row in table if row["strategy"] == name]
        style = "-" if name == "largest variance, N = 1" else ":" if name.startswith("random") else "--"
        axes.plot(
            [r["fewer"] for r in line], [r["spearman_median"] for r in line], f"o{style}", label=name, markersize=4
        )
    axes.set(xscale="log", xlabel="times fewer passes", ylabel="Spearman to the full map, median", ylim=(0.5, 1.005))
    axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    axes.set_title(f"{given.model}, preset {given.preset}, {given.images} images, N = {given.samples}")
    axes.legend(fontsize=7)
    figure.savefig(stem.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
