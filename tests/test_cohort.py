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


def faults_of(folder) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_cohort(folder)
    return caught.value.faults


def test_reads_types_and_settings(tmp_path, table):
    cohort = read_cohort(write_cohort(tmp_path, table, covariates=KINDS, provenance="simulated", resolution=0.5))
    assert cohort.table.dtypes.astype(str).to_dict() == {
        "patient_id": "object", "time": "float64", "event": "bool", "age": "float64", "smoker": "float64",
    }  # fmt: skip
    assert (cohort.provenance, cohort.resolution, cohort.covariates) == ("simulated", 0.5, KINDS)
    np.testing.assert_array_equal(cohort.table["time"], table["time_days"])
    np.testing.assert_array_equal(cohort.table["event"], table["event"] == 1)


def test_parquet_is_the_same_as_csv(tmp_path, table):
    csv = read_cohort(write_cohort(tmp_path / "a", table, covariates=KINDS))
    other = write_cohort(tmp_path / "b", table, covariates=KINDS)
    (other / "cohort.csv").unlink()
    table.to_parquet(other / "cohort.parquet")
    pd.testing.assert_frame_equal(csv.table, read_cohort(other).table)


def test_columns_are_renamed_and_faults_name_the_users_column(tmp_path, table):
    table.loc[3, "time_days"] = -4
    folder = write_cohort(
        tmp_path, table.rename(columns={"time_days": "FU_TIME"}), covariates=KINDS, columns={"time_days": "FU_TIME"}
    )
    assert faults_of(folder) == ["cohort.csv row 5, column FU_TIME: '-4.0'; must be days, above 0"]


def test_without_yaml_the_protocols_covariates_are_taken(tmp_path, table):
    folder = write_cohort(tmp_path, table)
    (folder / "cohort.yaml").unlink()
    assert read_cohort(folder).covariates == KINDS


