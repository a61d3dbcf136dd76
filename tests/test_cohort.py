"""Cohorts: what is read, and every fault listed at once."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest

from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.splits import make_splits
from fracsurv.cohort.summary import summary_table
from fracsurv.study.prepare import prepare
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort

KINDS = {"age": "continuous", "smoker": "binary"}
BOXES = "patient_id,x_min,y_min,x_max,y_max\n"


def made(folder, table, **settings):
    """A cohort folder with the table's two covariates."""
    return write_cohort(folder, table, **({"covariates": KINDS} | settings))


def faults_of(folder) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_cohort(folder)
    return caught.value.faults


def places(faults: list[str]) -> list[str]:
    """Where each fault is and which value it quotes: all before its semicolon."""
    return [fault.split(";")[0] for fault in faults]


def test_reads_types_and_settings(tmp_path, table):
    folder = made(tmp_path, table, provenance="simulated", resolution=0.5, time_unit="months")
    cohort = read_cohort(folder)
    assert cohort.table.dtypes.astype(str).to_dict() == {
        "patient_id": "object", "time": "float64", "event": "bool", "age": "float64", "smoker": "float64",
    }  # fmt: skip
    assert (cohort.provenance, cohort.resolution, cohort.covariates) == ("simulated", 0.5, KINDS)
    assert cohort.time_unit == "months"
    np.testing.assert_array_equal(cohort.table["time"], table["time_days"])
    np.testing.assert_array_equal(cohort.table["event"], table["event"] == 1)
    (folder / "cohort.yaml").unlink()  # the protocol's covariates
    cohort = read_cohort(folder)
    assert (cohort.covariates, cohort.time_unit) == (KINDS, "days")


def test_parquet_is_the_same_as_csv(tmp_path, table):
    csv = read_cohort(made(tmp_path / "a", table))
    other = made(tmp_path / "b", table)
    (other / "cohort.csv").unlink()
    table.to_parquet(other / "cohort.parquet")
    pd.testing.assert_frame_equal(csv.table, read_cohort(other).table)
    table.loc[2, "patient_id"] = None  # not called nan
    table.to_parquet(other / "cohort.parquet")
    assert places(faults_of(other)) == ["cohort.parquet row 4, column patient_id: empty"]


def test_columns_are_renamed_and_faults_name_the_users_column(tmp_path, table):
    table.loc[3, "time_days"] = -4
    folder = made(tmp_path, table.rename(columns={"time_days": "FU_TIME"}), columns={"time_days": "FU_TIME"})
    assert places(faults_of(folder)) == ["cohort.csv row 5, column FU_TIME: '-4.0'"]


