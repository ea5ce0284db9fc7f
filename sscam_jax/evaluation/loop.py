"""Methods measured on a data set, batch by batch, on all devices of this process."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from sscam_jax import metrics as library
from sscam_jax.cams.registry import Method, draws
from sscam_jax.evaluation._sharded import Maps, columns_of, kept, logits_of, maps_of, takes
from sscam_jax.metrics.localization import single_box
from sscam_jax.types import Apply, Batch, Params

Target = Literal["truth", "predicted"]


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
        passes: forward passes of the map.
        raw: the maps at the target layer's resolution.
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
    raw: Float32[np.ndarray, "r m n *grid"]
    skipped: Int[np.ndarray, " k"]


class _Evaluation:
    """A network, methods and metrics, ready to measure batches."""

    def __init__(
        self,
        apply: Apply,
        params: Params,
        methods: Mapping[str, Method],
        metrics: Sequence[str],
        key: Key[Array, ""],
        keys: int,
        target: Target,
        devices: Sequence[jax.Device],
        tell: Callable[[int, int], None],
    ) -> None:
        self.apply, self.methods, self.keys, self.target, self.tell = apply, methods, keys, target, tell
        self.devices = list(devices)
        self.mesh = Mesh(np.array(self.devices), ("images",))
        self.params = jax.device_put(params, NamedSharding(self.mesh, PartitionSpec()))
        self.key, self.metrics = key, list(metrics)
        known = {name: library.METRICS[name].reruns for name in metrics}
        self.simple = tuple(name for name, reruns in known.items() if not reruns)
        self.rerunning = tuple(name for name, reruns in known.items() if reruns)
        self.draws = {name: draws(method) for name, method in methods.items()}

    def run(
        self,
        method: Method,
        images: Float[Array, "b *space c"],
        labels: Int[np.ndarray, " b"],
        key: Key[Array, ""],
        ids: Int[np.ndarray, " b"],
        live: Bool[np.ndarray, " b"],
    ) -> Maps:
        """One method's maps; images that are not live get a map of no meaning."""
        if not takes(method, "devices"):
            return maps_of(
                method, self.apply, self.mesh, self.params, images, jnp.asarray(labels), key, jnp.asarray(ids)
            )
        # Thousands of passes an image: the devices share each image's passes, and only live images cost any.
        rows = []
        for i in np.flatnonzero(live):
            given: dict[str, Any] = dict(devices=self.devices if len(self.devices) > 1 else None)
            given |= {k: v for k, v in (("key", key), ("ids", jnp.asarray(ids[i : i + 1]))) if takes(method, k)}
            saliency = method(self.apply, self.params, images[i : i + 1], labels[i : i + 1], **given)
            rows.append(jax.device_get(kept(saliency)))
            self.tell(0, int(rows[-1].passes[0]))
        places = np.cumsum(live) - 1  # a dead image shows a live one's map, which nobody reads
        return Maps(*(np.concatenate(field)[np.clip(places, 0, None)] for field in zip(*rows, strict=True)))

    def part(self, batch: Batch) -> Part:
        """Measure one batch."""
        fill = -len(batch.ids) % len(self.devices)
        images, labels, boxes, ids, mask = (
            np.concatenate([np.asarray(field), np.full((fill, *field.shape[1:]), empty, field.dtype)])
            for field, empty in zip(batch, (0, -1, -1, -1, False), strict=True)
        )
        sharding = NamedSharding(self.mesh, PartitionSpec("images"))
        placed = jax.device_put(jnp.asarray(images), sharding)
        logits = np.asarray(logits_of(self.apply, self.mesh, self.params, placed))
        if not np.isfinite(logits[mask]).all():
            wrong = ids[mask][~np.isfinite(logits[mask]).all(-1)]
            raise ValueError(f"the network's answer to images {wrong.tolist()} is not finite: look for NaN in params")
        predicted = logits.argmax(-1).astype(np.int32)
        explained = labels if self.target == "truth" else predicted
        live = mask & (explained >= 0)
        if (wrong := explained[live][explained[live] >= logits.shape[1]]).size:
            raise ValueError(
                f"class {wrong.max()} of the data set is none of the network's {logits.shape[1]}: explain the "
                "predicted class, or use a network of these classes"
            )
        classes = np.where(live, explained, 0).astype(np.int32)
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        probability = np.take_along_axis(shifted / shifted.sum(-1, keepdims=True), classes[:, None], 1)[:, 0]
        found = [self.with_key(r, placed, classes, boxes, ids, live) for r in range(self.keys if live.any() else 0)]
        columns, values, flat, passes, raw = self.together(found, live)
        return Part(
            columns=columns,
            ids=ids[live],
            labels=labels[live],
            predicted=predicted[live],
            probability=probability[live],
            single=np.asarray(single_box(boxes))[live],
            values=values,
            flat=flat,
            passes=passes,
            raw=raw,
            skipped=ids[mask & ~live],
        )

    def with_key(
        self,
        r: int,
        images: Float[Array, "b *space c"],
        labels: Int[np.ndarray, " b"],
        boxes: Float[np.ndarray, "b k 4"],
        ids: Int[np.ndarray, " b"],
        live: Bool[np.ndarray, " b"],
    ) -> tuple[dict[str, np.ndarray], dict[str, Maps]]:
        """The columns [b, methods], and the maps, of the methods that noise key r runs."""
        key = jax.random.fold_in(self.key, r)
        methods = {name: method for name, method in self.methods.items() if r == 0 or self.draws[name]}
        maps: dict[str, Maps] = {}
        for name, method in methods.items():
            maps[name] = jax.device_get(self.run(method, images, labels, key, ids, live))
            self.tell(int(live.sum()), 0 if takes(method, "devices") else int(maps[name].passes[live].sum()))
        if not maps:
            return {}, {}
        stack = np.stack([each.maps for each in maps.values()])
        # The metrics' own random numbers are the same for every method and noise key.
        arguments = (self.params, images, jnp.asarray(labels), jnp.asarray(boxes))
        common = (self.key, jnp.asarray(ids))
        columns = columns_of(self.simple, self.apply, self.mesh, *arguments, jnp.asarray(stack.swapaxes(0, 1)), *common)

        def explain(inputs: Float[Array, "m b *space c"]) -> Float[Array, "m b *space"]:
            again = zip(methods.values(), inputs, strict=True)
            return jnp.stack([jnp.asarray(self.run(method, x, labels, key, ids, live).maps) for method, x in again])

        if self.rerunning:
            case = library.Case(self.apply, *arguments, jnp.asarray(stack), *common, explain)
            rerun = library.measure(self.rerunning, case)
            columns = columns | {name: column.T for name, column in rerun.items()}
        # As asked for: what comes out of `jax.jit` is sorted by name.
        ordered = sorted(columns, key=lambda column: self.metrics.index(column.partition("@")[0]))
        return {name: np.asarray(columns[name]) for name in ordered}, maps

    def together(
        self, found: Sequence[tuple[dict[str, np.ndarray], dict[str, Maps]]], live: Bool[np.ndarray, " b"]
    ) -> tuple[Any, ...]:
        """The columns' names, and values, flat, passes and raw with their leading axes keys, methods, live images."""
        if not found:
            none = (self.keys, len(self.methods), 0)
            return (), np.zeros((*none, 0), np.float32), np.zeros(none, bool), np.zeros(none, int), np.zeros(none, "f4")
        columns = tuple(found[0][0])
        n, shape = int(live.sum()), (self.keys, len(self.methods))
        grid = min((each.raw.shape[1:] for each in found[0][1].values()), key=math.prod)
        values = np.full((*shape, n, len(columns)), np.nan, np.float32)
        flat, passes = np.zeros((*shape, n), bool), np.zeros((*shape, n), np.int32)
        raw = np.full((*shape, n, *grid), np.nan, np.float32)
        positions = {name: m for m, name in enumerate(self.methods)}
        for r, (measured, maps) in enumerate(found):
            for i, (name, each) in enumerate(maps.items()):
                m = positions[name]
                for k, column in enumerate(columns):
                    values[r, m, :, k] = measured[column][live, i]
                flat[r, m], passes[r, m] = each.flat[live], each.passes[live]
                # Methods without a layer answer at the input's resolution.
                raw[r, m] = jax.image.resize(each.raw[live], (n, *grid), "linear")
        return columns, values, flat, passes, raw


