"""What a fold's model needs, besides its weights, to be applied to new patients: written once it is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fracsurv.cohort.cohort import Cohort
from fracsurv.config import Experiment, as_record
from fracsurv.metrics import Baseline, breslow_baseline
from fracsurv.study.competing import CompetingHazard, baseline_record, competing_hazard, read_baseline, read_competing
from fracsurv.study.labels import model_caveats
from fracsurv.study.protocol import PROVENANCE
from fracsurv.study.results import BUNDLE_FILE
from fracsurv.study.run import EVALUATION_VERSION, Run
from fracsurv.study.scaling import Scaling, fit_scaling
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import read_json, write_json

ANEW = "delete it and the run's folder `notebooks`, and call `fracsurv run` again with this version of fracsurv"


@dataclass(frozen=True)
class ModelBundle:
    """A fold model's preprocessing and baseline.

    Attributes
    ----------
    experiment : Experiment
        As it was trained.
    alpha : float or None
    scaling : Scaling
    limits : (float, float) or None
        Pixel values that become 0 and 1; None without an image, and where each patient has a range of its own.
    bit_depth : int
        Of the training radiographs, 8 or 16; 0 without an image.
    scale : float
        Of the stored pixels (`Profile.scale` or `full_scale`).
    precision : str
        As the profile asks for it.
    baseline : Baseline
    centre : float
        Mean log hazard of the training patients.
    competing : CompetingHazard or None
        Of a cohort with competing events.
    masked : bool
        Whether the network was trained among patients of whom some may have no radiograph.
    folder : Path
        Where it lies, beside the weights.
    about : dict
        `outcome`, `time_unit`, `horizons`, `provenance`, `windowed`, and of the training part `patients`, `events`
        and `ranges`, each covariate's minimum and maximum there; `caveats`, sentences that go with the model.
    """

    experiment: Experiment
    alpha: float | None
    scaling: Scaling
    limits: tuple[float, float] | None
    bit_depth: int
    scale: float
    precision: str
    baseline: Baseline
    centre: float
    about: dict[str, Any]
    folder: Path
    competing: CompetingHazard | None = None
    masked: bool = False

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.folder.parents[2]

    @property
    def caveats(self) -> list[str]:
        """What whoever reads its predictions must know: patients that are not real, a model made small."""
        known = self.about["provenance"]
        return [f"Trained on: {PROVENANCE[known]}"] * (known != "real") + self.own_caveats

    @property
    def own_caveats(self) -> list[str]:
        """Those of the model alone."""
        return [f"Of the models: {line}" for line in self.about["caveats"]]

    def survival(self, risk: np.ndarray, cohort: Cohort, times: np.ndarray) -> np.ndarray:
        """1 − probability of the event by each of `times`, (n, n_times), from log hazards (n,) of these patients."""
        if self.competing is None:
            return self.baseline.survival(risk, times)
        return self.competing.survival(self.baseline, risk, self.scaling(cohort), times)


def write_bundle(
    run: Run, name: str, fold: int, alpha: float | None, risk: np.ndarray, limits: tuple[float, float] | None
) -> None:
    """Write a fitted model's `model.json`; `risk` (n,) are the log hazards that it gave to the whole cohort."""
    row, train = run.experiment(name), run.rows(fold)["train"]
    table = run.cohort.table.iloc[train]
    event, time = table["event"].to_numpy(), table["time"].to_numpy()
    cohort, known = run.cohort, table[list(run.cohort.covariates)].dropna(axis="columns", how="all")
    about = {
        "outcome": cohort.outcome,
        "time_unit": cohort.time_unit,
        "horizons": list(cohort.horizons),
        "provenance": cohort.provenance,
        "windowed": cohort.windowed,
        "ranges": {name: [float(each.min()), float(each.max())] for name, each in known.items()},
        "patients": len(train),
        "events": int(event.sum()),
        "permuted": run.profile.permute_outcomes,
        "competing_event": cohort.competing_event if cohort.has_competing else "",
        "caveats": model_caveats(run, name, fold),
    }
    record = {
        "version": EVALUATION_VERSION,
        "key": run.key(name, fold, alpha),
        "experiment": as_record(row),
        "alpha": alpha,
        "scaling": fit_scaling(cohort, train, morphometry=row.morphometry).as_record(),
        "limits": limits,
        "bit_depth": run.store(row.input).meta["bit_depth"] if row.needs_images else 0,
        "scale": run.scale(row.input),
        "precision": run.profile.precision,
        "baseline": baseline_record(breslow_baseline(event, time, risk[train])),
        "centre": float(risk[train].mean()),
        "about": about,
    }
    if row.needs_images and cohort.masks:
        record["masked"] = True
    if (hazard := competing_hazard(cohort, train)) is not None:
        record["competing"] = hazard.as_record()
    write_json(run.folder(name, fold) / BUNDLE_FILE, record)


def read_bundle(folder: Path) -> ModelBundle:
    """What `write_bundle` wrote into a fold's folder.

    Raises
    ------
    UserError
        Where it is missing, of another version, or of another fit than the one that lies there.
    """
    path = folder / BUNDLE_FILE
    if not path.exists():
        raise UserError(f"{path}: not there; {ANEW}")
    try:
        record = read_json(path)
        if record.get("version") != EVALUATION_VERSION:
            raise UserError(f"{path}: of another version of fracsurv; {ANEW}")
        if record["key"] != read_json(folder / "fit.json")["key"]:
            raise UserError(f"{path}: not of the fit that lies beside it; run `fracsurv run` to its end")
        return _bundle(record, folder)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}); {ANEW}") from None


def _bundle(record: dict[str, Any], folder: Path) -> ModelBundle:
    competing = record.get("competing")
    return ModelBundle(
        **{name: record[name] for name in ("alpha", "bit_depth", "scale", "precision", "centre", "about")},
        experiment=Experiment(**record["experiment"]),
        scaling=Scaling(**record["scaling"]),
        limits=tuple(record["limits"]) if record["limits"] else None,
        baseline=read_baseline(record["baseline"]),
        folder=folder,
        competing=competing and read_competing(competing),
        masked=record.get("masked", False),
    )
