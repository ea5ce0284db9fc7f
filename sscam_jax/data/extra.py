"""The packages of the extra `data`, imported when they are first needed."""

import importlib
from types import ModuleType


def imported(name: str) -> ModuleType:
    """A package of the extra.

    Args:
        name: the package.

    Returns:
        The module.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"package '{name}' is not installed: pip install 'sscam_jax[data]'", name=name) from error
