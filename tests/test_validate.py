"""External validation from beginning to end, on patients whose risk is known."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.cohort import read_cohort
from fracsurv.config import load_profile
from fracsurv.metrics import Estimate, kaplan_meier
from fracsurv.metrics.validation import Drawn
from fracsurv.predict.predict import read_models
from fracsurv.predict.shift import other_units, values_beyond_training
from fracsurv.predict.train_overlap import without_training_patients
from fracsurv.predict.validate import COLUMNS, _over_folds, outcome_faults, validate_experiment
from fracsurv.predict.validation_files import Admitted, admit, write_files
from fracsurv.study.experiments import run_experiment
from fracsurv.study.model_bundle import read_bundle
from fracsurv.study.prepare import prepare
from fracsurv.study.results import read_metrics
from fracsurv.utils.errors import UserError
from tests.browser import CHROMIUM, browser
from tests.conftest import write_cohort
from tests.made_up import execute, texts_of

DAYS = (365.0, 1096.0, 1826.0)
SETTINGS = {
    "provenance": "simulated",
    "covariates": {"age": "continuous", "smoker": "binary"},
    "horizons": [365, 1096, 1826],
}


def patients(n: int, seed: int, *, called: str, faster: float = 1.0) -> pd.DataFrame:
    """Patients of whom two covariates set the hazard; `faster` multiplies it."""
    rng = np.random.default_rng(seed)
    age, smoker = rng.normal(78, 2, n).round(2), rng.integers(0, 2, n)
    hazard = faster * np.exp(0.35 * (age - 78) + 0.5 * smoker) / 5000
    died, left = rng.exponential(1 / hazard), rng.uniform(1500, 3000, n)
    time = np.ceil(np.minimum(died, left))
    ids = [f"{called}{i:04d}" for i in range(n)]
    return pd.DataFrame(
        {"patient_id": ids, "time_days": time, "event": (died <= left).astype(int), "age": age, "smoker": smoker}
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of Cox regression on 900 patients, with 300 external ones."""
    folder = tmp_path_factory.mktemp("validate")
    table = pd.concat([patients(900, 0, called="P"), patients(300, 1, called="E")], ignore_index=True)
    table["split"] = [""] * 900 + ["external"] * 300
    cohort = write_cohort(folder / "cohort", table, **SETTINGS)
    run = prepare(cohort, folder / "run", replace(load_profile("tiny"), n_folds=3))
    run_experiment(run, "cox_ph", progress=False)
    return run


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """600 further patients of the same kind."""
    return write_cohort(tmp_path_factory.mktemp("others") / "cohort", patients(600, 2, called="Q"), **SETTINGS)


@pytest.fixture(scope="module")
def validated(made, others, tmp_path_factory):
    """The command's folder on them, and what it printed."""
    out = tmp_path_factory.mktemp("validated") / "out"
    result = CliRunner().invoke(app, ["validate", str(made.out), str(others), "--out", str(out), "--draws", "60"])
    assert result.exit_code == 0, result.output
    return out, result.output


def of(made, cohort: Path, work: Path):
    return validate_experiment(
        read_models(made.out, "cox_ph"), read_cohort(cohort), work, n_draws=50, seed=0, progress=False
    )


def found(table: pd.DataFrame, model: str, metric: str, horizon: float | None = None) -> Estimate:
    """The one row of a table of metrics."""
    rows = table[(table["model"] == model) & (table["metric"] == metric)]
    (row,) = rows[rows["horizon"].isna() if horizon is None else rows["horizon"] == horizon].to_dict("records")
    return Estimate(row["value"], row["low"], row["high"])


def files(run: Path, cohort: Path, out: Path, *, n_draws: int = 50) -> Admitted:
    """What notebook 07 computes and writes, without the notebook."""
    admitted = admit(run, cohort, [], "refuse")
    out.mkdir()
    validated = [
        validate_experiment(models, admitted.cohort, out / "work", n_draws=n_draws, seed=0, progress=False)
        for models in admitted.models.values()
    ]
    write_files(out, run, admitted.cohort, validated)
    return admitted


