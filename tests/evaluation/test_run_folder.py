"""The run folder: nothing lost, nothing mixed, nothing half-written."""

import errno
import json
import os

import numpy as np
import pytest

from sscam_jax.evaluation import run_folder
from sscam_jax.evaluation.loop import Part
from sscam_jax.evaluation.run_folder import Run, Seal
from sscam_jax.types import Problem

PRINT = dict(settings=dict(seed=0), methods=dict(cam=dict(program="a")))
NOTED = dict(methods=["grad-cam", "cam"], names={"9": "c", "0": "a", "5": "b", "4": "d"}, batch_size=2, count=2)
NOTED |= dict(metrics={}, settings={})
SEAL = Seal("arrays", "files")


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
        maps=(np.full((2, n, 7, 7), numbers[:, None, None], np.float32), np.full((1, n, 8, 8), 255, np.uint8)),
        skipped=np.zeros(0, np.int32),
    )


def test_parts_come_back_in_the_order_of_ids(tmp_path):
    first, second = part(9, 0), part(5, offset=100)
    with Run(tmp_path / "run", PRINT, NOTED) as run:
        run.write(0, first, [Problem(9, "c", "unreadable", "so")], SEAL)
        run.write(1, second._replace(skipped=np.array([4])), [], SEAL)
        assert run.done == {0: SEAL, 1: SEAL}
    stored = run_folder.read(tmp_path / "run")
    assert stored.results.names == ("a", "b", "c") and stored.results.methods == ("grad-cam", "cam")
    assert stored.results.metrics == first.columns and stored.unfinished == []
    expected = np.concatenate([first.values, second.values], 2)[:, :, [1, 2, 0]]
    np.testing.assert_array_equal(stored.results.values, expected)
    np.testing.assert_array_equal(stored.results.labels, [1, 6, 10])
    assert stored.problems == [Problem(9, "c", "unreadable", "so")] and stored.skipped == ["d"]
    assert [stored.kept_maps(i, "grad-cam")[0, 0, 0] for i in range(3)] == [0, 5, 9]
    assert stored.kept_maps(2, "cam").shape == (1, 8, 8)


def test_what_is_not_measured_is_named(tmp_path):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(9, 0), [], SEAL)
    assert run_folder.read(tmp_path).unfinished == ["b", "d"]
    with Run(tmp_path / "stream", PRINT, NOTED | dict(names=None, count=None)) as run:
        run.write(0, part(9, 0), [], SEAL)
        assert run_folder.read(tmp_path / "stream").unfinished == ["what follows in the data set"]
        run.finish(3)
    assert run_folder.read(tmp_path / "stream").unfinished == ["batch 1", "batch 2"]


def test_several_processes_share_the_parts(tmp_path):
    """Their number may change: 2 begin, and 1 goes on."""
    with Run(tmp_path, PRINT, NOTED, (0, 2)) as one, Run(tmp_path, PRINT, NOTED, (1, 2)) as two:
        one.write(0, part(9, 0), [], SEAL)
        assert one.done and not two.done
    with Run(tmp_path, PRINT, NOTED) as run:
        assert list(run.done) == [0]
        run.write(1, part(5), [], SEAL)
    assert run_folder.read(tmp_path).results.names == ("a", "b", "c")


def test_half_written_parts_do_not_count(tmp_path):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(0), [], SEAL)
        (run.parts / ".000001.npz.0.part").write_bytes(b"half")
    with Run(tmp_path, PRINT, NOTED) as run:
        assert list(run.done) == [0]


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "other"])
def test_damaged_parts_are_moved_aside_and_named(tmp_path, damage):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(0), [], SEAL)
        run.write(1, part(5), [], SEAL)
    file = tmp_path / "parts" / "000001.npz"
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 255
    contents = dict(cut=whole[:200], flipped=whole, text=b"hello")
    if damage == "other":
        np.savez(file, a=np.zeros(3))
    else:
        file.write_bytes(contents[damage])
    stored = run_folder.read(tmp_path)
    if damage != "flipped":  # the flipped byte may lie in a map, which a table does not read
        assert stored.results.names == ("a",)
        assert stored.unfinished == [f"{name} (its part 000001.npz is damaged)" for name in "bd"]
    with pytest.warns(RuntimeWarning, match="000001.npz' is damaged .*: moved to 'damaged-000001.npz', and its batch"):
        with Run(tmp_path, PRINT, NOTED) as run:
            assert list(run.done) == [0]
            run.write(1, part(5), [], SEAL)
    assert (tmp_path / "parts" / "damaged-000001.npz").is_file()
    assert run_folder.read(tmp_path).results.names == ("a", "b")


