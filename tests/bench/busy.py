"""How much longer Score-CAM takes on one and two CPU devices beside busy processes: prints ratios.

    python tests/bench/busy.py --weights FOLDER --busy 0 1 2 --rounds 5

Each round runs every number of devices beside every number of busy processes in turn, so that what else the machine
does falls on all of them alike.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

import sscam_jax as sscam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="a folder of checkpoints, MODEL.pth")
    parser.add_argument("--model", default="squeezenet1_1")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=128)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 2)
    apply, params = sscam.load(options.model, checkpoint=options.weights / f"{options.model}.pth")
    images = jax.random.normal(jax.random.key(0), (1, 224, 224, 3), jnp.float32)
    labels = jnp.array([1])
    places = {1: None, 2: jax.devices()[:2]}

    def seconds(devices: int) -> float:
        began = time.perf_counter()
        found = sscam.score_cam(apply, params, images, labels, devices=places[devices], budget=options.budget)
        jax.block_until_ready(found.maps)
        return time.perf_counter() - began

    for devices in places:
        seconds(devices)  # compiles
    taken: dict[tuple[int, int], list[float]] = {(d, b): [] for d in places for b in options.busy}
    for _ in range(options.rounds):
        for busy in options.busy:
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            for devices in places:
                taken[devices, busy].append(seconds(devices))
            for other in others:
                other.kill()
                other.wait()
    print(
        "| devices | busy processes | seconds, median | largest | times longer than with none |\n|---|---|---|---|---|"
    )
    for (devices, busy), found in taken.items():
        alone = statistics.median(taken[devices, options.busy[0]])
        middle = statistics.median(found)
        print(f"| {devices} | {busy} | {middle:.2f} | {max(found):.2f} | {middle / alone:.2f} |")


if __name__ == "__main__":
    main()
