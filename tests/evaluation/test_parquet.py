"""A run as a Parquet file, and back."""

import numpy as np
import pytest

from sscam_jax.evaluation import parquet, run_folder
from sscam_jax.evaluation.run_folder import Run
from tests.evaluation.test_run_folder import NOTED, PRINT, SEAL, part


def test_parquet_has_a_row_for_every_map(tmp_path):
    arrow = pytest.importorskip("pyarrow.parquet")
    with Run(tmp_path, PRINT, NOTED) as run:
        measured = part(0, 5)
        measured.passes[1, 0] = 0  # a method without noise has no second map
        run.write(0, measured, [], SEAL)
    parquet.write(run_folder.read(tmp_path), tmp_path / "results.parquet")
    table = arrow.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(table) == 6
    row = next(row for row in table if (row["image"], row["method"], row["key"]) == ("b", "cam", 1))
    assert (
        row["energy"] == measured.values[1, 1, 1, 0]
        and row["label"] == 6
        and row["max-box-acc@0.20"] == row["energy"] + 2
    )


def test_parquet_comes_back(tmp_path):
    pytest.importorskip("pyarrow")
    with Run(tmp_path, PRINT, NOTED) as run:
        measured = part(9, 0, 5)
        measured.values[0, 1, 2, 1] = np.nan
        measured.passes[1, 0], measured.values[1, 0], measured.flat[1, 0] = 0, np.nan, False
        run.write(0, measured, [], SEAL)
    written = run_folder.read(tmp_path).results
    parquet.write(run_folder.read(tmp_path), tmp_path / "results.parquet")
    again = parquet.read(tmp_path / "results.parquet")
    assert again._fields == written._fields and again.names == ("a", "b", "c")
    for name, value in written._asdict().items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert np.asarray(getattr(again, name)).dtype == np.asarray(value).dtype


def test_other_parquet_files_are_refused(tmp_path):
    arrow = pytest.importorskip("pyarrow.parquet")
    with pytest.raises(
        FileNotFoundError, match="there is no file '.*', expected the results.parquet of a run: `sscam table"
    ):
        parquet.read(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(
        ValueError, match="text.parquet' is not what a run writes: .* Expected the results.parquet of a run"
    ):
        parquet.read(tmp_path / "text.parquet")
    table = pytest.importorskip("pyarrow").table(dict(image=["a"], method=["cam"], energy=[1.0]))
    arrow.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(
        ValueError, match="it has no column 'key', 'label', 'predicted', .* Expected the results.parquet of"
    ):
        parquet.read(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(key="first"), "its column 'key' holds object, expected integers"),
        (dict(energy="much"), "its column 'energy' holds object, expected floats"),
        (dict(flat=None), "its column 'flat' holds .*, expected booleans"),
        (dict(key=10**9), "its column 'key' does not number noise keys from 0"),
    ],
)
def test_parquet_files_with_other_columns_are_refused(tmp_path, changed, message):
    pyarrow, arrow = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = dict(
        image="a", method="cam", key=0, label=1, predicted=1, probability=0.5, single_box=True, flat=False, passes=1
    )
    arrow.write_table(pyarrow.Table.from_pylist([row | dict(energy=1.0) | changed]), tmp_path / "r.parquet")
    with pytest.raises(ValueError, match=f"r.parquet' is not what a run writes: {message}. Expected the results.par"):
        parquet.read(tmp_path / "r.parquet")


def test_damaged_parquet_files_are_read_or_refused(tmp_path):
    pytest.importorskip("pyarrow")
    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(0, 5), [], SEAL)
    path, rng, refused = tmp_path / "results.parquet", np.random.default_rng(0), 0
    parquet.write(run_folder.read(tmp_path), path)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            parquet.read(path)
        except ValueError as error:
            assert "is not what a run writes" in str(error)
            refused += 1
    assert refused > 50
