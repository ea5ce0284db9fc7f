"""A map in colour over its photograph."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from PIL import Image, ImageDraw, ImageFilter

from sscam_jax._support import choose

Map = Float[Any, "h w"]
"""A map in [0, 1], a NumPy or JAX array."""

Maps = Float[Any, "*b h w"]
"""A map or several, in [0, 1]."""

Photo = Image.Image | np.ndarray | jax.Array
"""A PIL image, or an array [h, w, 3] or [h, w]: 8-bit, or floats in [0, 1]."""

Background = Literal["grey", "colour"]

COLOURS = "plasma"
"""matplotlib's colour map: perceptually uniform, and strong in colour where the map is highest."""

_BOX = "#00e5ff"


def check_style(
    *, colours: str = COLOURS, opacity: float = 1.0, background: str = "grey", contours: Sequence[float] = ()
) -> None:
    """Refuse arguments that `overlay` would refuse, before there is anything to draw.

    Args:
        colours: as `overlay` takes it.
        opacity: as `overlay` takes it.
        background: as `overlay` takes it.
        contours: as `overlay` takes it.

    Raises:
        ValueError: one of them is not possible.

    Example:
        >>> check_style(background="blue")
        Traceback (most recent call last):
            ...
        ValueError: background 'blue' is not known; choose from 'grey', 'colour'
    """
    if colours not in colormaps:
        raise ValueError(
            f"colours {colours!r} is not a colour map of matplotlib: 'plasma', 'viridis', 'turbo', 'jet' …"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity is {opacity}, expected 0 to 1")
    choose("background", background, ("grey", "colour"))
    for share in contours:
        if not 0 < share < 1:
            raise ValueError(f"contours has {share}, expected shares of the map's energy between 0 and 1")


def _layers(colours: str, opacity: float) -> tuple[Float[np.ndarray, "256 1"], Float[np.ndarray, "256 3"]]:
    """What is left of the background, and what is put on it, for the values 0, 1/255, …, 1 of a map."""
    # As many as `_overlay` rounds a map to, so that a pixel is a look-up in these tables.
    values = np.linspace(0, 1, 256)
    cover = opacity * values[:, None]
    return (1 - cover).astype(np.float32), (255 * cover * colormaps[colours](values)[:, :3]).astype(np.float32)


def drawn_colours(*, colours: str = COLOURS, opacity: float = 1.0) -> ListedColormap:
    """The colours of an overlay, for its colour bar: `overlay` over middle grey.

    Args:
        colours: as `overlay` takes it.
        opacity: as `overlay` takes it.

    Returns:
        A colour map of matplotlib, from 0 (the photograph) to 1.

    Raises:
        ValueError: a colour map that matplotlib does not know, or an opacity outside [0, 1].

    Example:
        >>> [round(float(value), 1) for value in drawn_colours()(0.0)]
        [0.5, 0.5, 0.5, 1.0]
    """
    check_style(colours=colours, opacity=opacity)
    left, put = _layers(colours, opacity)
    return ListedColormap((left * 127.5 + put) / 255, name=f"{colours} over grey")


def as_rgb(photo: Photo) -> Image.Image:
    """The photograph in RGB."""
    if isinstance(photo, Image.Image):
        return photo.convert("RGB")
    pixels = np.asarray(photo)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] != 3):
        raise ValueError(f"a photograph is [h, w, 3] or [h, w], this array is {list(pixels.shape)}")
    if pixels.dtype != np.uint8:
        if not (np.issubdtype(pixels.dtype, np.floating) and pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(
                f"a photograph is 8-bit or floats in [0, 1], this array is {pixels.dtype} in [{pixels.min():.3g}, "
                f"{pixels.max():.3g}]; for a network's input give sscam_jax.data.photograph(image)"
            )
        pixels = np.round(255 * pixels).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB")


def _checked_maps(maps: Maps) -> Float[np.ndarray, "*b h w"]:
    values = np.asarray(maps, np.float32)
    # Not `min() < 0 or max() > 1`, which lets NaN pass: every comparison with it is false.
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"a map to be drawn is in [0, 1], this one in [{values.min():.3g}, {values.max():.3g}]")
    return values


def _inside(values: Float[np.ndarray, "height width"], share: float) -> Bool[np.ndarray, "height width"]:
    """The smallest area that holds a share of the map's energy, which is the sum of its values."""
    # In float64, because a float32 sum of a million values loses the small ones.
    falling = np.sort(values, axis=None)[::-1]
    enough = np.searchsorted(np.cumsum(falling, dtype=np.float64), share * falling.sum(dtype=np.float64))
    return values >= falling[enough]


def _lines(picture: Image.Image, inside: Bool[np.ndarray, "height width"]) -> None:
    """A white line around an area, with a dark edge so that it shows on any ground."""
    width = max(1, round(min(picture.size) / 250))
    area = Image.fromarray(inside.astype(np.uint8) * 255)
    grown = area
    for colour in ("black", "white"):
        # The dark edge lies on both sides of the border; the white line covers its inner half.
        grown = grown.filter(ImageFilter.MaxFilter(2 * width + 1)) if colour == "black" else area
        shrunk = area.filter(ImageFilter.MinFilter(2 * width + 1))
        edge = (np.asarray(grown) > 0) & (np.asarray(shrunk) == 0)
        picture.paste(colour, mask=Image.fromarray(edge.astype(np.uint8) * 255))


