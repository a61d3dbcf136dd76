"""The report of a run: notebook 05 as `index.html`, the other notebooks and the cards as its further pages."""

from __future__ import annotations

from pathlib import Path

from fracsurv.report.cards import write_cards
from fracsurv.report.render import Link, executed, page_title, render_notebook
from fracsurv.study.ablation import read_ablation
from fracsurv.study.provenance import provenance
from fracsurv.study.results import finished
from fracsurv.study.run import Run
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import write_json

MAIN = "05_ablation_tables"


def write_report(run: Run) -> Path:
    """Write `index.html`, `provenance.json`, the cards, and a page for each executed notebook of the run.

    Returns
    -------
    Path
        Of `index.html`.

    Raises
    ------
    UserError
        Where notebook 05 has not been executed, or no experiment is finished.
    """
    main = run.out / "notebooks" / f"{MAIN}.ipynb"
    names = finished(run)
    if not names:
        raise UserError(f"{run.out}: no experiment is finished; run `fracsurv run` first")
    if not main.exists():
        raise UserError(f"{main}: not there; `fracsurv run` executes it, and so does papermill (docs/running.md)")
    write_json(run.out / "provenance.json", provenance(run, names))
    kind = run.cohort.provenance
    cards = write_cards(run, read_ablation(run)[0])
    others = [path for path in executed(main.parent, names) if path != main]
    for path in others:
        render_notebook(path, path.with_suffix(".html"), home="../index.html", kind=kind)
    menu = [Link(f"notebooks/{path.stem}.html", page_title(path)) for path in others]
    menu += [Link(f"pages/{path.name}", called) for path, called in cards.items()]
    page = run.out / "index.html"
    render_notebook(main, page, menu=menu, kind=kind, sections=True)
    _remove_former([path.with_suffix(".html") for path in others], list(cards))
    return page


def _remove_former(*written: list[Path]) -> None:
    """Remove pages of a former report that this one has no more; each list holds all pages of one folder."""
    for files in written:
        for former in {path for file in files for path in file.parent.glob("*.html")} - set(files):
            former.unlink()
