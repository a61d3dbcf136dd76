"""Metrics of survival predictions.

Arguments stand in the order (event, time, risk), those of the training fold before those of the patients to evaluate
on: arrays, lists or pandas Series, taken by position. `event` is True or 1 where it was observed, 2 where a competing
event was, 0 where follow-up was censored; functions that do not allow for competing events refuse a 2 (Harrell's C
among them: give it `event == 1`). `time` is plain numbers >= 0, all in one unit (float32 times stay as they are: 0.7
in float32 is a little less than the horizon 0.7). `risk` is a log hazard or any score, higher = riskier; `surv` are
probabilities of no event, shape (n, n_times), at `times`, strictly increasing. A metric without an answer is NaN,
never an error. Every metric refuses unequal lengths, negative times, values that are not finite, times that do not
increase and probabilities outside [0, 1], by a ValueError that names the argument. `tests/README.md` lists what each
function is tested against.
"""

from fracsurv.metrics.auc import auc_censored_as_nonevent, cumulative_dynamic_auc
from fracsurv.metrics.bootstrap import (
    MIN_SHARE_OF_DRAWS,
    Bootstrap,
    Metric,
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
    SmoothCalibration,
    calibration,
    cox_slope,
    events_ratio,
    smooth_calibration,
)
from fracsurv.metrics.censoring import censoring_survival, kaplan_meier, mean_weight, usable_horizons
from fracsurv.metrics.competing import (
    NORMAL_97_5,
    CumulativeIncidence,
    absolute_risk,
    cumulative_incidence,
    predicted_survival,
    ranking_by_last,
    ranking_by_time,
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
    "MIN_SHARE_OF_DRAWS", "NORMAL_97_5", "Baseline", "Bootstrap", "Calibration", "ConcordanceCounts",
    "CumulativeIncidence", "Drawn", "Estimate", "Metric", "SmoothCalibration", "ValidationKey", "absolute_risk",
    "auc_censored_as_nonevent", "bootstrap", "bootstrap_metrics", "breslow_baseline", "breslow_survival",
    "brier_score", "calibration", "censoring_survival", "concordance_counts", "concordance_index",
    "concordance_index_ipcw", "concordance_sd_by_chance", "cox_slope", "cumulative_dynamic_auc",
    "cumulative_incidence", "draw_counts", "evaluate", "events_ratio", "holm", "integrated_brier_score",
    "integration_grid", "kaplan_meier", "mean_weight", "net_benefit", "paired_p", "percentile_interval",
    "predicted_survival", "ranking_by_last", "ranking_by_time", "resampled", "smooth_calibration", "usable_horizons",
    "validation_metrics",
]  # fmt: skip
