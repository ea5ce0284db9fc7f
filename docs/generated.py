"""A hook of mkdocs: a page for each method, made from the registry and `choosing.md`; `llms.txt`; tables that wrap."""

import pathlib
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from sscam_jax.cams import registry

DOCS = pathlib.Path(__file__).parent
CHOOSING = (DOCS / "choosing.md").read_text("utf-8")

# The formula of each method in TeX, as its docstring has it in plain text.
_CHANNELS = r"L^c = \mathrm{ReLU}\Big(\sum_k w_k A_k\Big)"
_MASKED = r"f^c(X \odot H_k"
_GRADIENT = r"\frac{\partial Y^c}{\partial A_k}"

FORMULAS = {
    "cam": rf"{_CHANNELS}, \qquad w_k \text{{ the weight of channel }} k \text{{ in the linear layer}}",
    "grad_cam": rf"{_CHANNELS}, \qquad w_k = \mathrm{{GAP}}\Big({_GRADIENT}\Big)",
    "grad_cam_pp": _CHANNELS
    + r", \qquad w_k = \sum_{ij} \frac{g_{ij}^2}{2 g_{ij}^2 + \big(\sum_{ab} A_{ab}\big)\, g_{ij}^3}"
    r" \,\mathrm{ReLU}(g_{ij}), \qquad g = " + _GRADIENT,
    "xgrad_cam": rf"{_CHANNELS}, \qquad w_k = \sum_{{ij}} \frac{{A_k^{{ij}}}}{{\sum_{{ab}} A_k^{{ab}}}}"
    r" \frac{\partial Y^c}{\partial A_k^{ij}}",
    "hires_cam": rf"L^c = \mathrm{{ReLU}}\Big(\sum_k {_GRADIENT} \odot A_k\Big)",
    "layer_cam": rf"L^c = \mathrm{{ReLU}}\Big(\sum_k \mathrm{{ReLU}}\Big({_GRADIENT}\Big) \odot A_k\Big)",
    "smooth_grad_cam_pp": _CHANNELS
    + r", \qquad w_k = \sum_{ij} \frac{D^2_{ij}}{2 D^2_{ij} + \big(\sum_{ab} A_{ab}\big) D^3_{ij}}"
    r" \,\mathrm{ReLU}(D^1_{ij}), \qquad D^p = \frac{1}{N} \sum_n g_n^p",
    "finer_cam": _CHANNELS + r", \qquad w_k = \mathrm{GAP}\Big(\frac{\partial}{\partial A_k}"
    r"\Big(Y^c - \frac{\gamma}{T} \sum_t Y^{d_t}\Big)\Big)",
    "shapley_cam": _CHANNELS
    + r", \qquad w_k = \mathrm{GAP}\Big(\frac{\partial u}{\partial A_k} - \frac{1}{2} (H A)_k\Big)"
    r", \qquad u = Y^c + \log p^c",
    "eigen_cam": r"L = \mathrm{ReLU}(A V_1), \qquad A = U \Sigma V^\top",
    "eigen_grad_cam": r"L^c = \mathrm{ReLU}(M V_1), \qquad M = U \Sigma V^\top"
    rf", \qquad M_k = {_GRADIENT} \odot A_k - \mathrm{{GAP}}\Big({_GRADIENT} \odot A_k\Big)",
    "ablation_cam": rf"{_CHANNELS}, \qquad w_k = \frac{{Y^c - Y^c_k}}{{|Y^c|}}",
    "recipro_cam": r"L^c_n = f^c(M_n \otimes A_n)",
    "group_cam": r"L^c = \mathrm{ReLU}\Big(\sum_g \alpha_g H_g\Big)"
    r", \qquad \alpha_g = f^c(X \odot H_g + B \odot (1 - H_g)) - f^c(B)",
    "score_cam": rf"{_CHANNELS}, \qquad w_k = {_MASKED}) - f^c(X_b), \qquad H_k = s(U(A_k))",
    "ss_cam": rf"{_CHANNELS}, \qquad w_k = \max_{{i = 1 \dots N}} {_MASKED} + \varepsilon_i)",
    "is_cam": rf"{_CHANNELS}, \qquad w_k = \frac{{1}}{{N}} \sum_i f^c(t_i \, X \odot H_k) - f^c(X_b)",
    "rise": r"L^c = \frac{1}{p N} \sum_i f^c(X \odot M_i)\, M_i",
    "occlusion": r"L^c(x) = \operatorname{mean}_{w \ni x} \big(f^c(X) - f^c(X \text{ without } w)\big)",
}

PAGE = """# {title}

{made}

\\[{formula}\\]

![{title} on three photographs](../../gallery/{function}.webp)

**Good for**: {use}

* **Forward passes**: {passes}
* **Gradient**: {gradient}
* **Source**: {source}
* **Command line**: `sscam explain cat.jpg --method {name}`
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
    presets = f"* **Presets**: {', '.join(f'`{preset}`' for preset in entry.presets)}\n" if entry.presets else ""
    text = PAGE.format(
        title=entry.title,
        made=f"{made[0].upper()}{made[1:]}.",
        formula=FORMULAS[function].replace(r", \qquad ", ",\\]\n\n\\["),
        function=function,
        use=use,
        passes=passes,
        gradient=gradient,
        source=source,
        name=name,
        presets=presets,
    )
    if not (DOCS / "gallery" / f"{function}.webp").exists():
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


# A cell with more characters of text than these keeps a readable width on a phone.
_LONG = 28


def _cell(found: re.Match[str]) -> str:
    """A cell of a table whose code may wrap after punctuation, and nowhere else."""
    inner = re.sub(
        r"(?<=<code>)[^<]+", lambda code: re.sub(r"(?<=\w{3})[,_/.:](?=\w)", r"\g<0><wbr>", code[0]), found["inner"]
    )
    text = re.sub(r"<[^>]*>|\s+(?=\s)", "", inner)
    long = ' class="long"' if len(text) > _LONG else ""
    return f"<td{long}{found['attributes']}>{inner}</td>"


def on_page_content(html: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Prepare the tables for narrow windows; `assets/site.css` has the widths."""
    return re.sub(r"<td(?P<attributes>[^>]*)>(?P<inner>.*?)</td>", _cell, html, flags=re.DOTALL)