def test_all_faults_at_once(tmp_path, table):
    table = table.astype(object)
    table.loc[0, "time_days"], table.loc[1, "time_days"], table.loc[2, "time_days"] = 0, "inf", "soon"
    table.loc[3, "event"], table.loc[4, "smoker"], table.loc[5, "age"] = 2, 7, ""
    table.loc[7, "patient_id"] = table.loc[6, "patient_id"]
    table["split"] = "train"
    table.loc[8, "split"] = "validate"
    assert faults_of(write_cohort(tmp_path, table, covariates=KINDS)) == [
        "cohort.csv row 2, column time_days: '0'; must be days, above 0",
        "cohort.csv row 3, column time_days: 'inf'; must be days, above 0",
        "cohort.csv row 4, column time_days: 'soon'; must be days, above 0",
        "cohort.csv row 5, column event: '2'; must be 1 (fracture) or 0 (censored); 2 may be a competing event, say "
        "death, if `competing_event` in cohort.yaml names it",
        "cohort.csv row 6, column smoker: '7'; must be 0 or 1",
        "cohort.csv row 7, column age: empty; must be a number. If it is not known, set `missing_covariates: "
        "impute` in cohort.yaml",
        "cohort.csv row 9, column patient_id: 'P006'; must be unique: one row a patient",
        "cohort.csv row 10, column split: 'validate'; must be empty or one of train, test, external",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"provenance": "made up"}, "cohort.yaml, provenance: 'made up'; must be one of real, simulated"),
        ({"covariates": {"age": "number"}}, "cohort.yaml, covariates, age: 'number'; must be one of continuous"),
        ({"colour": 1}, "cohort.yaml: unknown setting 'colour'"),
        ({"resolution": 0}, "cohort.yaml, resolution: 0; must be a number above 0"),
        ({"horizons": [-1]}, "cohort.yaml, horizons: [-1]; must be a list of days"),
        ({"horizons": [True]}, "cohort.yaml, horizons: [True]; must be a list of days"),
        ({"horizons": [365, 365]}, "cohort.yaml, horizons: [365, 365]; must be a list of days"),
        ({"horizons": [730, 365]}, "cohort.yaml, horizons: [730, 365]; must be a list of days"),
        ({"horizons": [float("inf")]}, "cohort.yaml, horizons: [inf]; must be a list of days"),
        ({"horizons": 365}, "cohort.yaml, horizons: 365; must be a list of days"),
        ({"columns": {"age": 3}}, "cohort.yaml, columns, age: 3; must be text"),
        ({"columns": {"age": ["a"]}}, "cohort.yaml, columns, age: ['a']; must be text"),
        ({"columns": {"age": "smoker"}}, "cohort.yaml, columns: age and smoker are all column 'smoker'"),
        ({"columns": {"age": "event"}}, "cohort.yaml, columns: event and age are all column 'event'"),
        ({"covariates": {"split": "binary"}}, "cohort.yaml, covariates, split: the name is taken"),
        ({"covariates": {"time": "continuous"}}, "cohort.yaml, covariates, time: the name is taken"),
        ({"covariates": {3: "continuous"}}, "cohort.yaml, covariates: 3; a name must be text"),
        ({"outcome": ""}, "cohort.yaml, outcome: ''; must be text, not empty"),
        ({"outcome": 3}, "cohort.yaml, outcome: 3; must be text, not empty"),
        ({"description": ["a"]}, "cohort.yaml, description: ['a']; must be text"),
        ({"labels": {"age": 3}}, "cohort.yaml, labels, age: 3; must be text"),
        ({"time_unit": 3}, "cohort.yaml, time_unit: 3; must be text"),
        ({"time_unit": "x" * 31}, f"cohort.yaml, time_unit: '{'x' * 31}'; must be text"),
        ({"covariates": {"weight": "continuous"}}, "cohort.csv: no column 'weight' (for weight)"),
        ({"columns": {"age": "age_at_xry"}}, "cohort.csv: no column 'age_at_xry' (for age); it has patient_id"),
        (
            {"columns": {"size": "age"}},
            "cohort.yaml, columns: unknown name 'size'; it must be a covariate, or one of patient_id, time_days",
        ),
    ],
)
def test_faulty_settings(tmp_path, table, settings, message):
    assert any(fault.startswith(message) for fault in faults_of(write_cohort(tmp_path, table, **settings)))


def test_faulty_settings_are_listed_at_once(tmp_path, table):
    folder = write_cohort(
        tmp_path, table, horizons=[2, 1], outcome="", columns={"time_days": "FU", "age": 3}, covariates={"event": "x"}
    )
    assert [fault.split(";")[0] for fault in faults_of(folder)] == [
        "cohort.yaml, horizons: [2, 1]",
        "cohort.yaml, outcome: ''",
        "cohort.yaml, covariates, event: the name is taken",
        "cohort.yaml, covariates, event: 'x'",
        "cohort.yaml, columns, age: 3",
        "cohort.csv: no column 'FU' (for time_days)",
    ]


def test_time_unit(tmp_path, table):
    assert read_cohort(write_cohort(tmp_path, table, covariates=KINDS)).time_unit == "days"
    assert read_cohort(write_cohort(tmp_path, table, covariates=KINDS, time_unit="months")).time_unit == "months"


def test_patients_called_na_survive_a_run_opened_twice(tmp_path, table):
    table.loc[:1, "patient_id"] = ["NA", "nan"]
    folder = write_cohort(tmp_path / "c", table, covariates=KINDS)
    for _ in range(2):  # the second reads the first's splits.csv
        run = prepare(folder, tmp_path / "r", "tiny")
        assert run.splits["patient_id"].tolist()[:2] == ["NA", "nan"]


def test_a_patient_without_an_id_is_not_called_nan(tmp_path, table):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    (folder / "cohort.csv").unlink()
    table.loc[2, "patient_id"] = None
    table.to_parquet(folder / "cohort.parquet")
    assert faults_of(folder) == ["cohort.parquet row 4, column patient_id: empty; must be given"]


