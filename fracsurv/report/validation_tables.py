"""The tables of a validation's page, from what validation.csv holds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fracsurv.predict.recalibrate import NAMES
from fracsurv.predict.validate import (
    ENSEMBLE,
    FOLD_MEAN,
    THRESHOLDS,
    Validated,
)
from fracsurv.report.tables_export import frame_of
from fracsurv.report.validation_words import (
    Study,
    developed,
    found,
    titles,
)
from fracsurv.utils.formatting import MISSING, estimate_cell, horizon_label, number

AS_IS = "as it is"


def main_table(study: Study) -> pd.DataFrame:
    """Two rows an experiment: its models together, and each alone."""
    records, called, day = [], titles(study), study.horizon
    for each in study.validated:
        for model in (ENSEMBLE, FOLD_MEAN):
            what = called[each.name] if model == ENSEMBLE else f"{called[each.name]}\nfold models alone"
            record = {("", "model"): what}
            record[("ranks", "C-index")] = cell(each, model, "c_index")
            record[("ranks", "Uno's C")] = cell(each, model, "c_index_ipcw")
            if day:
                record[("ranks", f"AUC, {study.at}")] = cell(each, model, "auc", day)
                record[("probabilities", f"Brier, {study.at}")] = cell(each, model, "brier", day)
                record[("probabilities", "scaled Brier")] = cell(each, model, "scaled_brier", day)
                record[("observed / expected", study.at)] = cell(each, model, "observed_to_expected", day)
            record[("observed / expected", "all follow-up")] = cell(each, model, "observed_to_expected")
            record[("calibration", "slope")] = cell(each, model, "calibration_slope")
            if day:
                record[("calibration", f"ICI, %, {study.at}")] = cell(each, model, "ici", day, percent=True)
            before = developed(study.run, each.name) if model == FOLD_MEAN else np.nan
            record[("in the run", "C-index, test")] = number(before, unknown=MISSING)
            records.append(record)
    return frame_of(records)


def horizons_table(study: Study) -> pd.DataFrame:
    """A row an experiment and horizon."""
    records, called = [], titles(study)
    for each in study.validated:
        for day in each.horizons:
            events = each.table.loc[np.isclose(each.table["horizon"], day), "events"].iloc[0]
            record = {("", "model"): called[each.name], ("", "horizon"): horizon_label(day, study.cohort.time_unit)}
            record[("", "events by then")] = f"{events:,}"
            record[("risk, %", "observed")] = cell(each, "kaplan_meier", "observed", day, percent=True)
            record[("risk, %", "expected")] = cell(each, ENSEMBLE, "expected", day, percent=True)
            for words, metric in (
                ("observed / expected", "observed_to_expected"), ("AUC", "auc"), ("Brier", "brier"),
                ("scaled Brier", "scaled_brier"), ("calibration intercept", "calibration_intercept"),
                ("calibration slope", "calibration_slope"),
            ):  # fmt: skip
                record[("", words)] = cell(each, ENSEMBLE, metric, day)
            for metric in ("ici", "e50", "e90"):
                record[("gap, %", metric.upper())] = cell(each, ENSEMBLE, metric, day, percent=True)
            records.append(record)
    return frame_of(records)


def recalibrated_table(study: Study) -> pd.DataFrame:
    """Rows of an experiment: as it is, and every recalibration, cross-fitted."""
    records, called, day = [], titles(study), study.horizon
    for each in study.validated:
        for model in (ENSEMBLE, *each.fitted):
            record = {("", "model"): f"{called[each.name]}\n{NAMES.get(model, AS_IS)}"}
            record[("observed / expected", "all follow-up")] = cell(each, model, "observed_to_expected")
            if day:
                record[("observed / expected", study.at)] = cell(each, model, "observed_to_expected", day)
            record[("calibration", "slope")] = cell(each, model, "calibration_slope")
            if day:
                record[("calibration", f"ICI, %, {study.at}")] = cell(each, model, "ici", day, percent=True)
                record[("probabilities", f"Brier, {study.at}")] = cell(each, model, "brier", day)
                record[("probabilities", f"scaled Brier, {study.at}")] = cell(each, model, "scaled_brier", day)
            record[("probabilities", "integrated Brier")] = cell(each, model, "integrated_brier")
            records.append(record)
    return frame_of(records)


def benefit_table(study: Study) -> pd.DataFrame:
    """Net benefit per 1,000 patients at the headline horizon, by threshold."""
    called, day = titles(study), study.horizon
    rows = [(f"{called[each.name]}\n{NAMES.get(model, AS_IS)}", each, model)
            for each in study.validated for model in (ENSEMBLE, *each.fitted)]  # fmt: skip
    rows.append(("acting on everyone", study.first, "everyone"))
    return frame_of(
        [
            {("", "model"): words}
            | {
                (f"net benefit at {study.at} per 1,000 patients", f"threshold {100 * threshold:.0f} %"): cell(
                    each, model, "net_benefit", day, threshold=threshold, thousand=True
                )
                for threshold in THRESHOLDS
            }
            for words, each, model in rows
        ]
    )


def cell(
    each: Validated, model: str, metric: str, day: float | None = None, *, threshold: float | None = None,
    percent: bool = False, thousand: bool = False,
) -> str:  # fmt: skip
    """'0.661' and on a second line its interval; a mean of fold models with its SD."""
    value, low, high = found(each.table, model, metric, day, threshold)
    factor, form = (100, ".1f") if percent else (1000, ".0f") if thousand else (1, ".3f")
    sd = _sd(each, metric, day) if model == FOLD_MEAN and not np.isnan(value) else np.nan
    return estimate_cell(factor * value, factor * low, factor * high, form, sd=factor * sd)


def _sd(each: Validated, metric: str, day: float | None) -> float:
    table = each.table
    at = (table["model"] == FOLD_MEAN) & (table["metric"] == metric)
    at &= table["horizon"].isna() if day is None else np.isclose(table["horizon"].to_numpy(float), day)
    return float(table.loc[at, "sd"].iloc[0])
