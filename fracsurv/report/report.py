"""The report of a run: `index.html`, the notebooks' pages and `provenance.json`, all made from result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fracsurv.cohort.plausibility import coarse_times_warning
from fracsurv.cohort.summary import missing_summary
from fracsurv.config import TRUE_RISK
from fracsurv.plots import set_style
from fracsurv.report.answers import answer_note, study_answer
from fracsurv.report.checklist import checklist, checklist_source
from fracsurv.report.html import css, notebook_pages, template
from fracsurv.report.model_cards import model_card
from fracsurv.report.sections import report_sections
from fracsurv.report.tables_export import to_html, write_table
from fracsurv.report.wording import fitting_note, provenance_lines
from fracsurv.study.ablation import ablation
from fracsurv.study.competing import limit_note
from fracsurv.study.labels import experiment_name, masked_summary, stamp
from fracsurv.study.leakage import LEVEL, grey_scale_warning
from fracsurv.study.provenance import fact_lines, provenance
from fracsurv.study.results import finished
from fracsurv.study.run import Run
from fracsurv.study.thesis_results import OUTCOME
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import (
    atomic_path,
    read_json,
    write_json,
    write_text,
)
from fracsurv.utils.formatting import counted, first_upper

TABLES_VERSION = 2
"""Raised whenever the same fold models would give other tables, or tables with other columns."""
ENOUGH_DRAWS = 1000
"""Bootstrap samples from which on nothing need be said of their number."""
QUESTION = "Does a spine radiograph add to clinical risk factors when predicting {}?"


def write_report(run: Run) -> Path:
    """Write `index.html`, `provenance.json` and the notebooks' pages into the run's folder.

    `ablation.csv` and `differences.csv` are taken as notebook 05 wrote them, or made if they are not there or miss
    an experiment.

    Returns
    -------
    Path
        Of `index.html`.

    Raises
    ------
    UserError
        Where no experiment is finished.
    """
    if not finished(run):
        raise UserError(f"{run.out}: no experiment is finished; run `fracsurv run` or a notebook first")
    set_style()
    table, differences = read_ablation(run)
    names = list(dict.fromkeys(table["experiment"]))
    facts = provenance(run, names)
    write_json(run.out / "provenance.json", facts)
    made = report_sections(run, table, differences)
    files = []
    for shown in (shown for section in made for shown in section.tables):
        files += write_table(
            shown.frame, shown.frame, f"{shown.caption} ({stamp(run)})", run.out / "tables" / shown.name
        )
    context = {
        "title": f"fracsurv report: {run.cohort.provenance} cohort, profile {run.profile.name}",
        "question": question(run),
        "answer": study_answer(run, table, differences),
        "answer_note": answer_note(run, table, differences),
        "provenance": provenance_lines(run, names),
        "provenance_kind": run.cohort.provenance,
        "sections": made,
        "notebooks": notebook_pages(run.out / "notebooks", names),
        "cards": [(name, experiment_name(run, name)) for name in _with_cards(table)],
        "facts": fact_lines(facts),
        "limits": _limits(run),
        "css": css(),
    }
    files += _write_pages(run, table, differences)
    _remove_former(run.out, [str(path.relative_to(run.out)) for path in files])
    page = run.out / "index.html"
    write_text(page, template("index.html.j2").render(context))
    return page


def _remove_former(out: Path, files: list[str]) -> None:
    """Remove pages and tables of the report before that this one has no more; `report.json` says which it wrote."""
    record = out / "report.json"
    former = read_json(record)["files"] if record.exists() else []
    for name in set(former) - set(files):
        (out / name).unlink(missing_ok=True)
    write_json(record, {"files": files})


def _write_pages(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[Path]:
    """The TRIPOD+AI checklist, and a model card for every experiment with saved models; the files written."""
    pages = {name: model_card(run, name, table, differences) for name in _with_cards(table)}
    about = f"{checklist_source()}. What a run cannot know is left open."
    pages["tripod_ai"] = {
        "title": "TRIPOD+AI checklist",
        "provenance": provenance_lines(run, dict.fromkeys(table["experiment"])),
        "facts": [("After", about)],
        "tables": [("27 items with their parts", checklist(run, table, differences))],
    }
    card = template("page.html.j2")
    items = pages["tripod_ai"]["tables"][0][1]
    files = write_table(items, items, about, run.out / "tables" / "tripod_ai")
    for name, content in pages.items():
        shown = [to_html(frame, caption) for caption, frame in content["tables"]]
        page = content | {"tables": shown, "css": css(), "provenance_kind": run.cohort.provenance}
        files.append(run.out / "pages" / f"{name}.html")
        write_text(files[-1], card.render(page))
    return files


def _with_cards(table: pd.DataFrame) -> list[str]:
    return [name for name in dict.fromkeys(table["experiment"]) if name != TRUE_RISK]


def read_ablation(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`ablation.csv` and `differences.csv`; made anew where missing or not of the fold models finished now."""
    paths = [run.out / f"{name}.csv" for name in ("ablation", "differences")]
    record = run.out / "ablation.json"
    there = record.exists() and all(path.exists() for path in paths)
    if not there or read_json(record) != _made_from(run):
        write_ablation(run)
    table, differences = (pd.read_csv(path) for path in paths)
    return table, differences


