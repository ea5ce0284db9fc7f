"""The numbers of docs/results.md: paired differences with their intervals and p-values, corrected within each family.

A family is what was looked at for one question. Every claim has the corrected p-value of Holm.

    python notebooks/results/claims.py
"""

import pathlib

import numpy as np

from sscam_jax.evaluation import intervals, parquet, statistics
from sscam_jax.evaluation.comparison import is_control
from sscam_jax.evaluation.statistics import Results
from sscam_jax.metrics import METRICS

RESULTS = pathlib.Path(__file__).parent
MAIN = ("average-drop", "average-gain", "insertion", "deletion", "energy", "energy-over-area")
S = "score=logit,channel_softmax=true"

TABLES = {
    "resnet18_40": ("average-drop", "average-increase", "insertion", "energy", "energy-over-area", "pointing"),
    "squeezenet1_0_40": ("average-drop", "average-increase", "insertion", "energy", "energy-over-area", "pointing"),
    "squeezenet1_1_40": ("average-drop", "insertion", "deletion", "energy", "energy-over-area", "pointing"),
    "squeezenet1_1_12": ("average-drop", "insertion", "deletion", "energy", "energy-over-area"),
    "squeezenet1_1_stanford40": ("average-drop", "average-increase", "energy", "energy-over-area", "pointing"),
    "stanford40_squeezenet1_1": ("average-drop", "average-increase", "energy", "energy-over-area", "pointing"),
    "squeezenet1_1_voc": ("average-drop", "average-increase", "energy", "energy-over-area", "pointing"),
    "resnet18_all": ("average-drop", "average-increase", "energy", "energy-over-area", "pointing"),
    "squeezenet1_0_all": ("average-drop", "average-increase", "energy", "energy-over-area", "pointing"),
    "squeezenet1_1_all": ("average-drop", "average-increase", "energy", "energy-over-area", "pointing"),
}

# A question, the run, and method against reference.
FAMILIES = {
    "σ = 0.5 against 4": [
        ("squeezenet1_1_40", "ss-cam:paper,sigma=0.5,budget=320", "ss-cam:paper,budget=320"),
        ("resnet18_40", "ss-cam:light,budget=512", "ss-cam:paper,budget=512"),
        ("squeezenet1_0_40", "ss-cam:light,budget=512", "ss-cam:paper,budget=512"),
    ],
    "σ = 0.5 against Score-CAM": [
        ("squeezenet1_1_40", "ss-cam:paper,sigma=0.5,budget=320", "score-cam"),
        ("resnet18_40", "ss-cam:light,budget=512", "score-cam"),
        ("squeezenet1_0_40", "ss-cam:light,budget=512", "score-cam"),
    ],
    "the paper's preset against the methods that it names": [
        (run, "ss-cam:paper", other)
        for run in ("resnet18_40", "squeezenet1_0_40")
        for other in ("grad-cam", "grad-cam++", "score-cam", "mean-activation")
    ],
    "the reading of the authors' notebooks": [
        (run, "ss-cam:authors", "mean-activation") for run in ("resnet18_40", "squeezenet1_0_40")
    ],
    "ten samples against one": [
        (run, "ss-cam:paper", "ss-cam:paper,budget=512") for run in ("resnet18_40", "squeezenet1_0_40")
    ],
    "SS-CAM on Stanford40": [
        ("squeezenet1_1_stanford40", method, other)
        for method in ("ss-cam:paper,budget=128", "ss-cam:budget=128")
        for other in ("grad-cam", "grad-cam++", "score-cam:budget=128", "gaussian")
    ],
    "logits with a softmax over channels": [("squeezenet1_1_40", f"ss-cam:paper,{S},sigma=1,budget=320", "score-cam")],
    "the other presets, on 12 images": [
        ("squeezenet1_1_12", method, "mean-activation")
        for method in ("ss-cam:paper_mean", "ss-cam:authors", "ss-cam:algorithm1", "score-cam:original")
    ],
    "class or not": [
        (f"{network}_all", "grad-cam", "mean-activation") for network in ("resnet18", "squeezenet1_0", "squeezenet1_1")
    ],
    "methods of a few passes": [
        ("squeezenet1_1_all", method, "grad-cam")
        for method in (
            "grad-cam++", "xgrad-cam", "hires-cam", "layer-cam", "finer-cam", "shapley-cam", "eigen-cam",
            "eigen-grad-cam",
        )
    ],
}  # fmt: skip
# The pointing game of VOC is a mean over its classes, as its authors have it.
PER_CLASS = {"squeezenet1_1_voc": ("pointing",)}
CONFIRM = [
    ("squeezenet1_1_confirm", "ss-cam:paper,sigma=0.5,budget=320", "ss-cam:paper,budget=320"),
    ("squeezenet1_1_confirm", "ss-cam:paper,sigma=0.5,budget=320", "score-cam"),
]


