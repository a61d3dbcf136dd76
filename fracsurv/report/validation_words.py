"""What a validation's page says in words: does the model hold, by a rule fixed beforehand, and with what cautions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from fracsurv.cohort.cohort import Cohort
from fracsurv.metrics import Estimate
from fracsurv.predict.recalibrate import NAMES, PARTS
from fracsurv.predict.validate import ENSEMBLE, Validated
from fracsurv.study.labels import row_name
from fracsurv.study.protocol import HEADLINE, HEADLINE_DAYS, PROVENANCE
from fracsurv.utils.files import read_json
from fracsurv.utils.formatting import counted, horizon_label, interval, number

ENOUGH_EVENTS = 100
"""Events that an external validation should have at least (Collins, Ogundimu and Altman 2016)."""
RULE = (
    "The rule, fixed beforehand: it holds if the C-index's interval lies above 0.5 and those of observed / expected "
    "(at a horizon and over all follow-up) and of the calibration slope contain 1, and is called so only with 100 "
    "events or more within the models' training follow-up; an interval that contains 1 because it is wide is no "
    "proof, and of three 95 % intervals one misses 1 in about one of seven cohorts where all is right."
)


WRONG = {
    ("ratio", 1): "it expects too few events",
    ("ratio", -1): "it expects too many events",
    ("whole", 1): "it expects too few over all follow-up",
    ("whole", -1): "it expects too many over all follow-up",
    ("slope", 1): "its risks lie too close together",
    ("slope", -1): "its risks lie too far apart",
}
"""What an interval above (1) or below (−1) 1 says of a model."""


@dataclass(frozen=True)
class Study:
    """All that a validation found, for its page.

    Attributes
    ----------
    run : path
    cohort : Cohort
        The patients judged; those that were left out are no longer in it.
    validated : list of Validated
    n_draws, seed : int
    warnings : list of str
        Sentences on whom it was judged: patients left out, ids that cannot be compared.
    """

    run: Path
    cohort: Cohort
    validated: list[Validated]
    n_draws: int
    seed: int
    warnings: list[str] = field(default_factory=list)

    @property
    def first(self) -> Validated:
        """The experiment of the answer: the report's, or else the first that was asked for."""
        return next((each for each in self.validated if each.name == HEADLINE), self.validated[0])

    @property
    def horizon(self) -> float | None:
        """The horizon nearest to 5 years (1826 of any other unit) that follow-up reaches; None if it reaches none."""
        days = [day for each in self.validated[:1] for day in each.horizons]
        return float(min(days, key=lambda day: abs(day - HEADLINE_DAYS))) if days else None

    @property
    def at(self) -> str:
        """'5 years'."""
        return "" if self.horizon is None else horizon_label(self.horizon, self.cohort.time_unit)

    @property
    def n_events(self) -> int:
        """Patients with the event."""
        return int(self.cohort.table["event"].sum())

    @property
    def within(self) -> str:
        """Which events count, where those after the training's follow-up do not; '' where there are none."""
        later = self.n_events > self.first.n_events
        return f" within the models' training follow-up (of {self.n_events:,} in all)" if later else ""

    @property
    def provenances(self) -> tuple[str, str]:
        """Of the training patients and of those judged."""
        return self.first.about["provenance"], self.cohort.provenance

    @property
    def stamp(self) -> str:
        """The few words that stand in every figure."""
        trained, judged = self.provenances
        return f"trained on a {trained} cohort · judged on a {judged} cohort"


def found(table: pd.DataFrame, model: str, metric: str, horizon: float | None = None, threshold=None) -> Estimate:
    """A row of a `Validated.table`; NaN where it is not there."""
    at = (table["model"] == model) & (table["metric"] == metric)
    for column, value in (("horizon", horizon), ("threshold", threshold)):
        at &= table[column].isna() if value is None else np.isclose(table[column].to_numpy(float), value)
    if not at.any():
        return Estimate(np.nan, np.nan, np.nan)
    row = table[at].iloc[0]
    return Estimate(row["value"], row["low"], row["high"])


