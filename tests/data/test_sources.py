"""Data sets in their official layouts: tiny ones written here, and the real files."""

import csv
import pathlib

import numpy as np
import pytest
import scipy.io

from sscam_jax import data
from sscam_jax.data.layouts import ACTIONS, VOC_CLASSES
from tests import layouts
from tests.layouts import annotation, picture


def names(source: data.Source) -> list[str]:
    return [example.name for example in source]


# ILSVRC-2012


@pytest.fixture
def ilsvrc(tmp_path) -> pathlib.Path:
    return layouts.ilsvrc(tmp_path)


def test_ilsvrc2012(ilsvrc):
    source = data.source(f"ilsvrc2012:{ilsvrc}")
    assert names(source) == [f"ILSVRC2012_val_0000000{i}" for i in (1, 2, 3)]
    assert [example.label for example in source] == [1, 0, 285]
    assert [example.boxes.tolist() for example in source] == [
        [[0, 30, 10, 40]],
        [[2, 1, 4, 3], [6, 5, 8, 7]],
        [[0, 0, 9, 9]],  # of its class alone
    ]
    assert all(example.size == (30, 40) and example.problem == "" for example in source)
    assert source.name == "ilsvrc2012" and source.has_boxes and source.has_labels and source.most_boxes == 2
    assert len(source.classes) == 1000 and source.classes[1] == "goldfish, Carassius auratus"


@pytest.mark.parametrize("name", ["synset_words.txt", "LOC_synset_mapping.txt"])
def test_ilsvrc2012_takes_the_folders_own_list_of_classes(ilsvrc, name):
    (ilsvrc / name).write_text("n02124075 Egyptian cat\nn01443537 goldfish, Carassius auratus\nn01440764 tench\n")
    source = data.source(f"ilsvrc2012:{ilsvrc}")
    assert [example.label for example in source] == [1, 2, 0]
    assert source.classes == ("Egyptian cat", "goldfish, Carassius auratus", "tench")


def test_ilsvrc2012_in_folders_by_class(ilsvrc):
    for number, wnid in ((1, "n01443537"), (2, "n01440764"), (3, "n02124075")):
        file = ilsvrc / "val" / f"ILSVRC2012_val_{number:08d}.JPEG"
        (ilsvrc / "val" / wnid).mkdir()
        file.rename(ilsvrc / "val" / wnid / file.name)
    (ilsvrc / "bbox" / "val" / "ILSVRC2012_val_00000002.xml").unlink()
    source = data.source(f"ilsvrc2012:{ilsvrc}")
    assert names(source) == [f"ILSVRC2012_val_0000000{i}" for i in (1, 2, 3)]
    assert [example.label for example in source] == [1, 0, 285]
    assert source[1].boxes is None and source[1].problem == "its annotation ILSVRC2012_val_00000002.xml is missing"


def test_ilsvrc2012_in_kaggles_folders(ilsvrc):
    flat = data.source(f"ilsvrc2012:{ilsvrc}")
    for old, new in (("val", "ILSVRC/Data/CLS-LOC/val"), ("bbox/val", "ILSVRC/Annotations/CLS-LOC/val")):
        (ilsvrc / new).parent.mkdir(parents=True)
        (ilsvrc / old).rename(ilsvrc / new)
    assert data.source(f"ilsvrc2012:{ilsvrc}").fingerprint() == flat.fingerprint()


@pytest.mark.parametrize("folder", [".", "ILSVRC2012_devkit_t12/data"])
def test_ilsvrc2012_with_the_development_kits_ground_truth(ilsvrc, folder):
    """The kit's numbers count from 1 in an order of their own, which only its meta.mat tells."""
    kit = ilsvrc / folder
    kit.mkdir(parents=True, exist_ok=True)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n3\n1\n")
    for file in (ilsvrc / "bbox" / "val").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="meta.mat' is missing: '.*ground_truth.txt' needs it"):
        data.source(f"ilsvrc2012:{ilsvrc}")
    rows = [(1, "n02124075"), (2, "n01443537"), (3, "n01440764"), (1001, "n00001740")]
    table = np.array(rows, [("ILSVRC2012_ID", object), ("WNID", object)])
    scipy.io.savemat(kit / "meta.mat", {"synsets": table})
    source = data.source(f"ilsvrc2012:{ilsvrc}")
    assert [example.label for example in source] == [1, 0, 285]
    assert not source.has_boxes and source[0].problem == "its annotation ILSVRC2012_val_00000001.xml is missing"


