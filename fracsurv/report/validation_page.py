"""The page of a validation: sentences, tables, figures, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fracsurv import plots
from fracsurv.cohort.summary import followed, missing_summary, summary_table
from fracsurv.predict.recalibrate import NAMES
from fracsurv.predict.validate import ENSEMBLE, Validated
from fracsurv.report.clinical_figures import net_benefit_figure, panel, ratio_words, thirds_figure
from fracsurv.report.findings.finding import Finding
from fracsurv.report.html import css, template
from fracsurv.report.sections import Section, ShownTable, data_uri
from fracsurv.report.tables_export import frame_of, write_table
from fracsurv.report.validation_tables import (
    benefit_table,
    horizons_table,
    main_table,
    recalibrated_table,
)
from fracsurv.report.validation_words import (
    RULE,
    Study,
    cautions,
    found,
    limits,
    provenance_lines,
    titles,
    validation_answer,
)
from fracsurv.report.wording import no_thirds
from fracsurv.study.protocol import too_few_for_thirds
from fracsurv.study.provenance import commit
from fracsurv.utils.files import write_text
from fracsurv.utils.formatting import counted, horizon_label, number, true_minus

MOST_CURVES = 4
STEPS = 80


def write_page(study: Study, out: Path) -> None:
    """Write `index.html` and the tables' files into the folder of a validation."""
    plots.set_style()
    made = validation_sections(study)
    for shown in (shown for section in made for shown in section.tables):
        write_table(shown.frame, shown.frame, f"{shown.caption} ({study.stamp})", out / "tables" / shown.name)
    trained, judged = study.provenances
    context = {
        "title": f"fracsurv validation: models of a {trained} cohort in a {judged} one",
        "question": "Does the model hold in this cohort?",
        "answer": validation_answer(study),
        "answer_note": RULE,
        "cautions": cautions(study),
        "provenance": provenance_lines(study),
        "provenance_kind": "real" if (trained, judged) == ("real", "real") else "simulated",
        "sections": made,
        "facts": facts(study),
        "limits": limits(study),
        "css": css(),
    }
    write_text(out / "index.html", template("validation.html.j2").render(context))


def validation_sections(study: Study) -> list[Section]:
    """The page's parts of which there is anything to show."""
    n = f"{counted(len(study.cohort), 'patient')}, {counted(study.n_events, 'event')}"
    caption = f"The models in these patients ({n})"
    made = [Section("figures", "The figures", tables=[ShownTable("validation", caption, main_table(study))])]
    calibrated = Section("calibration", "Are the probabilities right?", figures=_figures([over_time(study)]))
    further = Section("horizons", "At every horizon")
    corrected = Section("recalibration", "What recalibration would make of it")
    benefit = Section("benefit", "Would it help to act on it?")
    if study.horizon:
        calibrated.figures += _figures([calibration(study)])
        further.tables = [
            ShownTable("horizons", f"Every horizon that follow-up reaches ({n})", horizons_table(study))
        ]
        benefit.figures = _figures([decision_curve(study)])
        benefit.tables = [ShownTable("net_benefit", f"Net benefit ({n})", benefit_table(study))]
    if any(each.fitted for each in study.validated):
        caption = f"As it is, and recalibrated: cross-fitted ({n})"
        corrected.tables = [ShownTable("recalibrated", caption, recalibrated_table(study))]
        corrected.text = [
            "Three corrections, each larger than the one before: all cumulative hazards times one factor "
            "(intercept); a new baseline hazard, the log hazard as it is (baseline); a new baseline and the log "
            "hazard times a slope (slope and baseline). None changes who is ranked above whom, so C-index and AUC "
            "stay. Cross-fitted, each part of the patients is corrected a little differently: where predictions lie "
            "closer together than these corrections, slopes at a horizon mean nothing. The parameters are in "
            "recalibration.json."
        ]
        corrected.figures = _figures([recalibrated(study)])
    thirds = risk_groups(study)
    groups = Section(
        "groups", "Groups by predicted risk", [] if thirds.figure else [thirds.said], figures=_figures([thirds])
    )
    who = Section("cohort", "Who they are", [missing_summary(study.cohort)] if missing_summary(study.cohort) else [])
    about = summary_table(study.cohort).rename_axis("").reset_index()
    records = [
        {("", "variable"): str(row.iloc[0]), ("", str(row.index[1])): str(row.iloc[1])} for _, row in about.iterrows()
    ]
    who.tables = [ShownTable("cohort", "The patients judged", frame_of(records))]
    made += [calibrated, further, corrected, benefit, groups, who]
    return [section for section in made if section.text or section.tables or section.figures]


