"""Targets beyond a class: any numbers that a function makes of a network's outputs."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import Array

from sscam_jax.adapt.tap import all_outputs
from sscam_jax.types import Apply, Params, Sections


def target(apply: Apply, params: Params, function: Callable[..., Array], *arrays: Array) -> tuple[Apply, Params]:
    """The network with numbers of your own in the place of its logits; labels are then their indices.

    The function is `function(outputs, *arrays) -> targets [b, n]`, outputs those of the network, which need not be
    logits, and images must not mix in it. Target i of image j is explained where labels[j] is i. So:

    * a difference of classes: `outputs[:, first] - outputs[:, second]` with index arrays `first` and `second` [n];
    * a network with a single logit: `jnp.concatenate([jnp.zeros_like(outputs), outputs], 1)`, which has the same
      probabilities, so that labels are 0 and 1;
    * similarity to n embeddings [n, d]: `outputs @ embeddings.T`;
    * segmentation, outputs [b, h, w, classes]: `jnp.einsum("bhwc,nhwc->bn", outputs, masks)`, a sum over a region.

    Methods that score by "probability" take a softmax over the n targets. Where these do not exclude one another,
    choose `score="logit"`, which is the target itself; for n independent classes, a function such as
    `lambda logits, label: jax.nn.sigmoid(logits[label])`.

    Args:
        apply: the network.
        params: its parameters.
        function: makes the targets; static: pass the same function object to reuse a compilation.
        arrays: what else the function takes, traced: other values compile nothing.

    Returns:
        The network, and the parameters that it takes: {"network": params, "target": arrays}.

    Example:
        >>> import jax.numpy as jnp
        >>> from sscam_jax import adapt, grad_cam
        >>> apply = Apply(features=lambda params, x: (x, ()),
        ...               head=lambda params, activations, carry: activations.mean((1, 2)) @ params)
        >>> def difference(logits, first, second):
        ...     return logits[:, first] - logits[:, second]
        >>> two, params = adapt.target(apply, jnp.eye(3), difference, jnp.array([0, 1]), jnp.array([2, 2]))
        >>> grad_cam(two, params, jnp.ones((1, 2, 2, 3)), [1]).weights.tolist()
        [[0.0, 0.25, -0.25]]
    """
    cut = apply.sections
    # What makes a network fast stays: a target changes what comes after the logits only.
    sections = cut and Sections(_Of(cut.early), _Then(cut.late, function))
    for_cpu = apply.for_cpu and _ForCPU(apply.for_cpu)
    # A target of a detector needs more outputs than the one that `logits=` would choose.
    head = _Then(all_outputs(apply.head), function)
    targeted = Apply(_Of(apply.features), head, sections, for_cpu, apply.imagenet)
    # As parameters they are traced, so another text or region compiles nothing.
    return targeted, {"network": params, "target": arrays}


@dataclasses.dataclass(frozen=True)
class _Of:
    part: Callable[..., Any]

    def __call__(self, params: Params, *args: Any) -> Any:
        return self.part(params["network"], *args)


@dataclasses.dataclass(frozen=True)
class _Then:
    part: Callable[..., Any]
    function: Callable[..., Array]

    def __call__(self, params: Params, *args: Any) -> Array:
        return self.function(self.part(params["network"], *args), *params["target"])


@dataclasses.dataclass(frozen=True)
class _ForCPU:
    part: Callable[[Params], Params]

    def __call__(self, params: Params) -> Params:
        return {**params, "network": self.part(params["network"])}
