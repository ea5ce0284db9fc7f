"""`sscam ablate`: the claims on runs made up so that the answer is known, and one real run."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image
from typer.testing import CliRunner

from sscam_jax import cli, convert, networks
from sscam_jax.cli import ablate
from sscam_jax.evaluation import by_name, grid, grid_report, run_folder
from sscam_jax.evaluation.grid import HIGH, LOW, MORE
from sscam_jax.evaluation.loop import Part

GRID = grid.grid("paper", [4, 0.5], [8, 1])
METHODS = ("score-cam", "grad-cam", *GRID.specs(), "uniform", "mean-activation")
IMAGES, KEYS, SIDE = 12, 2, 5


def made_up(folder: pathlib.Path, energy: dict[str, float], weight: dict[float, float]) -> run_folder.Stored:
    """A run whose SS-CAM is `weight` Grad-CAM and the rest Score-CAM for each σ, with the energies given."""
    rng = np.random.default_rng(0)
    score, grad = rng.normal(size=(2, IMAGES, SIDE, SIDE))
    shape = (KEYS, len(METHODS), IMAGES)
    raw = np.full((*shape, SIDE, SIDE), np.nan, np.float32)
    values = np.full((*shape, 2), np.nan, np.float32)
    passes = np.zeros(shape, np.int32)
    for m, method in enumerate(METHODS):
        for r in range(KEYS if method in GRID.specs() else 1):
            if method in GRID.specs():
                share = weight[GRID.specs()[method][0]]
                raw[r, m] = (1 - share) * score + share * grad + 0.1 * rng.normal(size=score.shape)
            else:
                raw[r, m] = dict(zip(METHODS[:2], (score, grad), strict=True)).get(method, np.ones_like(score))
            values[r, m, :, 0] = energy.get(method, 50) + np.arange(IMAGES) + rng.normal(size=IMAGES)
            values[r, m, :, 1] = values[r, m, :, 0] / 40
            passes[r, m] = 1
    numbers = np.arange(IMAGES, dtype=np.int32)
    part = Part(
        columns=grid.ENERGIES,
        ids=numbers,
        labels=numbers,
        predicted=numbers,
        probability=np.full(IMAGES, 0.5, np.float32),
        single=numbers > 3,
        values=values,
        flat=(np.ptp(raw, axis=(-2, -1)) == 0),
        passes=passes,
        maps=tuple(raw[: 1 if m < 2 or m >= 2 + len(GRID.specs()) else KEYS, m] for m in range(len(METHODS))),
        skipped=np.zeros(0, np.int32),
    )
    noted = dict(methods=METHODS, names={str(i): f"{i}.png" for i in numbers}, batch_size=IMAGES, count=1)
    noted |= dict(settings={}, metrics={})
    with run_folder.Run(folder, {}, noted) as run:
        run.write(0, part, [], run_folder.Seal("", ""))
    return run_folder.read(folder)


MORE_ENERGY = {method: 50.0 + 2 * n for method, (_, n) in GRID.specs().items()}
AS_CLAIMED = {0.5: 0.1, 4.0: 0.9}


@pytest.fixture
def stored(tmp_path: pathlib.Path) -> run_folder.Stored:
    return made_up(tmp_path / "run", MORE_ENERGY, AS_CLAIMED)


def test_agreement_is_the_rank_correlation_of_the_drawn_maps(stored):
    results = grid.with_agreement(stored, SIDE)
    assert results.metrics == (*grid.ENERGIES, "to-score-cam", "to-grad-cam")
    np.testing.assert_array_equal(results.values[..., :2], stored.results.values)
    for m, method in enumerate(METHODS[:-2]):
        for r in range(KEYS):
            if method not in GRID.specs() and r == 1:
                assert np.isnan(results.values[r, m]).all()
                continue
            for i in range(IMAGES):
                kept = [stored.kept_maps(i, method) for method in METHODS]
                one, *references = (np.maximum(kept[of][at], 0).ravel() for at, of in ((r, m), (0, 0), (0, 1)))
                expected = [scipy.stats.spearmanr(one, reference).statistic for reference in references]
                np.testing.assert_allclose(results.values[r, m, i, 2:], expected, atol=1e-5)
    assert (results.values[0, METHODS.index("uniform"), :, 2:] == 0).all()


def test_maps_are_compared_at_the_inputs_resolution(stored):
    fine = grid.with_agreement(stored, 8 * SIDE).values[0, 0, :, 3]
    coarse = grid.with_agreement(stored, SIDE).values[0, 0, :, 3]
    assert (np.abs(fine - coarse) > 1e-3).all() and (np.abs(fine - coarse) < 0.6).all()


def test_claims_that_hold_are_held(stored):
    found = grid.analyse(stored, GRID, SIDE)
    assert found.verdicts == {LOW: "held", HIGH: "held", MORE: "held"}
    every, *more = [each for each in found.findings if each.claim.startswith(MORE)]
    assert every.claim == MORE and len(more) == 2
    assert every.difference == pytest.approx(np.mean([each.difference for each in more]))
    values = np.nanmean(stored.results.values[..., 0], axis=(0, 2))
    for each, sigma in zip(more, GRID.sigmas, strict=True):
        many, few = (values[METHODS.index(GRID.spec(sigma, n))] for n in (8, 1))
        assert each.difference == pytest.approx(many - few, abs=1e-4) and each.low < each.difference < each.high


LESS_ENERGY = {method: 100 - energy for method, energy in MORE_ENERGY.items()}
AS_DENIED = {0.5: 0.9, 4.0: 0.1}


def test_the_opposite_is_not_held(tmp_path):
    found = grid.analyse(made_up(tmp_path / "run", LESS_ENERGY, AS_DENIED), GRID, SIDE)
    assert found.verdicts == {LOW: "not held", HIGH: "not held", MORE: "not held"}


def test_images_that_disagree_tell_nothing(stored, tmp_path):
    other = made_up(tmp_path / "other", LESS_ENERGY, AS_DENIED)
    both = {
        name: np.concatenate([getattr(stored.results, name), getattr(other.results, name)], axis)
        for names, axis in ((("values", "flat", "passes"), 2), (("labels", "predicted", "single"), 0))
        for name in names
    }
    results = stored.results._replace(names=tuple(map(str, range(2 * IMAGES))), **both)
    both_places = [*stored.places, *other.places]
    found = grid.analyse(stored._replace(results=results, places=both_places), GRID, SIDE)
    assert set(found.verdicts.values()) == {"can't be told"}


def test_a_claim_holds_only_if_all_of_its_differences_do(tmp_path):
    # σ = 4 comes nearer to Grad-CAM, but stays nearer to Score-CAM.
    found = grid.analyse(made_up(tmp_path / "run", MORE_ENERGY, {0.5: 0.0, 4.0: 0.35}), GRID, SIDE)
    assert [each.verdict for each in found.findings if each.claim == HIGH] == ["held", "not held"]
    assert found.verdicts == {LOW: "held", HIGH: "not held", MORE: "held"}


def test_one_image_says_nothing(stored):
    one = stored.results._replace(
        names=stored.results.names[:1],
        **{name: getattr(stored.results, name)[:, :, :1] for name in ("values", "flat", "passes")},
    )
    one = one._replace(**{name: getattr(one, name)[:1] for name in ("labels", "predicted", "single")})
    found = grid.analyse(stored._replace(results=one), GRID, SIDE)
    assert set(found.verdicts.values()) == {"can't be told"}
    assert "[" not in grid_report.markdown(found).partition("## ")[2]
    assert json.loads(json.dumps(grid_report.document(found), allow_nan=False))["findings"][0]["low"] is None


def test_what_is_written_says_what_was_found(stored):
    found = grid.analyse(stored, GRID, SIDE)
    text, content = grid_report.markdown(found), grid_report.document(found)
    for line in ("* σ low: close to Score-CAM: **held**", "images: 12, of which 12 have boxes; noise keys: 2"):
        assert line in text
    assert "`uniform` 12" in text and "`score-cam` " not in text.partition("flat map")[2].partition("\n")[0]
    method = GRID.spec(4.0, 8)
    [record] = [each for each in content["records"] if (each["method"], each["column"]) == (method, "energy")]
    assert (record["sigma"], record["n_samples"], record["n"]) == (4.0, 8, IMAGES)
    row = next(line for line in text.partition("## Energy in the box")[2].splitlines() if line.startswith("| σ = 4 |"))
    assert row.endswith(f"| {record['mean']:.2f} [{record['low']:.2f}, {record['high']:.2f}] |")
    assert content["verdicts"] == found.verdicts and content["sigmas"] == (0.5, 4.0)


def test_the_figure_has_a_line_for_every_sigma_and_n(stored):
    found = grid.analyse(stored, GRID, SIDE)
    drawn = grid_report.draw(found)
    assert len(drawn.axes) == 8
    panel = drawn.axes[0]  # energy over σ
    place = found.methods.index(GRID.spec(0.5, 8)), 0
    assert panel.lines[1].get_ydata()[0] == found.means.values[place]
    assert [text.get_text() for text in drawn.axes[3].get_legend().get_texts()][:2] == ["N = 1", "N = 8"]
    assert [text.get_text() for text in drawn.axes[7].get_legend().get_texts()][:2] == ["σ = 0.5", "σ = 4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("paper", [1], [1, 2]), "at least two values of sigma, got 1: add another, or measure one"),
        (("paper", [1, 2], [4, 4]), "at least two values of samples, got 1"),
        (("paper", [-1, 2], [1, 4]), "sigma=-1 is not possible, expected at least 0"),
        (("paper", [float("nan"), 2], [1, 4]), "sigma=nan is not possible"),
        (("paper", [1, 2], [0, 4]), "samples=0 is not possible, expected at least 1"),
        (("paper,sigma=1", [1, 2], [1, 4]), "'sigma=1' of the preset is what an ablation varies"),
    ],
)
def test_grids_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        grid.grid(*arguments)


def _ablate(out: pathlib.Path, table: pathlib.Path, weights: pathlib.Path, *more: object):
    network = ("--model", "squeezenet1_1", "--checkpoint", weights, "--num-classes", 3, "--layer", "features.0")
    varied = ("--preset", "paper,budget=4", "--sigma", "0 2", "--samples", "1", "--samples", "2")
    given = ("ablate", "--data", f"csv:{table}", "--out", out, "--batch-size", 1, *network, *varied)
    return CliRunner().invoke(cli.app, list(map(str, (*given, *more))))


def test_a_real_run_is_measured_once(tmp_path, monkeypatch):
    pytest.importorskip("grain")
    monkeypatch.setattr(ablate, "prepare_jax", lambda: None)
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])  # quicker to compile for
    monkeypatch.setattr(by_name, "Study", functools.partial(by_name.Study, size=64))
    params = networks.init_params("squeezenet1_1", jax.random.key(0), num_classes=3)
    weights, table, out = tmp_path / "random.safetensors", tmp_path / "table.csv", tmp_path / "run"
    convert.write_checkpoint(weights, convert.flax_to_torchvision(params, convert.RULES["squeezenet1_1"]))
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (72, 72, 3), np.uint8)).save(tmp_path / f"{i}.png")
    table.write_text("path,label,y0,x0,y1,x1\n0.png,0,8,8,40,40\n1.png,2,8,8,50,30\n")

    result = _ablate(out, table, weights)
    assert result.exit_code == 0, result.output
    assert "The paper's claims" in result.stdout
    content = json.loads((out / "ablation.json").read_text("utf-8"))
    assert (content["images"], content["samples"]) == (2, [1, 2])
    tabled = json.loads((out / "table.json").read_text("utf-8"))["records"]
    means = {(each["method"], each["metric"]): each["mean"] for each in tabled if each["section"] == "All images"}
    energies = [each for each in content["records"] if each["column"] == "energy"]
    assert len(energies) == 2 + 4 + 5
    for each in energies:
        assert each["mean"] == means[each["method"], "energy"]
    with Image.open(out / "ablation.png") as picture:
        assert min(picture.size) > 500

    monkeypatch.setattr(run_folder.Run, "write", lambda *_: pytest.fail("a batch was measured again"))
    written = (out / "ablation.json").read_bytes()
    assert _ablate(out, table, weights).exit_code == 0
    assert (out / "ablation.json").read_bytes() == written
    refused = _ablate(out, table, weights, "--sigma", "8")
    assert refused.exit_code == 2 and "another configuration (methods.ss-cam:paper,budget=4,sigma=8.0" in refused.stderr
    assert "sigma 'x' is not a number" in _ablate(tmp_path / "new", table, weights, "--sigma", "x").stderr
