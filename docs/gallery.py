"""Draw the site's pictures of maps: `python docs/gallery.py` writes them into docs/gallery/.

It needs `pip install '.[demo,onnx]' rapidocr-onnxruntime` and takes some minutes on two CPU cores. The photographs are
those of the package foolbox, the network that finds text that of the package rapidocr-onnxruntime.
"""

import functools
import importlib.util
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import sscam_jax as sscam
from sscam_jax import plots, types
from sscam_jax.cams import registry

FOLDER = pathlib.Path(__file__).parent / "gallery"
KEY = jax.random.key(0)
# One sample for each of the channels that vary most: enough for an illustration, and quick.
BUDGET = 300
QUICKER = {"score_cam": dict(budget=BUDGET), "ss_cam": dict(budget=BUDGET), "is_cam": dict(n_samples=1)}
QUICKER["rise"] = dict(n_samples=1000)
# The side of a photograph, and the space between two, in pixels.
SIDE, SPACE = 240, 8
# The width of a picture on a phone, and the height of its smallest text there, in pixels.
PHONE, PHONE_TEXT = 370, 11

# A light or a dark page shows through; grey text is read on both.
ANY_PAGE = {f"{each}.facecolor": "none" for each in ("figure", "savefig", "axes")}
ANY_PAGE |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#808080")

APPLY, PARAMS = sscam.load("squeezenet1_1", checkpoint="squeezenet1_1-ndf")
DEMO = sscam.data.demo_photographs()


def save(picture: Image.Image, name: str, width: int = 1000) -> None:
    """Save a picture small enough for a page."""
    picture.thumbnail((width, 2000))
    picture.save(FOLDER / f"{name}.webp", quality=85)


def enlarge(drawing: Figure) -> Figure:
    """A figure whose titles are read on a phone too, where a page shows it at a third of its width."""
    *pictures, bar = drawing.axes
    width, column = 72 * drawing.get_figwidth(), 72 * drawing.get_figwidth() / drawing.axes[0].get_gridspec().ncols
    lines: dict[int, int] = {}
    wanted = PHONE_TEXT * width / PHONE
    for axes in pictures:
        text = axes.get_title().split("\n")
        # A letter is about 0.6 times as wide as its font is high.
        axes.title.set_fontsize(min(wanted, 0.85 * column / (0.6 * max(1, *map(len, text)))))
        row = axes.get_subplotspec().rowspan.start
        lines[row] = max(lines.get(row, 0), len(text))
    bar.tick_params(labelsize=wanted)
    # Otherwise the larger text would take its height from the pictures.
    drawing.set_figheight(drawing.get_figheight() + sum(lines.values()) * 1.2 * (wanted - 9) / 72)
    return drawing


def save_drawing(name: str, draw: Callable[[], Figure], width: int = 1000) -> None:
    """Save a figure that is read on a light and on a dark page."""
    file = FOLDER / f"{name}.png"
    with matplotlib.rc_context(ANY_PAGE):
        plots.save(draw(), file)
    with Image.open(file) as picture:
        save(picture, name, width)
    file.unlink()


def save_figure(name: str, photo: Image.Image, title: str, maps: Mapping[str, sscam.Saliency], columns: int) -> None:
    """Save a figure of several maps of one photograph."""
    drawn = {label: np.asarray(saliency.maps[0]) for label, saliency in maps.items()}
    save_drawing(name, lambda: plots.compare(photo, drawn, title=title, columns=columns))


def save_strip(name: str, pictures: list[np.ndarray]) -> None:
    """Save pictures side by side."""
    strip = Image.new("RGBA", (len(pictures) * (SIDE + SPACE) - SPACE, SIDE))
    for i, picture in enumerate(pictures):
        strip.paste(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (i * (SIDE + SPACE), 0))
    save(strip, name)


def explainer(name: str) -> Callable[..., sscam.Saliency]:
    """A method by the name of its function, with a key where it draws noise, and fewer passes where it has many."""
    method = functools.partial(getattr(sscam, name), APPLY, PARAMS, **QUICKER.get(name, {}))
    return functools.partial(method, key=KEY) if registry.draws(getattr(sscam, name)) else method