def test_all_faults_of_a_table_at_once(tmp_path, table):
    table = table.astype(object)
    table.loc[0, "time_days"], table.loc[1, "time_days"], table.loc[2, "time_days"] = 0, "inf", "soon"
    table.loc[3, "event"], table.loc[4, "smoker"], table.loc[5, "age"] = 2, 7, ""
    table.loc[7, "patient_id"] = table.loc[6, "patient_id"]
    table["split"] = "train"
    table.loc[8, "split"] = "validate"
    faults = faults_of(made(tmp_path, table))
    assert places(faults) == [
        "cohort.csv row 2, column time_days: '0'",
        "cohort.csv row 3, column time_days: 'inf'",
        "cohort.csv row 4, column time_days: 'soon'",
        "cohort.csv row 5, column event: '2'",
        "cohort.csv row 6, column smoker: '7'",
        "cohort.csv row 7, column age: empty",
        "cohort.csv row 9, column patient_id: 'P006'",
        "cohort.csv row 10, column split: 'validate'",
    ]
    assert "competing_event" in faults[3]
    assert "missing_covariates: impute" in faults[5]


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"provenance": "made up"}, "cohort.yaml, provenance: 'made up'"),
        ({"covariates": {"age": "number"}}, "cohort.yaml, covariates, age: 'number'"),
        ({"covariates": {"split": "binary"}}, "cohort.yaml, covariates, split"),
        ({"covariates": {"time": "continuous"}}, "cohort.yaml, covariates, time"),
        ({"covariates": {3: "continuous"}}, "cohort.yaml, covariates, 3: 3"),
        ({"covariates": {"weight": "continuous"}}, "cohort.csv: no column 'weight'"),
        ({"colour": 1}, "cohort.yaml: unknown setting 'colour'"),
        ({"outcomes": "x"}, "cohort.yaml: unknown setting 'outcomes' (is outcome meant?)"),
        ({"resolution": 0}, "cohort.yaml, resolution: 0"),
        ({"resolution": 11}, "cohort.yaml, resolution: 11"),
        ({"horizons": [-1]}, "cohort.yaml, horizons, 0: -1"),
        ({"horizons": [365, True]}, "cohort.yaml, horizons, 1: True"),
        ({"horizons": [365, 365]}, "cohort.yaml, horizons: [365, 365]"),
        ({"horizons": [730, 365]}, "cohort.yaml, horizons: [730, 365]"),
        ({"horizons": [float("inf")]}, "cohort.yaml, horizons, 0: inf"),
        ({"horizons": 365}, "cohort.yaml, horizons: 365"),
        ({"columns": {"age": 3}}, "cohort.yaml, columns, age: 3"),
        ({"columns": {"age": ["a"]}}, "cohort.yaml, columns, age: ['a']"),
        ({"columns": {"age": "smoker"}}, "cohort.yaml, columns: age and smoker are all column 'smoker'"),
        ({"columns": {"age": "event"}}, "cohort.yaml, columns: event and age are all column 'event'"),
        ({"columns": {"age": "age_at_xry"}}, "cohort.csv: no column 'age_at_xry' (for age)"),
        ({"columns": {"Age": "age"}}, "cohort.yaml, columns: unknown name 'Age' (is age meant?)"),
        ({"outcome": ""}, "cohort.yaml, outcome: ''"),
        ({"outcome": 3}, "cohort.yaml, outcome: 3"),
        ({"description": ["a"]}, "cohort.yaml, description: ['a']"),
        ({"labels": {"age": 3}}, "cohort.yaml, labels, age: 3"),
        ({"labels": {"age": "X", "smoker": "X"}}, "covariates age and smoker: both are called 'X'"),
        ({"labels": {"smoker": "Age, years"}}, "covariates age and smoker: both are called 'Age, years'"),
        ({"time_unit": 3}, "cohort.yaml, time_unit: 3"),
        ({"time_unit": "x" * 31}, f"cohort.yaml, time_unit: '{'x' * 31}'"),
        ({"missing_covariates": "guess"}, "cohort.yaml, missing_covariates: 'guess'"),
        ({"outcome_includes_death": True, "competing_event": "death"}, "cohort.yaml: outcome_includes_death"),
    ],
)
def test_faulty_settings(tmp_path, table, settings, place):
    assert any(fault.startswith(place) for fault in faults_of(write_cohort(tmp_path, table, **settings)))


def test_faulty_settings_are_listed_at_once_with_the_tables_faults(tmp_path, table):
    table["age"] = table["age"].astype(object)
    table.loc[3, "age"] = "old"
    columns = {"time_days": "FU", "age": 3}
    kinds = {"event": "x", "age": "number"}
    folder = made(tmp_path, table, horizons=[2, 1], outcome="", columns=columns, covariates=kinds)
    assert sorted(place.split(":")[0] for place in places(faults_of(folder))) == sorted([
        "cohort.yaml, horizons", "cohort.yaml, outcome", "cohort.yaml, covariates, event",
        "cohort.yaml, covariates, event", "cohort.yaml, covariates, age", "cohort.yaml, columns, age", "cohort.csv",
        "cohort.csv row 5, column age",
    ])  # fmt: skip


def test_missing_columns_do_not_hide_the_faults_of_others(tmp_path, table):
    table.loc[1, "patient_id"] = table.loc[0, "patient_id"]
    table = table.astype({"time_days": object, "age": object})
    table.loc[2, "time_days"], table.loc[3, "age"] = -5, "old"
    covariates = {**KINDS, "bmi": "continuous"}
    found = "\n".join(faults_of(made(tmp_path, table, covariates=covariates, colour="blue")))
    for each in ("setting 'colour'", "column 'bmi'", "patient_id: 'P000'", "time_days: '-5'", "age: 'old'"):
        assert each in found
    folder = made(tmp_path, table.drop(columns=["patient_id", "event"]), covariates=covariates)
    found = "\n".join(faults_of(folder))
    for each in ("column 'patient_id'", "column 'event'", "age: 'old'"):
        assert each in found


