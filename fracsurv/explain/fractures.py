"""Whether a network looks at truly fractured vertebrae, in cohorts whose truth is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fracsurv.cohort.boxes import BOX_COLUMNS, LEVELS, N_SLOTS, overlapping_pairs
from fracsurv.cohort.cohort import Cohort
from fracsurv.metrics import percentile_interval, resampled


def true_grades(cohort: Cohort, rows: NDArray) -> NDArray | None:
    """True Genant grade of the vertebra in each slot, (len(rows), 13) float; None for a cohort without a truth.

    NaN where a slot is empty, or its box overlaps no vertebra from T4 to L4 by half.
    """
    boxes, truth = cohort.true_vertebrae(), cohort.truth()
    if boxes is None or cohort.vertebrae is None:
        return None
    part = cohort.of_rows(rows)
    index = part.slot_index
    found_of, true_of = (dict(list(table.groupby("patient_id"))) for table in (part.vertebrae, boxes))
    result = np.full((len(rows), N_SLOTS), np.nan)
    for number, patient in enumerate(part.table["patient_id"]):
        if patient not in found_of or patient not in true_of:
            continue
        theirs = true_of[patient][true_of[patient]["level"].isin(LEVELS)]
        pairs = overlapping_pairs(found_of[patient][BOX_COLUMNS].to_numpy(float), theirs[BOX_COLUMNS].to_numpy(float))
        grade = {box: truth.loc[patient, f"grade_{theirs['level'].iloc[j]}"] for box, j in pairs}
        result[number] = [grade.get(box, np.nan) for box in index[number]]
    return result


def fracture_auc(
    contribution: NDArray, grade: NDArray, *, least: int = 1, n_draws: int = 1000, seed: int = 0
) -> dict[str, float]:
    """AUC of contributions for fractured against sound vertebrae of the same patient; 0.5 is chance.

    First the mean contribution of the sound vertebrae at the same level is subtracted: T12 and L1 fracture more often
    than T4, and a network that only weighs levels would look like one that sees fractures. Then, within each patient
    with both: the share of pairs of a fractured and a sound vertebra in which the fractured one contributes more, a
    half of ties; then the mean over these patients. Pairs are within a patient, so that age, say, does not count.

    Parameters
    ----------
    contribution : array (n, 13), or (n_models, n, 13)
        Of several models the shares are averaged, patient by patient.
    grade : array (n, 13)
        True grades, NaN = not known. Levels at which nobody has a sound vertebra are left out.
    least : int
        Minimum grade of a fractured vertebra. Those between 0 and it are left out.

    Returns
    -------
    dict
        `auc`, `ci_low`, `ci_high` (95 %, patients resampled), `n_patients`, `n_fractured` vertebrae; NaN without such
        a patient.
    """
    contribution = np.asarray(contribution, float).reshape(-1, *np.shape(grade))
    known = np.isfinite(grade) & np.isfinite(contribution).all(axis=0)
    fractured, sound = known & (grade >= least), known & (grade == 0)
    expected = np.where(sound, contribution, 0).sum(axis=1) / np.maximum(sound.sum(axis=0), 1)
    contribution = contribution - expected[:, None, :]
    fractured &= sound.any(axis=0)
    both = fractured.any(axis=1) & sound.any(axis=1)
    shares = []
    for patient in np.flatnonzero(both):
        broken, whole = (contribution[:, patient, at[patient]] for at in (fractured, sound))
        gap = broken[:, :, None] - whole[:, None, :]
        shares.append(((gap > 0) + 0.5 * (gap == 0)).mean())
    shares = np.array(shares)
    low = high = auc = np.nan
    if len(shares):
        auc = shares.mean()
        low, high = percentile_interval(resampled(lambda rows: shares[rows].mean(), len(shares), n_draws, seed))
    counts = {"n_patients": len(shares), "n_fractured": int(fractured[both].sum())}
    return {"auc": float(auc), "ci_low": float(low), "ci_high": float(high), **counts}