def test_ilsvrc2012_without_any_annotation(ilsvrc):
    """Without boxes the images are still there; what they lack is said by `has_boxes` and `has_labels`."""
    (ilsvrc / "bbox").rename(ilsvrc / "elsewhere")
    source = data.source(f"ilsvrc2012:{ilsvrc}")
    assert [example.label for example in source] == [-1] * 3
    assert not source.has_boxes and not source.has_labels and source[0].problem == ""


def test_damaged_and_missing_annotations_are_named(ilsvrc):
    boxes = ilsvrc / "bbox" / "val"
    (boxes / "ILSVRC2012_val_00000001.xml").write_text("<annotation><object>")
    annotation(boxes / "ILSVRC2012_val_00000002.xml")
    (boxes / "ILSVRC2012_val_00000003.xml").write_text(
        "<annotation><object><name>n01440764</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
    )
    first, second, third = data.source(f"ilsvrc2012:{ilsvrc}")
    assert [example.label for example in (first, second, third)] == [-1] * 3
    assert first.problem.startswith("its annotation ILSVRC2012_val_00000001.xml is damaged: ")
    assert second.problem == "its annotation ILSVRC2012_val_00000002.xml has no object"
    assert third.problem == "its annotation ILSVRC2012_val_00000003.xml is damaged: it has no 'bndbox/ymin'"


def test_a_class_outside_the_list_is_an_error(ilsvrc):
    annotation(ilsvrc / "bbox" / "val" / "ILSVRC2012_val_00000001.xml", ("n99999999", (1, 1, 2, 2), ""))
    with pytest.raises(
        ValueError, match="class 'n99999999' of ILSVRC2012_val_00000001.JPEG is not in the list of 1000 classes"
    ):
        data.source(f"ilsvrc2012:{ilsvrc}")


# PASCAL VOC 2007


@pytest.fixture
def voc(tmp_path) -> pathlib.Path:
    return layouts.voc(tmp_path)


def test_voc2007(voc):
    """An example for each class, without difficult objects; pixels count from 1, so one is taken off the start."""
    source = data.source(f"voc2007:{voc}:test")
    assert names(source) == ["000012:cat", "000012:dog", "000007:person"]
    assert [example.label for example in source] == [7, 11, 14]
    assert [example.boxes.tolist() for example in source] == [
        [[10, 0, 30, 20]],
        [[0, 30, 10, 40], [5, 4, 8, 7]],
        [[1, 1, 3, 3]],
    ]
    assert source.name == "voc2007:test" and source.classes == VOC_CLASSES and source.most_boxes == 2
    assert VOC_CLASSES == tuple(sorted(VOC_CLASSES)) and len(VOC_CLASSES) == 20


def test_voc2007_from_the_folders_around_it(voc):
    prints = {data.source(f"voc2007:{root}:test").fingerprint() for root in (voc, voc.parent, voc / "VOC2007")}
    assert len(prints) == 1
    with pytest.raises(ValueError, match="'.*Annotations' has no folder 'VOC2007' with 'ImageSets/Main': give"):
        data.source(f"voc2007:{voc / 'VOC2007' / 'Annotations'}:test")


def test_voc2007_splits(voc):
    assert names(data.source(f"voc2007:{voc}:val")) == ["000009:boat"]
    for spec, split in ((f"voc2007:{voc}:training", "training"), (f"voc2007:{voc}", "trainval")):
        with pytest.raises(
            ValueError, match=f"split '{split}' is not one of voc2007 in '.*'; choose from 'test', 'val'"
        ):
            data.source(spec)


def test_voc2007_keeps_an_image_without_annotation(voc):
    (voc / "VOC2007" / "Annotations" / "000012.xml").unlink()
    source = data.source(f"voc2007:{voc}:test")
    assert names(source) == ["000012", "000007:person"]
    assert source[0].label == -1 and source[0].problem == "its annotation 000012.xml is missing"