def test_patients_called_na_survive_a_run_opened_twice(tmp_path, table):
    table.loc[:1, "patient_id"] = ["NA", "nan"]
    folder = made(tmp_path / "c", table)
    for _ in range(2):  # the second reads the first's splits.csv
        run = prepare(folder, tmp_path / "r", "tiny")
        assert run.splits["patient_id"].tolist()[:2] == ["NA", "nan"]


@pytest.mark.parametrize("file", ["cohort.csv", "vertebrae.csv"])
@pytest.mark.parametrize("content", [b"", b"patient_id,\x81\n"])
def test_unreadable_tables(tmp_path, table, file, content):
    folder = made(tmp_path, table)
    (folder / file).write_bytes(content)
    (fault,) = faults_of(folder)
    assert fault.startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("content", "where"), [(b"a: [1\nb: 2", "line 2"), ("columns: {age: Ålder}".encode("latin-1"), "UTF-8")]
)
def test_yaml_that_is_none(tmp_path, table, content, where):
    (made(tmp_path, table) / "cohort.yaml").write_bytes(content)
    (fault,) = faults_of(tmp_path)
    assert fault.startswith("cohort.yaml: not readable")
    assert where in fault


def test_no_events_no_folder_no_table(tmp_path, table):
    (fault,) = faults_of(made(tmp_path / "a", table.assign(event=0)))
    assert fault.startswith("cohort.csv, column event: ")
    assert str(tmp_path / "none") in faults_of(tmp_path / "none")[0]
    assert "cohort.csv" in faults_of(tmp_path)[0]


def test_images_stay_in_the_folder(tmp_path, table):
    folder = made(tmp_path / "cohort", table.assign(image="images/a.png"))
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"")
    assert read_cohort(folder).has_images
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"")
    os.symlink(secret, folder / "images" / "link.png")
    wrong = {path: "must not leave" for path in ("../secret.png", str(secret), "images/link.png")}
    wrong |= {"images/b.png": "no such file", "": "missing_images"}
    made(folder, table.assign(image=[*wrong, *["images/a.png"] * (len(table) - 5)]))
    for row, fault, why in zip(range(2, 7), faults_of(folder), wrong.values(), strict=True):
        assert fault.startswith(f"cohort.csv row {row}, column image: ")
        assert why in fault


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ("P000,1,1,5,9\nnobody,1,1,5,9\n", ["vertebrae.csv row 3, column patient_id: 'nobody'"]),
        ("P001,5,1,5,9\nP002,a,1,5,9\n", ["vertebrae.csv row 2, 5, 1, 5, 9", "vertebrae.csv row 3, a, 1, 5, 9"]),
        ("P000,1,1,5\n", ["vertebrae.csv row 2, 1, 1, 5, "]),  # a row that ends early
        ("P000,,,,\n", ["vertebrae.csv row 2, , , , "]),
    ],
)
def test_faulty_boxes(tmp_path, table, rows, wanted):
    folder = made(tmp_path, table)
    (folder / "vertebrae.csv").write_text(BOXES + rows)
    assert places(faults_of(folder)) == wanted


def rewrite(path, change):
    """Change a file's lines: `change(number, line)` with the header as number 0."""
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{change(number, line)}\n" for number, line in enumerate(lines)))


def every(n):
    return {number: "," for number in range(1, n + 1)}


@pytest.mark.parametrize(
    ("file", "more", "wanted"),
    [
        ("vertebrae.csv", every(2), ["rows 2 to 3: 6 fields, but the header has 5"]),
        ("cohort.csv", every(60), ["rows 2 to 61: 6 fields, but the header has 5"]),
        ("cohort.csv", {3: ",", 7: ",1,2", 8: ",1,2"},
         ["row 4: 6 fields, but the header has 5", "rows 8 to 9: 7 fields, but the header has 5"]),
    ],
)  # fmt: skip
def test_rows_with_more_fields_than_the_header_are_named(tmp_path, table, file, more, wanted):
    folder = made(tmp_path, table)
    (folder / "vertebrae.csv").write_text(BOXES + "P000,1,1,5,9\nP001,1,1,5,9\n")
    rewrite(folder / file, lambda number, line: line + more.get(number, ""))
    assert places(faults_of(folder)) == [f"{file} {each}" for each in wanted]


