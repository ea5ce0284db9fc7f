"""Methods measured on a data set, batch by batch, on all devices of this process."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from sscam_jax import metrics as library
from sscam_jax import ops
from sscam_jax.evaluation import pictures
from sscam_jax.evaluation._sharded import Maps, columns_of, kept, logits_of, maps_of
from sscam_jax.evaluation.plan import Plan, check_batch
from sscam_jax.metrics import Case
from sscam_jax.metrics.localization import single_box
from sscam_jax.types import Batch

Tell = Callable[[int, int], None]
# Rounding may carry a map this far out of [0, 1].
_SLACK = 1e-4


class Part(NamedTuple):
    """What was measured on one batch's n images that can be read and have a class to explain.

    Attributes:
        columns: the metrics, in the order of `values`' last axis.
        ids: the images' positions in the data set.
        labels: the class that the data set gives, -1 for none.
        predicted: the class that the network gives.
        probability: of the explained class.
        single: whether the image has one box, which covers at most half of it.
        values: for every noise key, method, image and column; NaN where a metric does not apply, and for methods
            without noise at all keys but the first.
        flat: whether the map says nothing.
        passes: forward passes of the map; 0: not run, -1: not known.
        maps: what draws every method's maps [keys, n, ...], see `pictures`.
        skipped: ids of the images that have no class to explain.
    """

    columns: tuple[str, ...]
    ids: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, " n"]
    predicted: Int[np.ndarray, " n"]
    probability: Float32[np.ndarray, " n"]
    single: Bool[np.ndarray, " n"]
    values: Float32[np.ndarray, "r m n columns"]
    flat: Bool[np.ndarray, "r m n"]
    passes: Int[np.ndarray, "r m n"]
    maps: tuple[np.ndarray, ...]
    skipped: Int[np.ndarray, " k"]


class _Rows(NamedTuple):
    """A batch on the devices, filled up so that they share it evenly, with the class to explain."""

    images: Float[Array, "b *space c"]
    labels: Int[np.ndarray, " b"]
    boxes: Float[np.ndarray, "b k 4"]
    ids: Int[np.ndarray, " b"]
    live: Bool[np.ndarray, " b"]


def _checked_maps(name: str, found: Maps, ids: Int[np.ndarray, " n"]) -> Maps:
    # On the host, because under `jax.jit` no value can be looked at.
    maps = np.asarray(found.maps).reshape(len(ids), -1)
    wrong = ~(np.isfinite(maps).all(1) & (maps.min(1) >= -_SLACK) & (maps.max(1) <= 1 + _SLACK))
    if wrong.any():
        one = maps[wrong.argmax()]
        raise ValueError(
            f"method '{name}' gave a map of image {ids[wrong.argmax()]} with values from {one.min():g} to "
            f"{one.max():g}, expected finite values in [0, 1]: sscam_jax.ops.unit brings them there"
        )
    return found


def _run(plan: Plan, name: str, rows: _Rows, key: Key[Array, ""], tell: Tell) -> Maps:
    """One method's maps; rows that are not live are undefined."""
    method = plan.explainers[name]
    live, labels, ids = rows.live, jnp.asarray(rows.labels), jnp.asarray(rows.ids)
    places = np.clip(np.cumsum(live) - 1, 0, None)  # a dead image shows a live one's map, which nobody reads
    keywords: dict[str, Callable[[Any], Any]] = dict(key=lambda i: key, ids=lambda i: ids[i])
    if "devices" in method.given:
        # Thousands of passes per image: the devices share each image's passes, and only live images cost any.
        devices = list(plan.mesh.devices.flat)
        groups = [np.array([i]) for i in np.flatnonzero(live)]
        # None on one device, as it was traced for the fingerprint.
        keywords["devices"] = lambda i: devices if len(devices) > 1 else None
    elif method.compiled:
        static = (name, method.function, method.given, plan.apply, plan.mesh)
        found = jax.device_get(maps_of(*static, plan.params, rows.images, labels, key, ids))
        _checked_maps(name, Maps(*(field[live] for field in found)), rows.ids[live])
        tell(0, int(np.clip(found.passes[live], 0, None).sum()))
        return found
    else:
        groups = [np.flatnonzero(live)]
    parts = []
    for i in groups:
        given = {keyword: keywords[keyword](i) for keyword in method.given}
        answer = method.function(plan.apply, plan.params, rows.images[i], labels[i], **given)
        parts.append(_checked_maps(name, jax.device_get(kept(name, answer, rows.images[i])), rows.ids[i]))
        tell(0, int(np.clip(parts[-1].passes, 0, None).sum()))
    return Maps(*(np.concatenate(field)[places] for field in zip(*parts, strict=True)))