# Stanford40


@pytest.fixture
def stanford(tmp_path) -> pathlib.Path:
    return layouts.stanford(tmp_path)


def test_stanford40(stanford):
    source = data.source(f"stanford40:{stanford}")
    assert source.name == "stanford40:test" and source.classes == ACTIONS
    assert names(source) == ["applauding_002", "rowing_a_boat_003", "rowing_a_boat_002"]
    assert [example.label for example in source] == [0, 26, 26]
    assert [example.boxes.tolist() for example in source] == [[[0, 31, 10, 40]], [[0, 32, 10, 40]], [[0, 31, 10, 40]]]
    assert names(data.source(f"stanford40:{stanford}:train")) == ["applauding_001", "rowing_a_boat_001"]


def test_an_action_that_stanford40_lacks(stanford):
    (stanford / "ImageSplits" / "juggling_test.txt").write_text("juggling_001.jpg")
    with pytest.raises(ValueError, match="'.*ImageSplits' lists 'juggling', which is not one of Stanford40's 40"):
        data.source(f"stanford40:{stanford}")


def test_stanford40_errors(stanford):
    with pytest.raises(ValueError, match="split 'val' is not one of stanford40 in '.*'; choose from 'test', 'train'"):
        data.source(f"stanford40:{stanford}:val")
    with pytest.raises(ValueError, match="'.*JPEGImages' has no folder 'ImageSplits'"):
        data.source(f"stanford40:{stanford / 'JPEGImages'}")
    (stanford / "XMLAnnotations" / "applauding_002.xml").unlink()
    first = data.source(f"stanford40:{stanford}")[0]
    assert (first.label, first.boxes, first.problem) == (0, None, "its annotation applauding_002.xml is missing")


# Folders and tables


def test_folder(tmp_path):
    for name in ("b.jpg", "A/c.JPEG", "a.png", ".hidden.jpg", "notes.txt"):
        picture(tmp_path / name)
    source = data.source(f"folder:{tmp_path}")
    assert names(source) == ["A/c.JPEG", "a.png", "b.jpg"]
    assert all(example.label == -1 and example.boxes is None and example.problem == "" for example in source)
    assert source.classes is None and not source.has_boxes and not source.has_labels


@pytest.mark.parametrize("spec", ["folder:{}", "ilsvrc2012:{}", "voc2007:{}", "stanford40:{}"])
def test_empty_folders_are_errors(spec, tmp_path):
    with pytest.raises(ValueError, match=f"'{tmp_path}' has no "):
        data.source(spec.format(tmp_path))


def test_data_sets_without_images_are_errors(tmp_path, stanford):
    for file in (stanford / "ImageSplits").glob("*_test.txt"):
        file.write_text("")
    with pytest.raises(ValueError, match="data set 'stanford40:test' is empty: expected at least one image"):
        data.source(f"stanford40:{stanford}")
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="data set 'ilsvrc2012' is empty: expected at least one image"):
        data.source(f"ilsvrc2012:{tmp_path}")


def write_table(file: pathlib.Path, *rows: tuple[object, ...]) -> str:
    with file.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows(rows)
    return f"csv:{file}"


def test_table(tmp_path):
    spec = write_table(
        tmp_path / "all.csv",
        ("label", "path", "y0", "x0", "y1", "x1"),
        (7, "in/a, b.jpg", 1, 2, 3.5, 4),
        (3, "c.jpg", 0, 0, 9, 9),
        (7, "in/a, b.jpg", 5, 6, 7, 8),
        (4, "c.jpg", 0, 30, 10, 40),
        ("", "é.jpg", "", "", "", ""),
    )
    source = data.source(spec)
    assert names(source) == ["in/a, b.jpg", "c.jpg:3", "c.jpg:4", "é.jpg"]
    assert [example.label for example in source] == [7, 3, 4, -1]
    assert source[0].image == tmp_path / "in" / "a, b.jpg"
    assert source[0].boxes.tolist() == [[1, 2, 3.5, 4], [5, 6, 7, 8]]
    assert source[3].boxes is None and source[3].problem == "the table has no box for it"
    assert source.name == "csv" and source.most_boxes == 2


