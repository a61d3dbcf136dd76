"""Cox PH and DeepSurv on seven public cohorts with real (or, in two, simulated) follow-up: test C-index.

    python -m benchmarks.real_followup [--data FOLDER] [--only NAME,NAME]

FOLDER holds `deepsurv/*.h5` and `splits/*.npz`; it defaults to $FRACSURV_SHARED_DATA, else to `shared/data` beside
the repository. Models are fitted on the whole training part; the test part is looked at once, at the end. DeepSurv is
trained in two ways, each the same for all cohorts: "chosen" (the number of epochs by inner folds of the training
part) and "protocol" (the study's own row of Table A.1, in which nothing is chosen).
Prints a table and writes benchmarks/results/real_followup.json.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import sksurv.datasets
import torch
from numpy.typing import NDArray
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv
from tqdm import tqdm

from fracsurv.config import load_experiments
from fracsurv.metrics import concordance_index
from fracsurv.models.deepsurv import DeepSurv
from fracsurv.training.loop import forward, train_step
from fracsurv.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(5)
MAX_EPOCHS, N_INNER = 60, 5

# Test C-index of (Cox PH, DeepSurv, SD of DeepSurv over 5 seeds), measured once on these splits with this
# preprocessing by other implementations; no SD was recorded where it is None.
PUBLISHED = {
    "gbsg": (0.656, 0.682, 0.002),
    "support": (0.583, 0.622, 0.003),
    "linear": (0.778, 0.774, None),
    "gaussian": (0.487, 0.649, 0.005),
    "flchain": (0.791, 0.794, None),
    "whas500": (0.713, 0.719, 0.010),
    "gbsg2": (0.658, 0.667, 0.003),
}
HDF5 = {
    "gbsg": "gbsg_cancer_train_test.h5",
    "support": "support_train_test.h5",
    "linear": "linear_survival_data.h5",
    "gaussian": "gaussian_survival_data.h5",
}


@dataclass(frozen=True)
class Setting:
    """How DeepSurv is trained; `epochs` None = chosen by inner folds, up to `MAX_EPOCHS`."""

    lr: float
    batch: int
    weight_decay: float
    epochs: int | None


_ROW = load_experiments()["deepsurv"]
SETTINGS = {
    "chosen": Setting(lr=1e-3, batch=128, weight_decay=1e-4, epochs=None),
    "protocol": Setting(lr=_ROW.lr, batch=_ROW.batch_size, weight_decay=0.0, epochs=_ROW.epochs),
}


@dataclass(frozen=True)
class Part:
    """Patients: covariates (n, p) float64, event (n,) bool, time (n,) float64."""

    x: NDArray
    event: NDArray
    time: NDArray

    def __getitem__(self, rows: NDArray) -> Part:
        return Part(self.x[rows], self.event[rows], self.time[rows])


def load(name: str, folder: Path) -> tuple[Part, Part]:
    """Training and test part, columns of more than two values standardised on the training part."""
    if name in HDF5:
        with h5py.File(folder / "deepsurv" / HDF5[name]) as file:
            train, test = (
                Part(group["x"][:].astype(float), group["e"][:].astype(bool), group["t"][:].astype(float))
                for group in (file["train"], file["test"])
            )
    else:
        train, test = _load_from_scikit_survival(name, folder)
    many = np.array([len(np.unique(column)) > 2 for column in train.x.T])
    mean = np.where(many, train.x.mean(axis=0), 0.0)
    sd = np.where(many, train.x.std(axis=0), 1.0)
    return tuple(Part((part.x - mean) / sd, part.event, part.time) for part in (train, test))


def _load_from_scikit_survival(name: str, folder: Path) -> tuple[Part, Part]:
    table, outcome = getattr(sksurv.datasets, f"load_{name}")()
    rows = np.load(folder / "splits" / f"splits_{name}.npz")
    if name == "flchain":
        # `chapter`, the cause of death, is there only for the dead.
        table = table.drop(columns="chapter").astype({"flc.grp": float, "sample.yr": float})
        table["creatinine"] = table["creatinine"].fillna(table["creatinine"].iloc[rows["train"]].median())
    event, time = (outcome[field] for field in outcome.dtype.names)
    x = pd.get_dummies(table, drop_first=True).to_numpy(dtype=float)
    whole = Part(x, event.astype(bool), time.astype(float))
    return whole[rows["train"]], whole[rows["test"]]


def cox(train: Part, test: Part) -> float:
    """Test C-index of scikit-survival's Cox model, unpenalised."""
    model = CoxPHSurvivalAnalysis().fit(train.x, Surv.from_arrays(train.event, train.time))
    return concordance_index(test.event, test.time, model.predict(test.x))


def deepsurv(train: Part, test: Part, seed: int, setting: Setting) -> tuple[float, int]:
    """Test C-index of DeepSurv fitted on the whole training part, and for how many epochs it was."""
    n_epochs = setting.epochs or _best_epoch(train, seed, setting)
    *_, (model, _) = epochs(train, None, seed, setting, n_epochs)
    return c_index(model, test), n_epochs


