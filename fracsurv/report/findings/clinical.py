"""Are the probabilities right, would it help to act on them, and who is in which group of risk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fracsurv import metrics, plots
from fracsurv.config import TRUE_RISK, derive_seed
from fracsurv.metrics import percentile_interval, resampled
from fracsurv.report.clinical_figures import net_benefit_figure, no_slope, panel, thirds_figure
from fracsurv.report.findings.finding import (
    PATIENTS,
    Finding,
    names_of,
    share_said,
)
from fracsurv.report.wording import no_thirds
from fracsurv.study.competing import estimate_name
from fracsurv.study.labels import experiment_name, stamp
from fracsurv.study.protocol import (
    HEADLINE,
    REFERENCE,
    headline_horizon,
    too_few_for_thirds,
)
from fracsurv.study.results import by_split, read_predictions, survival_column
from fracsurv.study.run import Run
from fracsurv.study.time_dependent import patient_predictions
from fracsurv.utils.formatting import (
    NOT_KNOWN,
    counted,
    horizon_label,
    number,
    true_minus,
)

THRESHOLDS = (0.1, 0.2, 0.3)
"""Thresholds whose net benefit is put into words: fixed, for the share of events among those judged would make acting
on everyone worth nothing by definition."""


def calibration(run: Run, table: pd.DataFrame, split: str, names: Sequence[str]) -> Finding | None:
    """Predicted against observed probabilities at the headline horizon; None where there is no such horizon."""
    horizon = headline_horizon(table, split)
    if horizon is None:
        return None
    panels, parts = {}, []
    for name in names:
        found = patient_predictions(run, name, split, horizon)
        event, time, probability = (found[c].to_numpy() for c in ("event", "time", "probability"))
        called, bounds = experiment_name(run, name), _slope_interval(run, split, event, time, probability, horizon)
        made, slope, gap = panel(event, time, probability, horizon, bounds)
        if not np.isfinite(made.groups.observed).any():
            continue
        panels[called] = made
        parts.append(f"{called} {slope} and {gap}, single models {_single_slopes(run, name, split, horizon)}")
    if not panels:
        return None
    at = horizon_label(horizon, run.cohort.time_unit)
    figure = plots.calibration(
        panels, horizon, outcome=run.cohort.outcome, time_unit=run.cohort.time_unit,
        estimate=estimate_name(run.cohort), provenance=f"{split} · {stamp(run)}",
    )  # fmt: skip
    said = (
        f"Calibration slope within {at} on {PATIENTS[split]}, with its 95 % bootstrap interval (1 = right, below 1 = "
        f"too extreme), and the mean gap between predicted and smoothed observed risk (ICI, in percentage points; by "
        f"chance above 0 even for a perfect model): {'; '.join(parts)}. Judged is the mean of the fold models' "
        "probabilities, which lies closer together than theirs on average; “single models” is the mean of their own "
        "slopes. An intercept above 0 = risks too low."
    )
    return Finding(f"calibration_{split}", figure, f"Calibration at {at} on {split}", true_minus(said))


def _single_slopes(run: Run, name: str, split: str, horizon: float) -> str:
    """Mean over the fold models of the calibration slope of each one's own probabilities, or why there is none."""
    slopes, why = [], ""
    for fold in range(run.profile.n_folds):
        found = read_predictions(run, name, fold).query("split == @split")
        event, time = by_split(found)[split].event, found["time"].to_numpy()
        probability = 1 - found[survival_column(horizon)].to_numpy()
        slopes.append(metrics.calibration(event, time, probability, horizon, n_groups=1).slope)
        if np.isnan(slopes[-1]):
            why = no_slope(event, time, probability, horizon)
    if not why:
        return number(float(np.mean(slopes)), ".2f")
    return f"{NOT_KNOWN} (no slope of {np.isnan(slopes).sum()} of {counted(len(slopes), 'model')}: {why})"


def _slope_interval(run: Run, split: str, event, time, probability, horizon: float) -> tuple[float, float]:
    def slope(rows):
        return metrics.calibration(event[rows], time[rows], probability[rows], horizon, n_groups=1).slope

    draws = resampled(slope, len(time), run.profile.bootstrap_draws, derive_seed(run.profile.seed, "slope", split))
    return tuple(percentile_interval(draws))