def _measure(
    plan: Plan, names: Sequence[str], maps: Mapping[str, Maps], rows: _Rows, key: Key[Array, ""]
) -> dict[str, Float[np.ndarray, "m b"]]:
    """The metrics' columns of some methods' maps."""
    stack = np.stack([each.maps for each in maps.values()])
    # The metrics' own random numbers are the same for every method and noise key.
    given = (plan.params, rows.images, jnp.asarray(rows.labels), jnp.asarray(rows.boxes))
    common = (plan.key, jnp.asarray(rows.ids))
    quick = tuple((name, metric) for name, metric in plan.metrics.items() if name in plan.compiled)
    # Images first: the devices share axis 0.
    swapped = jnp.asarray(stack.swapaxes(0, 1))
    found = columns_of(quick, plan.colours, plan.apply, plan.mesh, *given, swapped, *common)
    columns = {name: np.asarray(column).T for name, column in found.items()}

    def explain(inputs: Float[Array, "m b *space c"]) -> Float[Array, "m b *space"]:
        # Nothing is told: passes are counted per map, and these are the metric's.
        again = zip(names, inputs, strict=True)
        rerun = (_run(plan, name, rows._replace(images=x), key, lambda *_: None).maps for name, x in again)
        return jnp.stack([jnp.asarray(each) for each in rerun])

    others = {name: metric for name, metric in plan.metrics.items() if name not in plan.compiled}
    if others:
        case = Case(plan.apply, *given, jnp.asarray(stack), *common, explain, *plan.colours)
        columns |= {name: np.asarray(column) for name, column in library.measure(others, case).items()}
    for name, column in columns.items():
        # The mean would be ∞ too; NaN means that the metric does not apply to an image.
        if (infinite := np.isinf(column) & rows.live).any():
            image = rows.ids[infinite.any(0).argmax()]
            raise ValueError(
                f"metric '{name}' gave ∞ for image {image}, expected numbers, or NaN where it does not apply"
            )
    # As asked for: what comes out of `jax.jit` is sorted by name.
    order = list(plan.metrics)
    return {name: columns[name] for name in sorted(columns, key=lambda name: order.index(name.partition("@")[0]))}


def _placed(plan: Plan, batch: Batch) -> tuple[_Rows, Bool[np.ndarray, " b"], Float[np.ndarray, "b n"]]:
    """The batch on the devices, which of its images can be read, and their logits."""
    # `shard_map` takes equal shares only.
    fill = -len(batch.ids) % plan.mesh.size
    images, labels, boxes, ids, mask = (
        np.concatenate([np.asarray(field), np.full((fill, *field.shape[1:]), empty, field.dtype)])
        for field, empty in zip(batch, (0, -1, -1, -1, False), strict=True)
    )
    if plan.apply.imagenet:
        ops.check_normalised(images)
    placed = jax.device_put(jnp.asarray(images), NamedSharding(plan.mesh, PartitionSpec("images")))
    logits = np.asarray(logits_of(plan.apply, plan.mesh, plan.params, placed))
    # Only of images that could be read: other rows hold none, and nobody uses their logits.
    if not np.isfinite(logits[mask]).all():
        wrong = ids[mask][~np.isfinite(logits[mask]).all(-1)]
        raise ValueError(
            f"the network returned logits that are not finite for images {wrong.tolist()}: check params and these "
            "images for NaN"
        )
    explained = labels if plan.target == "truth" else logits.argmax(-1).astype(np.int32)
    live = mask & (explained >= 0)
    if (wrong := explained[live][explained[live] >= logits.shape[1]]).size:
        raise ValueError(
            f"class {wrong.max()} of the data set is out of range: the network has {logits.shape[1]} classes. Explain "
            "the predicted class, or use a network of these classes"
        )
    # Class 0 for rows without one: −1 would be the last class, and what comes out is left out.
    classes = np.where(live, explained, 0).astype(np.int32)
    return _Rows(placed, classes, boxes.astype(np.float32), ids.astype(np.int32), live), mask, logits