@pytest.mark.parametrize("file", ["cohort.csv", "vertebrae.csv"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "the file is empty"), (b"patient_id,\x81\n", "not readable (UnicodeDecodeError)")],
)
def test_unreadable_tables(tmp_path, table, file, content, said):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    (folder / file).write_bytes(content)
    assert [fault.split(";")[0] for fault in faults_of(folder)] == [f"{file}: {said}"]


def test_yaml_that_is_none(tmp_path, table):
    (write_cohort(tmp_path, table) / "cohort.yaml").write_text("a: [1\nb: 2")
    assert faults_of(tmp_path) == ["cohort.yaml: not readable as YAML (line 2)"]
    (tmp_path / "cohort.yaml").write_bytes("columns: {age: Ålder}".encode("latin-1"))
    assert faults_of(tmp_path) == ["cohort.yaml: not readable as YAML (must be UTF-8)"]


def test_no_events(tmp_path, table):
    table["event"] = 0
    assert faults_of(write_cohort(tmp_path, table, covariates=KINDS)) == [
        "cohort.csv, column event: no patient has an event; nothing can be learnt"
    ]


def test_no_folder_and_no_table(tmp_path):
    assert "no such cohort folder" in faults_of(tmp_path / "none")[0]
    assert "holds no cohort.csv" in faults_of(tmp_path)[0]


def test_images_stay_in_the_folder(tmp_path, table):
    folder = write_cohort(tmp_path / "cohort", table.assign(image="images/a.png"), covariates=KINDS)
    (folder / "images").mkdir()
    (folder / "images" / "a.png").write_bytes(b"")
    assert read_cohort(folder).has_images
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"")
    os.symlink(secret, folder / "images" / "link.png")
    paths = ["../secret.png", str(secret), "images/link.png", "images/b.png", ""]
    write_cohort(folder, table.assign(image=paths + ["images/a.png"] * (len(table) - 5)), covariates=KINDS)
    assert faults_of(folder) == [
        "cohort.csv row 2, column image: '../secret.png'; must not leave the cohort folder",
        f"cohort.csv row 3, column image: {str(secret)!r}; must not leave the cohort folder",
        "cohort.csv row 4, column image: 'images/link.png'; must not leave the cohort folder",
        "cohort.csv row 5, column image: 'images/b.png'; no such file in the cohort folder",
        "cohort.csv row 6, column image: empty; give every patient an image, leave the column out, or set "
        "`missing_images` to exclude or mask in cohort.yaml",
    ]


def test_faulty_boxes(tmp_path, table):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    header = "patient_id,x_min,y_min,x_max,y_max\n"
    (folder / "vertebrae.csv").write_text(header + "P000,1,1,5,9\nnobody,1,1,5,9\nP001,5,1,5,9\nP002,a,1,5,9\n")
    assert faults_of(folder) == [
        "vertebrae.csv row 3, column patient_id: 'nobody'; not a patient of the cohort",
        "vertebrae.csv row 4, 5, 1, 5, 9; a box needs four numbers, x_min < x_max and y_min < y_max",
        "vertebrae.csv row 5, a, 1, 5, 9; a box needs four numbers, x_min < x_max and y_min < y_max",
    ]


def test_a_box_whose_row_ends_early(tmp_path, table):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    (folder / "vertebrae.csv").write_text("patient_id,x_min,y_min,x_max,y_max\nP000,1,1,5\n")
    assert faults_of(folder) == [
        "vertebrae.csv row 2, 1, 1, 5, ; a box needs four numbers, x_min < x_max and y_min < y_max"
    ]


def rewrite(path, change):
    """Change a file's lines: `change(number, line)` with the header as number 0."""
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{change(number, line)}\n" for number, line in enumerate(lines)))


