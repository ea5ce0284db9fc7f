"""Which cases of a test are left to `make test-all`."""

from collections.abc import Iterable
from typing import Any

import pytest


def quick(chosen: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """All cases as parameters, of which `make test` runs the chosen ones; a tuple is one argument each."""
    chosen, cases = list(chosen), list(cases)
    assert all(case in cases for case in chosen), "a chosen case is not one of the test's"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=[] if case in chosen else [pytest.mark.slow]
        )
        for case in cases
    ]