def first() -> None:
    """The pictures of the first page and of the tutorial."""
    one = sscam.explain(DEMO, methods=["grad-cam"])  # first, because the tutorial's picture shows that it compiles
    save_drawing("first", lambda: one.figure, 675)
    three = sscam.explain(DEMO)
    rows = [row._replace(captions={}) for row in three.rows]  # the seconds are of the machine that draws
    save_drawing("demo", lambda: enlarge(plots.figure(rows)), 1100)
    images = sscam.preprocess(DEMO[0])
    maps = {"Grad-CAM": sscam.grad_cam(APPLY, PARAMS, images)}
    maps["SS-CAM"] = sscam.ss_cam(APPLY, PARAMS, images, key=KEY, budget=100)
    save_figure("tutorial", sscam.data.open_image(DEMO[0]), "buckeye", maps, columns=3)


def methods() -> None:
    """Every method on three photographs, a strip each."""
    photos = [sscam.data.open_image(path) for path in DEMO]
    images = sscam.preprocess(photos)
    save_strip("photographs", [np.asarray(photo) for photo in photos])
    for name, entry in registry.ENTRIES.items():
        # SqueezeNet does not end in average pooling and a linear layer, as `cam` needs it.
        if name in registry.CONTROLS or name == "cam":
            continue
        function = entry.method.__name__
        maps = explainer(function)(images).maps
        save_strip(function, [plots.overlay(photo, each) for photo, each in zip(photos, maps, strict=True)])


def choices() -> None:
    """The presets of SS-CAM, values of σ and N, and several layers, on one photograph."""
    photo = sscam.data.open_image(DEMO[1])
    images = sscam.preprocess(photo)
    ss_cam = functools.partial(sscam.ss_cam, APPLY, PARAMS, images, key=KEY)
    presets = {name: ss_cam(preset=name, budget=BUDGET) for name in sscam.SS_CAM_PRESETS}
    save_figure("presets", photo, "goose", presets, columns=4)
    sigmas = {f"σ = {sigma:g}": ss_cam(sigma=sigma, budget=BUDGET) for sigma in (0, 0.5, 1, 2, 4)}
    save_figure("sigma", photo, "goose", sigmas, columns=6)
    counts = {f"N = {n}": ss_cam(preset="paper_mean", sigma=1.0, n_samples=n, budget=60 * n) for n in (1, 2, 4, 8, 16)}
    save_figure("samples", photo, "goose", counts, columns=6)
    layers = {
        layer: sscam.layer_cam(sscam.load("squeezenet1_1", layer=layer, checkpoint=PARAMS)[0], PARAMS, images)
        for layer in ("features.4", "features.7", "features.10", "features.12")
    }
    save_figure("layers", photo, "goose", layers, columns=5)


def classes() -> None:
    """Two classes in one photograph, and photographs that the network takes for something else."""
    photo = sscam.data.open_image(DEMO[0].with_name("imagenet_02_438.jpg"))
    images = sscam.preprocess(photo)
    names = ("wine bottle", "beaker")
    found = {name: sscam.grad_cam(APPLY, PARAMS, images, [sscam.data.class_index(name)]) for name in names}
    difference = sscam.finer_cam(APPLY, PARAMS, images, [sscam.data.class_index("beaker")], n_references=1)
    save_figure("classes", photo, "", {**found, "beaker, Finer-CAM": difference}, columns=4)
    for i, file in enumerate(("imagenet_11_630.jpg", "imagenet_14_129.jpg")):
        photo = sscam.data.open_image(DEMO[0].with_name(file))
        images = sscam.preprocess(photo)
        shares = jax.nn.softmax(APPLY(PARAMS, images)[0])
        labels = {"predicted": int(shares.argmax()), "true": int(file.split("_")[2][:-4])}
        maps = {
            f"{title}: {sscam.data.class_name(label)}, {shares[label]:.0%}": sscam.grad_cam(
                APPLY, PARAMS, images, [label]
            )
            for title, label in labels.items()
        }
        save_figure(f"failure{i + 1}", photo, "", maps, columns=3)


