"""Regions of maps, their boxes, IoU and MaxBoxAcc: by hand, and against SciPy's labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from sscam_jax import ops
from sscam_jax.metrics import overlap
from sscam_jax.metrics.components import connected_components
from sscam_jax.metrics.overlap import best_box_iou, box_accuracy, box_iou, max_box_acc

RNG = np.random.default_rng(0)
NONE = [-1.0] * 4
TOUCHING = np.ones((3, 3))


def spiral(side: int) -> np.ndarray:
    """One long path, its rounds apart by a pixel: the region whose ends are furthest from each other."""
    mask, (y, x), (dy, dx) = np.zeros((side, side), bool), (0, 0), (0, 1)
    length, turns = side - 1, 0
    mask[0, 0] = True
    while length > 0:
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
        turns += 1
        # Three sides of full length, then two of each shorter one.
        length -= 2 * (turns >= 3 and turns % 2 == 1)
    return mask


def comb(height: int, width: int) -> np.ndarray:
    """Columns that meet in the first row only."""
    mask = np.zeros((height, width), bool)
    mask[0] = mask[:, ::2] = True
    return mask


MASKS = {
    "sparse": RNG.uniform(size=(3, 40, 56)) < 0.2,
    "at the point of percolation": RNG.uniform(size=(3, 40, 56)) < 0.41,
    "dense": RNG.uniform(size=(3, 40, 56)) < 0.7,
    "smooth": np.asarray(ops.resize(jnp.asarray(RNG.uniform(size=(3, 7, 7)), jnp.float32), (40, 56))) > 0.55,
    "spiral": spiral(45)[None],
    "comb": comb(40, 56)[None],
    "inverted comb": comb(40, 56)[None, ::-1],
    "nothing and everything": np.stack([np.zeros((40, 56), bool), np.ones((40, 56), bool)]),
    "chessboard": (np.indices((9, 12)).sum(0) % 2 == 0)[None],
    "one pixel": np.ones((1, 1, 1), bool),
    "a row": np.array([[[1, 1, 0, 1, 0, 0, 1]]]) == 1,
}


@pytest.mark.parametrize("name", MASKS)
def test_components_are_scipys(name):
    labels = np.asarray(connected_components(jnp.asarray(MASKS[name])))
    for got, mask in zip(labels, MASKS[name], strict=True):
        regions, count = scipy.ndimage.label(mask, TOUCHING)
        positions = np.arange(1, mask.size + 1).reshape(mask.shape)
        expected = np.zeros(mask.shape, int)
        for i in range(1, count + 1):
            expected[regions == i] = positions[regions == i].max()
        np.testing.assert_array_equal(got, expected)
    assert name != "spiral" or (count == 1 and mask.sum() > 900 and not scipy.ndimage.binary_erosion(mask).any())


def test_components_take_any_leading_axes():
    masks = jnp.asarray(MASKS["sparse"])
    labels = connected_components(masks)
    np.testing.assert_array_equal(connected_components(masks[:, None]), labels[:, None])
    np.testing.assert_array_equal(connected_components(masks[1]), labels[1])
    np.testing.assert_array_equal(jax.vmap(connected_components)(masks), labels)


def iou_by_scipy(found: np.ndarray, box: np.ndarray, threshold: float, regions: str, truth: np.ndarray) -> float:
    """The same with SciPy's labels and plain loops."""
    labels, _ = scipy.ndimage.label(found > np.float32(threshold) * found.max(), TOUCHING)
    sizes = np.bincount(labels.ravel())[1:]
    best = 0.0
    for size, (rows, columns) in zip(sizes, scipy.ndimage.find_objects(labels), strict=True):
        if regions == "largest" and size < sizes.max():
            continue
        y0, x0, y1, x1 = np.array([rows.start, columns.start, rows.stop, columns.stop]) / np.tile(found.shape, 2)
        for top, left, bottom, right in truth[truth[:, 0] >= 0]:
            common = max(min(y1, bottom) - max(y0, top), 0) * max(min(x1, right) - max(x0, left), 0)
            union = (y1 - y0) * (x1 - x0) + (bottom - top) * (right - left) - common
            best = max(best, common / union)
    return best


SMOOTH = ops.unit(ops.resize(jnp.asarray(RNG.uniform(size=(6, 7, 7)), jnp.float32), (40, 56))).reshape(2, 3, 40, 56)
BOXES = np.array(
    [[[0.1, 0.2, 0.9, 0.8], [0, 0, 0.3, 0.4]], [NONE, [0.05, 0.1, 0.6, 0.95]], [[0.5, 0.1, 1, 1], [0.2, 0.7, 0.4, 1]]],
    np.float32,
)
THRESHOLDS = [0.5, 0.0, 0.25, 0.9, 0.7]
each_choice = pytest.mark.parametrize("regions", ["largest", "all"])


