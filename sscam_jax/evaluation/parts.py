"""The files of a run folder that hold what was measured, one per batch: written whole, read with care."""

import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sscam_jax._support import DAMAGED_ARCHIVE, replacing
from sscam_jax.evaluation.loop import Part
from sscam_jax.types import Problem

_ARRAYS = tuple(name for name in Part._fields if name != "maps")


class Seal(NamedTuple):
    """What a batch was measured on.

    Attributes:
        arrays: a hash of its arrays.
        read_from: a hash of the files that it was read from; "" where only reading tells.
    """

    arrays: str
    read_from: str


class DamagedPartError(ValueError):
    """A part that cannot be read, or whose arrays do not fit the run; the message says what is wrong."""


class Read(NamedTuple):
    """A part without its maps.

    Attributes:
        path: the file.
        arrays: every field of a `Part` except `maps`.
        problems: what is wrong with the batch's images.
    """

    path: pathlib.Path
    arrays: Mapping[str, np.ndarray]
    problems: Sequence[Problem]


def numbered(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """The parts of a run folder by their batches' numbers."""
    return {int(path.stem): path for path in sorted((folder / "parts").glob("[0-9]*.npz")) if path.stem.isdecimal()}


def write(path: pathlib.Path, part: Part, problems: Sequence[Problem], seal: Seal) -> None:
    """Write a part; it is there when the disk has it, and whole.

    Args:
        path: the file.
        part: what was measured.
        problems: what is wrong with the batch's images.
        seal: what the batch was measured on.

    Raises:
        OSError: the disk is full, or refuses; nothing stays behind.
    """
    fields: dict[str, Any] = {name: getattr(part, name) for name in _ARRAYS}
    fields |= {f"maps/{m}": maps for m, maps in enumerate(part.maps)}
    told = json.dumps([list(each) for each in problems])
    with replacing(path) as fresh, fresh.open("wb") as stream:
        np.savez_compressed(stream, problems=np.array(told), seal=np.array(seal), **fields)
        stream.flush()
        # A rename can reach the disk before the content does: after a power cut an empty part would be there.
        os.fsync(stream.fileno())


def read(path: pathlib.Path, methods: int) -> Read:
    """Read a part without its maps.

    Args:
        path: the file.
        methods: how many methods the run has.

    Returns:
        The part.

    Raises:
        DamagedPartError: it is damaged.
        OSError: the disk does not give it.
    """
    with path.open("rb") as stream:  # outside of `try`: what the disk refuses does not make the file damaged
        try:
            with np.load(stream) as archive:
                return Read(path, *_checked(archive, methods))
        except DAMAGED_ARCHIVE as error:
            raise DamagedPartError(str(error)) from error


def seal_of(path: pathlib.Path, methods: int) -> Seal:
    """The seal of a part whose every byte is as it was written, by its checksums.

    Args:
        path: the file.
        methods: how many methods the run has.

    Returns:
        The seal.

    Raises:
        DamagedPartError: it is damaged.
        OSError: the disk does not give it.
    """
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # Of every entry, because `np.load` checks only those that it reads, and nothing here reads the maps.
            if damaged := archive.testzip():
                raise DamagedPartError(f"{damaged} has another checksum")
        with np.load(io.BytesIO(content)) as fields:
            _checked(fields, methods)
            arrays, read_from = fields["seal"]
            return Seal(str(arrays), str(read_from))
    except DAMAGED_ARCHIVE as error:
        raise DamagedPartError(str(error)) from error


def _checked(archive: Any, methods: int) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """The arrays and problems of an open part, whose shapes fit one another and the run."""
    arrays = {name: np.asarray(archive[name]) for name in _ARRAYS}
    n, keys, k = (arrays[name].shape[0] for name in ("ids", "values", "columns"))
    expected: dict[str, tuple[int, ...]] = dict.fromkeys(("ids", "labels", "predicted", "probability", "single"), (n,))
    expected |= dict(
        columns=(k,),
        skipped=(arrays["skipped"].size,),
        values=(keys, methods, n, k),
        flat=(keys, methods, n),
        passes=(keys, methods, n),
    )
    # A file can be whole and of another run: its checksums are right, its shapes are not.
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"its {name} have the shape {arrays[name].shape}, expected {shape}")
    told = json.loads(str(archive["problems"]))
    if not isinstance(told, list) or any(len(each) != len(Problem._fields) for each in told):
        raise ValueError(f"its problems are {told!r}")
    return arrays, [Problem(*each) for each in told]
