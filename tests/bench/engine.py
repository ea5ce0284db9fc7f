"""Speed and memory of SS-CAM, Score-CAM and Grad-CAM beside torchcam, pytorch-grad-cam and a PyTorch loop by hand.

    python tests/bench/engine.py --weights FOLDER --image FILE [--models resnet18 squeezenet1_0 vgg16]
        [--rounds 3] [--samples 10] [--channels N] [--full] [--cpu-devices N] [--out DIR]

needs this package, torch, torchcam==0.5.0 and grad-cam==1.5.7 (torchvision may be missing), and writes engine.json
and engine.md. FOLDER holds resnet18.pth and squeezenet1_0.pth; a network without a file gets random weights.

All sides run in one process on the same weights and image, one after the other in each round, after a warm-up. Each
side does the same number of forward passes: torchcam's reading of SS-CAM (noise of standard deviation 2 on the mask,
N samples, logits) of the same channels. --channels restricts all sides to the first channels that are not constant;
without it the others also score the constant ones, which we skip. Give a multiple of 64: torchcam's batches hold
channels, not samples.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # on a GPU both sides share the memory
import jax  # noqa: E402
import jax_sides  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch_sides  # noqa: E402

import sscam_jax as sscam  # noqa: E402
from sscam_jax import convert  # noqa: E402
from sscam_jax.convert.rules import RULES  # noqa: E402

HERE = pathlib.Path(__file__).parent
GRAD_CAM_REPEATS = 5  # within a round, for it takes milliseconds
# torchcam's Score-CAM draws no noise, so the two maps are the same; TF32 on a GPU is coarser.
AGREEMENT = 0.05 if torch.cuda.is_available() else 1e-3


class Side:
    """One row: what is run, how many forward passes it does, and the seconds of every round."""

    def __init__(self, method: str, name: str, passes: int, run, note: str = "", repeats: int = 1) -> None:
        self.method, self.name, self.passes, self.note = method, name, passes, note
        self.run, self.repeats, self.seconds, self.result = run, repeats, [], None

    def measure(self) -> None:
        times = []
        for _ in range(self.repeats):
            began = time.perf_counter()
            self.result = self.run()
            # The floor times itself: its last chunk may hold more passes than are asked for.
            times.append(self.result if isinstance(self.result, float) else time.perf_counter() - began)
        self.seconds.append(statistics.median(times))

    def report(self) -> dict:
        return dict(method=self.method, side=self.name, passes=self.passes, seconds=self.seconds, note=self.note)


class Bench:
    """Both sides of one network, ready to run."""

    def __init__(self, name: str, arguments: argparse.Namespace, images) -> None:
        self.name, self.arguments, self.images = name, arguments, images
        [model] = [model for model in sscam.models() if model.name == name]
        self.layer = model.default_layer
        self.whole, self.params = jax_sides.load(name, arguments.weights)
        self.real = (arguments.weights / f"{name}.pth").exists()
        self.label = int(np.argmax(self.whole(self.params, images)))
        live = jax_sides.live_channels(self.whole, self.params, images)
        self.channels = live[: arguments.channels] if arguments.channels else None
        self.ours = len(self.channels or live)
        self.theirs = len(self.channels) if self.channels else self.whole.features(self.params, images)[0].shape[-1]
        self.live = len(live)
        self.apply = self.whole if self.channels is None else jax_sides.load(name, arguments.weights, self.channels)[0]
        tensors = convert.flax_to_torchvision(self.params, RULES[name])
        self.cuts = [torch_sides.Cut(torch_sides.load(name, tensors), self.layer, self.channels) for _ in range(2)]
        self.x = torch_sides.image_tensor(np.asarray(images))
        devices = jax.devices()
        self.devices = devices if len(devices) > 1 else None
        self.compile = {}

    def ss_cam(self, apply, params=None, **options):
        common = dict(key=jax.random.key(jax_sides.SEED), n_samples=self.arguments.samples, devices=self.devices)
        params = self.params if params is None else params
        return sscam.ss_cam(apply, params, self.images, [self.label], **common, **options)

    def score_cam(self, params=None, **options):
        params = self.params if params is None else params
        options = dict(preset="torchcam", devices=self.devices) | options
        return sscam.score_cam(self.apply, params, self.images, [self.label], **options)

    def grad_cam(self, params=None):
        params = self.params if params is None else params
        return jax.block_until_ready(sscam.grad_cam(self.whole, params, self.images, [self.label]))

    def compiled(self, what: str, run):
        """`run`, compiled; the seconds that took are kept."""
        self.compile[what] = jax_sides.compile_seconds(run, self.params)
        return run

    def torchcam(self, method: str, cut, x, **options):
        return functools.partial(torch_sides.torchcam_map, method, cut, "target", x, self.label, **options)

    def sides(self) -> list[Side]:
        samples, cpu = self.arguments.samples, torch_sides.DEVICE.type == "cpu"
        shipped, tuned = self.cuts
        fast_x = self.x.contiguous(memory_format=torch.channels_last)
        tuned.network.to(memory_format=torch.channels_last)
        batch = torch_sides.best_batch(tuned, fast_x, self.theirs)
        run, how = torch_sides.compiled(tuned.network, fast_x)
        hand_batch = torch_sides.best_batch(run, fast_x, self.theirs, autocast=True)
        ss = dict(num_samples=samples, std=torch_sides.STD)
        ours, theirs = self.ours * samples, self.theirs * samples
        precisions = ["float32"] if cpu else ["float32", "bfloat16"]

        found = []
        floors = {}
        for precision in precisions:
            suffix = "" if precision == "float32" else f", {precision}"
            floors[precision] = floor = jax_sides.Floor(
                self.whole, self.params, self.images, jax.devices(), precision
            )
            for preset in ("torchcam", "paper"):
                for noise in ("independent", "common"):
                    what = f"ours, {noise} noise{suffix}" + (", preset paper" if preset == "paper" else "")
                    options = dict(preset=preset, noise=noise, precision=precision)
                    call = self.compiled(what, functools.partial(self.ss_cam, self.apply, **options))
                    found.append(Side("SS-CAM", what, ours, call))
            note = f"chunk {len(floor.inputs)}"
            found.append(Side("SS-CAM", f"floor{suffix}", ours, functools.partial(floor.seconds, ours), note))
        hand = functools.partial(torch_sides.by_hand, tuned, run, fast_x, self.label, samples, hand_batch)
        tuned_note = f"channels_last, batch {batch}"
        found += [
            Side("SS-CAM", "torchcam as shipped", theirs, self.torchcam("SSCAM", shipped, self.x, **ss), "batch 32"),
            Side(
                "SS-CAM",
                "torchcam tuned",
                theirs,
                self.torchcam("SSCAM", tuned, fast_x, batch_size=batch, **ss),
                tuned_note,
            ),
            Side("SS-CAM", "torch by hand, common noise", theirs, hand, f"{how}, batch {hand_batch}"),
        ]

        for precision in precisions:
            suffix = "" if precision == "float32" else f", {precision}"
            call = self.compiled(f"Score-CAM{suffix}", functools.partial(self.score_cam, precision=precision))
            found.append(Side("Score-CAM", f"ours{suffix}", self.ours, call))
            floor = functools.partial(floors[precision].seconds, self.ours)
            found.append(Side("Score-CAM", f"floor{suffix}", self.ours, floor))
        pgc = functools.partial(
            torch_sides.pytorch_grad_cam_map, "ScoreCAM", shipped, shipped.target, self.x, self.label
        )
        found += [
            Side("Score-CAM", "torchcam as shipped", self.theirs, self.torchcam("ScoreCAM", shipped, self.x), "batch 32"),
            Side("Score-CAM", "pytorch-grad-cam", self.theirs, pgc, "batch 16"),
        ]

        network = shipped.network
        layer = network.get_submodule(self.layer)
        theirs_grad = functools.partial(
            torch_sides.torchcam_map, "GradCAM", network, self.layer, self.x, self.label
        )
        pgc_grad = functools.partial(
            torch_sides.pytorch_grad_cam_map, "GradCAM", network, layer, self.x, self.label
        )
        grad = self.compiled("Grad-CAM", self.grad_cam)
        for name, run in (("ours", grad), ("torchcam as shipped", theirs_grad), ("pytorch-grad-cam", pgc_grad)):
            run()
            found.append(Side("Grad-CAM", name, 1, run, repeats=GRAD_CAM_REPEATS))
        return found

    def full(self) -> list[Side]:
        """The whole image once: we skip the constant channels, torchcam does not."""
        samples = self.arguments.samples
        uncut = torch_sides.Cut(self.cuts[0].network, self.layer, None)
        theirs = uncut.network.get_submodule(self.layer)
        del theirs
        ss = dict(num_samples=samples, std=torch_sides.STD)
        found = []
        for noise in ("independent", "common"):
            call = functools.partial(self.ss_cam, self.whole, preset="torchcam", noise=noise)
            jax_sides.compile_seconds(call, self.params)
            found.append(Side("SS-CAM, whole image", f"ours, {noise} noise", self.live * samples, call))
        channels = self.whole.features(self.params, self.images)[0].shape[-1]
        call = self.torchcam("SSCAM", uncut, self.x, **ss)
        return [*found, Side("SS-CAM, whole image", "torchcam as shipped", channels * samples, call, "batch 32")]
