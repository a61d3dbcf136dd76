"""A cohort on disk, read and checked whole: every fault is listed at once, nothing is half-read.

The format is described in `data/README.md`. A cohort folder holds `cohort.csv` (or `.parquet`), and
optionally `cohort.yaml`, `images/`, `vertebrae.csv` and, where the outcome is simulated, `truth.parquet`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import yaml

from fracsurv.errors import UserError

PROVENANCES = ("real", "simulated", "semi-synthetic")
KINDS = ("continuous", "normalised", "binary")
SPLITS = ("train", "test", "external")
PROTOCOL_COVARIATES = {
    "age": "continuous",
    "bmi": "continuous",
    "prior_fracture": "binary",
    "parental_hip_fracture": "binary",
    "smoker": "binary",
    "glucocorticoids": "binary",
    "rheumatoid_arthritis": "binary",
    "alcohol": "binary",
    "secondary_osteoporosis": "binary",
    "t_score": "normalised",
}
SETTINGS = ("provenance", "covariates", "columns", "resolution", "labels", "outcome", "horizons", "description")
BOX_COLUMNS = ["x_min", "y_min", "x_max", "y_max"]
KEYPOINT_COLUMNS = [f"{axis}{k}" for k in range(1, 7) for axis in "xy"]


@dataclass(frozen=True)
class Cohort:
    """A checked cohort, one row a patient.

    Attributes
    ----------
    table : DataFrame
        `patient_id` (str), `time` (float, days, > 0), `event` (bool, True = fracture), the covariates
        (float), and where given `image` (path relative to `folder`) and `split` ('' = not fixed).
    covariates : dict of str to str
        Name to kind: 'continuous' (standardised on a training fold), 'normalised' or 'binary' (as they are).
    resolution : float
        Image pixels per pixel of the protocol's radiographs (which are 1,200 to 1,600 pixels tall).
    vertebrae : DataFrame or None
        One row a box, in pixels of the patient's radiograph.
    horizons : tuple of float
        Days at which AUC and Brier score are reported; empty = the protocol's 1, 3, 5 and 8 years.
    """

    folder: Path
    table: pd.DataFrame
    covariates: dict[str, str]
    provenance: str = "real"
    resolution: float = 1.0
    vertebrae: pd.DataFrame | None = None
    labels: dict[str, str] = field(default_factory=dict)
    outcome: str = "any fracture"
    horizons: tuple[float, ...] = ()
    description: str = ""

    def __len__(self) -> int:
        return len(self.table)

    @property
    def has_images(self) -> bool:
        """Whether every patient has a radiograph (a cohort has all of them or none)."""
        return "image" in self.table

    @property
    def constant_covariates(self) -> list[str]:
        """Covariates with one value for everybody: harmless (a rare factor that nobody has), but telling nothing."""
        return [name for name in self.covariates if self.table[name].nunique() == 1]

    def truth(self) -> pd.DataFrame | None:
        """The simulator's truth, indexed by patient; None for a real cohort. For the evaluation alone."""
        path = self.folder / "truth.parquet"
        if not path.exists():
            return None
        return pd.read_parquet(path).set_index("patient_id").loc[self.table["patient_id"]]

    def fingerprint(self) -> str:
        """SHA-256 over the table, the kinds of covariates and the boxes (not the images' bytes)."""
        digest = hashlib.sha256(repr((self.covariates, self.provenance, self.resolution)).encode())
        for table in (self.table, self.vertebrae):
            if table is not None:
                digest.update(",".join(table.columns).encode())
                digest.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
        return digest.hexdigest()[:16]


