"""What a fresh process takes: the time to its first map, or the peak of its memory. Started by engine.py.

    python tests/bench/fresh.py TASK SIDE NETWORK LAYER --weights FOLDER --image image.npy --label L ...

TASK is grad_cam, ss_cam (time) or memory; SIDE is independent, common (ours), torchcam or by_hand. Prints JSON.
"""

import argparse
import ctypes
import json
import pathlib
import re
import time

import numpy as np

BATCH, MEMORY_SAMPLES = 32, 2  # torchcam's batch as shipped; two samples, so that what outlives a sample is seen


def resident(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024


def ours(arguments: argparse.Namespace, images: np.ndarray):
    import jax
    import jax_sides

    import sscam_jax as sscam

    apply, params = jax_sides.load(arguments.network, arguments.weights)
    if arguments.channels:
        apply = jax_sides.some(apply, arguments.channels)
    images = jax.numpy.asarray(images)

    def grad_cam(params=params):
        return jax.block_until_ready(sscam.grad_cam(apply, params, images, [arguments.label]))

    def ss_cam(params=params, samples=arguments.samples, chunk_size=None):
        options = dict(preset="torchcam", n_samples=samples, noise=arguments.side, chunk_size=chunk_size)
        return sscam.ss_cam(apply, params, images, [arguments.label], key=jax.random.key(0), **options)

    def before_memory() -> None:
        jax.jit(apply)(params, images).block_until_ready()
        ss_cam(jax.tree.map(jax.numpy.zeros_like, params), MEMORY_SAMPLES, BATCH)  # compiles, scores nothing

    device = jax.devices()[0]
    stats = None if device.platform == "cpu" else lambda: device.memory_stats()
    used = stats and (lambda: stats()["bytes_in_use"])
    peak = stats and (lambda: stats()["peak_bytes_in_use"])
    return grad_cam, ss_cam, before_memory, lambda: ss_cam(samples=MEMORY_SAMPLES, chunk_size=BATCH), used, peak


def theirs(arguments: argparse.Namespace, images: np.ndarray):
    import torch
    import torch_sides

    file = arguments.weights / f"{arguments.network}.pth"
    network = torch_sides.load(arguments.network, torch.load(file, weights_only=True) if file.exists() else None)
    cut = torch_sides.Cut(network, arguments.layer, arguments.channels)
    x, label = torch_sides.image_tensor(images), arguments.label

    def grad_cam():
        return torch_sides.torchcam_map("GradCAM", network, arguments.layer, x, label)

    def ss_cam(samples=arguments.samples):
        if arguments.side == "by_hand":
            return torch_sides.by_hand(cut, cut, x, label, samples, BATCH)
        options = dict(num_samples=samples, std=torch_sides.STD, batch_size=BATCH)
        return torch_sides.torchcam_map("SSCAM", cut, "target", x, label, **options)

    @torch.inference_mode()
    def before_memory() -> None:
        cut(x)
        if used:
            torch.cuda.reset_peak_memory_stats()

    used, peak = (torch.cuda.memory_allocated, torch.cuda.max_memory_allocated) if x.is_cuda else (None, None)
    return grad_cam, ss_cam, before_memory, lambda: ss_cam(MEMORY_SAMPLES), used, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["grad_cam", "ss_cam", "memory"])
    parser.add_argument("side", choices=["independent", "common", "torchcam", "by_hand"])
    parser.add_argument("network")
    parser.add_argument("layer")
    parser.add_argument("--weights", type=pathlib.Path, required=True)
    parser.add_argument("--image", type=pathlib.Path, required=True, help="the prepared image, .npy")
    parser.add_argument("--label", type=int, required=True)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--channels", type=int, nargs="*", help="channels of the target layer; all of them by default")
    parser.add_argument("--started", type=float, default=time.time(), help="when the clock began, in seconds")
    arguments = parser.parse_args()
    side = ours if arguments.side in ("independent", "common") else theirs
    grad_cam, ss_cam, before_memory, run, used, peak = side(arguments, np.load(arguments.image))
    if arguments.task != "memory":
        dict(grad_cam=grad_cam, ss_cam=ss_cam)[arguments.task]()
        print(json.dumps(dict(seconds=time.time() - arguments.started)))
        return
    before_memory()
    # The peak so far (imports, loading, compilation) is the process's; from here on it is the run's.
    so_far = resident("VmHWM")  # not getrusage's ru_maxrss, which also knows the process that started this one
    # What was freed and is kept for later would hide what the run takes.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = used() if used else resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the resident peak
    run()
    after = peak() if peak else resident("VmHWM")
    print(json.dumps(dict(run=after - before, process=max(so_far, resident("VmHWM")))))


if __name__ == "__main__":
    main()
