"""Names of the metrics as figures and tables show them."""

METRIC_NAMES = {
    "c_index": "C-index",
    "c_index_ipcw": "Uno's C",
    "auc": "AUC",
    "auc_thesis": "AUC, thesis's definition",
    "brier": "Brier score",
    "mean_auc": "mean AUC",
    "integrated_brier": "integrated Brier score",
}
