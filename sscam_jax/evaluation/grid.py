"""SS-CAM over a grid of σ and N: agreement with Score-CAM and Grad-CAM, and the paper's conclusions put to the test."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sscam_jax import metrics
from sscam_jax.evaluation import intervals, pictures, run_folder, statistics
from sscam_jax.evaluation.intervals import Estimates, Values
from sscam_jax.evaluation.statistics import Results, Sample

SCORE_CAM, GRAD_CAM = "score-cam", "grad-cam"
ENERGIES = ("energy", "energy-over-area")
TITLES = {
    "energy": "Energy in the box (%)",
    "energy-over-area": "Energy over area",
    "to-score-cam": "Rank correlation with Score-CAM",
    "to-grad-cam": "Rank correlation with Grad-CAM",
}
LOW, HIGH, MORE = "σ low: close to Score-CAM", "σ high: like Grad-CAM", "more samples: more localised"


class Grid(NamedTuple):
    """SS-CAM's methods of an ablation.

    Attributes:
        preset: what is varied, "PRESET" or "PRESET,OPTION=VALUE,…".
        sigmas: σ, rising.
        samples: N, rising.
    """

    preset: str
    sigmas: tuple[float, ...]
    samples: tuple[int, ...]

    def spec(self, sigma: float, n_samples: int) -> str:
        """The method of one σ and N, as `methods.parse` reads it."""
        return f"ss-cam:{self.preset},sigma={sigma},n_samples={n_samples}"

    def specs(self) -> dict[str, tuple[float, int]]:
        """Every method with its σ and N."""
        return {self.spec(sigma, n): (sigma, n) for sigma in self.sigmas for n in self.samples}


def grid(preset: str, sigmas: Sequence[float | int], samples: Sequence[int]) -> Grid:
    """A grid of σ and N.

    Args:
        preset: of SS-CAM, "PRESET" or "PRESET,OPTION=VALUE,…".
        sigmas: the values of σ, at least two, ≥ 0, in any order.
        samples: the values of N, at least two, ≥ 1, in any order.

    Returns:
        The grid, rising in both.

    Raises:
        ValueError: a value is not possible, there are fewer than two, or the preset sets σ or N itself.

    Example:
        >>> list(grid("paper", [1, 0.5], [4, 1]).specs())[:2]
        ['ss-cam:paper,sigma=0.5,n_samples=1', 'ss-cam:paper,sigma=0.5,n_samples=4']
    """
    # Otherwise the method's text would give σ or N twice.
    for item in preset.split(","):
        if item.partition("=")[0] in ("sigma", "n_samples"):
            raise ValueError(f"'{item}' of the preset is what an ablation varies: give the values of sigma and samples")
    for name, values, least in (("sigma", sigmas, 0), ("samples", samples, 1)):
        for value in values:
            if not least <= value < math.inf:
                raise ValueError(f"{name}={value} is not possible, expected at least {least}")
        if len(set(values)) < 2:
            raise ValueError(
                f"an ablation compares at least two values of {name}, got {len(set(values))}: add another, or measure "
                "one with `sscam evaluate`"
            )
    return Grid(preset, tuple(sorted(set(map(float, sigmas)))), tuple(sorted(set(samples))))


class Finding(NamedTuple):
    """A claim of the paper as a paired difference, which is positive where the claim holds.

    Attributes:
        claim: what the paper says.
        measured: the difference in words.
        difference: its mean over images.
        low: the lower end of its interval; NaN with one image.
        high: the upper end.
    """

    claim: str
    measured: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says: "held", "not held" (the opposite is the case) or "can't be told"."""
        return "held" if self.low > 0 else "not held" if self.high < 0 else "can't be told"


class Ablation(NamedTuple):
    """What a grid's run says.

    Attributes:
        grid: the methods varied.
        methods: these and those beside them, m in all.
        images: how many.
        n: how many images every one of the k columns speaks of.
        keys: how many noise keys.
        columns: energy in the box, energy over area, rank correlation with Score-CAM's map and with Grad-CAM's.
        means: of every method and column.
        flat: images with a flat map, for any key.
        findings: the paper's claims.
    """

    grid: Grid
    methods: tuple[str, ...]
    images: int
    n: Int[np.ndarray, " k"]
    keys: int
    columns: tuple[str, ...]
    means: Estimates
    flat: Int[np.ndarray, " m"]
    findings: tuple[Finding, ...]

    @property
    def verdicts(self) -> dict[str, str]:
        """Each claim: held if all of its differences hold, not held if the opposite of one is the case.

        What single σ say of the samples is not counted: among many, one is off by chance.
        """
        found = {claim: [each.verdict for each in self.findings if each.claim == claim] for claim in (LOW, HIGH, MORE)}
        return {
            claim: "not held" if "not held" in each else "held" if set(each) == {"held"} else "can't be told"
            for claim, each in found.items()
        }


@functools.partial(jax.jit, static_argnums=1)
def _correlations(maps: Float[Array, "rows *space"], references: tuple[int, ...]) -> Float[Array, "rows references"]:
    """How alike the maps of one image are to some of them."""
    alike = functools.partial(metrics.spearman, spatial_axes=maps.ndim - 1)
    return jax.vmap(jax.vmap(alike, in_axes=(None, 0)), in_axes=(0, None))(maps, maps[np.array(references)])