@pytest.mark.parametrize(
    "change",
    [
        lambda number, line: line if number == 0 else line + ",",
        lambda number, line: line if number == 0 else f"{number},{line}",
    ],
    ids=["a trailing comma", "a leading row name"],
)
def test_more_fields_than_the_header_has(tmp_path, table, change):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    (folder / "vertebrae.csv").write_text("patient_id,x_min,y_min,x_max,y_max\nP000,1,1,5,9\nP001,1,1,5,9\n")
    reason = "look for a comma too many, or for a column without a name"
    rewrite(folder / "vertebrae.csv", change)
    assert faults_of(folder) == [f"vertebrae.csv rows 2 to 3: 6 fields, but the header has 5; {reason}"]
    (folder / "vertebrae.csv").unlink()
    rewrite(folder / "cohort.csv", change)
    assert faults_of(folder) == [f"cohort.csv rows 2 to 61: 6 fields, but the header has 5; {reason}"]


def test_rows_with_a_comma_too_many_are_named(tmp_path, table):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    rewrite(folder / "cohort.csv", lambda number, line: line + {3: ",", 7: ",1,2", 8: ",1,2"}.get(number, ""))
    assert [fault.split(";")[0] for fault in faults_of(folder)] == [
        "cohort.csv row 4: 6 fields, but the header has 5",
        "cohort.csv rows 8 to 9: 7 fields, but the header has 5",
    ]


def test_spreadsheets_commas_at_the_end_are_harmless(tmp_path, table):
    wanted = read_cohort(write_cohort(tmp_path / "a", table, covariates=KINDS))
    folder = write_cohort(tmp_path / "b", table, covariates=KINDS)
    (folder / "vertebrae.csv").write_text("patient_id,x_min,y_min,x_max,y_max,\nP000,1,1,5,9,\n")
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
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    (folder / "cohort.csv").unlink()
    table.assign(**{column: values(table)}).to_parquet(folder / "cohort.parquet")
    assert faults_of(folder) == [
        f"cohort.parquet, column {column}: holds {kind} values; must be plain numbers, no dates or durations"
    ]


def test_fingerprint_follows_the_values(tmp_path, table):
    first = read_cohort(write_cohort(tmp_path, table, covariates=KINDS)).fingerprint()
    assert read_cohort(write_cohort(tmp_path, table, covariates=KINDS)).fingerprint() == first
    table.loc[0, "age"] += 0.1
    assert read_cohort(write_cohort(tmp_path, table, covariates=KINDS)).fingerprint() != first


def test_image_fingerprint_follows_the_files(tmp_path, table):
    folder = write_cohort(tmp_path, table.assign(image="a.png"), covariates=KINDS)
    (folder / "a.png").write_bytes(b"1")
    first = read_cohort(folder).image_fingerprint()
    assert read_cohort(folder).image_fingerprint() == first
    (folder / "a.png").write_bytes(b"12")
    assert read_cohort(folder).image_fingerprint() != first


def test_truth_is_read_in_the_tables_order(tmp_path, table):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    assert read_cohort(folder).truth() is None
    truth = pd.DataFrame({"patient_id": table["patient_id"], "log_hazard": np.arange(60.0)})
    truth.sample(frac=1, random_state=1).to_parquet(folder / "truth.parquet")
    np.testing.assert_array_equal(read_cohort(folder).truth()["log_hazard"], np.arange(60.0))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.drop(columns="patient_id"), "no column patient_id"),
        (lambda t: t.drop(columns="log_hazard"), "no column log_hazard"),
        (lambda t: t[2:], "no row for 2 of the cohort's patients, P000 first"),
        (lambda t: pd.concat([t, t[:1]]), "patient_id 'P000' stands in more than one row"),
        (lambda t: t.assign(log_hazard=[np.nan, *[0.1] * 59]), "log_hazard must be a number in every row"),
        (lambda t: t.assign(log_hazard="high"), "log_hazard must be a number in every row"),
    ],
)
def test_faulty_truth(tmp_path, table, change, fault):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    cohort = read_cohort(folder)
    truth = pd.DataFrame({"patient_id": table["patient_id"], "log_hazard": np.arange(60.0)})
    change(truth).to_parquet(folder / "truth.parquet")
    with pytest.raises(UserError) as caught:
        cohort.truth()
    assert caught.value.faults == [f"truth.parquet: {fault}"]
    assert faults_of(folder) == [f"truth.parquet: {fault}"]  # and at the door


