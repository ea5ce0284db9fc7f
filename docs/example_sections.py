"""A plugin of mkdocstrings: the docstrings' `Example:` as a section of code, whose name Griffe has in the plural."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Rename the heading before the docstring is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
