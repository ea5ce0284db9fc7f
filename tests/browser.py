"""Chromium over the DevTools protocol, through a pipe: nothing but the standard library."""

import contextlib
import fcntl
import functools
import http.server
import itertools
import json
import os
import pathlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
).split()


class Page:
    """One page of a browser. What it does wrong is in `problems`."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        self._loaded = False
        self.problems: list[str] = []
        [target] = [each for each in self.do("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        self._session = self.do("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.do(f"{domain}.enable")

    def _message(self) -> dict[str, Any]:
        """The next message; messages end with a zero byte."""
        while b"\0" not in self._rest:
            more = self._reading.read1()
            if not more:
                raise EOFError("the browser has ended")
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _heard(self, method: str, said: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(f"exception: {said['exceptionDetails']}")
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.problems.append(f"console: {said['args']}")
        elif method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.problems.append(f"log: {said['entry']['text']} {said['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent" and not said["request"]["url"].startswith(
            ("http://127.0.0.1:", "data:", "blob:")
        ):
            self.problems.append(f"request to another host: {said['request']['url']}")

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        number = next(self._numbers)
        command = dict(id=number, method=method, params=params) | (
            {"sessionId": self._session} if self._session else {}
        )
        self._writing.write(json.dumps(command).encode() + b"\0")
        self._writing.flush()
        while (message := self._message()).get("id") != number:
            self._heard(message.get("method", ""), message.get("params", {}))
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def open(self, url: str) -> None:
        """Load a page, with its pictures and scripts."""
        self.problems, self._loaded = [], False
        self.do("Page.navigate", url=url)
        while not self._loaded:
            message = self._message()
            self._heard(message.get("method", ""), message.get("params", {}))

    def resize(self, width: int, height: int = 900) -> None:
        """Set the size of the window in pixels."""
        self.do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, scheme: str) -> None:
        """Make the reader's system "light" or "dark"."""
        self.do("Emulation.setEmulatedMedia", features=[dict(name="prefers-color-scheme", value=scheme)])

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, awaited."""
        found = self.do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A page of a browser of its own, which ends with the block."""
    assert CHROMIUM is not None
    theirs, ours = os.pipe()
    back, forth = os.pipe()
    # In Chromium 3 is for commands and 4 for what it says. Here both may be taken by the other pipe's ends.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 20) for each in (theirs, forth)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = os.posix_spawn(
            CHROMIUM,
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, high[0], 3),
                (os.POSIX_SPAWN_DUP2, high[1], 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        for each in (theirs, forth, *high):
            os.close(each)
        try:
            with os.fdopen(back, "rb") as reading, os.fdopen(ours, "wb") as writing:
                yield Page(reading, writing)
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """The address under which a folder is served to this machine."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
