"""What an evaluation gives back: records, a data frame, and intervals that follow the metric's kind."""

import re
import shutil
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from sscam_jax.evaluation import study
from tests import toy

pytestmark = [pytest.mark.usefixtures("as_users_run_it"), pytest.mark.xdist_group("stale")]
N = 16
IMAGES, PARAMS = toy.images(batch=N), toy.on_device(toy.params())


def on_the_left(case):
    return jnp.where(case.maps.argmax(-1).max(-1) < 5, 100.0, 0.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Stored maps whose brightest pixel is on the left for three of four images."""
    maps = np.zeros(IMAGES.shape[:-1], np.float32)
    maps[np.arange(N), 2, np.where(np.arange(N) % 4, 1, 8)] = 1
    left = metrics.Metric(on_the_left, "higher", unit="%", hits=True)
    values = metrics.Metric(left.values, "higher", unit="%")
    out = tmp_path_factory.mktemp("result")
    batches = sscam.data.from_arrays(IMAGES, labels=np.arange(N) % 4, batch_size=8)
    sscam.evaluate(toy.MLP, PARAMS, batches, [], {"left": left, "as-values": values}, maps=dict(mine=maps), out=out)
    return out


def test_a_metric_of_ones_own_gets_the_interval_of_its_kind(run):
    """Twelve hits of sixteen: Agresti and Coull's interval, and Student's."""
    result = study.table(run)
    hit, value = result["mine", "left"], result["mine", "as-values"]
    assert hit.mean == value.mean == 75
    half = 1.959964 * (14 / 20 * 6 / 20 / 20) ** 0.5
    assert (hit.low, hit.high) == pytest.approx((100 * (0.7 - half), 100 * (0.7 + half)), rel=1e-5)
    assert abs(value.low - hit.low) > 1
    with pytest.raises(ValueError, match=r"result\['left'\] is not one mean, expected result\[method, metric\]: rec"):
        result["left"]


def test_the_folder_remembers_the_kind_and_another_kind_is_refused(run):
    left = metrics.Metric(on_the_left, "higher", unit="%")
    batches = sscam.data.from_arrays(IMAGES, labels=np.arange(N) % 4, batch_size=8)
    with pytest.raises(ValueError, match="metrics.left.hits: True there, False now"):
        sscam.evaluate(toy.MLP, PARAMS, batches, ["grad-cam"], {"left": left, "as-values": left}, out=run)


def test_the_data_frame_has_the_records(run):
    pandas = pytest.importorskip("pandas", reason="the extra frame is not installed")
    result = study.table(run)
    frame = result.frame()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(result.records())
    one = frame[(frame.method == "mine") & (frame.metric == "left")].iloc[0]
    assert one["mean"] == 75 and one["n"] == N and not one["control"]
    assert frame.pivot_table(index="method", columns="metric", values="mean").shape == (6, 2)


def test_without_pandas_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"package 'pandas' is not installed: run pip install '.\[frame\]'"):
        study.table(run).frame()


def test_a_notebook_escapes_names(tmp_path):
    peak = {"a<b": metrics.Metric(lambda case: case.maps.max((-2, -1)), "higher")}
    batches = sscam.data.from_arrays(IMAGES[:2], labels=np.array([0, 1]))
    shown = sscam.evaluate(toy.MLP, PARAMS, batches, {"<i>": "grad-cam"}, peak, out=tmp_path)._repr_html_()
    assert "<th>&lt;i&gt;</th>" in shown and "<th>a&lt;b ↑, n = 2</th>" in shown and shown.count("<table") == 1
    assert "nan" not in shown  # two images have no interval


def test_a_notebook_shows_the_marks_and_what_is_missing(run, tmp_path):
    """As the Markdown does: the best mean is bold, and a control that is as good has the sign."""
    shown = study.table(run)._repr_html_()
    assert "<th>mine</th><td><b>75.00 [49.92, 90.08]</b></td>" in shown
    assert re.search(r"<th>uniform \(control\)</th><td>100.00 \[\d\d.\d\d, 100.00\] ⚠</td>", shown)
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "parts" / "000001.npz").unlink()
    assert "1 images not measured yet: batch 1" in study.table(copied)._repr_html_()