def measured(
    apply: Apply,
    params: Params,
    batches: Iterable[Batch],
    methods: Mapping[str, Method],
    metrics: Sequence[str],
    *,
    key: Key[Array, ""],
    keys: int = 1,
    target: Target = "truth",
    first: int = 0,
    devices: Sequence[jax.Device] | None = None,
    tell: Callable[[int, int], None] = lambda maps, passes: None,
) -> Iterator[Part]:
    """Methods measured by metrics, a batch at a time.

    All methods see the same images, classes and, but for their own noise, the same random numbers. A method that takes
    `devices` (Score-CAM, SS-CAM) runs image by image, each image's passes shared among the devices; the others and the
    metrics take a whole batch, its images shared among them.

    Args:
        apply: the network, cut at the target layer.
        params: its parameters.
        batches: `Batch`es of one shape; from `data.batches`, or any iterable.
        methods: by the names that they get in tables; `functools.partial` binds settings.
        metrics: names of `metrics.METRICS`.
        key: what all random numbers are drawn from.
        keys: how often methods that draw are run, each time with another noise.
        target: explain the class that the data set gives ("truth") or the network's ("predicted").
        first: begin with this batch.
        devices: of this process; None: all of them.
        tell: called with how many maps are done and how many passes they took, as the work goes on.

    Yields:
        What was measured on each batch.

    Raises:
        ValueError: an unknown metric or target, no method, labels that are no classes of the network.

    Example:
        >>> from sscam_jax import grad_cam
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)))
        >>> images = np.float32([[[[1, 0], [0, 1]], [[0, 1], [0, 1]]]])
        >>> batch = Batch(images, np.int32([0]), np.float32([[[0, 0, 0.5, 0.5]]]), np.int32([0]), np.array([True]))
        >>> [part] = measured(apply, (), [batch], {"grad-cam": grad_cam}, ["energy"], key=jax.random.key(0))
        >>> part.columns, part.values.tolist()
        (('energy',), [[[[100.0]]]])
    """
    if target not in ("truth", "predicted"):
        raise ValueError(f"target '{target}' is not known; choose from 'truth', 'predicted'")
    if not methods:
        raise ValueError("no methods: expected at least one")
    if keys < 1:
        raise ValueError(f"keys is {keys}, expected at least 1")
    for name in metrics:
        if name not in library.METRICS:
            raise ValueError(f"metric '{name}' is not known; choose from {', '.join(map(repr, library.METRICS))}")
    chosen = jax.local_devices() if devices is None else devices
    evaluation = _Evaluation(apply, params, methods, metrics, key, keys, target, chosen, tell)
    if first and hasattr(batches, "from_batch"):
        batches = batches.from_batch(first)
    else:
        batches = itertools.islice(batches, first, None)
    return map(evaluation.part, batches)
