"""Insertion and deletion, drawn."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sscam_jax.metrics import Curve


def curve(found: Mapping[str, Curve], methods: Sequence[str], *, image: int = 0) -> Figure:
    """The probability of the class while pixels change, the most important first: a panel per metric, a line per map.

    Args:
        found: what `metrics.insertion` and `metrics.deletion` returned for m methods and b images, by its title.
        methods: the names of the m methods.
        image: which of the b images.

    Returns:
        A matplotlib figure, for `save` or, in a notebook, to be shown. The legend has the area under each curve.

    Raises:
        ValueError: there is no curve, the names are not m, or there is no such image.

    Example:
        >>> steps = np.linspace(0, 1, 5, dtype=np.float32)
        >>> two = Curve(np.full((2, 1), 0.5), np.stack([steps[None], steps[None] ** 2]), steps)
        >>> len(curve({"insertion": two}, ["Grad-CAM", "SS-CAM"]).axes[0].lines)
        2

    References:
        Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018, Figure 1.
    """
    if not found:
        raise ValueError("no curves: expected at least one, as {'insertion': metrics.insertion(…)}")
    drawing = Figure(figsize=(3.6 * len(found), 3.0), dpi=150, layout="constrained")
    # squeeze=False: one panel is an array of panels too.
    panels = drawing.subplots(1, len(found), sharey=True, squeeze=False)[0]
    for axes, (title, each) in zip(panels, found.items(), strict=True):
        m, b = np.shape(each.auc)
        if len(methods) != m or not 0 <= image < b:
            raise ValueError(
                f"'{title}' has {m} methods and {b} images, got {len(methods)} names of methods and image {image}"
            )
        for name, values, area in zip(methods, each.curve[:, image], each.auc[:, image], strict=True):
            axes.plot(100 * np.asarray(each.shares), np.asarray(values), label=f"{name}: {float(area):.3f}")
        axes.set(title=title, xlabel="changed pixels in percent", xlim=(0, 100), ylim=(0, 1))
        axes.legend(title="area", fontsize=8, title_fontsize=8)
    panels[0].set_ylabel("probability of the class")
    return drawing
