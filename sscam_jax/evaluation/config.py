"""`config.json` of a run folder, read with care: it may come from another version, or be damaged."""

import json
import pathlib
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

FORMAT = 2
"""Of the run folders that this version writes and reads."""

_MOST_BATCHES = 10**7
_ELSEWHERE = "Measure again in another folder"


def read(folder: pathlib.Path) -> dict[str, Any]:
    """What a run folder's config.json says.

    Args:
        folder: the run folder.

    Returns:
        `fingerprint`, what the numbers depend on, and `noted`, what is kept beside it.

    Raises:
        FileNotFoundError: it is not a run folder.
        ValueError: the file is damaged, or of another version.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"'{folder}' is not a run folder: it has no config.json. Give the folder of a run")
    try:
        config = json.loads(path.read_text("utf-8"))
        found = config["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # the last one for thousands of brackets
        raise ValueError(f"'{path}' is damaged: it is not what a run writes. {_ELSEWHERE}") from error
    if found != FORMAT:
        raise ValueError(
            f"'{folder}' was written in format {found}, this version reads format {FORMAT}: measure "
            "again, or use the version that wrote it"
        )
    if wrong := [name for name in ("fingerprint", "noted") if not isinstance(config.get(name), dict)]:
        raise ValueError(f"'{path}' is damaged: {wrong[0]} is not what a run writes. {_ELSEWHERE}")
    return config


def notes(folder: pathlib.Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is noted beside the fingerprint, if tables can be made of it.

    Args:
        folder: the run folder.
        config: what `read` gives.

    Returns:
        The notes.

    Raises:
        ValueError: they are not what a run writes: which one, what it holds and what was expected.
    """
    for name, (right, expected) in _NOTED.items():
        if name not in config["noted"] or not right(config["noted"][name]):
            value = textwrap.shorten(repr(config["noted"].get(name)), 60, placeholder=" …")
            raise ValueError(
                f"'{folder / 'config.json'}' is damaged: noted.{name} is {value}, expected {expected}. {_ELSEWHERE}"
            )
    return config["noted"]


def _texts(values: Iterable[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


# What a table needs of the notes. A damaged count would be a list of batches without end.
_NOTED: Mapping[str, tuple[Callable[[Any], bool], str]] = dict(
    settings=(lambda value: isinstance(value, dict), "an object"),
    methods=(lambda value: isinstance(value, list) and value != [] and _texts(value), "a list of names"),
    metrics=(
        lambda value: isinstance(value, dict) and all(isinstance(each, dict) for each in value.values()),
        "an object for every metric",
    ),
    names=(lambda value: value is None or (isinstance(value, dict) and _texts(value.values())), "names by id, or null"),
    batch_size=(lambda value: isinstance(value, int) and value > 0, "a number of images"),
    count=(
        lambda value: value is None or (isinstance(value, int) and 0 <= value < _MOST_BATCHES),
        f"a number of batches below {_MOST_BATCHES}, or null",
    ),
)