def test_table_of_paths_alone(tmp_path):
    source = data.source(write_table(tmp_path / "paths.csv", ("path",), ("a.jpg",), ("b.jpg",)))
    assert names(source) == ["a.jpg", "b.jpg"]
    assert not source.has_boxes and not source.has_labels and source[0].problem == ""


@pytest.mark.parametrize(
    "rows, message",
    [
        ((), "has no header; expected a header with 'path' and optionally 'label' and 'y0', 'x0'"),
        ((("file", "label"),), "has the columns 'file', 'label'; expected a header with 'path'"),
        ((("path", "x0", "x1"),), "has the columns 'path', 'x0', 'x1'; expected a header with 'path'"),
        ((("path", "label"),), "is empty: expected at least one row after the header"),
        (
            (("path", "label"), ("a.jpg", "cat")),
            "line 2: label 'cat' is not a class index; expected an integer from 0 up",
        ),
        (
            (("path", "label"), ("a.jpg", "-1")),
            "line 2: label '-1' is not a class index; expected an integer from 0 up",
        ),
        ((("path", "label"), ("a.jpg", 1), ("b.jpg",)), "line 3: expected 2 values, and a path that is not empty"),
        ((("path", "label"), ("a.jpg", 1, 2)), "line 2: expected 2 values, and a path that is not empty"),
        ((("path", "label"), ("", 1)), "line 2: expected 2 values, and a path that is not empty"),
        (
            (("path", "y0", "x0", "y1", "x1"), ("a", 1, 2, "", 4)),
            "line 2: '' is not the edge of a box; expected a number",
        ),
        (
            (("path", "y0", "x0", "y1", "x1"), ("a", 1, 2, "nan", 4)),
            "line 2: 'nan' is not the edge of a box; expected a number",
        ),
    ],
)
def test_damaged_tables(rows, message, tmp_path):
    with pytest.raises(ValueError, match=rf"'{tmp_path / 'all.csv'}'.*{message}"):
        data.source(write_table(tmp_path / "all.csv", *rows))


# By text


@pytest.mark.parametrize("spec", ["imagenet:val", "folder", "folder:", ""])
def test_unknown_kinds(spec):
    with pytest.raises(
        ValueError, match=rf"data set '{spec}' is of no known kind; choose from 'ilsvrc2012:ROOT', 'voc2007:ROOT\[:SP"
    ):
        data.source(spec)


def test_missing_folders_and_files(tmp_path):
    for kind, what in (("folder", "folder"), ("voc2007", "folder"), ("csv", "file")):
        with pytest.raises(FileNotFoundError, match=f"data set '{kind}:.*gone': there is no {what} '.*gone'"):
            data.source(f"{kind}:{tmp_path / 'gone'}")
    with pytest.raises(FileNotFoundError, match="there is no folder '.*gone'"):
        data.source(f"voc2007:{tmp_path / 'gone'}:test")


def test_a_colon_in_a_folders_name(voc):
    voc.rename(voc.parent / "a:b")
    assert data.source(f"voc2007:{voc.parent / 'a:b'}:val").name == "voc2007:val"


# Fingerprints and subsets


def test_the_fingerprint_follows_the_data_not_the_place(voc, tmp_path):
    before = data.source(f"voc2007:{voc}:test").fingerprint()
    voc.rename(tmp_path / "moved")
    spec = f"voc2007:{tmp_path / 'moved'}:test"
    assert data.source(spec).fingerprint() == before
    folder, seen = tmp_path / "moved" / "VOC2007", {before}
    xml = folder / "Annotations" / "000007.xml"
    xml.write_text(xml.read_text().replace("<xmax>3<", "<xmax>4<"))
    seen.add(data.source(spec).fingerprint())  # a box
    xml.write_text(xml.read_text().replace("person", "train"))
    seen.add(data.source(spec).fingerprint())  # a label
    picture(folder / "JPEGImages" / "000007.jpg", 400, 300)
    seen.add(data.source(spec).fingerprint())  # a file
    assert len(seen) == 4 and all(len(each) == 16 for each in seen)


