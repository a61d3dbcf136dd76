"""The cohort before any model: who has the event when."""

from __future__ import annotations

import numpy as np

from fracsurv import plots
from fracsurv.cohort import horizons
from fracsurv.curves import event_share, follow_up_groups
from fracsurv.findings.finding import Finding
from fracsurv.plots import format_p, horizon_label
from fracsurv.run import Run
from fracsurv.wording import HEADLINE_DAYS, stamp


def follow_up(run: Run) -> Finding:
    """Kaplan–Meier curves by prior fracture, as the thesis's Figure 2.3, or by what comes nearest to it."""
    table, outcome, unit = run.cohort.table, run.cohort.outcome, run.cohort.time_unit
    event, time = run.cohort.status, table["time"].to_numpy()
    name, group, names = follow_up_groups(run.cohort)
    figure = plots.kaplan_meier(event, time, group, names, outcome=outcome, time_unit=unit, provenance=stamp(run))
    reached = [day for day in horizons(run.cohort) if all(time[group == g].max() > day for g in np.unique(group))]
    day = min(reached or [float(np.median(time))], key=lambda d: abs(d - HEADLINE_DAYS))
    p = plots.log_rank_p(event == 1, time, group)
    parts = [
        f"{100 * event_share(event[group == g], time[group == g], day):.1f} % of “{names[int(g)]}” "
        f"(n = {(group == g).sum():,})"
        for g in np.unique(group)
    ]
    differ = "differ" if p < 0.05 else "cannot be told apart"
    said = (
        f"By {horizon_label(day, unit)}, {' and '.join(parts)} have had {outcome}. At the 5 % level the curves "
        f"{differ} (log-rank {format_p(p)})."
    )
    n_groups = {1: "one group", 2: "two groups", 3: "three groups"}[len(np.unique(group))]
    return Finding(f"follow_up_{name}", figure, f"Kaplan–Meier curves of {n_groups} with 95 % bands", said)
