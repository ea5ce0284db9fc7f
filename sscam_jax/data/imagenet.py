"""The 1000 classes of ILSVRC-2012 by index and by name.

The names live in `imagenet_classes.txt` beside this file. They are the lemmas of WordNet's synsets, so a
class has several ("goldfish, Carassius auratus") and a name can stand for several classes ("crane" is a bird
and a machine).
"""

import difflib
import functools
import importlib.resources


@functools.cache
def synsets() -> dict[str, str]:
    """From each class's WordNet id to its names in one text, in the order of the indices."""
    text = importlib.resources.files("sscam_jax.data").joinpath("imagenet_classes.txt").read_text("utf-8")
    return dict(line.split("\t") for line in text.splitlines() if not line.startswith("#"))


@functools.cache
def _names() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names.split(", ")) for names in synsets().values())


@functools.cache
def _indices() -> dict[str, tuple[int, ...]]:
    """From a lower-case name to every class that has it."""
    found: dict[str, tuple[int, ...]] = {}
    for index, names in enumerate(_names()):
        for name in names:
            found[name.lower()] = (*found.get(name.lower(), ()), index)
    return found


def class_name(index: int) -> str:
    """The short name of a class: the first of its WordNet lemmas.

    Args:
        index: the class, 0 to 999.

    Returns:
        The name. Two pairs of classes share one: 134 and 517 (crane), 638 and 639 (maillot).

    Raises:
        ValueError: there is no such class.

    Example:
        >>> class_name(207)
        'golden retriever'

    References:
        Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (IJCV 2015); Miller, WordNet
        (CACM 1995).
    """
    names = _names()
    if not 0 <= index < len(names):
        raise ValueError(f"class {index} is not one of ImageNet's: choose from 0 to {len(names) - 1}")
    return names[index][0]


def class_index(name_or_index: str | int) -> int:
    """The index of a class given by any of its names, in any case, or by its index.

    Args:
        name_or_index: a name ("golden retriever"), an index (207) or its digits ("207").

    Returns:
        The index, 0 to 999.

    Raises:
        ValueError: no class has that name (the nearest names are suggested) or index, or several have it
            (they are listed).

    Example:
        >>> class_index("Golden Retriever"), class_index("207")
        (207, 207)

    References:
        Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (IJCV 2015).
    """
    if isinstance(name_or_index, int) or name_or_index.strip().removeprefix("-").isdecimal():
        index = int(name_or_index)
        class_name(index)
        return index
    name = " ".join(name_or_index.replace("_", " ").lower().split())
    indices = _indices().get(name, ())
    if len(indices) == 1:
        return indices[0]
    if indices:
        choices = ", ".join(f"{index} ({', '.join(_names()[index])})" for index in indices)
        raise ValueError(
            f"class '{name_or_index}' stands for {len(indices)} of ImageNet's classes; choose from {choices}"
        )
    # A word inside a longer name ("retriever") is a nearer miss than any spelling distance sees.
    near = [known for known in _indices() if name and name in known.split()] or difflib.get_close_matches(
        name, _indices(), 5
    )
    hint = (
        f"; did you mean {', '.join(map(repr, near[:5]))}?"
        if near
        else "; give one of its 1000 names or an index, 0 to 999"
    )
    raise ValueError(f"class '{name_or_index}' is not one of ImageNet's{hint}")
