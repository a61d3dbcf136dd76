"""Could it be nothing: patients met twice, outcomes dealt out at random, and how small a difference could be seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from fracsurv.config import TRUE_RISK
from fracsurv.files import read_json
from fracsurv.run import Run, has_store

LEVEL, POWER = 0.05, 0.8
PERMUTED = "permuted"
"""Folder, beside those of a run, in which the same study with permuted outcomes is looked for."""


class Check(NamedTuple):
    """One look for a leak: what was asked, what was found, whether that is as it must be (None: may be chance)."""

    asked: str
    found: str
    sound: bool | None


def leak_checks(run: Run) -> list[Check]:
    """Whether anybody who is judged was met in training: by id, by image file, by pixels, by every number."""
    checks = [_by_id(run)]
    if run.cohort.has_images:
        files = [str((run.cohort.folder / name).resolve()) for name in run.cohort.table["image"]]
        checks.append(_shared(run, files, "image file"))
        checks += [_shared(run, _pixels(run, kind), f"stored pixels ({kind})") for kind in ("crops", "full")
                   if has_store(run, kind)]  # fmt: skip
    columns = [*run.cohort.covariates, "time", "event"]
    rows = [repr(row) for row in run.cohort.table[columns].itertuples(index=False, name=None)]
    alike = _shared(run, rows, "every covariate, time and outcome")
    return [*checks, alike._replace(sound=alike.sound or None)]  # with few covariates people are alike by chance


def _by_id(run: Run) -> Check:
    ids, n = run.cohort.table["patient_id"], 0
    for fold in range(run.profile.n_folds):
        rows = run.rows(fold)
        judged = np.concatenate([rows[split] for split in rows if split != "train"])
        n += len(set(ids.iloc[rows["train"]]) & set(ids.iloc[judged]))
    found = (
        f"{n:,} patients of a fold's training part are judged by its model; {ids.nunique():,} ids, {len(ids):,} rows"
    )
    return Check("the same patient id", found, n == 0 and ids.is_unique)


def _shared(run: Run, keys: list[str], what: str) -> Check:
    """Groups of patients with the same key, and how many of them lie in more than one split."""
    several = {key for key, n in Counter(keys).items() if n > 1}
    split = np.where(run.splits["split"] == "train", "train " + run.splits["fold"].astype(str), run.splits["split"])
    table = pd.DataFrame({"key": keys, "split": split})
    groups = table[table["key"].isin(several)].groupby("key")["split"].nunique()
    across = int((groups > 1).sum())
    found = (
        "no two patients" if groups.empty else f"{len(groups):,} groups of patients, {across:,} of them across splits"
    )
    return Check(f"the same {what}", found, across == 0)


def _pixels(run: Run, kind: str) -> list[str]:
    """A hash of each patient's stored pixels; a patient without any is like nobody."""
    stored = run.store(kind).files[kind]
    keys = []
    for row in range(len(run.cohort)):
        pixels = stored.read(np.array([row]))
        keys.append(hashlib.sha256(pixels).hexdigest() if pixels.any() else f"none {row}")
    return keys


def least_visible(se: float, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true difference that a two-sided test at `level` finds with probability `power`, given its SE."""
    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * se)


def permuted_ablation(run: Run) -> pd.DataFrame | None:
    """`ablation.csv` of the same cohort's run with permuted outcomes, where one lies in this run's folder `permuted`.

    None without one, and for one of another cohort: its patients and splits must be as many, its outcomes permuted.
    """
    folder: Path = run.out / PERMUTED
    if not all((folder / file).exists() for file in ("ablation.csv", "provenance.json")):
        return None
    facts = read_json(folder / "provenance.json")
    table = pd.read_csv(folder / "ablation.csv")
    ours = run.splits["split"].value_counts().to_dict()
    theirs = {row["split"]: row["patients"] for row in facts["cohort"]["splits"]}
    same = all(theirs.get(split) == n for split, n in ours.items())
    if not (facts["profile"].get("permute_outcomes") and same):
        return None
    return table[(table["metric"] == "c_index") & (table["experiment"] != TRUE_RISK)]