def test_truth_that_is_no_parquet(tmp_path, table):
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    (folder / "truth.parquet").write_bytes(b"patient_id,log_hazard\n")
    assert faults_of(folder) == ["truth.parquet: not readable (ArrowInvalid)"]


def test_truth_of_numbered_patients(tmp_path, table):
    folder = write_cohort(tmp_path, table.assign(patient_id=range(60)), covariates=KINDS)
    pd.DataFrame({"patient_id": range(60), "log_hazard": np.arange(60.0)}).to_parquet(folder / "truth.parquet")
    np.testing.assert_array_equal(read_cohort(folder).truth()["log_hazard"], np.arange(60.0))


def test_summary_table_by_hand(tmp_path):
    table = tabular(4).assign(time_days=[100, 200, 300, 400], event=[1, 0, 0, 1], age=[70, 72, 74, 76])
    table["smoker"] = [1, 0, 0, 0]
    summary = summary_table(read_cohort(write_cohort(tmp_path, table, covariates=KINDS))).iloc[:, 0]
    assert summary.to_dict() == {
        "Any fracture experienced": "2 (50.0 %)",
        "Time to any fracture or censoring, days": "250.0 ± 129.1",  # statistics.stdev([100, 200, 300, 400])
        "Age, years": "73.0 ± 2.6",
        "Current smoker": "1 (25.0 %)",
    }


