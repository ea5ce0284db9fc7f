"""Whether a network's output comes out of a softmax or a sigmoid, as its trace shows."""

from typing import Any

from jax.extend import core

# These change how values lie or are stored, not what they mean.
_SAME_VALUES = {"broadcast_in_dim", "convert_element_type", "copy", "reshape", "slice", "squeeze", "transpose"}
_SAME_VALUES |= {"gather", "dynamic_slice", "stop_gradient", "sharding_constraint"}


def last_activation(jaxpr: Any, output: Any) -> str | None:
    """'softmax' or 'sigmoid' where an output of a trace is the result of one, else None."""
    # Read off the trace and not off values: positive numbers that sum to 1 may be logits by chance, and values are not
    # there while a method is compiled.
    equation, inside = _made_by(jaxpr, output)
    if equation is None:
        return None
    # `jax.nn.sigmoid` is one primitive; `jax.nn.softmax` is not.
    if equation.primitive.name == "logistic":
        return "sigmoid"
    if equation.primitive.name != "div":
        return None
    # exp(z) / Σ exp(z): the sum is made of what it divides.
    (top, _), (bottom, within) = (_made_by(inside, value) for value in equation.invars)
    if top is None or bottom is None or (top.primitive.name, bottom.primitive.name) != ("exp", "reduce_sum"):
        return None
    return "softmax" if _made_by(within, bottom.invars[0])[0] is top else None


def _made_by(jaxpr: Any, value: Any) -> tuple[Any, Any]:
    """The equation that gives a value its numbers, and the jaxpr that it stands in; (None, jaxpr) for an input."""
    makers = {output: equation for equation in jaxpr.eqns for output in equation.outvars}
    while not isinstance(value, core.Literal) and value in makers:
        equation = makers[value]
        # A function under `jit` or `custom_jvp`, as `jax.nn.softmax` is: what makes the value is inside.
        inner = next(filter(None, map(_jaxpr, equation.params.values())), None)
        if inner is not None and len(inner.outvars) == len(equation.outvars):
            found = _made_by(inner, inner.outvars[equation.outvars.index(value)])
            return found if found[0] is not None else (equation, jaxpr)
        if equation.primitive.name not in _SAME_VALUES:
            return equation, jaxpr
        value = equation.invars[0]
    return None, jaxpr


def _jaxpr(parameter: Any) -> Any:
    """The jaxpr among the parameters of an equation that calls a function."""
    if isinstance(parameter, core.ClosedJaxpr):
        return parameter.jaxpr
    return parameter if isinstance(parameter, core.Jaxpr) else None
