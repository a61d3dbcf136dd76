"""Checks for leakage and chance: shared patients, permuted outcomes, the smallest detectable difference."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from fracsurv.config import TRUE_RISK, derive_seed
from fracsurv.images.plausibility import other_grey_scale
from fracsurv.images.store import ImageStore
from fracsurv.metrics import concordance_index
from fracsurv.study.protocol import HELD_OUT
from fracsurv.study.results import finished, read_predictions
from fracsurv.study.run import Run, permuted
from fracsurv.utils.files import read_json
from fracsurv.utils.formatting import counted

LEVEL, POWER = 0.05, 0.8
N_PERMUTATIONS = 200
PERMUTED = "permuted"
"""Folder, beside those of a run, in which the same study with permuted outcomes is looked for."""


class Check(NamedTuple):
    """One check for leakage: what patients may share, what was found, whether it is sound (None: may be chance).

    `looked` is False where there was nothing to compare; `sound` then has no meaning.
    """

    asked: str
    found: str
    sound: bool | None
    looked: bool = True


def grey_scale_warning(run: Run) -> str:
    """A warning where some radiographs are on another grey scale than most and all share one range; else ''."""
    for kind in ("full", "crops") if run.profile.normalise == "fold" else ():
        folder = run.store_folder(kind)
        if not folder.is_dir() or not run.has_store(kind):
            continue
        odd = other_grey_scale(ImageStore.open(folder).ranges[f"{kind}_max"].to_numpy(float))
        if odd.any():
            return (
                f"On another grey scale than most: {int(odd.sum()):,} of {counted(len(odd), 'radiograph')}, "
                "by the brightest pixel (`fracsurv check` names them); one range became 0 to 1 for all, "
                "so networks may tell them, and where they come from, apart."
            )
    return ""


def leak_checks(run: Run) -> list[Check]:
    """Whether a patient evaluated on was trained on: by id, by image file, by stored pixels, by all values."""
    checks = [_by_id(run)]
    if run.cohort.has_images:
        checks.append(_shared(run, _files(run), "image file, byte for byte"))
        for kind in ("crops", "full"):
            what = f"stored pixels ({kind})"
            if run.has_store(kind):
                checks.append(_shared(run, _pixels(run, kind), what))
            else:
                checks.append(Check(f"the same {what}", "no model of this run was given them", None, looked=False))
    columns = [*run.cohort.covariates, "time", "event"]
    rows = [repr(row) for row in run.cohort.table[columns].itertuples(index=False, name=None)]
    values = _shared(run, rows, "covariates, time and outcome")
    return [*checks, values._replace(sound=values.sound or None)]  # with few covariates equal by chance


def _by_id(run: Run) -> Check:
    """Whether a fold model's own predictions name a patient both as trained on and as evaluated on."""
    n, models = 0, 0
    fitted = [each for each in finished(run) if each != TRUE_RISK and run.experiments[each].model != "predictions"]
    for name in fitted:  # whom a model from elsewhere has met is not known
        for fold in range(run.profile.n_folds):
            predictions = read_predictions(run, name, fold)
            trained = predictions["split"] == "train"
            ids = predictions["patient_id"]
            n += ids[~trained].isin(ids[trained]).sum() + ids[~trained].duplicated().sum()
            models += 1
    found = f"{counted(n, 'patient')} trained on and evaluated on, or evaluated twice"
    return Check("the same patient id", f"{found}, by one of {counted(models, 'model')}", n == 0)


