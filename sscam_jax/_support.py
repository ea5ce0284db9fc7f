"""What every room needs and none should write again: files that appear whole, optional packages, choices."""

import contextlib
import difflib
import hashlib
import importlib
import lzma
import os
import secrets
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

DAMAGED_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    OverflowError,
    MemoryError,
    RuntimeError,
)
"""What `zipfile` and NumPy raise for a damaged zip or npz file. Which one depends on the byte that is wrong."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a fresh path beside `path` to write to; it becomes `path` if the block ends without an error.

    The name is unique, so two processes that write the same file do not meet. The last one wins, with a whole file.

    Args:
        path: where the file shall be; its folder exists.

    Yields:
        The path to write to.
    """
    # In the same folder, because a file is replaced in one step within one file system only.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        # After `os.replace` it is gone.
        part.unlink(missing_ok=True)


class MissingPackageError(ImportError):
    """A package that only an extra installs is not there; the message says how to install it."""


def install(extra: str) -> str:
    """How to install an extra of this project, for an error's remedy.

    Example:
        >>> install("demo")
        "run pip install '.[demo]' in a clone of the repository"
    """
    return f"run pip install '.[{extra}]' in a clone of the repository"


def imported(name: str, extra: str = "data") -> ModuleType:
    """Import a package that only an extra installs.

    Args:
        name: the package.
        extra: the extra of this project that installs it.

    Returns:
        The module.

    Raises:
        MissingPackageError: the package is not installed. The message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A package that the wanted one misses is another problem, with a message of its own.
        if error.name != name:
            raise
        raise MissingPackageError(f"package '{name}' is not installed: {install(extra)}", name=name) from error


def choose(what: str, value: object, choices: Iterable[object]) -> None:
    """Refuse a value that is not one of the choices.

    Args:
        what: the name of the argument, as the message gives it.
        value: what was given.
        choices: what is possible.

    Raises:
        ValueError: the value is not among the choices, which the message lists; one of a similar spelling comes last.

    Example:
        >>> choose("method", "GradCAM", ("grad-cam", "rise"))
        Traceback (most recent call last):
            ...
        ValueError: method 'GradCAM' is not known; choose from 'grad-cam', 'rise'; did you mean 'grad-cam'?
    """
    # `choices` may be an iterator, which `in` would use up before the message lists it.
    known = tuple(choices)
    if value not in known:
        # Methods have 24 names: the right one is easily overlooked among them.
        near = difflib.get_close_matches(str(value).lower(), [name for name in known if isinstance(name, str)], 1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"{what} {value!r} is not known; choose from {', '.join(map(repr, known))}{hint}")


def digest(*parts: str | bytes) -> str:
    """A short hash of texts and bytes, in their order.

    Args:
        parts: what to hash.

    Returns:
        16 hexadecimal digits.

    Example:
        >>> digest("a", "b") == digest("ab")
        False
    """
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        # With the length of each part, or ("a", "b") and ("ab",) would have the same hash.
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()[:16]
