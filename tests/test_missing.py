"""Covariates that are not known are imputed on training patients alone; patients without a radiograph are counted."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.plausibility import implausible_values
from fracsurv.cohort.summary import label, missing_summary, summary_table
from fracsurv.explain.factors import factor_importance
from fracsurv.models import DeepSurv
from fracsurv.models.cox import fit_cox
from fracsurv.report.cards import write_cards
from fracsurv.study import explain as fold_models
from fracsurv.study.ablation import read_ablation
from fracsurv.study.experiments import run_experiment
from fracsurv.study.explain import explain
from fracsurv.study.prepare import prepare
from fracsurv.study.scaling import fit_scaling, standardise
from fracsurv.study.subgroups import left_out, subgroups
from fracsurv.study.time_dependent import UNKNOWN, follow_up_groups
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort
from tests.made_up import execute, texts_of

KINDS = {"age": "continuous", "score": "normalised", "smoker": "binary"}


def incomplete(n: int = 160, seed: int = 2) -> pd.DataFrame:
    """A table in which age is not known of some, smoking of others; some are external."""
    rng = np.random.default_rng(seed)
    table = tabular(n, seed)
    table["score"] = rng.normal(-1, 1, n).round(2)
    table["split"] = np.where(np.arange(n) >= n - 40, "external", "")
    table["smoker"] = table["smoker"].astype(object)
    table.loc[rng.choice(n, n // 8, replace=False), "age"] = np.nan
    table.loc[rng.choice(n, n // 10, replace=False), "smoker"] = ""
    return table


@pytest.fixture
def cohort(tmp_path):
    return read_cohort(write_cohort(tmp_path / "c", incomplete(), covariates=KINDS, missing_covariates="impute"))


def rows_of(fault: str) -> set[int]:
    """The rows that a fault names."""
    spans = re.match(r"cohort\.csv rows? ([\d, to]+), column", fault)[1].split(", ")
    ends = [list(map(int, span.split(" to "))) for span in spans]
    return {row for span in ends for row in range(span[0], span[-1] + 1)}


def faults_of(folder) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_cohort(folder)
    return caught.value.faults


def test_an_empty_field_is_a_fault_unless_asked_for_and_other_text_always_is(tmp_path):
    table = incomplete()
    faults = faults_of(write_cohort(tmp_path / "a", table, covariates=KINDS))
    assert len(faults) == 2  # each with all its rows
    for column, empty in (("age", table["age"].isna()), ("smoker", table["smoker"] == "")):
        (fault,) = [fault for fault in faults if f"column {column}: empty" in fault]
        assert rows_of(fault) == {row + 2 for row in np.flatnonzero(empty)}
    table = table.astype({"age": object, "score": object})
    table.loc[3, "age"], table.loc[4, "score"], table.loc[5, "smoker"] = "unknown", "inf", "2"
    folder = write_cohort(tmp_path / "b", table, covariates=KINDS, missing_covariates="impute")
    assert [fault.split(";")[0] for fault in faults_of(folder)] == [
        "cohort.csv row 5, column age: 'unknown'",
        "cohort.csv row 6, column score: 'inf'",
        "cohort.csv row 7, column smoker: '2'",
    ]
    # what cannot be imputed, and a name that an indicator would have
    for change, kinds, place in (
        ({"age": ""}, {}, "cohort.csv, column age: empty for every patient"),
        ({"age_missing": 1.0}, {"age_missing": "binary"}, "cohort.yaml, covariates, age_missing"),
    ):
        settings = {"missing_covariates": "impute", "covariates": KINDS | kinds}
        (fault,) = faults_of(write_cohort(tmp_path / "c", incomplete().assign(**change), **settings))
        assert fault.startswith(place)


def test_imputation_is_scikit_learns_fitted_on_the_training_rows(cohort):
    train = np.arange(0, 100, 2)
    found = standardise(cohort, train)
    assert cohort.indicators == ["age_missing", "smoker_missing"]
    values = cohort.table[list(KINDS)].to_numpy(float)
    wanted = np.empty_like(values)
    for column, strategy in enumerate(("median", "median", "most_frequent")):
        imputer = SimpleImputer(strategy=strategy).fit(values[train][:, [column]])
        wanted[:, [column]] = imputer.transform(values[:, [column]])
    wanted[:, [0]] = StandardScaler().fit(wanted[train][:, [0]]).transform(wanted[:, [0]])
    np.testing.assert_allclose(found[:, :3], wanted, rtol=1e-6)
    np.testing.assert_array_equal(found[:, 3:], np.isnan(values)[:, [0, 2]])
    nobody = np.flatnonzero(cohort.table["age"].isna())  # a covariate that no training patient has is constant
    alone = standardise(cohort, nobody)
    assert np.isfinite(alone).all()
    assert (alone[nobody, 0] == 0).all()
    others = np.setdiff1d(np.arange(len(cohort)), train)  # held-out patients do not change the scaling
    cohort.table.loc[others, "age"] += 500
    cohort.table.loc[others, "smoker"] = 1 - cohort.table.loc[others, "smoker"]
    np.testing.assert_array_equal(standardise(cohort, train)[train], found[train])


def test_an_indicator_that_is_constant_in_training_is_constant_everywhere(cohort):
    """Else a weight that was never trained, or trained on noise, would move held-out patients."""
    known = cohort.table[["age", "smoker"]].notna()
    train = np.flatnonzero(known["age"])[:90]
    assert known["smoker"].iloc[train].nunique() == 2
    scaling = fit_scaling(cohort, train)
    assert scaling.constant == ["age_missing"]
    found = scaling(cohort)
    assert not found[:, 3].any()
    np.testing.assert_array_equal(found[:, 4], ~known["smoker"])
    assert scaling(cohort.of_rows(np.flatnonzero(~known["age"])))[:, 3].max() == 0
    model = DeepSurv(n_inputs=5).eval()
    first = model(torch.from_numpy(found)).detach()
    with torch.no_grad():
        next(p for p in model.parameters() if p.ndim == 2)[:, 3] = 100.0  # the weights that nothing trains
    torch.testing.assert_close(model(torch.from_numpy(found)).detach(), first)


def test_a_continuous_covariate_that_is_constant_in_training_is_0_for_everybody(tmp_path):
    """Nothing trains the weights of such an input; a value from elsewhere would move the risk at random."""
    table = tabular().assign(fixed=5.0, nearly=np.where(np.arange(60) % 2, 0.1 + 0.2, 0.3))
    table.loc[59, ["fixed", "nearly"]] = 25.0
    kinds = {"age": "continuous", "smoker": "binary", "fixed": "continuous", "nearly": "continuous"}
    cohort = read_cohort(write_cohort(tmp_path, table, covariates=kinds))
    scaling = fit_scaling(cohort, np.arange(59))
    assert scaling.constant == ["fixed", "nearly"]
    assert (scaling(cohort)[:, [list(scaling.kinds).index(name) for name in scaling.constant]] == 0).all()
    assert scaling(cohort)[:59, 0].std() == pytest.approx(1)


def test_a_covariate_standardised_before_is_not_constant(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.normal(size=60)
        table = tabular().assign(z=(values - values.mean()) / values.std())
        cohort = read_cohort(write_cohort(tmp_path, table, covariates={"z": "continuous"}))
        assert fit_scaling(cohort, np.arange(60)).constant == []


def test_one_pattern_of_missing_values_is_one_covariate_to_cox(tmp_path):
    """As in R's coxph, a column that follows from those before it is left out, and no other changes."""
    table = incomplete().assign(smoker=lambda t: (t["smoker"] == 1).astype(int))
    table["score"] = pd.Series(np.random.default_rng(9).normal(size=len(table))).where(table["age"].notna())
    cohort = read_cohort(write_cohort(tmp_path, table, covariates=KINDS, missing_covariates="impute"))
    assert cohort.indicators == ["age_missing", "score_missing"]
    x = standardise(cohort, np.arange(len(cohort)))
    event, time = cohort.table["event"].to_numpy(), cohort.table["time"].to_numpy()
    fitted = fit_cox(x, event, time)
    assert "score_missing" in fitted.note([*KINDS, *cohort.indicators])
    alone = CoxPHFitter().fit(pd.DataFrame(x[:, :4], dtype=float).assign(time=time, event=event), "time", "event")
    np.testing.assert_allclose(fitted.coefficients, [*alone.params_, 0], atol=1e-4)
    sums = np.column_stack([x[:, 0], x[:, 1], x[:, 0] - 2 * x[:, 1] + 3, np.ones(len(x)), x[:, 2]])
    assert fit_cox(sums, event, time).repeated == (2,)
    assert fit_cox(sums, event, time).constant == (3,)


