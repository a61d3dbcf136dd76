"""The parts of the report between the answer and how it was made: sentences, tables, figures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from fracsurv.config import TRUE_RISK
from fracsurv.plots import as_svg
from fracsurv.report import findings
from fracsurv.report.answers import vertebral_says
from fracsurv.report.findings import Finding
from fracsurv.report.tables import (
    checks_table,
    fractured_first_table,
    further_metrics,
    groups_table,
    has_thesis_auc,
    hyperparameters,
    main_table,
    results_table,
    summary_beside_published,
    vertebral_table,
)
from fracsurv.report.tables_export import to_html
from fracsurv.report.wording import (
    external_note,
    few_followed,
    name_glossary,
    not_reported,
    without_interval,
)
from fracsurv.study.competing import counted_note
from fracsurv.study.explain import read_explanations
from fracsurv.study.protocol import (
    HEADLINE,
    REFERENCE,
    evaluated_split,
    headline_horizon,
)
from fracsurv.study.run import Run
from fracsurv.study.thesis_results import OUTCOME, source

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
COMPARED = (
    "Differences are of the same patients in the same bootstrap draws; p is two-sided and adjusted by Holm for all "
    "rows that are held against the same model on the same split."
)
THESIS_AUC = (
    "“AUC, thesis's definition” leaves whoever was censored before the horizon out of every pair, and weights nobody."
)
FURTHER = (
    "Uno's C weights pairs for censoring, and is not truncated at any time; mean AUC and integrated Brier score are "
    "taken over all times up to the last horizon that follow-up reaches."
)
MEANS = "mean ± SD over the fold models, and 95 % bootstrap interval"
VERTEBRAL_TEXT = (
    "The rows “+ vertebral fractures” (VF) are not in the thesis. Their further covariates come from six keypoints "
    "of each vertebra from T4 to L4: worst Genant grade, number of fractured vertebrae (grade 1 or more), and mean "
    "anterior and middle height over posterior height. Grading looks at no outcome."
)
LOOKING = (
    "A vertebra's contribution is the log hazard with it less the log hazard with it taken away: a crop as an empty "
    "slot is shown, a vertebra of a full radiograph with its box blanked. It says what moves the network, not what "
    "causes fractures."
)
FRACTURED = (
    "Does a network look at the fractured vertebrae? Of each patient with a truly fractured and a sound vertebra: in "
    "how many pairs of them the fractured one contributes more, each less what sound ones of its level usually do "
    "(0.5 = chance)."
)


@dataclass(frozen=True)
class ShownTable:
    """A table, what it is called, and the name of its files."""

    name: str
    caption: str
    frame: pd.DataFrame

    @property
    def html(self) -> str:
        """Plain HTML."""
        return to_html(self.frame, self.caption)


@dataclass
class Section:
    """A part of the page: sentences, tables, notes on how to read them, then figures, some of them folded."""

    id: str
    title: str
    text: list[str] = field(default_factory=list)
    tables: list[ShownTable] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[dict[str, str]] = field(default_factory=list)
    folded: list[dict[str, str]] = field(default_factory=list)


def report_sections(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[Section]:
    """All sections of which this run has anything to show."""
    names = list(dict.fromkeys(table["experiment"]))
    made = [
        _all_experiments(run, table, differences, names),
        _split_by_split(run, table, differences),
        _vertebral(run, table, differences),
        *_probabilities(run, table),
        _groups(run, table, names),
        *_looking(run, names),
        _nothing(run, table, differences),
        *_training(run, table, names),
        _competing(run),
        _cohort(run, names),
        Section("further", "Uno's C and integrated metrics", notes=[FURTHER],
                tables=[ShownTable("further_metrics", f"Further metrics: {MEANS}", further_metrics(run, table))]),
    ]  # fmt: skip
    return [section for section in made if section.text or section.tables or section.figures or section.folded]


def _all_experiments(run: Run, table: pd.DataFrame, differences: pd.DataFrame, names: list[str]) -> Section:
    absent = [name for name in run.runnable() if name not in names]
    missing = [f"Not run: {', '.join(absent)}."] if absent else []
    notes = [name_glossary(run, names), READING, counted_note(run.cohort), external_note(run), *missing]
    notes += [*not_reported(run, table), *few_followed(run, table), *without_interval(run, table)]
    return Section(
        "results",
        "All experiments",
        tables=[ShownTable("all_experiments", f"C-index, AUC and Brier score: {MEANS}", main_table(run, table))],
        notes=[sentence for sentence in notes if sentence],
        figures=_figures([findings.forest(run, table, differences)]),
    )


def _split_by_split(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> Section:
    text = [_published_note()] if run.cohort.outcome == OUTCOME else []
    text += [THESIS_AUC] if has_thesis_auc(run, table) else []
    text += [COMPARED] if len(differences) else []
    text += [said] if (said := findings.furthest(run, table, differences)) else []
    splits = [split for split in CAPTIONS if (table["split"] == split).any()]
    return Section(
        "splits",
        "Split by split, with differences from the models of one source",
        text,
        [ShownTable(f"results_{split}", CAPTIONS[split], results_table(run, table, differences, split))
         for split in splits],
    )  # fmt: skip


def _vertebral(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> Section:
    """With and without vertebral fractures as covariates; an empty section where no such row was run."""
    section = Section("vertebral", "What graded vertebral fractures add")
    rows = vertebral_table(run, table, differences)
    if len(rows):
        section.text = [VERTEBRAL_TEXT, *vertebral_says(run, table, differences)]
        caption = "With and without the vertebral fractures (VF) as covariates"
        section.tables = [ShownTable("vertebral_fractures", caption, rows)]
    return section


def _probabilities(run: Run, table: pd.DataFrame) -> list[Section]:
    split = evaluated_split(table, run)
    shown = findings.highlighted(table, split)
    names = list(dict.fromkeys(table["experiment"]))
    first = [name for name in shown if name != TRUE_RISK][:2]
    others = [name for name in names if name not in (TRUE_RISK, *first)]
    thirds = [findings.risk_groups(run, table, name, split) for name in (*first, *others)]
    drawn = any(each.figure is not None for each in thirds)  # if not, one sentence says so for all
    n_shown = max(1, len(first) if drawn else 1)
    at_horizons = {
        ("time", "Over time"): findings.over_time(run, table, split),
        ("calibration", "Calibration"): findings.calibration(run, table, split, shown),
        ("decision", "Would it help to act on it?"): findings.decision_curve(run, table, split, shown),
    }
    made = [
        Section(*named, text=[] if found else [_nothing_at_horizons(run, table, split)], figures=_figures([found]))
        for named, found in at_horizons.items()
    ]
    figures, folded = thirds[:n_shown], thirds[n_shown:] if drawn else []
    groups = Section("groups", "Groups by predicted risk", figures=_figures(figures), folded=_figures(folded))
    return [*made, groups]


def _nothing_at_horizons(run: Run, table: pd.DataFrame, split: str) -> str:
    """Why nothing is shown of a split at any horizon."""
    why = not_reported(run, table, split) or ["Follow-up of each group of predicted risk ends too early."]
    return " ".join([f"Nothing can be shown of the {split} patients.", *why])


def _groups(run: Run, table: pd.DataFrame, names: list[str]) -> Section:
    """Cox PH beside the answer's row, or whatever else there is."""
    section = Section("subgroups", "Does it hold in every group of patients?")
    models = [name for name in (REFERENCE, HEADLINE) if name in names]
    models = models or [name for name in names if name != TRUE_RISK][:1]
    if models:
        split = evaluated_split(table, run)
        found, frame = findings.in_groups(run, table, split, models)
        section.figures = _figures([found])
        section.tables = [
            ShownTable(
                "subgroups",
                f"Groups of the {split} patients",
                groups_table(run, frame, headline_horizon(table, split)),
            )
        ]
    return section


