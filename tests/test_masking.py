"""Patients without a radiograph stay in the cohort: no network sees a blank, and they get the mean of the others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.summary import missing_summary, summary_table
from fracsurv.config import load_profile
from fracsurv.images.plausibility import implausible_radiographs
from fracsurv.losses import cox_nll
from fracsurv.metrics import concordance_index
from fracsurv.models import MaskedEncoder, build_model, update_mean_features
from fracsurv.predict.predict import predict_cohort, read_models
from fracsurv.predict.shift import missing_value_warnings, shift_warnings
from fracsurv.predict.validate import validate_experiment
from fracsurv.report.cards import write_cards
from fracsurv.study.ablation import read_ablation
from fracsurv.study.experiments import (
    fit_fold,
    make_network,
    recipe_of,
    run_experiment,
)
from fracsurv.study.explain import explain
from fracsurv.study.labels import masked_summary
from fracsurv.study.model_bundle import read_bundle
from fracsurv.study.prepare import prepare
from fracsurv.study.results import read_predictions, risk_of
from fracsurv.study.run import Run
from fracsurv.study.subgroups import all_groups
from fracsurv.training.loop import Patients, Recipe, Training, predict, train_batches
from fracsurv.training.monitor import Stopwatch
from fracsurv.utils.errors import UserError
from tests.killing import killed_in
from tests.made_up import execute, texts_of

CPU = torch.device("cpu")
NAMES = ["cds_crops", "cds_full_if", "vit_crops_if", "cds_crops_lf", "cds_crops_alpha", "cds_crops_alpha_tab"]
"""Every kind of network; cox_ph and deepsurv come with them."""


def masked(source: Path, folder: Path, gone: list[int], setting: str = "mask") -> Path:
    """A copy of a cohort in which these rows have no radiograph, nor boxes."""
    shutil.copytree(source, folder)
    table = pd.read_csv(source / "cohort.csv")
    patients = table["patient_id"].iloc[gone]
    table.loc[gone, "image"] = np.nan
    table.to_csv(folder / "cohort.csv", index=False)
    boxes = pd.read_csv(source / "vertebrae.csv")
    boxes[~boxes["patient_id"].isin(patients)].to_csv(folder / "vertebrae.csv", index=False)
    with open(folder / "cohort.yaml", "a", encoding="utf-8") as file:
        file.write(f"missing_images: {setting}\n")
    return folder


def every_fourth(source: Path) -> list[int]:
    return list(range(1, len(pd.read_csv(source / "cohort.csv")), 4))


@pytest.fixture(scope="module")
def folder(simulated, tmp_path_factory) -> Path:
    return masked(simulated, tmp_path_factory.mktemp("masked") / "cohort", every_fourth(simulated))


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory) -> Run:
    """A finished run of every kind of network in a cohort in which every fourth patient has no radiograph."""
    made = prepare(
        folder, tmp_path_factory.mktemp("masked run") / "out", load_profile("tiny"), kinds=["crops", "full"]
    )
    for name in ("cox_ph", *NAMES):
        run_experiment(made, name, progress=False)
    return made


def faults_of(folder: Path, **how: bool) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_cohort(folder, **how)
    return caught.value.faults


class TestReading:
    def test_they_stay_and_are_counted(self, simulated, folder):
        whole, found = read_cohort(simulated), read_cohort(folder)
        gone = every_fourth(simulated)
        assert found.table["patient_id"].tolist() == whole.table["patient_id"].tolist()
        assert np.flatnonzero(~found.has_image).tolist() == gone
        assert set(found.table["image"].iloc[gone]) == {""}
        assert (found.masks, found.has_images, found.n_excluded) == (True, True, 0)
        assert whole.has_image.all()
        assert missing_summary(found).startswith(f"No radiograph: {len(gone)} of {len(whole)} patients")
        assert summary_table(found).iloc[:, 0]["With a radiograph"].startswith(f"{len(whole) - len(gone)} (")
        assert "With a radiograph" not in summary_table(whole).index
        assert found.with_image().table["patient_id"].tolist() == whole.table["patient_id"].drop(gone).tolist()

    @pytest.mark.parametrize(("n_gone", "refused"), [(75, False), (76, True)])
    def test_at_least_half_must_have_one(self, simulated, tmp_path, n_gone, refused):
        table = pd.read_csv(simulated / "cohort.csv")
        assert len(table) == 150
        gone = table.index[table["split"] == "external"].tolist() + table.index[table["split"] != "external"].tolist()
        there = masked(simulated, tmp_path / "c", gone[:n_gone])
        if not refused:
            assert read_cohort(there).has_image.sum() == 75
            return
        assert faults_of(there) == [
            "cohort.csv, column image: filled for 74 of 150 patients; with `missing_images: mask` at least half must "
            "have a radiograph; set it to exclude, and the others are left out"
        ]
        assert read_cohort(there, outcome=False).has_image.sum() == 74  # nothing is learnt from them

    def test_at_least_half_of_those_to_train_on(self, simulated, tmp_path):
        table = pd.read_csv(simulated / "cohort.csv")
        trained = table.index[table["split"] != "external"]
        (fault,) = faults_of(masked(simulated, tmp_path / "c", trained[:46].tolist()))
        assert f"filled for {len(trained) - 46} of {len(trained)} patients to train on" in fault

    def test_nobody_with_one(self, simulated, tmp_path):
        there = masked(simulated, tmp_path / "c", list(range(150)))
        (there / "vertebrae.csv").unlink()
        for outcome in (True, False):
            wanted = ["cohort.csv, column image: empty for every patient; leave the column out"]
            assert faults_of(there, outcome=outcome) == wanted

    @pytest.mark.parametrize("file", ["vertebrae.csv", "vertebrae_corrections.csv"])
    def test_boxes_without_a_radiograph(self, simulated, folder, tmp_path, file):
        there = tmp_path / "c"
        shutil.copytree(folder, there)
        patient = read_cohort(folder).table["patient_id"].iloc[every_fourth(simulated)[0]]
        boxes = pd.read_csv(simulated / "vertebrae.csv")
        boxes[boxes["patient_id"] == patient].to_csv(there / file, index=False)
        (fault,) = faults_of(there)
        assert fault.startswith(f"{file} rows 2 to ")
        assert fault.endswith(
            f"column patient_id: {patient!r}; has no radiograph for a box to lie on: give the image, or "
            "take the row out"
        )

    def test_check_says_it(self, folder):
        result = CliRunner().invoke(app, ["check", str(folder)])
        assert result.exit_code == 0, result.output
        assert "no faults; simulated; radiographs: 112 of 150 patients; vertebra boxes" in result.output
        assert "No radiograph: 38 of 150 patients" in result.output

    def test_odd_radiographs_are_told_with_their_own_rows(self, folder, tmp_path):
        there = tmp_path / "c"
        shutil.copytree(folder, there)
        table = pd.read_csv(there / "cohort.csv", keep_default_na=False)
        shutil.copy(there / table["image"][2], there / table["image"][6])
        shutil.copy(there / table["image"][2], there / table["image"][8])
        (line,) = [line for line in implausible_radiographs(read_cohort(there)) if "the same pixels" in line]
        assert line.startswith("column image, rows 4, 8, 10:")

    def test_a_complete_cohort_that_would_mask_is_read_as_another(self, simulated, tmp_path):
        would, never = read_cohort(masked(simulated, tmp_path / "c", [])), read_cohort(simulated)
        assert would.masks
        assert would.fingerprint() == never.fingerprint()
        assert missing_summary(would) == ""


def network(**how: object) -> nn.Module:
    torch.manual_seed(1)
    given = {"fusion": "none", "input": "crops", "encoder": "resnet18", "n_covariates": 3, "image_size": 64}
    return build_model(**given | how)


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 13, 64, 64, generator=torch.Generator().manual_seed(seed))


class TestEncoder:
    def test_it_is_shown_the_pictures_that_there_are(self):
        model = network(masks=True)
        shown = []
        model.encoder.encoder.register_forward_pre_hook(lambda _, given: shown.append(given[0]))
        images, has_image = pictures(3), torch.tensor([False, True, True, False, True])
        for mode in (True, False):
            model.train(mode)
            assert model(torch.zeros(5, 3), images, has_image).shape == (5,)
        assert [torch.equal(each, images) for each in shown] == [True, True]

    def test_in_training_the_others_get_the_mean_of_the_batch(self):
        encoder, plain = network(masks=True).encoder.train(), network().encoder.train()
        has_image = torch.tensor([False, True, True, False, True])
        found, wanted = encoder(pictures(3), has_image), plain(pictures(3))
        assert torch.equal(found[has_image], wanted)
        for row in (0, 3):
            torch.testing.assert_close(found[row], wanted.mean(dim=0))
        assert not encoder.mean.any()

    @pytest.mark.parametrize("batch_size", [4, 128])
    def test_in_evaluation_that_of_the_training_patients_as_evaluation_sees_them(self, batch_size):
        model, has_image = network(masks=True), np.arange(20) % 3 > 0
        model.train()
        for seed in range(3):
            model.encoder(pictures(6, seed), torch.ones(6, dtype=bool))  # so that batch norm differs from training's
        model.eval()
        images, train = pictures(20), np.r_[np.arange(2, 9), 0, 15]
        update_mean_features(
            model, lambda rows, _: (None, images[rows[has_image[rows]]], None), train, batch_size=batch_size
        )
        features = model.encoder.encoder(images[train[has_image[train]]]).double()
        torch.testing.assert_close(model.encoder.mean, features.mean(dim=0).float())
        assert model.encoder.mean.dtype == torch.float32
        there = torch.tensor([False, True, False])
        found = model.encoder(images[:1], there)
        torch.testing.assert_close(found[[0, 2]], features.mean(dim=0).float().expand(2, -1))
        torch.testing.assert_close(found[1:2], model.encoder.encoder(images[:1]))
        none = model.encoder(images[:0], torch.zeros(2, dtype=bool))
        assert torch.equal(none, found[[0, 2]])

    def test_a_frozen_part_keeps_the_mean_that_it_came_with(self):
        model = network(fusion="late", masks=True)
        update_mean_features(model, lambda *_: pytest.fail("its pictures are not looked at"), np.arange(5))
        assert not next(value for name, value in model.named_buffers() if name.endswith("encoder.mean")).any()

    def test_nobody_s_features_depend_on_who_else_is_judged(self):
        encoder = network(masks=True).encoder.eval()
        encoder.mean.normal_()
        few = encoder(pictures(1), torch.tensor([False, True]))
        many = encoder(torch.cat([pictures(1), pictures(6, 9)]), torch.tensor([False, *[True] * 7, False]))
        assert torch.equal(few[0], many[0])
        torch.testing.assert_close(few[1], many[1])

    def test_no_gradient_goes_through_the_mean(self):
        """The encoder learns from those who have a picture: of their rows alone is its gradient."""
        event, time = torch.tensor([True, False, True, True]), torch.tensor([1.0, 2.0, 3.0, 4.0])
        has_image, images = torch.tensor([True, True, False, True]), pictures(3)
        model, plain = network(masks=True), network()
        cox_nll(event, time, model(None, images, has_image)).backward()
        features = plain.encoder(images)
        filled = torch.stack([features[0], features[1], features.mean(dim=0).detach(), features[2]])
        cox_nll(event, time, plain.head(filled).squeeze(1)).backward()
        theirs = dict(plain.named_parameters())
        for name, mine in model.named_parameters():
            torch.testing.assert_close(mine.grad, theirs[name.replace("encoder.encoder.", "encoder.")].grad)

    @pytest.mark.parametrize("n_pictured", [0, 1])
    @pytest.mark.parametrize("fusion", ["none", "intermediate", "alpha"])
    def test_a_training_batch_with_less_than_two_pictures(self, fusion, n_pictured):
        model = network(fusion=fusion, masks=True, alpha=0.5)
        tabular, has_image = torch.randn(4, 3), torch.arange(4) < n_pictured
        model.train()
        model(tabular, pictures(4), torch.ones(4, dtype=bool))
        before = {name: value.clone() for name, value in model.state_dict().items() if "encoder" in name}
        risk = model(tabular, pictures(n_pictured), has_image)
        cox_nll(torch.tensor([True] * 4), torch.arange(1.0, 5.0), risk).backward()
        assert torch.isfinite(risk).all()
        assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
        if fusion == "none":
            assert risk.unique().numel() == 1

    def test_it_takes_bfloat16_and_gives_float32(self):
        encoder = network(masks=True).encoder
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = encoder(pictures(3), torch.tensor([True, False, True, True]))
        assert found.dtype == encoder.mean.dtype == torch.float32
        torch.testing.assert_close(found[1], found[[0, 2, 3]].mean(dim=0))

    @pytest.mark.parametrize("fusion", ["none", "intermediate", "late", "alpha"])
    def test_networks_of_other_cohorts_have_the_names_that_they_had(self, fusion):
        """And, from the same seed, the same weights."""
        plain, model = (network(fusion=fusion, alpha=0.5, masks=masks).state_dict() for masks in (False, True))
        assert not [name for name in plain if "encoder.encoder." in name or name.endswith(".mean")]
        (added,) = [name for name in model if name.endswith(("encoder.mean", "image.mean"))]
        kept = [value for name, value in model.items() if name != added]
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(kept, plain.values(), strict=True))


class TestTraining:
    def test_batch_norm_s_statistics_are_those_of_the_pictured_alone(self, run):
        """Weights kept (a rate of 0), an epoch leaves the same statistics, bit for bit, as one without the others."""
        experiment = run.experiment("cds_crops")
        network = make_network(run, experiment, 0, None, seed=3)
        model, inputs, rows = network.model, network.inputs, run.rows(0)["train"]
        parts = [rows[start : start + 16] for start in range(0, len(rows), 16)]
        patients = Patients(*(run.cohort.table[name].to_numpy() for name in ("event", "time")), rows, rows[:0])
        optimiser = torch.optim.SGD(model.parameters(), lr=0.0)
        training = Training(network, patients, optimiser, Recipe(0.0, "none", 1, 16, seed=0), Stopwatch(CPU))
        train_batches(training, parts, torch.Generator().manual_seed(6))
        plain = make_network(replace(run, cohort=replace(run.cohort, masks=False)), experiment, 0, None, seed=3).model
        plain.train()
        generator = torch.Generator().manual_seed(6)
        for part in parts:
            plain(None, inputs.images(part[run.cohort.has_image[part]], generator))
        found = model.state_dict()
        for name, value in plain.state_dict().items():
            assert torch.equal(found[name.replace("encoder.", "encoder.encoder.", 1)], value), name

    @pytest.mark.parametrize("name", NAMES)
    def test_no_network_ever_sees_a_blank(self, run, name, monkeypatch):
        if name == "cds_crops_lf":
            pytest.skip("is fed with two columns of numbers")
        alpha = 0.3 if "alpha" in name else None
        network = make_network(run, run.experiment(name), 0, alpha, seed=3)
        model = network.model
        (encoder,) = [layer for layer in model.modules() if isinstance(layer, MaskedEncoder)]
        seen = []
        encoder.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(1).any(dim=1)))
        predict(network, np.arange(len(run.cohort)))
        model.train()
        model(*network.inputs(np.arange(20), torch.Generator().manual_seed(1)))
        assert torch.cat(seen).all()
        assert len(torch.cat(seen)) == run.cohort.has_image.sum() + run.cohort.has_image[:20].sum()

    @pytest.mark.parametrize("name", ["cds_crops", "cds_crops_alpha"])
    def test_resumed_bit_for_bit(self, run, folder, tmp_path, monkeypatch, name):
        alpha = 0.3 if "alpha" in name else None
        other = prepare(folder, tmp_path, "tiny", kinds=["crops"])
        killed_in(monkeypatch, 1, fit_fold, other, name, 0, alpha, progress=False)
        fit_fold(other, name, 0, alpha, progress=False)
        for file in ("best.safetensors", "last.safetensors", "history.csv"):
            theirs = run.folder(name, 0, alpha) / file
            assert (other.folder(name, 0, alpha) / file).read_bytes() == theirs.read_bytes()

    def test_nothing_is_compiled(self, run, monkeypatch):
        monkeypatch.setattr(Run, "device", property(lambda _: torch.device("cuda")))
        always = replace(run, profile=replace(run.profile, compile="always"))
        experiment = run.experiment("cds_crops")
        assert not recipe_of(always, experiment, 0).compiled
        assert recipe_of(replace(always, cohort=replace(run.cohort, masks=False)), experiment, 0).compiled


class TestRun:
    def test_from_the_image_alone_they_get_the_mean_log_hazard_of_training_patients_with_a_picture(self, run):
        has_image = run.cohort.has_image
        for fold in range(run.profile.n_folds):
            risk, train = risk_of(run, "cds_crops", fold), run.rows(fold)["train"]
            wanted = risk[train[has_image[train]]].mean()
            np.testing.assert_allclose(risk[~has_image], wanted, rtol=0, atol=1e-5)
            assert np.unique(risk[has_image]).size == has_image.sum()

    def test_late_and_alpha_fusion_add_that_to_the_clinical_risk(self, run):
        gone = ~run.cohort.has_image
        for fold in range(run.profile.n_folds):
            clinical, image = risk_of(run, "deepsurv", fold)[gone], risk_of(run, "cds_crops", fold)[gone]
            weights = load_file(run.folder("cds_crops_lf", fold) / "best.safetensors")
            w, b = weights["head.weight"][0].numpy(), weights["head.bias"][0].item()
            np.testing.assert_allclose(
                risk_of(run, "cds_crops_lf", fold)[gone], w[0] * clinical + w[1] * image + b, atol=1e-5
            )
            alpha = json.loads((run.folder("cds_crops_alpha_tab", fold) / "fit.json").read_text())["alpha"]
            rest = risk_of(run, "cds_crops_alpha_tab", fold)[gone] - alpha * clinical
            np.testing.assert_allclose(rest, rest[0], atol=1e-5)

    def test_nothing_of_those_judged_moves_anybody(self, run, folder, tmp_path):
        """What was learnt, and a masked patient's risk, is the same whatever image those who are judged have."""
        there = tmp_path / "c"
        shutil.copytree(folder, there)
        judged = np.r_[run.rows(0)["test"], run.rows(0)["external"]]
        table = pd.read_csv(folder / "cohort.csv", keep_default_na=False)
        images = table["image"].iloc[judged][run.cohort.has_image[judged]]
        turned = dict(zip(images, images[::-1], strict=True))
        for image, other in turned.items():
            shutil.copy(folder / other, there / image)
        table["split"] = np.where(run.splits["split"] == "train", "train", run.splits["split"])
        table.to_csv(there / "cohort.csv", index=False)
        other = prepare(there, tmp_path / "out", "tiny", kinds=["crops"])
        fit_fold(other, "cds_crops", 0, progress=False)
        mine, theirs = (load_file(each.folder("cds_crops", 0) / "best.safetensors") for each in (run, other))
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        gone = ~run.cohort.has_image
        np.testing.assert_array_equal(risk_of(other, "cds_crops", 0)[gone], risk_of(run, "cds_crops", 0)[gone])

    def test_its_fits_are_not_taken_for_those_of_a_cohort_that_never_masks(self, run):
        never = replace(run, cohort=replace(run.cohort, masks=False))
        for name in ("cox_ph", "deepsurv"):
            assert run.key(name, 0, None) == never.key(name, 0, None)
        for name in NAMES:
            assert run.key(name, 0, None) != never.key(name, 0, None)

    def test_explanations_are_of_those_who_have_one(self, run):
        has_image = set(run.cohort.table["patient_id"][run.cohort.has_image])
        for name in ("cds_crops", "cds_full_if", "vit_crops_if", "cds_crops_alpha"):
            found = explain(run, name, "external", 10)
            assert len(found.patients) == 10
            assert set(found.patients) <= has_image
            assert np.isfinite(found.contributions).any(axis=2).all()

    def test_the_report_counts_them(self, run, folder, monkeypatch):
        explain(run, "cds_crops_alpha", "external", 4)
        page = " ".join(texts_of(execute("05_ablation_tables", folder, run.out, monkeypatch)))
        write_cards(run, read_ablation(run)[0])
        table = run.cohort.table.assign(split=run.splits["split"], gone=~run.cohort.has_image)
        parts = [
            f"{split} {rows['gone'].sum()} of {len(rows)}"
            for split in ("train", "test", "external")
            for rows in [table[table["split"] == split]]
        ]
        said = f"Without a radiograph: {'; '.join(parts)}."
        assert masked_summary(run).startswith(said)
        assert said in page
        assert missing_summary(run.cohort) in page
        for name in ("tripod_ai", "cds_crops_alpha"):
            assert said in (run.out / "pages" / f"{name}.html").read_text(encoding="utf-8")
        assert "Radiograph: yes" in (run.out / "tables" / "groups.csv").read_text(encoding="utf-8")
        groups = dict(all_groups(run, "external"))
        assert groups["Radiograph: no"].sum() == table.loc[table["split"] == "external", "gone"].sum()
        assert (groups["Radiograph: no"] ^ groups["Radiograph: yes"]).all()


