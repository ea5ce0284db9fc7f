"""A traced network cut in two at a marked value: what leads to the value, and what follows from it.

JAX's trace of a network is a list of equations. Each depends on the parameters alone, on the image, or on the marked
value, and so belongs to both halves, to the first, or to the second. What the second half needs of the image beside
the marked value (skip connections, for example) is handed over: the first half returns it.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from jax.extend import core

_PARAMS, _IMAGE, _MARKED = range(3)  # what an equation depends on: the last that applies

mark = core.Primitive("sscam_cut")
"""The identity; where it stands in the trace, `split` cuts. It is never run."""
mark.def_abstract_eval(lambda value: value)


class Halves(NamedTuple):
    """The two halves of a network.

    Attributes:
        before: `(*params, image) -> (marked value, *handed over)`.
        after: `(*params, marked value, *handed over) -> outputs`.
    """

    before: core.ClosedJaxpr
    after: core.ClosedJaxpr


def split(closed: core.ClosedJaxpr) -> Halves | None:
    """Cut a trace `(*params, image) -> outputs` at its `mark`; None where no output depends on the marked value."""
    jaxpr = closed.jaxpr
    *params, image = jaxpr.invars
    needs: dict[Any, int] = dict.fromkeys([*jaxpr.constvars, *params], _PARAMS) | {image: _IMAGE}
    parts: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    marking = None
    for equation in jaxpr.eqns:
        # What it needs is the most that any of its inputs needs.
        need = max((needs[value] for value in _variables(equation.invars)), default=_PARAMS)
        if equation.primitive is mark:
            marking, need = equation, _MARKED
        else:
            parts[need].append(equation)
        needs.update(dict.fromkeys(equation.outvars, need))
    outputs = _variables(jaxpr.outvars)
    if marking is None or all(needs[value] < _MARKED for value in outputs):
        return None
    # In the order of use and each once: the carry must have the same structure in every trace of the same network.
    used = [value for equation in parts[_MARKED] for value in _variables(equation.invars)]
    handed_over = list(dict.fromkeys(value for value in [*used, *outputs] if needs[value] == _IMAGE))
    before = _half(closed, [*params, image], [marking.invars[0], *handed_over], parts[_PARAMS] + parts[_IMAGE])
    # Both halves compute what depends on the parameters alone. To hand it over would copy it for every image.
    rest = parts[_PARAMS] + parts[_MARKED]
    return Halves(before, _half(closed, [*params, marking.outvars[0], *handed_over], jaxpr.outvars, rest))


def _variables(atoms: Iterable[Any]) -> list[Any]:
    """What is computed, without the literals."""
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _half(
    closed: core.ClosedJaxpr, inputs: Sequence[Any], outputs: Sequence[Any], equations: Sequence[Any]
) -> core.ClosedJaxpr:
    """The equations that the outputs need, as a function of the inputs."""
    needed, kept = set(_variables(outputs)), []
    for equation in reversed(equations):
        # Backwards: what a needed equation takes is needed. Equations with effects, such as a debugging print, stay.
        if equation.effects or needed.intersection(equation.outvars):
            kept.append(equation)
            needed.update(_variables(equation.invars))
    jaxpr = closed.jaxpr.replace(invars=list(inputs), outvars=list(outputs), eqns=kept[::-1])
    return core.ClosedJaxpr(jaxpr, closed.consts)
