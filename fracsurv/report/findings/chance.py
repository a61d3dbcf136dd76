"""What chance alone could have made of the results, in sentences."""

from __future__ import annotations

import pandas as pd

from fracsurv.config import TRUE_RISK
from fracsurv.report.findings.finding import PATIENTS
from fracsurv.study.labels import experiment_name
from fracsurv.study.leakage import (
    HELD_OUT,
    LEVEL,
    PERMUTED,
    POWER,
    minimal_detectable_difference,
    permuted_ablation,
)
from fracsurv.study.protocol import (
    CLINICAL,
    HEADLINE,
    REFERENCE,
    split_counts,
)
from fracsurv.study.run import Run
from fracsurv.utils.formatting import counted


def chance_notes(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """What was seen with permuted outcomes, and how small a difference could have been seen at all."""
    if run.profile.permute_outcomes:
        return ["The outcomes of this run are permuted: whatever is found here is chance or a leak."]
    return [*_power(run, table, differences), _permuted(run)]


def _power(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """The least difference from the clinical models that each held-out split could show, of the answer's row."""
    models = [name for name in dict.fromkeys(table["experiment"]) if name not in (TRUE_RISK, REFERENCE)]
    name = HEADLINE if HEADLINE in models else (models or [None])[-1]
    rows = differences[(differences["experiment"] == name) & differences["reference"].isin(CLINICAL)]
    rows = rows[(rows["metric"] == "c_index") & rows["se"].notna()]
    counts = split_counts(run).set_index("split")
    said = []
    for split in [split for split in HELD_OUT if (rows["split"] == split).any()]:
        least = [_least_said(run, row) for row in rows[rows["split"] == split].to_dict("records")]
        said.append(
            f"with {counted(counts.loc[split, 'events'], 'event')} among "
            f"{counted(counts.loc[split, 'patients'], f'{split} patient')} "
            f"{' and '.join(least)}"
        )
    if not said:
        return []
    both = " The answer asks for both at once, which is found less often." if name == HEADLINE else ""
    return [
        f"The smallest true difference in C of {experiment_name(run, name)} that a test at the {100 * LEVEL:g} % "
        f"level, not adjusted for the number of rows, would have found {100 * POWER:g} times in 100, for these fold "
        f"models: {'; '.join(said)}. A smaller one would have been found less often.{both}"
    ]


def _least_said(run: Run, row: dict) -> str:
    least = minimal_detectable_difference(row["se"])
    beyond = " (more than any model's C can lie above chance)" if least > 0.5 else ""
    return f"{least:.3f} from {experiment_name(run, row['reference'])}{beyond}"


def _permuted(run: Run) -> str:
    """C-indices of the same study with permuted outcomes, where one was run."""
    table = permuted_ablation(run)
    if table is None:
        return (
            "The same study with permuted outcomes was not run. “fracsurv run” with a profile that sets "
            f"permute_outcomes (as the profile permuted does) into the folder {PERMUTED} of this run's, and then "
            "“fracsurv report”, put its figures here."
        )
    parts = []
    for split in [split for split in HELD_OUT if (table["split"] == split).any()]:
        rows = table[table["split"] == split]
        found = rows["mean"]
        c_range = f"on {PATIENTS[split]} C lies between {found.min():.3f} and {found.max():.3f}"
        outside = int((~rows["by_chance"]).sum())
        parts.append(
            f"{c_range}, {outside} of {counted(len(found), 'row')} outside what 95 of 100 permutations give these "
            "fold models"
        )
    return f"The same study with permuted outcomes: {'; '.join(parts)}."
