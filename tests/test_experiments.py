"""Experiments on the tiny cohort: nothing leaks, nothing is done twice, the files agree with one another."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter
from safetensors.torch import load_file
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.metrics import concordance_index_censored
from sksurv.util import Surv

import fracsurv.study.experiments as experiments
from fracsurv.cohort.cohort import read_cohort
from fracsurv.config import TRUE_RISK, load_profile
from fracsurv.metrics import breslow_survival, concordance_index
from fracsurv.models.cox import fit_cox
from fracsurv.study.ablation import COLUMNS, ablation
from fracsurv.study.experiments import fit_fold, run_experiment
from fracsurv.study.prepare import prepare
from fracsurv.study.provenance import provenance
from fracsurv.study.results import (
    finished,
    read_metrics,
    read_predictions,
    risk_of,
)
from fracsurv.study.run import RUN_LOCK
from fracsurv.study.scaling import standardise
from fracsurv.training.data import ImageFeed
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import locked, read_json, write_json
from fracsurv.vertebrae.covariates import VERTEBRAL
from tests.conftest import tabular, write_cohort

KINDS = {"age": "continuous", "smoker": "binary"}


@pytest.fixture(scope="module")
def run(tiny_run):
    """Everything that the α and late-fusion rows need is fitted once."""
    for name in (TRUE_RISK, "cox_ph", "cds_crops_lf", "cds_crops_alpha_tab", "vit_crops_if"):
        run_experiment(tiny_run, name, progress=False)
    return tiny_run


class TestNothingLeaks:
    def test_standardised_on_the_training_rows_alone(self, run):
        rows = run.rows(0)
        values = standardise(run.cohort, rows["train"])
        age = list(run.cohort.covariates).index("age")
        np.testing.assert_allclose(values[rows["train"], age].mean(), 0, atol=1e-5)
        np.testing.assert_allclose(values[rows["train"], age].std(), 1, atol=1e-5)
        changed = run.cohort.table.copy()
        changed.loc[rows["validation"], "age"] += 50
        moved = standardise(replace(run.cohort, table=changed), rows["train"])
        np.testing.assert_array_equal(moved[rows["train"]], values[rows["train"]])

    def test_pixel_range_of_the_training_rows_alone(self, run):
        store, rows = run.store("crops"), run.rows(0)
        feed = ImageFeed(store, "crops", rows["train"], scale=1, how="fold", square=False, device=torch.device("cpu"))
        assert set(feed.low.tolist()) == {store.ranges["crops_min"].to_numpy()[rows["train"]].min()}
        assert set(feed.high.tolist()) == {store.ranges["crops_max"].to_numpy()[rows["train"]].max()}

    def test_without_a_single_crop_among_the_training_rows_there_is_no_range(self, run):
        store, rows = run.store("crops"), run.rows(0)
        empty = store.ranges.copy()
        empty.iloc[rows["train"]] = np.nan
        device = torch.device("cpu")
        feed = ImageFeed(
            replace(store, ranges=empty), "crops", rows["train"], scale=1, how="fold", square=False, device=device
        )
        assert set(feed.low[rows["train"]].tolist()) == {0.0}
        assert set(feed.high[rows["train"]].tolist()) == {1.0}

    def test_rows_do_not_meet(self, run):
        for fold in range(run.profile.n_folds):
            rows = list(run.rows(fold).values())
            together = np.concatenate(rows)
            assert len(together) == len(set(together)) == len(run.cohort)
            predictions = read_predictions(run, "cox_ph", fold)
            assert sorted(predictions["patient_id"]) == sorted(run.cohort.table["patient_id"])

    def test_test_outcomes_change_nothing_that_was_learnt(self, run, tmp_path):
        """The same cohort with other test and external outcomes gives the same weights, bit for bit."""
        folder = tmp_path / "cohort"
        shutil.copytree(run.cohort.folder, folder)
        table = pd.read_csv(folder / "cohort.csv", keep_default_na=False)
        splits = run.splits["split"].to_numpy()
        table["split"] = np.where(splits == "train", "train", splits)
        held_out = np.flatnonzero(splits != "train")
        table.loc[held_out, "time_days"] = table.loc[held_out, "time_days"].to_numpy()[::-1]
        table.loc[held_out, "event"] = table.loc[held_out, "event"].to_numpy()[::-1]
        table.to_csv(folder / "cohort.csv", index=False)
        other = prepare(folder, tmp_path / "run", "tiny", kinds=["crops"])
        pd.testing.assert_frame_equal(other.splits[splits == "external"], run.splits[splits == "external"])
        # the folds are drawn from the training patients' events alone, in the same order
        assert (other.splits["fold"] == run.splits["fold"]).all()
        fit_fold(other, "cds_crops", 0, progress=False)
        mine, theirs = (load_file(r.folder("cds_crops", 0) / "best.safetensors") for r in (run, other))
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


class TestFiles:
    def test_metrics_are_those_of_the_predictions(self, run):
        predictions = read_predictions(run, "vit_crops_if", 1)
        metrics = read_metrics(run, "vit_crops_if")
        for split in ("validation", "test", "external"):
            part = predictions[predictions["split"] == split]
            expected = concordance_index_censored(part["event"], part["time"], part["risk"])[0]
            found = metrics.query("fold == 1 and split == @split and metric == 'c_index'")["value"].item()
            assert found == pytest.approx(expected, abs=1e-12)

    def test_probabilities_come_from_the_training_fold_s_baseline(self, run):
        predictions = read_predictions(run, "vit_crops_if", 0)
        train = predictions[predictions["split"] == "train"]
        surv = breslow_survival(train["event"], train["time"], train["risk"], predictions["risk"], [1826.0])
        np.testing.assert_allclose(predictions["survival_1826d"], surv[:, 0], rtol=1e-12)

    def test_done_work_is_not_repeated(self, run, monkeypatch):
        monkeypatch.setattr(experiments, "fit", lambda *_, **__: pytest.fail("fitted again"))
        monkeypatch.setattr(experiments, "predict", lambda *_, **__: pytest.fail("evaluated again"))
        for name in ("cds_crops_lf", "cds_crops_alpha_tab", "vit_crops_if"):
            run_experiment(run, name, progress=False)

    def test_other_horizons_are_evaluated_anew_but_not_fitted(self, run, monkeypatch):
        monkeypatch.setattr(experiments, "fit", lambda *_, **__: pytest.fail("fitted again"))
        other = replace(run, cohort=replace(run.cohort, horizons=(700.0, 1500.0)))
        assert "vit_crops_if" in finished(run)
        assert "vit_crops_if" not in finished(other)
        run_experiment(other, "vit_crops_if", progress=False)
        assert set(read_metrics(other, "vit_crops_if")["horizon_days"].dropna()) == {700.0, 1500.0}
        run_experiment(run, "vit_crops_if", progress=False)

    def test_a_model_whose_parts_are_stale_is_not_fitted(self, run):
        other = replace(run, profile=replace(run.profile, seed=run.profile.seed + 1))
        with pytest.raises(UserError, match="takes over deepsurv, whose fold 0 is not finished"):
            fit_fold(other, "cds_crops_alpha_tab", 0, 0.3, progress=False)

    def test_another_setting_is_another_fit(self, run):
        key = run.key("cds_crops", 0, None)
        assert replace(run, profile=replace(run.profile, seed=1)).key("cds_crops", 0, None) != key
        assert replace(run, profile=replace(run.profile, bootstrap_draws=99)).key("cds_crops", 0, None) == key
        assert run.key("cds_crops", 1, None) != key


class TestFusion:
    def test_late_fusion_keeps_its_parts(self, run):
        fused = load_file(run.folder("cds_crops_lf", 0) / "best.safetensors")
        for part, source in (("image", "cds_crops"), ("tabular", "deepsurv")):
            weights = load_file(run.folder(source, 0) / "best.safetensors")
            assert all(torch.equal(fused[f"{part}.module.{key}"], value) for key, value in weights.items())

    def test_late_fusion_is_linear_in_its_two_risks(self, run):
        fused = load_file(run.folder("cds_crops_lf", 1) / "best.safetensors")
        weight, bias = fused["head.weight"][0].numpy(), fused["head.bias"].item()
        parts = [risk_of(run, name, 1) for name in ("deepsurv", "cds_crops")]
        expected = weight[0] * parts[0] + weight[1] * parts[1] + bias
        np.testing.assert_allclose(risk_of(run, "cds_crops_lf", 1), expected, rtol=1e-5, atol=1e-6)

    def test_frozen_tabular_part_of_alpha(self, run):
        weights = load_file(run.folder("deepsurv", 0) / "best.safetensors")
        fused = load_file(run.folder("cds_crops_alpha_tab", 0) / "best.safetensors")
        assert all(torch.equal(fused[f"tabular.module.{key}"], value) for key, value in weights.items())

    def test_alpha_is_chosen_by_mean_validation_c(self, run):
        sweep = pd.read_csv(run.folder("cds_crops_alpha_tab") / "sweep.csv")
        assert sorted(sweep["alpha"].unique()) == list(run.profile.alphas)
        means = {
            alpha: np.mean([
                read_json(run.folder("cds_crops_alpha_tab", fold, alpha) / "fit.json")["validation_c_index"]
                for fold in range(run.profile.n_folds)
            ])
            for alpha in run.profile.alphas
        }  # fmt: skip
        best = max(means, key=means.get)
        assert set(sweep.loc[sweep["selected"], "alpha"]) == {best}
        assert read_json(run.folder("cds_crops_alpha_tab", 0) / "fit.json")["alpha"] == best

    def test_only_the_chosen_alpha_sees_the_test_set(self, run):
        for alpha in run.profile.alphas:
            assert not (run.folder("cds_crops_alpha_tab", 0, alpha) / "predictions.parquet").exists()

    def test_no_alpha_elsewhere(self, run):
        assert run.alphas("cds_crops") == run.alphas(TRUE_RISK) == (None,)


class TestCox:
    def test_is_scikit_survival(self, run):
        rows, table = run.rows(0)["train"], run.cohort.table
        values = standardise(run.cohort, rows).astype(float)
        keep = np.ptp(values[rows], axis=0) > 0
        outcome = Surv.from_arrays(table["event"][rows], table["time"][rows])
        note = read_json(run.folder("cox_ph", 0) / "fit.json")["note"]
        names = np.array(list(run.cohort.covariates))[keep]
        penalty = [0.1 if "penalised" in note and name in note.split("penalised")[1] else 0.0 for name in names]
        theirs = CoxPHSurvivalAnalysis(ties="efron", alpha=np.array(penalty)).fit(values[rows][:, keep], outcome)
        found = pd.read_csv(run.folder("cox_ph", 0) / "coefficients.csv")["log_hazard_ratio"].to_numpy()
        np.testing.assert_allclose(found[keep], theirs.coef_, rtol=1e-6)
        assert (found[~keep] == 0).all()

    def test_a_factor_that_separates_is_tamed_and_told(self):
        rng = np.random.default_rng(0)
        event = np.arange(80) < 40
        x = np.column_stack([event.astype(float), rng.normal(size=80), np.ones(80)])
        fitted = fit_cox(x, event, rng.uniform(1, 100, 80))
        assert fitted.note(["a", "b", "c"]) == "constant, left out: c; penalised: a"
        assert np.isfinite(fitted.coefficients).all()
        assert fitted.coefficients[2] == 0

    @pytest.mark.parametrize(
        "change",
        [
            lambda x: x * 1e7,
            lambda x: x + 1e5,
            lambda x: 1e-9 * x,
            lambda x: 1e12 * x + 1e15,
            lambda x: -3e4 * x - 7e6,
        ],
        ids=["times 1e7", "plus 1e5", "times 1e-9", "times 1e12 plus 1e15", "negative"],
    )
    @pytest.mark.parametrize("column", [0, 1, 2])
    def test_origin_and_scale_of_a_covariate_change_its_own_coefficient_alone(self, column, change):
        """Against lifelines on the covariates as they are; column 2 separates the events, and is penalised."""
        rng = np.random.default_rng(0)
        age, smoker = rng.normal(75, 8, 400), (rng.random(400) < 0.4).astype(float)
        died, left = rng.exponential(2000 * np.exp(-0.0436 * (age - 75) - 0.3584 * smoker)), rng.uniform(1, 4000, 400)
        event, time = died < left, np.minimum(died, left)
        x = np.column_stack([age, smoker, np.where(event, 1.0, -rng.random(400))])
        if column < 2:
            x = x[:, :2]
            table = pd.DataFrame(x).assign(time=time, event=event)
            theirs = CoxPHFitter().fit(table, "time", "event", fit_options={"precision": 1e-12}).params_.to_numpy()
            np.testing.assert_allclose(fit_cox(x, event, time).coefficients, theirs, rtol=1e-6)
        before, changed = fit_cox(x, event, time), x.copy()
        changed[:, column] = change(x[:, column])
        after = fit_cox(changed, event, time)
        factor = np.ptp(changed[:, column]) / np.ptp(x[:, column]) * (-1 if change(1.0) < change(0.0) else 1)
        assert after.penalised == before.penalised == (() if column < 2 else (2,))
        expected = before.coefficients / np.where(np.arange(x.shape[1]) == column, factor, 1.0)
        np.testing.assert_allclose(after.coefficients, expected, rtol=1e-5)

    @pytest.mark.parametrize("seed", range(58, 62))  # an intermediate step overflows in one of them
    def test_a_rare_factor_coded_the_other_way_changes_its_sign_alone(self, seed):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(40, 4))
        x[:, 3] = rng.random(40) < 0.08
        time = np.ceil(rng.exponential(10, size=40) * np.exp(-x[:, 0] * 0.7))
        event = rng.random(40) < 0.3
        plain, turned = fit_cox(x, event, time), fit_cox(np.column_stack([x[:, :3], 1 - x[:, 3]]), event, time)
        assert turned.penalised == plain.penalised
        np.testing.assert_allclose(turned.coefficients, plain.coefficients * [1, 1, 1, -1], atol=1e-6)

    def test_a_covariate_that_is_the_time_itself_alone_is_penalised(self):
        rng = np.random.default_rng(2)
        time, other = rng.uniform(1, 100, 300), rng.normal(size=300)
        fitted = fit_cox(np.column_stack([other, -time]), rng.random(300) < 0.5, time)
        assert fitted.penalised == (1,)
        assert fitted.coefficients[1] > 0

    def test_what_varies_by_rounding_errors_or_before_the_first_event_is_constant(self):
        rng = np.random.default_rng(3)
        x = np.column_stack(
            [rng.normal(size=200), np.where(rng.random(200) < 0.5, 0.1 + 0.2, 0.3), np.arange(200) < 2]
        )
        event, time = np.arange(200) % 2 == 0, 1.0 + np.arange(200)
        event[:2] = False
        fitted = fit_cox(x, event, time)
        assert (fitted.constant, fitted.penalised) == ((1, 2), ())
        assert fitted.coefficients[0] == fit_cox(x[:, :1], event, time).coefficients[0]

    def test_one_carrier_without_an_event_is_tamed_and_the_rest_left_alone(self):
        rng = np.random.default_rng(1)
        x = np.column_stack([np.arange(500) == 7, rng.normal(size=500)]).astype(float)
        event = (rng.random(500) < 0.4) & (np.arange(500) != 7)
        time = rng.exponential(np.exp(-0.5 * x[:, 1]))
        fitted = fit_cox(x, event, time)
        assert fitted.penalised == (0,)
        assert abs(fitted.coefficients[0]) < 1
        alone = CoxPHSurvivalAnalysis(ties="efron").fit(x[:, 1:], Surv.from_arrays(event, time))
        assert fitted.coefficients[1] == pytest.approx(alone.coef_[0], abs=0.01)


class TestAblation:
    def test_table(self, run):
        table, differences = ablation(run, progress=False)
        assert list(table.columns) == COLUMNS
        assert not table.duplicated(["experiment", "split", "metric", "horizon_days"]).any()
        assert set(table["experiment"]) == set(finished(run))
        row = table.query("experiment == 'cox_ph' and split == 'external' and metric == 'c_index'").iloc[0]
        values = [
            concordance_index(part["event"], part["time"], part["risk"])
            for fold in range(2)
            for _, part in read_predictions(run, "cox_ph", fold).query("split == 'external'").groupby("split")
        ]
        assert row["mean"] == pytest.approx(np.mean(values), abs=1e-12)
        assert row["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert row["ci_low"] < row["mean"] < row["ci_high"]
        assert (row["n_folds"], row["n_patients"]) == (2, 60)
        difference = differences.query(
            "experiment == 'true_risk' and reference == 'cox_ph' and split == 'external' and metric == 'c_index'"
        )
        true = table.query("experiment == 'true_risk' and split == 'external' and metric == 'c_index'").iloc[0]
        assert difference["difference"].item() == pytest.approx(true["mean"] - row["mean"], abs=1e-12)

    def test_permuted_outcomes_are_worth_nothing(self, tmp_path):
        table = tabular(900)
        rng = np.random.default_rng(0)
        order = rng.permutation(len(table))
        table[["time_days", "event"]] = table[["time_days", "event"]].to_numpy()[order]
        table["split"] = [""] * 300 + ["external"] * 600
        run = prepare(write_cohort(tmp_path / "c", table, covariates=KINDS), tmp_path / "r", "tiny")
        for name in ("cox_ph", "deepsurv"):
            run_experiment(run, name, progress=False)
        found = ablation(run, progress=False)[0].query("metric == 'c_index' and split == 'external'")
        # the SD of C at 600 patients without signal is 0.017
        assert (found["mean"] - 0.5).abs().max() < 0.05

    def test_the_permuted_profile_deals_out_whole_outcomes(self, tmp_path):
        folder = write_cohort(tmp_path / "c", tabular(90), covariates=KINDS)
        plain = prepare(folder, tmp_path / "r", "tiny").cohort.table
        dealt = prepare(folder, tmp_path / "p", replace(load_profile("tiny"), permute_outcomes=True)).cohort.table
        others = [column for column in plain if column not in ("time", "event")]
        pd.testing.assert_frame_equal(dealt[others], plain[others])
        assert sorted(zip(dealt["time"], dealt["event"], strict=True)) == sorted(
            zip(plain["time"], plain["event"], strict=True)
        )
        assert (dealt["time"] != plain["time"]).mean() > 0.5  # many share the time at which follow-up ends

    def test_external_patients_are_weighted_by_their_own_censoring(self, tmp_path):
        """Those of another hospital, of whom most are lost early, score as if nobody were; the truth is Cox's."""
        rng = np.random.default_rng(4)
        n = 2400
        age, smoker = rng.normal(size=n), rng.integers(0, 2, n)
        true = rng.exponential(2500 * np.exp(-0.8 * age))
        external = np.arange(n) >= 1200
        follow_up = np.where(external & (rng.random(n) < 0.6), rng.uniform(100, 1900, n), rng.uniform(2200, 4000, n))
        table = pd.DataFrame(
            {
                "patient_id": [f"P{i}" for i in range(n)],
                "time_days": np.minimum(true, follow_up).round().clip(1),
                "event": (true <= follow_up).astype(int),
                "age": age,
                "smoker": smoker,
                "split": np.where(external, "external", ""),
            }
        )
        folder = write_cohort(tmp_path / "c", table, covariates=KINDS, horizons=[1826])
        run = prepare(folder, tmp_path / "r", "tiny")
        run_experiment(run, "cox_ph", progress=False)
        found = read_metrics(run, "cox_ph").query("metric == 'brier' and split == 'external'")["value"].mean()
        surv = read_predictions(run, "cox_ph", 0).query("split == 'external'")["survival_1826d"].to_numpy()
        uncensored = np.mean(((true[external] > 1826) - surv) ** 2)
        assert found == pytest.approx(uncensored, abs=0.01)  # by the training patients' censoring it is 0.07 off
        table = ablation(run, progress=False)[0].query("metric == 'brier' and split == 'external'")
        assert table["ci_low"].item() < found < table["ci_high"].item()