def test_spreadsheets_commas_at_the_end_are_harmless(tmp_path, table):
    wanted = read_cohort(made(tmp_path / "a", table))
    folder = made(tmp_path / "b", table)
    (folder / "vertebrae.csv").write_text(BOXES.replace("\n", ",\n") + "P000,1,1,5,9,\n")
    # an empty column, which spreadsheets leave out again in some rows, and a blank line at the end
    rewrite(folder / "cohort.csv", lambda number, line: line + ("," if number < 50 else ""))
    with (folder / "cohort.csv").open("a") as stream:
        stream.write("\n")
    cohort = read_cohort(folder)
    pd.testing.assert_frame_equal(cohort.table, wanted.table)
    assert cohort.vertebrae[["x_min", "y_min", "x_max", "y_max"]].to_numpy().tolist() == [[1, 1, 5, 9]]


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("time_days", lambda t: pd.to_timedelta(t["time_days"], unit="D"), "timedelta64"),
        ("time_days", lambda t: pd.Timestamp("2020-01-01") + pd.to_timedelta(t["time_days"], unit="D"), "datetime64"),
        ("age", lambda t: pd.Timestamp("2020-01-01", tz="UTC") - pd.to_timedelta(t["age"], unit="D"), "datetime64"),
        ("age", lambda t: [pd.Timestamp("1940-01-01").date()] * len(t), "date"),
    ],
)
def test_dates_and_durations_are_no_numbers(tmp_path, table, column, values, kind):
    folder = made(tmp_path, table)
    (folder / "cohort.csv").unlink()
    table.assign(**{column: values(table)}).to_parquet(folder / "cohort.parquet")
    assert places(faults_of(folder)) == [f"cohort.parquet, column {column}: holds {kind} values"]


def test_fingerprints_follow_the_values_and_the_radiographs(tmp_path, table):
    folder = made(tmp_path, table.assign(image="a.png"))
    (folder / "a.png").write_bytes(b"1")
    first, images = read_cohort(folder).fingerprint(), read_cohort(folder).image_fingerprint()
    assert (read_cohort(folder).fingerprint(), read_cohort(folder).image_fingerprint()) == (first, images)
    (folder / "a.png").write_bytes(b"12")
    assert read_cohort(folder).image_fingerprint() != images
    table.loc[0, "age"] += 0.1
    assert read_cohort(made(tmp_path, table.assign(image="a.png"))).fingerprint() != first


def test_truth_is_read_in_the_tables_order(tmp_path, table):
    folder = made(tmp_path, table.assign(patient_id=range(60)))  # numbers in Parquet, text in the table
    assert read_cohort(folder).truth() is None
    truth = pd.DataFrame({"patient_id": range(60), "log_hazard": np.arange(60.0)})
    truth.sample(frac=1, random_state=1).to_parquet(folder / "truth.parquet")
    np.testing.assert_array_equal(read_cohort(folder).truth()["log_hazard"], np.arange(60.0))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.drop(columns="patient_id"), "patient_id"),
        (lambda t: t.drop(columns="log_hazard"), "log_hazard"),
        (lambda t: t[2:], "no row for 2 of the cohort's patients, P000 first"),
        (lambda t: pd.concat([t, t[:1]]), "'P000'"),
        (lambda t: t.assign(log_hazard=[np.nan, *[0.1] * 59]), "log_hazard"),
        (lambda t: t.assign(log_hazard="high"), "log_hazard"),
        (None, "not readable"),
    ],
)
def test_faulty_truth(tmp_path, table, change, named):
    folder = made(tmp_path, table)
    cohort = read_cohort(folder)
    truth = pd.DataFrame({"patient_id": table["patient_id"], "log_hazard": np.arange(60.0)})
    if change is None:
        (folder / "truth.parquet").write_bytes(b"patient_id,log_hazard\n")
    else:
        change(truth).to_parquet(folder / "truth.parquet")
    with pytest.raises(UserError) as caught:
        cohort.truth()
    (fault,) = faults_of(folder)
    assert caught.value.faults == [fault]  # the same when the cohort is read
    assert fault.startswith("truth.parquet: ")
    assert named in fault