def measure(plan: Plan, batch: Batch, tell: Tell = lambda maps, passes: None) -> Part:
    """Measure one batch.

    All methods see the same images and classes; except for their own noise, they see the same random numbers.

    Args:
        plan: what to measure, of `plan`.
        batch: the images.
        tell: called with how many maps are done and how many passes they took, as the work goes on.

    Returns:
        The `Part`.

    Raises:
        ValueError: the batch is not possible, or a method's maps are not.

    Example:
        >>> from sscam_jax.evaluation.plan import plan
        >>> from sscam_jax.types import Apply
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images = np.float32([[[[1, 0], [0, 1]], [[0, 1], [0, 1]]]])
        >>> batch = Batch(images, np.int32([0]), np.float32([[[0, 0, 0.5, 0.5]]]), np.int32([0]), np.array([True]))
        >>> colours = ((0.0, 0.0), (1.0, 1.0))
        >>> of = plan(apply, (), batch, ["grad-cam"], ["energy"], key=jax.random.key(0), colours=colours)
        >>> part = measure(of, batch)
        >>> part.columns, part.values[0, 0].tolist()
        (('energy',), [[100.0]])
    """
    check_batch(batch)
    rows, mask, logits = _placed(plan, batch)
    live = rows.live
    runs = []
    for r in range(plan.keys if live.any() else 0):
        key = jax.random.fold_in(plan.key, r)
        # Without noise another key gives the same map.
        names = [name for name, method in plan.explainers.items() if r == 0 or method.draws]
        maps = {}
        for name in names:
            maps[name] = _run(plan, name, rows, key, tell)
            tell(int(live.sum()), 0)
        if names:
            runs.append((_measure(plan, names, maps, rows, key), maps))
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probability = np.take_along_axis(shifted / shifted.sum(-1, keepdims=True), rows.labels[:, None], 1)[:, 0]
    labels = np.pad(np.asarray(batch.labels), (0, len(live) - len(batch.labels)), constant_values=-1)
    columns, values, flat, passes = _together(plan, runs, live)
    # Rows that only fill the batch up, or have no class to explain, end here.
    return Part(
        columns=columns,
        ids=rows.ids[live],
        labels=labels[live].astype(np.int32),
        predicted=logits.argmax(-1).astype(np.int32)[live],
        probability=probability[live],
        single=np.asarray(single_box(rows.boxes))[live],
        values=values,
        flat=flat,
        passes=passes,
        maps=tuple(
            pictures.encoded(*(np.stack([np.asarray(maps[name][i])[live] for maps in of]) for i in (1, 0)))
            for name in plan.explainers
            if (of := [maps for _, maps in runs if name in maps])
        ),
        skipped=rows.ids[mask & ~live],
    )


def _together(
    plan: Plan, runs: Sequence[tuple[Mapping[str, np.ndarray], Mapping[str, Maps]]], live: Bool[np.ndarray, " b"]
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray]:
    """The columns' names, and values, flat and passes with their leading axes keys, methods, live images."""
    columns = tuple(runs[0][0]) if runs else ()
    shape = (plan.keys, len(plan.explainers), int(live.sum()))
    values = np.full((*shape, len(columns)), np.nan, np.float32)
    flat, passes = np.zeros(shape, bool), np.zeros(shape, np.int32)
    positions = {name: m for m, name in enumerate(plan.explainers)}
    for r, (measured, maps) in enumerate(runs):
        for i, (name, each) in enumerate(maps.items()):
            m = positions[name]
            values[r, m] = np.stack([measured[column][i, live] for column in columns], -1)
            flat[r, m], passes[r, m] = each.flat[live], each.passes[live]
    return columns, values, flat, passes
