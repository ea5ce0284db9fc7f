"""Data sets by one line of text, as a command line gives them."""

import pathlib

from sscam_jax.data import files, layouts, records
from sscam_jax.data.sources import Source

_FORMS = {
    "ilsvrc2012": "ilsvrc2012:ROOT",
    "voc2007": "voc2007:ROOT[:SPLIT]",
    "stanford40": "stanford40:ROOT[:SPLIT]",
    "folder": "folder:ROOT",
    "csv": "csv:FILE",
    "tfds": "tfds:NAME[:SPLIT]",
}


def source(spec: str) -> Source:
    """A data set by one line of text: its kind, where it lies, and for some the split.

    Args:
        spec: "ilsvrc2012:ROOT", "voc2007:ROOT[:SPLIT]" (trainval), "stanford40:ROOT[:SPLIT]" (test), "folder:ROOT",
            "csv:FILE" (columns path, label, y0, x0, y1, x1; the edges in pixels) or "tfds:NAME[:SPLIT]" ("voc/2007",
            "ilsvrc2012_boxes" or "stanford40", built by TFDS); in brackets what may be left out.

    Returns:
        The data set.

    Raises:
        ValueError: the kind is not known, or the data set is empty, not laid out as its kind is, or damaged.
        FileNotFoundError: there is no such folder or file.

    Example:
        >>> source("imagenet:val")
        Traceback (most recent call last):
            ...
        ValueError: data set 'imagenet:val' is of no known kind; choose from 'ilsvrc2012:ROOT', ...
    """
    kind, _, rest = spec.partition(":")
    if kind not in _FORMS or not rest:
        choices = ", ".join(map(repr, _FORMS.values()))
        raise ValueError(f"data set '{spec}' is of no known kind; choose from {choices}")
    if kind == "tfds":
        name, _, split = rest.partition(":")
        return records.tfds(name, split)
    path, split = pathlib.Path(rest).expanduser(), ""
    if not path.exists() and kind in ("voc2007", "stanford40"):
        # Only where there is no such path, because a path may have a colon of its own.
        text, _, split = rest.rpartition(":")
        path = pathlib.Path(text or rest).expanduser()
    if not (path.is_file() if kind == "csv" else path.is_dir()):
        raise FileNotFoundError(f"data set '{spec}': there is no {'file' if kind == 'csv' else 'folder'} '{path}'")
    if kind == "ilsvrc2012":
        return layouts.ilsvrc2012(path)
    if kind == "voc2007":
        return layouts.voc2007(path, split) if split else layouts.voc2007(path)
    if kind == "stanford40":
        return layouts.stanford40(path, split) if split else layouts.stanford40(path)
    return files.table(path) if kind == "csv" else files.folder(path)
