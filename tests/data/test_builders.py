"""Data sets of TFDS: built by its `build` command and read back, both with TensorFlow out of reach."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sscam_jax import data
from tests import layouts

# Whatever asks for TensorFlow is told that it is not installed, whether or not it is.
WITHOUT_TENSORFLOW = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *where: None if name.partition(".")[0] == "tensorflow" else find(name, *where)
"""

BUILD = """
import runpy
runpy.run_module("sscam_jax.data.builders", run_name="__main__", alter_sys=True)
"""

# TFDS's own `voc` downloads 900 MB and reads them through TensorFlow, so records of its form are written here.
BUILD_VOC = """
import pathlib, sys
import tensorflow_datasets as tfds
from sscam_jax.data.layouts import read_annotation
from tensorflow_datasets.object_detection import voc

class Voc(voc.Voc, skip_registration=True):
    def _split_generators(self, manager):
        lists = {"train": "val", "validation": "val", "test": "test"}
        return {split: self._generate_examples(pathlib.Path(sys.argv[1], "VOC2007"), lists[split]) for split in lists}

    def _generate_examples(self, folder, name):
        for stem in (folder / "ImageSets" / "Main" / f"{name}.txt").read_text().split():
            annotation = read_annotation(folder / "Annotations" / f"{stem}.xml")
            high, wide = annotation.size
            objects = [{"label": label, "pose": "unspecified", "is_truncated": False, "is_difficult": difficult,
                        "bbox": tfds.features.BBox(y0 / high, x0 / wide, y1 / high, x1 / wide)}
                       for label, difficult, (y0, x0, y1, x1) in annotation.objects]
            yield stem, {"image": folder / "JPEGImages" / f"{stem}.jpg", "image/filename": f"{stem}.jpg",
                         "objects": objects, "labels": [], "labels_no_difficult": []}

Voc(config="2007", file_format="array_record").download_and_prepare()
"""

READ = """
import json, pickle, sys
import tensorflow_datasets as tfds
from sscam_jax import data

found = {}
for spec in sys.argv[1:]:
    source = data.source(spec)
    assert pickle.loads(pickle.dumps(source))[0].name == source[0].name  # as workers get it
    batches = data.batches(source, batch_size=3, size=14)
    found[spec] = {
        "fingerprint": source.fingerprint(),
        "classes": source.classes,
        "most_boxes": source.most_boxes,
        "examples": [[e.name, e.label, e.boxes if e.boxes is None else e.boxes.tolist(), e.size, e.problem]
                     for e in source],
        "batches": [[array.tolist() for array in batch] for batch in batches],
        "problems": [list(problem) for problem in batches.problems],
    }
records = tfds.data_source("stanford40", split="test")
found["records"] = [[record["name"].decode(), list(record["image"].shape), record["boxes"].tolist()]
                    for record in records]
print(json.dumps(found))
"""


def python(script: str, folder: pathlib.Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "TFDS_DATA_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW + script, *words], capture_output=True, text=True, env=environment
    )


