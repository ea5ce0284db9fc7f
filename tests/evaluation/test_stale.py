"""Nothing stale: what could change a number is refused in words, and what can't is not."""

import functools
import json
import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from sscam_jax.evaluation import fingerprint, study
from tests import toy

pytestmark = pytest.mark.xdist_group("stale")
PARAMS = toy.on_device(toy.params())
N = 6
IMAGES = toy.images(batch=N)
LABELS = np.arange(N) % toy.CLASSES
BOXES = np.tile(np.float32([[[0.1, 0.2, 0.6, 0.9]]]), (N, 1, 1))


def batches(images=IMAGES, labels=LABELS, boxes=BOXES, batch_size=2, **options):
    return sscam.data.from_arrays(images, labels=labels, boxes=boxes, batch_size=batch_size, **options)


def evaluate(out, given=None, methods=("grad-cam",), names=("energy",), apply=toy.MLP, params=PARAMS, **options):
    return sscam.evaluate(apply, params, batches() if given is None else given, methods, names, out=out, **options)


def bright(apply, params, images, labels):
    return jnp.abs(images).max(-1) / jnp.abs(images).max()


def dark(apply, params, images, labels):
    return 1 - jnp.abs(images).max(-1) / jnp.abs(images).max()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that is done."""
    out = tmp_path_factory.mktemp("stale") / "run"
    return out, evaluate(out, methods={"mine": bright, "ss-cam": functools.partial(sscam.ss_cam, n_samples=1)})


def again(out, **changed):
    methods = {"mine": bright, "ss-cam": functools.partial(sscam.ss_cam, n_samples=1)}
    return evaluate(out, **dict(methods=methods) | changed)


def test_the_same_call_measures_nothing_again(whole, monkeypatch):
    out, found = whole
    monkeypatch.setattr(study.loop, "measure", lambda *_: pytest.fail("a batch was measured again"))
    assert again(out).records() == found.records()


# The pool of another network: the same layer's parameters, cut elsewhere.
OTHER_CUT = sscam.Apply(lambda p, x: ((toy.features(p, x)[0] @ p["hidden"]).clip(0), ()),
                        lambda p, a, carry: toy.mlp_out(p, a.mean((1, 2))))  # fmt: skip
CHANGED_LATE = IMAGES.copy()
CHANGED_LATE[-1] += 0.5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(given=batches(IMAGES + 0.1)), "images.first_batch"),
        (dict(given=batches(CHANGED_LATE)), "those of batch 2, which is measured, have changed since"),
        (dict(given=batches(labels=(LABELS + 1) % 4)), "images.first_batch"),
        (dict(given=batches(boxes=BOXES / 2)), "images.first_batch"),
        (dict(given=batches(mean=(0.5, 0.5, 0.5))), r"data.mean: \[0.485, 0.456, 0.406\] there, \[0.5, 0.5, 0.5\] now"),
        (dict(given=batches(batch_size=3)), "data.batch_size: 2 there, 3 now"),
        (dict(apply=OTHER_CUT), r"network.features: \w+ there, \w+ now; network.head: "),
        (dict(params={**PARAMS, "bias": PARAMS["bias"] + 1}), r"params: \w+ there, \w+ now"),
        (dict(methods={"mine": dark, "ss-cam": functools.partial(sscam.ss_cam, n_samples=1)}), "methods.mine.program"),
        (
            dict(methods={"mine": bright, "ss-cam": functools.partial(sscam.ss_cam, n_samples=1, sigma=99.0)}),
            "methods.ss-cam.program",
        ),
        (dict(seed=1), "settings.seed: 0 there, 1 now"),
        (dict(keys=2), "settings.keys: 1 there, 2 now"),
        (dict(target="predicted"), "settings.target: truth there, predicted now"),
        (dict(names=("complexity",)), "metrics.energy: .* there, none now"),
        (dict(about=dict(fit="crop")), "about.fit: none there, crop now"),
    ],
)
def test_what_could_change_a_number_is_refused_in_words(whole, changed, message):
    out, _ = whole
    before = sorted((each.name, each.stat().st_mtime_ns) for each in (out / "parts").iterdir())
    with pytest.raises(ValueError, match=message) as refused:
        again(out, **changed)
    assert "choose another folder. `sscam table --out` shows what this one holds" in str(refused.value)
    assert sorted((each.name, each.stat().st_mtime_ns) for each in (out / "parts").iterdir()) == before


def test_another_version_of_the_package_or_of_jax_is_refused(whole, monkeypatch):
    out, found = whole
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="source: .* there, other now"):
        patch.setattr(fingerprint, "source", lambda: "other")
        again(out)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="machine.versions.jax: .* there, 9 now"):
        patch.setattr(fingerprint, "version", lambda name: "9")
        again(out)
    assert study.table(out).records() == found.records()  # what is there can always be shown


def test_what_changes_no_number_is_not_refused(whole, tmp_path, monkeypatch):
    out, found = whole
    harmless = "--xla_force_host_platform_device_count=3 --xla_dump_to=/nowhere"
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {harmless}")
    monkeypatch.setattr(study.jax, "local_devices", lambda: study.jax.devices()[:2])
    out.rename(tmp_path / "moved")
    try:
        assert again(tmp_path / "moved", process=(0, 1)).records() == found.records()
    finally:
        (tmp_path / "moved").rename(out)


def test_a_changed_batch_size_after_two_batches(tmp_path, monkeypatch):
    """Two batches of 2 and a resumption in batches of 4 once gave 8 of 12 images, without a word."""
    real, done = study.loop.measure, []

    def stops(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study.loop, "measure", stops)
        evaluate(tmp_path)
    with pytest.raises(ValueError, match="data.batch_size: 2 there, 4 now"):
        evaluate(tmp_path, batches(batch_size=4))
    assert study.table(tmp_path).stored.unfinished == ["batch 2"]
    assert len(evaluate(tmp_path).stored.results.names) == N


def test_jax_distributed_tells_which_batches_are_whose(tmp_path, monkeypatch):
    monkeypatch.setattr(study.jax, "process_index", lambda: 1)
    monkeypatch.setattr(study.jax, "process_count", lambda: 2)
    assert evaluate(tmp_path).stored.unfinished == ["batch 0", "batch 2"]
    monkeypatch.setattr(study.jax, "process_index", lambda: 0)
    assert evaluate(tmp_path).stored.unfinished == []


def test_methods_on_the_host_are_told_apart_by_their_code_and_what_they_hold(tmp_path):
    def scaled(by):
        return lambda apply, params, images, labels: np.clip(np.abs(np.asarray(images)).max(-1) * by, 0, 1)

    evaluate(tmp_path, methods={"mine": scaled(0.1)})
    evaluate(tmp_path, methods={"mine": scaled(0.1)})
    with pytest.raises(ValueError, match=r"methods.mine.code: \w+ there, \w+ now"):
        evaluate(tmp_path, methods={"mine": scaled(0.2)})


def test_stored_maps_and_custom_metrics_are_told_apart(tmp_path):
    maps = np.random.default_rng(0).uniform(size=IMAGES.shape[:-1]).astype(np.float32)
    peak = {"peak": metrics.Metric(lambda case: case.maps.max((-2, -1)), "higher")}
    found = evaluate(tmp_path, methods=(), names=peak, maps=dict(theirs=maps))
    np.testing.assert_allclose(found["theirs", "peak"].mean, maps.max((1, 2)).mean(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"methods.theirs.maps: \w+ there, \w+ now"):
        evaluate(tmp_path, methods=(), names=peak, maps=dict(theirs=maps / 2))
    mean = {"peak": metrics.Metric(lambda case: case.maps.mean((-2, -1)), "higher")}
    with pytest.raises(ValueError, match=r"metrics.peak.program: \w+ there, \w+ now"):
        evaluate(tmp_path, methods=(), names=mean, maps=dict(theirs=maps))
    assert study.table(tmp_path).metrics == ("peak",)  # the folder knows the metric, whoever reads it


def test_code_is_the_same_in_every_process():
    assert fingerprint.code(functools.partial(bright, 1)) == fingerprint.code(functools.partial(bright, 1))
    assert fingerprint.code(bright) != fingerprint.code(dark)
    assert fingerprint.code(dict(a=np.zeros(2))) != fingerprint.code(dict(a=np.ones(2)))
    with pytest.raises(ValueError, match="a generator of .* cannot be hashed"):
        fingerprint.code(each for each in ())


HELPER = """
import abc, functools
WEIGHT = 1.0

