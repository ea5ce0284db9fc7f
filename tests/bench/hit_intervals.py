"""Which interval for a paired difference of hits (0 or 100 per image) holds the truth: the candidates, exactly.

An image is a hit of both methods, of the first alone, of the second alone, or of neither. The four shares are those of
the stored 2009 images, for every network and method against Grad-CAM. All data sets of n images are enumerated with
their multinomial probabilities, so nothing is drawn.

    python tests/bench/hit_intervals.py

References:
    Fagerland, Lydersen and Laake, Recommended Tests and Confidence Intervals for Paired Binomial Proportions
    (Statistics in Medicine 2014).
"""

from collections.abc import Callable, Iterator

import coverage
import numpy as np
from scipy import special, stats

Z = stats.norm.ppf(0.975)
Counts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
Holds = Callable[[Counts, float], np.ndarray]


def added(more: float) -> Holds:
    """Wald's interval with `more` images added to each way of differing: 0 Wald, 1/2 Agresti-Min, 1 Bonett-Price."""

    def holds(counts: Counts, truth: float) -> np.ndarray:
        _, b, c, _ = counts
        n = sum(counts) + 2 * more
        p, q = (b + more) / n, (c + more) / n
        return np.abs(p - q - truth) <= Z * np.sqrt((p + q - (p - q) ** 2) / n) + 1e-12

    return holds


def wilson(hits: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, wide = hits / n, 1 + Z**2 / n
    half = Z * np.sqrt(p * (1 - p) / n + (Z / n) ** 2 / 4) / wide
    return (p + Z**2 / n / 2) / wide - half, (p + Z**2 / n / 2) / wide + half


def newcombe(counts: Counts, truth: float) -> np.ndarray:
    """Newcombe's square-and-add of two Wilson intervals, with their correlation (his method 10)."""
    a, b, c, d = counts
    n = a + b + c + d
    p, q = (a + b) / n, (a + c) / n
    (p_low, p_high), (q_low, q_high) = wilson(a + b, n), wilson(a + c, n)
    spread, product = np.sqrt(1.0 * (a + b) * (c + d) * (a + c) * (b + d)), a * d - b * c
    corrected = np.where(product > 0, np.maximum(product - n / 2, 0), product)
    phi = np.where(spread > 0, corrected / np.where(spread > 0, spread, 1), 0)

    def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(one**2 - 2 * phi * one * other + other**2, 0))

    low, high = p - q - distance(p - p_low, q_high - q), p - q + distance(p_high - p, q - q_low)
    return (low - 1e-12 <= truth) & (truth <= high + 1e-12)


def tango(counts: Counts, truth: float) -> np.ndarray:
    """Tango's score interval: what his test does not reject."""
    _, b, c, _ = counts
    n = sum(counts)
    middle = -b - c + (2 * n - b + c) * truth
    share = (np.sqrt(np.maximum(middle**2 + 8 * n * c * truth * (1 - truth), 0)) - middle) / (4 * n)
    variance = np.maximum(n * (2 * share + truth * (1 - truth)), 0)
    return np.abs(b - c - n * truth) <= Z * np.sqrt(variance) + 1e-12


def mid_p(counts: Counts, truth: float) -> np.ndarray:
    """The exact mid-p interval of the share of b among the images that differ, times the share of these."""
    _, b, c, _ = counts
    differ = b + c
    share = (1 + truth * sum(counts) / np.maximum(differ, 1)) / 2
    inside = np.clip(share, 0, 1)
    half = stats.binom.pmf(b, differ, inside) / 2
    tails = np.minimum(stats.binom.sf(b, differ, inside), stats.binom.cdf(b - 1, differ, inside)) + half
    return np.where(differ > 0, (share == inside) & (tails >= 0.025), truth == 0)


CANDIDATES = {
    "Wald": added(0.0), "mid-p": mid_p, "Agresti-Min": added(0.5), "Bonett-Price": added(1.0), "Newcombe": newcombe,
    "Tango": tango,
}  # fmt: skip


def shares(metric: str) -> Iterator[np.ndarray]:
    """Of every network and method: the shares of images that are hits of both, of one, of the other, of neither."""
    for values, reference in coverage.against_grad_cam(metric):
        one, other = values > 50, reference > 50
        yield np.array([(one & other).mean(), (one & ~other).mean(), (~one & other).mean(), (~one & ~other).mean()])


def data_sets(n: int) -> Counts:
    a, b, c = (each.ravel() for each in np.indices((n + 1,) * 3))
    there = a + b + c <= n
    return a[there], b[there], c[there], (n - a - b - c)[there]


def main() -> None:
    """Print the table."""
    print("| metric | n | at most one image differs |" + "|".join(CANDIDATES) + "|")
    print("|---|---|---|" + "---|" * len(CANDIDATES))
    for n in (12, 40):
        counts = data_sets(n)
        ways = special.gammaln(n + 1) - sum(special.gammaln(each + 1) for each in counts)
        for metric in ("pointing", "average-increase"):
            few, found = [], {name: [] for name in CANDIDATES}
            for share in shares(metric):
                chance = np.exp(ways + sum(special.xlogy(k, p) for k, p in zip(counts, share, strict=True)))
                few.append(chance[counts[1] + counts[2] <= 1].sum())
                for name, holds in CANDIDATES.items():
                    found[name].append(chance[holds(counts, share[1] - share[2])].sum())
            row = [f"{np.mean(each):.3f} ({min(each):.3f}–{max(each):.3f})" for each in found.values()]
            print(f"| `{metric}` | {n} | {np.mean(few):.2f} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
