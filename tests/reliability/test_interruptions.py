"""Kills, signals, full disks, read-only folders, two writers: nothing is lost, doubled or half-written."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from sscam_jax.evaluation import parts, run_folder, study
from sscam_jax.evaluation.run_folder import Run
from tests.evaluation.test_run_folder import NOTED, PRINT, SEAL, part
from tests.reliability import campaign, small_run

pytestmark = pytest.mark.xdist_group("reliability")


@pytest.fixture(scope="module", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory):
    """Processes share their compilations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    campaign.finish(out, 1)
    return out


def test_killed_again_and_again_by_one_or_two_processes(tmp_path, whole):
    """The short form of `python -m tests.reliability.campaign`."""
    hit = campaign.killed(tmp_path, 1, 60, 0.01) + campaign.killed(tmp_path, 2, 60, 0.03)
    assert hit >= 2
    campaign.finish(tmp_path, 1)
    assert campaign.check(tmp_path, whole) == (0, 0, True)


def test_two_writers_of_the_same_share(tmp_path, whole):
    processes = [campaign.start(tmp_path, 0, 1) for _ in range(2)]
    codes = sorted(process.wait() for process in processes)
    assert codes in ([0, 0], [0, 1])  # the second is refused, or comes when the first is done
    assert campaign.check(tmp_path, whole) == (0, 0, True)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_signals(tmp_path, whole, name):
    process = campaign.start(tmp_path, 0, 1)
    while not list(tmp_path.glob("parts/[0-9]*.npz")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(getattr(signal, name))
    process.wait()
    [parts.seal_of(path, 7) for path in tmp_path.rglob("*.npz")]  # none is damaged: two methods and five controls
    campaign.finish(tmp_path, 1)
    assert campaign.check(tmp_path, whole) == (0, 0, True)


def test_a_closed_pipe_loses_nothing(tmp_path, whole):
    script = (
        f"from tests.reliability import small_run as s; import pathlib; s.main(pathlib.Path({str(tmp_path)!r}), 0, 1)"
    )
    command = [sys.executable, "-c", script + "; print('x' * 1_000_000)"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdout.close()
    process.wait()
    assert campaign.check(tmp_path, whole) == (0, 0, True)


def test_a_disk_that_is_full_at_each_write(tmp_path, monkeypatch):
    """Every call that writes, moves or links fails once; after each, the folder holds whole parts only."""
    for call in ("fsync", "replace", "link"):
        folder = tmp_path / call
        real = getattr(os, call)
        for failing in range(3):
            calls = []

            def full(*arguments, real=real, calls=calls, failing=failing, **more):
                calls.append(1)
                if len(calls) == failing + 1:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*arguments, **more)

            with monkeypatch.context() as patch:
                patch.setattr(os, call, full)
                try:
                    with Run(folder, PRINT, NOTED) as run:
                        for number, ids in enumerate([(9, 0), (5, 4)]):
                            if number not in run.done:
                                run.write(number, part(*ids), [], SEAL)
                except OSError as error:
                    assert error.errno == errno.ENOSPC
            left = [path.name for path in (folder / "parts").glob("*")] if (folder / "parts").exists() else []
            assert all(name[0] != "." for name in left), "nothing half-written stays"
        with Run(folder, PRINT, NOTED) as run:
            for number, ids in enumerate([(9, 0), (5, 4)]):
                if number not in run.done:
                    run.write(number, part(*ids), [], SEAL)
        assert run_folder.read(folder).results.names == ("a", "d", "b", "c")


def test_a_read_only_folder_is_an_os_error(tmp_path, monkeypatch):
    """As a user who may not write; root may, so the calls themselves refuse."""

    def refused(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "mkdir", refused)
    with pytest.raises(PermissionError, match="Permission denied"):
        Run(tmp_path / "run", PRINT, NOTED).__enter__()
    assert not (tmp_path / "run").exists()


def test_the_tables_of_a_run_that_is_going_on(tmp_path):
    """`sscam table` reads what is there while another process writes."""
    process = campaign.start(tmp_path, 0, 1)
    seen = set()
    while process.poll() is None:
        if list(tmp_path.glob("parts/[0-9]*.npz")):
            seen.add(len(run_folder.read(tmp_path).results.names))
        time.sleep(0.02)
    assert process.wait() == 0
    assert study.table(tmp_path).stored.unfinished == []
    assert seen and max(seen) <= 2 * small_run.BATCHES
    assert np.isfinite(run_folder.read(tmp_path).results.values).all()