def _cosine(embeddings: jax.Array, others: jax.Array) -> jax.Array:
    embeddings, others = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (embeddings, others))
    return embeddings @ others.T


def _embed(params: types.Params, images: jax.Array, tap: Callable[[jax.Array], jax.Array]) -> jax.Array:
    return tap(APPLY.features(params, images)[0]).mean((1, 2))


def targets() -> None:
    """Two classes of one photograph together and one against the other, and likeness to a part of it."""
    photo = sscam.data.open_image(DEMO[0].with_name("imagenet_02_438.jpg"))
    images = sscam.preprocess(photo)
    bottle, beaker = (sscam.data.class_index(name) for name in ("wine bottle", "beaker"))
    maps = {}
    signs = {"bottle + beaker": (1.0, 1.0), "bottle − beaker": (1.0, -1.0), "beaker − bottle": (-1.0, 1.0)}
    for title, sign in signs.items():
        members = jnp.zeros((1, 1000)).at[0, jnp.array([bottle, beaker])].set(jnp.array(sign))
        target = sscam.adapt.target(APPLY, PARAMS, lambda logits, members: logits @ members.T, members)
        maps[title] = sscam.grad_cam(*target, images, [0])
    apply, params = sscam.adapt.plain(_embed, PARAMS)
    width, height = photo.size
    crop = photo.crop((int(0.7 * width), int(0.4 * height), width, height))
    target = sscam.adapt.target(apply, params, _cosine, apply(params, sscam.preprocess(crop)))
    maps["like a crop, right"] = sscam.grad_cam(*target, images, [0])
    save_figure("targets", photo, "", maps, columns=5)


def text() -> None:
    """Where a network of ONNX Runtime sees text, and the maps of its score there, without gradients."""
    import onnx
    import onnxruntime

    spec = importlib.util.find_spec("rapidocr_onnxruntime")
    assert spec is not None and spec.origin is not None
    file = pathlib.Path(spec.origin).parent / "models" / "ch_PP-OCRv4_det_infer.onnx"
    model = onnx.load(file)
    before_the_sigmoid, neck = "p2o.Add.281", "p2o.Concat.1"
    for name in (before_the_sigmoid, neck):
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def output(name: str, images: np.ndarray) -> np.ndarray:
        given = np.ascontiguousarray(images[..., ::-1].transpose(0, 3, 1, 2))  # its colours are blue, green, red
        return session.run([name], {"x": given})[0].transpose(0, 2, 3, 1)

    photo = sscam.data.open_image(DEMO[0].with_name("imagenet_09_455.jpg")).resize((256, 256))
    image = np.asarray(photo, np.float32)[None] / 127.5 - 1
    found = output(before_the_sigmoid, image)[0, ..., 0] > 0

    def score(images: np.ndarray) -> np.ndarray:
        return output(before_the_sigmoid, images)[:, found].mean(1)

    network = sscam.adapt.black_box(score, functools.partial(output, neck))
    options = dict(score="logit", chunk_size=8)
    maps = {
        "Score-CAM": sscam.score_cam(*network, jnp.asarray(image), [0], **options),
        "SS-CAM": sscam.ss_cam(*network, jnp.asarray(image), [0], key=KEY, n_samples=2, **options),
    }
    for name, saliency in maps.items():
        inside = np.asarray(saliency.maps[0])
        print(f"{name}: {inside[found].sum() / inside.sum():.0%} of the map on {found.mean():.1%} of the pixels")
    drawn = {"found as text": found.astype(np.float32)} | {
        name: np.asarray(each.maps[0]) for name, each in maps.items()
    }
    save_drawing("text", lambda: plots.compare(photo, drawn, columns=4))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    first()
    methods()
    choices()
    classes()
    targets()
    text()
