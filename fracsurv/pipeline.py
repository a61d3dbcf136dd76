"""The study as one resumable pipeline: a checked cohort handed to the Snakefile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from fracsurv.config import ROOT
from fracsurv.errors import UserError
from fracsurv.run import open_run

SNAKEFILE = ROOT / "Snakefile"


def run_pipeline(cohort: Path, profile: str, out: Path, experiments: list[str], cores: int) -> None:
    """Run what is not done yet and print the report's path and the ablation table.

    Parameters
    ----------
    experiments : list of str
        Names to run; those that they build on are run too. Empty: all that the cohort allows.

    Raises
    ------
    UserError
        For a faulty cohort or profile, an unknown experiment, another run at work in `out`, or a failed step.
    """
    run = open_run(cohort, out, profile)  # everything is checked before anything runs
    unknown = [name for name in experiments if name not in run.runnable()]
    if unknown:
        raise UserError(
            [f"--experiments: {name!r} is unknown or needs radiographs or boxes that {cohort} does not have; "
             f"choose {', '.join(run.runnable())}" for name in unknown]
        )  # fmt: skip
    out = out.resolve()
    with open(out / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it if this process dies
        except BlockingIOError:
            raise UserError(f"{out}: another run is at work there; wait for it, or choose another --out") from None
        command = [
            sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(out),
            "--cores", str(cores), "--resources", "gpu=1", "--nolock", "--rerun-incomplete", "--keep-going",
            "--quiet", "rules", "host", "--config", f"cohort={cohort.resolve()}", f"out={out}",
            f"profile={Path(profile).resolve() if profile.endswith(('.yaml', '.yml')) else profile}",
            f"experiments={','.join(experiments)}",
        ]  # fmt: skip
        # one thread a job: two busy single-threaded jobs beat one job with two threads
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if subprocess.run(command, env=environment, check=False).returncode:
            raise UserError(
                f"{out}: a step failed; the last lines above name it and its log. Mend it and run the same command: "
                "what is done is kept"
            )
    print(format_table(pd.read_csv(out / "ablation.csv")))
    print(f"\nreport: {out / 'index.html'}")


def format_table(table: pd.DataFrame) -> str:
    """The ablation's C-index in plain text: a row an experiment, a column a split, mean ± SD [95 % interval]."""
    c_index = table[table["metric"] == "c_index"].copy()
    c_index["text"] = [
        f"{row.mean:.3f} ± {row.sd:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]"
        for row in c_index[["mean", "sd", "ci_low", "ci_high"]].itertuples(index=False, name="Row")
    ]
    wide = c_index.pivot(index="experiment", columns="split", values="text")
    wide = wide.loc[c_index["experiment"].unique(), [s for s in ("validation", "test", "external") if s in wide]]
    return "C-index, mean ± SD over folds [95 % bootstrap interval]\n" + wide.to_string()
