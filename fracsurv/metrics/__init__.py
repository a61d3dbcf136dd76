"""Metrics of survival predictions; arguments in the order (event, time, risk), training fold first."""

from fracsurv.metrics.auc import auc_censored_as_nonevent, cumulative_dynamic_auc
from fracsurv.metrics.breslow import breslow_survival
from fracsurv.metrics.brier import brier_score, integrated_brier_score
from fracsurv.metrics.censoring import censoring_survival, kaplan_meier, usable_horizons
from fracsurv.metrics.clinical import Calibration, calibration, net_benefit
from fracsurv.metrics.comparison import Bootstrap, bootstrap
from fracsurv.metrics.concordance import (
    ConcordanceCounts,
    concordance_counts,
    concordance_index,
    concordance_index_ipcw,
)
from fracsurv.metrics.evaluation import evaluate, integration_grid
from fracsurv.metrics.resampling import bootstrap_metrics, draw_counts, percentile_interval

__all__ = [
    "Bootstrap",
    "Calibration",
    "ConcordanceCounts",
    "auc_censored_as_nonevent",
    "bootstrap",
    "bootstrap_metrics",
    "breslow_survival",
    "brier_score",
    "calibration",
    "censoring_survival",
    "concordance_counts",
    "concordance_index",
    "concordance_index_ipcw",
    "cumulative_dynamic_auc",
    "draw_counts",
    "evaluate",
    "integrated_brier_score",
    "integration_grid",
    "kaplan_meier",
    "net_benefit",
    "percentile_interval",
    "usable_horizons",
]