def scaled(x):
    return WEIGHT * x
"""
METHOD = """
import helper

class Base(abc.ABC):
    def scale(self):
        return 1

class Mine(Base):
    power = 1

    def __init__(self, of):
        self.of = of

    @property
    def half(self):
        return 0.5

    def __call__(self, x):
        return self.of(x) ** self.power * self.half * self.scale()

def held(x):
    return helper.scaled(x)

method = Mine(held)
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WEIGHT * x", "WEIGHT / x"),
        ("WEIGHT = 1.0", "WEIGHT = 2.0"),
        ("power = 1", "power = 2"),
        ("return 0.5", "return 0.25"),
        ("return 1\n", "return 2\n"),
        ("return helper", "return 1 - helper"),
    ],
)
def test_code_reaches_into_modules_classes_and_objects(monkeypatch, old, new):
    """A pickle of an object, or a module's name, would not tell these apart."""

    def hashed(of):
        for name, text in (("helper", HELPER), ("method", "import abc" + METHOD)):
            module = types.ModuleType(name)
            monkeypatch.setitem(sys.modules, name, module)
            exec(compile(of(text), name, "exec"), vars(module))
        return fingerprint.code(module.method)

    assert old in HELPER + METHOD
    assert hashed(lambda text: "# a comment moves the lines\n" + text) == hashed(lambda text: text)
    assert hashed(lambda text: text.replace(old, new)) != hashed(lambda text: text)


def test_nested_values_are_told_apart():
    assert fingerprint.code(((1,), 2)) != fingerprint.code(((1, 2),))


def test_programs_tell_arrays_apart_that_jax_keeps_out_of_the_text():
    """With `jax_use_simplified_jaxpr_constants` JAX 0.12 writes programs without the arrays that they close over."""

    def program(array):
        inner = jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda i, y: y + array, x))
        traced = jax.jit(lambda x: inner(x) + 1).trace(jnp.zeros(3))
        same_text = types.SimpleNamespace(as_text=lambda: "the same text")
        return fingerprint.program(types.SimpleNamespace(lower=lambda: same_text, jaxpr=traced.jaxpr), inner)

    one, same, other = (program(jnp.arange(start, start + 3.0)) for start in (0.0, 0.0, 1.0))
    assert one == same != other


def test_the_configuration_is_plain_json(whole):
    config = json.loads((whole[0] / "config.json").read_text("utf-8"))
    assert config["fingerprint"]["settings"] == dict(seed=0, keys=1, target="truth")
    assert config["noted"]["methods"][:2] == ["mine", "ss-cam"]
