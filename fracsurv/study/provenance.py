"""What a run was made from and with: `provenance.json`."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fracsurv.config import INSTALLED, ROOT, as_record
from fracsurv.study.protocol import fit_records, split_counts
from fracsurv.study.run import Run
from fracsurv.utils.formatting import counted

PACKAGES = (
    "fracsurv", "torch", "torchvision", "numpy", "pandas", "scikit-survival", "scikit-learn", "lifelines",
    "matplotlib", "seaborn", "pydicom", "pillow", "safetensors", "nbconvert", "papermill", "snakemake",
)  # fmt: skip
FIT_MADE_WITH = ("torch", "fracsurv", "commit")
PER_FIT = ("experiment", "fold", "alpha", "seconds", "best_epoch", "seed", "device", "precision", "threads")


def provenance(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Versions, commit, seeds, device, cohort, profile, patients and events by split, and every fit's time.

    Parameters
    ----------
    names : sequence of str
        The finished experiments.
    """
    fits = fit_records(run, names)
    listed = [{key: fit[key] for key in PER_FIT if key in fit} for fit in fits if "seconds" in fit]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cohort": {
            "provenance": run.cohort.provenance,
            "fingerprint": run.cohort.fingerprint(),
            "outcome": run.cohort.outcome,
            "splits": split_counts(run).to_dict("records"),
        },
        "profile": as_record(run.profile),
        "experiments": {
            name: as_record(run.experiment(name)) if name in run.experiments else {"name": name} for name in names
        },
        "folds": run.profile.n_folds,
        "seed": run.profile.seed,
        "devices": _distinct(listed, "device"),
        "processor": processor(),
        "precisions": _distinct(listed, "precision"),
        "threads": _distinct(listed, "threads"),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "commit": commit(),
        "fits_made_with": made_with(fits),
        "fit_seconds_total": round(sum(fit["seconds"] for fit in listed), 1),
        "fits": listed,
    }


def made_with(fits: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Which versions and commits the fits' own records name; an empty list where none does."""
    return {key: _distinct(fits, key) for key in FIT_MADE_WITH}


def _distinct(fits: Sequence[dict[str, Any]], key: str) -> list[Any]:
    """What the fits' records say of it, each once, sorted."""
    return sorted({row[key] for row in fits if row.get(key) is not None})


def processor() -> str:
    """The processor's model name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def fact_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What `provenance` gathered, as a report shows it: (what, value)."""
    splits = "; ".join(
        f"{s['split']} {s['patients']:,} ({counted(s['events'], 'event')})" for s in facts["cohort"]["splits"]
    )
    shown = ("torch", "torchvision", "scikit-survival", "lifelines", "numpy", "pandas")
    versions = ", ".join(f"{name} {facts['packages'][name]}" for name in shown)
    return [
        ("Cohort", f"{facts['cohort']['provenance']}, fingerprint {facts['cohort']['fingerprint']}"),
        ("Outcome", facts["cohort"]["outcome"]),
        ("Patients", splits),
        ("Cross-validation", f"{facts['folds']} folds of the training patients, seed {facts['seed']}"),
        ("Profile", facts["profile"]["name"]),
        ("Trained on", ", ".join([*facts["devices"], *facts["precisions"]]) or "no network"),
        ("Processor of this report", facts["processor"]),
        ("Fits", f"{counted(len(facts['fits']), 'network')} in {facts['fit_seconds_total']:,.0f} s of training"),
        ("Made", f"{facts['date']}, Python {facts['python']}, {versions}"),
        ("Commit", facts["commit"] or "not known"),
        *_fits_differ(facts),
    ]


def _fits_differ(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """A line where the fits were made at another commit, or under another version, than this report."""
    here = {"commit": facts["commit"], **{name: facts["packages"][name] for name in ("torch", "fracsurv")}}
    others = {name: [v for v in facts["fits_made_with"][name] if v != here[name]] for name in here}
    found = "; ".join(f"{name} {', '.join(versions)}" for name, versions in others.items() if versions)
    return [("Fits made with", f"{found}: not what this report was made with")] if found else []


@cache
def commit() -> str | None:
    """The repository's commit, with '+changes' if files differ from it; None without git or repository."""
    if INSTALLED:  # a repository around it would be another project's
        return None
    try:
        found, changed = (
            subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.strip() + ("+changes" if changed.strip() else "")
