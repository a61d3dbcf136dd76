"""What makes predictions for patients doubtful: values unlike the training's, ids of its patients, no radiograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fracsurv.cohort.cohort import Cohort, own_or_protocols
from fracsurv.detection.locate import of_finder, read_located, source_line
from fracsurv.images.plausibility import BRIGHTER, resolution_warnings
from fracsurv.images.radiographs import EIGHT_TO_SIXTEEN
from fracsurv.images.store import ImageStore
from fracsurv.predict.predict import fold_folders, probability_column
from fracsurv.predict.train_overlap import seen_in_training
from fracsurv.study.model_bundle import read_bundle
from fracsurv.utils.errors import format_rows
from fracsurv.utils.formatting import be, counted, have

BEYOND_BRIGHTEST = 1.5
"""How many times the training's brightest pixel a radiograph's may be without it being told."""
BEYOND = 0.1
"""Share of the training patients' range that a value may lie outside it without being told."""


def doubts(run: Path, cohort: Cohort, name: str, work: Path, *, singled: bool) -> list[str]:
    """What makes predictions for these patients doubtful, a line each.

    `unlike_training` (for `singled` see there); `left_out_or_filled`; of a model of images, who has no radiograph;
    `found_boxes` and `other_greys`, in what `predict_cohort` left in `work`; `too_early`; ids of patients whom models
    were trained on.
    """
    said, of = unlike_training(run, cohort, name, singled=singled), f"of {counted(len(cohort), 'patient')}"
    said += left_out_or_filled(run, cohort, name)
    if read_bundle(fold_folders(run, name)[0]).masked and (n := int((~cohort.has_image).sum())):
        said.append(
            f"column image: {n:,} {of} {have(n)} no radiograph; in its place {name} takes the mean "
            "features of its training patients"
        )
    said += found_boxes(run, cohort, name, work) + other_greys(run, name, work) + too_early(run, name)
    met = seen_in_training(run, cohort)
    if met is not None and (n := int(met.sum())):
        said.append(
            f"column patient_id: {n:,} {of} {have(n)} the id of a patient whom the models were trained on; if they "
            "are the same people, this does not show what the models do in others"
        )
    return said


def left_out_or_filled(run: Path, cohort: Cohort, name: str) -> list[str]:
    """Lines of patients who are in no table since they have no radiograph, and of covariates that are filled in."""
    said = []
    if n := cohort.n_excluded:
        everybody = counted(len(cohort) + n, "patient")
        said.append(
            f"column image: {n:,} of {everybody} {have(n)} no radiograph and {be(n)} left out (`missing_images: "
            "exclude`)"
        )
    applied = read_bundle(fold_folders(run, name)[0])
    heard = [] if applied.experiment.image_alone else applied.scaling.kinds
    empty = cohort.table[[covariate for covariate in heard if covariate in cohort.covariates]].isna().sum()
    said += [
        f"column {covariate}: not known of {n:,} of {counted(len(cohort), 'patient')}; in its place the models take "
        "the median of their training patients (binary: the most frequent value)"
        for covariate, n in empty[empty > 0].items()
    ]
    return said


def too_early(run: Path, name: str) -> list[str]:
    """A line where fold models' training patients had no event by a horizon, so that they give it to nobody."""
    read = [read_bundle(folder) for folder in fold_folders(run, name)]
    said = []
    for day in own_or_protocols(read[0].about["horizons"]):
        without = sum(not (each.baseline.time <= day).any() for each in read)
        if without:
            said.append(
                f"{probability_column(day)}: {without} of {counted(len(read), 'fold model')} saw no event by then in "
                "training and give 0 to everybody"
            )
    return said


def found_boxes(run: Path, cohort: Cohort, name: str, work: Path) -> list[str]:
    """A line where a finder drew the boxes that the models were given, as `predict_cohort` left them in `work`."""
    if not read_bundle(fold_folders(run, name)[0]).experiment.needs_boxes:
        return []
    located = read_located(cohort, work)
    return [f"Of the new patients: {source_line(located)}"] if located is not None and of_finder(located) else []


def other_greys(run: Path, name: str, work: Path) -> list[str]:
    """A line where radiographs, as the stores in `work` hold them, are far darker or brighter than the training's."""
    row = read_bundle(fold_folders(run, name)[0]).experiment
    part = row.pretrained["image"] if row.fusion == "late" else name
    read = [read_bundle(folder) for folder in fold_folders(run, part)]
    bounds, kind = [each.limits[1] for each in read if each.limits], read[0].experiment.input
    if not bounds or not (work / kind).is_dir():
        return []
    store = ImageStore.open(work / kind)
    brightest = store.ranges[f"{kind}_max"].to_numpy(float)
    most = max(bounds) / (EIGHT_TO_SIXTEEN if store.meta["bit_depth"] < read[0].bit_depth else 1)
    odd = int(((brightest > 0) & ((brightest * BRIGHTER <= most) | (brightest >= BEYOND_BRIGHTEST * most))).sum())
    if not odd:
        return []
    return [
        f"column image: {odd:,} of {counted(len(brightest), 'radiograph')} {be(odd)} far darker or brighter than "
        f"the training's (brightest pixel there {most:,.0f}); on another grey scale {part} sees nothing that "
        "it knows, and its risks mean nothing"
    ]


def unlike_training(run: Path, cohort: Cohort, name: str, *, singled: bool) -> list[str]:
    """Values beyond those of the training patients, a `resolution` that does not fit: one line each.

    Parameters
    ----------
    singled : bool
        Whether rows and a patient's value are named: for the terminal, not for what is passed on.
    """
    about = [read_bundle(folder).about["ranges"] for folder in fold_folders(run, name)]
    said = resolution_warnings(cohort)
    for covariate in (each for each in cohort.covariates if all(each in ranges for ranges in about)):
        low, high = min(ranges[covariate][0] for ranges in about), max(ranges[covariate][1] for ranges in about)
        values, reach = cohort.table[covariate], BEYOND * (high - low)
        outside = np.flatnonzero((values < low - reach) | (values > high + reach))
        if len(outside) and not singled:
            said.append(
                f"column {covariate}: values of {len(outside):,} of {counted(len(cohort), 'patient')} lie beyond "
                f"what the models were trained on, {low:g} to {high:g}, and nothing shows what they do there"
            )
        elif len(outside):
            rows = format_rows([cohort.file_rows[row] for row in outside])
            said.append(
                f"column {covariate}, {rows}: {values[outside[0]]:g}{' first' if len(outside) > 1 else ''}; the "
                f"models were trained on {low:g} to {high:g}, and nothing shows what they do beyond"
            )
    return said
