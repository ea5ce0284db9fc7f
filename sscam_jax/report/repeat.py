"""What makes an explanation again: a command, or lines of Python."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sscam_jax import networks
from sscam_jax.report._plan import Request

_DEFAULTS = Request()
# What the command line has no option for.
_PYTHON_ONLY = ("class_names", "size", "mean", "std")


def _changed(request: Request, network: Mapping[str, str]) -> dict[str, Any]:
    """The settings that are not the default; the classes of a head come with its name."""
    fields = (field.name for field in dataclasses.fields(request))
    changed = {name: value for name in fields if (value := getattr(request, name)) != getattr(_DEFAULTS, name)}
    head = networks.class_names(network.get("model"), network.get("checkpoint"))
    # Names that come with the head would be forty lines of the call, and say nothing new.
    if head is not None and request.class_names == head:
        del changed["class_names"], changed["num_classes"]
    return changed


def python(names: Sequence[str], network: Mapping[str, str], request: Request) -> str:
    """Lines of Python that explain the same images again.

    Args:
        names: what the images are called.
        network: model, checkpoint and layer by name; empty for a network of the caller's.
        request: what was asked for.

    Returns:
        The lines.

    Example:
        >>> print(python(["cat.jpg"], dict(model="resnet18"), Request(seed=1)))
        import sscam_jax as sscam
        <BLANKLINE>
        found = sscam.explain(
            ['cat.jpg'],
            model='resnet18',
            seed=1,
        )
        found.report("report.html")
    """
    # A network of the caller's has no name: the line says where to put it.
    given: dict[str, Any] = {"model": "(apply, params)"} if not network else {k: repr(v) for k, v in network.items()}
    given |= {name: repr(_plain(value)) for name, value in _changed(request, network).items()}
    lines = [f"    {name}={value}," for name, value in given.items()]
    call = ["found = sscam.explain(", f"    {list(names)!r},", *lines, ")"]
    return "\n".join(["import sscam_jax as sscam", "", *call, 'found.report("report.html")'])


def _plain(value: Any) -> Any:
    # As Python writes it: the repr of a tuple of one, ("a",), is easy to misread.
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def shell(
    names: Sequence[str], layers: Sequence[Mapping[str, str]], request: Request, expected: Sequence[object] = ()
) -> str | None:
    """The command that writes the same report again.

    Args:
        names: what the images are called.
        layers: model, checkpoint and layer by name, of every layer; an empty one is a network of the caller's.
        request: what was asked for.
        expected: the classes that the images show.

    Returns:
        The command; None where the command line has no options for what was asked.

    Example:
        >>> shell(["my cat.jpg"], [dict(model="resnet18", checkpoint="a.pth", layer="layer4")], Request(budget=None))
        "sscam report 'my cat.jpg' --model resnet18 --checkpoint a.pth --layer layer4 --full --out report.html"
    """
    changed = _changed(request, layers[0])
    one = {(each.get("model"), each.get("checkpoint")) for each in layers}
    if not all(layers) or len(one) > 1 or any(name in changed for name in _PYTHON_ONLY):
        return None
    [(model, checkpoint)] = one
    # A file "-x.jpg" would be read as an option.
    words = ["sscam", "report", *(f"./{name}" if name.startswith("-") else name for name in names)]
    words += ["--model", str(model), "--checkpoint", str(checkpoint)]
    for each in layers:
        words += ["--layer", each["layer"]]
    for option, several in (("methods", "--method"), ("classes", "--class")):
        for value in changed.pop(option, ()):
            words += [several, str(value)]
    for value in expected:
        words += ["--expected", str(value)]
    if "budget" in changed:
        budget = changed.pop("budget")
        # None is a value here, "all passes", which the command line says by a flag.
        words += ["--full"] if budget is None else ["--budget", str(budget)]
    if changed.pop("faithfulness", False):
        words += ["--faithfulness"]
    for name, value in changed.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--out", "report.html"])