def calibration(study: Study) -> Finding:
    """Predicted against observed risk at the headline horizon, a panel an experiment."""
    made = {titles(study)[each.name]: _panel(study, each, ENSEMBLE) for each in study.validated}
    parts = [f"{name} {slope} and {gap}" for name, (_, slope, gap) in made.items()]
    panels = {name: panel for name, (panel, *_) in made.items()}
    said = (
        f"Predicted against observed risk by {study.at}. Calibration slope by logistic regression at that horizon, "
        "with its 95 % bootstrap interval (1 = right, below 1 = too extreme), and the mean gap between predicted and "
        f"smoothed observed risk (ICI, in percentage points): {'; '.join(parts)}. An intercept above 0 = risks too "
        "low."
    )
    return _calibration("calibration", study, panels, said, f"Calibration at {study.at}")


def recalibrated(study: Study) -> Finding | None:
    """The same for the experiment of the answer, as it is and after every recalibration."""
    if not study.horizon or not study.first.fitted:
        return None
    names = {ENSEMBLE: "as it is"} | {model: NAMES[model] for model in study.first.fitted}
    panels = {words: _panel(study, study.first, model)[0] for model, words in names.items()}
    ratio = {each: found(study.first.table, each, "observed_to_expected", study.horizon).value for each in names}
    ratios = [f"{words} {number(ratio[model], '.2f')}" for model, words in names.items()]
    said = (
        f"{titles(study)[study.first.name]} by {study.at}, observed / expected: {'; '.join(ratios)}. Each patient's "
        "recalibrated risk comes from the other patients' outcomes."
    )
    return _calibration("recalibrated", study, panels, said, f"Calibration at {study.at} after recalibration")


def _calibration(name: str, study: Study, panels: dict, said: str, alt: str) -> Finding:
    figure = plots.calibration(
        panels, study.horizon, outcome=study.cohort.outcome, time_unit=study.cohort.time_unit, provenance=study.stamp
    )
    return Finding(name, figure, alt, true_minus(said))


def _panel(study: Study, each: Validated, model: str) -> tuple[plots.CalibrationPanel, str, str]:
    event, time = (study.cohort.table[column].to_numpy() for column in ("event", "time"))
    slope = found(each.table, model, "calibration_slope", study.horizon)
    return panel(event, time, _probability(study, each, model), study.horizon, (slope.low, slope.high))


def _probability(study: Study, each: Validated, model: str) -> np.ndarray:
    return 1 - each.predictions[model].surv[:, list(each.horizons).index(study.horizon)]


def over_time(study: Study) -> Finding:
    """Expected and observed risk over all follow-up that training reaches."""
    table = study.cohort.table
    event, time = table["event"].to_numpy(), table["time"].to_numpy()
    shown = study.validated[:MOST_CURVES]
    end = min(float(time.max()), *(each.last for each in shown))
    times = end * np.arange(STEPS + 1) / STEPS
    expected = {each.name: 1 - each.models.survival(times).mean(axis=(0, 1)) for each in shown}
    figure = plots.expected_and_observed(
        event, time, times, expected, titles(study), outcome=study.cohort.outcome,
        time_unit=study.cohort.time_unit, provenance=study.stamp,
    )  # fmt: skip
    parts = [_ratio_words(study, each) for each in shown]
    said = (
        "Observed against expected events over all follow-up, their ratio with its 95 % interval (1 = right, above 1 "
        f"= the model expects too few): {'; '.join(parts)}."
    )
    return Finding("over_time", figure, "Expected and observed risk over time", said)


