"""Each method once more, in plain NumPy, for one image: loops, no batches, no chunks.

`f` is the network, (images [m, *space, c_in]) -> logits [m, n]; `x` one image [*space, c_in]; `A` its activations
[*grid, c]; `G` the gradient of the class's logit with respect to them; `c` the class; `noise(k, i, shape)` the
standard normal noise of sample i of channel k.
"""

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
