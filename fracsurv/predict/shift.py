"""Warnings where patients or radiographs differ from those that a run's models were trained on, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fracsurv.cohort.cohort import Cohort, own_or_protocols
from fracsurv.detection.locate import of_finder, read_located, source_line
from fracsurv.images.plausibility import BRIGHTER, resolution_warnings
from fracsurv.images.radiographs import EIGHT_TO_SIXTEEN
from fracsurv.images.store import ImageStore
from fracsurv.predict.predict import fold_models, probability_column
from fracsurv.predict.train_overlap import seen_in_training
from fracsurv.study.model_bundle import ModelBundle
from fracsurv.utils.errors import format_rows
from fracsurv.utils.formatting import counted

BEYOND_BRIGHTEST = 1.5
"""How many times the training's brightest pixel a radiograph's may be without a warning."""
BEYOND = 0.1
"""Share of the training patients' range that a value may lie outside it without a warning."""
MOSTLY = 0.5
"""Share of the patients beyond the training's range from which a covariate is taken for one in another unit."""
FEW = 5
"""Patients who may well be beyond it, if no further than its own width."""
OTHER_UNIT = 20
"""Times that the longest follow-up may be shorter or longer than the training's, or else it is in another unit."""


def shift_warnings(models: Sequence[ModelBundle], cohort: Cohort, work: Path, *, named_rows: bool) -> list[str]:
    """All that makes predictions for these patients doubtful.

    Parameters
    ----------
    work : path
        Where `predict_cohort` left stores and boxes.
    named_rows : bool
        See `values_beyond_training`.
    """
    lines = values_beyond_training(models, cohort, named_rows=named_rows) + missing_value_warnings(models, cohort)
    if models[0].masked and (n := int((~cohort.has_image).sum())):
        lines.append(
            f"{cohort.column('image')}: no radiograph in {n:,} of {counted(len(cohort), 'patient')}; in its place "
            f"{models[0].experiment.name} takes the mean features of its training patients"
        )
    lines += finder_warnings(models, cohort, work) + grey_scale_warnings(models, work)
    lines += early_horizon_warnings(models)
    seen = seen_in_training(models[0].run, cohort)
    if seen is not None and seen.any():
        lines.append(
            f"{cohort.column('patient_id')}: {int(seen.sum()):,} of {counted(len(cohort), 'patient')} with the id of "
            "a patient in the models' training; if they are the same people, this does not show what the models do "
            "in others"
        )
    return lines


def missing_value_warnings(models: Sequence[ModelBundle], cohort: Cohort) -> list[str]:
    """Patients left out since they have no radiograph, and covariates with missing values."""
    lines = []
    if n := cohort.n_excluded:
        everybody = counted(len(cohort) + n, "patient")
        lines.append(
            f"{cohort.column('image')}: left out, without a radiograph: {n:,} of {everybody} "
            "(`missing_images: exclude`)"
        )
    used = [] if models[0].experiment.image_alone else models[0].scaling.kinds
    missing = cohort.table[[covariate for covariate in used if covariate in cohort.covariates]].isna().sum()
    return lines + [
        f"{cohort.column(covariate)}: missing in {n:,} of {counted(len(cohort), 'patient')}; in its place the models "
        "take the median of their training patients (binary: the most frequent value)"
        for covariate, n in missing[missing > 0].items()
    ]


def early_horizon_warnings(models: Sequence[ModelBundle]) -> list[str]:
    """Horizons by which no training patient of a fold model had the event, so that it predicts 0 for everybody."""
    lines = []
    for day in own_or_protocols(models[0].about["horizons"]):
        if without := sum(not (model.baseline.time <= day).any() for model in models):
            lines.append(
                f"{probability_column(day)}: 0 for everybody by {without} of {counted(len(models), 'fold model')}, "
                "which saw no event by then in training"
            )
    return lines


def finder_warnings(models: Sequence[ModelBundle], cohort: Cohort, work: Path) -> list[str]:
    """A line where a finder drew the boxes that the models were given, as `predict_cohort` left them in `work`."""
    if not models[0].experiment.needs_boxes:
        return []
    located = read_located(cohort, work)
    return [f"Of the new patients: {source_line(located)}"] if located is not None and of_finder(located) else []


