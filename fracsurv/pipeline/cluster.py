"""A Snakemake profile that sends a run's jobs to a cluster: read and checked before anything runs."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fracsurv.utils.errors import UserError
from fracsurv.utils.yaml_files import read_yaml


def read_profile(file: Path) -> dict[str, Any]:
    """The settings of a Snakemake profile, a folder's `config.yaml`.

    Raises
    ------
    UserError
        Where there is none, it is not a YAML mapping, or its executor's plugin or Slurm's commands are missing here.
    """
    if not file.is_file():
        raise UserError(f"--profile-dir {file.parent}: has no {file.name}; configs/slurm is one to copy")
    faults: list[str] = []
    settings = read_yaml(file, faults)
    if settings is None or faults:
        raise UserError([f"{file.parent}: {fault}" for fault in faults])
    executor = settings.get("executor", "local")
    if executor != "local" and find_spec(f"snakemake_executor_plugin_{str(executor).replace('-', '_')}") is None:
        raise UserError(
            f"{file}: executor {executor!r} is not installed; for slurm: pip install -e '.[slurm]' in the "
            f"repository, for others the package snakemake-executor-plugin-{executor}"
        )
    if executor == "slurm" and shutil.which("sbatch") is None:
        raise UserError(f"{file}: executor slurm, but this machine has no `sbatch`; call this on a login node")
    return settings


def jobs_at_once(settings: dict[str, Any]) -> int:
    """How many jobs a profile lets run side by side; 1 where it does not say a number."""
    jobs = settings.get("jobs", 1)
    return jobs if isinstance(jobs, int) and jobs > 0 else 1
