"""What is to be measured, checked before anything is written: network, methods and metrics, ready for batches."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from sscam_jax import metrics as library
from sscam_jax._support import choose
from sscam_jax.evaluation import fingerprint, methods
from sscam_jax.evaluation._sharded import no_rerun
from sscam_jax.evaluation.methods import Explainer
from sscam_jax.metrics import Case, Metric
from sscam_jax.types import Apply, Batch, Params

Target = Literal["truth", "predicted"]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """A network, methods and metrics, ready to measure batches.

    Attributes:
        apply: the network.
        params: its parameters, on all devices.
        explainers: the methods by name.
        metrics: the metrics by name.
        compiled: the names of the metrics that JAX can compile; the others run on the host.
        identity: what determines the numbers of a batch.
        key: what all random numbers are drawn from.
        keys: how often methods that draw random numbers are run.
        target: "truth" or "predicted".
        colours: mean and standard deviation of the images' channels.
        mesh: the devices.
    """

    apply: Apply
    params: Params
    explainers: Mapping[str, Explainer]
    metrics: Mapping[str, Metric]
    compiled: frozenset[str]
    identity: Mapping[str, Any]
    key: Key[Array, ""]
    keys: int
    target: Target
    colours: tuple[tuple[float, ...], tuple[float, ...]]
    mesh: Mesh

    @property
    def maps_per_image(self) -> int:
        """How many maps an image gets."""
        return sum(self.keys if each.draws else 1 for each in self.explainers.values())


def checked_metrics(metrics: Mapping[str, Metric] | Iterable[str]) -> dict[str, Metric]:
    """The metrics by name, if all of them are possible.

    Args:
        metrics: names of `metrics.METRICS`, or metrics by name.

    Returns:
        The metrics, each with a title.

    Raises:
        ValueError: there is none, a name is not known or not possible, or a value is not a `Metric`.
    """
    # A text is iterable too: its letters would be refused, one by one, as names that are not known.
    if isinstance(metrics, str):
        raise ValueError(f"metrics is {metrics!r}, expected a list of names: [{metrics!r}]")
    found = dict(metrics) if isinstance(metrics, Mapping) else library.named(metrics)
    if not found:
        raise ValueError(f"no metrics: expected at least one; choose from {', '.join(map(repr, library.METRICS))}")
    for name, metric in found.items():
        if "@" in name:
            raise ValueError(f"metric name '{name}' has an '@', which stands before an operating point: leave it out")
        if not isinstance(metric, Metric):
            raise ValueError(
                f"metric '{name}' is {metric!r}, expected a sscam_jax.metrics.Metric: "
                "Metric(function, better='higher', unit='%')"
            )
        choose(f"better of metric '{name}'", metric.better, ("higher", "lower"))
        choose(f"unit of metric '{name}'", metric.unit, ("%", ""))
        if metric.hits and metric.unit != "%":
            raise ValueError(f"metric '{name}' has hits=True and no unit: values of hits are 0 or 100, give unit='%'")
        found[name] = dataclasses.replace(metric, title=metric.title or name)
    return found


def check_batch(batch: Batch) -> None:
    """Refuse a batch whose arrays are not what they should be.

    Args:
        batch: the batch.

    Raises:
        ValueError: with the field, what it holds, what was expected, and the remedy.
    """
    sizes = {name: len(field) for name, field in batch._asdict().items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"a batch's fields have {sizes} rows, expected the same number: one row per image")
    # A network takes 8-bit pixels without an error, and gives other classes.
    if not jnp.issubdtype(np.asarray(batch.images).dtype, jnp.floating):
        raise ValueError(
            f"images are {np.asarray(batch.images).dtype}, expected floats as the network takes them: "
            "sscam_jax.preprocess makes them of photographs"
        )
    # XLA's maximum on a CPU takes NaN for the smaller one, so ReLU hides it, and the logits do not show it.
    if not (finite := np.isfinite(images := np.asarray(batch.images)[np.asarray(batch.mask)])).all():
        wrong = np.asarray(batch.ids)[np.asarray(batch.mask)][~finite.reshape(len(images), -1).all(1)]
        raise ValueError(f"images of ids {wrong[:5].tolist()} hold NaN or ∞, expected finite numbers: leave them out")
    for name in ("labels", "ids"):
        if not np.issubdtype(np.asarray(getattr(batch, name)).dtype, np.integer):
            raise ValueError(
                f"{name} are {np.asarray(getattr(batch, name)).dtype}, expected integers: convert "
                "them with .astype('int32')"
            )
    boxes, ids = np.asarray(batch.boxes), np.asarray(batch.ids)
    # Pixels instead of shares would give every map all of its energy, and every maximum a hit.
    there = ~(boxes == -1).all(-1)
    wrong = there & ~((boxes >= 0) & (boxes <= 1)).all(-1)
    wrong |= there & ~((boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1]))
    if wrong.any():
        row, k = np.argwhere(wrong)[0]
        raise ValueError(
            f"box {boxes[row, k].tolist()} of image {ids[row]} is not one: expected y0 < y1 and x0 < x1 as shares of "
            "the input in [0, 1]; divide pixels by the height and the width, and fill with rows of -1"
        )
    # An id is the seed of its image's noise and its place in the results: a second one would replace the first.
    used = ids[np.asarray(batch.mask)]
    if (used < 0).any() or len(set(used.tolist())) < len(used):
        raise ValueError(
            f"ids {used.tolist()} of a batch are not different numbers from 0 on: each image needs its own, as "
            "np.arange(n) gives"
        )


def _check(keys: int, target: str, maps: Mapping[str, Any], metrics: Mapping[str, Metric]) -> None:
    choose("target", target, ("truth", "predicted"))
    if keys < 1:
        raise ValueError(f"keys is {keys}, expected at least 1: how often methods that draw noise are run")
    if maps and (again := [name for name, metric in metrics.items() if metric.reruns]):
        raise ValueError(
            f"metric '{again[0]}' runs the methods again, which stored maps ({', '.join(maps)}) cannot: "
            "leave the metric out, or give a function instead of maps"
        )


def _metric_identity(name: str, metric: Metric, apply: Apply, of: Mapping[str, Any], colours: Any) -> Any:
    """Whether JAX can compile a metric, and what tells it from others."""
    # The maps of one method: how many methods a run has, the fingerprint says elsewhere.
    maps = jax.ShapeDtypeStruct((1, *of["images"].shape[:-1]), jnp.float32)

    def call(params: Params, images: Any, labels: Any, boxes: Any, key: Any, ids: Any, maps: Any) -> Any:
        # Which methods a metric runs again, their own programs say.
        explain = (lambda inputs: inputs[..., 0].astype(jnp.float32)) if metric.reruns else no_rerun
        # In chunks of 16 on every device, because chunks change rounding only.
        case = Case(apply, params, images, labels, boxes, maps, key, ids, explain, colours[0], colours[1], 16)
        return library.measure({name: metric}, case)

    told = ("better", "needs_boxes", "reruns", "hits", "fewest")
    about = {each: getattr(metric, each) for each in told}
    try:
        return True, dict(about, program=fingerprint.program(jax.jit(call).trace(**of, maps=maps), metric.values))
    except jax.errors.JAXTypeError:  # it looks at numbers, as NumPy and Quantus do
        return False, dict(about, code=fingerprint.code(metric.values))


def _network_identity(apply: Apply, of: Mapping[str, Any]) -> dict[str, str]:
    """What tells a network, and where it is cut, from others."""
    # Both halves: another cut moves layers from one to the other, and the whole stays the same.
    activations, carry = jax.eval_shape(apply.features, of["params"], of["images"])
    features = jax.jit(apply.features).trace(of["params"], of["images"])
    head = jax.jit(apply.head).trace(of["params"], activations, carry)
    return dict(features=fingerprint.program(features, apply.features), head=fingerprint.program(head, apply.head))


def _compiled(metrics: Mapping[str, Metric], can: Mapping[str, bool], mesh: Mesh) -> frozenset[str]:
    """The metrics that run compiled, of those that JAX can compile."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    # One that runs methods again stays on the host, because some methods do.
    stays = {name for name, metric in metrics.items() if metric.reruns or (metric.on_host and on_cpu)}
    return frozenset(name for name in metrics if can[name] and name not in stays)