def _ratio_words(study: Study, each: Validated) -> str:
    ratio = found(each.table, ENSEMBLE, "observed_to_expected")
    return f"{titles(study)[each.name]} {ratio_words(ratio, each.n_events)}"


def decision_curve(study: Study) -> Finding:
    """Net benefit over thresholds, of the experiments as they are, and of the answer's after recalibration."""
    table, day = study.cohort.table, study.horizon
    event, time = table["event"].to_numpy(), table["time"].to_numpy()
    labels = titles(study)
    probability = {each.name: _probability(study, each, ENSEMBLE) for each in study.validated[:MOST_CURVES]}
    if "slope" in study.first.fitted:
        labels["recalibrated"] = f"{labels[study.first.name]}, recalibrated"
        probability["recalibrated"] = _probability(study, study.first, "slope")
    words = {"outcome": study.cohort.outcome, "horizon": study.at, "provenance": study.stamp}
    figure, _ = net_benefit_figure(event, time, probability, day, labels, **words)
    said = (
        f"What it is worth to act on whoever's predicted risk by {study.at} reaches a threshold, in true positives "
        "per 1,000 patients after the price of the false ones. A model is of use where it lies above acting on "
        "everyone and on nobody; the table has three thresholds, with intervals."
    )
    return Finding("decision_curve", figure, f"Decision curves at {study.at}", said)


def risk_groups(study: Study) -> Finding:
    """Kaplan–Meier curves by third of predicted risk; no figure where a third is too few patients for a curve."""
    table, first, alt = study.cohort.table, study.first, "Kaplan–Meier by third of risk"
    event, time = table["event"].to_numpy(), table["time"].to_numpy()
    if too_few_for_thirds(len(time)):
        return Finding("risk_groups", None, alt, no_thirds(len(time)))
    called = titles(study)[first.name]
    figure, third, p = thirds_figure(
        event,
        time,
        first.models.risk,
        outcome=study.cohort.outcome,
        title=called,
        time_unit=study.cohort.time_unit,
        provenance=study.stamp,
    )
    counts = ", ".join(f"{int(event[third == k].sum()):,}" for k in range(3))
    said = f"Events in the thirds of rising risk by {called}: {counts} (log-rank over the three {p})."
    return Finding("risk_groups", figure, alt, said)


def _figures(made: Sequence[Finding | None]) -> list[dict[str, str]]:
    return [
        {"uri": data_uri(each.figure), "alt": each.alt, "said": each.said} for each in made if each and each.figure
    ]


def facts(study: Study) -> list[tuple[str, str]]:
    """Whose models, whose patients, and what made the page: (what, value)."""
    about = [applied.about for applied in study.first.models.applied]
    cohort, unit = study.cohort, study.cohort.time_unit
    known = ", ".join(horizon_label(day, unit) for day in study.first.horizons) or "none"
    packages = ", ".join(f"{name} {version(name)}" for name in ("fracsurv", "torch", "lifelines", "scikit-survival"))
    trained = f"{_range(about, 'patients', 'patient')}, {_range(about, 'events', 'event')}"
    names = ", ".join(each.name for each in study.validated)
    judged = f"{counted(len(cohort), 'patient')}, {counted(study.n_events, 'event')}"
    return [
        ("Models", f"{counted(len(about), 'fold model')} an experiment: {names}"),
        ("Trained on", f"{about[0]['provenance']} cohort; {trained}"),
        ("Judged on", f"{cohort.provenance} cohort, fingerprint {cohort.fingerprint()}; {judged}"),
        ("Outcome", cohort.outcome),
        ("Follow-up", followed(cohort)),
        ("Horizons", f"{known} (the run's, where follow-up reaches them)"),
        ("Intervals", f"{study.n_draws:,} bootstrap samples, seed {study.seed}"),
        ("Made", f"{datetime.now(UTC).isoformat(timespec='seconds')}, {packages}"),
        ("Commit", commit() or "not known"),
    ]  # fmt: skip


def _range(about: list[dict], key: str, one: str) -> str:
    low, high = min(each[key] for each in about), max(each[key] for each in about)
    return counted(low, one) if low == high else f"{low:,} to {counted(high, one)}"