def numbered(count: int) -> data.Source:
    return data.listed("numbers", None, [data.Example(str(i), b"") for i in range(count)])


def test_subsets_grow_and_keep_their_ids():
    source = numbered(50)
    ids = [data.subset(source, limit, 3).ids.tolist() for limit in (10, 20)]
    assert ids[0] == ids[1][:10] and len(set(ids[1])) == 20
    assert ids[0] != data.subset(source, 10, 4).ids.tolist()
    part = data.subset(source, 10, 3)
    assert names(part) == [str(i) for i in part.ids] and part.examples[part.ids[4]] == part[4]
    assert set(np.concatenate([data.subset(source, 10, seed).ids for seed in range(60)])) == set(range(50))


def test_subsets_of_subsets_keep_the_first_ids():
    part = data.subset(numbered(50), 10, 0)
    again = data.subset(part, 4, 1)
    assert set(again.ids) < set(part.ids) and names(again) == [str(i) for i in again.ids]


def test_a_limit_beyond_the_data_set_changes_nothing():
    source = numbered(5)
    assert data.subset(source, None, 0) is source and data.subset(source, 5, 0) is source


def test_every_subset_has_its_fingerprint():
    source = numbered(50)
    parts = [source, data.subset(source, 10, 0), data.subset(source, 10, 1), data.subset(source, 11, 0)]
    assert len({part.fingerprint() for part in parts}) == 4
    assert data.subset(source, 10, 0).fingerprint() == parts[1].fingerprint()


def test_impossible_subsets():
    with pytest.raises(ValueError, match="limit is 0, expected at least 1 image"):
        data.subset(numbered(3), 0, 0)
    with pytest.raises(ValueError, match="seed is -1, expected 0 to 4294967295"):
        data.subset(numbered(3), 1, -1)


# Real files


def test_real_ilsvrc2012(assets):
    source = data.source(f"ilsvrc2012:{assets / 'ILSVRC2012'}")
    with (assets / "ILSVRC2012" / "val_index.csv").open(encoding="utf-8", newline="") as lines:
        rows = {row["image"]: row for row in csv.DictReader(lines)}
    assert set(names(source)) == set(rows) and len(source) == 2009
    for example in source:
        row = rows[example.name]
        assert example.problem == "" and example.label == int(row["label"]) and len(example.boxes) == int(row["boxes"])
        assert example.size == (int(row["height"]), int(row["width"]))
        assert (example.boxes >= 0).all() and (example.boxes <= np.array(example.size * 2)).all()
    assert source.classes[207] == "golden retriever"
    assert source[0].name == "ILSVRC2012_val_00000006" and source[0].boxes.tolist() == [[204, 105, 279, 358]]


def test_the_packages_list_of_classes_is_ilsvrcs(assets, tmp_path):
    (tmp_path / "val").symlink_to(assets / "ILSVRC2012" / "val")
    (tmp_path / "bbox").symlink_to(assets / "ILSVRC2012" / "bbox")
    without, listed = (data.source(f"ilsvrc2012:{root}") for root in (tmp_path, assets / "ILSVRC2012"))
    assert [example.label for example in without] == [example.label for example in listed]


def test_real_voc2007(assets):
    source = data.source(f"voc2007:{assets / 'VOCdevkit'}")
    assert len({example.name.split(":")[0] for example in source}) == 391
    assert all(example.problem == "" and len(example.boxes) for example in source)
    assert source[0].name == "000005:chair" and len(source[0].boxes) == 5
    assert min(example.boxes.min() for example in source) == 0, "an object touches the first pixel"
    assert all((example.boxes <= np.array(example.size * 2)).all() for example in source)


@pytest.mark.parametrize("split, each", [("train", 25), ("test", 8)])
def test_real_stanford40(assets, split, each):
    source = data.source(f"stanford40:{assets / 'Stanford40'}:{split}")
    assert [example.label for example in source] == [i for i in range(40) for _ in range(each)]
    assert all(example.problem == "" and example.boxes.shape == (1, 4) for example in source)
    listed = (assets / "Stanford40" / "ImageSplits" / "actions.txt").read_text().splitlines()[1:]
    assert source.classes == ACTIONS == tuple(sorted(line.split()[0] for line in listed))
