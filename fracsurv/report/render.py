"""Executed notebooks as HTML pages that stand alone: nothing is fetched, code is folded, markup is sanitised."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import bleach
import jinja2
import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

from fracsurv.utils.files import write_text

OF_ONE = "04_fusion_training_"  # with an experiment's name behind it
HIDDEN_TAGS = {"parameters", "notebook-only"}
"""Cells that a page does not show."""
TEMPLATES = Path(__file__).resolve().parent / "templates"
# Everything that Markdown and our tables make, and nothing that runs or fetches: no script, style, img or iframe.
TAGS = frozenset(
    {"a", "abbr", "b", "blockquote", "br", "caption", "code", "dd", "div", "dl", "dt", "em", "h1", "h2", "h3", "h4",
     "h5", "h6", "hr", "i", "li", "ol", "p", "pre", "small", "span", "strong", "sub", "sup", "table", "tbody", "td",
     "th", "thead", "tr", "ul"}
)  # fmt: skip
ATTRIBUTES = {"*": ["class", "id"], "a": ["href"], "td": ["colspan"], "th": ["colspan", "scope"]}
TORN = re.compile(r"(?<=\d) (?=%)|(?<=\b[np]) (?=[<=] )|(?<=α) (?=[<=] )|(?<=\b[np] [<=]) (?=\d)|(?<=α [<=]) (?=\d)")
"""The spaces in '95 %', 'p < 0.001', 'n = 80' and 'α = 0.4': no line may end there."""


class Link(NamedTuple):
    """A page in the menu."""

    href: str
    title: str


def render_notebook(
    path: Path, target: Path, *, home: str = "", menu: Sequence[Link] = (), kind: str = "", sections: bool = False
) -> None:
    """Write an executed notebook as one self-contained page.

    Parameters
    ----------
    home : str
        Where "back to the report" leads; no such link if empty.
    menu : sequence of Link
        Further pages, listed under the first heading's cells.
    kind : str
        Provenance of the cohort, which gives the banner its colour.
    sections : bool
        Whether the page lists its own headings.
    """
    notebook = nbformat.read(path, as_version=4)
    settings = Config({
        "CSSHTMLHeaderPreprocessor": {"style": "default"},
        "TagRemovePreprocessor": {"enabled": True, "remove_cell_tags": HIDDEN_TAGS},
    })  # fmt: skip
    exporter = HTMLExporter(
        config=settings,
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        sanitize_html=True,
        filters={"clean_html": _clean, "caption": _caption},
    )
    resources = {"metadata": {"name": title(notebook, path.stem)}, "css": css(), "home": home, "menu": list(menu)}
    resources |= {"kind": kind, "headings": headings(notebook) if sections else []}
    write_text(target, exporter.from_notebook_node(notebook, resources=resources)[0])


def template(name: str) -> jinja2.Template:
    """One of the pages' templates: its texts are escaped, and keep a number and its sign on one line."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, finalize=_untorn
    )
    return environment.get_template(name)


def css() -> str:
    """The one stylesheet of all pages."""
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


def executed(folder: Path, names: Collection[str]) -> list[Path]:
    """The executed notebooks of a folder, in order; those of a single experiment only if that is among `names`."""
    found = sorted(folder.glob("*.ipynb"))
    return [path for path in found if not path.stem.startswith(OF_ONE) or path.stem.removeprefix(OF_ONE) in names]


def page_title(path: Path) -> str:
    """What the page of an executed notebook is called."""
    return title(nbformat.read(path, as_version=4), path.stem)


def title(notebook: nbformat.NotebookNode, fallback: str) -> str:
    """The first heading; for a notebook that is run once an experiment, with the experiment's name."""
    first = next((c.source for c in notebook.cells if c.cell_type == "markdown" and c.source.startswith("# ")), "")
    found = first.splitlines()[0].removeprefix("# ") if first else fallback
    experiment = notebook.metadata.get("papermill", {}).get("parameters", {}).get("experiment")
    return f"{found} ({experiment})" if experiment else found


def headings(notebook: nbformat.NotebookNode) -> list[Link]:
    """The second-level headings of a notebook, with the anchors that nbconvert gives them."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    return [Link("#" + words.replace(" ", "-"), words) for words in found]


def _untorn(value: object) -> object:
    is_text = isinstance(value, str) and not hasattr(value, "__html__")  # not what is markup already
    return TORN.sub("\N{NO-BREAK SPACE}", value) if is_text else value


def _clean(markup: object) -> str:
    return bleach.clean(str(markup), tags=TAGS, attributes=ATTRIBUTES)


def _caption(markup: str) -> str:
    """A table's caption; escaped already."""
    found = re.search(r"<caption>(.*?)</caption>", str(markup), flags=re.DOTALL)
    return found[1] if found else "of the notebook"
