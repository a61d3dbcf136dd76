"""Names that are nearly right (files, columns, keys, ids, paths of radiographs), and faults that share a line."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from fracsurv.cohort.cohort import read_cohort
from fracsurv.pipeline.cluster import read_profile
from fracsurv.predict.train_overlap import seen_in_training
from fracsurv.utils.errors import UserError, fold, row_faults
from fracsurv.utils.names import canonical, look_alikes
from fracsurv.utils.yaml_files import read_yaml
from tests.conftest import tabular, write_cohort
from tests.hostile import called, cell, setting, sound

KINDS = {"age": "continuous", "smoker": "binary"}
BOXES = "patient_id,x_min,y_min,x_max,y_max\nP000,1,1,5,9\n"


def faults_of(folder, **how) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_cohort(folder, **how)
    return caught.value.faults


@pytest.fixture
def cohort(tmp_path):
    return sound(tmp_path / "cohort")


@pytest.mark.parametrize(
    ("right", "wrong", "says"),
    [
        ("vertebrae.csv", "Vertebrae.csv", "not read under this name; rename it to vertebrae.csv"),
        ("vertebrae.csv", "vertebrae.CSV", "rename it to vertebrae.csv"),
        ("vertebrae.csv", "vertebra.csv", "rename it to vertebrae.csv"),
        ("vertebrae.csv", "vertebrae (1).csv", "rename it to vertebrae.csv"),
        ("vertebrae.csv", "Copy of vertebrae.csv", "rename it to vertebrae.csv"),
        ("vertebrae.csv", "vertebrae .csv", "rename it to vertebrae.csv"),
        ("vertebrae.csv", "vertebrae.csv.txt", "save it as vertebrae.csv"),
        ("vertebrae.csv", "vertebrae.xlsx", "save it as vertebrae.csv"),
        ("vertebrae.csv", "vertebrae", "save it as vertebrae.csv"),
        ("vertebrae.csv", "vertebrae-corrections.csv", "rename it to vertebrae_corrections.csv"),
        ("vertebrae.csv", "VertebraeCorrection.tsv", "save it as vertebrae_corrections.csv"),
        ("truth.parquet", "truth.csv", "save it as truth.parquet"),
        ("cohort.yaml", "cohort.yml", "rename it to cohort.yaml"),
        ("cohort.yaml", "Cohort.yaml", "rename it to cohort.yaml"),
        ("cohort.yaml", "cohort.yaml.txt", "rename it to cohort.yaml"),
        ("cohort.yaml", "kohort.yaml", "rename it to cohort.yaml"),
        ("cohort.csv", "Cohort.csv", "holds no cohort.csv; Cohort.csv lies there: rename it to cohort.csv"),
        ("cohort.csv", "patients.csv", "holds no cohort.csv; patients.csv lies there: rename it to cohort.csv"),
        ("cohort.csv", "patients.ods", "holds no cohort.csv; patients.ods lies there: save it as cohort.csv"),
    ],
)
def test_files_nearly_named_right_are_no_files_that_are_not_there(cohort, right, wrong, says):
    (cohort / right).rename(cohort / wrong)
    faults = faults_of(cohort)
    assert sum(says in fault and wrong in fault for fault in faults) == 1
    if right != "cohort.yaml":
        assert len(faults) == 1


def test_of_two_files_of_one_name_one_is_kept_and_others_do_no_harm(cohort):
    for name in (
        "cohort_old.csv",
        "vertebrae_before.csv",
        "notes.txt",
        "vertebrae.json",
        "cohort.csv.bak",
        "Cohort.CSV.old",
        "vertebrae.csv.orig",
        "cohort.yaml.bak",
        "cohort.csv~",
        "._cohort.yml",
        "~$cohort.xlsx",
    ):
        (cohort / name).write_text("{}")
    (cohort / "vertebrae.json").write_text('{"sha256": ""}')
    read_cohort(cohort)
    for name in ("cohort.yml", "Cohort.CSV", "Vertebrae.csv", "vertebrae.xlsx"):
        (cohort / name).write_text("")
    assert faults_of(cohort) == [
        "Cohort.CSV: lies beside cohort.csv, which would be read; keep one",
        "Vertebrae.csv: lies beside vertebrae.csv, which would be read; keep one",
        "cohort.yml: lies beside cohort.yaml, which would be read; keep one",
        "vertebrae.xlsx: lies beside vertebrae.csv, which would be read; keep one",
    ]


def test_a_folder_without_a_table_says_where_one_may_be(tmp_path, cohort):
    (fault,) = faults_of(cohort / "cohort.csv")
    assert fault.endswith(f"is a file; give the cohort's folder, {cohort}")
    (fault,) = faults_of(tmp_path)
    assert fault.endswith(f"holds no cohort.csv; is {cohort} meant?")
    for name in ("a.csv", "b.csv", "README.txt"):
        (tmp_path / name).write_text("")
    (fault,) = faults_of(tmp_path)
    assert fault.endswith("a.csv, b.csv lie there: call the one with the patients cohort.csv")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Q001", "q001"), ("café", "cafe\u0301"), ("Å1", "A\u030a1"), ("Q001", "Q001\u200b"), ("Q001", "Q\u00ad001"),
        ("Q001", "\ufeffQ001"), ("Q 001", "Q\u00a0001"), ("Q 1", "Q  1"), ("Q-1", "Q\u20131"), ("Q-1", "Q\u22121"),
        ("Q1\ufe0f", "Q1"), ("STRASSE", "straße"), ("Q1", "Q1\x7f"),
    ],
)  # fmt: skip
def test_ids_that_look_alike_are_one_patient_or_a_fault(tmp_path, one, other):
    assert canonical(one) == canonical(other)
    table = tabular()
    table.loc[[3, 7], "patient_id"] = [one, other]
    (fault,) = faults_of(write_cohort(tmp_path, table, covariates=KINDS))
    assert fault.startswith("cohort.csv rows 5, 9, column patient_id: ")
    assert f"{one!a} and {other!a} differ only by capitals" in fault


def test_other_ids_are_other_patients(tmp_path):
    table = tabular()
    table.loc[:5, "patient_id"] = ["A²", "A2", "P1a", "P-1", "P_1", "é"]
    assert look_alikes([*table["patient_id"], "P1", "P01", "½", "1⁄2", "ﬁ", "Ｑ１", "Q1", "①", "1"]) == []
    assert len(read_cohort(write_cohort(tmp_path, table, covariates=KINDS))) == 60
    table.loc[6, "patient_id"] = "\u200b\u2060"  # there is nothing to see
    (fault,) = faults_of(write_cohort(tmp_path, table, covariates=KINDS))
    assert fault.endswith("must be given")


def test_a_box_of_a_patient_written_otherwise_says_whose_it_may_be(tmp_path):
    folder = write_cohort(tmp_path, tabular(), covariates=KINDS)
    (folder / "vertebrae.csv").write_text(BOXES.replace("P000", "p000"))
    assert faults_of(folder) == [
        "vertebrae.csv row 2, column patient_id: 'p000'; not a patient of the cohort (is 'P000' meant?)"
    ]


def test_a_training_patient_in_other_capitals_is_seen(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "splits.csv").write_text("patient_id,split\np000,train\nP001\u200b,train\nP002,test\n")
    cohort = read_cohort(write_cohort(tmp_path / "c", tabular(), covariates=KINDS))
    assert np.flatnonzero(seen_in_training(tmp_path / "run", cohort)).tolist() == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2", "a: 1\n'a': 2", "x: {a: 1, a: 2}", "x: [{a: 1, a: 2}]", "x: {y: {a: 1, b: 2, a: 1}}",
        "yes: 1\ntrue: 2", "x: {1: a, 1.0: b}", "x: {1: a, 0x1: b}", "x: {~: 1, null: 2}", "é: 1\ne\u0301: 2",
        "a: 1\na\u200b: 2", "x: &y {a: 1}\nz: {<<: *y, a: 2, a: 3}", "1: a\n'1': b",
    ],
)  # fmt: skip
def test_a_key_that_stands_twice_is_a_fault(tmp_path, text):
    for path, read in ((tmp_path / "a.yaml", read_yaml), (tmp_path / "config.yaml", None)):
        path.write_text(text, encoding="utf-8")
        faults = []
        if read:
            read(path, faults)
        else:
            with pytest.raises(UserError) as caught:
                read_profile(path)
            faults = caught.value.faults
        assert len(faults) == 1
        assert "given twice (line" in faults[0]


@pytest.mark.parametrize(
    "text", ["x: {a: 1}\ny: {a: 1}", "x: &y {a: 1}\nz: {<<: *y, a: 2}", "A: 1\na: 2", "a b: 1\nab: 2"]
)
def test_keys_of_other_mappings_and_other_keys_are_none(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    faults: list[str] = []
    assert read_yaml(tmp_path / "a.yaml", faults) == yaml.safe_load(text)
    assert faults == []


@pytest.mark.parametrize(
    ("column", "settings", "says"),
    [
        ("Image", {}, "no column 'image' (for image); is 'Image' meant? Call it image"),
        ("images", {}, "no column 'image' (for image); is 'images' meant? Call it image"),
        ("FOTO", {"columns": {"image": "Foto"}}, "no column 'Foto' (for image); is 'FOTO' meant?"),
        ("Röntgen", {"columns": {"image": "Foto"}}, "no column 'Foto' (for image); take it out of `columns`"),
    ],
)
def test_an_optional_column_nearly_named_right_is_a_fault(cohort, column, settings, says):
    setting(**settings)(cohort)
    table = pd.read_csv(cohort / "cohort.csv").rename(columns={"image": column})
    table.to_csv(cohort / "cohort.csv", index=False)
    assert any(says in fault for fault in faults_of(cohort))


def test_split_and_keypoint_columns_nearly_named_right_are_faults(tmp_path):
    for name in ("splits", "_split", "Splits"):
        (fault,) = faults_of(write_cohort(tmp_path / name, tabular().assign(**{name: "test"}), covariates=KINDS))
        assert fault == f"cohort.csv: no column 'split' (for split); is {name!r} meant? Call it split"
    folder = write_cohort(tmp_path, tabular().assign(Split="train"), covariates=KINDS)
    (folder / "vertebrae.csv").write_text(BOXES.replace("\n", ",Score,X1\n", 1).replace("9\n", "9,1,2\n"))
    split, score, keypoint = faults_of(folder)
    assert "is 'Split' meant?" in split
    assert score == "vertebrae.csv: column 'Score' is not read; call it score"
    assert keypoint == "vertebrae.csv: column 'X1' is not read; call it x1"
    assert len(faults_of(folder, outcome=False)) == 2  # patients to predict on need no split


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (
            "images\\3.png",
            "no such file in the cohort folder; write it relative to the cohort folder, with / in place",
        ),
        ("C:\\Users\\x\\3.png", "with / in place of \\"),
        ("Images/3.PNG", "no such file in the cohort folder; is 'images/3.png' meant?"),
        ("images/3.jpg", "is 'images/3.png' meant?"),
        ("images/3", "is 'images/3.png' meant?"),
        ("images/3\u200b.png", "is 'images/3.png' meant?"),
        ("3.png", "no such file in the cohort folder"),
    ],
)
def test_a_path_nearly_right_says_which_file_may_be_meant(cohort, path, says):
    cell("image", path)(cohort)
    (fault,) = faults_of(cohort)
    assert fault.startswith(f"cohort.csv row 5, column image: {path!r}; ")
    assert says in fault


def test_links_lead_to_the_archive_that_the_settings_name_and_nowhere_else(tmp_path, cohort):
    archive, elsewhere = tmp_path / "archive", tmp_path / "elsewhere"
    for place in (archive, elsewhere):
        (place / "inner").mkdir(parents=True)
        shutil.copy(cohort / "images" / "4.png", place / "inner" / "a.png")
    pixels = Image.open(archive / "inner" / "a.png")

    def tried(path, to, **settings):
        (cohort / "images" / "3.png").unlink(missing_ok=True)
        link = cohort / "images" / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(to)
        cell("image", str(path))(cohort)
        setting(**settings)(cohort)

    tried("images/link", archive / "inner" / "a.png")
    (fault,) = faults_of(cohort)
    assert "'images/link'; must not leave the cohort folder. If this link leads to your archive" in fault
    allowed = {"image_archive": str(archive)}
    for path, to in (("images/link", archive / "inner" / "a.png"), ("images/link/a.png", archive / "inner")):
        tried(path, to, **allowed)
        assert Image.open(cohort / read_cohort(cohort).table["image"][3]) == pixels
    for path, to in (
        ("images/link/a.png", elsewhere / "inner"),  # another place
        (archive / "inner" / "a.png", archive),  # not by a link
        ("../archive/inner/a.png", archive),
        ("images/link/../../elsewhere/inner/a.png", archive / "inner"),  # through the link and out of it
    ):
        tried(path, to, **allowed)
        (fault,) = faults_of(cohort)
        assert f"must not leave the cohort folder or {archive} (image_archive)" in fault
    for wrong in ("archive", "/", "/.."):
        tried("images/4.png", archive, image_archive=wrong)
        (fault,) = faults_of(cohort)
        assert fault.startswith(f"cohort.yaml, image_archive: {wrong!r}; must be the whole path of a folder")
    tried("images/4.png", archive, image_archive=str(tmp_path / "none"))
    assert faults_of(cohort)[0].endswith("no such folder")


def test_faults_of_a_kind_share_a_printed_line():
    ages = row_faults("cohort.csv", ((row, f"column age: 'x{row}'; must be a number") for row in range(2, 42)))
    times = row_faults("cohort.csv", ((row, f"column time: '-{row}'; must be days") for row in (2, 3, 4)))
    broken = [f"images/{name}.png: cannot be read" for name in ("anna", "bea", "cleo", "dora")]
    assert fold([times[0], *ages, *broken, *times]) == [
        times[0],
        f"{ages[0]} (and 39 more like this: 'x3', 'x4' …; all: rows 2 to 41)",
        "images/anna.png: cannot be read (and 3 more like this: images/bea.png, images/cleo.png …)",
        *times[1:],
    ]
    words = row_faults("cohort.csv", ((row, f"column age: 'age {row}'; must be a number") for row in range(2, 7)))
    assert fold(words) == [f"{words[0]} (and 4 more like this: 'age 3', 'age 4' …; all: rows 2 to 6)"]
    other = row_faults("vertebrae.csv", ((row, f"column age: 'x{row}'; must be a number") for row in (2, 3)))
    assert fold([*ages[:3], *other]) == [*ages[:3], *other]  # of another file


def test_a_column_with_a_fault_of_its_own_is_not_listed_row_by_row(tmp_path):
    table = tabular().astype({"age": str, "event": str})
    table["event"] = np.where(table["event"] == "1", "yes", "no")
    table.loc[::2, "age"] = table.loc[::2, "age"].str.replace(".", ",")
    table.loc[3, "age"], table.loc[4, "event"] = "old", ""
    assert [fault.split(";")[0] for fault in faults_of(write_cohort(tmp_path, table, covariates=KINDS))] == [
        "cohort.csv, column age: some numbers have a decimal comma, some a decimal point",
        "cohort.csv, column event: holds no and yes",
        "cohort.csv row 5, column age: 'old'",
        "cohort.csv row 6, column event: empty",
    ]


def test_the_same_id_twice_is_told_once(cohort):
    called("P004")(cohort)
    assert not any("differ only" in fault for fault in faults_of(cohort))
