"""Read data sets from their published folders: ImageNet's validation images, PASCAL VOC 2007, Stanford40."""

import importlib
import pathlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sscam_jax.data.imagenet import synsets
from sscam_jax.data.sources import Example, Source, listed

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The classes of PASCAL VOC in the order of their indices."""

ACTIONS = (
    "applauding", "blowing_bubbles", "brushing_teeth", "cleaning_the_floor", "climbing", "cooking", "cutting_trees",
    "cutting_vegetables", "drinking", "feeding_a_horse", "fishing", "fixing_a_bike", "fixing_a_car", "gardening",
    "holding_an_umbrella", "jumping", "looking_through_a_microscope", "looking_through_a_telescope", "phoning",
    "playing_guitar", "playing_violin", "pouring_liquid", "pushing_a_cart", "reading", "riding_a_bike",
    "riding_a_horse", "rowing_a_boat", "running", "shooting_an_arrow", "smoking", "taking_photos", "texting_message",
    "throwing_frisby", "using_a_computer", "walking_the_dog", "washing_dishes", "watching_TV", "waving_hands",
    "writing_on_a_board", "writing_on_a_book",
)  # fmt: skip
"""The actions of Stanford40 in the order of their indices."""

Boxes = Float[np.ndarray, "k 4"]


class Annotation(NamedTuple):
    """The content of an XML annotation in PASCAL VOC's format.

    Attributes:
        size: height and width of the image, or None if the file does not state them.
        objects: class, difficult, and the box y0, x0, y1, x1 of each object.
    """

    size: tuple[int, int] | None
    objects: tuple[tuple[str, bool, tuple[float, float, float, float]], ...]

    def boxes(self, name: str, first: int) -> Boxes:
        """Return the boxes of a class without the difficult ones. `first` is the number of the first pixel, 0 or 1."""
        edges = [box for what, difficult, box in self.objects if what == name and not difficult]
        return np.array(edges, np.float32).reshape(-1, 4) - np.array([first, first, 0, 0], np.float32)


def read_annotation(file: pathlib.Path, *, name: str = "name") -> Annotation | str:
    """Read an annotation, or return a text that says why it cannot be read.

    Args:
        file: the XML file.
        name: the XML element that contains the class of an object.

    Returns:
        The annotation or the text. It is not an error, because one bad file must not stop a run over a data set.
    """

    def number(element: ElementTree.Element, path: str) -> float:
        text = element.findtext(path)
        if text is None:
            raise ValueError(f"it has no '{path}'")
        return float(text)

    try:
        root = ElementTree.parse(file).getroot()
        objects = tuple(
            (
                (each.findtext(name) or "").strip(),
                (each.findtext("difficult") or "0").strip() == "1",
                tuple(number(each, f"bndbox/{edge}") for edge in ("ymin", "xmin", "ymax", "xmax")),
            )
            for each in root.iter("object")
        )
        size = None
        if root.find("size") is not None:
            size = int(number(root, "size/height")), int(number(root, "size/width"))
    except FileNotFoundError:
        return f"its annotation {file.name} is missing"
    except (ElementTree.ParseError, ValueError) as error:
        return f"its annotation {file.name} is damaged: {error}"
    if not objects:
        return f"its annotation {file.name} has no object"
    return Annotation(size if size != (0, 0) else None, objects)  # type: ignore[arg-type]  # tuples of four


def _first_folder(root: pathlib.Path, *choices: str) -> pathlib.Path:
    for choice in choices:
        if (root / choice).is_dir():
            return root / choice
    raise ValueError(f"'{root}' has no folder {' or '.join(map(repr, choices))}")


def _synsets(root: pathlib.Path) -> dict[str, str]:
    """Return names by WordNet id in the order of the class indices. A list in the folder has precedence."""
    for name in ("synset_words.txt", "LOC_synset_mapping.txt"):  # Caffe's list, Kaggle's list
        if (root / name).is_file():
            lines = (root / name).read_text("utf-8").splitlines()
            return {wnid: words.strip() for wnid, _, words in (line.partition(" ") for line in lines) if wnid}
    return synsets()


def _ground_truth(root: pathlib.Path) -> tuple[str, ...]:
    """Return the WordNet id of every validation image from the development kit; nothing if there is no kit."""
    for folder in (root, root / "ILSVRC2012_devkit_t12" / "data"):
        file, meta = folder / "ILSVRC2012_validation_ground_truth.txt", folder / "meta.mat"
        if file.is_file():
            if not meta.is_file():
                raise ValueError(f"'{meta}' is missing: '{file}' needs it, because it has the order of the classes")
            table = importlib.import_module("scipy.io").loadmat(meta, squeeze_me=True)["synsets"]
            # The kit numbers the classes in an order of its own, which is not that of the networks' logits.
            wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table}
            return tuple(wnids[int(number)] for number in file.read_text().split())
    return ()


def ilsvrc2012(root: pathlib.Path) -> Source:
    """Read ILSVRC-2012's validation images with the boxes of their class.

    The class comes from the first of these that exists: the folder of the image (`val/n01440764/…`), the ground truth
    of the development kit, the annotation of the boxes.

    Args:
        root: the folder with `val/` and `bbox/val/`, or Kaggle's folder with `ILSVRC/`.

    Returns:
        The data set, sorted by file name.

    Raises:
        ValueError: the folder has another layout, or a class is not in the list of classes.
    """
    images = _first_folder(root, "val", "ILSVRC/Data/CLS-LOC/val")
    annotations = [root / folder for folder in ("bbox/val", "ILSVRC/Annotations/CLS-LOC/val")]
    annotated = next((folder for folder in annotations if folder.is_dir()), None)
    words = _synsets(root)
    index = {wnid: i for i, wnid in enumerate(words)}
    truth = _ground_truth(root)
    # By name, so that both layouts, flat and one folder per class, give the same ids.
    files = sorted((*images.glob("*.JPEG"), *images.glob("n*/*.JPEG")), key=lambda file: file.name)
    examples = []
    for file in files:
        given = annotated and read_annotation(annotated / f"{file.stem}.xml")
        number = int(file.stem.rpartition("_")[2]) if truth else 0
        if file.parent != images:
            wnid = file.parent.name
        elif truth:
            wnid = truth[number - 1]
        else:
            wnid = given.objects[0][0] if isinstance(given, Annotation) else ""
        if wnid and wnid not in index:
            raise ValueError(f"class '{wnid}' of {file.name} is not in the list of {len(index)} classes")
        example = Example(file.stem, file, index[wnid] if wnid else -1)
        if isinstance(given, Annotation):
            example = example._replace(boxes=given.boxes(wnid, 0), size=given.size)
        examples.append(example._replace(problem=given) if isinstance(given, str) else example)
    return listed("ilsvrc2012", tuple(words.values()), examples)


def voc2007(root: pathlib.Path, split: str = "trainval") -> Source:
    """Read PASCAL VOC 2007. Each class in an image gives one example with the boxes of that class.

    Objects that are marked as difficult are left out, as in the evaluation of the challenge.

    Args:
        root: the folder `VOCdevkit`, its parent, or its subfolder `VOC2007`.
        split: the name of a list in `ImageSets/Main`: "trainval", "train", "val" or "test".

    Returns:
        The data set, in the order of the list. The classes of an image are in the order of their indices.

    Raises:
        ValueError: the folder has another layout, or no such split.
    """
    folder = next((each for each in (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007") if _is_voc(each)), None)
    if folder is None:
        raise ValueError(
            f"'{root}' has no folder 'VOC2007' with 'ImageSets/Main': give the folder that holds it, usually VOCdevkit"
        )
    # Files such as aeroplane_train.txt are lists of a single class.
    lists = {file.stem: file for file in (folder / "ImageSets" / "Main").glob("*.txt") if "_" not in file.stem}
    if split not in lists:
        raise ValueError(f"split '{split}' is not one of voc2007 in '{root}'; choose from {_quoted(lists)}")
    examples = []
    for stem in lists[split].read_text().split():
        image = folder / "JPEGImages" / f"{stem}.jpg"
        given = read_annotation(folder / "Annotations" / f"{stem}.xml")
        if isinstance(given, str):
            examples.append(Example(stem, image, problem=given))
            continue
        # One example per class, since a map explains one class.
        for label, name in enumerate(VOC_CLASSES):
            boxes = given.boxes(name, 1)  # VOC numbers pixels from 1
            if len(boxes):
                examples.append(Example(f"{stem}:{name}", image, label, boxes, given.size))
    return listed(f"voc2007:{split}", VOC_CLASSES, examples)


def _is_voc(folder: pathlib.Path) -> bool:
    return (folder / "ImageSets" / "Main").is_dir()


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names))) or "none, because there is no list"


def stanford40(root: pathlib.Path, split: str = "test") -> Source:
    """Read Stanford 40 Actions: people, each with an action and one box.

    Args:
        root: the folder with `JPEGImages`, `XMLAnnotations` and `ImageSplits`.
        split: "train" or "test".

    Returns:
        The data set, sorted by action.

    Raises:
        ValueError: the folder has another layout, or no such split.
    """
    lists = _first_folder(root, "ImageSplits")
    files = sorted(lists.glob("*_*.txt"), key=lambda file: file.name)
    splits = {file.stem.rpartition("_")[2] for file in files}
    if split not in splits:
        raise ValueError(f"split '{split}' is not one of stanford40 in '{root}'; choose from {_quoted(splits)}")
    if unknown := {file.stem.rpartition("_")[0] for file in files} - set(ACTIONS):
        raise ValueError(f"'{lists}' lists {_quoted(unknown)}, which is not one of Stanford40's {len(ACTIONS)} actions")
    examples = []
    for label, action in enumerate(ACTIONS):
        file = lists / f"{action}_{split}.txt"
        for name in file.read_text().split() if file.is_file() else ():
            stem = pathlib.Path(name).stem
            example = Example(stem, root / "JPEGImages" / name, label)
            given = read_annotation(root / "XMLAnnotations" / f"{stem}.xml", name="action")
            if isinstance(given, str):
                example = example._replace(problem=given)
            else:
                example = example._replace(boxes=given.boxes(action, 1), size=given.size)
            examples.append(example)
    return listed(f"stanford40:{split}", ACTIONS, examples)
