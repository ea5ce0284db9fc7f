"""Damage files of every kind that the package reads: `python -m tests.reliability.mutations [CHECKPOINTS [OTHERS]]`.

Bytes are flipped, cut off, inserted, and set to extreme numbers; the entries of archives are damaged under a right
checksum, and the numbers in headers become extreme, so that the damage reaches the reader. A reader may return
something or raise one of its documented errors. It may not run code, write, or ask the network: an audit hook watches.
The table says how many files were read and refused, and the largest time and memory of one file.
"""

import contextlib
import encodings
import importlib
import json
import pathlib
import pkgutil
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable
from typing import NamedTuple

from PIL import Image

from tests.reliability.damage import damaged
from tests.reliability.kinds import CHECKPOINTS, OTHERS, Kind, run_with

SECONDS, MEMORY = 5.0, 2**30
# What a reader has no reason to do. Python raises these events whoever asks.
FORBIDDEN = ("exec", "os.", "subprocess.", "socket.", "pickle.find_class", "ctypes.", "shutil.", "pty.", "import")
ALLOWED = ("os.listdir", "os.scandir")


class Tally(NamedTuple):
    """What came of the files of one kind: counts, the slowest file in seconds, the largest growth in bytes, the rest.

    `failures` says of each file that broke a rule which one; its bytes are there to try again.
    """

    read: int
    refused: int
    slowest: float
    memory: int
    failures: list[tuple[str, bytes]]


_seen: list[str] = []
_watching = [False]


def _watch(event: str, arguments: tuple) -> None:
    if not _watching[0]:
        return
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or (event.startswith(FORBIDDEN) and event not in ALLOWED):
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
        _watching[0] = watch and kind.read is not run_with
        kind.read(path)
        found, why = True, ""
    except kind.documented as error:
        found, why = False, "" if str(error) else f"an empty message: {error!r}"
    except Exception:
        found, why = False, traceback.format_exc(limit=-3)
    finally:
        _watching[0] = False
    return found, why or (f"the reader did {_seen[0]}" if _seen else "")


def imported_before() -> None:
    """Import what the standard library and Pillow import when damage makes a text or an image odd."""
    Image.init()
    for module in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(ImportError):  # codecs of other systems
            importlib.import_module(f"encodings.{module.name}")


def campaign(kinds: Iterable[Kind], count: int, seed: int = 0) -> dict[str, Tally]:
    """Damage `count` files, shared evenly among the kinds, and read them."""
    kinds = list(kinds)
    found = {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what damage looks like
        folder = pathlib.Path(name)
        imported_before()
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