def permuted_columns(run) -> dict[str, list[int]]:
    """Which columns are permuted together when Cox PH is explained on the test set, by factor."""
    given = []

    def recorded(risk, values, event, time, factors, *, columns, **rest):
        given.append(dict(zip(factors, columns, strict=True)))
        return factor_importance(risk, values, event, time, factors, columns=columns, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_models, "factor_importance", recorded)
        explain(run, "cox_ph", "test")
    return given[0]


def test_an_indicator_is_permuted_with_its_factor_and_a_covariate_of_that_name_alone(tmp_path, shown):
    table = tabular(120, 3).assign(age_missing=lambda t: (np.arange(len(t)) % 3 == 0).astype(int))
    kinds = {"age": "continuous", "smoker": "binary", "age_missing": "binary"}
    made = prepare(write_cohort(tmp_path / "c", table, covariates=kinds), tmp_path / "out", "tiny")
    run_experiment(made, "cox_ph", progress=False)
    assert permuted_columns(made) == {name: [column] for column, name in enumerate(made.cohort.covariates)}
    assert permuted_columns(shown[0]) == {"age": [0, 3], "score": [1], "smoker": [2, 4]}


def test_a_complete_cohort_is_as_before(tmp_path):
    table = incomplete().assign(age=77.0, smoker=1).assign(age=lambda t: t["age"] + np.arange(len(t)) / 100)
    kept = read_cohort(write_cohort(tmp_path / "a", table, covariates=KINDS))
    asked = read_cohort(write_cohort(tmp_path / "b", table, covariates=KINDS, missing_covariates="impute"))
    assert asked.indicators == []
    assert asked.fingerprint() == kept.fingerprint()
    assert standardise(asked, np.arange(50)).shape == (160, 3)
    assert missing_summary(asked) == ""


