"""The checklists TRIPOD+AI and PROBAST+AI and a card for every saved model, filled from a run by templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from fracsurv.cohort.cohort import horizons
from fracsurv.cohort.summary import followed, label, missing_summary
from fracsurv.config import CONFIGS, TRUE_RISK
from fracsurv.report.render import css, template
from fracsurv.report.tables_export import as_text, to_html
from fracsurv.study.ablation import metric_cell
from fracsurv.study.competing import probability_method
from fracsurv.study.labels import experiment_name, fitting_notes, masked_summary, provenance_lines
from fracsurv.study.protocol import PROVENANCE, headline_horizon, split_counts
from fracsurv.study.run import Run
from fracsurv.utils.files import read_json, write_text
from fracsurv.utils.formatting import MISSING, counted, horizon_label
from fracsurv.vertebrae.covariates import VERTEBRAL

CHECKLISTS = {"tripod_ai": "TRIPOD+AI checklist", "probast_ai": "PROBAST+AI questions"}
OPEN = "open: for the authors"
FIT_FACTS = {
    "alpha": "α", "best_epoch": "best epoch", "validation_c_index": "validation C", "parameters": "parameters",
    "trainable_parameters": "of these trained", "seed": "seed", "precision": "precision", "torch": "torch",
}  # fmt: skip
"""Entries of `fit.json` that a card shows, and what they are called there."""


def write_cards(run: Run, table: pd.DataFrame) -> dict[Path, str]:
    """Write the checklists and a card for every model of an ablation table into `pages/`; each page and its title."""
    names = [name for name in dict.fromkeys(table["experiment"]) if name != TRUE_RISK]
    facts, page, written = _facts(run, names), template("page.html.j2"), {}
    shared = {"css": css(), "provenance_kind": run.cohort.provenance}
    for stem, title in CHECKLISTS.items():
        source, items = checklist(stem, facts)
        content = {"title": title, "provenance": provenance_lines(run, names), "facts": [("After", source)]}
        tables = [to_html(as_text(items), f"{title}: what this run knows, and what is open")]
        written[run.out / "pages" / f"{stem}.html"] = title
        write_text(run.out / "pages" / f"{stem}.html", page.render(content | {"tables": tables} | shared))
    for name in names:
        title = f"Model card: {experiment_name(run, name)}"
        card = template("model_card.html.j2").render(facts | _model(run, name, table) | shared | {"title": title})
        written[run.out / "pages" / f"{name}.html"] = title
        write_text(run.out / "pages" / f"{name}.html", card)
    return written


def checklist(stem: str, facts: dict[str, Any]) -> tuple[str, pd.DataFrame]:
    """The source of a checklist of `configs/`, and its items with what is known of them (`OPEN` if nothing)."""
    content = yaml.safe_load((CONFIGS / f"{stem}.yaml").read_text(encoding="utf-8"))
    fill = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string  # text, escaped when it is shown
    rows = [
        (item, topic, asked, fill(answer[0]).render(facts).strip() or OPEN if answer else OPEN)
        for item, (topic, asked, *answer) in content["items"].items()
    ]
    return content["source"], pd.DataFrame(rows, columns=["item", "topic", "asks for", "from this run"])


def _facts(run: Run, names: list[str]) -> dict[str, Any]:
    """What the templates may name."""
    cohort, rows = run.cohort, [run.experiments[name] for name in names]
    counts = {
        each.split: f"{counted(each.patients, 'patient')} ({counted(each.events, 'event')})"
        for each in split_counts(run).itertuples()
    }
    return {
        "run": run,
        "cohort": cohort,
        "counts": counts,
        "people": "; ".join(f"{split} {words}" for split, words in counts.items()),
        "provenance": PROVENANCE[cohort.provenance],
        "simulated": cohort.provenance == "simulated",
        "covariates": ", ".join(label(cohort, name) for name in cohort.covariates),
        "horizons": ", ".join(horizon_label(day, cohort.time_unit) for day in horizons(cohort)),
        "followed": followed(cohort),
        "missing": missing_summary(cohort, run.trained_on()),
        "masked": masked_summary(run),
        "probabilities": probability_method(cohort),
        "rows": [experiment_name(run, name) for name in names],
        "networks": any(row.model == "network" for row in rows),
        "cox": any(row.model == "cox_ph" for row in rows),
        "pictures": any(row.needs_images for row in rows),
        "crops": any(row.input == "crops" for row in rows),
        "sweeps": any(row.fusion == "alpha" for row in rows),
    }


def _model(run: Run, name: str, table: pd.DataFrame) -> dict[str, Any]:
    """What a model's card names besides."""
    called = {c: label(run.cohort, c) for c in (*run.cohort.covariates, *run.cohort.indicators)} | VERTEBRAL
    paths = [run.folder(name, fold) / "fit.json" for fold in range(run.profile.n_folds)]
    fits = pd.DataFrame([read_json(path) if path.exists() else {} for path in paths])
    fits = fits.reindex(columns=list(FIT_FACTS)).rename(columns=FIT_FACTS)
    fits.index = pd.Index(range(1, len(fits) + 1), name="fold")
    rows = table[(table["experiment"] == name) & table["metric"].isin(["c_index", "auc", "brier"])]
    at = rows["split"].map(lambda split: headline_horizon(table, split)).astype(float)
    rows = rows[rows["horizon_days"].isna() | (rows["horizon_days"] == at)]
    rows = rows.assign(value=[metric_cell(row) for row in rows.to_dict("records")])
    results = rows.pivot(index="split", columns="metric", values="value").reindex(columns=["c_index", "auc", "brier"])
    results.columns = ["C-index", "AUC", "Brier score"]
    return {
        "name": name,
        "row": run.experiments[name],
        "settings": run.experiment(name),
        "lines": provenance_lines(run, [name]),
        "inputs": "; ".join(called[c] for c in run.covariates(name)),
        "notes": ". ".join(fitting_notes(run, name, range(run.profile.n_folds))),
        "fits": to_html(as_text(fits.fillna(MISSING)), "Fold models"),
        "results": to_html(as_text(results), "Evaluated: mean ± SD over the fold models, 95 % interval"),
    }