def _placed(params: Params, devices: Sequence[jax.Device] | None) -> tuple[Mesh, Params]:
    """The devices, and the parameters on all of them."""
    # Of this process: each measures batches of its own, and none waits for another.
    mesh = Mesh(np.array(list(jax.local_devices() if devices is None else devices)), ("images",))
    return mesh, jax.device_put(params, NamedSharding(mesh, PartitionSpec()))


def plan(
    apply: Apply,
    params: Params,
    batch: Batch,
    given: methods.Methods,
    metrics: Mapping[str, Metric] | Iterable[str],
    *,
    maps: Mapping[str, Any] | None = None,
    controls: bool = True,
    key: Key[Array, ""],
    keys: int = 1,
    target: Target = "truth",
    colours: tuple[tuple[float, ...], tuple[float, ...]],
    devices: Sequence[jax.Device] | None = None,
) -> Plan:
    """Check everything that is asked for, and find out how to run it.

    Args:
        apply: the network, cut at the target layer.
        params: its parameters.
        batch: the data set's first batch, for its shapes.
        given: the methods, see `methods.named`.
        metrics: names of `metrics.METRICS`, or metrics by name.
        maps: stored maps by name, see `methods.stored`.
        controls: whether the controls are measured too.
        key: what all random numbers are drawn from.
        keys: how often methods that draw are run, each time with another noise.
        target: explain the class that the data set gives ("truth") or the network's ("predicted").
        colours: mean and standard deviation of the images' channels.
        devices: of this process; None: all of them.

    Returns:
        The `Plan`.

    Raises:
        ValueError: something is not possible: which field, what it holds, what was expected.
    """
    found, functions = checked_metrics(metrics), methods.named(given, maps or {}, controls=controls)
    _check(keys, target, maps or {}, found)
    check_batch(batch)
    # First, because it refuses what is not an array, before anything is compiled.
    hashed = fingerprint.arrays(params)
    explainers = {
        name: methods.prepared(name, function, choices, apply, params, batch)
        for name, (function, choices) in functions.items()
    }
    of = methods.shapes(batch, params)
    known = {name: _metric_identity(name, metric, apply, of, colours) for name, metric in found.items()}
    # Without the devices, which change rounding only.
    identity = dict(
        keys=keys,
        target=target,
        key=fingerprint.arrays(key),
        params=hashed,
        network=_network_identity(apply, of),
        methods={name: dict(each.identity) for name, each in explainers.items()},
        metrics={name: about for name, (_, about) in known.items()},
    )
    mesh, placed = _placed(params, devices)
    compiled = _compiled(found, {name: can for name, (can, _) in known.items()}, mesh)
    return Plan(apply, placed, explainers, found, compiled, identity, key, keys, target, colours, mesh)
