"""How near a cheaper map is to the full one: budgets and precisions, from a run of `sscam evaluate`.

    sscam evaluate --data ilsvrc2012:ROOT --fit squash --out RUN \
        --methods "ss-cam:paper ss-cam:paper,budget=320 ss-cam:paper,budget=320,precision=bfloat16"
    python tests/bench/fidelity.py RUN

Each method with a `budget` or a `precision` is compared with the one that is the same but for these, image by image:
Spearman's rank correlation of the maps at the input's resolution (median, 10th percentile), the largest change of a
map in [0, 1] (median over the images), the change of the run's first metric that needs boxes, and the passes.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from sscam_jax import metrics
from sscam_jax.evaluation import pictures, run_folder

CHEAPER = ("budget=", "precision=")


def reference(method: str, methods: tuple[str, ...]) -> str | None:
    """The same method without what makes it cheaper, one step at a time, if it was measured."""
    name, _, rest = method.partition(":")
    options = rest.split(",") if rest else []
    for cheap in CHEAPER[::-1]:
        kept = [option for option in options if not option.startswith(cheap)]
        full = f"{name}:{','.join(kept)}" if kept else name
        if len(kept) < len(options) and full in methods:
            return full
    return None


def maps(stored: run_folder.Stored, method: str, side: int = 224) -> jax.Array:
    """A method's maps of all images, as they were measured."""
    kept = (stored.kept_maps(i, method)[:1] for i in range(len(stored.results.names)))
    return jnp.concatenate([jnp.asarray(pictures.decoded(each, (side, side))) for each in kept])


def main() -> None:
    stored = run_folder.read(pathlib.Path(sys.argv[1]))
    results = stored.results
    boxed = [k for k, name in enumerate(results.metrics) if metrics.METRICS[name.partition("@")[0]].needs_boxes]
    print(f"{len(results.names)} images, {stored.config['fingerprint']['about']['model']}\n")
    print("| method | beside | Spearman | 10th percentile | largest change | energy | times fewer passes |")
    print("|---|---|---|---|---|---|---|")
    for m, method in enumerate(results.methods):
        full = reference(method, results.methods)
        if full is None:
            continue
        f = results.methods.index(full)
        ours, theirs = maps(stored, method), maps(stored, full)
        ranks = np.asarray(metrics.spearman(ours, theirs))
        change = np.abs(np.asarray(ours) - np.asarray(theirs)).max((1, 2))
        energy = np.mean(results.values[0, m, :, boxed] - results.values[0, f, :, boxed])
        fewer = np.median(results.passes[0, f] / results.passes[0, m])
        low = np.percentile(ranks, 10)
        print(
            f"| `{method}` | `{full}` | {np.median(ranks):.4f} | {low:.4f} | {np.median(change):.4f} | {energy:+.2f} "
            f"| {fewer:.1f} |"
        )


if __name__ == "__main__":
    main()
