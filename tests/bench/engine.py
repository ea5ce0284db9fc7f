"""Speed and memory of SS-CAM, Score-CAM and Grad-CAM beside torchcam, pytorch-grad-cam and a PyTorch loop by hand.

    python tests/bench/engine.py --weights FOLDER --image FILE [--models resnet18 squeezenet1_0 vgg16]
        [--rounds 3] [--samples 10] [--channels N] [--full] [--speed-only] [--cpu-devices N] [--out DIR]

needs this package, torch, torchcam==0.5.0 and grad-cam==1.5.7 (torchvision may be missing), and writes engine.json
and engine.md. FOLDER holds resnet18.pth and squeezenet1_0.pth; a network without a file gets random weights.

All sides run in one process on the same weights and image, one after the other in each round, after a warm-up, and
but for the rows "preset paper" they compute the same thing: torchcam's reading of SS-CAM (noise of standard deviation
2 on the mask, the mean of N logits). --channels restricts every side to the first channels that are not constant, so
that all do the same number of passes. Without it the others also score the constant channels, which we skip. Give a
multiple of 64: torchcam's batches hold channels, not samples. Measure on a quiet machine: another busy process slows
PyTorch, which splits its work evenly over the cores, more than it slows JAX.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["TQDM_DISABLE"] = "1"  # pytorch-grad-cam draws progress bars
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # on a GPU both sides share the memory
import jax  # noqa: E402
import jax_sides  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_sides  # noqa: E402
from table import SHIPPED, table  # noqa: E402

import sscam_jax as sscam  # noqa: E402
from sscam_jax import convert  # noqa: E402
from sscam_jax.convert import RULES  # noqa: E402

HERE = pathlib.Path(__file__).parent
GRAD_CAM_REPEATS = 5  # within a round, for it takes milliseconds
ON_GPU = torch_sides.DEVICE.type == "cuda"
# Score-CAM draws no noise, so that torchcam's map and ours are the same; TF32 on a GPU is coarser.
AGREEMENT = 0.05 if ON_GPU else 1e-3
TUNED, BY_HAND, PGC = "torchcam tuned", "torch by hand, common noise", "pytorch-grad-cam"


class Side:
    """One row: what is run, how many forward passes it does, and the seconds of every round."""

    def __init__(self, method: str, name: str, passes: int, run, note: str = "", repeats: int = 1) -> None:
        self.method, self.name, self.passes, self.note = method, name, passes, note
        self.run, self.repeats, self.result = run, repeats, None
        self.seconds: list[float] = []

    def measure(self) -> None:
        times = []
        for _ in range(self.repeats):
            began = time.perf_counter()
            self.result = self.run()
            # The floor times itself: its last chunk may hold more passes than are asked for.
            times.append(self.result if isinstance(self.result, float) else time.perf_counter() - began)
        self.seconds.append(statistics.median(times))
        print(f"  {self.method:22} {self.name:45} {self.seconds[-1]:9.3f} s", flush=True)


class Network:
    """One network on both sides, its rows, and what was found on the way."""

    def __init__(self, name: str, arguments: argparse.Namespace, images: jax.Array) -> None:
        self.name, self.arguments, self.images = name, arguments, images
        [self.layer] = [model.default_layer for model in sscam.models() if model.name == name]
        self.whole, self.params = jax_sides.load(name, arguments.weights)
        self.random = not (arguments.weights / f"{name}.pth").exists()
        self.label = int(np.argmax(self.whole(self.params, images)))
        self.all, live = jax_sides.channels(self.whole, self.params, images)
        self.live = len(live)
        self.channels = live[: arguments.channels] if arguments.channels else None
        self.apply = self.whole if self.channels is None else jax_sides.some(self.whole, self.channels)
        self.devices = jax.devices() if len(jax.devices()) > 1 else None
        tensors = convert.flax_to_torchvision(self.params, RULES[name])
        self.network, self.tuned = (torch_sides.load(name, tensors) for _ in range(2))
        self.tuned.to(memory_format=torch.channels_last)
        self.x = torch_sides.image_tensor(np.asarray(images))
        self.compile_seconds: dict[str, float] = {}
        self.sides: list[Side] = []

    def add(self, method: str, name: str, passes: int, function, *args, note: str = "", repeats: int = 1, **options):
        self.sides.append(Side(method, name, passes, functools.partial(function, *args, **options), note, repeats))

    def add_ours(self, method: str, name: str, passes: int, function, *args, repeats: int = 1, **options) -> None:
        """Compiles it first."""
        call = functools.partial(function, *args, **options)
        self.compile_seconds[f"{method}, {name}"] = jax_sides.compile_seconds(call, self.params)
        self.add(method, name, passes, call, self.params, repeats=repeats)

    def ss_cam(self, apply: sscam.Apply, params, **options) -> sscam.Saliency:
        shared = dict(key=jax.random.key(0), n_samples=self.arguments.samples, devices=self.devices)
        return sscam.ss_cam(apply, params, self.images, [self.label], **shared, **options)

    def score_cam(self, params, **options) -> sscam.Saliency:
        return sscam.score_cam(
            self.apply, params, self.images, [self.label], preset="torchcam", devices=self.devices, **options
        )

    def grad_cam(self, params) -> sscam.Saliency:
        return jax.block_until_ready(sscam.grad_cam(self.whole, params, self.images, [self.label]))

    def prepare(self) -> None:
        """All rows, compiled and warm."""
        samples, label, x = self.arguments.samples, self.label, self.x
        ours, theirs = (len(self.channels),) * 2 if self.channels else (self.live, self.all)
        for precision in ("float32", "bfloat16") if ON_GPU else ("float32",):
            suffix = f", {precision}" if ON_GPU else ""
            for preset in ("torchcam", "paper"):
                for noise in ("independent", "common"):
                    name = f"ours, {noise} noise{suffix}" + (", preset paper" if preset == "paper" else "")
                    options = dict(preset=preset, noise=noise, precision=precision)
                    self.add_ours("SS-CAM", name, ours * samples, self.ss_cam, self.apply, **options)
            floor = jax_sides.Floor(self.whole, self.params, self.images, jax.devices(), precision)
            note = f"chunk {floor.chunk}"
            self.add("SS-CAM", f"floor{suffix}", ours * samples, floor.seconds, ours * samples, note=note)
            self.add_ours("Score-CAM", f"ours{suffix}", ours, self.score_cam, precision=precision)
            self.add("Score-CAM", f"floor{suffix}", ours, floor.seconds, ours, note=note)

        shipped = torch_sides.Cut(self.network, self.layer, self.channels)
        tuned = torch_sides.Cut(self.tuned, self.layer, self.channels)
        fast_x = x.contiguous(memory_format=torch.channels_last)
        batch = torch_sides.best_batch(self.tuned, fast_x, theirs)
        run, how = torch_sides.compiled(self.tuned, fast_x)
        own_batch = torch_sides.best_batch(run, fast_x, theirs, autocast=True)
        torchcam, pgc = torch_sides.torchcam_map, torch_sides.pytorch_grad_cam_map
        drawn = dict(num_samples=samples, std=torch_sides.STD)
        shipped_ss = functools.partial(torchcam, "SSCAM", shipped, "target", x, label, **drawn)
        tuned_ss = functools.partial(torchcam, "SSCAM", tuned, "target", fast_x, label, batch_size=batch, **drawn)
        by_hand = functools.partial(torch_sides.by_hand, tuned, run, fast_x, label, samples, own_batch)
        self.add("SS-CAM", SHIPPED, theirs * samples, shipped_ss, note="batch 32")
        self.add("SS-CAM", TUNED, theirs * samples, tuned_ss, note=f"channels_last, batch {batch}")
        self.add("SS-CAM", BY_HAND, theirs * samples, by_hand, note=f"{how}, batch {own_batch}")
        self.add("Score-CAM", SHIPPED, theirs, torchcam, "ScoreCAM", shipped, "target", x, label, note="batch 32")
        self.add("Score-CAM", PGC, theirs, pgc, "ScoreCAM", shipped, shipped.target, x, label, note="batch 16")
        with torch.inference_mode():
            for module, inputs in ((self.network, x), (self.tuned, fast_x)):
                module(inputs.expand(16, *x.shape[1:]))

        repeats = GRAD_CAM_REPEATS
        layer = self.network.get_submodule(self.layer)
        self.add_ours("Grad-CAM", "ours", 1, self.grad_cam, repeats=repeats)
        self.add("Grad-CAM", SHIPPED, 1, torchcam, "GradCAM", self.network, self.layer, x, label, repeats=repeats)
        self.add("Grad-CAM", PGC, 1, pgc, "GradCAM", self.network, layer, x, label, repeats=repeats)

    def run_full(self) -> None:
        """The whole image once, whatever --channels says: we skip constant channels, torchcam does not."""
        first, samples, method = len(self.sides), self.arguments.samples, "SS-CAM, whole image"
        for noise in ("independent", "common"):
            options = dict(preset="torchcam", noise=noise)
            self.add_ours(method, f"ours, {noise} noise", self.live * samples, self.ss_cam, self.whole, **options)
        options = dict(num_samples=samples, std=torch_sides.STD, note="batch 32")
        args = ("SSCAM", self.network, self.layer, self.x, self.label)
        self.add(method, SHIPPED, self.all * samples, torch_sides.torchcam_map, *args, **options)
        for side in self.sides[first:]:
            side.measure()

    def agreement(self) -> dict[str, float]:
        """Largest differences between torchcam's maps, in [0, 1], and ours; SS-CAM's noise differs by its draw."""
        suffix = ", float32" if ON_GPU else ""
        results = {(side.method, side.name): side.result for side in self.sides}
        found = {}
        for method, name in (
            ("Score-CAM", f"ours{suffix}"),
            ("SS-CAM", f"ours, independent noise{suffix}"),
            ("SS-CAM", f"ours, common noise{suffix}"),
        ):
            ours = jax_sides.low_resolution(results[method, name])
            found[f"{method}, {name}"] = float(np.abs(ours - results[method, SHIPPED]).max())
        by_hand = results["SS-CAM", BY_HAND] - results["SS-CAM", SHIPPED]
        found[f"SS-CAM, {BY_HAND}"] = float(np.abs(by_hand).max())
        if found[f"Score-CAM, ours{suffix}"] > AGREEMENT:
            raise SystemExit(f"{self.name}: Score-CAM differs from torchcam's by more than {AGREEMENT}: {found}")
        return found

    def fresh(self, task: str, side: str) -> dict[str, float]:
        """fresh.py in a process of its own."""
        with tempfile.TemporaryDirectory() as folder:
            image = pathlib.Path(folder) / "image.npy"
            np.save(image, np.asarray(self.images))
            command = [sys.executable, HERE / "fresh.py", task, side, self.name, self.layer]
            command += ["--weights", self.arguments.weights, "--image", image, "--label", self.label]
            command += ["--samples", self.arguments.samples]
            if self.channels and task == "ss_cam":
                command += ["--channels", *self.channels]
            command += ["--started", time.time()]
            done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True)
        answer = json.loads(done.stdout.splitlines()[-1])
        print(f"  fresh process, {task}, {side}: {answer}", flush=True)
        return answer

    def report(self) -> dict:
        found = dict(
            network=self.name,
            layer=self.layer,
            random_weights=self.random,
            label=self.label,
            channels=self.all,
            not_constant=self.live,
            restricted_to=self.channels and len(self.channels),
            sides=[
                dict(method=side.method, side=side.name, passes=side.passes, seconds=side.seconds, note=side.note)
                for side in self.sides
            ],
            compile_seconds=self.compile_seconds,
            largest_difference_from_torchcam=self.agreement(),
        )
        if not self.arguments.speed_only:
            tasks, sides = ("grad_cam", "ss_cam"), ("independent", "common", "torchcam", "by_hand")
            found["first_result"] = {task: {side: self.fresh(task, side) for side in sides[1:3]} for task in tasks}
            found["memory"] = {side: self.fresh("memory", side) for side in sides}
        if ON_GPU:
            found["flops_a_pass"] = jax_sides.pass_flops(self.whole, self.params, self.images)
        return found


def machine() -> dict:
    names = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    packages = ("jax", "flax", "numpy", "torch", "torchcam", "grad-cam")
    return dict(
        cpu=names[0] if names else platform.processor(),
        cores=len(os.sched_getaffinity(0)),
        load_before=os.getloadavg()[0],
        gpu=torch.cuda.get_device_name() if ON_GPU else None,
        jax_devices=[str(device) for device in jax.devices()],
        torch_threads=torch.get_num_threads(),
        versions=dict(python=platform.python_version(), sscam_jax=sscam.__version__)
        | {name: importlib.metadata.version(name) for name in packages},
        matrix_peak=jax_sides.matrix_peak() if ON_GPU else None,
    )


def write(path: pathlib.Path, text: str) -> None:
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    os.replace(beside, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=pathlib.Path, required=True, help="folder of NETWORK.pth files")
    parser.add_argument("--image", type=pathlib.Path, required=True)
    parser.add_argument("--models", nargs="+", default=["resnet18", "squeezenet1_0", "vgg16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=10, help="N of SS-CAM")
    parser.add_argument("--channels", type=int, help="score this many channels only; a multiple of 64")
    parser.add_argument("--full", action="store_true", help="also one SS-CAM of the whole image a network")
    parser.add_argument("--cpu-devices", type=int, default=1, help="JAX devices that share the CPU")
    parser.add_argument("--speed-only", action="store_true", help="measure no cold starts and no memory")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."))
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.cpu_devices)
    arguments.out.mkdir(parents=True, exist_ok=True)
    images = sscam.preprocess(arguments.image)
    options = {
        name: value.name if isinstance(value, pathlib.Path) else value for name, value in vars(arguments).items()
    }
    report = dict(arguments=options, machine=machine(), networks=[])
    for name in arguments.models:
        print(name, flush=True)
        network = Network(name, arguments, images)
        network.prepare()
        for _ in range(arguments.rounds):
            for side in network.sides:
                side.measure()
        if arguments.full:
            network.run_full()
        report["networks"].append(network.report())
        write(arguments.out / "engine.json", json.dumps(report, indent=1))
        write(arguments.out / "engine.md", table(report))
    print(table(report))


if __name__ == "__main__":
    main()