def _looking(run: Run, names: list[str]) -> list[Section]:
    """What the networks look at; sections without content where nothing was explained."""
    explained = read_explanations(run, names)
    contributions = findings.vertebrae(run, explained)
    looking = Section("looking", "What the networks look at")
    if contributions is not None:
        looking.text = [LOOKING]
        looking.figures = _figures([contributions, findings.places(run, explained)])
        frame = findings.fractured_first(run, explained)
        if len(frame):
            looking.text.append(FRACTURED)
            caption = "Contributions against the simulator's true fractures; 95 % interval over patients"
            looking.tables = [ShownTable("fractured_first", caption, fractured_first_table(run, frame))]
    factors = Section("factors", "Which clinical factors count", figures=_figures([findings.factors(run, explained)]))
    return [looking, factors]


def _nothing(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> Section:
    text = findings.chance_notes(run, table, differences)
    return Section(
        "nothing",
        "Could it be nothing?",
        text,
        [ShownTable("leak_checks", "Was anybody who is judged met in training?", checks_table(run))],
    )


def _training(run: Run, table: pd.DataFrame, names: list[str]) -> list[Section]:
    networks = [n for n in names if n != TRUE_RISK and run.experiments[n].model == "network"]
    curves = _figures([findings.learning(run, n) for n in sorted(networks, key=lambda n: n != HEADLINE)])
    return [
        Section("learning", "Learning curves", figures=curves[:2], folded=curves[2:]),
        Section("alpha", "The sweep over α", figures=_figures([findings.sweep(run, names)])),
        Section(
            "overfitting",
            "Chosen on validation, judged elsewhere",
            figures=_figures([findings.chosen_and_judged(run, table)]),
        ),
    ]


def _competing(run: Run) -> Section:
    """Both cumulative incidences; an empty section for a cohort without a competing event."""
    section = Section(
        "competing",
        f"The competing event: {run.cohort.competing_event}",
    )
    if run.cohort.has_competing:
        section.figures = _figures([findings.competing(run)])
        caption = "Cumulative incidence, Aalen–Johansen with 95 % intervals, all patients"
        section.tables = [ShownTable("competing", caption, findings.competing_table(run))]
    return section


def _cohort(run: Run, names: list[str]) -> Section:
    networks = [n for n in names if n != TRUE_RISK and run.experiments[n].model == "network"]
    tables = [ShownTable("cohort", "The cohort, layout of Table 2.1", summary_beside_published(run.cohort))]
    if networks:
        caption = "Hyperparameters, layout of Table A.1"
        tables.append(ShownTable("hyperparameters", caption, hyperparameters(run, networks)))
    pictures = [findings.radiographs(run)]
    if any(run.experiments[name].input == "crops" for name in networks):
        pictures.append(findings.crops(run))
    figures = _figures([findings.follow_up(run), *pictures])
    return Section("cohort", "Cohort and hyperparameters", tables=tables, figures=figures)


def _figures(found: Sequence[Finding | None]) -> list[dict[str, str]]:
    return [
        {"uri": data_uri(f.figure) if f.figure is not None else "", "alt": f.alt, "said": f.said}
        for f in found
        if f is not None
    ]


def data_uri(figure) -> str:
    """The figure as an SVG that stands in the page itself."""
    return "data:image/svg+xml;base64," + base64.b64encode(as_svg(figure)).decode("ascii")


def _published_note() -> str:
    work, cohort = source()
    return (
        f"Columns headed “thesis” hold published values ({work}), from {cohort}; they were measured on other "
        "patients and at a horizon that the thesis does not name, so they are not comparable with this run's."
    )
