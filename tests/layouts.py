"""Tiny data sets written in their official layouts."""

import pathlib

from PIL import Image

Box = tuple[int, int, int, int]  # xmin, ymin, xmax, ymax, as the files have them


def picture(file: pathlib.Path, width: int = 40, height: int = 30) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(file, "JPEG")


def annotation(file: pathlib.Path, *objects: tuple[str, Box, str], size: tuple[int, int] = (40, 30)) -> None:
    """PASCAL's form: class, box and further elements of each object."""
    file.parent.mkdir(parents=True, exist_ok=True)
    inner = "".join(
        f"<object>{more}<name>{name}</name><bndbox><xmax>{x1}</xmax><xmin>{x0}</xmin><ymin>{y0}</ymin><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, (x0, y0, x1, y1), more in objects
    )
    size_of = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    file.write_text(f"<annotation>{size_of}{inner}</annotation>")


def ilsvrc(root: pathlib.Path) -> pathlib.Path:
    """Three images of ILSVRC-2012's validation set; writes `val` and `bbox`."""
    for number in (3, 1, 2):
        picture(root / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    boxes = root / "bbox" / "val"
    annotation(boxes / "ILSVRC2012_val_00000001.xml", ("n01443537", (30, 0, 40, 10), ""))
    annotation(boxes / "ILSVRC2012_val_00000002.xml", ("n01440764", (1, 2, 3, 4), ""), ("n01440764", (5, 6, 7, 8), ""))
    annotation(boxes / "ILSVRC2012_val_00000003.xml", ("n02124075", (0, 0, 9, 9), ""), ("n01440764", (1, 1, 2, 2), ""))
    return root


def voc(root: pathlib.Path) -> pathlib.Path:
    """A `VOCdevkit` of three images in two splits."""
    folder = root / "VOCdevkit" / "VOC2007"
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("000012\n000007\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("000009\n")
    (folder / "ImageSets" / "Main" / "cat_test.txt").write_text("000012 1\n000007 -1\n")
    for stem in ("000007", "000009", "000012"):
        picture(folder / "JPEGImages" / f"{stem}.jpg")
    hard, easy = "<difficult>1</difficult>", "<difficult>0</difficult>"
    annotation(
        folder / "Annotations" / "000012.xml",
        ("dog", (31, 1, 40, 10), easy),
        ("cat", (1, 11, 20, 30), easy),
        ("dog", (1, 1, 40, 30), hard),
        ("dog", (5, 6, 7, 8), ""),
        ("sheep", (1, 1, 9, 9), hard),
    )
    annotation(folder / "Annotations" / "000007.xml", ("person", (2, 2, 3, 3), easy))
    annotation(folder / "Annotations" / "000009.xml", ("boat", (2, 2, 3, 3), easy))
    return root / "VOCdevkit"


def stanford(root: pathlib.Path) -> pathlib.Path:
    """Two actions of Stanford40 with five images."""
    (root / "ImageSplits").mkdir(parents=True)
    (root / "ImageSplits" / "actions.txt").write_text("action_name\tnumber_of_images\nrowing_a_boat\t2\n")
    for action, split, numbers in (("rowing_a_boat", "train", (1,)), ("rowing_a_boat", "test", (3, 2)),
                                   ("applauding", "train", (1,)), ("applauding", "test", (2,))):  # fmt: skip
        files = [f"{action}_{number:03d}.jpg" for number in numbers]
        (root / "ImageSplits" / f"{action}_{split}.txt").write_text("\n".join(files) + "\n")
        for number, file in zip(numbers, files, strict=True):
            picture(root / "JPEGImages" / file)
            annotation(
                root / "XMLAnnotations" / file.replace(".jpg", ".xml"),
                ("person", (30 + number, 1, 40, 10), f"<action>{action}</action>"),
            )
    return root