def titles(study: Study) -> dict[str, str]:
    """Experiment to its whole name."""
    return {
        each.name: row_name(each.models.applied[0].experiment, each.models.applied[0].alpha)
        for each in study.validated
    }


def validation_answer(study: Study) -> str:
    """Whether the model of the answer holds in these patients, in one sentence by `RULE`, and what would mend it."""
    table, called = study.first.table, titles(study)[study.first.name]
    c_index = found(table, ENSEMBLE, "c_index")
    whom = f"these {counted(len(study.cohort), 'patient')} with {counted(study.n_events, 'event')}"
    ranks = f"C-index {_with_interval(c_index)}"
    if not c_index.low > 0.5:
        return f"No: {called} is not shown to rank {whom} better than chance ({ranks})."
    asked = {"whole": found(table, ENSEMBLE, "observed_to_expected"), "slope": _slope(table)}
    if study.horizon:
        asked = {"ratio": found(table, ENSEMBLE, "observed_to_expected", study.horizon)} | asked
    called_so = {"ratio": f"observed / expected by {study.at}", "whole": "observed / expected over all follow-up"}
    called_so |= {"slope": "calibration slope"}
    in_words = {what: f"{called_so[what]} {_with_interval(each)}" for what, each in asked.items()}
    said = {what: _side(each) for what, each in asked.items()}
    faults = [f"{WRONG[what, side]} ({in_words[what]})" for what, side in said.items() if side in (1, -1)]
    if faults:
        others = [in_words[what] for what, side in said.items() if side not in (1, -1)]
        rest = f"; not seen to be wrong: {'; '.join(others)}" if others else ""
        return (
            f"Only in part: {called} ranks {whom} better than chance ({ranks}), but {' and '.join(faults)}{rest}."
            f"{mended(study)}"
        )
    if None in said.values() or not study.horizon:
        there = in_words if study.horizon else {"ratio": "observed / expected at a horizon not known"} | in_words
        unknown = "; ".join(there.values())
        return f"It cannot be told whole: {called} ranks {whom} better than chance ({ranks}); {unknown}."
    agree = f"{called} ranks {whom} better than chance ({ranks}), and no disagreement of its risks with what happened"
    agree += f" was seen ({'; '.join(in_words.values())})."
    n = study.first.n_events
    if n < ENOUGH_EVENTS:
        few = f"too few ({counted(n, 'event')}{study.within})"
        return f"Nothing is seen against it, but events are {few} to say that it holds: {agree}"
    return f"Yes, as far as {counted(n, 'event')} can tell: {agree}"


def mended(study: Study) -> str:
    """What recalibration of slope and baseline would make of it, cross-fitted; '' where there is none."""
    table, method = study.first.table, "slope"
    if method not in study.first.fitted or study.horizon is None:
        return ""
    ratio = found(table, method, "observed_to_expected", study.horizon)
    brier = [found(table, model, "scaled_brier", study.horizon).value for model in (ENSEMBLE, method)]
    return (
        f" Recalibrated to these patients (slope and baseline, cross-fitted), observed / expected would be "
        f"{_with_interval(ratio)} and the scaled Brier score {number(brier[1])} in the place of {number(brier[0])}."
    )


def _slope(table: pd.DataFrame) -> Estimate:
    return found(table, ENSEMBLE, "calibration_slope")


def _side(estimate: Estimate) -> int | None:
    """1 or −1 where the interval lies above or below 1, 0 where it holds 1, None where there is none."""
    if not np.isfinite([estimate.low, estimate.high]).all():
        return None
    return int(estimate.low > 1) - int(estimate.high < 1)


def _with_interval(estimate: Estimate) -> str:
    if not np.isfinite(estimate.value):
        return "not known"
    if not np.isfinite([estimate.low, estimate.high]).all():
        return number(estimate.value)
    return f"{number(estimate.value)}, 95 % interval {interval(estimate.low, estimate.high)}"


