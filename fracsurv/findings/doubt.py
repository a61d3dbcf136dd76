"""What chance alone could have made of the results, in sentences."""

from __future__ import annotations

import pandas as pd

from fracsurv.config import TRUE_RISK
from fracsurv.doubt import PERMUTED, least_visible, permuted_ablation
from fracsurv.findings.comparison import chance_range
from fracsurv.findings.finding import PATIENTS
from fracsurv.run import Run
from fracsurv.wording import HEADLINE, REFERENCE, experiment_name, split_counts


def doubts(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """What was seen with permuted outcomes, and how small a difference could have been seen at all."""
    if run.profile.permute_outcomes:
        return ["The outcomes of this run are dealt out at random: whatever is found here is chance or a leak."]
    return [*_power(run, table, differences), _permuted(run)]


def _power(run: Run, table: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """The least difference from Cox PH that each held-out split could show, of the row with the answer."""
    models = [name for name in dict.fromkeys(table["experiment"]) if name not in (TRUE_RISK, REFERENCE)]
    name = HEADLINE if HEADLINE in models else (models or [None])[-1]
    rows = differences[(differences["experiment"] == name) & (differences["reference"] == REFERENCE)]
    rows = rows[rows["metric"] == "c_index"].set_index("split")
    counts = split_counts(run).set_index("split")
    said = []
    for split in [split for split in ("test", "external") if split in rows.index]:
        said.append(
            f"with {counts.loc[split, 'events']:,} events among {counts.loc[split, 'patients']:,} {split} patients "
            f"{least_visible(rows.loc[split, 'se']):.3f}"
        )
    if not said:
        return []
    return [
        f"The smallest true difference in C between {experiment_name(run, name)} and Cox PH that a test at the 5 % "
        f"level would have found four times in five, for these fold models: {'; '.join(said)}. A smaller one is "
        "likely to be missed."
    ]


def _permuted(run: Run) -> str:
    """C-indices of the same study with permuted outcomes, where one was run."""
    table = permuted_ablation(run)
    if table is None:
        return (
            "The same study with outcomes dealt out at random was not run. `fracsurv run` with a profile that sets "
            f"permute_outcomes (as the profile permuted does) into the folder {PERMUTED} of this run's, and then "
            "`fracsurv report`, put its figures here."
        )
    parts = []
    for split in [split for split in ("test", "external") if (table["split"] == split).any()]:
        found = table.loc[table["split"] == split, "mean"]
        low, high = chance_range(run, split)
        outside = int(((found < low) | (found > high)).sum())
        parts.append(
            f"on {PATIENTS[split]} C lies between {found.min():.3f} and {found.max():.3f}, {outside} of {len(found)} "
            f"rows outside {low:.3f} to {high:.3f}, where 95 of 100 models that know nothing fall"
        )
    return f"The same study with outcomes dealt out at random: {'; '.join(parts)}."