@pytest.fixture
def notebook(monkeypatch):
    """Run notebook 07 in this process: the verdict's cell, and all that it displays."""

    def run_it(run: Path, cohort: Path, out: Path, **parameters: object) -> tuple[str, str]:
        shown = texts_of(
            execute("07_external_validation", cohort, out, monkeypatch, run=str(run), draws=50, **parameters)
        )
        (verdict,) = [text for text in shown if text.startswith("**")]
        assert not any("<script>" in text for text in shown)
        return verdict, re.sub(r"<[^>]+>", " ", " ".join(shown))

    return run_it


def test_a_runs_external_patients_get_the_runs_external_figures(made, tmp_path):
    table = pd.read_csv(made.cohort.folder / "cohort.csv")
    cohort = write_cohort(tmp_path / "c", table[table["split"] == "external"].drop(columns="split"), **SETTINGS)
    here = of(made, cohort, tmp_path / "w").table.query("model == 'fold_mean'")
    wanted = read_metrics(made, "cox_ph").query("split == 'external'")
    groups = wanted.groupby(["metric", "horizon_days"], dropna=False)["value"].agg(["mean", "std", "size"])
    assert len(groups) == 2 + 3 * 3 + 2
    for (metric, day), row in groups.iterrows():
        at = here["horizon"].isna() if np.isnan(day) else here["horizon"] == day
        (one,) = here[(here["metric"] == metric) & at].to_dict("records")
        assert row["size"] == 3
        assert (one["value"], one["sd"]) == pytest.approx((row["mean"], row["std"]), rel=1e-9), metric


def test_a_right_model_holds(validated, made):
    out, said = validated
    assert said.startswith("Yes: ")
    assert "warning" not in said
    assert not (out / "warnings.txt").exists()
    table = pd.read_csv(out / "validation.csv")
    assert table.columns.tolist() == [*COLUMNS, "trained_on", "judged_on"]
    assert set(table["trained_on"]) == set(table["judged_on"]) == {"simulated"}
    for metric, horizon in (
        ("calibration_slope", None),
        ("observed_to_expected", None),
        ("observed_to_expected", 1826),
    ):
        value, low, high = found(table, "ensemble", metric, horizon)
        assert low < 1 < high
        assert value == pytest.approx(1, abs=0.15)
    row = table.query("model == 'ensemble' and metric == 'brier' and horizon == 1096").iloc[0]
    cohort = pd.read_csv(out.parent / "out" / "predictions.csv")
    assert row["n"] == len(cohort) == 600
    assert row["events"] == (cohort["event"] & (cohort["time"] <= 1096)).sum()