def grey_scale_warnings(models: Sequence[ModelBundle], work: Path) -> list[str]:
    """A line where radiographs, as the stores in `work` hold them, are far darker or brighter than the training's."""
    row = models[0].experiment
    if row.fusion == "late":  # whose image part alone takes a picture
        return grey_scale_warnings(fold_models(models[0].run, row.pretrained["image"]), work)
    bounds, kind = [model.limits[1] for model in models if model.limits], row.input
    if not bounds or not (work / kind).is_dir():
        return []
    store = ImageStore.open(work / kind)
    brightest = store.ranges[f"{kind}_max"].to_numpy(float)
    most = max(bounds) / (EIGHT_TO_SIXTEEN if store.meta["bit_depth"] < models[0].bit_depth else 1)
    odd = int(((brightest > 0) & ((brightest * BRIGHTER <= most) | (brightest >= BEYOND_BRIGHTEST * most))).sum())
    if not odd:
        return []
    return [
        f"column image: far darker or brighter than the training's (brightest pixel there {most:,.0f}): {odd:,} of "
        f"{counted(len(brightest), 'radiograph')}; on another grey scale the risks of {row.name} mean nothing"
    ]


def other_units(models: Sequence[ModelBundle], cohort: Cohort) -> list[str]:
    """What seems to be in another unit than in training, one line each: most values of a covariate, or the times."""
    ranges = [] if models[0].experiment.image_alone else _ranges(models, cohort)
    lines = _other_time_unit(models, cohort)
    kinds = models[0].scaling.kinds
    for covariate, low, high, outside in ranges:
        if kinds.get(covariate, "binary") == "binary" or low == high:  # not taken, or in no unit
            continue
        known, values = int(cohort.table[covariate].notna().sum()), cohort.table[covariate].iloc[outside]
        far = not values.between(2 * low - high, 2 * high - low).any()
        if len(outside) >= max(MOSTLY * known, 1) and (far or len(outside) >= FEW):
            lines.append(
                f"{cohort.column(covariate)}: {len(outside):,} of {counted(known, 'patient')} beyond the training's "
                f"range, {low:g} to {high:g}; in another unit?"
            )
    return [f"{line} If they are right, add --beyond-training" for line in lines]


def _other_time_unit(models: Sequence[ModelBundle], cohort: Cohort) -> list[str]:
    """A question where follow-up is of another size than the training's; without outcomes it is NaN."""
    longest, last = float(cohort.table["time"].max()), max(model.baseline.last for model in models)
    if not (longest * OTHER_UNIT < last or longest > last * OTHER_UNIT):
        return []
    what = "in another unit"
    if cohort.time_unit == "days" and longest < last:
        what = "years" if longest * 100 < last else "months"
    return [
        f"{cohort.column('time_days')}: the longest follow-up is {longest:g} {cohort.time_unit}, in training "
        f"{last:g}; are these {what}?"
    ]


def _ranges(models: Sequence[ModelBundle], cohort: Cohort) -> Iterator[tuple[str, float, float, np.ndarray]]:
    """Each covariate with its minimum and maximum in training, and the rows of the patients beyond them."""
    ranges = [model.about["ranges"] for model in models]
    for covariate in (each for each in cohort.covariates if all(each in fold for fold in ranges)):
        low, high = min(fold[covariate][0] for fold in ranges), max(fold[covariate][1] for fold in ranges)
        values, reach = cohort.table[covariate], BEYOND * (high - low)
        yield covariate, low, high, np.flatnonzero((values < low - reach) | (values > high + reach))


def values_beyond_training(models: Sequence[ModelBundle], cohort: Cohort, *, named_rows: bool) -> list[str]:
    """Values beyond those of the training patients, times of another size, and a `resolution` that does not fit.

    Parameters
    ----------
    named_rows : bool
        Whether rows and a patient's value are named: for the terminal, not for what is passed on.
    """
    lines = resolution_warnings(cohort) + _other_time_unit(models, cohort)
    for covariate, low, high, outside in _ranges(models, cohort):
        if not len(outside):
            continue
        where = f": {len(outside):,} of {counted(len(cohort), 'patient')}"
        if named_rows:
            first = cohort.table[covariate][outside[0]]
            where = f", {format_rows([cohort.file_rows[row] for row in outside])}: first {first:g}"
        lines.append(f"{cohort.column(covariate)}{where} beyond the training's range, {low:g} to {high:g}")
    return lines