@each_choice
def test_iou_is_scipys(regions):
    """Thresholds in any order; two methods, three images, of which one has one box and the others two."""
    got = box_iou(SMOOTH, BOXES, thresholds=THRESHOLDS, regions=regions)
    expected = [
        [[iou_by_scipy(one, box, t, regions, box) for t in THRESHOLDS] for one, box in zip(maps, BOXES, strict=True)]
        for maps in np.asarray(SMOOTH)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_allclose(
        best_box_iou(SMOOTH, BOXES, thresholds=THRESHOLDS, regions=regions), np.max(expected, -1), rtol=1e-5
    )


def test_iou_by_hand_in_the_top_right_corner():
    # A blob of 2 × 2 in the top right corner, a larger and fainter one of 3 × 2 at the bottom left.
    maps = jnp.zeros((1, 6, 8)).at[0, :2, 6:].set(1.0).at[0, 3:, :2].set(0.4)
    box = np.array([[[0, 0.75, 0.5, 1]]], np.float32)  # three rows, two columns
    got = {regions: box_iou(maps, box, thresholds=[0.2, 0.6], regions=regions) for regions in ("largest", "all")}
    np.testing.assert_allclose(got["all"], [[2 / 3, 2 / 3]], rtol=1e-6)
    np.testing.assert_allclose(got["largest"], [[0, 2 / 3]], rtol=1e-6)


def test_equally_large_regions_all_count():
    maps = jnp.zeros((2, 6, 8)).at[0, :2, :2].set(1.0).at[0, 4:, 6:].set(1.0)
    maps = maps.at[1].set(maps[0, ::-1])
    boxes = np.array([[[0, 0, 1 / 3, 0.25]], [[0, 0.75, 1 / 3, 1]]], np.float32)
    np.testing.assert_allclose(box_iou(maps, boxes, thresholds=[0.5], regions="largest"), [[1], [1]], rtol=1e-6)


@each_choice
def test_flips_and_transposes_of_map_and_box_together(regions):
    def iou(maps: jax.Array, boxes: np.ndarray) -> jax.Array:
        return box_iou(maps, np.nan_to_num(boxes, nan=-1.0), thresholds=THRESHOLDS, regions=regions)

    box = np.where(BOXES < 0, np.nan, BOXES)
    values = iou(SMOOTH, box)
    flipped = np.stack([1 - box[..., 2], box[..., 1], 1 - box[..., 0], box[..., 3]], -1)
    np.testing.assert_allclose(iou(SMOOTH[..., ::-1, :], flipped), values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(iou(SMOOTH.swapaxes(-1, -2), box[..., [1, 0, 3, 2]]), values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(iou(SMOOTH / 4, box), values, rtol=1e-6)


@each_choice
def test_zero_maps_and_images_without_a_box(regions):
    boxes = BOXES.copy()
    boxes[2] = NONE
    for maps in (SMOOTH, jnp.zeros_like(SMOOTH)):
        values = np.asarray(box_iou(maps, boxes, thresholds=THRESHOLDS, regions=regions))
        assert np.isnan(values[:, 2]).all() and np.isfinite(values[:, :2]).all()
    assert (values[:, :2] == 0).all()


def test_accuracy_and_max_box_acc_by_hand():
    ious = box_iou(SMOOTH, BOXES, thresholds=THRESHOLDS, regions="largest")
    found = np.asarray(box_accuracy(SMOOTH, BOXES, iou=0.3, thresholds=THRESHOLDS))
    np.testing.assert_array_equal(found, 100 * (np.asarray(ious) >= np.float32(0.3)))
    assert 0 < found.mean() < 100
    np.testing.assert_allclose(max_box_acc(ious, iou=[0.3]), found.mean(1).max(-1), rtol=1e-6)

    # Three images and one without a box. At δ = 0.3 the thresholds find 3 and 1 of 3, at 0.5 2 and 1, at 0.7 0 and 1.
    ious = jnp.array([[0.35, 0.0], [0.6, 0.9], [0.5, 0.2], [jnp.nan, jnp.nan]])
    np.testing.assert_allclose(max_box_acc(ious), 200 / 3, rtol=1e-6)
    np.testing.assert_allclose(max_box_acc(ious, iou=[0.3, 0.5, 0.7]), (300 + 200 + 100) / 9, rtol=1e-6)
    # The best threshold is one for the whole data set, not each image's own.
    np.testing.assert_allclose(max_box_acc(jnp.array([[[1.0, 0.0], [0.0, 1.0]]])), [50], rtol=1e-6)
    assert jnp.isnan(max_box_acc(jnp.full((2, 3), jnp.nan)))


@each_choice
def test_compiled_without_scipy_and_by_parts(regions, monkeypatch):
    """Compiled code finds regions in its own way. Noise, equal regions, a zero map, an image without a box."""
    values = box_iou(SMOOTH, BOXES, thresholds=THRESHOLDS, regions=regions)
    noise = jnp.asarray(RNG.integers(0, 3, SMOOTH.shape), jnp.float32).at[0, 0].set(0)
    boxes = np.stack([BOXES[0], np.float32([NONE, NONE]), BOXES[2]])
    of_noise = box_iou(noise, boxes, thresholds=THRESHOLDS, regions=regions)
    monkeypatch.setattr(overlap, "boxes_on_host", lambda *_: pytest.fail("compiled code called SciPy"))
    compiled = jax.jit(lambda maps, boxes: box_iou(maps, boxes, thresholds=THRESHOLDS, regions=regions))
    np.testing.assert_allclose(compiled(SMOOTH, BOXES), values, rtol=1e-5)
    np.testing.assert_allclose(compiled(noise, boxes), of_noise, rtol=1e-5)
    monkeypatch.undo()
    np.testing.assert_allclose(
        box_iou(SMOOTH[1, 2:], BOXES[2:], thresholds=THRESHOLDS, regions=regions), values[1, 2:], rtol=1e-6
    )


def test_errors(as_users_run_it):
    with pytest.raises(ValueError, match="regions='biggest' is not a choice; choose from 'largest', 'all'"):
        box_iou(SMOOTH, BOXES, regions="biggest")
