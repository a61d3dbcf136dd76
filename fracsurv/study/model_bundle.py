"""What a fold's model needs, besides its weights, to be applied to new patients: written once it is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort
from fracsurv.config import Experiment, as_record
from fracsurv.metrics import Baseline, breslow_baseline
from fracsurv.study.competing import (
    CompetingHazard,
    baseline_record,
    competing_hazard,
    read_baseline,
)
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
    competing: CompetingHazard | None = None
    masked: bool = False

    @property
    def caveats(self) -> list[str]:
        """What whoever reads its predictions must know: patients that are not real, a model made small."""
        known = self.about["provenance"]
        cohort = [] if known == "real" else [f"Trained on: {PROVENANCE[known]}"]
        return [*cohort, *self.own_caveats]

    @property
    def own_caveats(self) -> list[str]:
        """Those of the model alone; none where an earlier version wrote the file."""
        given = self.about.get("caveats")
        return [f"Of the models: {line}" for line in given] if isinstance(given, list) else []

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
    baseline = breslow_baseline(event, time, risk[train])
    about = {"outcome": run.cohort.outcome, "time_unit": run.cohort.time_unit}
    about |= {"horizons": list(run.cohort.horizons), "provenance": run.cohort.provenance}
    about |= {"windowed": run.cohort.windowed, "ranges": _ranges(table[list(run.cohort.covariates)])}
    about |= {"patients": len(train), "events": int(event.sum())}
    about |= {"permuted": run.profile.permute_outcomes}
    about |= {"competing_event": run.cohort.competing_event if run.cohort.has_competing else ""}
    about |= {"caveats": model_caveats(run, name, fold)}
    record = {
        "version": EVALUATION_VERSION,
        "key": run.key(name, fold, alpha),
        "experiment": as_record(row),
        "alpha": alpha,
        "scaling": fit_scaling(run.cohort, train, morphometry=row.morphometry).as_record(),
        "limits": limits,
        "bit_depth": run.store(row.input).meta["bit_depth"] if row.needs_images else 0,
        "scale": run.profile.full_scale if row.input == "full" else run.profile.scale,
        "precision": run.profile.precision,
        "baseline": baseline_record(baseline),
        "centre": float(risk[train].mean()),
        "about": about,
    }  # fmt: skip
    if row.needs_images and run.cohort.masks:
        record["masked"] = True
    if (hazard := competing_hazard(run.cohort, train)) is not None:
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
        return _bundle(record)
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}); {ANEW}") from None


def _ranges(values: pd.DataFrame) -> dict[str, list[float]]:
    """Minimum and maximum of each column with any value."""
    return {name: [float(each.min()), float(each.max())] for name, each in values.items() if each.notna().any()}


def _bundle(record: dict[str, Any]) -> ModelBundle:
    competing = record.get("competing")
    return ModelBundle(
        Experiment(**record["experiment"]),
        record["alpha"],
        Scaling(**record["scaling"]),
        tuple(record["limits"]) if record["limits"] else None,
        record["bit_depth"],
        record["scale"],
        record["precision"],
        read_baseline(record["baseline"]),
        record["centre"],
        record["about"],
        competing and CompetingHazard(np.array(competing["coefficients"]), read_baseline(competing["baseline"])),
        record.get("masked", False),
    )
