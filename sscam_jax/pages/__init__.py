"""Pages that are one HTML file: templates, and pictures and arrays as text inside the file.

A page asks nothing of a server or a network: its content security policy forbids requests, and allows only the two
texts, style and script, whose hashes it names. So a name that holds markup stays text twice over.
"""

import base64
import functools
import hashlib
import importlib
import io
import pathlib
import platform
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.metadata import version
from typing import Any

import numpy as np
from jaxtyping import Shaped
from matplotlib import colormaps
from PIL import Image

from sscam_jax._support import imported, replacing

COLOURS = ("plasma", "viridis", "inferno", "turbo", "gray")
"""The colour maps that a page offers."""

_QUALITY = 82


def picture(image: Image.Image, side: int) -> str:
    """A photograph as the address of an `<img>`, its longer side at most `side` pixels.

    Example:
        >>> picture(Image.new("RGB", (64, 48)), 16)[:23]
        'data:image/jpeg;base64,'
    """
    small = image.convert("RGB")
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def array(values: Shaped[np.ndarray, "..."]) -> dict[str, Any]:
    """An array for a page's script: NumPy's name of its type, its shape, its bytes compressed by zlib.

    Example:
        >>> found = array(np.float32([[0.5, 1.0]]))
        >>> found["type"], found["shape"], np.frombuffer(zlib.decompress(base64.b64decode(found["data"])), "<f4")
        ('<f4', [1, 2], array([0.5, 1. ], dtype=float32))
    """
    plain = np.ascontiguousarray(values)
    # A browser's arrays are little-endian, on the few other systems too.
    plain = plain.astype(plain.dtype.newbyteorder("<"))
    data = base64.b64encode(zlib.compress(plain.tobytes(), 9)).decode()
    return dict(type=plain.dtype.str, shape=list(plain.shape), data=data)


def colours() -> dict[str, str]:
    """Each colour map of `COLOURS` as 256 colours, three bytes each."""
    steps = np.linspace(0, 1, 256)
    tables = {name: np.round(255 * colormaps[name](steps)[:, :3]).astype(np.uint8) for name in COLOURS}
    return {name: base64.b64encode(table.tobytes()).decode() for name, table in tables.items()}


def versions() -> list[tuple[str, str]]:
    """What made a page: this package, those that it computes with, and Python.

    Example:
        >>> [name for name, _ in versions()]
        ['sscam_jax', 'jax', 'jaxlib', 'flax', 'numpy', 'Python']
    """
    packages = [(name, version(name)) for name in ("jax", "jaxlib", "flax", "numpy")]
    return [("sscam_jax", _own_version()), *packages, ("Python", platform.python_version())]


def _own_version() -> str:
    # Not by its metadata: the package may be a folder that is not installed.
    return importlib.import_module("sscam_jax").__version__


def _text(name: str) -> str:
    return (resources.files(__name__) / "templates" / name).read_text("utf-8")


def _source(text: str) -> str:
    """What a content security policy calls a text that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def _environment() -> Any:
    jinja2 = imported("jinja2", "report")
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,  # by default Jinja trusts every name
        undefined=jinja2.StrictUndefined,  # a misspelt name is an error, not an empty place
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write(path: pathlib.Path, template: str, scripts: Sequence[str], data: Mapping[str, Any], **values: Any) -> None:
    """Write a page, whole or not at all.

    Args:
        path: the file.
        template: the template's file name.
        scripts: the file names of the scripts, which run one after the other.
        data: what the scripts read, in terms that JSON has.
        values: what the template shows. All of it is escaped.

    Raises:
        MissingPackageError: Jinja is not installed.
        OSError: the file can't be written.
    """
    environment = _environment()
    style, script = _text("page.css"), "\n".join(map(_text, scripts))
    # Hashes, not 'unsafe-inline': a script that a name might bring along has another hash and does not run.
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    safe = imported("markupsafe", "report").Markup
    page = environment.get_template(template).render(
        style=safe(style), script=safe(script), policy=policy, data=dict(data), version=_own_version(), **values
    )
    with replacing(path) as part:
        part.write_text(page, "utf-8")
