"""Each method once more, in plain NumPy, for one image: loops, no batches, no chunks.

`f` is the network, (images [m, *space, c_in]) -> logits [m, n]; `x` one image [*space, c_in]; `A` its activations
[*grid, c]; `G` the gradient of the class's logit with respect to them; `c` the class; `noise(k, i, shape)` the
standard normal noise of sample i of channel k; `head` runs the network from activations [m, *grid, c] to logits
[m, n].
"""

import itertools

import numpy as np


def resize(m, shape):
    """Linear interpolation, half-pixel centres, clamped edges, one axis after the other."""
    for axis, size in enumerate(shape):
        old = m.shape[axis]
        where = (np.arange(size) + 0.5) * old / size - 0.5
        m = np.apply_along_axis(lambda line, at=where, n=old: np.interp(at, np.arange(n), line), axis, m)
    return m


def unit(m):
    return np.zeros_like(m) if m.max() == m.min() else (m - m.min()) / (m.max() - m.min())


def finish(raw, shape):
    return unit(np.maximum(resize(raw, shape), 0))


def cam(A, w):
    """Eq. 1-2; w [c], the class's row of the linear layer."""
    return sum(w[k] * A[..., k] for k in range(A.shape[-1]))


def grad_cam(A, G):
    """Eq. 3-4."""
    return sum(G[..., k].mean() * A[..., k] for k in range(A.shape[-1]))


def grad_cam_pp(A, G):
    """Chattopadhyay et al. 2018, Eq. 10 and 19."""
    raw = 0
    for k in range(A.shape[-1]):
        g = G[..., k]
        with np.errstate(invalid="ignore"):
            a = np.nan_to_num(g**2 / (2 * g**2 + A[..., k].sum() * g**3))
        raw = raw + (a * np.maximum(g, 0)).sum() * A[..., k]
    return raw


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def class_score(f, c, kind, x):
    logits = f(x[None])[0].astype(np.float64)
    log_probability = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    sigmoid = np.exp(-np.logaddexp(0, -logits))
    kinds = {"logit": logits, "probability": softmax(logits), "log_probability": log_probability, "sigmoid": sigmoid}
    return kinds[kind][c]


def weigh(A, scores, channel_softmax, prior_in_sum):
    """Σ_k α_k A_k with α the scores or their softmax; `scores` has no entry for a constant channel."""
    live = sorted(scores)
    alpha = np.array([scores[k] for k in live])
    if channel_softmax:
        alpha = softmax(alpha)
    return sum(
        (a * A[..., k] * prior_in_sum[k] for a, k in zip(alpha, live, strict=True)), start=np.zeros(A.shape[:-1])
    )


def score_cam(f, x, A, c, score="probability", baseline=None, channel_softmax=False, normalize="after_resize"):
    """Eq. 5-8; `baseline` an image or None."""
    scores = {}
    for k in range(A.shape[-1]):
        m = A[..., k]
        if m.max() == m.min():
            continue
        h = unit(resize(m, x.shape[:-1])) if normalize == "after_resize" else resize(unit(m), x.shape[:-1])
        scores[k] = class_score(f, c, score, x * h[..., None])
        if baseline is not None:
            scores[k] -= class_score(f, c, score, baseline)
    return weigh(A, scores, channel_softmax, np.ones(A.shape[-1]))


def ss_cam(
    f, x, A, c, noise, *, n_samples, sigma, noise_on, sigma_mode, reduce, score, baseline, channel_softmax, prior,
    prior_in_sum, second_pass, normalize,
):  # fmt: skip
    """Eq. 9-15 and Algorithm 1; `baseline` an image or None, `prior` [c] or None."""
    w = np.ones(A.shape[-1]) if prior is None else prior
    scores = {}
    for k in range(A.shape[-1]):
        m = A[..., k] * w[k]
        if m.max() == m.min():
            continue
        if noise_on == "activation":
            h = resize(m, x.shape[:-1])
        else:
            h = unit(resize(m, x.shape[:-1])) if normalize == "after_resize" else resize(unit(m), x.shape[:-1])
        noisy = x * h[..., None] if noise_on == "masked_input" else h
        r = noisy.max() - noisy.min()
        modes = {"inverse_range_squared": (sigma / r) ** 2, "std": sigma, "variance": sigma**0.5, "relative": sigma * r}
        samples = []
        for i in range(n_samples):
            drawn = noisy + modes[sigma_mode] * noise(k, i, noisy.shape)
            samples.append(class_score(f, c, score, drawn if noise_on == "masked_input" else x * drawn[..., None]))
        scores[k] = max(samples) if reduce == "max" else sum(samples) / n_samples
        if second_pass:
            scores[k] = class_score(f, c, score, scores[k] * h[..., None] * x)
        if baseline is not None:
            scores[k] -= class_score(f, c, score, baseline)
    return weigh(A, scores, channel_softmax, w if prior_in_sum else np.ones(A.shape[-1]))


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
