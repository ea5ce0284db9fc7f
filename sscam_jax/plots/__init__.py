"""Figures: a map laid over its photograph, methods side by side as in the paper's Figures 3 and 4, and curves.

Nothing here needs a display: figures are objects, drawn by Agg. Their text and background follow matplotlib's
settings, so `with matplotlib.pyplot.style.context("dark_background")` draws them for a dark page.
"""

from sscam_jax.plots.curves import curve
from sscam_jax.plots.figures import Row, compare, figure, save
from sscam_jax.plots.films import save_film
from sscam_jax.plots.overlays import check_style, drawn_colours, overlay

__all__ = ["Row", "check_style", "compare", "curve", "drawn_colours", "figure", "overlay", "save", "save_film"]
