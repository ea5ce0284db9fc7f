"""Methods as an evaluation runs them: from texts, functions, partials, wrappers and stored maps, by name."""

import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sscam_jax._support import DAMAGED_ARCHIVE
from sscam_jax.cams.registry import CONTROLS, parse
from sscam_jax.evaluation import fingerprint
from sscam_jax.evaluation._sharded import kept
from sscam_jax.types import Apply, Batch, Params

_OFFERED = ("key", "ids", "devices")


@dataclasses.dataclass(frozen=True)
class Explainer:
    """A method, and how the loop runs it.

    Attributes:
        function: `(apply, params, images, labels, **given)` to a `Saliency` or an array of maps [b, *space].
        given: which of the keywords key, ids and devices it gets. With `devices` it runs image by image.
        compiled: whether JAX can compile it; otherwise it runs on the host, on the images that count.
        identity: what tells it from others: its choices, and hashes.
    """

    function: Callable[..., Any]
    given: tuple[str, ...]
    compiled: bool
    # Not compared, because `jax.jit` hashes its static arguments, and a mapping has no hash.
    identity: Mapping[str, Any] = dataclasses.field(compare=False)

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return "key" in self.given


@dataclasses.dataclass(frozen=True, eq=False)
class StoredMaps:
    """Maps that another program made, as a method.

    Attributes:
        name: what tables call them.
        maps: the map [*space] of every image, by its id.
    """

    name: str
    maps: Mapping[str, np.ndarray]

    def __call__(self, apply: Apply, params: Params, images: Any, labels: Any, *, ids: Any) -> np.ndarray:
        """The maps of these images."""
        numbers = [str(int(i)) for i in ids]
        if absent := [number for number in numbers if number not in self.maps]:
            raise ValueError(
                f"maps '{self.name}' have none for the images of ids {', '.join(absent[:5])}: expected one for every "
                "image that is measured, by its id as text: add them, or leave these images out"
            )
        return np.stack([self.maps[number] for number in numbers])


