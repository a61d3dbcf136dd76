"""Several processes that train one model do what one process does on the same batches."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from fracsurv.config import CONFIGS
from fracsurv.models import build, settle
from fracsurv.study.experiments import fit_fold
from fracsurv.study.prepare import prepare
from fracsurv.training import loop as training
from fracsurv.training.augment import augment_full
from fracsurv.training.crop_augment import augment_crops
from fracsurv.training.loop import Recipe, fit
from fracsurv.training.parallel import Team
from fracsurv.training.sampler import RiskBank, Share
from fracsurv.training.steps import Steps
from fracsurv.training.stopwatch import Stopwatch
from fracsurv.training.synchronised import SynchronisedBatchNorm, SynchronisedDropout, synchronise
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import read_json
from tests.conftest import tabular, write_cohort
from tests.killing import killed_in
from tests.ranks import on_ranks

CPU = torch.device("cpu")
KINDS = {"age": "continuous", "smoker": "binary"}
N = 40


class Net(nn.Module):
    """Convolution, both batch normalisations and dropout, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.joint = nn.Sequential(nn.Linear(27, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.double()

    def forward(self, factors: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return self.joint(torch.cat([factors, self.image(image).flatten(1)], 1)).squeeze(1)


class Inputs:
    """Noise that a generator draws is added to the images, each patient's own."""

    def __init__(self, dtype: torch.dtype, channels: int, side: int) -> None:
        drawn = torch.Generator().manual_seed(0)
        self.factors = torch.randn(N, 3, generator=drawn, dtype=dtype)
        self.image = torch.randn(N, channels, side, side, generator=drawn, dtype=dtype)

    def __call__(self, rows, generator, mine=slice(None)):
        images = self.image[rows]
        if generator is not None:
            images = images + 0.1 * torch.randn(images.shape, generator=generator, dtype=images.dtype)
        return self.factors[rows][mine], images[mine]


class MaskedInputs(Inputs):
    """Some without a picture, and nobody with one from row 18 to 26; as `NetworkInputs` gives them."""

    has_image = (np.arange(N) % 3 > 0) & ((np.arange(N) < 18) | (np.arange(N) > 26))

    def __call__(self, rows, generator, mine=slice(None)):
        there = self.has_image[rows]
        share = np.arange(len(rows))[mine]
        factors, _ = super().__call__(rows, None, mine)
        _, images = super().__call__(rows[there], generator, np.flatnonzero(np.isin(np.flatnonzero(there), share)))
        return factors, images, torch.from_numpy(there)


def outcome() -> tuple[torch.Tensor, torch.Tensor]:
    """Many tied times; none of the last twenty has an event."""
    rng = np.random.default_rng(1)
    event = rng.random(N) < 0.6
    event[20:] = False
    return torch.tensor(event), torch.tensor(rng.integers(1, 8, N).astype(float))


BATCHES = {
    "even": [np.arange(10, 26)],
    "uneven": [np.arange(11)],
    "no event in the second half": [np.r_[np.arange(6), np.arange(30, 36)]],
    "no event at all": [np.arange(25, 33)],
    "fewer rows than three processes": [np.array([3, 8])],
    "several, with a bank": [np.arange(0, 13), np.arange(13, 24), np.array([1, 30, 5])],
}


def steps_of(team: Team, rows: list[np.ndarray], model: nn.Module, inputs: Inputs) -> dict[str, torch.Tensor]:
    """Loss, log hazards, gradients and weights after an epoch of these batches."""
    model = copy.deepcopy(model)
    if not team.is_alone:
        synchronise(model, team)
        team.give_weights(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    torch.manual_seed(5)
    steps = Steps(model, model, inputs, *outcome(), optimiser, torch.float32, Stopwatch(CPU), "efron", team)
    losses, risks = steps.epoch(rows, torch.Generator().manual_seed(6), RiskBank(1) if len(rows) > 1 else None)
    gradients = {f"gradient of {name}": value.grad for name, value in model.named_parameters()}
    return {"losses": torch.stack(losses), "risks": torch.cat(risks), **gradients, **model.state_dict()}


def every_case(team: Team, folder: Path) -> dict:
    """Everything that is looked at below, in one go: processes take seconds to begin."""
    torch.manual_seed(3)
    net, found = Net(), {}
    for name, rows in BATCHES.items():
        found[name] = steps_of(team, rows, net, Inputs(torch.float64, 2, 9))
    own = {"fusion": "intermediate", "n_covariates": 3, "image_size": 32}
    for encoder in ("resnet18", "vit_tiny"):
        for dtype in (torch.float64, torch.float32):
            torch.manual_seed(4)
            network = build(input="crops", encoder=encoder, **own).to(dtype)
            # a second step in float32 differs by whatever the rounding of the first tips over
            rows = [np.arange(15), np.arange(12, 19)] if dtype == torch.float64 else [np.arange(15)]
            found[f"{encoder}, {dtype}"] = steps_of(team, rows, network, Inputs(dtype, 13, 32))
    torch.manual_seed(4)
    network, some = (
        build(input="crops", encoder="resnet18", masks=True, **own).double(),
        MaskedInputs(torch.float64, 13, 32),
    )
    # a batch without any picture, one with a single one, a share without any
    rows = [np.arange(12), np.arange(18, 24), np.arange(21, 29), np.r_[18:27, 28, 29, 31, 32, 34, 35, 37]]
    found["masked"] = steps_of(team, rows, network, some)
    settle(network, some, np.arange(5, 31), team=team, batch_size=4)
    found["mean features"] = network.image.mean
    found["whole"] = whole_fit(team, folder / "whole")
    return found


def whole_fit(team: Team, folder: Path, told=None):
    """A fit from the first process's weights, in which no other process may write."""
    torch.manual_seed(7 + team.rank)
    net = Net()
    event, days = (values.numpy() for values in outcome())
    recipe = Recipe(lr=0.01, scheduler="none", epochs=6, batch_size=9, seed=2, validate_every=1)
    train, validation = np.arange(0, N, 2)[:19], np.arange(1, N, 2)
    with pytest.MonkeyPatch.context() as patch:
        for writer in () if team.leads else ("save_state", "save_weights", "remove_leftovers", "_write"):
            patch.setattr(training, writer, lambda *_: pytest.fail("written by another than the first process"))
        return fit(
            net, net, Inputs(torch.float64, 2, 9), event, days, train, validation, folder, recipe,
            key="k", progress=False, team=team, told=told,
        ).history  # fmt: skip


def killed(team: Team, folder: Path) -> None:
    """A fit that dies in its fourth epoch, in every process."""
    with pytest.MonkeyPatch.context() as patch:
        killed_in(patch, 3, whole_fit, team, folder)
    assert (folder / "resume.safetensors").exists()


def killed_and_resumed(team: Team, folder: Path):
    killed(team, folder)
    return whole_fit(team, folder)


class AfterAnother(Team):
    """The second of two processes, of which the first has found three epochs done in its folder."""

    def leaders(self, value):
        return 3

    def give_weights(self, model):
        pass


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By number of processes: what each of them found, and the folder."""
    folders = {size: tmp_path_factory.mktemp(f"ranks{size}") for size in (1, 2, 3)}
    return {size: (on_ranks(size, every_case, folder), folder) for size, folder in folders.items()}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("case", BATCHES)
def test_loss_gradients_and_step_are_those_of_one_process(found, case, size):
    (alone,), _ = found[1]
    assert case.startswith("no event at all") or float(alone[case]["losses"].abs().max()) > 0.1
    for rank in found[size][0]:
        assert rank[case].keys() == alone[case].keys()
        for name, value in alone[case].items():
            torch.testing.assert_close(rank[case][name], value, rtol=1e-9, atol=1e-12, msg=f"{case}: {name}")


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("encoder", ["resnet18", "vit_tiny"])
def test_the_packages_networks_have_the_same_gradients(found, encoder, size):
    """What remains is rounding: gone in float64, in float32 what sums in another order come to."""
    (alone,), _ = found[1]
    for dtype, within in ((torch.float64, 1e-9), (torch.float32, 5e-5)):
        case = f"{encoder}, {dtype}"
        for rank in found[size][0]:
            for name, value in alone[case].items():
                largest = float(value.abs().max())
                apart = float((rank[case][name] - value).abs().max())
                assert apart <= within * largest + 0.01 * within, f"{case}: {name}"


@pytest.mark.parametrize("size", [2, 3])
def test_so_have_those_in_which_some_have_no_picture(found, size):
    (alone,), _ = found[1]
    assert alone["mean features"].any()
    for rank in found[size][0]:
        torch.testing.assert_close(rank["mean features"], alone["mean features"], rtol=1e-9, atol=1e-12)
        for name, value in alone["masked"].items():
            largest = float(value.abs().max())
            assert float((rank["masked"][name] - value).abs().max()) <= 1e-9 * largest + 1e-11, name


@pytest.mark.parametrize("size", [2, 3])
def test_a_fit_is_that_of_one_process_and_the_same_in_all(found, size):
    (alone,), folder = found[1]
    ranks, folders = found[size]
    for rank in ranks:
        pd.testing.assert_frame_equal(rank["whole"], ranks[0]["whole"], check_exact=True)
        pd.testing.assert_frame_equal(rank["whole"], alone["whole"], rtol=1e-7)
    for file in ("best.safetensors", "last.safetensors"):
        one, several = load_file(folder / "whole" / file), load_file(folders / "whole" / file)
        assert one.keys() == several.keys()
        for name, value in one.items():
            torch.testing.assert_close(several[name], value, rtol=1e-6, atol=1e-8)
    assert sorted(os.listdir(folders / "whole")) == sorted(os.listdir(folder / "whole"))


def test_a_killed_fit_of_two_processes_resumes_to_the_same(found, tmp_path):
    ranks, folder = found[2]
    for history in on_ranks(2, killed_and_resumed, tmp_path):
        pd.testing.assert_frame_equal(history, ranks[0]["whole"], check_exact=True)
    for file in ("best.safetensors", "last.safetensors", "history.csv"):
        assert (tmp_path / file).read_bytes() == (folder / "whole" / file).read_bytes()


def test_another_number_of_processes_begins_anew(found, tmp_path):
    """Its sums are others: what went on from there would be neither the one fit nor the other."""
    on_ranks(2, killed, tmp_path)
    epochs: list[int] = []
    history = whole_fit(Team(), tmp_path, told=lambda row, _: epochs.append(row["epoch"]))
    assert epochs == [1, 2, 3, 4, 5, 6]
    pd.testing.assert_frame_equal(history, found[1][0][0]["whole"], check_exact=True)


def test_a_folder_that_the_processes_do_not_share_is_told(tmp_path):
    with pytest.raises(UserError, match="it must be a folder that they share"):
        whole_fit(AfterAnother(1, 2), tmp_path)


@pytest.mark.parametrize("mine", [slice(0, 3), slice(3, 7), slice(2, 2)])
def test_augmentation_of_a_share_is_that_of_its_rows_in_the_batch(mine):
    drawn = torch.Generator().manual_seed(0)
    crops = torch.randint(1, 200, (7, 13, 12, 16), generator=drawn, dtype=torch.uint8)
    sizes = torch.tensor([12, 16]).expand(7, 13, 2)
    low, high = torch.zeros(7), torch.full((7,), 200.0)
    share = Share(7, mine)

    def crops_of(rows: slice, **how: object) -> torch.Tensor:
        own = torch.Generator().manual_seed(1)
        return augment_crops(crops[rows], sizes[rows], low[rows], high[rows], own, **how)

    assert torch.equal(crops_of(mine, share=share), crops_of(slice(None))[mine])
    full = torch.rand((7, 1, 20, 10), generator=drawn)
    whole = augment_full(full, torch.Generator().manual_seed(1), frame=(24, 14))
    part = augment_full(full[mine], torch.Generator().manual_seed(1), frame=(24, 14), share=share)
    assert torch.equal(part, whole[mine])


def test_dropout_of_a_share_is_that_of_its_rows_in_the_batch():
    x, team = torch.randn(9, 5, 4), Team(1, 2)
    torch.manual_seed(1)
    whole = nn.Dropout(0.4)(x)
    layer = SynchronisedDropout(nn.Dropout(0.4), team)
    torch.manual_seed(1)
    mine = team.take(len(x)).mine
    torch.testing.assert_close(layer(x[mine]), whole[mine])
    assert torch.equal(layer.eval()(x), x)


def test_attention_with_dropout_is_refused():
    with pytest.raises(ValueError, match="attention with dropout"):
        synchronise(nn.Sequential(nn.MultiheadAttention(8, 2, dropout=0.1)), Team(0, 2))


def test_names_of_parameters_and_state_stay():
    model = build(fusion="intermediate", input="crops", encoder="resnet18", image_size=32)
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    synchronise(model, Team(0, 2))
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == before
    kinds = [type(layer) for layer in model.modules()]
    assert SynchronisedBatchNorm in kinds
    assert not {nn.BatchNorm1d, nn.BatchNorm2d, nn.Dropout} & set(kinds)


@pytest.fixture
def study(tmp_path):
    """A cohort, and a profile in which DeepSurv trains for long."""
    write_cohort(tmp_path / "c", tabular(), covariates=KINDS)
    settings = yaml.safe_load((CONFIGS / "tiny.yaml").read_text(encoding="utf-8"))
    settings["epochs"]["deepsurv"] = 100_000
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return tmp_path


def torchrun(study: Path, profile: str, experiment: str = "deepsurv", fold: int = 0) -> subprocess.Popen:
    """`fracsurv fit` in two processes; what they print goes to `said`."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "fracsurv.cli",
        "fit", study / "c", "--profile", profile, "--out", study / "out", "--experiment", experiment,
        "--fold", str(fold), "--threads", "1",
    ]  # fmt: skip
    with open(study / "said", "w", encoding="utf-8") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_torchrun_fits_what_one_process_fits(study):
    for name in ("deepsurv", "cox_ph"):
        assert torchrun(study, "tiny", name).wait(300) == 0, (study / "said").read_text()
        run = prepare(study / "c", study / "alone", "tiny")
        fit_fold(run, name, 0, progress=False)
        several, alone = (
            pd.read_parquet(out / "experiments" / name / "fold-0" / "predictions.parquet")
            for out in (study / "out", study / "alone")
        )
        for found in (
            several,
            alone,
        ):  # no Cox loss sees a constant in them, rounding alone drives it
            found["risk"] -= found["risk"].mean()
        pd.testing.assert_frame_equal(several, alone, rtol=1e-4, atol=1e-5)
    assert read_json(study / "out" / "experiments" / "deepsurv" / "fold-0" / "fit.json")["processes"] == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_all_with_one_message(study, rank):
    started = torchrun(study, str(study / "long.yaml"))
    resume, deadline = study / "out" / "experiments" / "deepsurv" / "fold-0" / "resume.safetensors", time.time() + 300
    while not resume.exists() and time.time() < deadline:
        time.sleep(0.2)
    workers = {int(w.environ()["RANK"]): w for w in psutil.Process(started.pid).children(recursive=True)}
    workers[rank].send_signal(signal.SIGKILL)
    assert started.wait(60) != 0
    assert not any(worker.is_running() for worker in workers.values())
    said = (study / "said").read_text()
    assert said.count("the same command goes on from the last checkpoint") == 1, said
    assert resume.exists()


def test_what_is_wrong_with_a_fit_is_told_once(study):
    assert torchrun(study, "tiny", fold=7).wait(300) != 0
    said = (study / "said").read_text()
    assert said.count("error: --fold 7: folds are 0 to 1") == 1, said
    assert "last checkpoint" not in said