def test_a_model_twice_as_extreme_has_half_the_slope(made, others, notebook, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(made.out, place)
    for path in place.glob("experiments/cox_ph/fold-*/coefficients.csv"):
        table = pd.read_csv(path)
        table["log_hazard_ratio"] *= 2
        table.to_csv(path, index=False)
    before = found(of(made, others, tmp_path / "a").table, "ensemble", "calibration_slope")
    extreme = validate_experiment(
        read_models(place, "cox_ph"), read_cohort(others), tmp_path / "b", n_draws=50, seed=0
    )
    after = found(extreme.table, "ensemble", "calibration_slope")
    np.testing.assert_allclose(after, np.array(before) / 2, rtol=1e-6)
    mended = found(extreme.table, "slope", "calibration_slope")
    assert mended.low < 1 < mended.high
    verdict, _ = notebook(place, others, tmp_path / "out", overlap="exclude")
    assert verdict.startswith("**Only in part: ")
    assert "calibration slope is below 1" in verdict.split("**")[1]


def test_twice_the_hazard_shows_and_the_file_puts_it_right(made, tmp_path):
    cohort = write_cohort(tmp_path / "c", patients(600, 3, called="Q", faster=2.0), **SETTINGS)
    files(made.out, cohort, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "validation.csv")
    assert found(table, "ensemble", "observed_to_expected").value == pytest.approx(2, abs=0.35)
    for model in ("intercept", "baseline", "slope"):
        assert found(table, model, "observed_to_expected").value == pytest.approx(1, abs=0.03)
        for day in DAYS:
            assert found(table, model, "observed_to_expected", day).value == pytest.approx(1, abs=0.2)
    # by hand, as the file says
    record = json.loads((tmp_path / "out" / "recalibration.json").read_text())
    given = record["experiments"]["cox_ph"]["recalibrations"]
    fold = json.loads((made.folder("cox_ph", 0) / "fit.json").read_text())
    assert record["experiments"]["cox_ph"]["fits"][0] == fold["key"]
    assert record["recalibrated_on"]["patients"] == 600
    told = pd.read_csv(tmp_path / "out" / "predictions.csv")
    times, survival = kaplan_meier(told["event"], told["time"])
    for day in DAYS:
        observed = 1 - survival[np.searchsorted(times, day, side="right") - 1]
        factor = given["intercept"]["factor"]
        assert np.mean(1 - (1 - told[f"probability_{day:g}"]) ** factor) == pytest.approx(observed, abs=0.03)
        for method, slope in (("baseline", 1), ("slope", given["slope"]["slope"])):
            steps = given[method]["cumulative_hazard"]
            hazard = steps["hazard"][np.searchsorted(steps["time"], day, side="right") - 1]
            risk = 1 - np.exp(-hazard * np.exp(slope * told["risk"]))
            assert np.mean(risk) == pytest.approx(observed, abs=0.03)
            crossed = told[f"probability_{day:g}_{method}"]
            assert np.abs(crossed - risk).max() < 0.1
            assert (crossed != risk).all()


def test_the_folder_is_the_same_twice(made, others, validated, tmp_path):
    out, _ = validated
    files(made.out, others, tmp_path / "again", n_draws=60)
    for name in ("validation.csv", "predictions.csv", "recalibration.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name
    assert sorted(path.name for path in out.iterdir()) == [
        "07_external_validation.ipynb", "figures", "index.html", "predictions.csv", "recalibration.json", "tables",
        "validation.csv",
    ]  # fmt: skip


def test_the_page_stands_alone_and_holds_the_verdict(validated, made, others):
    out, said = validated
    page = (out / "index.html").read_text(encoding="utf-8")
    assert said.split(". ")[0] in page
    assert "http" not in page
    assert "Q0000" not in page
    assert "trained on a simulated cohort" in (out / "tables" / "ranking.tex").read_text()
    before = read_metrics(made, "cox_ph").query("split == 'test' and metric == 'c_index'")["value"].mean()
    assert f"{before:.3f}" in (out / "tables" / "ranking.csv").read_text()
    text = (out / "07_external_validation.ipynb").read_text(encoding="utf-8")
    assert not [folder for folder in (out.parent, made.out, others) if str(folder) in text]
    assert f".{out.name}.fracsurv" not in text  # the folder that it was made in


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_it_at_both_widths(validated, tmp_path):
    out, _ = validated
    with browser(tmp_path) as page:
        for width in (1280, 390):
            page.open(out / "index.html", width)
            assert page.run("document.documentElement.scrollWidth") == width
            assert not page.complaints
            assert not [each for each in page.requests if not each.startswith(("file:", "data:"))]
            assert page.run("[...document.images].every(image => image.naturalWidth > 0)")


def test_follow_up_that_reaches_no_horizon_leaves_what_needs_none(made, notebook, tmp_path):
    table = patients(400, 5, called="Q", faster=8.0)
    early = table["time_days"] > 300
    table.loc[early, "event"], table.loc[early, "time_days"] = 0, 300
    cohort = write_cohort(tmp_path / "c", table, **SETTINGS)
    verdict, _ = notebook(made.out, cohort, tmp_path / "out")
    assert verdict.startswith("**Only in part: ")
    assert "1 year, 3 years, 5 years" in (tmp_path / "out" / "warnings.txt").read_text()
    table = pd.read_csv(tmp_path / "out" / "validation.csv")
    assert table["horizon"].isna().all()
    assert found(table, "ensemble", "observed_to_expected").value == pytest.approx(8, rel=0.2)


def test_no_horizon_and_nothing_wrong_cannot_be_told(made, others, notebook, tmp_path):
    table = pd.read_csv(others / "cohort.csv")
    late = table["time_days"] > 360
    table.loc[late, "event"], table.loc[late, "time_days"] = 0, 360
    cohort = write_cohort(tmp_path / "c", table, **SETTINGS)
    verdict, _ = notebook(made.out, cohort, tmp_path / "out")
    assert verdict.startswith("**Cannot be told: ")


def test_few_events_are_never_called_a_model_that_holds(made, notebook, tmp_path):
    hostile = {"description": "<script>", "labels": {"age": "Age <script> $x$"}}
    cohort = write_cohort(tmp_path / "c", patients(150, 9, called="Q"), **SETTINGS, **hostile)
    assert pd.read_csv(cohort / "cohort.csv")["event"].sum() < 100
    verdict, _ = notebook(made.out, cohort, tmp_path / "out")
    assert verdict.startswith("**Nothing seen against it: ")


def test_eight_patients_and_one_event_have_no_curves_and_no_nan(made, notebook, tmp_path):
    table = patients(8, 11, called="Q").assign(event=[1] + [0] * 7, time_days=[400, *range(2000, 2700, 100)])
    cohort = write_cohort(tmp_path / "c", table, **SETTINGS)
    _, shown = notebook(made.out, cohort, tmp_path / "o")
    assert not (tmp_path / "o" / "figures" / "thirds.svg").exists()
    assert not re.search(r"\b(nan|inf)\b", shown)
    # all but one are followed until the end: half are followed until the median of the seven
    assert "2,300 days, longest 2,600 days" in shown


def test_events_after_the_trainings_follow_up_are_none_within_it(made, notebook, tmp_path):
    late = np.r_[np.full(20, 2000), np.linspace(3100, 3300, 20)]
    table = patients(40, 12, called="Q").assign(event=[0] * 20 + [1] * 20, time_days=late)
    cohort = write_cohort(tmp_path / "c", table, **SETTINGS)
    _, shown = notebook(made.out, cohort, tmp_path / "o")
    row = found(pd.read_csv(tmp_path / "o" / "validation.csv"), "ensemble", "observed_to_expected")
    assert row.value == 0
    assert row.low == 0 < row.high < 1  # exact: far fewer than the model expects
    assert not re.search(r"\b(nan|inf)\b", shown)
    warned = (tmp_path / "o" / "warnings.txt").read_text()
    assert "20 events within the models' training follow-up; there: 0" in warned
    assert (tmp_path / "o" / "figures" / "thirds.svg").exists()  # 40 patients are enough


def test_a_notebook_that_ends_in_faults_leaves_nothing(made, others, tmp_path, monkeypatch):
    failing = nbformat.v4.new_notebook()
    failing.cells = [
        nbformat.v4.new_code_cell("out = ''", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "from pathlib import Path\nfrom fracsurv.utils.errors import UserError\n"
            "(Path(out) / 'half.csv').write_text('half')\nraise UserError(['first', 'second'])"
        ),
    ]
    failing.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(failing, tmp_path / "notebooks" / "07_external_validation.ipynb")
    monkeypatch.setattr("fracsurv.report.validation.ROOT", tmp_path)
    result = CliRunner().invoke(app, ["validate", str(made.out), str(others), "--out", str(tmp_path / "o")])
    assert isinstance(result.exception, UserError), result.output
    assert result.exception.faults == ["first", "second"]
    assert list(tmp_path.iterdir()) == [tmp_path / "notebooks"]


class TestTrainingPatients:
    def test_are_refused_kept_or_left_out_by_id(self, made):
        whole, trained = read_cohort(made.cohort.folder), made.splits["split"] == "train"
        share = f"{trained.sum()} of 1,200 patients with the id"
        with pytest.raises(UserError, match=f"^patient_id: {share}"):
            without_training_patients(made.out, whole, "refuse")
        kept, (warning,) = without_training_patients(made.out, whole, "keep")
        assert (len(kept), warning.startswith(share)) == (1200, True)
        others, (warning,) = without_training_patients(made.out, whole, "exclude")
        assert set(others.table["patient_id"]) == set(made.splits.loc[~trained, "patient_id"])
        assert warning.startswith(share)

    def test_who_is_left_out_may_differ_from_the_training(self, made, tmp_path):
        """Her age is not known; of the others it is."""
        table = patients(300, 11, called="Q")
        table.loc[0, "patient_id"] = made.splits.loc[made.splits["split"] == "train", "patient_id"].iloc[0]
        table.loc[0, "age"] = np.nan
        cohort = write_cohort(tmp_path / "c", table, **SETTINGS, missing_covariates="impute")
        with pytest.raises(UserError, match="covariate age: missing in 1 patient"):
            admit(made.out, cohort, [], "keep")
        admitted = admit(made.out, cohort, [], "exclude")
        assert len(admitted.cohort) == 299
        assert "1 of 300 patients with the id" in admitted.warnings[0]

    def test_others_may_be_numbered_alike(self, made, notebook, tmp_path):
        cohort = write_cohort(tmp_path / "c", patients(300, 6, called="P"), **SETTINGS)
        alike = int(
            made.splits.loc[made.splits["split"] == "train", "patient_id"]
            .isin([f"P{i:04d}" for i in range(300)])
            .sum()
        )
        with pytest.raises(UserError, match=f"^patient_id: {alike} of 300 patients with the id"):
            admit(made.out, cohort, [], "refuse")
        (warning,) = admit(made.out, cohort, [], "keep").warnings
        assert warning.startswith(f"{alike} of 300 patients with the id")
        notebook(made.out, cohort, tmp_path / "o", overlap="keep")
        assert warning in (tmp_path / "o" / "warnings.txt").read_text()

    def test_cannot_be_looked_for_in_a_run_that_keeps_none(self, made, tmp_path):
        place = tmp_path / "run"
        shutil.copytree(made.out, place, ignore=shutil.ignore_patterns("predictions.parquet", "splits.csv"))
        cohort = write_cohort(tmp_path / "c", patients(200, 7, called="P"), **SETTINGS)
        (warning,) = admit(place, cohort, [], "refuse").warnings
        assert "nobody checked that these are others" in warning

    @pytest.mark.parametrize(
        ("left", "message"),
        [
            (1, r"patient_id: 1 patient \(without 5 patients met in training\); nothing can be validated on fewer"),
            (2, r"event: nobody of 2 patients \(without 5 patients met in training\) has had the event"),
        ],
    )
    def test_too_few_may_be_left(self, made, tmp_path, left, message):
        table = patients(5 + left, 10, called="Q").assign(event=[1] * 5 + [0] * left)
        table.loc[:4, "patient_id"] = made.splits.loc[made.splits["split"] == "train", "patient_id"].to_numpy()[:5]
        cohort = write_cohort(tmp_path / "c", table, **SETTINGS)
        with pytest.raises(UserError, match=f"^{message}"):
            admit(made.out, cohort, [], "exclude")

    def test_all_of_them_leave_nobody(self, made, tmp_path):
        ids = made.splits.loc[made.splits["split"] == "train", "patient_id"]
        table = pd.read_csv(made.cohort.folder / "cohort.csv").drop(columns="split")
        cohort = write_cohort(tmp_path / "c", table[table["patient_id"].isin(ids)], **SETTINGS)
        with pytest.raises(UserError, match="nobody is left to validate on"):
            admit(made.out, cohort, [], "exclude")


class TestRefuses:
    def told(self, made, cohort: Path, out: Path, *more: str) -> str:
        result = CliRunner().invoke(app, ["validate", str(made.out), str(cohort), "--out", str(out), *more])
        assert isinstance(result.exception, UserError), result.output
        return "\n".join(result.exception.faults)

    def test_one_patient_who_has_had_the_event(self, made, others):
        cohort = read_cohort(others)
        one = cohort.of_rows(np.flatnonzero(cohort.table["event"])[:1])
        (fault,) = outcome_faults(read_bundle(made.folder("cox_ph", 0)), one)
        assert fault.startswith("patient_id: 1 patient;")

    @pytest.mark.parametrize(
        ("change", "settings", "messages"),
        [
            ({"event": None}, {}, ["no column 'event'"]),
            ({"event": 0}, {}, ["column event: no patient has an event"]),
            (
                {"smoker": None},
                {"outcome": "hip fracture", "time_unit": "months", "covariates": {"age": "normalised"}},
                ["'any fracture' in training, 'hip fracture' here", "covariate smoker: the model takes it",
                 "covariate age: continuous where", "time_unit: days in training", "--overlap exclude"],
            ),
        ],
    )  # fmt: skip
    def test_all_that_differs_is_told_at_once(self, made, tmp_path, change, settings, messages):
        table = patients(60, 8, called="Q")
        table.loc[:4, "patient_id"] = made.splits.loc[made.splits["split"] == "train", "patient_id"].to_numpy()[:5]
        for column, value in change.items():
            table = table.drop(columns=column) if value is None else table.assign(**{column: value})
        cohort = write_cohort(tmp_path / "c", table, **(SETTINGS | settings))
        told = self.told(made, cohort, tmp_path / "o")
        assert [message for message in messages if message not in told] == []
        assert list(tmp_path.iterdir()) == [tmp_path / "c"]

    @pytest.mark.parametrize(
        ("column", "factor", "says"),
        [
            ("age", 12, "column ALTER: 60 of 60 patients beyond the training's range, 7"),
            ("age", -1, "; in another unit? If they are right, add --beyond-training"),
            ("time_days", 1 / 365.25, " days, in training 2999; are these years?"),
            ("time_days", 1 / 30.4, " days, in training 2999; are these months?"),
            ("time_days", 24, " days, in training 2999; are these in another unit?"),
        ],
    )
    def test_values_in_another_unit_unless_one_insists(self, made, tmp_path, column, factor, says):
        table = patients(60, 8, called="Q")
        table = table.assign(**{column: table[column] * factor}).rename(columns={"age": "ALTER"})
        cohort = write_cohort(tmp_path / "c", table, **SETTINGS, columns={"age": "ALTER"})
        assert says in self.told(made, cohort, tmp_path / "o")
        admitted = admit(made.out, cohort, [], "refuse")  # as the notebook does, which names it among the cautions
        lines = values_beyond_training(admitted.models["cox_ph"], admitted.cohort, named_rows=False)
        assert lines[0].startswith("column ALTER: 60 of 60" if column == "age" else "column time_days: the longest")
        # for `predict`, which reads no times
        arguments = ["predict", str(made.out), str(cohort), "--out", str(tmp_path / "p")]
        if column == "age":
            assert says in str(CliRunner().invoke(app, arguments).exception)
            arguments.append("--beyond-training")
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert len(pd.read_csv(tmp_path / "p" / "predictions.csv")) == 60

    def test_a_few_patients_a_little_beyond_the_training_are_no_other_unit(self, made, tmp_path):
        models = read_models(made.out, "cox_ph")
        high = max(model.about["ranges"]["age"][1] for model in models)
        for n, age, refused in ((3, high + 4, False), (3, high * 12, True), (30, high + 4, True)):
            table = patients(n, 8, called="Q").assign(age=age)
            cohort = read_cohort(write_cohort(tmp_path / f"{n} {age}", table, **SETTINGS), outcome=False)
            assert bool(other_units(models, cohort)) == refused
        for n_known in (0, 6):  # of six ages three are in months
            ages = np.where(np.arange(6) < 3, 12.0, 1) * (high - 1)
            table = patients(6, 8, called="Q").assign(age=np.where(np.arange(6) < n_known, ages, np.nan))
            unknown = SETTINGS | {"missing_covariates": "impute"}
            cohort = read_cohort(write_cohort(tmp_path / f"half {n_known}", table, **unknown), outcome=False)
            assert bool(other_units(models, cohort)) == (n_known == 6)
        # factors of 0 and 1 have no unit
        model = replace(models[0], about=models[0].about | {"ranges": {"smoker": [0.0, 0.0]}})
        table = patients(30, 8, called="Q").assign(smoker=1)
        assert other_units([model], read_cohort(write_cohort(tmp_path / "s", table, **SETTINGS), outcome=False)) == []

    def test_places_that_are_taken_and_experiments_that_are_not_there(self, made, others, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "note.txt").write_text("mine")
        assert "is there already and not empty" in self.told(made, others, tmp_path / "full")
        assert "lies in the cohort's folder" in self.told(made, others, others / "out")
        assert "--experiment nonsense: not of this run; it has cox_ph" in self.told(
            made, others, tmp_path / "o", "--experiment", "nonsense"
        )
        result = CliRunner().invoke(app, ["validate", str(others), str(others), "--out", str(tmp_path / "o")])
        assert "no models to apply" in str(result.exception)
        assert (tmp_path / "full" / "note.txt").read_text() == "mine"


def test_exact_bounds_of_one_fold_model_widen_the_interval_of_their_mean():
    draws = np.random.default_rng(0).normal(0.01, 0.001, 400)
    key = ("net_benefit", 365.0, 0.1)
    exact, plain = Drawn(0.0, np.zeros(400), -0.06, 0.09), Drawn(0.01, draws)
    (row,) = _over_folds({("0", *key): exact, ("1", *key): plain}, ["0", "1"])
    low, high = np.percentile(draws, [2.5, 97.5])
    assert (row["low"], row["high"]) == pytest.approx(((-0.06 + low) / 2, (0.09 + high) / 2))