def read_cohort(folder: str | Path) -> Cohort:
    """Read and check a cohort folder.

    Raises
    ------
    UserError
        With every fault found: file, row (as a spreadsheet numbers it: the header is row 1), column,
        the value and what was expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such cohort folder; `fracsurv simulate {folder}` makes one")
    faults: list[str] = []
    settings = _read_settings(folder, faults)
    table, file = _read_table(folder, faults)
    if table is None:
        raise UserError(faults)
    covariates = _covariates(table, settings, file, faults)
    table = _rename(table, settings.get("columns", {}), covariates, file, faults)
    if faults:  # without the right columns every further fault would be an echo of these
        raise UserError(faults)
    values = _check_values(table, covariates, settings.get("columns", {}), file, faults)
    _check_images(folder, values, file, faults)
    vertebrae = _read_vertebrae(folder, set(values["patient_id"]), faults)
    if faults:
        raise UserError(faults)
    keep = ["patient_id", "time", "event", *covariates]
    keep += [name for name in ("image", "split") if name in values]
    return Cohort(
        folder=folder,
        table=values[keep].reset_index(drop=True),
        covariates=covariates,
        provenance=settings.get("provenance", "real"),
        resolution=float(settings.get("resolution", 1.0)),
        vertebrae=vertebrae,
        labels=settings.get("labels", {}),
        outcome=settings.get("outcome", "any fracture"),
        horizons=tuple(float(day) for day in settings.get("horizons", ())),
        description=settings.get("description", ""),
    )


def _read_settings(folder: Path, faults: list[str]) -> dict[str, Any]:
    path = folder / "cohort.yaml"
    if not path.exists():
        return {}
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        faults.append(f"cohort.yaml: not readable as YAML{'' if line is None else f' (line {line + 1})'}")
        return {}
    if not isinstance(settings, dict):
        faults.append("cohort.yaml: must hold `name: value` lines")
        return {}
    faults += [
        f"cohort.yaml: unknown setting {name!r}; known are {', '.join(SETTINGS)}"
        for name in settings
        if name not in SETTINGS
    ]
    if settings.get("provenance", "real") not in PROVENANCES:
        faults.append(f"cohort.yaml, provenance: {settings['provenance']!r}; must be one of {', '.join(PROVENANCES)}")
    resolution = settings.get("resolution", 1.0)
    if isinstance(resolution, bool) or not isinstance(resolution, int | float) or not 0 < resolution <= 10:
        faults.append(f"cohort.yaml, resolution: {resolution!r}; must be a number above 0 and at most 10")
        settings["resolution"] = 1.0
    days = settings.get("horizons", [])
    if not isinstance(days, list) or not all(isinstance(d, int | float) and d > 0 for d in days):
        faults.append(f"cohort.yaml, horizons: {days!r}; must be a list of days, above 0")
        settings["horizons"] = []
    for name in ("covariates", "columns", "labels"):
        if not isinstance(settings.get(name, {}), dict):
            faults.append(f"cohort.yaml, {name}: must hold `name: value` lines")
            settings[name] = {}
    faults += [
        f"cohort.yaml, covariates, {name}: {kind!r}; must be one of {', '.join(KINDS)}"
        for name, kind in settings.get("covariates", {}).items()
        if kind not in KINDS
    ]
    return settings


def _read_table(folder: Path, faults: list[str]) -> tuple[pd.DataFrame | None, str]:
    found = [name for name in ("cohort.csv", "cohort.parquet") if (folder / name).exists()]
    if len(found) != 1:
        what = "holds both cohort.csv and cohort.parquet; keep one" if found else "holds no cohort.csv"
        faults.append(f"{folder}: {what}")
        return None, "cohort.csv"
    file = found[0]
    try:
        if file.endswith(".csv"):
            # as text: what cannot be read as a number is shown to the user as it stands in the file
            table = pd.read_csv(folder / file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        else:
            table = pd.read_parquet(folder / file)
    except (ValueError, OSError) as error:
        faults.append(f"{file}: not readable ({type(error).__name__}); CSV must be comma-separated UTF-8")
        return None, file
    if table.empty:
        faults.append(f"{file}: holds no patients")
        return None, file
    return table, file


def _covariates(table: pd.DataFrame, settings: dict, file: str, faults: list[str]) -> dict[str, str]:
    if settings.get("covariates"):
        return dict(settings["covariates"])
    columns = settings.get("columns", {})
    found = {name: kind for name, kind in PROTOCOL_COVARIATES.items() if columns.get(name, name) in table.columns}
    if not found:
        faults.append(f"{file}: none of the protocol's covariates; name yours in cohort.yaml under `covariates`")
    return found


def _rename(
    table: pd.DataFrame, columns: dict[str, str], covariates: dict[str, str], file: str, faults: list[str]
) -> pd.DataFrame:
    known = ["patient_id", "time_days", "event", "image", "split", *covariates]
    faults += [f"cohort.yaml, columns: unknown name {name!r}" for name in columns if name not in known]
    required = ["patient_id", "time_days", "event", *covariates]
    faults += [
        f"{file}: no column {columns.get(name, name)!r} (for {name}); it has {', '.join(map(str, table.columns))}"
        for name in required
        if columns.get(name, name) not in table.columns
    ]
    chosen = {columns.get(name, name): name for name in known if columns.get(name, name) in table.columns}
    return table[list(chosen)].rename(columns=chosen)


def _check_values(
    table: pd.DataFrame, covariates: dict[str, str], columns: dict[str, str], file: str, faults: list[str]
) -> pd.DataFrame:
    values = table.copy()
    values["patient_id"] = values["patient_id"].astype(str).str.strip()
    event = values["event"].astype(str).str.strip().str.lower()
    values["event"] = event.map({"1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0, "1.0": 1.0, "0.0": 0.0})
    for name in ("time_days", *covariates):
        values[name] = pd.to_numeric(values[name], errors="coerce").astype(float)
    if "split" in values:
        values["split"] = values["split"].fillna("").astype(str).str.strip()
    try:
        _schema(covariates, with_split="split" in values).validate(values, lazy=True)
    except pa.errors.SchemaErrors as errors:
        for case in errors.failure_cases.sort_values(["index", "column"]).to_dict("records"):
            row, column = int(case["index"]), case["column"]
            raw = table[column].iloc[row]
            shown = "empty" if pd.isna(raw) or not str(raw).strip() else repr(str(raw))[:60]
            name = columns.get(column, column)
            faults.append(f"{file} row {row + 2}, column {name}: {shown}; {case['check']}")
    if (values["event"] == 0).all():
        faults.append(f"{file}, column event: no patient has an event; nothing can be learnt")
    values["event"] = values["event"] == 1
    return values.rename(columns={"time_days": "time"})


def _schema(covariates: dict[str, str], *, with_split: bool) -> pa.DataFrameSchema:
    """Pandera's schema of a cohort's table; a check's `error` is what the user reads."""
    finite = pa.Check(lambda s: s.notna() & np.isfinite(s), error="must be a number", ignore_na=False)
    binary = pa.Check(lambda s: s.isin([0, 1]), error="must be 0 or 1", ignore_na=False)
    columns = {
        "patient_id": pa.Column(
            str,
            [
                pa.Check(lambda s: s.str.len() > 0, error="must be given", ignore_na=False),
                pa.Check(lambda s: ~s.duplicated() | (s == ""), error="must be unique: one row a patient"),
            ],
        ),
        "time_days": pa.Column(
            float,
            pa.Check(lambda s: (s > 0) & np.isfinite(s), error="must be days, above 0", ignore_na=False),
            nullable=True,
        ),
        "event": pa.Column(
            float,
            pa.Check(lambda s: s.notna(), error="must be 1 (fracture) or 0 (censored)", ignore_na=False),
            nullable=True,
        ),
    }
    for name, kind in covariates.items():
        columns[name] = pa.Column(float, binary if kind == "binary" else finite, nullable=True)
    if with_split:
        allowed = pa.Check(lambda s: s.isin(["", *SPLITS]), error=f"must be empty or one of {', '.join(SPLITS)}")
        columns["split"] = pa.Column(str, allowed)
    return pa.DataFrameSchema(columns)