def decision_curve(run: Run, table: pd.DataFrame, split: str, names: Sequence[str]) -> Finding | None:
    """Net benefit of acting on each model's probability, over thresholds; None where there is no horizon."""
    horizon = headline_horizon(table, split)
    if horizon is None:
        return None
    found = {name: patient_predictions(run, name, split, horizon) for name in names}
    first = next(iter(found.values()))
    event, time = first["event"].to_numpy(), first["time"].to_numpy()
    probability = {name: each["probability"].to_numpy() for name, each in found.items()}
    at = horizon_label(horizon, run.cohort.time_unit)
    words = {"outcome": run.cohort.outcome, "horizon": at, "provenance": f"{split} · {stamp(run)}"}
    figure, lowest = net_benefit_figure(event, time, probability, horizon, names_of(run, names), **words)

    def benefit(each, rows=slice(None)):
        return metrics.net_benefit(event[rows], time[rows], each[rows], horizon, np.array(THRESHOLDS))

    models = [name for name in names if name != TRUE_RISK]
    parts = [f"{experiment_name(run, name)} {_per_thousand(benefit(probability[name]))}" for name in models]
    said = (
        f"What it is worth to act on {PATIENTS[split]} whose predicted risk of {run.cohort.outcome} by {at} (mean "
        f"of the fold models' probabilities) reaches {' / '.join(f'{100 * each:.0f}' for each in THRESHOLDS)} %, "
        f"in true positives per 1,000 patients after the price of the false ones: {'; '.join(parts)}; acting on "
        f"everyone {_per_thousand(benefit(np.ones(len(time))))}, on nobody 0. By {at}, "
        f"{share_said(run, event, time, horizon)} have it."
    )
    if 1000 * lowest < figure.axes[0].get_ylim()[0]:
        said += " The axis ends a little below 0; a line that goes on below it is worth less than acting on nobody."
    if {HEADLINE, REFERENCE} <= set(probability):

        def gain(rows):
            return benefit(probability[HEADLINE], rows) - benefit(probability[REFERENCE], rows)

        seed = derive_seed(run.profile.seed, "net benefit", split)
        found = percentile_interval(resampled(gain, len(time), run.profile.bootstrap_draws, seed))
        intervals = " / ".join(_per_thousand_interval(*each) for each in found)
        said += (
            f" {experiment_name(run, HEADLINE)} minus Cox PH: {_per_thousand(gain(slice(None)), '+')}, 95 % "
            f"intervals {intervals}."
        )
    return Finding(f"decision_curve_{split}", figure, f"Decision curves at {at} on {split}", true_minus(said))


def _per_thousand(benefits: Sequence[float], sign: str = "") -> str:
    """Net benefits a patient as whole patients in a thousand, '12 / 3'; never minus nothing."""
    return " / ".join(f"{round(1000 * each):{sign}d}" if np.isfinite(each) else NOT_KNOWN for each in benefits)


def _per_thousand_interval(low: float, high: float) -> str:
    known = np.isfinite([low, high]).all()
    return f"{_per_thousand([low], '+')} to {_per_thousand([high], '+')}" if known else NOT_KNOWN


def risk_groups(run: Run, table: pd.DataFrame, name: str, split: str) -> Finding:
    """Kaplan–Meier curves by third of predicted risk; no figure where a third is too few patients for a curve."""
    found = patient_predictions(run, name, split)
    named = f"tertiles_{name}_{split}", f"Kaplan–Meier by third of risk, {name}, {split}"
    if too_few_for_thirds(len(found)):
        return Finding(named[0], None, named[1], no_thirds(len(found), f"{split} patient"))
    event, time = found["event"].to_numpy(), found["time"].to_numpy()
    figure, third, p = thirds_figure(
        event, time, found["rank"].to_numpy(), outcome=run.cohort.outcome, title=experiment_name(run, name),
        time_unit=run.cohort.time_unit, provenance=f"{split} · {stamp(run)}",
    )  # fmt: skip
    horizon = headline_horizon(table, split) or float(np.median(time))
    low, high = (share_said(run, event[third == k], time[third == k], horizon) for k in (0, 2))
    by = horizon_label(horizon, run.cohort.time_unit)
    said = (
        f"By {by}, {low} of the third that {experiment_name(run, name)} gives the lowest risk among "
        f"{PATIENTS[split]} have had {run.cohort.outcome}, and {high} of the third with the highest "
        f"({estimate_name(run.cohort)}; log-rank over the three {p}). Thirds are by the mean of the fold models' "
        "ranks of a patient, not by any one model."
    )
    return Finding(named[0], figure, named[1], said)
