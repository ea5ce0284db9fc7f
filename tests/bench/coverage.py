"""How often the 95 % intervals hold the true mean, and how often tables mark what is not there.

The population are values per image that are stored in `notebooks/results`: 2009 images for most metrics, 128 for ROAD,
IoU, MaxBoxAcc, the protocols `-pixel` and `-top50`, and the metrics of complexity and robustness, 64 for ROAD's two
orders, 40 for insertion and deletion. Data sets of n images are
drawn from it with replacement; the truth is the population's mean.
A row is a kind of metric; every network and method (or pair of methods) with that metric is a cell. The table shows
the mean over cells and the worst cell.

    python tests/bench/coverage.py
"""

import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from sscam_jax.evaluation import intervals, parquet, statistics
from sscam_jax.evaluation.comparison import is_control
from sscam_jax.evaluation.statistics import Results, Sample
from sscam_jax.metrics import METRICS

RESULTS = pathlib.Path(__file__).parents[2] / "notebooks" / "results"
SIZES = (12, 40, 500)
KINDS = {
    "average-drop": "all", "average-gain": "all", "average-increase": "all", "energy": "all",
    "energy-over-area": "all", "pointing": "all", "insertion": "40", "deletion": "40",
}  # fmt: skip
MORE = dict.fromkeys(("complexity", "sparseness", "coherency", "adcc", "infidelity"), "128") | {
    "max-sensitivity": "robustness"
}
MORE |= {"average-drop-authors": "all", "average-increase-authors": "all"}
PROTOCOLS = {
    f"average-{kind}{seen}": "protocols" for seen in ("-pixel", "-top50") for kind in ("drop", "gain", "increase")
}
CONFIRMED = ("road", "iou")
ORDERS = ("road-morf", "road-lerf")
_CONSTANT = ("uniform", "fake-cam", "cam")  # `cam` is `grad-cam` on ResNet-18


def stored(metric: str) -> Iterator[tuple[Results, np.ndarray]]:
    """Every network's run with this metric, and its values [methods, images]."""
    for path in sorted(RESULTS.glob(f"*_{(KINDS | MORE | PROTOCOLS)[metric]}.parquet")):
        found = parquet.read(path)
        if metric in found.metrics:
            yield found, found.values[0, :, :, found.metrics.index(metric)].astype(np.float64)