class TestSplits:
    def test_everybody_once_and_stratified(self, tmp_path):
        table = tabular(300)
        cohort = read_cohort(write_cohort(tmp_path, table, covariates=KINDS))
        splits = make_splits(cohort, n_folds=3, test_fraction=0.1, seed=3)
        assert splits["patient_id"].tolist() == table["patient_id"].tolist()
        assert splits["split"].value_counts().to_dict() == {"train": 270, "test": 30}
        assert (splits.loc[splits["split"] == "test", "fold"] == -1).all()
        share = cohort.table["event"].mean()
        for fold in range(3):
            members = cohort.table["event"][splits["fold"] == fold]
            assert len(members) == 90
            assert abs(members.sum() - 90 * share) < 1.5
        assert abs(cohort.table["event"][splits["split"] == "test"].sum() - 30 * share) < 1

    def test_seeded(self, tmp_path, table):
        cohort = read_cohort(write_cohort(tmp_path, table, covariates=KINDS))
        assert make_splits(cohort, seed=1).equals(make_splits(cohort, seed=1))
        assert not make_splits(cohort, seed=1).equals(make_splits(cohort, seed=2))

    def test_fixed_splits_are_kept(self, tmp_path, table):
        fixed = ["external"] * 10 + ["test"] * 5 + [""] * 45
        cohort = read_cohort(write_cohort(tmp_path, table.assign(split=fixed), covariates=KINDS))
        assert make_splits(cohort)["split"].tolist() == ["external"] * 10 + ["test"] * 5 + ["train"] * 45

    def test_external_patients_are_never_drawn(self, tmp_path, table):
        fixed = ["external"] * 20 + [""] * 40
        cohort = read_cohort(write_cohort(tmp_path, table.assign(split=fixed), covariates=KINDS))
        splits = make_splits(cohort, test_fraction=0.25)
        assert splits["split"].value_counts().to_dict() == {"train": 30, "external": 20, "test": 10}
        assert (splits["split"][:20] == "external").all()

    def test_too_few_events(self, tmp_path, table):
        table["event"] = [1, 1] + [0] * 58
        cohort = read_cohort(write_cohort(tmp_path, table, covariates=KINDS))
        with pytest.raises(UserError, match="1 training patients with an event; 3 folds need at least 3"):
            make_splits(cohort, test_fraction=0.5)

    @pytest.mark.parametrize("n", [4, 7, 10])
    def test_too_few_patients_for_a_test_set(self, tmp_path, n):
        table = tabular(n).assign(event=[0, 1] * (n // 2) + [0] * (n % 2))
        cohort = read_cohort(write_cohort(tmp_path, table, covariates=KINDS))
        with pytest.raises(UserError, match=f"holding out 0.1 of {n} patients leaves 1 to test and {n - 1} to train"):
            make_splits(cohort, n_folds=2)

    def test_too_few_patients_to_train(self, tmp_path):
        cohort = read_cohort(write_cohort(tmp_path, tabular(6).assign(event=[0, 1] * 3), covariates=KINDS))
        with pytest.raises(UserError, match="leaves 5 to test and 1 to train"):
            make_splits(cohort, n_folds=2, test_fraction=0.8)

    def test_nobody_is_free(self, tmp_path, table):
        fixed = ["external"] * 20 + ["train"] * 40
        cohort = read_cohort(write_cohort(tmp_path, table.assign(split=fixed), covariates=KINDS))
        splits = make_splits(cohort)
        assert splits["split"].tolist() == fixed
        assert sorted(splits["fold"].unique()) == [-1, 0, 1, 2]

    def test_nobody_is_left_to_judge_on(self, tmp_path, table):
        cohort = read_cohort(write_cohort(tmp_path, table.assign(split="train"), covariates=KINDS))
        with pytest.raises(
            UserError, match=r"every patient is marked 'train'.*leave some patients' split empty"
        ) as e:
            make_splits(cohort)
        assert len(e.value.faults) == 1


def test_missing_columns_do_not_hide_the_faults_of_others(tmp_path, table):
    table.loc[1, "patient_id"] = table.loc[0, "patient_id"]
    table["time_days"] = table["time_days"].astype(object)
    table.loc[2, "time_days"] = -5
    table["age"] = table["age"].astype(object)
    table.loc[3, "age"] = "old"
    covariates = {"age": "continuous", "smoker": "binary", "bmi": "continuous"}
    folder = write_cohort(tmp_path / "c", table, covariates=covariates, colour="blue")
    with pytest.raises(UserError) as raised:
        read_cohort(folder)
    said = "\n".join(raised.value.faults)
    assert "unknown setting 'colour'" in said
    assert "no column 'bmi'" in said
    assert "patient_id: 'P000'; must be unique" in said
    assert "row 4, column time_days: '-5'; must be days" in said
    assert "row 5, column age: 'old'; must be a number" in said
    write_cohort(folder, table.drop(columns=["patient_id", "event"]), covariates=covariates)
    with pytest.raises(UserError, match="no column 'patient_id'") as raised:
        read_cohort(folder)
    assert any("no column 'event'" in fault for fault in raised.value.faults)
    assert any("'old'" in fault for fault in raised.value.faults)


def test_two_covariates_of_one_label_are_a_fault(tmp_path):
    table = tabular(60)
    folder = write_cohort(tmp_path, table, covariates=KINDS, labels={"age": "X", "smoker": "X"})
    assert faults_of(folder) == [
        "covariates age and smoker: both are called 'X'; give them different `labels` in cohort.yaml"
    ]
    assert faults_of(write_cohort(tmp_path, table, covariates=KINDS, labels={"smoker": "Age, years"})) == [
        "covariates age and smoker: both are called 'Age, years'; give them different `labels` in cohort.yaml"
    ]


def test_the_summary_counts_in_the_cohorts_unit(tmp_path):
    cohort = read_cohort(write_cohort(tmp_path, tabular(60), covariates=KINDS, time_unit="months"))
    assert "Time to any fracture or censoring, months" in summary_table(cohort).index


def test_the_summary_raises_the_first_letter_of_an_outcome_alone(tmp_path):
    table = tabular(60).assign(event=np.arange(60) % 3)
    called = {"outcome": "hip MOF or ICU stay", "competing_event": "death (ICD-10 R99)"}
    index = summary_table(read_cohort(write_cohort(tmp_path, table, covariates=KINDS, **called))).index
    assert index[0] == "Hip MOF or ICU stay experienced"
    assert "Death (ICD-10 R99) before it (in the time above)" in index
