"""The run folder: nothing lost, nothing mixed, nothing half-written."""

import errno
import json
import os

import numpy as np
import pytest

from sscam_jax.evaluation import run_folder
from sscam_jax.evaluation.loop import Part

CONFIG = dict(processes=1, methods=["grad-cam", "cam"], names={"0": "a", "5": "b", "9": "c"}, seed=0)


def part(*ids, offset=0.0):
    n = len(ids)
    values = np.arange(2 * 2 * n * 3, dtype=np.float32).reshape(2, 2, n, 3) + offset
    numbers = np.array(ids, np.int32)
    return Part(
        columns=("energy", "max-box-acc@0.10", "max-box-acc@0.20"),
        ids=numbers,
        labels=numbers + 1,
        predicted=numbers + 2,
        probability=np.full(n, 0.5, np.float32),
        single=numbers > 3,
        values=values,
        flat=values[..., 0] > 3,
        passes=np.ones((2, 2, n), np.int32),
        raw=np.zeros((2, 2, n, 7, 7), np.float32),
        skipped=np.zeros(0, np.int32),
    )


def test_parts_come_back_in_the_data_sets_order(tmp_path):
    first, second = part(9, 0), part(5, offset=100)
    with run_folder.Run(tmp_path / "run", CONFIG) as run:
        assert run.done == 0
        run.write(0, first, [(9, "c", "unreadable: so")])
        assert run.done == 1
        run.write(1, second._replace(skipped=np.array([4])), [])
        assert run.done == 2
    stored = run_folder.read(tmp_path / "run")
    assert stored.results.names == ("a", "b", "c") and stored.results.methods == ("grad-cam", "cam")
    assert stored.results.metrics == first.columns and stored.unfinished == [0]
    expected = np.concatenate([first.values, second.values], 2)[:, :, [1, 2, 0]]
    np.testing.assert_array_equal(stored.results.values, expected)
    np.testing.assert_array_equal(stored.results.labels, [1, 6, 10])
    np.testing.assert_array_equal(stored.results.single, [False, True, True])
    assert stored.problems == [(9, "c", "unreadable: so"), (4, "4", "no class to explain: skipped")]
    assert stored.raw.shape == (2, 2, 3, 7, 7)


def test_processes_write_apart_and_are_merged(tmp_path):
    for i, ids in enumerate([(0, 9), (5,)]):
        with run_folder.Run(tmp_path, CONFIG | dict(processes=2), (i, 2)) as run:
            run.write(0, part(*ids), [])
            run.finish()
        assert run_folder.read(tmp_path).unfinished == [1][i:]
    assert run_folder.read(tmp_path).results.names == ("a", "b", "c")


def test_half_written_parts_do_not_count(tmp_path):
    with run_folder.Run(tmp_path, CONFIG) as run:
        run.write(0, part(0), [])
        (run.parts / ".000001.npz.0.part").write_bytes(b"half")
        assert run.done == 1
    assert run_folder.read(tmp_path).unfinished == [0]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with run_folder.Run(tmp_path, CONFIG) as run:
        run.write(0, part(0), [])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                run.write(1, part(5), [])
        assert [each.name for each in run.parts.iterdir()] == ["000000.npz"]
        run.write(1, part(5), [])
    assert run_folder.read(tmp_path).results.names == ("a", "b")


def test_another_configuration_is_refused_with_the_differences(tmp_path):
    with run_folder.Run(tmp_path, CONFIG | dict(versions=dict(jax="1", numpy="2"))):
        pass
    other = run_folder.Run(tmp_path, CONFIG | dict(seed=1, versions=dict(jax="3", numpy="2")))
    with pytest.raises(
        ValueError, match=r"another configuration \(seed: 0 there, 1 now; versions.jax: \"1\" there, \"3\""
    ):
        other.__enter__()
    with run_folder.Run(tmp_path, CONFIG | dict(versions=dict(numpy="2", jax="1"))):
        pass


def test_two_runs_at_once_are_refused(tmp_path):
    with run_folder.Run(tmp_path, CONFIG), pytest.raises(ValueError, match="another run is writing to"):
        run_folder.Run(tmp_path, CONFIG).__enter__()
    with run_folder.Run(tmp_path, CONFIG), run_folder.Run(tmp_path, CONFIG, (1, 2)):
        pass  # processes of one run do not meet


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder: it has no config.json"):
        run_folder.read(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"is no run folder, and not empty \(thesis.tex, …\)"):
        run_folder.Run(tmp_path, CONFIG).__enter__()
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_and_other_versions_are_named(tmp_path):
    with run_folder.Run(tmp_path, CONFIG):
        pass
    with pytest.raises(ValueError, match="holds no results"):
        run_folder.read(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | dict(format=0)))
    with pytest.raises(ValueError, match="was written in format 0, this version reads format 1"):
        run_folder.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        run_folder.read(tmp_path)


def test_parquet_has_a_row_for_every_map(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with run_folder.Run(tmp_path, CONFIG) as run:
        measured = part(0, 5)
        measured.passes[1, 0] = 0  # a method without noise has no second map
        run.write(0, measured, [])
    run_folder.write_parquet(run_folder.read(tmp_path), tmp_path / "results.parquet")
    table = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    assert len(table) == 6
    row = next(row for row in table if (row["image"], row["method"], row["key"]) == ("b", "cam", 1))
    assert (
        row["energy"] == measured.values[1, 1, 1, 0]
        and row["label"] == 6
        and row["max-box-acc@0.20"] == row["energy"] + 2
    )


def test_parquet_comes_back(tmp_path):
    pytest.importorskip("pyarrow")
    with run_folder.Run(tmp_path, CONFIG) as run:
        measured = part(9, 0, 5)
        measured.values[0, 1, 2, 1] = np.nan
        measured.passes[1, 0], measured.values[1, 0], measured.flat[1, 0] = 0, np.nan, False
        run.write(0, measured, [])
    written = run_folder.read(tmp_path).results
    run_folder.write_parquet(run_folder.read(tmp_path), tmp_path / "results.parquet")
    again = run_folder.read_parquet(tmp_path / "results.parquet")
    assert again._fields == written._fields and again.names == ("a", "b", "c")
    for name, value in written._asdict().items():
        np.testing.assert_array_equal(getattr(again, name), value)
        assert np.asarray(getattr(again, name)).dtype == np.asarray(value).dtype


def test_other_parquet_files_are_refused(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        run_folder.read_parquet(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(ValueError, match="text.parquet' is not what a run writes: "):
        run_folder.read_parquet(tmp_path / "text.parquet")
    table = pytest.importorskip("pyarrow").table(dict(image=["a"], method=["cam"], energy=[1.0]))
    parquet.write_table(table, tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="it has no column 'key', 'label', 'predicted'"):
        run_folder.read_parquet(tmp_path / "other.parquet")