def _shared(run: Run, keys: list[str], what: str) -> Check:
    """Groups of patients with the same key: how many leak from training to evaluation, how many count twice.

    A training patient is validated by the model of its own fold, which was not trained on it.
    """
    several = {key for key, n in Counter(keys).items() if n > 1}
    table = pd.DataFrame({"key": keys, "split": run.splits["split"], "fold": run.splits["fold"]})
    groups = [group for _, group in table[table["key"].isin(several)].groupby("key")]
    if not groups:
        return Check(f"the same {what}", "no two patients", True)
    trained = [group[group["split"] == "train"] for group in groups]
    leaks = sum(
        len(part) > 0 and (len(part) < len(group) or part["fold"].nunique() > 1)
        for part, group in zip(trained, groups, strict=True)
    )
    twice = sum(len(group) - len(part) > 1 for part, group in zip(trained, groups, strict=True))
    found = f"{counted(len(groups), 'group')} of patients; {leaks:,} trained on and evaluated on"
    sound = False if leaks else None if twice else True
    return Check(f"the same {what}", f"{found}, {twice:,} evaluated twice", sound)


def _files(run: Run) -> list[str]:
    """A hash of each radiograph's bytes, or a key of its own: files of a unique size are not read."""
    paths = [run.cohort.folder / name if name else None for name in run.cohort.table["image"]]
    sizes = [path.stat().st_size if path else None for path in paths]
    several = {size for size, n in Counter(sizes).items() if n > 1}
    keys = []
    for row, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        if path is None:
            keys.append(f"none {row}")
        elif size not in several:
            keys.append(f"size {size}")
        else:
            with path.open("rb") as file:
                keys.append(hashlib.file_digest(file, "sha256").hexdigest())
    return keys


def _pixels(run: Run, kind: str) -> list[str]:
    """A hash of each patient's stored pixels, or a key of its own for a patient without any."""
    stored = run.store(kind).files[kind]
    keys = []
    for row in range(len(run.cohort)):
        pixels = stored.read(np.array([row]))
        keys.append(hashlib.sha256(pixels).hexdigest() if pixels.any() else f"none {row}")
    return keys


def minimal_detectable_difference(se: float, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest true difference that a two-sided test at `level` finds with probability `power`, given its SE."""
    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * se)


def permuted_ablation(run: Run) -> pd.DataFrame | None:
    """C of held-out patients in the same cohort's run with permuted outcomes, from this run's folder `permuted`.

    None without one, and for one of another cohort or seed, or whose outcomes are not permuted. A column `by_chance`
    says whether C lies where 95 of 100 deals of these outcomes put the mean over these fold models' C.
    """
    folder: Path = run.out / PERMUTED
    if not all((folder / file).exists() for file in ("ablation.csv", "provenance.json")):
        return None
    facts = read_json(folder / "provenance.json")
    table = pd.read_csv(folder / "ablation.csv")
    if facts.get("cohort", {}).get("fingerprint") != permuted(run.cohort, run.profile.seed).fingerprint():
        return None
    held_out = (table["metric"] == "c_index") & (table["experiment"] != TRUE_RISK) & table["split"].isin(HELD_OUT)
    if not held_out.any():
        return None
    table = table[held_out].copy()
    seed = derive_seed(run.profile.seed, "deals")
    table["by_chance"] = [
        _by_chance(folder / "experiments" / row.experiment, row.split, row.mean, seed)
        for row in table[["experiment", "split", "mean"]].itertuples(index=False)
    ]
    return table


def _by_chance(experiment: Path, split: str, c_index: float, seed: int) -> bool:
    """Whether a mean C over fold models lies within 1.96 SD of its mean over deals of the outcomes."""
    paths = sorted(experiment.glob("fold-*/predictions.parquet"))
    folds = [found[found["split"] == split] for found in map(pd.read_parquet, paths)]
    event, time = folds[0]["event"].to_numpy(), folds[0]["time"].to_numpy()
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(N_PERMUTATIONS):
        deal = rng.permutation(len(event))
        drawn.append(np.mean([concordance_index(event[deal], time[deal], fold["risk"].to_numpy()) for fold in folds]))
    return bool(abs(c_index - np.mean(drawn)) <= norm.ppf(1 - LEVEL / 2) * np.std(drawn, ddof=1))