def write_ablation(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compute the ablation of what is finished; write `ablation.csv`, `differences.csv` and, last, `ablation.json`.

    The last says what the tables were made from: each experiment's keys of `metrics.json`, and the number of draws.
    """
    made_from = _made_from(run)
    table, differences = ablation(run, list(made_from["experiments"]), progress=False)
    for name, frame in (("ablation", table), ("differences", differences)):
        with atomic_path(run.out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_json(run.out / "ablation.json", made_from)
    return table, differences


def _made_from(run: Run) -> dict[str, Any]:
    folds = range(run.profile.n_folds)
    keys = {
        name: [read_json(run.folder(name, fold) / "metrics.json")["key"] for fold in folds] for name in finished(run)
    }
    return {"version": TABLES_VERSION, "bootstrap_draws": run.profile.bootstrap_draws, "experiments": keys}


def question(run: Run) -> str:
    """What the report asks, in the words of the cohort's outcome."""
    return QUESTION.format("fractures" if run.cohort.outcome == OUTCOME else run.cohort.outcome)


def _vertebral_rows(run: Run) -> str:
    graded = any(run.experiments[name].morphometry for name in run.runnable() if name != TRUE_RISK)
    return ", but for the rows with vertebral fractures (VF), which see four more" if graded else ""


def _scaled(run: Run) -> str:
    """Which covariates were standardised, and which stand as they are; see `scaling`."""
    kinds = set(run.cohort.covariates.values())
    standardised = ["continuous ones"] * ("continuous" in kinds) + ["those of the vertebrae"] * bool(
        _vertebral_rows(run)
    )
    kept = [f"{kind} ones" for kind in ("normalised", "binary") if kind in kinds]
    kept += ["columns that say where a covariate is not known"] * bool(run.cohort.indicators)
    parts = [f"{' and '.join(standardised)} were standardised on each fold's training patients"] * bool(standardised)
    parts += [f"{', '.join(kept)} stand as they are"] * bool(kept)
    said = "; ".join(parts)
    return f"{first_upper(said)}."


def _draws_said(run: Run) -> str:
    n, rows = run.profile.bootstrap_draws, sum(name != TRUE_RISK for name in finished(run)) - 1
    said = (
        "Intervals and p-values of C-indices, AUC and Brier scores, and of their differences, rest on "
        f"{n:,} bootstrap samples of the patients"
    )
    if n < ENOUGH_DRAWS:
        said += ": so few that an interval's ends are rough"
    if (least := min(1.0, 2 * rows / (n + 1))) >= LEVEL:
        said += (
            f"; adjusted for {counted(rows, 'row')}, the smallest p cannot be below {least:.2g}, whatever is found"
        )
    return f"{said}."


def _of_image_alone(run: Run) -> str:
    rows = [run.experiments[name] for name in finished(run) if name != TRUE_RISK]
    but = f", but for the probability of {run.cohort.competing_event}" if run.cohort.has_competing else ""
    alone = any(row.image_alone for row in rows)
    return f" (those of the image alone see none{but})" if alone else ""


def _limits(run: Run) -> list[str]:
    limits = [
        "Intervals resample the patients judged and keep the models: they do not say how far another draw of "
        "training patients, or another seed, would have moved a value. The SD is over the fold models.",
        "Many rows are compared with the same references: p-values are adjusted for that by Holm, intervals are not. "
        "Only the answer's row was fixed beforehand.",
        _draws_said(run),
        f"Cox PH and the networks see the same covariates{_of_image_alone(run)}{_vertebral_rows(run)}. "
        f"{_scaled(run)}",
        "Cox PH is linear in the covariates, and hazards are taken to be proportional at all times, by the networks "
        "too; neither was tested.",
    ]
    if said := fitting_note(run, finished(run)):
        limits.append(said)
    if run.cohort.has_competing:
        limits.append(limit_note(run.cohort))
    elif run.cohort.provenance == "real" and not run.cohort.outcome_includes_death:
        limits.append(
            "Who dies first is censored: shares by Kaplan–Meier, observed risk and net benefit are those of "
            f"{run.cohort.outcome} if nobody died of anything else, and overstate what old patients will see."
        )
    if said := grey_scale_warning(run):
        limits.append(said)
    if said := coarse_times_warning(run.cohort):
        limits.append(f"Here {said}.")
    if run.cohort.provenance != "real":
        limits.insert(0, "The outcome is simulated. What was found shows that the method works, or not, on data made "
                      "to hold such a signal; it says nothing of real radiographs.")  # fmt: skip
    if said := missing_summary(run.cohort, run.trained_on()):
        limits.append(f"{said} {masked_summary(run)}".strip())
    if TRUE_RISK in run.runnable():
        limits.append("True risk is known to the evaluation alone; no model reads it.")
    return limits
