"""The report of a run: `index.html`, the notebooks' pages and `provenance.json`, all made from result files."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from fracsurv import findings
from fracsurv.ablation import ablation
from fracsurv.config import TRUE_RISK
from fracsurv.errors import UserError
from fracsurv.files import atomic_path, read_json, write_json, write_text
from fracsurv.findings import Finding
from fracsurv.pages import TEMPLATES, css, notebook_pages
from fracsurv.plots import as_svg, set_style
from fracsurv.provenance import fact_lines, provenance
from fracsurv.published import OUTCOME, source
from fracsurv.results import finished
from fracsurv.run import Run
from fracsurv.tables import (
    further_metrics,
    has_thesis_auc,
    hyperparameters,
    main_table,
    results_table,
    summary_beside_published,
    to_html,
    vertebral_table,
)
from fracsurv.wording import (
    HEADLINE,
    answer,
    answer_note,
    external_note,
    judged_split,
    not_reported,
    provenance_lines,
    vertebral_says,
)

CAPTIONS = {
    "external": "External cohort, layout of Table 4.3",
    "test": "Test set, layout of Tables 4.2 and 4.3",
    "validation": "Validation, layout of Tables 4.1 and A.2; epochs (and α) were chosen on these patients",
}
READING = (
    "C-index: Harrell's; AUC and Brier score: with inverse-probability-of-censoring weights, the censoring "
    "distribution taken from each fold's training patients, for external patients from themselves. Higher C-index "
    "and AUC and lower Brier score are better."
)
THESIS_AUC = (
    "“AUC, thesis's definition” leaves whoever was censored before the horizon out of every pair, and weights nobody."
)
FURTHER = (
    "Uno's C weights pairs for censoring; mean AUC and integrated Brier score are taken over all times up to the "
    "last horizon that follow-up reaches."
)
FURTHER_CAPTION = "Mean ± SD over the fold models, and 95 % bootstrap interval"
VERTEBRAL_TEXT = (
    "The rows “+ vertebral fractures” (VF) are not in the thesis. Their further covariates come from six keypoints "
    "of each vertebra from T4 to L4: worst Genant grade, number of fractured vertebrae (grade 1 or more), and mean "
    "anterior and middle height over posterior height. Grading looks at no outcome."
)
QUESTION = "Does a spine radiograph add to clinical risk factors when predicting {}?"


@dataclass
class Section:
    """A part of the page: sentences, then tables (HTML), then figures, some of them folded."""

    id: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    figures: list[dict[str, str]] = field(default_factory=list)
    folded: list[dict[str, str]] = field(default_factory=list)


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
    context = {
        "title": f"fracsurv report: {run.cohort.provenance} cohort, profile {run.profile.name}",
        "question": question(run),
        "answer": answer(run, table, differences),
        "answer_note": answer_note(run, table, differences),
        "provenance": provenance_lines(run),
        "provenance_kind": run.cohort.provenance,
        "sections": [s for s in _sections(run, table, differences, names) if s.text or s.tables or s.figures],
        "notebooks": notebook_pages(run.out / "notebooks"),
        "facts": fact_lines(facts),
        "limits": _limits(run),
        "css": css(),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = run.out / "index.html"
    write_text(page, environment.get_template("index.html.j2").render(context))
    return page


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
    return {"bootstrap_draws": run.profile.bootstrap_draws, "experiments": keys}


def question(run: Run) -> str:
    """What the report asks, in the words of the cohort's outcome."""
    return QUESTION.format("fractures" if run.cohort.outcome == OUTCOME else run.cohort.outcome)


def _sections(run: Run, table: pd.DataFrame, differences: pd.DataFrame, names: list[str]) -> list[Section]:
    return [
        *_result_sections(run, table, differences, names),
        *_prediction_sections(run, table),
        *_training_sections(run, table, names),
    ]