class TestApplied:
    @pytest.mark.parametrize("name", NAMES)
    def test_the_runs_own_patients_get_the_runs_own_predictions(self, run, folder, tmp_path, name):
        cohort = read_cohort(folder, outcome=False)
        found = predict_cohort(read_models(run.out, name), cohort, tmp_path, progress=False)
        folds = [
            read_predictions(run, name, fold).set_index("patient_id").loc[found["patient_id"]] for fold in (0, 1)
        ]
        centred = [fold["risk"] - fold.loc[fold["split"] == "train", "risk"].mean() for fold in folds]
        np.testing.assert_allclose(found["risk"], np.mean(centred, axis=0), rtol=0, atol=1e-12)
        n = int((~cohort.has_image).sum())
        told = shift_warnings(read_models(run.out, name), cohort, tmp_path, named_rows=False)
        assert any(line.startswith(f"column image: no radiograph in {n} of 150 patients") for line in told)

    def test_one_alone_without_a_radiograph(self, run, folder, tmp_path):
        cohort = read_cohort(folder, outcome=False)
        row = int(np.flatnonzero(~cohort.has_image)[0])
        every = predict_cohort(read_models(run.out, "cds_crops_alpha"), cohort, tmp_path / "a", progress=False)
        one = predict_cohort(
            read_models(run.out, "cds_crops_alpha"), cohort.of_rows(np.array([row])), tmp_path / "b", progress=False
        )
        np.testing.assert_allclose(one["risk"], every["risk"][row], rtol=1e-6, atol=1e-6)

    def test_by_models_that_never_met_such_patients_they_are_refused(self, run, folder, tmp_path):
        out = tmp_path / "out"
        for fold in (0, 1):
            source = run.folder("cds_crops", fold)
            target = out / "experiments" / "cds_crops" / source.name
            shutil.copytree(source, target)
            record = json.loads((target / "model.json").read_text())
            assert record.pop("masked")
            (target / "model.json").write_text(json.dumps(record))
        with pytest.raises(UserError) as caught:
            predict_cohort(
                read_models(out, "cds_crops"), read_cohort(folder, outcome=False), tmp_path / "w", progress=False
            )
        assert caught.value.faults == [
            "image: no radiograph in 38 of 150 patients; the model's training masked nobody. Leave them out "
            "(`missing_images: exclude`), or fit the run anew on a cohort with `missing_images: mask`"
        ]

    def test_predict_writes_everybody_and_says_who_has_none(self, run, folder, tmp_path):
        arguments = ["predict", run.out, folder, "--out", tmp_path, "--experiment", "cds_crops_alpha_tab"]
        result = CliRunner().invoke(app, list(map(str, arguments)))
        assert result.exit_code == 0, result.output
        kept = (tmp_path / "warnings.txt").read_text(encoding="utf-8").splitlines()
        assert any(line.startswith("column image: no radiograph in 38 of 150 patients") for line in kept)
        cohort = read_cohort(folder, outcome=False)
        known = read_bundle(run.folder("cds_crops_alpha_tab", 0)).caveats
        assert kept == known + shift_warnings(
            read_models(run.out, "cds_crops_alpha_tab"), cohort, tmp_path / "prepared", named_rows=False
        )
        told = shift_warnings(
            read_models(run.out, "cds_crops_alpha_tab"), cohort, tmp_path / "prepared", named_rows=True
        )
        assert len(known + told) == len(kept)
        assert all(f"warning: {line}" in result.output for line in told)
        written = pd.read_csv(tmp_path / "predictions.csv")
        assert written["patient_id"].tolist() == run.cohort.table["patient_id"].tolist()
        assert written["risk"].notna().all()

    def test_who_was_left_out_of_the_predictions_is_counted(self, run, folder, tmp_path):
        other = tmp_path / "cohort"
        shutil.copytree(folder, other)
        settings = (other / "cohort.yaml").read_text(encoding="utf-8")
        settings = settings.replace("missing_images: mask", "missing_images: exclude\nmissing_covariates: impute")
        (other / "cohort.yaml").write_text(settings, encoding="utf-8")
        table = pd.read_csv(other / "cohort.csv")
        with_picture = np.flatnonzero(table["image"].notna())[:2]
        table.loc[with_picture, "bmi"] = np.nan
        table.to_csv(other / "cohort.csv", index=False)
        cohort = read_cohort(other, outcome=False)
        assert missing_value_warnings(read_models(run.out, "cds_full_if"), cohort) == [
            "column image: left out, without a radiograph: 38 of 150 patients (`missing_images: exclude`)",
            "column bmi: missing in 2 of 112 patients; in its place the models take the median of their training "
            "patients (binary: the most frequent value)",
        ]
        told = shift_warnings(read_models(run.out, "cds_full_if"), cohort, tmp_path / "w", named_rows=False)
        assert set(missing_value_warnings(read_models(run.out, "cds_full_if"), cohort)) < set(told)
        assert len(missing_value_warnings(read_models(run.out, "cds_crops"), cohort)) == 1  # which takes no covariate
        assert missing_value_warnings(read_models(run.out, "cds_full_if"), read_cohort(folder, outcome=False)) == []

    def test_any_share_of_those_judged_may_have_no_radiograph(self, folder, tmp_path):
        table = pd.read_csv(folder / "cohort.csv")
        there = np.flatnonzero(table["image"].notna())
        few = masked(folder, tmp_path / "few", list(there[3:]), setting="mask")
        settings = (few / "cohort.yaml").read_text(encoding="utf-8").replace("missing_images: mask\n", "", 1)
        (few / "cohort.yaml").write_text(settings, encoding="utf-8")
        with pytest.raises(UserError, match="at least half must have a radiograph"):
            read_cohort(few)
        assert read_cohort(few, learnt=False).has_image.sum() == 3

    def test_validation_judges_everybody(self, run, folder, tmp_path):
        cohort = read_cohort(folder)
        how = {"n_draws": 50, "seed": 0, "progress": False}
        found = validate_experiment(read_models(run.out, "cds_crops"), cohort, tmp_path, **how).table
        risk = predict_cohort(read_models(run.out, "cds_crops"), cohort, tmp_path, progress=False)["risk"]
        wanted = concordance_index(cohort.table["event"], cohort.table["time"], risk)
        row = found.query("model == 'ensemble' and metric == 'c_index'").iloc[0]
        assert row["n"] == 150
        assert row["value"] == pytest.approx(wanted, abs=1e-12)


def test_the_notebook_of_crops_looks_at_those_who_have_a_radiograph(run, folder, monkeypatch):
    shown = execute("02_crop_extraction", folder, run.out, monkeypatch)
    texts = texts_of(shown)
    assert any("boxes of 112 patients" in text for text in texts)
    assert any(f"of {13 * 112:,} slots" in text for text in texts)