class TestInterruptedRefit:
    """A setting changed and changed back, with a kill between."""

    @pytest.fixture
    def folder(self, tmp_path):
        return write_cohort(tmp_path / "c", tabular(120), covariates=KINDS)

    def test_overwritten_weights_do_not_pass_as_finished(self, folder, tmp_path, monkeypatch):
        def opened(**changes):
            return prepare(folder, tmp_path / "r", replace(load_profile("tiny"), **changes))

        first, second = opened(), opened(validate_every=1)
        run_experiment(first, "deepsurv", progress=False)
        expected = risk_of(first, "deepsurv", 0)
        monkeypatch.setattr(experiments, "write_json", lambda *_: 1 / 0)  # dies with the weights written
        with pytest.raises(ZeroDivisionError):
            run_experiment(second, "deepsurv", progress=False)
        monkeypatch.undo()
        assert finished(first) == []
        run_experiment(first, "deepsurv", progress=False)
        np.testing.assert_array_equal(risk_of(first, "deepsurv", 0), expected)

    def test_weights_of_another_record_are_refused(self, folder, tmp_path):
        run = prepare(folder, tmp_path / "r", "tiny")
        run_experiment(run, "deepsurv", progress=False)
        place = run.folder("deepsurv", 0)
        record = read_json(place / "fit.json")
        write_json(place / "fit.json", record | {"best_epoch": record["best_epoch"] + 1})
        (place / "metrics.json").unlink()
        with pytest.raises(UserError, match=r"best.safetensors: not the weights of fit\.json; delete"):
            run_experiment(run, "deepsurv", progress=False)

    def test_a_fit_says_which_commit_made_it(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(experiments, "commit", lambda: "abc")
        run = prepare(folder, tmp_path / "r", "tiny")
        run_experiment(run, "deepsurv", progress=False)
        facts = provenance(run, ["deepsurv"])
        assert facts["fits_made_with"]["commit"] == ["abc"]
        # told alike in both places, or every report would warn
        assert facts["fits_made_with"]["torch"] == [facts["packages"]["torch"]]
        assert facts["fits_made_with"]["fracsurv"] == [facts["packages"]["fracsurv"]]


class TestOpening:
    def test_a_cohort_without_images_runs_the_tabular_rows(self, tmp_path):
        folder = write_cohort(tmp_path / "c", tabular(90), covariates=KINDS)
        run = prepare(folder, tmp_path / "r", "tiny")
        assert run.runnable() == ["cox_ph", "deepsurv"]
        run_experiment(run, "deepsurv", progress=False)
        assert finished(run) == ["deepsurv"]
        assert load_file(run.folder("deepsurv", 0) / "best.safetensors")["body.0.weight"].shape == (64, 2)

    def test_results_of_another_cohort_are_not_overwritten(self, tmp_path):
        folder = write_cohort(tmp_path / "c", tabular(90), covariates=KINDS)
        prepare(folder, tmp_path / "r", "tiny")
        write_cohort(folder, tabular(91), covariates=KINDS)
        with pytest.raises(UserError, match="made from another cohort, profile or seed"):
            prepare(folder, tmp_path / "r", "tiny")

    def test_results_of_another_profile_are_not_overwritten(self, tmp_path):
        folder = write_cohort(tmp_path / "c", tabular(90), covariates=KINDS)
        profile = load_profile("tiny")
        run_experiment(prepare(folder, tmp_path / "r", profile), "cox_ph", progress=False)
        other = replace(profile, name="longer", epochs={**profile.epochs, "deepsurv": 9})
        with pytest.raises(UserError, match="holds the results of profile tiny, not longer; give --profile tiny"):
            prepare(folder, tmp_path / "r", other)
        assert finished(prepare(folder, tmp_path / "r", replace(profile, bootstrap_draws=50))) == ["cox_ph"]

    def test_a_folder_belongs_to_the_profile_of_its_fits(self, tmp_path):
        folder = write_cohort(tmp_path / "c", tabular(90), covariates=KINDS)
        profile, out = load_profile("tiny"), tmp_path / "r"
        prepare(folder, out, replace(profile, name="longer"))  # looked into; nothing was fitted
        run = prepare(folder, out, profile)
        run_experiment(run, "cox_ph", progress=False)
        assert (out / "profile.txt").read_text() == "tiny\n"
        (out / "profile.txt").unlink()
        with pytest.raises(UserError, match=r"profile.txt, which names their profile, is missing; write it again"):
            prepare(folder, out, profile)
        (out / "profile.txt").write_text("tiny")
        with pytest.raises(UserError, match="holds the results of profile tiny, not longer"):
            prepare(folder, out, replace(profile, name="longer"))
        assert finished(prepare(folder, out, profile)) == ["cox_ph"]

    def test_a_folder_in_which_a_run_is_at_work_stays_its_profiles(self, tmp_path):
        """Before anything is fitted, too."""
        folder, out = write_cohort(tmp_path / "c", tabular(90), covariates=KINDS), tmp_path / "r"
        profile = load_profile("tiny")
        prepare(folder, out, profile)
        with locked(out / RUN_LOCK):
            with pytest.raises(UserError, match="profile tiny is being run there; wait for it, or choose another"):
                prepare(folder, out, replace(profile, name="longer"))
            assert prepare(folder, out, profile).profile == profile  # its own jobs
        prepare(folder, out, replace(profile, name="longer"))
        assert (out / "profile.txt").read_text() == "longer\n"

    def test_unknown_experiment(self, tiny_run):
        with pytest.raises(UserError, match="experiment 'cds': unknown; choose true_risk, cox_ph"):
            tiny_run.experiment("cds")

    def test_horizons_of_the_cohort(self, tmp_path):
        folder = write_cohort(tmp_path / "c", tabular(120), covariates=KINDS, horizons=[500, 900])
        assert read_cohort(folder).horizons == (500.0, 900.0)
        run = prepare(folder, tmp_path / "r", load_profile("tiny"))
        run_experiment(run, "cox_ph", progress=False)
        found = read_metrics(run, "cox_ph")
        assert set(found["horizon_days"].dropna()) == {500.0, 900.0}


class TestVertebralFractures:
    def test_the_row_is_cox_on_factors_and_block(self, tiny_run):
        for name in ("cox_ph", "cox_ph_vf"):
            run_experiment(tiny_run, name, progress=False)
        rows, table = tiny_run.rows(0), tiny_run.cohort.table
        values = standardise(tiny_run.cohort, rows["train"], morphometry=True)
        train = table.iloc[rows["train"]]
        cox = fit_cox(values[rows["train"]], train["event"].to_numpy(), train["time"].to_numpy())
        found = read_predictions(tiny_run, "cox_ph_vf", 0).set_index("patient_id")["risk"]
        np.testing.assert_allclose(found.loc[table["patient_id"]], cox.risk(values), atol=1e-9)
        coefficients = pd.read_csv(tiny_run.folder("cox_ph_vf", 0) / "coefficients.csv")
        assert coefficients["covariate"].tolist() == [*tiny_run.cohort.covariates, *VERTEBRAL]

    def test_what_it_adds_is_a_difference_with_an_interval(self, tiny_run):
        names = ["cox_ph", "cox_ph_vf"]
        for name in names:
            run_experiment(tiny_run, name, progress=False)
        table, differences = ablation(tiny_run, names, progress=False)
        at = (differences["experiment"] == "cox_ph_vf") & (differences["reference"] == "cox_ph")
        at &= (differences["split"] == "external") & (differences["metric"] == "c_index")
        (row,) = differences[at].to_dict("records")
        means = table[(table["split"] == "external") & (table["metric"] == "c_index")].set_index("experiment")["mean"]
        assert row["difference"] == pytest.approx(means["cox_ph_vf"] - means["cox_ph"])

    def test_other_keypoints_refit_it_and_what_sees_no_vertebra_is_left_alone(self, tiny_run):
        moved = tiny_run.cohort.vertebrae.assign(y4=tiny_run.cohort.vertebrae["y4"] + 1)
        other = replace(tiny_run, cohort=replace(tiny_run.cohort, vertebrae=moved))
        assert other.key("cox_ph_vf", 0, None) != tiny_run.key("cox_ph_vf", 0, None)
        assert other.key("cox_ph", 0, None) == tiny_run.key("cox_ph", 0, None)