def _check_images(folder: Path, values: pd.DataFrame, file: str, faults: list[str]) -> None:
    if "image" not in values:
        return
    root = folder.resolve()
    for row, path in enumerate(values["image"].fillna("").astype(str)):
        where = f"{file} row {row + 2}, column image"
        if not path:
            faults.append(f"{where}: empty; give every patient an image, or leave the column out")
        elif not (folder / path).resolve().is_relative_to(root):
            faults.append(f"{where}: {path!r}; must not leave the cohort folder")
        elif not (folder / path).is_file():
            faults.append(f"{where}: {path!r}; no such file in the cohort folder")


def _read_vertebrae(folder: Path, patients: set[str], faults: list[str]) -> pd.DataFrame | None:
    path = folder / "vertebrae.csv"
    if not path.exists():
        return None
    raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    missing = [name for name in ("patient_id", *BOX_COLUMNS) if name not in raw]
    if missing:
        faults.append(f"vertebrae.csv: no column {', '.join(missing)}")
        return None
    table = pd.DataFrame({"patient_id": raw["patient_id"].str.strip()})
    table["level"] = raw.get("level", "")
    for name in [*BOX_COLUMNS, "score", *KEYPOINT_COLUMNS]:
        table[name] = pd.to_numeric(raw[name], errors="coerce") if name in raw else np.nan
    box = table[BOX_COLUMNS].to_numpy()
    unknown = ~table["patient_id"].isin(patients)
    broken = ~np.isfinite(box).all(axis=1)
    flat = ~broken & ((box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1]))
    for row in np.flatnonzero(unknown | broken | flat):
        if unknown.iloc[row]:
            what = f"column patient_id: {table['patient_id'].iloc[row]!r}; not a patient of the cohort"
        else:
            shown = ", ".join(raw.loc[row, BOX_COLUMNS])
            what = f"{shown}; a box needs four numbers, x_min < x_max and y_min < y_max"
        faults.append(f"vertebrae.csv row {row + 2}, {what}")
    return table
