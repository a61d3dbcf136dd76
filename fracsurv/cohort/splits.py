"""Training, validation and test patients: stratified by event (also competing), seeded."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from fracsurv.cohort.cohort import Cohort
from fracsurv.utils.errors import UserError


def make_splits(cohort: Cohort, *, n_folds: int = 3, test_fraction: float = 0.1, seed: int = 0) -> pd.DataFrame:
    """Hold out a test set, then cut the rest into cross-validation folds.

    A `split` column of the cohort is kept: 'test' and 'external' patients stay there, and as soon as one
    patient is marked 'test' nobody else is drawn into the test set; everyone else trains. Where everybody's
    split is fixed and none is 'test', there is no test set, and models are evaluated on 'external' patients alone.

    Parameters
    ----------
    n_folds : int
        Number of folds, at least 2. Fold k validates the patients with `fold == k` and trains on the others.
    test_fraction : float
        Share of the patients whose split is not fixed that is held out.

    Returns
    -------
    DataFrame
        `patient_id`, `split` ('train', 'test' or 'external'), `fold` (0 … n_folds − 1, or −1 outside 'train').

    Raises
    ------
    UserError
        Where there are too few patients with, or without, an event to fill the folds or the test set, or where
        everybody is marked 'train', so that no patient is left to evaluate on.
    """
    event, status = cohort.table["event"].to_numpy(), cohort.status
    fixed = cohort.table["split"].to_numpy() if "split" in cohort.table else np.full(len(cohort), "")
    split = np.where(fixed == "", "train", fixed).astype(object)
    free = np.flatnonzero(fixed == "")
    if len(free) and not (split == "test").any():
        _require(event[free], 2, "a test set stratified by event")
        held_out = math.ceil(test_fraction * len(free))
        if not 2 <= held_out <= len(free) - 2:  # one with and one without an event, in both parts
            raise UserError(
                f"cohort: holding out {test_fraction:g} of {len(free)} patients leaves {held_out} to test and "
                f"{len(free) - held_out} to train; both need at least 2"
            )
        strata = _strata(status[free], 2, room=min(held_out, len(free) - held_out))
        _, test = train_test_split(free, test_size=test_fraction, random_state=seed, stratify=strata)
        split[test] = "test"
    if (split == "train").all():
        raise UserError(
            "cohort: every patient is marked 'train', so that none is left to evaluate the models on; leave some "
            "patients' split empty, or mark some 'test' or 'external'"
        )
    train = np.flatnonzero(split == "train")
    _require(event[train], n_folds, f"{n_folds} folds")
    fold = np.full(len(cohort), -1)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    for k, (_, validation) in enumerate(folds.split(train, _strata(status[train], n_folds))):
        fold[train[validation]] = k
    return pd.DataFrame({"patient_id": cohort.table["patient_id"], "split": split, "fold": fold})


def _strata(status: np.ndarray, n: int, room: int | None = None) -> np.ndarray:
    """What splits are stratified by: the event and, where there are enough patients, the competing event too.

    Enough are n with each of what can become of a patient, and a smaller part with `room` for one of each.
    """
    counts = np.bincount(status, minlength=3)
    kinds = counts[counts > 0]
    return status if counts[2] and kinds.min() >= n and (room is None or room >= len(kinds)) else status == 1


def _require(event: np.ndarray, n: int, purpose: str) -> None:
    counts = {"with": int(event.sum()), "without": int((~event).sum())}
    faults = [
        f"cohort: {count} training patients {word} an event; {purpose} need at least {n}"
        for word, count in counts.items()
        if count < n
    ]
    if faults:
        raise UserError(faults)
