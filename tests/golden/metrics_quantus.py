"""Golden values of Quantus 0.6.0's metrics of maps, and of scikit-image's SSIM.

    python -m tests.golden.metrics_quantus      (from the repository's root; quantus 0.6.0, scikit-image 0.26.0)

needs quantus==0.6.0, which brings scikit-image; no torch: these metrics look at maps alone. The maps are drawn by name
(random_tensors.py), with a part set to zero; the boxes have their edges between pixels, for Quantus knows only masks.
"""

import pathlib

import numpy as np

from tests.golden.random_tensors import uniform

HERE = pathlib.Path(__file__).parent
SHAPE = (6, 24, 32)
# y0, x0, y1, x1 in pixels: one box, two apart, two that overlap, the corners, and a map's only hot pixel.
BOXES = [
    [(2, 20, 11, 31)],
    [(0, 0, 5, 7), (8, 12, 20, 24)],
    [(4, 4, 14, 20), (8, 12, 20, 30)],
    [(0, 0, 3, 3), (21, 29, 24, 32)],
    [(0, 0, 24, 32)],
    [(3, 28, 4, 29)],
]


def maps() -> np.ndarray:
    """Maps in [0, 1], two thirds of them zero; the last has one hot pixel."""
    drawn = np.clip(1.5 * uniform("quantus.maps", SHAPE) - 0.5, 0, None)
    drawn[-1] = 0
    drawn[-1, 3, 28] = 0.5
    return drawn


def others() -> np.ndarray:
    """Maps in [0, 1] that resemble the first."""
    return (maps() + np.abs(uniform("quantus.others", SHAPE))) / 2


def boxes() -> np.ndarray:
    """The boxes as shares, rows of -1 where an image has fewer."""
    shares = np.full((len(BOXES), 2, 4), -1, np.float32)
    for i, rows in enumerate(BOXES):
        shares[i, : len(rows)] = np.array(rows) / [SHAPE[1], SHAPE[2], SHAPE[1], SHAPE[2]]
    return shares


def main() -> None:
    # Not needed by the tests, which draw the same maps.
    import quantus
    from skimage.metrics import structural_similarity

    masks = np.zeros(SHAPE, bool)
    for mask, rows in zip(masks, BOXES, strict=True):
        for top, left, bottom, right in rows:
            mask[top:bottom, left:right] = True
    quiet = dict(abs=False, normalise=False, disable_warnings=True)
    # Quantus works in place, hence the copies.
    np.savez_compressed(
        HERE / "metrics_quantus.npz",
        relevance_mass_accuracy=quantus.RelevanceMassAccuracy(**quiet).evaluate_batch(maps(), masks),
        pointing_game=quantus.PointingGame(**quiet).evaluate_batch(a_batch=maps(), s_batch=masks),
        sparseness=quantus.Sparseness(**quiet).evaluate_batch(None, maps()),
        ssim=[
            structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)
            for a, b in zip(maps(), others(), strict=True)
        ],
    )


if __name__ == "__main__":
    main()
