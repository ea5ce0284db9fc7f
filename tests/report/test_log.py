"""`sscam.log`: what each keeper of pictures gets, and a film of them."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

import sscam_jax as sscam
from sscam_jax.report import log as module
from sscam_jax.report.log import Aim, Folder, TensorBoard, WandB
from tests.report.test_explain import APPLY, PARAMS, _photo

PHOTOS = [_photo(), _photo(60, 90, 1)]


@pytest.fixture(scope="module")
def images():
    return sscam.preprocess(PHOTOS, size=56)


@pytest.fixture(scope="module")
def saliency(images):
    return sscam.grad_cam(APPLY, PARAMS, images)


def _expected(saliency, i):
    return sscam.plots.overlay(PHOTOS[i], saliency.maps[i])


class Kept:
    def __init__(self):
        self.pictures = {}

    def picture(self, step, name, picture):
        self.pictures[step, name] = picture


def test_an_explanation_is_an_overlay_per_image_and_method():
    found = sscam.explain(PHOTOS, model=(APPLY, PARAMS), num_classes=3, size=56, methods=["grad-cam", "cam"])
    kept = Kept()
    sscam.log(7, None, found, to=kept, name="validation")
    assert list(kept.pictures) == [(7, f"validation/{i}/{m}") for m in ("grad-cam", "cam") for i in (0, 1)]
    expected = _expected(found.saliency["cam"], 1)
    np.testing.assert_array_equal(kept.pictures[7, "validation/1/cam"], expected)


def test_network_inputs_become_photographs(images, saliency):
    kept = Kept()
    sscam.log(0, images, saliency, to=kept)
    photo = sscam.data.photograph(np.asarray(images[0]))
    np.testing.assert_array_equal(kept.pictures[0, "maps/0/map"], sscam.plots.overlay(photo, saliency.maps[0]))


def test_a_folder_makes_a_film_in_the_order_of_its_steps(saliency, tmp_path):
    for step in (100, 20, 3):
        shown = saliency._replace(maps=saliency.maps * (step / 100))
        sscam.log(step, PHOTOS, shown, to=tmp_path / "kept")
    folder = Folder(tmp_path / "kept")
    folder.film("maps/0/map", tmp_path / "film.gif", seconds=0.2)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3 and film.info["duration"] == 200
        film.seek(2)
        last = np.asarray(film.convert("RGB"), int)
    assert np.abs(last - _expected(saliency, 0)).mean() < 8  # 256 colours
    with pytest.raises(ValueError, match="holds no picture of 'maps/9/map'; there is 'maps-0-map'"):
        folder.film("maps/9/map", tmp_path / "none.gif")


def test_tensorboard_reads_what_was_written(saliency, tmp_path):
    pytest.importorskip("tensorboardX", reason="pip install '.[log]'")
    from tensorboardX.proto.event_pb2 import Event

    keeper = TensorBoard(tmp_path)
    sscam.log(5, PHOTOS, saliency, to=keeper)
    keeper.writer.close()
    [file] = tmp_path.glob("events.*")
    data, place, found = file.read_bytes(), 0, {}
    while place < len(data):
        length = int.from_bytes(data[place : place + 8], "little")
        event = Event.FromString(data[place + 12 : place + 12 + length])
        found |= {(event.step, value.tag): value.image for value in event.summary.value if value.HasField("image")}
        place += length + 16
    assert list(found) == [(5, "maps/0/map"), (5, "maps/1/map")]
    image = found[5, "maps/1/map"]
    assert (image.height, image.width) == (90, 60)
    stored = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB"))
    np.testing.assert_array_equal(stored, _expected(saliency, 1))


def test_weights_and_biases_and_aim_are_called_as_they_document(saliency, monkeypatch):
    """Recorders in place of the services' clients: run.log({name: wandb.Image}, step=), run.track(aim.Image, …)."""
    image = lambda value: ("image", value)  # noqa: E731
    for name in ("wandb", "aim"):
        fake = types.ModuleType(name)
        fake.Image = image
        monkeypatch.setitem(sys.modules, name, fake)
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        track=lambda value, name, step: calls.append((step, {name: value})),
    )
    sscam.log(9, PHOTOS, saliency, to=WandB(run))
    sscam.log(9, PHOTOS, saliency, to=Aim(run))
    assert [(step, list(values)) for step, values in calls] == 2 * [(9, ["maps/0/map"]), (9, ["maps/1/map"])]
    np.testing.assert_array_equal(calls[0][1]["maps/0/map"][1], _expected(saliency, 0))
    np.testing.assert_array_equal(np.asarray(calls[3][1]["maps/1/map"][1]), _expected(saliency, 1))


@pytest.mark.filterwarnings("ignore")  # Aim's own
def test_aim_holds_what_was_written(saliency, tmp_path):
    aim = pytest.importorskip("aim", reason="pip install aim")
    from aim.storage.context import Context

    run = aim.Run(repo=str(tmp_path), system_tracking_interval=None, capture_terminal_logs=False)
    for step in (5, 100):
        sscam.log(step, PHOTOS, saliency, to=Aim(run))
    run.close()
    # Not read_only: Aim reads those from an index, which it makes when its page is opened.
    stored = aim.Run(run.hash, repo=str(tmp_path), system_tracking_interval=None, capture_terminal_logs=False)
    for i in (0, 1):
        sequence = stored.get_image_sequence(f"maps/{i}/map", Context({}))
        steps, (pictures, *_) = sequence.data.items_list()
        assert list(steps) == [5, 100]
        assert len(pictures) == 2
        for picture in pictures:
            np.testing.assert_array_equal(np.asarray(picture.to_pil_image()), _expected(saliency, i))
    stored.close()


def test_what_is_refused(saliency, tmp_path, as_users_run_it):
    with pytest.raises(ValueError, match="step is -1, expected at least 0"):
        sscam.log(-1, PHOTOS, saliency, to=tmp_path)
    with pytest.raises(ValueError, match="1 images and 2 maps: expected one map per image"):
        sscam.log(0, PHOTOS[:1], saliency, to=tmp_path)
    with pytest.raises(ValueError, match="images is None: a `Saliency` holds no photographs"):
        sscam.log(0, None, saliency, to=tmp_path)
    with pytest.raises(TypeError, match="to is a int, expected a path or an object with a method 'picture'"):
        module.log(0, PHOTOS, saliency, to=3)
    with pytest.raises(TypeError, match="found is a list, expected what `sscam.explain` or a method returns"):
        module.log(0, PHOTOS, [1], to=tmp_path)
    assert list(tmp_path.iterdir()) == []
