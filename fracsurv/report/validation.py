"""An external validation: notebook 07 executed on a run and a cohort, and its folder, which appears whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nbformat

from fracsurv.config import ROOT
from fracsurv.pipeline.notebook_job import execute_notebook
from fracsurv.predict.shift import values_beyond_training
from fracsurv.predict.validation_files import admit
from fracsurv.report.render import render_notebook
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import atomic_folder, check_outside

NOTEBOOK = "07_external_validation"


def write_validation(
    run: Path,
    folder: Path,
    out: Path,
    names: Sequence[str],
    *,
    overlap: str,
    n_draws: int,
    seed: int,
    workers: int = 1,
    beyond_training: bool = False,
) -> list[str]:
    """Execute notebook 07 on a run's models and a cohort, and write the new folder `out`.

    It holds the notebook, its page `index.html`, and what the notebook writes: `validation.csv`, `predictions.csv`,
    `recalibration.json`, `warnings.txt` (if there are any), `tables/` and `figures/`.

    Parameters
    ----------
    run, folder, names, overlap, beyond_training
        As for `validation_files.admit`.

    Returns
    -------
    list of str
        The verdict, and the warnings.

    Raises
    ------
    UserError
        As `admit`, before the notebook runs; for a folder `out` that is taken; for radiographs that cannot be read.
    """
    check_outside(out, folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: is there already and not empty; give a new folder")
    admitted = admit(run, folder, names, overlap, beyond_training=beyond_training)
    first = next(iter(admitted.models.values()))
    both_real = first[0].about["provenance"] == admitted.cohort.provenance == "real"
    parameters = {"run": str(run.resolve()), "cohort": str(folder.resolve()), "out": "."}  # the notebook's own folder
    parameters |= {"experiments": ",".join(admitted.models), "overlap": overlap}
    parameters |= {"draws": n_draws, "seed": seed, "workers": workers}
    with atomic_folder(out) as temporary:
        executed = temporary / f"{NOTEBOOK}.ipynb"
        source = ROOT / "notebooks" / executed.name
        execute_notebook(source, executed, parameters, [run, folder, temporary], place=temporary)
        notebook = _without_place(executed)
        render_notebook(executed, temporary / "index.html", kind="real" if both_real else "simulated", sections=True)
        warnings = temporary / "warnings.txt"
        known = warnings.read_text(encoding="utf-8").splitlines() if warnings.exists() else []
    # values of single patients are named here alone, and not in the folder
    unnamed, odd = (values_beyond_training(first, admitted.cohort, named_rows=named) for named in (False, True))
    lines = [line for line in known if line not in unnamed] + odd
    return [_verdict(notebook), *(f"warning: {line}" for line in lines)]


def _without_place(path: Path) -> nbformat.NotebookNode:
    """An executed notebook, without the name of the folder that it was executed in."""
    notebook = nbformat.read(path, as_version=4)
    for key in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(key, None)
    nbformat.write(notebook, path)
    return notebook


def _verdict(notebook: nbformat.NotebookNode) -> str:
    """What the cell tagged `rule` says, without its stars."""
    cell = next(cell for cell in notebook.cells if "rule" in cell.metadata.get("tags", []))
    return cell.outputs[-1]["data"]["text/markdown"].replace("**", "")
