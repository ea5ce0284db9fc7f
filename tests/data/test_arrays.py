"""Batches of dicts, as other programs' iterators give them: Grain, Hugging Face `datasets`, tf.data."""

import numpy as np
import pytest
from PIL import Image

import sscam_jax as sscam
from sscam_jax.types import Batches

N = 5
IMAGES = np.random.default_rng(0).normal(size=(N, 4, 6, 3)).astype(np.float32)
LABELS = np.arange(N) % 3


def check(given: Batches) -> None:
    """All images once, in order, with their labels; the last batch is filled up."""
    read = [batch for _, batch, _ in given.read(range(9))]
    assert [batch.images.shape[0] for batch in read] == [2, 2, 2]
    live = np.concatenate([batch.mask for batch in read])
    assert live.tolist() == [True] * N + [False]
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in read])[live], IMAGES)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in read])[live], LABELS)
    np.testing.assert_array_equal(np.concatenate([batch.ids for batch in read])[live], np.arange(N))


def test_grain():
    grain = pytest.importorskip("grain", reason="the extra data is not installed")
    rows = [dict(image=image, label=label) for image, label in zip(IMAGES, LABELS, strict=True)]
    check(sscam.data.from_dicts(grain.MapDataset.source(rows).batch(2).to_iter_dataset()))


def test_hugging_face_datasets():
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    rows = datasets.Dataset.from_dict(dict(image=IMAGES.tolist(), label=LABELS.tolist())).with_format("numpy")
    check(sscam.data.from_dicts(rows.iter(batch_size=2)))


def test_photographs_of_hugging_face_datasets():
    """A column of images is a source; boxes are in pixels."""
    datasets = pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")
    pytest.importorskip("grain", reason="the extra data is not installed")
    pictures = [Image.new("RGB", (20, 10), (10 * i, 0, 0)) for i in range(3)]
    rows = datasets.Dataset.from_dict(dict(image=pictures, label=[2, 0, 1], box=[[[0, 0, 10, 5]]] * 3))
    source = sscam.data.from_rows(rows.cast_column("image", datasets.Image()), boxes="box")
    [batch] = sscam.data.batches(source, batch_size=3, size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert batch.labels.tolist() == [2, 0, 1]
    np.testing.assert_allclose(255 * batch.images[:, 4, 4, 0], [0, 10, 20], atol=0.1)
    np.testing.assert_allclose(batch.boxes[:, 0], [[0, 0, 1, 0.25]] * 3)


def test_tf_data():
    tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    rows = tensorflow.data.Dataset.from_tensor_slices(dict(image=IMAGES, label=LABELS)).batch(2)
    check(sscam.data.from_dicts(rows.as_numpy_iterator()))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([dict(picture=IMAGES, label=LABELS)], {}, r"a row has no 'image'; choose from 'picture', 'label', as from_d"),
        ([dict(image=IMAGES)], {}, r"a row has no 'label'; choose from 'image', .*; label=None: there is none"),
        ([dict(image=IMAGES)], dict(label=None, boxes="box"), "a row has no 'box'"),
        (
            [dict(image=IMAGES[:1]), dict(image=IMAGES)],
            dict(label=None),
            "a batch of 5 images follows one of 1: expected the largest batch first",
        ),
        (
            [dict(image=IMAGES, box=np.zeros((N, 2, 3)))],
            dict(label=None, boxes="box"),
            r"boxes are of 5 images, with the shapes \[\(2, 3\)\]: expected those of 5 images, each \[k, 4\]",
        ),
        ([dict(image=IMAGES, box=np.zeros((2, 1, 4)))], dict(label=None, boxes="box"), "boxes are of 2 images, with"),
    ],
)
def test_rows_that_do_not_fit_are_refused(rows, options, message):
    with pytest.raises(ValueError, match=message):
        list(sscam.data.from_dicts(rows, **options).read(range(3)))


def test_boxes_of_any_number_per_image():
    boxes = [np.zeros((0, 4)), [0.0, 0.0, 0.5, 0.5], np.float32([[0, 0, 1, 1], [0, 0, 0.5, 1]])]
    [(_, batch, _)] = sscam.data.from_arrays(IMAGES[:3], boxes=boxes).read([0])
    assert batch.boxes.shape == (16, 2, 4) and (batch.boxes[:3] >= 0).all(-1).sum(-1).tolist() == [0, 1, 2]
