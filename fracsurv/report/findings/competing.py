"""Who has the competing event first, and by how much Kaplan–Meier would overstate the event."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fracsurv import plots
from fracsurv.cohort.cohort import horizons
from fracsurv.metrics import cumulative_incidence
from fracsurv.report.findings.finding import Finding
from fracsurv.report.tables_export import frame_of
from fracsurv.study.labels import stamp
from fracsurv.study.protocol import HEADLINE_DAYS
from fracsurv.study.run import Run
from fracsurv.study.time_dependent import event_share
from fracsurv.utils.formatting import estimate_cell, horizon_label


def incidences(run: Run) -> pd.DataFrame:
    """Cumulative incidences of the cohort's two events at the horizons that follow-up reaches.

    Returns
    -------
    DataFrame
        `horizon, at_risk` (followed, free of both, just before it), `event, event_low, event_high, competing,
        competing_low, competing_high` (Aalen–Johansen, 95 % intervals), `kaplan_meier` (1 − Kaplan–Meier of the
        event, the others censored). The median time stands in for the horizons where none is reached.
    """
    status, time = run.cohort.status, run.cohort.table["time"].to_numpy()
    days = [day for day in horizons(run.cohort) if day < time.max()] or [float(np.median(time))]
    columns = {"horizon": days, "at_risk": plots.numbers_at_risk(time, days)}
    for cause, name in ((1, "event"), (2, "competing")):
        found = cumulative_incidence(status, time, days, cause=cause)
        columns |= {name: found.incidence, f"{name}_low": found.low, f"{name}_high": found.high}
    columns["kaplan_meier"] = [event_share(status == 1, time, day) for day in days]
    return pd.DataFrame(columns)


def competing(run: Run) -> Finding | None:
    """Both cumulative incidences over time; None for a cohort without a competing event."""
    if not run.cohort.has_competing:
        return None
    outcome, first, unit = run.cohort.outcome, run.cohort.competing_event, run.cohort.time_unit
    figure = plots.incidence(
        run.cohort.status, run.cohort.table["time"].to_numpy(), outcome=outcome, competing=first, time_unit=unit,
        provenance=stamp(run),
    )  # fmt: skip
    found = incidences(run)
    row = found.loc[(found["horizon"] - HEADLINE_DAYS).abs().idxmin()]
    over = row["kaplan_meier"] - row["event"]
    said = (
        f"By {horizon_label(row['horizon'], unit)}, {_share(row, 'event')} have had {outcome}, and "
        f"{_share(row, 'competing')} {first} before it (Aalen–Johansen, 95 % intervals). Kaplan–Meier, which takes "
        f"these for censored and so as if they could still have {outcome}, says {100 * row['kaplan_meier']:.1f} %: "
        f"{100 * over:.1f} percentage points{_times(row)} too many."
    )
    return Finding("competing", figure, f"Cumulative incidence of {outcome} and of {first}", said)


def competing_table(run: Run) -> pd.DataFrame:
    """`incidences` in words."""
    outcome, first = run.cohort.outcome, run.cohort.competing_event
    return frame_of(
        [
            {
                ("", "by"): horizon_label(row["horizon"], run.cohort.time_unit),
                ("", "at risk"): f"{int(row['at_risk']):,}",
                (outcome, "cumulative incidence, %"): _cell(row, "event"),
                (outcome, "1 − Kaplan–Meier, %"): f"{100 * row['kaplan_meier']:.1f}",
                (outcome, "overstated by, points"): f"{100 * (row['kaplan_meier'] - row['event']):.1f}",
                (f"{first} first", "cumulative incidence, %"): _cell(row, "competing"),
            }
            for row in incidences(run).to_dict("records")
        ]
    )


def _share(row: pd.Series, name: str) -> str:
    low, high = 100 * row[f"{name}_low"], 100 * row[f"{name}_high"]
    return f"{100 * row[name]:.1f} % [{low:.1f}, {high:.1f}]"


def _cell(row: dict[str, float], name: str) -> str:
    return estimate_cell(*(100 * row[each] for each in (name, f"{name}_low", f"{name}_high")), ".1f")


def _times(row: pd.Series) -> str:
    return f" ({100 * (row['kaplan_meier'] / row['event'] - 1):.0f} %)" if row["event"] > 0 else ""
