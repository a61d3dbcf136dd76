"""Are the probabilities right, would it help to act on them, and who is in which group of risk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fracsurv import metrics, plots
from fracsurv.config import TRUE_RISK
from fracsurv.curves import event_share, patient_predictions, risk_tertiles
from fracsurv.findings.finding import PATIENTS, Finding, names_of
from fracsurv.metrics import percentile_interval, resampled
from fracsurv.plots import format_p, horizon_label
from fracsurv.run import Run
from fracsurv.training import derive_seed
from fracsurv.wording import HEADLINE, REFERENCE, experiment_name, headline_horizon, stamp, true_minus

N_THRESHOLDS = 60


def calibration(run: Run, table: pd.DataFrame, split: str, names: Sequence[str]) -> Finding | None:
    """Predicted against observed probabilities at the headline horizon; None where there is no such horizon."""
    horizon = headline_horizon(table, split)
    if horizon is None:
        return None
    panels, parts = {}, []
    for name in names:
        found = patient_predictions(run, name, split, horizon)
        event, time, probability = (found[c].to_numpy() for c in ("event", "time", "probability"))
        made = metrics.calibration(event, time, probability, horizon)
        if not np.isfinite(made.observed).any():
            continue
        smooth = metrics.smooth_calibration(event, time, probability, horizon)
        low, high = _slope_interval(run, split, event, time, probability, horizon)
        called, slope = experiment_name(run, name), f"{made.slope:.2f} [{low:.2f}, {high:.2f}]"
        words = f"slope {slope}\nintercept {made.intercept:.2f}\nICI {100 * smooth.ici:.1f} %"
        panels[called] = plots.CalibrationPanel(made, smooth.predicted, smooth.observed, true_minus(words))
        parts.append(f"{called} {slope} and {100 * smooth.ici:.1f}")
    if not panels:
        return None
    at = horizon_label(horizon, run.cohort.time_unit)
    figure = plots.calibration(
        panels, horizon, outcome=run.cohort.outcome, time_unit=run.cohort.time_unit,
        provenance=f"{split} · {stamp(run)}",
    )  # fmt: skip
    said = (
        f"Calibration slope within {at} on {PATIENTS[split]}, with its 95 % bootstrap interval (1 = right, below 1 = "
        f"too extreme), and the mean gap between predicted and smoothed observed risk (ICI, in percentage points; by "
        f"chance above 0 even for a perfect model): {'; '.join(parts)}. Judged is the mean of the fold models' "
        "probabilities, not any one model."
    )
    return Finding(f"calibration_{split}", figure, f"Calibration at {at} on {split}", true_minus(said))


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
    top = min(0.99, max(float(np.quantile(each, 0.99)) for each in probability.values()))
    thresholds = np.linspace(0.01, max(0.02, top), N_THRESHOLDS)

    def benefit(each, at=thresholds, rows=slice(None)):
        return metrics.net_benefit(event[rows], time[rows], each[rows], horizon, at)

    curves = {name: benefit(each) for name, each in probability.items()}
    everyone = benefit(np.ones(len(time)))
    at = horizon_label(horizon, run.cohort.time_unit)
    figure = plots.decision_curve(
        thresholds, curves, everyone, names_of(run, names), outcome=run.cohort.outcome, horizon=at,
        provenance=f"{split} · {stamp(run)}",
    )  # fmt: skip
    overall = event_share(event, time, horizon)
    threshold = np.array([float(np.clip(round(overall, 2), 0.01, 0.99))])
    models = [name for name in names if name != TRUE_RISK]
    told = "; ".join(
        f"{experiment_name(run, name)} {_per_thousand(benefit(probability[name], threshold)[0])}" for name in models
    )
    said = (
        f"Acting on {PATIENTS[split]} whose predicted risk of {run.cohort.outcome} by {at} reaches "
        f"{100 * threshold[0]:.0f} % (about the share that has it, {100 * overall:.1f} %) is worth, in true "
        f"positives per 1,000 patients after the price of the false ones: {told}; acting on everyone "
        f"{_per_thousand(benefit(np.ones(len(time)), threshold)[0])}, on nobody 0."
    )
    if {HEADLINE, REFERENCE} <= set(probability):

        def gain(rows):
            with_image, without = (benefit(probability[name], threshold, rows)[0] for name in (HEADLINE, REFERENCE))
            return with_image - without

        seed = derive_seed(run.profile.seed, "net benefit", split)
        low, high = percentile_interval(resampled(gain, len(time), run.profile.bootstrap_draws, seed))
        said += (
            f" {experiment_name(run, HEADLINE)} minus Cox PH: {_per_thousand(gain(slice(None)), '+')}, 95 % interval "
            f"{_per_thousand(low, '+')} to {_per_thousand(high, '+')}."
        )
    return Finding(f"decision_curve_{split}", figure, f"Decision curves at {at} on {split}", true_minus(said))


def _per_thousand(benefit: float, sign: str = "") -> str:
    """A net benefit a patient as whole patients in a thousand; never minus nothing."""
    return f"{round(1000 * benefit):{sign}d}" if np.isfinite(benefit) else "not known"


def risk_groups(run: Run, table: pd.DataFrame, name: str, split: str) -> Finding:
    """Kaplan–Meier curves by third of predicted risk."""
    found = patient_predictions(run, name, split)
    event, time = found["event"].to_numpy(), found["time"].to_numpy()
    third = risk_tertiles(found["rank"].to_numpy())
    labels = {0: "lowest third of risk", 1: "middle third", 2: "highest third"}
    figure = plots.kaplan_meier(
        event, time, third, labels, outcome=run.cohort.outcome, title=experiment_name(run, name),
        time_unit=run.cohort.time_unit, provenance=f"{split} · {stamp(run)}",
    )  # fmt: skip
    horizon = headline_horizon(table, split) or float(np.median(time))
    low, high = (100 * event_share(event[third == k], time[third == k], horizon) for k in (0, 2))
    p = format_p(plots.log_rank_p(event, time, third))
    by = horizon_label(horizon, run.cohort.time_unit)
    said = (
        f"By {by}, {low:.1f} % of the third that {experiment_name(run, name)} gives the lowest risk among "
        f"{PATIENTS[split]} have had {run.cohort.outcome}, and {high:.1f} % of the third with the highest "
        f"(Kaplan–Meier; log-rank over the three {p}). Thirds are by the mean of the fold models' ranks of a "
        "patient, not by any one model."
    )
    return Finding(f"tertiles_{name}_{split}", figure, f"Kaplan–Meier by third of risk, {name}, {split}", said)
