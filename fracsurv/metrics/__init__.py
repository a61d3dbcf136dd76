"""Metrics of survival predictions.

Arguments are arrays, lists or pandas Series, taken by position, in the order (event, time, risk). Those of the
training fold (`event_train`, `time_train`, `risk_train`, shape (n_train,)) come before those of the n patients to
evaluate on.

- `event`, (n,), bool or int: 1 where it was observed, 0 where follow-up was censored, 2 where a competing event was
  observed. Functions that do not allow for competing events refuse a 2; Harrell's C is one: give it `event == 1`.
- `time`, (n,): plain numbers >= 0, in any one unit, that of `times`, `horizons`, `at` and `tau` too. float32 stays as
  it is: 0.7 in float32 is a little less than the horizon 0.7.
- `risk`, (n,): a log hazard or any score, higher = riskier.
- Any of these may be a column, (n, 1).
- `times` and `horizons`, (n_times,): strictly increasing.
- `surv`, (n, n_times): probabilities of no event by each of `times`. `probability`, (n,): of the event by `at`.
  Rounding errors beyond 0 or 1 (float32 gives 1.0000001), up to 1e-6, are clipped.

"Weighted" metrics weight patients by 1 / G, the inverse of the training fold's probability to be still uncensored. A
metric without an answer is NaN, never an error. Every function raises ValueError, naming the argument, for unequal
lengths, negative times, values that are not finite, times that do not increase and probabilities outside [0, 1].
`tests/README.md` lists what each function is tested against.
"""

from fracsurv.metrics.auc import auc_censored_as_nonevent, cumulative_dynamic_auc
from fracsurv.metrics.bootstrap import (
    MIN_SHARE_OF_DRAWS,
    Bootstrap,
    bootstrap,
    bootstrap_metrics,
    draw_counts,
    holm,
    paired_p,
    percentile_interval,
    resampled,
)
from fracsurv.metrics.breslow import Baseline, breslow_baseline, breslow_survival
from fracsurv.metrics.brier import brier_score, integrated_brier_score
from fracsurv.metrics.calibration import (
    Calibration,
    Estimate,
    calibration,
    cox_slope,
    events_ratio,
    smooth_calibration,
)
from fracsurv.metrics.censoring import censoring_survival, kaplan_meier, mean_weight, usable_horizons
from fracsurv.metrics.competing import (
    NORMAL_97_5,
    absolute_risk,
    cumulative_incidence,
    predicted_survival,
)
from fracsurv.metrics.concordance import (
    ConcordanceCounts,
    concordance_counts,
    concordance_index,
    concordance_index_ipcw,
    concordance_sd_by_chance,
)
from fracsurv.metrics.evaluate import evaluate, integration_grid
from fracsurv.metrics.net_benefit import net_benefit
from fracsurv.metrics.validation import Drawn, ValidationKey, validation_metrics

__all__ = [
    "MIN_SHARE_OF_DRAWS", "NORMAL_97_5", "Baseline", "Bootstrap", "Calibration", "ConcordanceCounts", "Drawn",
    "Estimate", "ValidationKey", "absolute_risk", "auc_censored_as_nonevent", "bootstrap", "bootstrap_metrics",
    "breslow_baseline", "breslow_survival", "brier_score", "calibration", "censoring_survival",
    "concordance_counts", "concordance_index", "concordance_index_ipcw", "concordance_sd_by_chance", "cox_slope",
    "cumulative_dynamic_auc", "cumulative_incidence", "draw_counts", "evaluate", "events_ratio", "holm",
    "integrated_brier_score", "integration_grid", "kaplan_meier", "mean_weight", "net_benefit", "paired_p",
    "percentile_interval", "predicted_survival", "resampled", "smooth_calibration", "usable_horizons",
    "validation_metrics",
]  # fmt: skip