def _read(name: str, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    with open(path, "rb") as stream:  # outside of `try`, because a missing file is not a damaged one
        try:
            with np.load(stream) as archive:
                return {number: archive[number] for number in archive.files}
        except (*DAMAGED_ARCHIVE, TypeError, AttributeError) as error:  # the last two for an npy file
            raise ValueError(
                f"maps '{name}' are in '{os.fspath(path)}', which is not an npz file ({error}): write it with "
                "np.savez(path, **{str(id): map})"
            ) from error


def stored(name: str, maps: Any) -> StoredMaps:
    """Maps that another program made, as a method.

    Args:
        name: what tables call them.
        maps: a file that `np.savez` wrote with the ids as names, a mapping from ids to maps [*space], or an array
            [n, *space] whose row i belongs to id i.

    Returns:
        The method.

    Raises:
        ValueError: it is none of these.
        FileNotFoundError: there is no such file.
    """
    if isinstance(maps, str | os.PathLike):
        return StoredMaps(name, _read(name, maps))
    if isinstance(maps, Mapping):
        return StoredMaps(name, {str(number): np.asarray(each) for number, each in maps.items()})
    try:
        given = np.asarray(maps)
    except ValueError:  # maps of several shapes
        given = np.zeros(0)
    if given.ndim < 2:
        raise ValueError(
            f"maps '{name}' are {type(maps).__name__}, expected an npz file, a mapping by id, or an array of maps of "
            "one shape"
        )
    return StoredMaps(name, {str(i): each for i, each in enumerate(given)})


def _title(function: Callable[..., Any]) -> str:
    """A function's name for a table, in the form of the command line's."""
    if isinstance(function, functools.partial):
        plain = {k: v for k, v in function.keywords.items() if isinstance(v, str | int | float | bool)}
        settings = [_title(each) for each in function.args if callable(each)] + [f"{k}={v}" for k, v in plain.items()]
        return ":".join(filter(None, [_title(function.func), ",".join(settings)]))
    name = getattr(function, "__name__", "<lambda>")
    if name == "<lambda>":
        raise ValueError(f"{function!r} has no name for the tables: give the methods as a mapping, {{name: function}}")
    return name.replace("_", "-")


Methods = Mapping[str, Any] | Sequence[Any]
"""Texts, functions, or both: a sequence, or a mapping from the names that tables give them."""


def named(
    methods: Methods, maps: Mapping[str, Any], *, controls: bool = True
) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Every method's function and choices by its name, the controls last.

    Args:
        methods: texts as `cams.registry.parse` reads them, functions, or both.
        maps: stored maps by name, see `stored`.
        controls: whether the controls are added.

    Returns:
        The functions, each with the choices that its text makes.

    Raises:
        ValueError: a text that is not a method, a name that is taken, a function without a name, or nothing at all.
    """
    # Both would fail later: a text is a sequence of letters, and a function is not iterable.
    if isinstance(methods, str) or callable(methods):
        raise ValueError(f"methods is {methods!r}, expected a list or a mapping of them: [{methods!r}]")
    pairs: list[tuple[str | None, Any]] = [(None, each) for each in methods]
    if isinstance(methods, Mapping):
        pairs = list(methods.items())
    pairs += [(name, stored(name, each)) for name, each in maps.items()]
    if not pairs:
        raise ValueError("no methods: expected at least one, as in ['grad-cam']")
    found: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}
    for name, method in pairs:
        if not isinstance(method, str) and not callable(method):
            raise ValueError(
                f"method {method!r} is of type {type(method).__name__}, expected a text, as 'ss-cam:paper', or a "
                "function"
            )
        function, choices = parse(method) if isinstance(method, str) else (method, {})
        title = name or (method if isinstance(method, str) else _title(method))
        if title in found:
            raise ValueError(f"two methods are called '{title}': give them as a mapping, {{name: method}}")
        # A control may be asked for by its name, and then is not added once more.
        if title.partition(":")[0] in CONTROLS and method not in (title, CONTROLS.get(title)):
            raise ValueError(f"method name '{title}' is that of a control, which every table has: choose another name")
        found[title] = (function, choices)
    return found | {name: (method, {}) for name, method in CONTROLS.items() if controls and name not in found}


def shapes(batch: Batch, params: Params) -> dict[str, Any]:
    """The arguments of a batch as shapes, to trace with."""

    def shape(array: Any, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(np.shape(array), dtype)

    return dict(
        params=jax.tree.map(lambda leaf: shape(leaf, leaf.dtype), params),
        images=shape(batch.images, jnp.asarray(batch.images[:0]).dtype),
        labels=shape(batch.labels, jnp.int32),
        boxes=shape(batch.boxes, jnp.float32),
        key=jax.eval_shape(lambda: jax.random.key(0)),
        ids=shape(batch.ids, jnp.int32),
    )


def prepared(
    name: str, function: Callable[..., Any], choices: Mapping[str, Any], apply: Apply, params: Params, batch: Batch
) -> Explainer:
    """Find out how a method can be run and what tells it from others, without running the network.

    Which keywords it takes is read from its signature. One with `**options` is offered all three, and those that what
    it calls refuses are taken back.

    Args:
        name: what tables call it.
        function: the method.
        choices: what its text says of it.
        apply: the network.
        params: its parameters.
        batch: a batch of the data.

    Returns:
        The `Explainer`.

    Raises:
        ValueError: maps of a wrong shape or kind, or what the method raises.
    """
    parameters = inspect.signature(function).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    given = [keyword for keyword in _OFFERED if anything or keyword in parameters]
    # How many inputs run at once follows from the device: it is not part of what is computed.
    fixed = dict(chunk_size=16) if "chunk_size" in parameters and not _binds(function, "chunk_size") else {}
    # Not traced: the maps are known, and say more than the code that reads them.
    if isinstance(function, StoredMaps):
        return Explainer(function, ("ids",), False, dict(maps=fingerprint.arrays(dict(function.maps), name)))
    # Traced, not run: a whole pass would cost minutes for methods of thousands of passes.
    of = shapes(batch, params)

    def call(params: Params, images: Any, labels: Any, keywords: Any) -> Any:
        keywords = keywords | (dict(devices=None) if "devices" in given else {})
        return kept(name, function(apply, params, images, labels, **keywords, **fixed), images)

    # Each turn ends it or takes one keyword back, so there are four at most.
    while True:
        keywords = {keyword: of[keyword] for keyword in given if keyword != "devices"}
        try:
            traced = jax.jit(call).trace(of["params"], of["images"], of["labels"], keywords)
            return Explainer(function, tuple(given), True, dict(choices, program=fingerprint.program(traced, function)))
        except TypeError as error:
            # Python's words for a keyword that is not known, and those of methods with **changes.
            refused = re.search(r"(?:unexpected keyword|has no) argument '(\w+)'", str(error))
            if anything and refused and refused[1] in given:
                given.remove(refused[1])
            elif isinstance(error, jax.errors.JAXTypeError):
                # It looks at numbers, as NumPy does.
                return Explainer(function, tuple(given), False, dict(choices, code=fingerprint.code(function)))
            else:
                error.add_note(f"This was method '{name}', called with apply, params, images, labels, {given}")
                raise


def _binds(function: Any, keyword: str) -> bool:
    return isinstance(function, functools.partial) and keyword in function.keywords
