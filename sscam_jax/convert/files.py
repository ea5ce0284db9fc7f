"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a fresh path beside `path` to write to; it becomes `path` if the block ends without an error.

    The name is unique, so that two processes that write the same file do not meet: the last one wins, whole.

    Args:
        path: where the file shall be; its folder exists.

    Yields:
        The path to write to.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
