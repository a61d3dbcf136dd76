"""The cohort before any model: who has the event when."""

from __future__ import annotations

import numpy as np

from fracsurv import plots
from fracsurv.cohort.cohort import horizons
from fracsurv.report.findings.finding import Finding, share_said
from fracsurv.study.labels import stamp
from fracsurv.study.protocol import FEWEST_PATIENTS, HEADLINE_DAYS
from fracsurv.study.run import Run
from fracsurv.study.time_dependent import UNKNOWN, follow_up_groups
from fracsurv.utils.formatting import counted, format_p, horizon_label


def follow_up(run: Run) -> Finding:
    """Kaplan–Meier curves by prior fracture, as the thesis's Figure 2.3, or by what comes nearest to it.

    Compared, and asked how far follow-up reaches, are the groups of which the factor is known. Those of whom it is
    not are counted; they have a curve of their own, in grey and in no test, only if they are no few.
    """
    table, outcome, unit = run.cohort.table, run.cohort.outcome, run.cohort.time_unit
    event, time = run.cohort.status, table["time"].to_numpy()
    name, group, names = follow_up_groups(run.cohort)
    size = {key: int((group == key).sum()) for key in names}
    shown = [key for key in names if size[key] >= FEWEST_PATIENTS]
    compared = [key for key in shown if key != UNKNOWN]
    few = [f"“{names[key]}” ({counted(n, 'patient')})" for key, n in size.items() if n and key not in shown]
    left_out = f" No curve of {' and '.join(few)}: fewer than {FEWEST_PATIENTS}." if few else ""
    alt = f"Kaplan–Meier curves of {counted(len(shown), 'group')} with 95 % bands"
    if not compared:
        return Finding(f"follow_up_{name}", None, alt, left_out.strip())
    figure = plots.kaplan_meier(
        event, time, group, {key: names[key] for key in shown}, tested=compared, outcome=outcome, time_unit=unit,
        provenance=stamp(run),
    )  # fmt: skip
    reached = [day for day in horizons(run.cohort) if all(time[group == key].max() > day for key in compared)]
    day = min(reached or [float(np.median(time))], key=lambda d: abs(d - HEADLINE_DAYS))
    parts = [
        f"{share_said(run, event[group == key], time[group == key], day)} of “{names[key]}” (n = {size[key]:,})"
        for key in compared
    ]
    said = f"By {horizon_label(day, unit)}, {' and '.join(parts)} have had {outcome}."
    if len(compared) > 1:
        at = np.isin(group, compared)
        said += _tested(plots.log_rank_p(event[at] == 1, time[at], group[at]))
    if UNKNOWN in shown:
        said += f" Of {counted(size[UNKNOWN], 'patient')} the factor is not known: drawn in grey, and in no test."
    return Finding(f"follow_up_{name}", figure, alt, said + left_out)


def _tested(p: float) -> str:
    if not np.isfinite(p):
        return " Whether the curves differ cannot be tested: nobody has an event."
    differ = "differ" if p < 0.05 else "cannot be told apart"
    return f" At the 5 % level the curves {differ} (log-rank {format_p(p)})."
