"""`sscam report`: photographs and run folders as one HTML file."""

import pathlib

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import sscam_jax as sscam
from sscam_jax import cli, data
from sscam_jax.cli import report
from sscam_jax.report import _network
from tests.evaluation.test_page import APPLY, PARAMS


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    """A network of four classes, whatever is asked for, cut at the layer that is asked for."""

    def load(model, checkpoint, layer, num_classes):
        about = dict(model="resnet18", checkpoint="own.pth", layer=layer or "layer4")
        return _network.Network(APPLY, PARAMS, about)

    monkeypatch.setattr(report, "prepare_jax", lambda: None)
    monkeypatch.setattr(_network, "load", load)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((32, 32)).save(folder / name)
    return folder


def _sscam(*args):
    return CliRunner().invoke(cli.app, ["report", *map(str, args)])


def test_photographs(photos, tmp_path):
    (photos / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "report.html"
    options = ["--method", "grad-cam", "--num-classes", 4, "--frames", 2, "--chunk-size", 8, "--class", 1]
    options += ["--layer", "layer3", "--layer", "layer4"]
    found = _sscam(photos, "--out", out, *options, "--expected", 1)
    (photos / "broken.png").unlink()
    assert found.exit_code == 1 and "broken.png is not an image" in found.stderr and "MB" in found.stdout
    text = out.read_text("utf-8")
    assert "a.png" in text and "b.png" in text and text.count('class="map"') == 4
    command = f"sscam report {photos} --model resnet18 --checkpoint own.pth --layer layer3 --layer layer4"
    settings = "--method grad-cam --class 1 --expected 1 --num-classes 4 --frames 2 --chunk-size 8"
    assert f"{command} {settings} --out report.html" in text


def test_a_run_folder(photos, tmp_path):
    batches = data.batches(data.source(f"folder:{photos}"), batch_size=2, size=32)
    sscam.evaluate(APPLY, PARAMS, batches, ["grad-cam"], ["insertion"], out=tmp_path / "run", target="predicted")
    out = tmp_path / "run.html"
    found = _sscam(tmp_path / "run", "--out", out)
    assert found.exit_code == 0, found.stderr
    assert "Best, typical and worst images" in out.read_text("utf-8")
    refused = _sscam(tmp_path / "run", "--out", out, "--data", f"folder:{photos}")
    assert refused.exit_code == 2 and "was not made by `sscam evaluate`" in refused.stderr


def test_a_run_of_the_command_line_finds_its_photographs(photos, tmp_path):
    from sscam_jax.evaluation import by_name

    source = data.subset(data.source(f"folder:{photos}"), 1, 0)
    batches = data.batches(source, batch_size=2, size=32, fit="squash")
    about = dict(model="resnet18", layer="layer4", limit=1)
    options = dict(out=tmp_path / "run", target="predicted", about=about)
    result = sscam.evaluate(APPLY, PARAMS, batches, ["grad-cam"], ["insertion"], **options)
    again = by_name.batches_again(result.stored.config, f"folder:{photos}")
    assert dict(again.about) == dict(batches.about)
    found = _sscam(tmp_path / "run", "--out", tmp_path / "run.html", "--data", f"folder:{photos}")
    assert found.exit_code == 0, found.stderr
    assert "data:image/jpeg;base64," in (tmp_path / "run.html").read_text("utf-8")


@pytest.mark.parametrize(
    "options,message",
    [
        (["--data", "folder:x"], "--data is for a run folder"),
        (["--out", "none/report.html"], "the folder of 'none/report.html' does not exist"),
        (["--full", "--budget", 3], "--full runs all passes, --budget 3 bounds them"),
        (["--class", "up", "--num-classes", 4], "class 'up' is not an index"),
    ],
)
def test_what_is_refused(photos, options, message):
    found = _sscam(photos, *options)
    assert found.exit_code == 2 and message in found.stderr