def test_an_image_in_two_parts_is_refused(tmp_path):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(0, 5), [], SEAL)
        run.write(1, part(5), [], SEAL)
    with pytest.raises(
        ValueError, match=r"twice, of ids \[5\]: each image needs its own id. .* measure again in another"
    ):
        run_folder.read(tmp_path)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(0), [], SEAL)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                run.write(1, part(5), [], SEAL)
        assert [each.name for each in run.parts.iterdir()] == ["000000.npz"]
        run.write(1, part(5), [], SEAL)
    assert run_folder.read(tmp_path).results.names == ("a", "b")


def test_another_fingerprint_is_refused_with_the_differences(tmp_path):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.finish(2)
    other = Run(tmp_path, dict(settings=dict(seed=1), methods=dict(cam=dict(program="b"))), NOTED)
    with pytest.raises(
        ValueError,
        match=r"configuration \(settings.seed: 0 there, 1 now; methods.cam.program: a there, b now\); choose",
    ):
        other.__enter__()
    with Run(tmp_path, PRINT, NOTED | dict(devices=3)):
        pass  # what is noted may differ


def test_nothing_is_written_before_the_first_part(tmp_path):
    with Run(tmp_path / "run", PRINT, NOTED):
        pass
    assert [each.name for each in (tmp_path / "run").iterdir()] in ([], [".lock-0-of-1"])
    with Run(tmp_path / "run", dict(PRINT, settings=dict(seed=1)), NOTED) as run:  # a typo poisons nothing
        run.finish(2)


def test_two_runs_at_once_are_refused(tmp_path):
    with Run(tmp_path, PRINT, NOTED), pytest.raises(ValueError, match="another run is writing to"):
        Run(tmp_path, PRINT, NOTED).__enter__()
    with Run(tmp_path, PRINT, NOTED), Run(tmp_path, PRINT, NOTED, (1, 2)):
        pass  # processes of one run do not meet
    with Run(tmp_path, PRINT, NOTED) as one, Run(tmp_path, dict(PRINT, settings={}), NOTED, (1, 2)) as two:
        one.finish(2)
        with pytest.raises(ValueError, match="settings.seed: 0 there, none now"):
            two.write(1, part(5), [], SEAL)


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run folder: it has no config.json. Give the folder of a run"):
        run_folder.read(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty and is not a run folder \(thesis.tex, …\)"):
        Run(tmp_path, PRINT, NOTED).__enter__()
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_and_other_versions_are_named(tmp_path):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.finish(2)
    with pytest.raises(ValueError, match="holds no results: no batch is measured yet. Run `sscam evaluate`, or"):
        run_folder.read(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | dict(format=1)))
    with pytest.raises(
        ValueError, match="was written in format 1, this version reads format 2: measure again, or use the version that"
    ):
        run_folder.read(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged: it is not what a run writes. Measure again in another folder"):
        run_folder.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | dict(fingerprint=3)))
    with pytest.raises(ValueError, match="is damaged: fingerprint is not what a run writes. Measure again in another"):
        run_folder.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("settings", [], r"is \[\], expected an object"),
        ("methods", [], r"is \[\], expected a list of names"),
        ("metrics", {"energy": 3}, r"is {'energy': 3}, expected an object for every metric"),
        ("names", {"0": 3}, "is {'0': 3}, expected names by id, or null"),
        ("batch_size", 0, "is 0, expected a number of images"),
        ("count", 10**9, "is 1000000000, expected a number of batches below 10000000, or null"),
    ],
)
def test_damaged_notes_are_named_with_what_was_expected(tmp_path, name, value, expected):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(0), [], SEAL)
    config = json.loads((tmp_path / "config.json").read_text())
    config["noted"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"noted.{name} {expected}. Measure again in another folder"):
        run_folder.read(tmp_path)


def test_a_damaged_count_of_a_stream_is_written_again_when_it_is_deleted(tmp_path):
    stream = NOTED | dict(names=None, count=None)
    with Run(tmp_path, PRINT, stream) as run:
        run.write(0, part(0), [], SEAL)
        run.finish(1)
    count = tmp_path / "parts" / "count"
    count.write_text("many")
    with pytest.raises(
        ValueError, match="count' is damaged: it holds 'many', expected the number of batches. Delete it"
    ):
        run_folder.read(tmp_path)
    count.unlink()
    with Run(tmp_path, PRINT, stream) as run:
        run.finish(1)
    assert run_folder.read(tmp_path).unfinished == []


def test_a_run_without_classes_says_what_to_do(tmp_path):
    with Run(tmp_path, PRINT, NOTED) as run:
        run.write(0, part(), [], SEAL)
    with pytest.raises(
        ValueError, match="no image has a class to explain. Explain the predicted class, target='predic"
    ):
        run_folder.read(tmp_path)