def _result_sections(run: Run, table: pd.DataFrame, differences: pd.DataFrame, names: list[str]) -> list[Section]:
    absent = [name for name in run.runnable() if name not in names]
    missing = [f"Not run: {', '.join(absent)}."] if absent else []
    results = Section(
        "results",
        "All experiments",
        [sentence for sentence in [READING, external_note(run), *missing, *not_reported(run, table)] if sentence],
        [to_html(main_table(run, table), "Mean ± SD over the fold models, and 95 % bootstrap interval")],
        _figures([findings.forest(run, table, differences)]),
    )
    splits_text = [_published_note()] if run.cohort.outcome == OUTCOME else []
    splits_text += [THESIS_AUC] if has_thesis_auc(run, table) else []
    splits_text += [said] if (said := findings.furthest(run, table, differences)) else []
    splits = Section(
        "splits",
        "Split by split, with differences from the clinical models",
        splits_text,
        [to_html(results_table(run, table, differences, split), CAPTIONS[split]) for split in _splits(table)],
    )
    further = Section(
        "further",
        "Uno's C and integrated metrics",
        [FURTHER],
        [to_html(further_metrics(run, table), FURTHER_CAPTION)],
    )
    return [results, splits, _vertebral_section(run, table, differences), further]


def _vertebral_section(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> Section:
    """With and without vertebral fractures as covariates; an empty section where no such row was run."""
    section = Section("vertebral", "What graded vertebral fractures add")
    rows = vertebral_table(run, table, differences)
    if len(rows):
        section.text = [VERTEBRAL_TEXT, *vertebral_says(run, table, differences)]
        section.tables = [to_html(rows, "With and without the vertebral fractures (VF) as covariates")]
    return section


def _prediction_sections(run: Run, table: pd.DataFrame) -> list[Section]:
    split = judged_split(table)
    shown = findings.highlighted(table, split)
    models = [name for name in shown if name != TRUE_RISK][:2]
    return [
        Section("time", "Over time", figures=_figures([findings.over_time(run, table, split)])),
        Section("calibration", "Calibration", figures=_figures([findings.calibration(run, table, split, shown)])),
        Section(
            "groups",
            "Groups by predicted risk",
            figures=_figures([findings.risk_groups(run, table, name, split) for name in models]),
        ),
    ]


def _training_sections(run: Run, table: pd.DataFrame, names: list[str]) -> list[Section]:
    networks = [n for n in names if n != TRUE_RISK and run.experiments[n].model == "network"]
    curves = _figures([findings.learning(run, n) for n in sorted(networks, key=lambda n: n != HEADLINE)])
    tables = [to_html(summary_beside_published(run.cohort), "The cohort, layout of Table 2.1")]
    if networks:
        tables.append(to_html(hyperparameters(run, networks), "Hyperparameters, layout of Table A.1"))
    return [
        Section("learning", "Learning curves", figures=curves[:2], folded=curves[2:]),
        Section("alpha", "The sweep over α", figures=_figures([findings.sweep(run, names)])),
        Section(
            "overfitting",
            "Chosen on validation, judged elsewhere",
            figures=_figures([findings.chosen_and_judged(run, table)]),
        ),
        Section("cohort", "Cohort and hyperparameters", tables=tables),
    ]


def _splits(table: pd.DataFrame) -> list[str]:
    return [split for split in CAPTIONS if (table["split"] == split).any()]


def _figures(found: Sequence[Finding | None]) -> list[dict[str, str]]:
    return [{"uri": data_uri(f.figure), "alt": f"{f.alt}. {f.said}", "said": f.said} for f in found if f is not None]


def data_uri(figure) -> str:
    """The figure as an SVG that stands in the page itself."""
    return "data:image/svg+xml;base64," + base64.b64encode(as_svg(figure)).decode("ascii")


def _published_note() -> str:
    work, cohort = source()
    return (
        f"Columns headed “thesis” hold published values ({work}), from {cohort}; they were measured on other "
        "patients and at a horizon that the thesis does not name, so they are not comparable with this run's."
    )


def _limits(run: Run) -> list[str]:
    limits = [
        "Intervals resample the patients judged and keep the models: they do not say how far another draw of "
        "training patients, or another seed, would have moved a value. The SD is over the fold models.",
        "Many rows are compared with the same references; no correction for that is made. Only the answer's row was "
        "fixed beforehand.",
        "Cox PH and the networks see the same covariates, but for the rows with vertebral fractures (VF), which see "
        "four more; all were standardised on each fold's training patients.",
    ]
    if run.cohort.provenance != "real":
        limits.insert(0, "The outcome is simulated. What was found shows that the method works, or not, on data made "
                      "to hold such a signal; it says nothing of real radiographs.")  # fmt: skip
    if TRUE_RISK in run.runnable():
        limits.append("True risk is known to the evaluation alone; no model reads it.")
    return limits