def _best_epoch(train: Part, seed: int, setting: Setting) -> int:
    """The epoch with the best mean C-index over the inner folds."""
    inner = np.random.default_rng(seed).permutation(len(train.time)) % N_INNER
    curves = [
        np.array([c for _, c in epochs(train[inner != k], train[inner == k], seed, setting, MAX_EPOCHS)])
        for k in range(N_INNER)
    ]
    # A running mean over three epochs, so that one lucky epoch does not decide.
    curve = np.convolve(np.pad(np.mean(curves, axis=0), 1, mode="edge"), np.ones(3) / 3, mode="valid")
    return int(curve.argmax()) + 1


def epochs(train: Part, validation: Part | None, seed: int, setting: Setting, n_epochs: int):
    """Train DeepSurv; after each epoch yield it and its C-index on `validation` (NaN without one)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # weights and dropout; the global state comes back afterwards
        model = DeepSurv(n_inputs=train.x.shape[1])
        optimiser = torch.optim.AdamW(model.parameters(), setting.lr, weight_decay=setting.weight_decay)
        x = torch.from_numpy(train.x).float()
        event, time = torch.from_numpy(train.event), torch.from_numpy(train.time)
        for _ in range(n_epochs):
            model.train()
            for rows in torch.randperm(len(x)).split(setting.batch):
                train_step(forward(model, (x[rows],), torch.float32), event[rows], time[rows], optimiser)
            yield model, float("nan") if validation is None else c_index(model, validation)


def c_index(model: DeepSurv, part: Part) -> float:
    """C-index of the model's log hazards, without dropout."""
    model.eval()
    with torch.no_grad():
        risk = model(torch.from_numpy(part.x).float()).double().numpy()
    return concordance_index(part.event, part.time, risk)


def measure(name: str, folder: Path) -> dict[str, object]:
    """One row of the table."""
    train, test = load(name, folder)
    ours, (cox_reference, net_reference, net_sd) = cox(train, test), PUBLISHED[name]
    row = {
        "cohort": name,
        "n_train": len(train.time),
        "n_test": len(test.time),
        "cox": ours,
        "cox_reference": cox_reference,
        "cox_agrees": bool(round(ours, 3) == cox_reference),
        "deepsurv_reference": net_reference,
        "deepsurv_reference_sd": net_sd,
    }
    for way, setting in SETTINGS.items():
        bar = tqdm(SEEDS, desc=f"{name}, {way}", leave=False, disable=None)
        runs = [deepsurv(train, test, seed, setting) for seed in bar]
        values = np.array([value for value, _ in runs])
        margin = 2 * (values.std(ddof=1) if net_sd is None else net_sd)
        row |= {
            f"deepsurv_{way}": values.mean(),
            f"deepsurv_{way}_sd": values.std(ddof=1),
            f"deepsurv_{way}_not_lower": bool(values.mean() >= net_reference - margin),
            f"epochs_{way}": [n for _, n in runs],
        }
    return row


def line(row: dict) -> str:
    """A row of the table as printed."""
    sd = "" if row["deepsurv_reference_sd"] is None else f" ± {row['deepsurv_reference_sd']:.3f}"
    counts = f"{row['cohort']:<10} {row['n_train']:>5} {row['n_test']:>5}"
    cox_part = f"{row['cox']:.3f} {row['cox_reference']:.3f}{'' if row['cox_agrees'] else ' differs'}"
    parts = [
        f"{row[f'deepsurv_{way}']:.3f} ± {row[f'deepsurv_{way}_sd']:.3f}"
        f"{'' if row[f'deepsurv_{way}_not_lower'] else ' lower'}"
        for way in SETTINGS
    ]
    return " | ".join([counts, cox_part, *parts, f"{row['deepsurv_reference']:.3f}{sd}"])


def main() -> None:
    default = Path(os.environ.get("FRACSURV_SHARED_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default, help="folder with deepsurv/ and splits/")
    parser.add_argument("--only", default=",".join(PUBLISHED), help="cohorts, comma-separated")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := set(names) - set(PUBLISHED):
        parser.error(f"--only: {', '.join(sorted(unknown))} not among {', '.join(PUBLISHED)}")
    if not (arguments.data / "deepsurv").is_dir():
        parser.error(f"--data: {arguments.data} has no folder deepsurv")
    print(
        f"cohort     train  test | Cox, reference | {' | '.join(f'DeepSurv, {way}' for way in SETTINGS)} | reference"
    )
    rows = []
    for name in names:
        row = measure(name, arguments.data)
        rows.append(row)
        print(line(row), flush=True)
    settings = {way: asdict(setting) for way, setting in SETTINGS.items()}
    settings |= {"max_epochs": MAX_EPOCHS, "inner_folds": N_INNER, "seeds": list(SEEDS)}
    write_json(ROOT / "benchmarks" / "results" / "real_followup.json", {"settings": settings, "rows": rows})


if __name__ == "__main__":
    main()
