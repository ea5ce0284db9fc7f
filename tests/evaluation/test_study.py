"""`sscam evaluate` and `sscam table` on a small data set: resumed, shared, refused."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from sscam_jax import cli, convert, data, networks
from sscam_jax.cli import evaluate
from sscam_jax.evaluation import by_name, run_folder, study
from sscam_jax.types import IMAGENET_MEAN, IMAGENET_STD

pytest.importorskip("grain")
# In one process: the tests that start others, and those that look at one run.
pytestmark = pytest.mark.xdist_group("study")
CLASSES = 5
METRICS = ("average-drop", "energy")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "prepare_jax", lambda: None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """SqueezeNet 1.1 with random weights for five classes."""
    params = networks.init_params("squeezenet1_1", jax.random.key(0), num_classes=CLASSES)
    file = tmp_path_factory.mktemp("weights") / "random.safetensors"
    convert.write_checkpoint(file, convert.flax_to_torchvision(params, convert.RULES["squeezenet1_1"]))
    return file


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Five images with labels and boxes; one is damaged, one has neither label nor box."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = ["path,label,y0,x0,y1,x1"]
    for i in range(5):
        noise = rng.integers(0, 256, (5, 5, 3), np.uint8)
        Image.fromarray(noise).resize((96, 64 + 8 * i)).save(folder / f"{i}.png")
        lines.append(f"{i}.png," + ("," * 4 if i == 3 else f"{i % CLASSES},8,8,{40 + i},{50 + i}"))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    file = folder / "table.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def settings(table: pathlib.Path, weights: pathlib.Path, **changed: Any) -> by_name.Study:
    """What is quick: the first convolution's 64 channels, small images."""
    common: dict[str, Any] = dict(
        data=f"csv:{table}",
        model="squeezenet1_1",
        checkpoint=str(weights),
        num_classes=CLASSES,
        layer="features.0",
        methods=("grad-cam", "ss-cam:paper,n_samples=1,budget=4"),
        metrics=METRICS,
        size=64,
        batch_size=2,
    )
    return by_name.Study(**common | changed)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: pathlib.Path, weights: pathlib.Path) -> pathlib.Path:
    """A whole run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    by_name.run(settings(table, weights), out)
    return out


def _sscam(*args: object) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, args)))


def _refused(result: Any, *messages: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for message in messages:
        assert message in result.stderr


def test_the_folder_holds_everything(run):
    assert {each.name for each in run.iterdir()} >= {
        "config.json",
        "parts",
        "results.parquet",
        "table.md",
        "table.csv",
        "table.json",
        "gallery.png",
    }
    config = json.loads((run / "config.json").read_text())["fingerprint"]
    assert config["methods"]["ss-cam:paper,n_samples=1,budget=4"]["sigma"] == 4.0
    assert config["settings"]["seed"] == 0 and config["machine"]["versions"]["jax"] == jax.__version__
    assert config["data"]["fit"] == "squash" and config["params"]
    with Image.open(run / "gallery.png") as picture:
        assert min(picture.size) > 300


def test_the_table_says_what_was_measured(run, table):
    stored = run_folder.read(run)
    assert stored.results.names == ("0.png", "2.png", "4.png") and not stored.unfinished
    assert stored.results.metrics == METRICS
    assert stored.results.methods[:2] == ("grad-cam", "ss-cam:paper,n_samples=1,budget=4")
    written = (run / "table.md").read_text("utf-8")
    for text in ("`grad-cam`", "`fake-cam`", "Energy in the box", "1.png", "3.png", "n = 3"):
        assert text in written
    energy = stored.results.values[0, stored.results.methods.index("uniform"), :, 1]
    batches = data.batches(data.source(f"csv:{table}"), batch_size=5, size=64)
    [batch] = batches
    y0, x0, y1, x1 = np.moveaxis(np.asarray(batch.boxes)[[0, 2, 4], 0], -1, 0)
    np.testing.assert_allclose(energy, 100 * (y1 - y0) * (x1 - x0), rtol=1e-4)


def test_a_second_time_nothing_is_measured(run, table, weights, monkeypatch):
    parts = sorted(run.glob("parts/*.npz"))
    before = [each.stat().st_mtime_ns for each in parts]
    written = (run / "table.json").read_bytes()
    monkeypatch.setattr(run_folder.Run, "write", lambda *_: pytest.fail("a batch was measured again"))
    by_name.run(settings(table, weights), run)
    assert len(parts) == 3 and [each.stat().st_mtime_ns for each in parts] == before
    assert (run / "table.json").read_bytes() == written


def test_other_settings_are_refused_in_the_same_folder(run, table, weights):
    with pytest.raises(ValueError, match=r"another configuration \(settings.seed: 0 there, 1 now; "):
        by_name.run(settings(table, weights, seed=1), run)
    with pytest.raises(ValueError, match="data.fit: squash there, crop now"):
        by_name.run(settings(table, weights, fit="crop"), run)
    with pytest.raises(ValueError, match="methods.grad-cam: .* there, none now"):
        by_name.run(settings(table, weights, methods=("layer-cam",)), run)


def test_another_baseline_changes_the_differences_alone(run):
    result = _sscam("table", "--out", run, "--baseline", "uniform")
    assert result.exit_code == 0 and "Paired differences to `uniform`" in result.output
    _refused(_sscam("table", "--out", run, "--baseline", "cam"), "baseline 'cam' is not among the methods")
    assert _sscam("table", "--out", run).exit_code == 0


def test_wrong_input_is_refused_in_one_line(tmp_path, table, weights):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    out = ("--out", tmp_path / "out")
    _refused(_sscam("evaluate", "--data", "imagenet:x", *out), "data set 'imagenet:x' is of no known kind")
    _refused(_sscam("evaluate", "--data", f"folder:{folder}", *out), "has no labels", "--target predicted")
    one = ("evaluate", "--data", f"folder:{folder}", "--target", "predicted", *out)
    _refused(_sscam(*one, "--metrics", "energy"), "metric 'energy' needs boxes, which 'folder' does not have")
    _refused(_sscam(*one, "--metrics", "drop"), "metric 'drop' is not known")
    _refused(_sscam(*one, "--methods", "grad"), "method 'grad' is not known")
    _refused(_sscam(*one, "--process", "1"), "process 1 is not one of 1")
    _refused(_sscam("table", "--out", tmp_path), "is not a run folder")
    assert not (tmp_path / "out").exists()


def test_the_mean_and_std_of_the_network_reach_the_images(tmp_path, table, weights, monkeypatch):
    def seen(source, **options):
        raise ValueError(f"mean {options['mean']}, std {options['std']}")

    monkeypatch.setattr(by_name.data, "batches", seen)
    one = ("evaluate", "--data", f"csv:{table}", "--out", tmp_path / "out", "--checkpoint", weights)
    more = ("--model", "squeezenet1_1", "--num-classes", CLASSES)
    _refused(_sscam(*one, *more, "--mean", ".5 .4 .3", "--std", "1 1 2"), "mean [0.5, 0.4, 0.3], std [1.0, 1.0, 2.0]")
    _refused(_sscam(*one, *more), f"mean {IMAGENET_MEAN}, std {IMAGENET_STD}")
    _refused(_sscam(*one, *more, "--mean", "half"), "mean 'half' is not a number")


def test_classes_that_the_network_lacks_are_refused(assets, tmp_path):
    result = _sscam("evaluate", "--data", f"voc2007:{assets}/VOCdevkit", "--out", tmp_path / "out")
    _refused(result, "has 20 classes, the network knows 1000", "--target predicted")


def _command(out: pathlib.Path, table: pathlib.Path, weights: pathlib.Path, *more: object) -> list[str]:
    method = ("--methods", "grad-cam ss-cam:paper,n_samples=2,budget=12", "--metrics", " ".join(METRICS))
    network = ("--model", "squeezenet1_1", "--checkpoint", weights, "--num-classes", CLASSES, "--layer", "features.0")
    given = ("evaluate", "--data", f"csv:{table}", "--out", out, "--batch-size", 1, *network, *method, *more)
    return [sys.executable, "-c", "from sscam_jax.cli import main; main()", *map(str, given)]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which processes share their compilations, and look the same as on any machine."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    return os.environ | dict(JAX_COMPILATION_CACHE_DIR=folder, JAX_PLATFORMS="cpu")


def _results(out: pathlib.Path) -> run_folder.Results:
    return run_folder.read(out).results


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, table, weights, compiled) -> pathlib.Path:
    """The run of one process that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(_command(folder, table, weights), check=True, env=compiled, stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.slow  # tests/reliability kills a smaller run
def test_killed_at_any_moment_it_goes_on_to_the_same_table(tmp_path, whole, table, weights, compiled):
    broken = tmp_path / "broken"
    for number in range(2):
        process = subprocess.Popen(_command(broken, table, weights), env=compiled, stdout=subprocess.DEVNULL)
        part = broken / "parts" / f"{number:06}.npz"
        while not part.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = len(list(broken.glob("parts/[0-9]*.npz")))
    assert 2 <= done < 5, "it was to be killed half-way"
    subprocess.run(_command(broken, table, weights), check=True, env=compiled, stdout=subprocess.DEVNULL)
    for name in ("table.md", "table.csv", "table.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    np.testing.assert_array_equal(_results(broken).values, _results(whole).values)


@pytest.mark.slow
def test_processes_share_the_work_and_one_that_dies_comes_back(tmp_path, whole, table, weights, compiled):
    """Three processes; the last is killed after its first batch, and started again when the others are done."""
    out = tmp_path / "three"
    commands = [_command(out, table, weights, "--processes", 3, "--process", i) for i in range(3)]
    quiet: dict[str, Any] = dict(env=compiled, stdout=subprocess.DEVNULL)
    last = subprocess.Popen(commands[2], **quiet)
    while not (out / "parts" / "000002.npz").exists() and last.poll() is None:
        time.sleep(0.02)
    last.send_signal(signal.SIGKILL)
    last.wait()
    processes = [subprocess.Popen(command, **quiet) for command in commands[:2]]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert subprocess.run(commands[2], **quiet).returncode == 0
    for name in ("table.md", "table.csv", "table.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_four_lists_say_what_is_missing(tmp_path, table, weights):
    folder = table.parent
    rows = table.read_text().splitlines()
    wide = folder / "wide.csv"
    wide.write_text("\n".join([*rows[:-1], "4.png,4,8,0,40,2"]) + "\n")  # the crop leaves nothing of this box
    given = settings(wide, weights, data=f"csv:{wide}", methods=("grad-cam",), fit="crop", batch_size=1)
    by_name.run(given, tmp_path, process=(0, 2))
    content = json.loads((tmp_path / "table.json").read_text("utf-8"))
    assert content["unfinished"] == ["1.png", "3.png"]
    assert content["boxes_changed"][0].startswith("4.png (box 8, 0, 40, 2 (y0, x0, y1, x1) is outside the crop")
    by_name.run(given, tmp_path, process=(1, 2))
    content = json.loads((tmp_path / "table.json").read_text("utf-8"))
    assert content["unfinished"] == [] and content["unreadable"] == ["1.png"]
    assert content["without_class"] == ["3.png (the table has no box for it)"]


def test_a_result_is_a_table_a_record_and_a_figure(run):
    result = study.table(run)
    assert result.metrics == METRICS and result.methods[0] == "grad-cam"
    one = result["grad-cam", "energy"]
    values = result.stored.results.values[0, 0, :, 1]
    assert one.mean == pytest.approx(values.mean(), rel=1e-6) and np.isnan(one.low) and one.n == 3
    record = next(each for each in result.records() if (each["method"], each["metric"]) == ("grad-cam", "energy"))
    assert record["mean"] == one.mean
    assert repr(result) == (run / "table.md").read_text("utf-8")
    assert "<th>grad-cam</th>" in result._repr_html_()
    drawn = result.plot()
    assert len(drawn.axes) == len(METRICS) and len(drawn.axes[0].lines) == 2 * len(result.methods)
    with pytest.raises(ValueError, match="method 'gradcam' is not known; choose from 'grad-cam', "):
        result["gradcam", "energy"]
    with pytest.raises(ValueError, match="metric 'drop' is not known; choose from 'average-drop', 'energy'"):
        result["grad-cam", "drop"]
