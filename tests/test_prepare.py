"""The prepare step: slots decided once, everything written whole and resumed; opening a run afterwards only reads."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fracsurv.cohort.boxes import BOX_COLUMNS, LEVELS
from fracsurv.cohort.cohort import read_cohort
from fracsurv.detection.sources import read_labelled
from fracsurv.images.radiographs import radiograph_heights, read_patient_radiograph, with_slots
from fracsurv.pipeline.pipeline import _forget_lost
from fracsurv.pipeline.progress import Progress
from fracsurv.study.experiments import fit_fold
from fracsurv.study.prepare import prepare
from fracsurv.study.run import open_run
from fracsurv.utils.errors import UserError
from fracsurv.vertebrae.slots import FILE, MAX_HEIGHT, RULES, slots
from tests.conftest import tabular, write_cohort


def copied(folder: Path, to: Path) -> Path:
    return shutil.copytree(folder, to, copy_function=shutil.copy2)


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_opening_reads_alone_and_gives_what_was_prepared(simulated, tmp_path):
    made = prepare(simulated, tmp_path / "r", "tiny", kinds=["crops"])
    before = contents(tmp_path)
    opened = open_run(simulated, tmp_path / "r", "tiny")
    pd.testing.assert_frame_equal(opened.cohort.slots, made.cohort.slots)
    pd.testing.assert_frame_equal(opened.splits, made.splits)
    assert pd.read_csv(made.out / "splits.csv")["patient_id"].tolist() == made.cohort.table["patient_id"].tolist()
    assert opened.store("crops") is opened.store("crops")
    assert opened.key("cds_crops", 0, None) == made.key("cds_crops", 0, None)
    with pytest.raises(UserError, match="--kind full"):
        opened.store("full")
    prepare(simulated, tmp_path / "r", "tiny", kinds=["crops"])
    assert contents(tmp_path) == before


def test_a_run_that_is_not_prepared_is_refused_and_nothing_is_written(simulated, tmp_path):
    with pytest.raises(UserError, match="fracsurv prepare"):
        open_run(simulated, tmp_path / "r", "tiny")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("file", ["splits.csv", f"prepared/{FILE}"])
def test_what_is_missing_or_damaged_is_made_again_by_prepare_alone(simulated, tmp_path, file):
    prepare(simulated, tmp_path, "tiny")
    before, path = contents(tmp_path), tmp_path / file
    path.unlink()
    with pytest.raises(UserError, match="not prepared"):
        open_run(simulated, tmp_path, "tiny")
    prepare(simulated, tmp_path, "tiny")
    assert {name: data for name, (_, data) in contents(tmp_path).items()} == {
        name: data for name, (_, data) in before.items()
    }
    if file != "splits.csv":
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(UserError, match="not prepared"):
            open_run(simulated, tmp_path, "tiny")


def test_slots_of_another_state_are_not_taken(simulated, tmp_path):
    cohort = copied(simulated, tmp_path / "c")
    first = prepare(cohort, tmp_path / "r", "tiny").cohort
    boxes = pd.read_csv(cohort / "vertebrae.csv")
    boxes.iloc[1:].to_csv(cohort / "vertebrae.csv", index=False)  # the first patient's topmost box
    with pytest.raises(UserError, match="not prepared"):
        open_run(cohort, tmp_path / "r", "tiny")
    again = prepare(cohort, tmp_path / "r", "tiny").cohort
    assert again.slots["n_boxes"].sum() == first.slots["n_boxes"].sum() - 1


def test_slots_are_the_rules_with_each_radiographs_height(tiny_run):
    cohort = tiny_run.cohort
    for row in range(0, len(cohort), 17):
        patient = cohort.table["patient_id"][row]
        height = read_patient_radiograph(cohort, cohort.table["image"][row]).shape[0]
        boxes = cohort.vertebrae.loc[cohort.vertebrae["patient_id"] == patient, BOX_COLUMNS].to_numpy()
        wanted = slots(boxes, max_height=MAX_HEIGHT * cohort.resolution, image_height=height)
        found = cohort.slots.iloc[row]
        assert found["patient_id"] == patient
        np.testing.assert_array_equal(found[list(LEVELS)].astype(int), wanted.index)
        assert [found[rule] for rule in RULES] == [getattr(wanted, rule) for rule in RULES]
    # what the networks see is what was decided
    np.testing.assert_array_equal(cohort.slot_index >= 0, tiny_run.store("crops").crop_sizes[:, :, 0] > 0)


def test_slots_go_with_the_patients_and_not_with_other_boxes(tiny_run):
    cohort, rows = tiny_run.cohort, np.array([7, 2])
    np.testing.assert_array_equal(cohort.of_rows(rows).slot_index, cohort.slot_index[rows])
    assert cohort.with_boxes(cohort.vertebrae.iloc[:5], "other").slots is None
    with pytest.raises(ValueError, match="with_slots"):
        _ = replace(cohort, slots=None).slot_index


def test_boxes_without_radiographs_have_slots_and_no_height(tmp_path):
    folder = write_cohort(tmp_path / "c", tabular(30))
    (folder / "vertebrae.csv").write_text("patient_id,x_min,y_min,x_max,y_max\nP000,1,1,5,9\nP000,1,11,5,19\n")
    cohort = with_slots(read_cohort(folder))
    assert np.isnan(radiograph_heights(cohort)).all()
    assert cohort.slots["filled_top"].tolist() == [11] + [13] * 29


def test_unreadable_radiographs_are_named_where_images_are_asked_for(simulated, tmp_path):
    cohort = copied(simulated, tmp_path / "c")
    names = read_cohort(cohort).table["image"][[2, 5]]
    for name in names:
        (cohort / name).write_bytes(b"broken")
    assert "cox_ph" in prepare(cohort, tmp_path / "r", "tiny").runnable()  # rows of clinical factors can be run
    with pytest.raises(UserError) as caught:
        prepare(cohort, tmp_path / "r", "tiny", kinds=["full"])
    assert [fault.partition(":")[0] for fault in caught.value.faults] == list(names)


def test_a_copy_of_the_cohort_with_other_dates_is_as_prepared(simulated, tmp_path):
    cohort = copied(simulated, tmp_path / "c")
    made = prepare(cohort, tmp_path / "r", "tiny", kinds=["crops"])
    picture = cohort / made.cohort.table["image"][0]
    os.utime(picture, (1, 1))
    opened = open_run(cohort, tmp_path / "r", "tiny")
    assert opened.has_store("crops")
    assert opened.key("cds_crops", 0) == made.key("cds_crops", 0)
    Image.open(picture).crop((0, 0, 50, 80)).save(picture)  # another height may mean other slots
    with pytest.raises(UserError, match="not prepared"):
        open_run(cohort, tmp_path / "r", "tiny")


def test_a_store_that_is_gone_is_asked_for_again(simulated, tmp_path):
    run = prepare(simulated, tmp_path, "tiny", kinds=["crops"])
    stamp = tmp_path / "prepared" / "crops.complete"
    stamp.touch()
    _forget_lost(run, tmp_path, Progress(run, [], 1))
    assert stamp.exists()
    shutil.rmtree(run.store_folder("crops"))
    _forget_lost(run, tmp_path, Progress(run, [], 1))
    assert not stamp.exists()


def test_corrections_in_other_pixels_are_named_beside_other_faults(simulated, tmp_path):
    cohort = copied(simulated, tmp_path / "c")
    table = pd.read_csv(cohort / "cohort.csv", dtype=str)
    table.loc[3, "age"] = "old"
    table.to_csv(cohort / "cohort.csv", index=False)
    row = f"{table['patient_id'][0]},9000,9000,9100,9100"
    (cohort / "vertebrae_corrections.csv").write_text(f"patient_id,x_min,y_min,x_max,y_max\n{row}\n")
    with pytest.raises(UserError) as caught:
        prepare(cohort, tmp_path / "r", "tiny")
    assert len(caught.value.faults) == 2
    assert "vertebrae_corrections.csv row 2" in caught.value.faults[1]
    assert not (tmp_path / "r").exists()
    table.assign(age="70").to_csv(cohort / "cohort.csv", index=False)
    with pytest.raises(UserError, match=r"vertebrae_corrections\.csv row 2"):
        read_labelled(cohort)  # a detector would be trained on it


def test_a_fit_that_the_cohort_has_no_inputs_for_is_refused(tmp_path):
    run = prepare(write_cohort(tmp_path / "c", tabular(60)), tmp_path / "r", "tiny")
    with pytest.raises(UserError, match="cox_ph_vf"):
        fit_fold(run, "cox_ph_vf", 0, progress=False)


def test_several_may_prepare_at_once(simulated, tmp_path):
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: prepare(simulated, tmp_path, "tiny", kinds=["crops"]), range(3)))
    for run in runs[1:]:
        pd.testing.assert_frame_equal(run.cohort.slots, runs[0].cohort.slots)
    assert sorted(path.name for path in (tmp_path / "prepared").iterdir() if path.suffix != ".lock") == [
        "crops", FILE,
    ]  # fmt: skip


def test_an_interrupted_prepare_is_gone_on_with(simulated, tmp_path, monkeypatch):
    whole = prepare(simulated, tmp_path / "whole", "tiny", kinds=["crops"])
    for step in ("locate_vertebrae", "with_slots", "build_store"):
        with monkeypatch.context() as patch:
            patch.setattr(f"fracsurv.study.prepare.{step}", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                prepare(simulated, tmp_path / "r", "tiny", kinds=["crops"])
    made = prepare(simulated, tmp_path / "r", "tiny", kinds=["crops"])
    assert made.store("crops").meta == whole.store("crops").meta
    for file in ("splits.csv", "profile.txt", f"prepared/{FILE}"):
        assert (made.out / file).read_bytes() == (whole.out / file).read_bytes()