def _overlay(
    photo: Image.Image,
    values: Float[np.ndarray, "h w"],
    colours: str,
    opacity: float,
    background: Background,
    contours: Sequence[float],
    cells: bool,
    boxes: Float[np.ndarray, "k 4"],
) -> UInt8[np.ndarray, "height width 3"]:
    way = Image.Resampling.NEAREST if cells else Image.Resampling.BILINEAR
    enlarged = np.asarray(Image.fromarray(values).resize(photo.size, way))
    steps = np.round(255 * np.clip(enlarged, 0, 1)).astype(np.uint8)
    left, put = _layers(colours, opacity)
    ground = np.asarray(photo.convert("L").convert("RGB") if background == "grey" else photo, np.float32)
    picture = Image.fromarray(np.round(left[steps] * ground + put[steps]).astype(np.uint8))
    # A map of zeros has no energy, of which an area could hold a share.
    if values.any():
        for share in contours:
            _lines(picture, _inside(enlarged, share))
    for y0, x0, y1, x1 in boxes[(boxes >= 0).all(-1)] * np.tile(photo.size[::-1], 2):
        # The edges of a box lie between pixels; Pillow's corners are pixels, and both belong to the rectangle.
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        ImageDraw.Draw(picture).rectangle(corners, outline=_BOX, width=max(1, round(min(photo.size) / 120)))
    return np.asarray(picture)


def overlay(
    photo: Photo | Sequence[Photo],
    saliency_map: Maps,
    *,
    colours: str = COLOURS,
    opacity: float = 1.0,
    background: Background = "grey",
    contours: Sequence[float] = (),
    cells: bool = False,
    boxes: Any = None,
) -> UInt8[np.ndarray, "*b height width 3"]:
    """A map in colour over its photograph: the higher the map, the more of its colour.

    (1 − o·m) · photograph + o·m · colour(m), with m = U(map), U bilinear, and o the opacity. So the highest place has
    the strongest colour, and where the map is 0 the photograph is as it was. In grey it has no colours of its own,
    and every hue is the map's; `drawn_colours` is the colour bar.

    Args:
        photo: the photograph, height × width pixels: a PIL image or an array (8-bit, or floats in [0, 1]); of several
            maps, one for all of them, or one per map, all of one size.
        saliency_map: the map [h, w] in [0, 1], of the whole photograph; or b of them [b, h, w].
        colours: a colour map of matplotlib: "plasma", "viridis", "inferno", or "turbo" or "jet" for their looks.
        opacity: o, the map's share where it is 1, in [0, 1].
        background: "grey" or "colour".
        contours: shares of the map's energy, each between 0 and 1: a line around the smallest area that holds it.
        cells: show the map's own cells: U copies the nearest value. For a layer's grid: `ops.unit(saliency.raw)`.
        boxes: y0, x0, y1, x1 as shares of the photograph [k, 4], or for b maps [b, k, 4]; a row of −1 is no box.

    Returns:
        The picture [height, width, 3] at the photograph's resolution, or b of them: 8-bit RGB.

    Raises:
        ValueError: the map has values outside [0, 1], the photograph is no photograph, or an argument is not possible.

    Example:
        >>> overlay(Image.new("RGB", (64, 48)), np.eye(7)).shape
        (48, 64, 3)

    References:
        Naidu and Michael, SS-CAM (arXiv 2006.14255), Figure 3; Smith and van der Walt, A Better Default
        Colormap for Matplotlib (SciPy 2015).
    """
    check_style(colours=colours, opacity=opacity, background=background, contours=contours)
    values = _checked_maps(saliency_map)
    given = np.full((1, 4), -1.0) if boxes is None else np.asarray(boxes, np.float64)
    one = isinstance(photo, Image.Image) or (hasattr(photo, "ndim") and photo.ndim < 4)
    if values.ndim == 2:
        if not one:
            raise ValueError(f"one map needs one photograph, got {len(photo)}")  # type: ignore[arg-type]
        return _overlay(as_rgb(photo), values, colours, opacity, background, contours, cells, given)  # type: ignore[arg-type]
    photos = [as_rgb(photo)] * len(values) if one else [as_rgb(each) for each in photo]  # type: ignore[arg-type, union-attr]
    sizes = sorted({f"{each.width}×{each.height}" for each in photos})
    if len(photos) != len(values) or len(sizes) > 1:
        raise ValueError(
            f"{len(values)} maps need one photograph, or {len(values)} of one size; "
            f"got {len(photos)} of {', '.join(sizes)}"
        )
    given = np.broadcast_to(given, (len(values), *given.shape[-2:]))
    each = zip(photos, values, given, strict=True)
    return np.stack([_overlay(p, m, colours, opacity, background, contours, cells, k) for p, m, k in each])