def test_summary_table_by_hand(tmp_path):
    table = tabular(4).assign(time_days=[100, 200, 300, 400], event=[1, 0, 0, 1], age=[70, 72, 74, 76])
    table["smoker"] = [1, 0, 0, 0]
    summary = summary_table(read_cohort(made(tmp_path, table))).iloc[:, 0]
    assert summary.to_dict() == {
        "Any fracture experienced": "2 (50.0 %)",
        "Time to any fracture or censoring, days": "250.0 ± 129.1",  # statistics.stdev([100, 200, 300, 400])
        "Age, years": "73.0 ± 2.6",
        "Current smoker": "1 (25.0 %)",
    }


def test_the_summary_has_the_cohorts_own_names(tmp_path):
    table = tabular(60).assign(event=np.arange(60) % 3)
    called = {"outcome": "hip MOF or ICU stay", "competing_event": "death (ICD-10 R99)", "time_unit": "months"}
    index = summary_table(read_cohort(made(tmp_path, table, **called))).index
    assert index[0].startswith("Hip MOF or ICU stay")
    assert index[1].endswith("months")
    assert any(name.startswith("Death (ICD-10 R99)") for name in index)


def splits_of(folder, table, **how):
    return make_splits(read_cohort(made(folder, table)), **how)


def test_splits_hold_everybody_once_and_are_stratified(tmp_path):
    table = tabular(300)
    splits = splits_of(tmp_path, table, n_folds=3, test_fraction=0.1, seed=3)
    assert splits["patient_id"].tolist() == table["patient_id"].tolist()
    assert splits["split"].value_counts().to_dict() == {"train": 270, "test": 30}
    assert ((splits["fold"] == -1) == (splits["split"] == "test")).all()
    event = table["event"] == 1
    for fold in range(3):
        members = event[splits["fold"] == fold]
        assert len(members) == 90
        assert abs(members.sum() - 90 * event.mean()) < 1.5
    assert abs(event[splits["split"] == "test"].sum() - 30 * event.mean()) < 1


def test_splits_are_seeded(tmp_path, table):
    one, again, other = (splits_of(tmp_path, table, seed=seed) for seed in (1, 1, 2))
    assert one.equals(again)
    assert not one.equals(other)


@pytest.mark.parametrize(
    ("fixed", "drawn"),
    [
        (["external"] * 10 + ["test"] * 5 + [""] * 45, 0),  # with a test patient nobody else is drawn
        (["external"] * 20 + [""] * 40, 10),
        (["external"] * 20 + ["train"] * 40, 0),
    ],
)
def test_fixed_splits_are_kept(tmp_path, table, fixed, drawn):
    splits = splits_of(tmp_path, table.assign(split=fixed), test_fraction=0.25)
    free = np.array(fixed) == ""
    assert splits["split"][~free].tolist() == [each for each in fixed if each]
    assert (splits["split"][free] == "test").sum() == drawn
    assert sorted(splits["fold"].unique()) == [-1, 0, 1, 2]
    assert ((splits["fold"] >= 0) == (splits["split"] == "train")).all()


@pytest.mark.parametrize(
    ("table", "how", "message"),
    [
        (tabular(60).assign(event=[1, 1] + [0] * 58), {"test_fraction": 0.5},
         "1 training patients with an event; 3 folds need at least 3"),
        *((tabular(n).assign(event=[0, 1] * (n // 2) + [0] * (n % 2)), {"n_folds": 2},
           f"holding out 0.1 of {n} patients leaves 1 to test and {n - 1} to train") for n in (4, 7, 10)),
        (tabular(6).assign(event=[0, 1] * 3), {"n_folds": 2, "test_fraction": 0.8}, "leaves 5 to test and 1 to"),
        (tabular(60).assign(split="train"), {}, "every patient is marked 'train'"),
    ],
)  # fmt: skip
def test_patients_that_fill_no_split_are_refused(tmp_path, table, how, message):
    with pytest.raises(UserError, match=message):
        splits_of(tmp_path, table, **how)
