"""Public survival data in the cohort format: scikit-survival's data sets and DeepSurv's HDF5 files. No images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sksurv.datasets import load_flchain, load_gbsg2, load_whas500

from fracsurv.utils.errors import UserError, row_faults
from fracsurv.utils.files import atomic_folder

LOADERS = {"flchain": load_flchain, "whas500": load_whas500, "gbsg2": load_gbsg2}
OUTCOMES = {"flchain": "death", "whas500": "death", "gbsg2": "recurrence or death"}
HDF5_PROVENANCE = {"linear": "simulated", "gaussian": "simulated"}


def import_survival(source: str, out: str | Path) -> None:
    """Write a public survival data set as a cohort folder.

    Parameters
    ----------
    source : str
        'flchain', 'whas500' or 'gbsg2' (scikit-survival), or the path of an HDF5 file with groups `train` and
        `test` of `x`, `t`, `e` (DeepSurv); the groups become the `split` column.

    Notes
    -----
    flchain loses `chapter`, the cause of death: it is filled for the dead alone and would give the outcome away.
    Creatinine is not known of some: `missing_covariates: impute` has each fold take its training patients' median.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is there already and not empty; give a new folder")
    if source in LOADERS:
        table, kinds, about = _from_sksurv(source)
    elif Path(source).suffix in (".h5", ".hdf5") and Path(source).is_file():
        table, kinds, about = _from_hdf5(Path(source))
    else:
        raise UserError(f"{source!r}: neither an HDF5 file nor one of {', '.join(LOADERS)}")
    kinds = {name: kind for name, kind in kinds.items() if table[name].nunique() > 1}
    table = table.drop(columns=[name for name in table if name not in kinds and name not in _OURS])
    with atomic_folder(out) as temporary:
        table.to_csv(temporary / "cohort.csv", index=False)
        (temporary / "cohort.yaml").write_text(
            yaml.safe_dump({**about, "covariates": kinds}, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


_OURS = ("patient_id", "time_days", "event", "split")


def _from_sksurv(name: str) -> tuple[pd.DataFrame, dict[str, str], dict]:
    x, y = LOADERS[name]()
    event, time = y.dtype.names
    if name == "flchain":
        x = x.drop(columns="chapter")
        for column in ("flc.grp", "sample.yr"):
            x[column] = x[column].astype(float)
    x = pd.get_dummies(x, drop_first=True, dtype=float).astype(float)
    x.columns = [column.replace(".", "_") for column in x.columns]
    table = pd.DataFrame({"patient_id": _ids(len(x)), "time_days": y[time], "event": y[event].astype(int)})
    table["time_days"] = table["time_days"].replace(0, 0.5)  # flchain has deaths on day 0: half a day
    about = {
        "provenance": "real",
        "outcome": OUTCOMES[name],
        "outcome_includes_death": True,
        "description": f"{name}, from scikit-survival; time in days",
    }
    if x.isna().any(axis=None):
        about["missing_covariates"] = "impute"
    return pd.concat([table, x.reset_index(drop=True)], axis=1), _kinds(x), about


def _from_hdf5(path: Path) -> tuple[pd.DataFrame, dict[str, str], dict]:
    import h5py  # only these files need it

    parts, faults = [], []
    try:
        with h5py.File(path) as file:
            for split in ("train", "test"):
                x, time, event = (np.asarray(file[split][key], dtype=float) for key in "xte")
                time, event = time.ravel(), event.ravel()
                if not (x.ndim == 2 and len(time) == len(event) == len(x)):
                    raise ValueError
                faults += _faults(f"{path.name}, {split}", x, time, event)
                part = pd.DataFrame(x, columns=[f"x{i + 1}" for i in range(x.shape[1])])
                part.insert(0, "split", split)
                part.insert(0, "event", event)
                part.insert(0, "time_days", time)
                parts.append(part)
    except (KeyError, OSError, ValueError, TypeError, AttributeError):
        raise UserError(
            f"{path.name}: not an HDF5 file with groups train and test of x (patients by covariates), t and e"
        ) from None
    if not faults and not any((part["event"] * part["time_days"]).any() for part in parts):
        faults.append(f"{path.name}: no event at a time above 0")
    if faults:
        raise UserError(faults)
    table = pd.concat(parts, ignore_index=True).astype({"event": int})
    table.insert(0, "patient_id", _ids(len(table)))
    # Whatever the file's unit is stands in the column for days; horizons follow its own event times. A time of
    # zero is put at half the least positive one: the cohort format has none.
    table["time_days"] = table["time_days"].clip(lower=table.loc[table["time_days"] > 0, "time_days"].min() / 2)
    times = table.loc[table["event"] == 1, "time_days"]
    covariates = table.drop(columns=list(_OURS))
    provenance = next((kind for word, kind in HDF5_PROVENANCE.items() if word in path.name), "real")
    about = {
        "provenance": provenance,
        "outcome": "event",
        "time_unit": "time units of the file",
        "horizons": [float(f"{times.quantile(q):.4g}") for q in (0.25, 0.5, 0.75)],
        "description": f"{path.name}, of DeepSurv's repository; times are in the file's own unit, not days",
    }
    return table, _kinds(covariates), about


def _faults(where: str, x: np.ndarray, time: np.ndarray, event: np.ndarray) -> list[str]:
    """Times and events that are none, and infinite covariates; rows are counted from 0."""
    rules = {
        "t": (time, np.isfinite(time) & (time >= 0), "must be a time, 0 or above"),
        "e": (event, np.isin(event, [0, 1]), "must be 1 (the event) or 0 (censored)"),
    }
    rules |= {f"x, column {k}": (x[:, k], ~np.isinf(x[:, k]), "must be a number") for k in range(x.shape[1])}
    return [
        fault
        for name, (values, sound, rule) in rules.items()
        for fault in row_faults(
            f"{where}/{name}", ((int(i), f"{values[i]:g}; {rule}") for i in np.flatnonzero(~sound))
        )
    ]


def _ids(n: int) -> list[str]:
    return [f"P{i + 1:05d}" for i in range(n)]


def _kinds(x: pd.DataFrame) -> dict[str, str]:
    """Binary where 0/1, continuous (standardised on a training fold) otherwise."""
    return {name: "binary" if set(x[name].unique()) <= {0, 1} else "continuous" for name in x}
