"""Chromium over the DevTools protocol, through a pipe: nothing but the standard library."""

import base64
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
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe"
).split()

_KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}

_FAINT = """
(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => colour.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = numbers(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const each of document.querySelectorAll("WITHIN *")) {
    const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !each.checkVisibility() || ["SCRIPT", "STYLE", "NOSCRIPT", "OPTION"].includes(each.tagName)) continue;
    const style = getComputedStyle(each), colour = each.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(numbers(colour)), light(ground(each))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${contrast.toFixed(1)} ${each.outerHTML.slice(0, 120)}`);
  }
  return found;
})()
"""


class Page:
    """One page of a browser. What it does wrong is in `problems`."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO) -> None:
        self._reading, self._writing = reading, writing
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        self._loaded, self._address = False, "about:blank"
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
            (self._address, "http://127.0.0.1:", "data:", "blob:")
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
        self.problems, self._loaded, self._address = [], False, url
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

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"not true after {seconds} s: {script}"
            time.sleep(0.05)
        return value

    def _place(self, selector: str, across: float = 0.5, down: float = 0.5) -> dict[str, float]:
        """Scroll to an element; the place in the window at these shares of its width and height."""
        found = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            f" return [b.left + {across} * b.width, b.top + {down} * b.height]; }})()"
        )
        assert found, f"nothing on the page is {selector}"
        return dict(x=found[0], y=found[1])

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Click into an element, at shares of its width and height."""
        place = self._place(selector, across, down)
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def hover(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Point into an element, at shares of its width and height."""
        self.do("Input.dispatchMouseEvent", type="mouseMoved", **self._place(selector, across, down))

    def press(self, key: str) -> None:
        """Press a key."""
        about = dict(key=key, code=key, windowsVirtualKeyCode=_KEYS[key])
        self.do("Input.dispatchKeyEvent", type="keyDown", text="\r" if key == "Enter" else "", **about)
        self.do("Input.dispatchKeyEvent", type="keyUp", **about)

    def choose(self, selector: str, value: str) -> None:
        """Choose a value of a `<select>`."""
        found = f"document.querySelector({json.dumps(selector)})"
        change = "dispatchEvent(new Event('change', {bubbles: true}))"
        assert self.run(f"({found}.value = {json.dumps(value)}, {found}.{change}, {found}.value)") == value

    def upload(self, selector: str, *files: pathlib.Path) -> None:
        """Choose files in a file input."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def downloads(self, folder: pathlib.Path) -> None:
        """Put what is downloaded into a folder."""
        self.do("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def downloaded(self, path: pathlib.Path, seconds: float = 30) -> bytes:
        """Wait for a download, and return what it holds."""
        end = time.monotonic() + seconds
        while not path.exists():
            assert time.monotonic() < end, f"{path.name} did not come; there are {os.listdir(path.parent)}"
            time.sleep(0.05)
        return path.read_bytes()

    def picture(self, path: pathlib.Path, *, whole: bool = False) -> None:
        """Save a picture of the window, or of the whole page."""
        answer = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def nameless(self) -> list[str]:
        """The roles of controls and pictures that a screen reader has no name for."""
        self.do("Accessibility.enable")
        nodes = self.do("Accessibility.getFullAXTree")["nodes"]
        named = ("button", "link", "checkbox", "combobox", "slider", "textbox", "img", "tab")
        of = [(each.get("role", {}).get("value"), each.get("name", {}).get("value")) for each in nodes]
        return [role for role, name in of if role in named and not (name or "").strip()]

    def faint(self, within: str = "body") -> list[str]:
        """Texts whose contrast with the ground behind them is below 4.5, the least that WCAG 2.2 (AA) allows."""
        return self.run(_FAINT.replace("WITHIN", within))


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
