"""What can't be measured is refused before anything is written: field, value, expectation and remedy."""

import jax.numpy as jnp
import numpy as np
import pytest

import sscam_jax as sscam
from sscam_jax import metrics
from sscam_jax.evaluation import study
from tests import toy

pytestmark = [pytest.mark.usefixtures("as_users_run_it"), pytest.mark.xdist_group("stale")]
PARAMS = toy.on_device(toy.params())
N = 5
IMAGES = toy.images(batch=N)
LABELS = np.arange(N) % toy.CLASSES
MAPS = np.abs(IMAGES).max(-1) / 10
BATCH = sscam.Batch(IMAGES, LABELS.astype(np.int32), np.full((N, 1, 4), -1, np.float32), np.arange(N), np.full(N, True))


def evaluate(out, given=None, methods=("grad-cam",), names=("complexity",), params=PARAMS, **options):
    return sscam.evaluate(toy.MLP, params, [BATCH] if given is None else given, methods, names, out=out, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(names=["road2"]), "metric 'road2' is not known; choose from 'average-drop', "),
        (dict(names=[]), "no metrics: expected at least one; choose from 'average-drop'"),
        (dict(names="energy"), r"metrics is 'energy', expected a list of names: \['energy'\]"),
        (dict(names={"mine": max}), r"metric 'mine' is <built-in function max>, expected a sscam_jax.metrics.Metric"),
        (dict(names={"a@b": metrics.METRICS["energy"]}), "metric name 'a@b' has an '@'"),
        (
            dict(names={"mine": metrics.Metric(lambda case: [1], "higher")}),
            r"metric 'mine' gave values of shape list, expected an array of \(1, 5\): one value per method and image",
        ),
        (
            dict(names={"mine": metrics.Metric(lambda case: case.maps.max((-2, -1)) / 0.0, "higher")}),
            "metric 'mine' gave ∞ for image 0, expected numbers, or NaN where it does not apply",
        ),
        (
            dict(given=[BATCH._replace(images=np.where(IMAGES > 1, np.nan, IMAGES))]),
            r"images of ids \[0, 1, 2, 3, 4\] hold NaN or ∞, expected finite numbers: leave them out",
        ),
        (dict(about=dict(a=np.float32(1))), "about is {'a': .*}, expected texts, numbers, lists and dicts of them: "),
        (dict(methods=[]), r"no methods: expected at least one, as in \['grad-cam'\]"),
        (dict(methods="grad-cam"), r"methods is 'grad-cam', expected a list or a mapping of them: \['grad-cam'\]"),
        (dict(methods=["grad"]), "method 'grad' is not known; choose from 'cam', 'grad-cam'"),
        (dict(methods=[3]), "method 3 is of type int, expected a text, as 'ss-cam:paper', or a function"),
        (dict(methods=["grad-cam", "grad-cam"]), "two methods are called 'grad-cam': give them as a mapping"),
        (dict(methods=[lambda *a: a]), "has no name for the tables: give the methods as a mapping"),
        (dict(methods={"random": sscam.grad_cam}), "method name 'random' is that of a control, which every table has"),
        (dict(keys=0), "keys is 0, expected at least 1: how often methods that draw noise are run"),
        (dict(target="label"), "target 'label' is not known; choose from 'truth', 'predicted'"),
        (dict(process=(2, 2)), r"process is \(2, 2\), expected \(index, count\) with index from 0 to count - 1"),
        (dict(params={**PARAMS, "scale": 2.0}), r"params\['scale'\] is 2.0 of type float, expected an array: wrap it"),
        (
            dict(params={**PARAMS, "scale": np.array([None])}),
            r"an array of Python objects cannot be hashed, expected numbers: convert it with np.asarray",
        ),
        (dict(given=[BATCH, BATCH]), r"ids \[0, 1, 2, 3, 4\] occur twice in the batches: every image needs its own id"),
        (dict(given=BATCH), r"batches is Batch, expected an iterable of Batch: a single one is \[batch\]"),
        (dict(given=[]), "batches is empty: expected at least one batch of images. An iterator can be read once only"),
        (dict(maps=dict(theirs="maps")), "No such file or directory: 'maps'"),
        (dict(maps=dict(theirs=3)), "maps 'theirs' are int, expected an npz file, a mapping by id, or an array"),
        (dict(maps=dict(theirs=[MAPS[0], MAPS[1][:3]])), "maps 'theirs' are list, expected .* an array of maps of one"),
        (
            dict(maps=dict(theirs={0: MAPS[0]})),
            "maps 'theirs' have none for the images of ids 1, 2, 3, 4: expected .* add them",
        ),
        (
            dict(maps=dict(theirs=MAPS[:, :3])),
            r"method 'theirs' gave maps of shape \(5, 3, 10\), expected \(5, 8, 10\)",
        ),
        (
            dict(maps=dict(theirs=-MAPS)),
            "method 'theirs' gave a map of image 0 with values from .* in \\[0, 1\\]: sscam_",
        ),
        (
            dict(maps=dict(theirs=MAPS), names=["coherency"]),
            r"metric 'coherency' runs the methods again, which stored maps \(theirs\) cannot: leave the metric out",
        ),
    ],
)
def test_the_message_says_what_to_do_and_the_folder_is_not_poisoned(tmp_path, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate(tmp_path / "run", **options)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_method_with_another_signature_is_named(tmp_path):
    with pytest.raises(TypeError, match="takes 1 positional argument") as refused:
        evaluate(tmp_path, methods={"mine": lambda images: images})
    assert "This was method 'mine', called with apply, params, images, labels, []" in refused.value.__notes__


def test_the_corrected_call_goes_on_in_the_same_folder(tmp_path):
    with pytest.raises(ValueError, match="'road2' is not known"):
        evaluate(tmp_path, names=["complexity", "road2"])
    with pytest.raises(ValueError, match="expected finite values"):
        evaluate(tmp_path, methods={"mine": lambda apply, params, images, labels: images[..., 0] * jnp.nan})
    assert evaluate(tmp_path).metrics == ("complexity",)


@pytest.mark.parametrize("damage", ["text", "cut", "one array"])
def test_stored_maps_that_are_damaged_are_named(tmp_path, damage):
    path = tmp_path / "maps.npz"
    with path.open("wb") as stream:
        if damage == "one array":
            np.save(stream, MAPS)
        else:
            np.savez(stream, **{str(i): one for i, one in enumerate(MAPS)})
    if damage != "one array":
        path.write_bytes(b"hello" if damage == "text" else path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"maps 'theirs' are in '.*maps.npz', which is not an npz file \(.*np.savez\("):
        evaluate(tmp_path / "run", maps=dict(theirs=path))


def test_data_as_arrays_dicts_batches_and_stored_maps_agree(tmp_path):
    rows = [dict(image=IMAGES[i : i + 2], label=LABELS[i : i + 2]) for i in range(0, N, 2)]
    np.savez(tmp_path / "maps.npz", **{str(i): one for i, one in enumerate(MAPS)})
    arrays = evaluate(tmp_path / "a", sscam.data.from_arrays(IMAGES, labels=LABELS, batch_size=2), maps=dict(x=MAPS))
    dicts = evaluate(tmp_path / "b", sscam.data.from_dicts(iter(rows)), maps=dict(x=tmp_path / "maps.npz"))
    assert arrays.stored.results.names == dicts.stored.results.names == tuple("01234")
    np.testing.assert_array_equal(arrays.stored.results.values, dicts.stored.results.values)
    assert dicts.stored.unfinished == []


def test_a_stream_goes_on_where_it_stopped_and_is_checked_as_it_is_read(tmp_path, monkeypatch):
    def stream(images=IMAGES):
        return sscam.data.from_dicts(dict(image=images[i : i + 1], label=LABELS[i : i + 1]) for i in range(N))

    whole = evaluate(tmp_path, stream()).records()
    for number in (1, 3):
        (tmp_path / "parts" / f"{number:06}.npz").unlink()
    assert study.table(tmp_path).stored.unfinished == ["batch 1", "batch 3"]
    real, done = study.loop.measure, []
    monkeypatch.setattr(
        study.loop, "measure", lambda of, batch, tell: done.append(batch.ids[0]) or real(of, batch, tell)
    )
    assert evaluate(tmp_path, stream()).records() == whole and done == [1, 3]
    changed = IMAGES.copy()
    changed[4] += 1
    with pytest.raises(ValueError, match="those of batch 4, which is measured, have changed since"):
        evaluate(tmp_path, stream(changed))


def test_ids_that_come_again_in_a_stream_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="id 0 comes twice, in the batches 0 and 1: every image needs an id of its own, number"
    ):
        evaluate(tmp_path, iter([BATCH, BATCH]))