def checked(run: subprocess.CompletedProcess) -> str:
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module", params=["written", pytest.param("real", marks=pytest.mark.slow)])
def folders(request, tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    """Where the files are, and where TFDS has built them: tiny ones, or a few real ones."""
    root, built = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("built")
    if request.param == "written":
        layouts.ilsvrc(root / "ILSVRC2012")
        layouts.stanford(root / "Stanford40")
        (root / "ILSVRC2012" / "bbox" / "val" / "ILSVRC2012_val_00000002.xml").unlink()
        layouts.annotation(
            root / "Stanford40" / "XMLAnnotations" / "rowing_a_boat_002.xml",
            ("person", (39, 29, 60, 70), "<action>rowing_a_boat</action>"),
        )
        layouts.voc(root)
    else:
        copy_real(request.getfixturevalue("assets"), root)
    command = ("ilsvrc2012_boxes", "stanford40", "--manual_dir", str(root), "--data_dir", str(built))
    checked(python(BUILD, built, *command))
    checked(python(BUILD_VOC, built, str(root / "VOCdevkit")))
    return root, built


def copy_real(assets: pathlib.Path, root: pathlib.Path) -> None:
    """Six real files of each data set, in their layouts."""

    def copy(*names: str) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(assets / name, root / name)

    for file in sorted((assets / "ILSVRC2012" / "val").iterdir())[::400]:
        copy(f"ILSVRC2012/val/{file.name}", f"ILSVRC2012/bbox/val/{file.stem}.xml")
    for action in ("applauding", "writing_on_a_book"):
        for split in ("train", "test"):
            copy(f"Stanford40/ImageSplits/{action}_{split}.txt")
            for name in (root / "Stanford40" / "ImageSplits" / f"{action}_{split}.txt").read_text().split():
                copy(f"Stanford40/JPEGImages/{name}", f"Stanford40/XMLAnnotations/{name.replace('.jpg', '.xml')}")
    lists = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    stems = (assets / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "trainval.txt").read_text().split()
    for split, chosen in (("val", stems[:3]), ("test", stems[3:6])):
        (lists / f"{split}.txt").write_text("\n".join(chosen))
        for stem in chosen:
            copy(f"VOCdevkit/VOC2007/JPEGImages/{stem}.jpg", f"VOCdevkit/VOC2007/Annotations/{stem}.xml")


@pytest.fixture(scope="module")
def found(folders) -> dict[str, object]:
    """What another process read of the records."""
    specs = ("tfds:ilsvrc2012_boxes", "tfds:stanford40", "tfds:stanford40:train", "tfds:voc/2007:test", "tfds:voc/2007")
    return json.loads(checked(python(READ, folders[1], *specs)))


def files_of(folder: pathlib.Path) -> dict[str, data.Source]:
    return {
        "tfds:ilsvrc2012_boxes": data.source(f"ilsvrc2012:{folder / 'ILSVRC2012'}"),
        "tfds:stanford40": data.source(f"stanford40:{folder / 'Stanford40'}"),
        "tfds:stanford40:train": data.source(f"stanford40:{folder / 'Stanford40'}:train"),
        "tfds:voc/2007:test": data.source(f"voc2007:{folder / 'VOCdevkit'}:test"),
    }


def as_lists(source: data.Source) -> list[list[object]]:
    rows = json.dumps([[*e._replace(image=0, boxes=e.boxes if e.boxes is None else e.boxes.tolist())] for e in source])
    return [[name, *more] for name, _, *more in json.loads(rows)]


@pytest.mark.parametrize("spec", ["tfds:ilsvrc2012_boxes", "tfds:stanford40", "tfds:stanford40:train"])
def test_records_are_the_files(folders, found, spec):
    """The same examples in the same order, so the same fingerprint, batches and problems."""
    source, read = files_of(folders[0])[spec], found[spec]
    assert read["examples"] == as_lists(source) and read["classes"] == list(source.classes)
    assert read["fingerprint"] == source.fingerprint() and read["most_boxes"] == source.most_boxes
    batches = data.batches(source, batch_size=3, size=14)
    for batch, other in zip(batches, read["batches"], strict=True):
        assert all(np.array_equal(array, values) for array, values in zip(batch, other, strict=True))
    reworded = [list(problem) for problem in batches.problems]
    assert read["problems"] == reworded


def test_voc_records_are_the_files_in_another_order(folders, found):
    source, read = files_of(folders[0])["tfds:voc/2007:test"], found["tfds:voc/2007:test"]
    assert sorted(read["examples"]) == sorted(as_lists(source))
    assert read["most_boxes"] == source.most_boxes and read["classes"] == list(source.classes)
    assert len(read["batches"]) == len(data.batches(source, batch_size=3))


def test_vocs_trainval_is_both_parts(folders, found):
    part = [example.name for example in data.source(f"voc2007:{folders[0] / 'VOCdevkit'}:val")]
    assert sorted(example[0] for example in found["tfds:voc/2007"]["examples"]) == sorted(2 * part)


def test_tfds_reads_the_records_itself(folders, found):
    source = files_of(folders[0])["tfds:stanford40"]
    for example, (name, shape, boxes) in zip(source, found["records"], strict=True):
        assert name == example.name and boxes == example.boxes.tolist()
        assert shape == [*example.size, 3]


def test_errors(folders, tmp_path):
    script = """
import sys
from sscam_jax import data
for spec in sys.argv[1:]:
    try:
        data.source(spec)
    except ValueError as error:
        print(error)
"""
    printed = checked(python(script, tmp_path, "tfds:coco", "tfds:stanford40", "tfds:voc/2007")).splitlines()
    assert printed[0] == ("TFDS data set 'coco' is not known; choose from 'voc/2007', 'ilsvrc2012_boxes', 'stanford40'")
    assert printed[1] == (
        "TFDS data set 'stanford40' is not built as array_record; build it with 'python -m sscam_jax.data.builders "
        "stanford40 --manual_dir ROOT'"
    )
    assert printed[2].startswith(
        "TFDS data set 'voc/2007' is not built as array_record; build it with 'tfds build voc/2007 "
        "--file_format array_record'"
    )
    printed = checked(python(script, folders[1], "tfds:stanford40:val", "tfds:voc/2007:dev")).splitlines()
    assert printed == [
        "split 'val' is not one of 'stanford40'; choose from 'test', 'train'",
        "split 'dev' is not one of 'voc/2007'; choose from 'test', 'train', 'validation', 'trainval'",
    ]


def test_building_without_boxes_is_refused(tmp_path):
    layouts.ilsvrc(tmp_path)
    shutil.rmtree(tmp_path / "bbox")
    command = ("ilsvrc2012_boxes", "--manual_dir", str(tmp_path), "--data_dir", str(tmp_path / "built"))
    run = python(BUILD, tmp_path, *command)
    assert run.returncode != 0 and "has no boxes: expected XML files in 'bbox/val'" in run.stderr
