"""HTML pages that stand alone: nothing is fetched; of executed notebooks, code is folded and markup sanitised."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import bleach
import jinja2
import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config

from fracsurv.utils.files import write_text

OF_ONE = "04_fusion_training_"  # with an experiment's name behind it
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


def template(name: str) -> jinja2.Template:
    """One of the pages' templates: its texts are escaped, and keep a number and its sign on one line."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, finalize=_untorn
    )
    return environment.get_template(name)


def _untorn(value: object) -> object:
    is_text = isinstance(value, str) and not hasattr(value, "__html__")  # not what is markup already
    return TORN.sub("\N{NO-BREAK SPACE}", value) if is_text else value


def css() -> str:
    """The one stylesheet of all pages."""
    return (TEMPLATES / "style.css").read_text(encoding="utf-8")


def notebook_pages(folder: Path, names: Collection[str]) -> list[dict[str, str]]:
    """Write each executed notebook of `folder` as HTML beside it; `file` and `title` of each, in order.

    One of a single experiment only if that is among `names`: others lie there of the cohort as it was before.
    """
    pages = []
    for path in sorted(folder.glob("*.ipynb")):
        of = path.stem.partition(OF_ONE)
        if of[1] and of[2] not in names:
            continue
        notebook = nbformat.read(path, as_version=4)
        target = path.with_suffix(".html")
        write_text(target, notebook_html(notebook, path.stem))
        pages.append({"file": target.name, "title": _title(notebook, path.stem)})
    return pages


def notebook_html(notebook: nbformat.NotebookNode, name: str) -> str:
    """A notebook as one self-contained page."""
    settings = Config({"CSSHTMLHeaderPreprocessor": {"style": "default"}})
    exporter = HTMLExporter(
        config=settings,
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        sanitize_html=True,
        exclude_anchor_links=True,
        filters={"clean_html": _clean},
    )
    resources = {"metadata": {"name": name}, "fracsurv_css": css()}
    return exporter.from_notebook_node(notebook, resources=resources)[0]


def _clean(markup: object) -> str:
    return bleach.clean(str(markup), tags=TAGS, attributes=ATTRIBUTES)


def _title(notebook: nbformat.NotebookNode, fallback: str) -> str:
    """The first heading; for a notebook that is run once an experiment, with the experiment's name."""
    first = next((c.source for c in notebook.cells if c.cell_type == "markdown" and c.source.startswith("# ")), "")
    title = first.splitlines()[0].removeprefix("# ") if first else fallback
    experiment = notebook.metadata.get("papermill", {}).get("parameters", {}).get("experiment")
    return f"{title} ({experiment})" if experiment else title
