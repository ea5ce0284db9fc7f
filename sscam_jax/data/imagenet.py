"""The 1000 classes of ILSVRC-2012 by index and by name.

The names are in `imagenet_classes.txt` next to this file. They are the lemmas of WordNet's synsets. So a class can
have several names ("goldfish, Carassius auratus"), and a name can belong to several classes ("crane" is a bird and a
machine).
"""

import difflib
import functools
import importlib.resources


@functools.cache
def synsets() -> dict[str, str]:
    """Return the names of each class, as one text, by its WordNet id. The order is that of the class indices."""
    text = importlib.resources.files("sscam_jax.data").joinpath("imagenet_classes.txt").read_text("utf-8")
    return dict(line.split("\t") for line in text.splitlines() if not line.startswith("#"))


@functools.cache
def _names() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names.split(", ")) for names in synsets().values())


@functools.cache
def _indices() -> dict[str, tuple[int, ...]]:
    """Return the indices of the classes that have a name, by the name in lower case."""
    found: dict[str, tuple[int, ...]] = {}
    for index, names in enumerate(_names()):
        for name in names:
            found[name.lower()] = (*found.get(name.lower(), ()), index)
    return found


def class_name(index: int) -> str:
    """Return the short name of a class: the first of its WordNet lemmas.

    Args:
        index: the class index, from 0 to 999.

    Returns:
        The name. Two pairs of classes have the same name: 134 and 517 (crane), 638 and 639 (maillot).

    Raises:
        ValueError: the index is out of range.

    Example:
        >>> class_name(207)
        'golden retriever'

    References:
        Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (IJCV 2015); Miller, WordNet
        (CACM 1995).
    """
    names = _names()
    if not 0 <= index < len(names):
        raise ValueError(f"class {index} is not one of ImageNet's; choose from 0 to {len(names) - 1}")
    return names[index][0]


def class_index(name_or_index: str | int) -> int:
    """Return the index of a class from one of its names or from its index. The case of letters does not matter.

    Args:
        name_or_index: a name ("golden retriever"), an index (207) or its digits ("207").

    Returns:
        The index, from 0 to 999.

    Raises:
        ValueError: no class has this name or index, or several classes have this name. The message suggests similar
            names, or lists the classes.

    Example:
        >>> class_index("Golden Retriever"), class_index("207")
        (207, 207)

    References:
        Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge (IJCV 2015).
    """
    if isinstance(name_or_index, int) or name_or_index.strip().removeprefix("-").isdecimal():
        index = int(name_or_index)
        # It refuses an index out of range.
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
    # Names that contain the word ("retriever") come before names with a similar spelling.
    near = [known for known in _indices() if name and name in known.split()] or difflib.get_close_matches(
        name, _indices(), 5
    )
    hint = (
        f"; did you mean {', '.join(map(repr, near[:5]))}?"
        if near
        else "; give one of its 1000 names or an index, 0 to 999"
    )
    raise ValueError(f"class '{name_or_index}' is not one of ImageNet's{hint}")
