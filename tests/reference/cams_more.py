"""The CAMs beside Score-CAM and Grad-CAM once more, in plain NumPy, for one image: loops, no batches, no chunks.

Names as in `cams.py`: `f` is the network, `x` one image [*space, c_in]; `A` its activations [*grid, c]; `G` the
gradient of the class's logit with respect to them; `c` the class; `head` runs the network from activations
[m, *grid, c] to logits [m, n].
"""

import itertools

import numpy as np

from tests.reference.cams import class_score, resize, softmax, unit


def xgrad_cam(A, G):
    """Fu et al. 2020, Eq. 8."""
    raw = 0
    for k in range(A.shape[-1]):
        total = A[..., k].sum()
        if total != 0:
            raw = raw + sum(G[..., k].ravel() * A[..., k].ravel() / total) * A[..., k]
    return raw


def hires_cam(A, G):
    return sum(G[..., k] * A[..., k] for k in range(A.shape[-1]))


def layer_cam(A, G):
    return sum(np.maximum(G[..., k], 0) * A[..., k] for k in range(A.shape[-1]))


def principal(M, center):
    """The projection on the first principal axis, by the eigenvectors of MᵀM; its largest value is positive."""
    rows = M.reshape(-1, M.shape[-1]).astype(np.float64)
    if center:
        rows = rows - rows.mean(0)
    _, vectors = np.linalg.eigh(rows.T @ rows)
    projected = rows @ vectors[:, -1]
    if abs(projected.min()) > projected.max():
        projected = -projected
    return projected.reshape(M.shape[:-1])


def smooth_grad_cam_pp(A, gradients):
    """`gradients` are those of the noisy images, one [*grid, c] a sample."""
    d1, d2, d3 = (np.mean([g**p for g in gradients], axis=0, dtype=np.float64) for p in (1, 2, 3))
    raw = 0
    for k in range(A.shape[-1]):
        with np.errstate(invalid="ignore"):
            a = np.nan_to_num(d2[..., k] / (2 * d2[..., k] + A[..., k].sum() * d3[..., k]))
        raw = raw + (a * np.maximum(d1[..., k], 0)).sum() * A[..., k]
    return raw


def nearest_classes(logits, c, n):
    """The n other classes whose logits are nearest to that of class c."""
    others = [d for d in range(len(logits)) if d != c]
    return sorted(others, key=lambda d: abs(logits[d] - logits[c]))[:n]


def finer_cam(A, gradient_of, logits, c, n, gamma):
    """`gradient_of(d)` is the gradient of class d's logit."""
    references = nearest_classes(logits, c, n)
    G = gradient_of(c) - gamma * sum(gradient_of(d) for d in references) / len(references)
    return sum(G[..., k].mean() * A[..., k] for k in range(A.shape[-1]))


def shapley_cam(A, gradient_at):
    """`gradient_at(A)` is the utility's gradient at other activations: H A by central differences."""
    step = 1e-4
    curved = (gradient_at(A * (1 + step)) - gradient_at(A * (1 - step))) / (2 * step)
    slopes = gradient_at(A) - curved / 2
    return sum(slopes[..., k].mean() * A[..., k] for k in range(A.shape[-1]))


def ablation_cam(head, A, c, score):
    """Desai and Ramaswamy 2020, Eq. 6-7, with |Y^c| below."""
    whole = class_score(head, c, score, A)
    raw = 0
    for k in range(A.shape[-1]):
        without = A.copy()
        without[..., k] = 0
        raw = raw + (whole - class_score(head, c, score, without)) / abs(whole) * A[..., k]
    return raw


def recipro_cam(head, A, c, score, gaussian):
    raw = np.zeros(A.shape[:-1])
    for position in itertools.product(*map(range, raw.shape)):
        mask = np.zeros(raw.shape)
        for offset in itertools.product((-1, 0, 1), repeat=raw.ndim):
            at = tuple(p + o for p, o in zip(position, offset, strict=True))
            if all(0 <= p < side for p, side in zip(at, raw.shape, strict=True)):
                mask[at] = np.prod([0.25 if o else 0.5 for o in offset]) if gaussian else not any(offset)
        raw[position] = class_score(head, c, score, (A[position] * mask[..., None]).astype(np.float32))
    return raw


def is_cam(f, x, A, c, *, n_samples, path, score, baseline, channel_softmax, normalize):
    """`baseline` an image or None."""
    alphas = {}
    for k in range(A.shape[-1]):
        m = A[..., k]
        if m.max() == m.min():
            continue
        h = unit(resize(m, x.shape[:-1])) if normalize == "after_resize" else resize(unit(m), x.shape[:-1])
        total, running = 0, 0
        for i in range(1, n_samples + 1):
            running += i / n_samples
            t = i / n_samples if path == "straight" else running
            total += class_score(f, c, score, (t * x * h[..., None]).astype(np.float32))
        alphas[k] = total / n_samples - (0 if baseline is None else class_score(f, c, score, baseline))
    weights = np.array(list(alphas.values()))
    weights = softmax(weights) if channel_softmax else weights
    return sum(w * A[..., k] for w, k in zip(weights, alphas, strict=True))


def group_cam(f, x, blurred, A, G, c, *, groups, percentile, score):
    """At the input's resolution."""
    channels = A.shape[-1]
    size = -(-channels // groups)
    alpha = [G[..., k].mean() for k in range(channels)]
    total = np.zeros(x.shape[:-1])
    for first in range(0, channels, size):
        m = np.maximum(sum(alpha[k] * A[..., k] for k in range(first, min(first + size, channels))), 0)
        m = np.where(m > np.percentile(m, percentile), m, 0)
        if m.max() == 0:
            continue
        h = unit(resize(m, x.shape[:-1]))
        seen = (x * h[..., None] + blurred * (1 - h[..., None])).astype(np.float32)
        total += (class_score(f, c, score, seen) - class_score(f, c, score, blurred)) * h
    return total


def rise(f, x, c, masks, keep, score):
    return sum(class_score(f, c, score, x * m[..., None]) * m for m in masks) / (len(masks) * keep)


def rise_mask(grid, offset, space):
    """A grid of cells, enlarged to one cell more than the image, cut at an offset."""
    sides = [-(-side // cells) for side, cells in zip(space, grid.shape, strict=True)]
    enlarged = resize(grid, [(cells + 1) * side for cells, side in zip(grid.shape, sides, strict=True)])
    return enlarged[tuple(slice(o, o + side) for o, side in zip(offset, space, strict=True))]


def occlusion(f, x, c, window, stride, score):
    space = x.shape[:-1]
    whole = class_score(f, c, score, x)
    total, count = np.zeros(space), np.zeros(space)
    starts = [sorted({*range(0, side - w + 1, s), side - w}) for side, w, s in zip(space, window, stride, strict=True)]
    for start in itertools.product(*starts):
        where = tuple(slice(at, at + w) for at, w in zip(start, window, strict=True))
        hidden = x.copy()
        hidden[where] = 0
        total[where] += whole - class_score(f, c, score, hidden)
        count[where] += 1
    return total / count
