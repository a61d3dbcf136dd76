"""What the notebooks share: the run that their parameters name, and showing figures and tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from IPython.display import HTML, Markdown, display
from matplotlib.figure import Figure

from fracsurv.config import TRUE_RISK, WORKPLACE, load_profile
from fracsurv.plots import as_png, as_svg, set_style
from fracsurv.report.tables_export import as_text, to_html, write_table
from fracsurv.study.labels import provenance_lines
from fracsurv.study.prepare import prepare, prepare_store
from fracsurv.study.results import evaluated_alpha, is_complete
from fracsurv.study.run import Run
from fracsurv.utils.devices import keep_freed_memory
from fracsurv.utils.errors import UserError, shorten
from fracsurv.utils.files import atomic_path, locked
from fracsurv.utils.formatting import plain

warnings.filterwarnings("ignore", message="IProgress not found")  # captum's progress bars need no widgets here
SHORT = {
    "simulated": "Simulated cohort: no number here says anything about real patients.",
    "semi-synthetic": "Real radiographs, simulated outcomes: no number here says anything about real fractures.",
    "real": "Real cohort.",
}


def text_of(parameter: object) -> str:
    """A notebook's parameter as text, empty for None: papermill makes a number of `-p cohort 2024`."""
    return "" if parameter is None else str(parameter)


def names_of(parameter: object) -> list[str]:
    """The names of a notebook's parameter: a list, or text with commas."""
    given = parameter if isinstance(parameter, list | tuple) else text_of(parameter).split(",")
    return [name for name in (text_of(each).strip() for each in given) if name]


def whole_of(name: str, parameter: object) -> int:
    """A notebook's parameter as a whole number; papermill may have made text of it, or 1000.0 of 1e3."""
    try:
        if float(parameter) == int(float(parameter)):
            return int(float(parameter))
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(f"parameter {name}: {shorten(parameter)}; must be a whole number")


def open_notebook(
    cohort: object = "", profile: object = "tiny", out: object = "", *, kinds: Iterable[str] = ()
) -> Run:
    """The run of a notebook's parameters, prepared; sets the figures' style.

    Parameters
    ----------
    cohort : str, path or number
        Cohort folder. Empty: the profile's own simulated cohort, `data/PROFILE`, made if it is not there.
    profile : str, path or number
        Name, or YAML file.
    out : str, path or number
        Folder of results. Empty: `reports/PROFILE` for the profile's own cohort, `reports/COHORT-PROFILE` else.
    kinds : iterable of 'crops' and 'full'
        The images that the notebook looks at.
    """
    settings = load_profile(text_of(profile))
    folder = Path(text_of(cohort) or WORKPLACE / "data" / settings.name)
    if not text_of(cohort):
        with locked(folder.with_name(f".{folder.name}.lock")):  # two notebooks may be opened at once
            if not folder.exists():
                from fracsurv.simulate import simulate_cohort

                simulate_cohort(folder, **settings.simulate, resolution=settings.scale, progress=False)
    own = folder.resolve() == (WORKPLACE / "data" / settings.name).resolve()
    name = settings.name if own else f"{folder.resolve().name}-{settings.name}"
    set_style()
    return prepare(folder, text_of(out) or WORKPLACE / "reports" / name, settings, kinds=kinds)


def ensure(run: Run, names: Iterable[str]) -> None:
    """Run whatever of these experiments is not done yet, without progress bars (notebooks are compared).

    Several notebooks may run at once: each experiment is fitted by one of them while the others that need it wait.
    """
    folds = range(run.profile.n_folds)
    names = [
        name
        for name in names
        if not all(is_complete(run, name, fold, evaluated_alpha(run, name, fold)) for fold in folds)
    ]
    if not names:
        return
    from fracsurv.study.experiments import run_experiment  # with torch: not for notebooks that show what is finished

    keep_freed_memory()
    for name in names:
        row = None if name == TRUE_RISK else run.experiment(name)
        if row is not None:
            ensure(run, row.pretrained.values())
            if row.needs_images:
                prepare_store(run, row.input)
        with locked(run.out / ".locks" / name):
            run_experiment(run, name, progress=False)


def show(figure: Figure, alt: str, save_as: Path | None = None, *, dpi: int = 110) -> None:
    """Show a figure as PNG with the alternative text `alt`; save it as SVG and PNG too if `save_as` is given.

    Parameters
    ----------
    save_as : Path, optional
        Without suffix.
    dpi : int
        Dots an inch in the notebook; photographs need fewer, and notebooks with fewer stay small.
    """
    if save_as is not None:
        for suffix, content in ((".svg", as_svg(figure)), (".png", as_png(figure, dpi=200))):
            with atomic_path(save_as.with_name(save_as.name + suffix)) as temporary:
                temporary.write_bytes(content)
    data = {"image/png": as_png(figure, dpi=dpi), "text/plain": f"figure: {alt}"}
    display(data, metadata={"image/png": {"alt": alt}}, raw=True)


def banner(run: Run, names: Iterable[str] = (), *, brief: bool = False) -> Markdown:
    """What a reader must know before any number: provenance, profile, finder; the encoders of these experiments.

    `brief`: the provenance and the profile alone, in one line.
    """
    lines = provenance_lines(run, names)
    if brief:
        size = " (made small, see the notes)" if run.profile.note else ""
        lines = [f"{SHORT[run.cohort.provenance]} Profile {run.profile.name}{size}."]
    return Markdown("\n>\n".join(f"> {plain(line)}" for line in lines))


def show_table(frame: pd.DataFrame, caption: str, save_as: Path | None = None) -> None:
    """Show a table; save it as CSV, as it is, and as LaTeX, as shown, if `save_as` is given.

    Parameters
    ----------
    frame : DataFrame
        Numbers and text, shown as `tables_export.as_text` says; the first column, or an index with a name, heads the
        rows. Columns are names, or pairs (group, name).
    caption : str
        Says what the numbers were made from.
    save_as : Path, optional
        Without suffix.
    """
    display(HTML(to_html(as_text(frame), caption)))
    if save_as is not None:
        save_table(frame, caption, save_as)


def save_table(frame: pd.DataFrame, caption: str, save_as: Path) -> None:
    """Save a table as `show_table` does, without showing it."""
    write_table(frame, as_text(frame), caption, save_as)
