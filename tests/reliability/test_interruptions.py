"""Kills, signals, full disks, read-only folders, two writers: nothing is lost, doubled or half-written."""

import errno
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax.evaluation import parts, run_folder, study
from sscam_jax.evaluation.run_folder import Run
from tests.evaluation.test_run_folder import NOTED, PRINT, SEAL, part
from tests.marks import quick
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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", quick(["SIGKILL"], ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"]))
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


# ---- disks, permissions, memory, clocks ----

IMAGES, LABELS = small_run.IMAGES[:8], np.arange(8) % 3


def evaluate(out: pathlib.Path) -> None:
    """A small run in this process."""
    batches = sscam.data.from_arrays(IMAGES, labels=LABELS, batch_size=2)
    apply = sscam.Apply(small_run.features, small_run.head)
    sscam.evaluate(apply, jnp.eye(3), batches, ["grad-cam"], ["average-drop"], out=out)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A small run that nothing disturbed."""
    out = tmp_path_factory.mktemp("small") / "run"
    evaluate(out)
    return out


def same(one: pathlib.Path, other: pathlib.Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in campaign.TABLES)


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root mounts a small disk")
def test_a_real_disk_that_is_full_again_and_again(tmp_path, small):
    """A disk that grows by 12 KiB per call, from nothing to enough: configuration, parts and tables meet its end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine lets no one mount a disk")
    try:
        places, size = set(), 4
        while True:
            try:
                evaluate(disk / "run")
                break
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                places.add(len(list(disk.glob("run/parts/0*.npz"))))
                left = [path.name for path in disk.rglob("*") if path.suffix == ".part"]
                assert left == [], "nothing half-written stays"
            size += 12
            assert size < 400
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        assert len(places) >= 3 and same(disk / "run", small)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(tmp_path, whole):
    """`ulimit -f`: the system's own limit, met by config.json or a part; then the run goes on without it."""
    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (2048, 2048)); "
    script = (
        "from tests.reliability import small_run as s; import pathlib, sys; s.main(pathlib.Path(sys.argv[1]), 0, 1)"
    )
    command = [sys.executable, "-c", limit + script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | dict(JAX_COMPILATION_CACHE_DIR=""))
    assert done.returncode == 1 and "OSError: [Errno 27] File too large" in done.stderr
    campaign.finish(tmp_path, 1)
    assert campaign.check(tmp_path, whole) == (0, 0, True)


@pytest.mark.slow
def test_too_little_memory(tmp_path, whole):
    """`ulimit -v`, lowered while it runs: whatever it dies of, the folder is whole and the run goes on."""
    process = campaign.start(tmp_path, 0, 1)
    while not list(tmp_path.glob("parts/[0-9]*.npz")) and process.poll() is None:
        time.sleep(0.005)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (2**20, 2**20))
    process.wait()
    [parts.seal_of(path, 7) for path in tmp_path.rglob("*.npz")]
    campaign.finish(tmp_path, 1)
    assert campaign.check(tmp_path, whole) == (0, 0, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's rights are needed")
def test_a_folder_of_another_user(tmp_path, small):
    """Permission is denied by the system itself: to begin a run, and to write the tables of one."""
    mine, done = tmp_path / "mine", tmp_path / "done"
    mine.mkdir(mode=0o755)
    shutil.copytree(small, done)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != parent.parent and parent.name.startswith("pytest"):
            parent.chmod(0o755)
    tmp_path.chmod(0o755)
    for folder in (mine / "run", done):
        os.seteuid(65534)
        try:
            with pytest.raises(PermissionError, match="Permission denied"):
                evaluate(folder)
        finally:
            os.seteuid(0)
    assert list(mine.iterdir()) == [] and same(done, small)


@pytest.mark.parametrize("year", [1980, 2100])
def test_a_clock_that_jumps(tmp_path, small, monkeypatch, year):
    """Nothing that is there is measured again, whatever its date, and the clock's."""
    shutil.copytree(small, tmp_path / "run")
    moment = time.mktime((year, 1, 1, 0, 0, 0, 0, 0, 0))
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (moment, moment))
    monkeypatch.setattr(time, "time", lambda: 4.2e9 - moment)
    monkeypatch.setattr(study.loop, "measure", lambda *_: pytest.fail("a batch was measured again"))
    evaluate(tmp_path / "run")
    assert same(tmp_path / "run", small)