def against_grad_cam(metric: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of every network and method: its values, and those of Grad-CAM.

    Methods that are the same map up to rounding have no difference to be found.
    """
    for found, values in stored(metric):
        reference = values[found.methods.index("grad-cam")]
        for j, method in enumerate(found.methods):
            if method not in _CONSTANT and (values[j] - reference).std() > 1e-3:
                yield values[j], reference


def populations(metric: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of every network: methods' values, their differences to Grad-CAM, and twenty groups of ImageNet's classes."""
    if metric in CONFIRMED:
        yield from confirmed(metric)
        return
    if metric in ORDERS:
        each = np.load(RESULTS / "squeezenet1_1_road.npz")[metric].astype(np.float64)
        yield each.T, each[:, 1:].T - each[:, 0], np.zeros(len(each), int)
        return
    for found, values in stored(metric):
        shown = [j for j, method in enumerate(found.methods) if method not in _CONSTANT]
        others = values[[j for j in shown if found.methods[j] != "grad-cam"]]
        apart = others - values[found.methods.index("grad-cam")]
        # A control that does not look at the image can have one value for all: there is nothing to estimate.
        some = values[shown]
        yield some[some.std(1) > 1e-3], apart[apart.std(1) > 1e-3], found.labels // 50


def confirmed(metric: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The same of the 128 images that Ridge-CAM was tried on, with three methods."""
    with np.load(RESULTS / "ridge_confirm.npz") as values:
        for each in values[metric].astype(np.float64):
            each = each[~np.isnan(each).reshape(len(each), -1).any(1)]
            each = each.max(-1) if metric == "iou" else each
            yield each.T, each[:, 1:].T - each[:, 0], np.zeros(len(each), int)


def drawn(values: np.ndarray, metric: str, classes: np.ndarray | None) -> Sample:
    """Data sets [d, n] as the methods of one sample, which all get their intervals at once."""
    groups = np.zeros(values.shape[1], int) if classes is None else np.unique(classes, return_inverse=True)[1]
    sizes = np.bincount(groups)
    weights = 1 / (len(sizes) * sizes[groups])
    one = (values[..., None], weights[:, None], (values @ weights)[:, None], groups[:, None])
    return Sample((metric,), *one, np.arange(values.shape[1]))


def held(values: np.ndarray, metric: str, n: int, draws: int, rng: np.random.Generator, *, paired: bool) -> float:
    """The share of data sets of n images whose interval holds the mean; NaN where there is no interval."""
    data, truth = values[rng.integers(len(values), size=(draws, n))], values.mean()
    if paired:  # method 0 is the reference that the others are compared with
        data = np.concatenate([np.zeros((1, n)), data])
        low, high = (
            end[1:, 0] for end in intervals.differences(drawn(data, metric, None), METRICS, np.array([0])).estimates[1:]
        )
    else:
        low, high = (end[:, 0] for end in intervals.intervals(drawn(data, metric, None), METRICS)[1:])
    there = np.isfinite(low)
    return float(np.mean((low <= truth) & (truth <= high), where=there)) if there.any() else np.nan


def held_by_class(
    values: np.ndarray, labels: np.ndarray, metric: str, n: int, draws: int, rng: np.random.Generator, *, paired: bool
) -> float:
    """The same for means over classes; the classes are those that were drawn."""
    of_class, found = np.array([values[labels == c].mean() for c in range(20)]), []
    for _ in range(draws):
        some = rng.integers(len(values), size=n)
        truth = of_class[np.unique(labels[some])].mean()
        data = values[some][None]
        if paired:
            sample = drawn(np.concatenate([np.zeros((1, n)), data]), metric, labels[some])
            low, high = (end[1, 0] for end in intervals.differences(sample, METRICS, np.array([0])).estimates[1:])
        else:
            low, high = (end[0, 0] for end in intervals.intervals(drawn(data, metric, labels[some]), METRICS)[1:])
        found.append(low <= truth <= high if np.isfinite(low) else np.nan)
    # Where most data sets have too few images per class, those that have enough are a selection.
    return float(np.nanmean(found)) if np.isfinite(found).mean() > 0.5 else np.nan


def line(name: str, cells: dict[int, list[float]]) -> str:
    shown = (f"{np.mean(each):.3f} ({min(each):.3f})" if np.isfinite(each).all() else "–" for each in cells.values())
    return f"| {name} | {' | '.join(shown)} |"


def rows(metrics: Iterable[str], draws: int, rng: np.random.Generator) -> Iterator[str]:
    for metric in metrics:
        for paired, what in ((False, "mean"), (True, "difference")):
            cells = {
                n: [
                    held(each, metric, n, draws, rng, paired=paired)
                    for of in populations(metric)
                    for each in of[paired]
                ]
                for n in SIZES
            }
            yield line(f"`{metric}`, {what}", cells)


def coverage(draws: int = 2000) -> Iterator[str]:
    """The table of the documentation."""
    rng = np.random.default_rng(0)
    yield from ("| metric | " + " | ".join(f"n = {n}" for n in SIZES) + " |", "|---|" + "---|" * len(SIZES))
    yield from rows(KINDS, draws, rng)
    yield from rows(CONFIRMED, draws, np.random.default_rng(0))
    yield from rows(MORE, draws, np.random.default_rng(0))
    yield from rows(PROTOCOLS, draws, np.random.default_rng(0))
    yield from rows(ORDERS, draws, np.random.default_rng(0))
    yield from best_box(draws // 4)
    for metric in ("pointing", "average-drop", "energy"):
        for paired, what in ((False, "mean"), (True, "difference")):
            cells = {
                n: [
                    held_by_class(each, of[2], metric, n, draws // 10, rng, paired=paired)
                    for of in populations(metric)
                    for each in of[paired][:4]
                ]
                for n in SIZES
            }
            yield line(f"`{metric}`, {what} over 20 classes", cells)


def best_box(draws: int) -> Iterator[str]:
    """MaxBoxAcc: each data set chooses its own threshold, and so does the population."""
    rng, stored = np.random.default_rng(1), np.load(RESULTS / "ridge_confirm.npz")["iou"].astype(np.float64)
    for name, demands in (("max-box-acc", (0.5,)), ("max-box-acc-v2", (0.3, 0.5, 0.7))):
        for paired, what in ((False, "mean"), (True, "difference")):
            cells: dict[int, list[float]] = {n: [] for n in SIZES}
            for n, ious in ((n, each[~np.isnan(each).any((1, 2))]) for n in SIZES for each in stored):
                hits = 100.0 * (ious.transpose(1, 0, 2)[None] >= np.array(demands)[:, None, None, None])
                truth = hits.mean(2).max(-1).mean(0)
                there = np.array([_holds(hits, truth, rng.integers(len(ious), size=n), name) for _ in range(draws)])
                cells[n] += there.mean(0)[3:].tolist() if paired else there.mean(0)[:3].tolist()
            yield line(f"`{name}`, {what}", cells)


def _holds(hits: np.ndarray, truth: np.ndarray, some: np.ndarray, name: str) -> list[bool]:
    """Whether the intervals of three methods and of the last two minus the first hold; hits [demands, m, n, t]."""
    few = hits[:, :, some]
    best = few.mean(2).argmax(-1)
    each = np.take_along_axis(few, best[:, :, None, None], -1)[..., 0].mean(0)
    found = drawn(each, name, None)
    low, high = (end[:, 0] for end in intervals.intervals(found, METRICS)[1:])
    apart = intervals.differences(found, METRICS, np.array([0])).estimates
    between = truth[1:] - truth[0]
    means = (low <= truth) & (truth <= high)
    return [*means, *((apart.low[1:, 0] <= between) & (between <= apart.high[1:, 0]))]


def tables_with_marks(name: str, tables: int = 500) -> tuple[int, int, float, float]:
    """Images, comparisons, and tables with a mark when signs are drawn at random: without and with the correction."""
    found = parquet.read(RESULTS / f"{name}.parquet")
    shown = [j for j, method in enumerate(found.methods) if not is_control(method)]
    sample, rng = statistics.sample(found), np.random.default_rng(0)
    values = sample.values[shown] - sample.values[found.methods.index("grad-cam")]
    reference = np.full(len(sample.metrics), [found.methods[j] for j in shown].index("grad-cam"))
    single, corrected = [], []
    for _ in range(tables):
        signs = rng.choice([-1, 1], (1, values.shape[1], 1))
        flipped = sample._replace(values=signs * values, means=np.einsum("nk,mnk->mk", sample.weights, signs * values))
        p = intervals.differences(flipped, METRICS, reference).p
        single.append((p < 0.05).any())
        corrected.append(intervals.discoveries(p).any())
    return values.shape[1], int((~np.isnan(p)).sum()), float(np.mean(single)), float(np.mean(corrected))


if __name__ == "__main__":
    for row in coverage():
        print(row, flush=True)
    print("\n| run | images | comparisons | a mark without correction | with it |\n|---|---|---|---|---|")
    for name in sorted(path.stem for path in RESULTS.glob("*.parquet")):
        n, comparisons, single, corrected = tables_with_marks(name)
        print(f"| `{name}` | {n} | {comparisons} | {single:.3f} | {corrected:.3f} |", flush=True)