def with_agreement(stored: run_folder.Stored, size: int) -> Results:
    """A run's results with two columns more: each map's Spearman rank correlation with Score-CAM's and Grad-CAM's.

    The maps are those that were measured, at the input's resolution; a flat one correlates with nothing: 0.

    Args:
        stored: a run that measured both methods.
        size: the side of the network's input in pixels.

    Returns:
        The results with the columns "to-score-cam" and "to-grad-cam".
    """
    results = stored.results
    there = results.passes.any(-1)  # [keys, methods]: those without noise are at the first key alone, which has all
    places = list(zip(*np.nonzero(there), strict=True))
    references = tuple(places.index((0, results.methods.index(name))) for name in (SCORE_CAM, GRAD_CAM))
    found = np.full((*results.passes.shape, 2), np.nan, np.float32)
    # Image by image: the maps of all methods for all images need not fit in memory.
    for i in range(len(results.names)):
        kept = [stored.kept_maps(i, method) for method in results.methods]
        maps = [pictures.decoded(kept[m][r : r + 1], (size, size)) for r, m in places]
        found[there, i] = _correlations(jnp.asarray(np.concatenate(maps)), references)
    return results._replace(
        metrics=(*results.metrics, "to-score-cam", "to-grad-cam"), values=np.concatenate([results.values, found], -1)
    )


# A claim, the difference in words, and the difference's terms: methods and columns with their weights.
_Contrast = tuple[str, str, dict[tuple[str, str], float]]


def _contrasts(grid: Grid) -> Iterator[_Contrast]:
    (low, *_, high), (few, *_, many) = grid.sigmas, grid.samples
    weak, strong = grid.spec(low, many), grid.spec(high, many)
    score, grad, at = "to-score-cam", "to-grad-cam", f"N = {many}"
    text = f"rank correlation with Score-CAM, σ = {low:g} against σ = {high:g}, {at}"
    yield LOW, text, {(weak, score): 1, (strong, score): -1}
    text = f"rank correlation with Score-CAM against that with Grad-CAM, σ = {low:g}, {at}"
    yield LOW, text, {(weak, score): 1, (weak, grad): -1}
    text = f"rank correlation with Grad-CAM, σ = {high:g} against σ = {low:g}, {at}"
    yield HIGH, text, {(strong, grad): 1, (weak, grad): -1}
    text = f"rank correlation with Grad-CAM against that with Score-CAM, σ = {high:g}, {at}"
    yield HIGH, text, {(strong, grad): 1, (strong, score): -1}
    # The claim is for SS-CAM, not for one σ, so σ are averaged; single ones are shown, and not counted in the verdict.
    text, terms = f"energy in the box (%), N = {many} against N = {few}", {}
    for sigma in grid.sigmas:
        terms[sigma] = {(grid.spec(sigma, many), "energy"): 1.0, (grid.spec(sigma, few), "energy"): -1.0}
    share = {term: weight / len(grid.sigmas) for each in terms.values() for term, weight in each.items()}
    yield MORE, f"{text}, mean over σ", share
    for sigma in grid.sigmas:
        yield f"{MORE}, σ = {sigma:g}", text, terms[sigma]


def analyse(stored: run_folder.Stored, grid: Grid, size: int) -> Ablation:
    """Means over the grid, and the paper's claims.

    Args:
        stored: the run of the grid's methods, Score-CAM and Grad-CAM.
        grid: its σ and N.
        size: the side of the network's input in pixels.

    Returns:
        `Ablation`.
    """
    results = with_agreement(stored, size)
    kept = [results.metrics.index(name) for name in TITLES]
    results = results._replace(metrics=tuple(TITLES), values=results.values[..., kept])
    found = statistics.sample(results)
    contrasts = list(_contrasts(grid))
    place = {(m, c): (j, k) for j, m in enumerate(results.methods) for k, c in enumerate(results.metrics)}
    values, weights = np.zeros((1, len(results.names), len(contrasts))), np.zeros((len(results.names), len(contrasts)))
    for i, (_, _, terms) in enumerate(contrasts):
        for term, weight in terms.items():
            j, k = place[term]
            values[0, :, i] += weight * found.values[j, :, k]
            # The columns of one contrast speak of the same images.
            weights[:, i] = found.weights[:, k]
    means, one_class = np.einsum("nk,mnk->mk", weights, values), np.zeros(weights.shape, int)
    names = tuple(text for _, text, _ in contrasts)
    paired = Sample(names, values, weights, means, one_class, found.photographs)
    ends = zip(*(part[0].tolist() for part in intervals.intervals(paired, dict.fromkeys(names, Values()))), strict=True)
    return Ablation(
        grid=grid,
        methods=results.methods,
        images=len(results.names),
        n=(found.weights > 0).sum(0),
        keys=len(results.values),
        columns=results.metrics,
        means=intervals.intervals(found, dict.fromkeys(TITLES, Values())),
        flat=results.flat.any(0).sum(-1),
        findings=tuple(Finding(claim, text, *each) for (claim, text, _), each in zip(contrasts, ends, strict=True)),
    )