def cautions(study: Study) -> list[str]:
    """What a reader must know beside the answer."""
    lines = list(study.warnings)
    if study.first.n_events < ENOUGH_EVENTS:
        lines.append(
            f"Few events: {study.first.n_events:,}{study.within}. An external validation should have "
            f"{ENOUGH_EVENTS} at least, 200 for a calibration curve (Collins et al. 2016; Van Calster et al. 2016)."
        )
    days = study.first.models.horizons
    if missing := [day for day in days if day not in study.first.horizons]:
        listed = ", ".join(horizon_label(day, study.cohort.time_unit) for day in missing)
        lines.append(f"Nothing is reported at {listed}: follow-up, here or in training, ends before.")
    for each in study.validated:
        for why in dict.fromkeys(each.absent.values()):
            by = ", ".join(NAMES[method].split(": ")[1] for method in each.absent if each.absent[method] == why)
            lines.append(f"{titles(study)[each.name]} is not recalibrated ({by}): {why}.")
    return lines


def _dead(study: Study) -> str:
    return "" if study.cohort.outcome_includes_death else ": who dies first is censored"


def limits(study: Study) -> list[str]:
    """How the numbers were made and what they do not say."""
    trained = min(applied.about["patients"] for applied in study.first.models.applied)
    lines = [
        "Judged is what `fracsurv predict` gives: the mean log hazard and the mean probability of the "
        f"{counted(len(study.first.models.applied), 'fold model')}, each trained on {counted(trained, 'patient')} or "
        "more. “Fold models alone” are means ± SD over these models, as the run's own report has them.",
        f"Intervals: 95 %, from {study.n_draws:,} bootstrap samples of the patients judged (seed {study.seed}); of "
        "the slope over all follow-up Wald's (Cox), of observed / expected over all follow-up that of a Poisson "
        "regression. Models and censoring weights stay as they are.",
        "The censoring weights of Uno's C, AUC and Brier scores were estimated on the patients judged themselves. "
        f"Observed risks are Kaplan–Meier's{_dead(study)}.",
        "Scaled Brier score: 1 − Brier score / that of the Kaplan–Meier curve of these patients given to everybody; "
        "0 = no better than that, below 0 = worse. ICI, E50 and E90: mean, median and 90th percentile of the gap "
        "between prediction and smooth curve, in percentage points; above 0 by chance even for a perfect model, "
        "hence no interval.",
        f"Recalibrated figures are cross-fitted: in {PARTS} parts, each patient's prediction is corrected by the "
        "other parts' outcomes only; their intervals leave out how uncertain the correction is. What "
        "recalibration.json holds was made from all patients and has been validated nowhere: it needs a cohort of "
        "its own.",
        "Research only: no decision on a patient may rest on it.",
    ]
    if cut := int((study.cohort.table["time"] > study.first.last).sum()):
        lines.append(
            f"Of {counted(cut, 'patient')} followed for longer than the models' training "
            f"({study.first.last:,.0f} {study.cohort.time_unit}), the events until then alone count for the slope "
            "and for observed / expected over all follow-up: nothing was predicted for later."
        )
    if study.provenances != ("real", "real"):
        lines.insert(
            0, "Not both cohorts are real: this shows how the method behaves, not how a model does in a hospital."
        )
    return lines


def provenance_lines(study: Study) -> list[str]:
    """Of both cohorts, before any number."""
    trained, judged = study.provenances
    lines = [
        f"Models trained on: {PROVENANCE[trained]}",
        *dict.fromkeys(
            line for each in study.validated for applied in each.models.applied for line in applied.own_caveats
        ),
        f"Judged on: {PROVENANCE[judged]}",
        study.cohort.description,
    ]
    return [line for line in lines if line]


def developed(run: Path, name: str) -> float:
    """Mean over the fold models of the C-index on the run's own test patients; NaN where the run keeps none."""
    values = [
        row["value"]
        for path in sorted((run / "experiments" / name).glob("fold-*/metrics.json"))
        for row in read_json(path)["metrics"]
        if row["split"] == "test" and row["metric"] == "c_index"
    ]
    return float(np.mean(values)) if values else np.nan
