"""The memory of the app's server over many requests: python -m tests.bench.app_memory [REQUESTS] [CLIENTS]."""

import pathlib
import sys
import tempfile

from tests import serving


def main(requests: int = 400, clients: int = 5) -> None:
    """Print the memory after every fifty requests, and how many answers had their map."""
    with tempfile.TemporaryDirectory() as folder, serving.serving(pathlib.Path(folder)) as (address, process):
        maps, memory = serving.visits(address, process, requests=requests, clients=clients)
    for done in range(50, requests + 1, 50):
        print(f"{done} requests: {memory[done - 1]:.0f} MiB")
    print(f"{sum(maps)} of {requests} answers have their map")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
