"""What the models look at: vertebrae, places in the picture, clinical factors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from fracsurv import plots
from fracsurv.cohort.boxes import LEVELS
from fracsurv.cohort.summary import label
from fracsurv.config import RESNETS, derive_seed
from fracsurv.explain.fractures import fracture_auc, true_grades
from fracsurv.report.findings.finding import PATIENTS, Finding
from fracsurv.study.explain import Explanation
from fracsurv.study.labels import experiment_name, stamp
from fracsurv.study.run import Run
from fracsurv.utils.formatting import counted, interval, signed
from fracsurv.vertebrae.covariates import VERTEBRAL

MARKS = {
    "Grad-CAM": "Grad-CAM marks what raises the risk.",
    "attention rollout": "Rollout marks where a transformer's information comes from.",
}


def vertebrae(run: Run, explained: Mapping[str, Explanation]) -> Finding | None:
    """How far each vertebra moves the risk, and whether the fractured ones do; None where nothing is explained."""
    found = {name: each for name, each in explained.items() if each.contributions is not None}
    if not found:
        return None
    titles = [experiment_name(run, name).replace(", ", "\n", 1) for name in found]
    first = next(iter(found.values()))
    means = [each.contributions.mean(axis=0) for each in found.values()]
    counts = sorted({len(each.patients) for each in found.values()})
    figure = plots.contributions(means, LEVELS, titles, provenance=f"{first.split} · {stamp(run)}")
    parts = []
    for name, mean in zip(found, means, strict=True):
        seen = np.isfinite(mean).any(axis=0)  # a level that no radiograph shows has no contribution
        if seen.any():
            size = np.full(len(LEVELS), -1.0)
            size[seen] = np.nanmedian(np.abs(mean[:, seen]), axis=0)
            most = LEVELS[int(size.argmax())]
            parts.append(f"{experiment_name(run, name)}: most at {most} (median {size.max():.3f})")
    said = (
        f"How far a vertebra moves the log hazard, either way, in {' or '.join(f'{n:,}' for n in counts)} of "
        f"{PATIENTS[first.split]} "
        f"(mean over the fold models). {'; '.join(parts)}."
    )
    return Finding("contributions", figure, "Contribution of each vertebra to the log hazard", said)


def fractured_first(run: Run, explained: Mapping[str, Explanation]) -> pd.DataFrame:
    """Whether contributions rank truly fractured vertebrae first: `experiment, least, auc, ci_low, ci_high, …`.

    Empty without a truth. `least` is the grade from which a vertebra counts as fractured.
    """
    rows = []
    index = pd.Index(run.cohort.table["patient_id"])
    grades: dict[tuple[str, ...], np.ndarray | None] = {}
    for name, found in explained.items():
        if found.contributions is None:
            continue
        patients = tuple(found.patients)
        if patients not in grades:  # mostly the same for all networks
            grades[patients] = true_grades(run.cohort, index.get_indexer(found.patients))
        grade = grades[patients]
        if grade is None:
            return pd.DataFrame()
        for least in (1, 2):
            seed = derive_seed(run.profile.seed, "fractured first", least)
            rows.append(
                {
                    "experiment": name,
                    "least": least,
                    **fracture_auc(found.contributions, grade, least=least, seed=seed),
                }
            )
    return pd.DataFrame(rows)


def places(run: Run, explained: Mapping[str, Explanation]) -> Finding | None:
    """Where in the picture each image model looks, on average; None where nothing is explained."""
    pictures, maps, titles, said, marks = [], [], [], [], {}
    for name, found in explained.items():
        if found.places is None:
            continue
        row = run.experiment(name)
        mean = found.places
        how = "Grad-CAM" if row.encoder in RESNETS else "attention rollout"
        marks[how] = MARKS[how]
        pictures.append(_mean_picture(run, row.input, found.patients, mean.shape))
        maps.append(mean / mean.mean() if mean.any() else mean)
        titles.append(f"{experiment_name(run, name).replace(', ', chr(10), 1)}\n{how}")
        height, width = mean.shape
        middle = mean[height // 4 : height - height // 4, width // 4 : width - width // 4].sum() / max(
            mean.sum(), 1e-12
        )
        said.append(f"{experiment_name(run, name)} ({how}) {100 * middle:.0f} %")
    if not maps:
        return None
    figure = plots.heat_maps(pictures, maps, titles, provenance=stamp(run))
    words = (
        "Colour: where the network looks, against the mean place (1); behind it the mean picture, for crops of all "
        f"13 vertebrae in their frame. {' '.join(marks.values())} On the "
        f"middle quarter of the picture's area falls: {'; '.join(said)} (25 % if all places counted alike)."
    )
    return Finding("places", figure, "Where in the picture the networks look", words)


def _mean_picture(run: Run, kind: str, patients: list[str], shape: tuple[int, int]) -> np.ndarray:
    """Mean of the stored pictures, cut or padded with zeros to `shape` in the centre."""
    rows = pd.Index(run.cohort.table["patient_id"]).get_indexer(patients)
    pixels = run.store(kind).files[kind].read(rows).astype(np.float32)
    mean = pixels.mean(axis=(0, 1) if kind == "crops" else 0)
    result = np.zeros(shape, np.float32)
    cut = [min(a, b) for a, b in zip(mean.shape, shape, strict=True)]
    (a, b), (c, d) = (((full[0] - cut[0]) // 2, (full[1] - cut[1]) // 2) for full in (mean.shape, shape))
    result[c : c + cut[0], d : d + cut[1]] = mean[a : a + cut[0], b : b + cut[1]]
    return result


def factors(run: Run, explained: Mapping[str, Explanation]) -> Finding | None:
    """What each model's ranking loses without each clinical factor; None where nothing is explained.

    No figure where no patients looked at can be compared: a C-index that is not known cannot be lost.
    """
    tables = {name: each.factors for name, each in explained.items() if each.factors is not None}
    if not tables:
        return None
    alt = "Loss of C-index when a clinical factor is permuted"
    unknown = [name for name, each in tables.items() if each["loss"].isna().all()]
    not_ranked = _not_ranked(run, explained, unknown)
    tables = {name: each.dropna(subset="loss") for name, each in tables.items() if name not in unknown}
    if not tables:
        return Finding("factors", None, alt, not_ranked)
    table = pd.concat([each.assign(experiment=name) for name, each in tables.items()], ignore_index=True)
    called = {name: label(run.cohort, name) for name in run.cohort.covariates} | VERTEBRAL
    shown = {name: called[name] for name in dict.fromkeys(table["factor"])}
    titles = {name: experiment_name(run, name).replace(", ", "\n", 1) for name in tables}
    first = explained[next(iter(tables))]
    split = first.split
    figure = plots.factor_losses(table, shown, titles, provenance=f"{split} · {stamp(run)}")
    parts = []
    for name in tables:
        mean = tables[name].groupby("factor", sort=False)[["loss", "ci_low", "ci_high"]].mean()
        top = mean.loc[mean["loss"].idxmax()]
        sure = int((mean["ci_low"] > 0).sum())
        if not top["loss"] > 0:
            parts.append(f"{experiment_name(run, name)}: none costs anything")
            continue
        parts.append(
            f"{experiment_name(run, name)}: {called[top.name]} ({signed(top['loss'])}, 95 % interval "
            f"{interval(top['ci_low'], top['ci_high'], sign=True)}); above 0 for {sure} of "
            f"{counted(len(mean), 'factor')}"
        )
    said = (
        f"What permuting one factor among {first.n_factors:,} of {PATIENTS[split]} costs in C-index; the "
        f"most, and so biased upwards: {'. '.join(parts)}. A factor that others stand in for costs little."
    )
    return Finding("factors", figure, alt, f"{said} {not_ranked}".strip())


def _not_ranked(run: Run, explained: Mapping[str, Explanation], names: list[str]) -> str:
    """Of which models no factor can be ranked, and why; '' for none."""
    if not names:
        return ""
    seen = dict.fromkeys(f"{explained[n].n_factors:,} of {PATIENTS[explained[n].split]}" for n in names)
    return (
        f"No factor of {', '.join(experiment_name(run, name) for name in names)} can be ranked: among the "
        f"{' and '.join(seen)} looked at there are no two of whom one is known to have had {run.cohort.outcome} "
        "before the other, so that there is no C-index to lose."
    )