def test_tables_and_groups_count_who_is_not_known(cohort):
    summary = summary_table(cohort).iloc[:, 0]
    age, smoker = cohort.table["age"], cohort.table["smoker"]
    assert summary["Age, years"] == f"{age.mean():,.1f} ± {age.std():,.1f}; {age.isna().sum()} not known"
    assert f"{smoker.isna().sum()} not known" in summary["Current smoker"]
    assert "not known" not in summary["score"]
    name, group, labels = follow_up_groups(cohort)
    assert (name, UNKNOWN in labels) == ("smoker", True)
    np.testing.assert_array_equal(group == UNKNOWN, smoker.isna())
    assert [line for line in implausible_values(cohort) if "not known" in line] == []
    cohort.table.loc[:100, "age"] = np.nan
    assert any(re.match(r"column age: .* 6\d %", line) for line in implausible_values(cohort))


def test_a_factor_is_permuted_together_with_where_it_is_not_known():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(80, 3))
    time, event = rng.exponential(np.exp(-values[:, 0])), np.ones(80, bool)
    seen = []

    def risk(given):
        seen.append(given)
        return given[:, 0]

    losses, drawn = factor_importance(risk, values, event, time, ["a", "b"], columns=[[0, 2], [1]], seed=0, n_draws=5)
    assert losses["factor"].tolist() == ["a", "b"]
    assert drawn.shape == (5, 2)
    assert losses["loss"][0] > 0.1
    assert losses["loss"][1] == 0
    pairs = {tuple(row) for row in values[:, [0, 2]]}
    assert all({tuple(row) for row in given[:, [0, 2]]} == pairs for given in seen)


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A run with missing covariates, and what notebook 05 shows of it."""
    folder = tmp_path_factory.mktemp("missing")
    cohort = write_cohort(folder / "c", incomplete(), covariates=KINDS, missing_covariates="impute")
    made = prepare(cohort, folder / "out", "tiny")
    for name in ("cox_ph", "deepsurv"):
        run_experiment(made, name, progress=False)
        explain(made, name, "external")
    with pytest.MonkeyPatch.context() as patch:
        texts = texts_of(execute("05_ablation_tables", cohort, made.out, patch))
    write_cards(made, read_ablation(made)[0])
    return made, texts


def test_models_take_the_indicators_and_the_report_counts_them(shown):
    run, texts = shown
    coefficients = pd.read_csv(run.folder("cox_ph", 0) / "coefficients.csv")
    assert coefficients["covariate"].tolist() == [*KINDS, "age_missing", "smoker_missing"]
    factors = pd.read_csv(run.out / "explanations" / "deepsurv" / "factors.csv")
    assert set(factors["factor"]) == set(KINDS)
    unknown = int(run.cohort.table["age"].isna().to_numpy()[run.rows(0)["external"]].sum())
    assert re.findall(r"\d+", missing_summary(run.cohort)) == ["160", "20", "16"]
    result = CliRunner().invoke(app, ["check", str(run.cohort.folder)])
    assert result.exit_code == 0
    assert "Age, years of 20, Current smoker of 16" in result.output
    called = label(run.cohort, "age_missing")
    assert any("Age, years of 20" in text for text in texts)
    assert called in (run.out / "pages" / "cox_ph.html").read_text(encoding="utf-8")
    # too few to have a row, but counted
    assert 0 < unknown < 10
    assert called not in dict(subgroups(run, "external"))
    assert left_out(run, "external")[called] == unknown
    assert called not in pd.read_csv(run.out / "tables" / "groups.csv")["group"].tolist()


def test_patients_without_a_radiograph_are_refused_or_left_out_and_counted(simulated, tmp_path):
    shutil.copytree(simulated, tmp_path, dirs_exist_ok=True)
    table = pd.read_csv(simulated / "cohort.csv")
    settings = (simulated / "cohort.yaml").read_text()
    gone = [2, 5, 11]
    table.loc[gone, "image"] = np.nan
    table.to_csv(tmp_path / "cohort.csv", index=False)
    (fault,) = faults_of(tmp_path)
    assert rows_of(fault) == {row + 2 for row in gone}
    assert "missing_images" in fault
    (tmp_path / "cohort.yaml").write_text(settings + "missing_images: exclude\n")
    found, whole = read_cohort(tmp_path), read_cohort(simulated)
    assert found.n_excluded == 3
    assert "3 patients" in missing_summary(found)
    assert len(found) == len(whole) - 3
    ids = whole.table["patient_id"].drop(gone)
    assert found.table["patient_id"].tolist() == ids.tolist()
    assert set(found.vertebrae["patient_id"]) <= set(ids)
    assert found.file_rows == tuple(row + 2 for row in range(len(whole)) if row not in gone)
    truth = whole.truth()["log_hazard"]
    pd.testing.assert_series_equal(found.truth()["log_hazard"], truth.drop(truth.index[gone]))


@pytest.mark.parametrize(
    ("change", "column"),
    [
        (lambda t: t.assign(image=""), "image"),
        (lambda t: t.assign(image=t["image"].where(t["event"] == 0, "")), "event"),
        (lambda t: t.assign(image=t["image"].where(t.index > 1, ""), bmi=t["bmi"].where(t.index < 2)), "bmi"),
    ],
)
def test_the_patients_that_remain_must_have_images_events_and_covariates(simulated, tmp_path, change, column):
    shutil.copytree(simulated, tmp_path, dirs_exist_ok=True)
    settings = (simulated / "cohort.yaml").read_text()
    (tmp_path / "cohort.yaml").write_text(settings + "missing_images: exclude\nmissing_covariates: impute\n")
    change(pd.read_csv(simulated / "cohort.csv")).to_csv(tmp_path / "cohort.csv", index=False)
    (fault,) = faults_of(tmp_path)
    assert fault.startswith(f"cohort.csv, column {column}: ")
