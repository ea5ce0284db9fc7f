"""A hook of mkdocs: a page for each method, made from the registry and `choosing.md`; and `llms.txt`."""

import pathlib
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sscam_jax.cams import registry

DOCS = pathlib.Path(__file__).parent
CHOOSING = (DOCS / "choosing.md").read_text("utf-8")

PAGE = """# {title}

{made}

![{title} on three photographs](../../gallery/{function}.jpg)

**Good for**: {use}

| | |
|---|---|
| forward passes | {passes} |
| gradient | {gradient} |
| source | {source} |
| on the command line | `sscam explain cat.jpg --method {name}` |
{presets}
[Choosing a method](../../choosing.md) compares the methods. The picture is part of the [gallery](../../gallery.md).

## Reference

::: sscam_jax.{function}
"""


def methods() -> dict[str, registry.Entry]:
    """The methods of the registry without the controls."""
    return {name: entry for name, entry in registry.ENTRIES.items() if name not in registry.CONTROLS}


def page(name: str, entry: registry.Entry) -> str:
    """The page of one method: what the tables of `choosing.md` say of it, its picture, and its docstring."""
    function = entry.method.__name__
    link = rf"\[`{function}`\]\[sscam_jax\.{function}\]"
    [row] = re.findall(rf"^\| {link} \| (.*) \|$", CHOOSING, re.MULTILINE)
    [use] = re.findall(rf"^\* {link}: (.*)$", CHOOSING, re.MULTILINE)
    made, gradient, passes, source = row.split(" | ")
    presets = f"| presets | {', '.join(f'`{preset}`' for preset in entry.presets)} |\n" if entry.presets else ""
    text = PAGE.format(
        title=entry.title,
        made=f"{made[0].upper()}{made[1:]}.",
        function=function,
        use=use,
        passes=passes,
        gradient=gradient,
        source=source,
        name=name,
        presets=presets,
    )
    if not (DOCS / "gallery" / f"{function}.jpg").exists():
        text = re.sub(r"!\[.*?\)\n\n", "", text).replace("The picture is part of the [gallery]", "See the [gallery]")
    return text


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the methods' pages into the navigation, below that of all methods."""
    [api] = [part["API"] for part in config.nav or [] if "API" in part]
    place = api.index("api/methods.md")
    api[place] = {"Methods": ["api/methods.md", *(f"api/methods/{name}.md" for name in _files())]}
    return config


def _files() -> dict[str, str]:
    """The pages' texts by the names of their files."""
    return {entry.method.__name__: page(name, entry) for name, entry in methods().items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the methods' pages."""
    for name, text in _files().items():
        files.append(File.generated(config, f"api/methods/{name}.md", content=text))
    return files


def on_env(env: Any, config: MkDocsConfig, files: Files) -> None:
    """Write `llms.txt`: what the site is about, and every page with its address and its first sentence."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for file in files.documentation_pages():
        sentences = re.findall(r"^[A-Z`*][^|\n]{20,}", file.content_string, re.MULTILINE)
        first = re.sub(r"!?\[(.*?)\][\[(].*?[\])]", r"\1", sentences[0]) if sentences else "reference"
        title = file.page.title if file.page else file.name
        lines.append(f"- [{title}]({file.url}): {first}")
    files.append(File.generated(config, "llms.txt", content="\n".join(lines) + "\n"))
