"""Metrics of survival predictions.

Arguments stand in the order (event, time, risk), the training fold before the patients judged: arrays, lists or
pandas Series, taken by position. Event is True or 1 where it was observed, and 2 where a competing event was; who
does not allow for these refuses a 2 (Harrell's C among them: give it `event == 1`). Times are plain numbers from 0
up, all in one unit (float32 times stay what they are: 0.7 in float32 is a little less than the horizon 0.7); risk is
a log hazard or any score, higher = riskier. Where there is no answer it is NaN, never an error; what cannot be meant
is a ValueError that names the argument. `tests/README.md` says against what each function is checked.
"""

from fracsurv.metrics.auc import auc_censored_as_nonevent, cumulative_dynamic_auc
from fracsurv.metrics.breslow import Baseline, breslow_baseline, breslow_survival
from fracsurv.metrics.brier import brier_score, integrated_brier_score
from fracsurv.metrics.censoring import (
    censoring_survival,
    kaplan_meier,
    mean_weight,
    usable_horizons,
)
from fracsurv.metrics.clinical import Calibration, calibration, net_benefit
from fracsurv.metrics.comparison import Bootstrap, Metric, bootstrap
from fracsurv.metrics.competing import (
    CumulativeIncidence,
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
from fracsurv.metrics.evaluation import evaluate, integration_grid
from fracsurv.metrics.resampling import (
    LEAST_ANSWERED,
    bootstrap_metrics,
    draw_counts,
    holm,
    paired_p,
    percentile_interval,
    resampled,
)
from fracsurv.metrics.smooth_calibration import SmoothCalibration, smooth_calibration
from fracsurv.metrics.validation import (
    Drawn,
    Estimate,
    cox_slope,
    events_ratio,
    validation_metrics,
)

__all__ = [
    "LEAST_ANSWERED",
    "Baseline",
    "Bootstrap",
    "Calibration",
    "ConcordanceCounts",
    "CumulativeIncidence",
    "Drawn",
    "Estimate",
    "Metric",
    "SmoothCalibration",
    "absolute_risk",
    "auc_censored_as_nonevent",
    "bootstrap",
    "bootstrap_metrics",
    "breslow_baseline",
    "breslow_survival",
    "brier_score",
    "calibration",
    "censoring_survival",
    "concordance_counts",
    "concordance_index",
    "concordance_index_ipcw",
    "concordance_sd_by_chance",
    "cox_slope",
    "cumulative_dynamic_auc",
    "cumulative_incidence",
    "draw_counts",
    "evaluate",
    "events_ratio",
    "holm",
    "integrated_brier_score",
    "integration_grid",
    "kaplan_meier",
    "mean_weight",
    "net_benefit",
    "paired_p",
    "percentile_interval",
    "predicted_survival",
    "resampled",
    "smooth_calibration",
    "usable_horizons",
    "validation_metrics",
]
