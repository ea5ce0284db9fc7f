"""A run's values as a Parquet file, one row for each image, method and noise key, for other programs."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sscam_jax._support import imported, replacing
from sscam_jax.evaluation.run_folder import Stored
from sscam_jax.evaluation.statistics import Results

# The columns that are not metrics, and the kinds of their NumPy types.
_ABOUT = dict(
    image="O", method="O", key="i", label="i", predicted="i", probability="f", single_box="b", flat="b", passes="i"
)

_KINDS = dict(O="texts", i="integers", f="floats", b="booleans")


def write(stored: Stored, path: pathlib.Path) -> None:
    """Every value of a run, a row for each image, method and noise key, for other programs.

    Args:
        stored: the run.
        path: the file to write.

    Raises:
        ImportError: pyarrow is not installed.
    """
    pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
    results = stored.results
    keys, methods, n, _ = results.values.shape
    # A method without noise has no passes, and no row, at the other keys.
    measured = (results.passes != 0).reshape(-1)

    def spread(values: Any, axis: int) -> np.ndarray:
        shape = [1, 1, 1]
        shape[axis] = -1
        return np.broadcast_to(np.asarray(values).reshape(shape), (keys, methods, n)).reshape(-1)[measured]

    columns: dict[str, Any] = dict(
        image=spread(results.names, 2),
        method=spread(results.methods, 1),
        key=spread(range(keys), 0),
        label=spread(results.labels, 2),
        predicted=spread(results.predicted, 2),
        probability=spread(stored.probability, 2),
        single_box=spread(results.single, 2),
        flat=results.flat.reshape(-1)[measured],
        passes=results.passes.reshape(-1)[measured],
    )
    columns |= {name: results.values[..., k].reshape(-1)[measured] for k, name in enumerate(results.metrics)}
    with replacing(path) as part:
        parquet.write_table(pyarrow.table(columns), part)


def _other(path: pathlib.Path, why: str) -> ValueError:
    return ValueError(
        f"'{path}' is not what a run writes: {why}. Expected the results.parquet of a run: `sscam table --out` writes "
        "it again"
    )


def _check(columns: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Refuse columns that cannot be a run's."""
    for name, column in columns.items():
        if column.dtype.kind != (kind := _ABOUT.get(name, "f")):
            raise _other(path, f"its column '{name}' holds {column.dtype}, expected {_KINDS[kind]}")
    # A damaged key of 10⁹ would be an array of that many rows.
    if ((columns["key"] < 0) | (columns["key"] >= max(len(columns["key"]), 1))).any():
        raise _other(path, "its column 'key' does not number noise keys from 0")


def _columns(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The columns of a file, checked."""
    pyarrow, parquet = imported("pyarrow"), imported("pyarrow.parquet")
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file '{path}', expected the results.parquet of a run: `sscam table --out` writes it again"
        )
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:  # which one depends on the byte that is damaged
        raise _other(path, str(error)) from error
    if absent := [name for name in _ABOUT if name not in table.column_names]:
        raise _other(path, f"it has no column {', '.join(map(repr, absent))}")
    columns = {name: table[name].to_numpy() for name in table.column_names}
    _check(columns, path)
    return columns


def read(path: pathlib.Path) -> Results:
    """What `write` wrote: a run's values without its maps.

    Args:
        path: the file.

    Returns:
        The results, images and methods in the order of the run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what a run writes.
        ImportError: pyarrow is not installed.
    """
    columns = _columns(path)

    def numbered(name: str) -> tuple[tuple[str, ...], np.ndarray]:
        words = columns[name].tolist()
        places = {word: i for i, word in enumerate(dict.fromkeys(words))}
        return tuple(places), np.array([places[word] for word in words], int)

    (names, n), (methods, m) = numbered("image"), numbered("method")
    metrics = tuple(name for name in columns if name not in _ABOUT)
    keys = columns["key"]
    shape = (int(keys.max(initial=0)) + 1, len(methods), len(names))

    def spread(values: np.ndarray, empty: Any, *more: int) -> np.ndarray:
        array = np.full((*shape, *more), empty, values.dtype)
        array[keys, m, n] = values
        return array

    # What belongs to an image stands in each of its rows: the first one is enough.
    _, first = np.unique(n, return_index=True)
    values = np.stack([columns[name] for name in metrics], -1)
    return Results(
        names=names,
        methods=methods,
        metrics=metrics,
        values=spread(values, np.nan, len(metrics)),
        flat=spread(columns["flat"], False),
        passes=spread(columns["passes"], 0),
        labels=columns["label"][first],
        predicted=columns["predicted"][first],
        single=columns["single_box"][first],
    )