def compared(results: Results, method: str, other: str) -> list[tuple[str, int, float, float, float, float, float]]:
    """Of every main metric: name, n, difference, interval, p, and p that it is not within the margin."""
    kept = [name for name in (*MAIN, "pointing") if name in results.metrics]
    columns = [results.metrics.index(name) for name in kept]
    found = statistics.sample(results._replace(metrics=tuple(kept), values=results.values[..., columns]))
    margins = np.array([1.0 if METRICS[name].unit == "%" else 0.01 for name in kept])
    reference = np.full(len(kept), results.methods.index(other))
    difference, j = intervals.differences(found, METRICS, reference, margins), results.methods.index(method)
    parts = (*difference.estimates, difference.p, difference.p_apart)
    n = (found.weights > 0).sum(0).tolist()
    return [(name, n[k], *(float(part[j, k]) for part in parts)) for k, name in enumerate(kept)]


def family(pairs: list[tuple[str, str, str]]) -> list[str]:
    rows = []
    for run, method, other in pairs:
        found = parquet.read(RESULTS / f"{run}.parquet")
        rows += [(run, method, other, *each) for each in compared(found, method, other)]
    p, apart = (np.array([row[k] for row in rows]) for k in (-2, -1))
    corrected, within = intervals.holm(p), intervals.holm(apart)
    lines = []
    for row, holm, alike in zip(rows, corrected, within, strict=True):
        run, method, other, name, n, value, low, high = row[:-2]
        digits = 1 if METRICS[name].unit == "%" else 3
        ends = f"[{low:+.{digits}f}, {high:+.{digits}f}]"
        told = "differs" if holm < 0.05 else "alike" if alike < 0.05 else ""
        lines.append(
            f"| {run} | `{method}` − `{other}` | {name} | {n} | {value:+.{digits}f} {ends} | {holm:.3g} | {told} |"
        )
    return lines


def means(run: str, metrics: tuple[str, ...]) -> list[str]:
    """A table of means."""
    found = parquet.read(RESULTS / f"{run}.parquet")
    columns = [found.metrics.index(name) for name in metrics]
    chosen = found._replace(metrics=metrics, values=found.values[..., columns])
    sample = statistics.sample(chosen, per_class=PER_CLASS.get(run, ()))
    arrows = ["↑" if METRICS[name].better == "higher" else "↓" for name in metrics]
    heading = [f"{name} {arrow}" for name, arrow in zip(metrics, arrows, strict=True)]
    lines = ["| method | " + " | ".join(heading) + " |", "|---|" + "---|" * len(metrics)]
    for method, row in zip(found.methods, sample.means, strict=True):
        digits = [1 if METRICS[name].unit == "%" else 2 if name == "energy-over-area" else 3 for name in metrics]
        cells = [f"{value:.{d}f}" for value, d in zip(row, digits, strict=True)]
        lines.append(f"| `{method}`{' (control)' if is_control(method) else ''} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    for run, metrics in TABLES.items():
        print(f"\n## {run}\n", *means(run, metrics), sep="\n")
    families = FAMILIES | ({"confirmed": CONFIRM} if (RESULTS / "squeezenet1_1_confirm.parquet").is_file() else {})
    for question, pairs in families.items():
        lines = family(pairs)
        print(f"\n## {question}: {len(lines)} comparisons\n\n| run | difference | metric | n | mean | p (Holm) | |")
        print("|---|---|---|---|---|---|---|", *lines, sep="\n")
