"""Tables as hospitals have them are read as what they say, or refused; nothing is guessed wrongly in silence."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from fracsurv.cohort import tables as text_tables
from fracsurv.cohort.cohort import read_cohort
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort

KINDS = {"age": "continuous", "smoker": "binary"}


def cohort_with(folder: Path, table: pd.DataFrame, data: bytes, **settings) -> Path:
    """A cohort whose table is written as these bytes."""
    write_cohort(folder, table, covariates=KINDS, **settings)
    (folder / "cohort.csv").write_bytes(data)
    return folder


def faults_of(folder: Path) -> list[str]:
    """All faults of a cohort."""
    with pytest.raises(UserError) as caught:
        read_cohort(folder)
    return caught.value.faults


def as_csv(table: pd.DataFrame, **options) -> str:
    """As pandas writes it."""
    return table.to_csv(index=False, **options)


DIALECTS = {
    "": lambda t: as_csv(t).encode(),
    "windows lines": lambda t: as_csv(t, lineterminator="\r\n").encode("utf-8-sig"),
    "separated by semicolons": lambda t: as_csv(t, sep=";", decimal=".").encode(),
    "separated by semicolons, decimal commas": lambda t: as_csv(t, sep=";", decimal=",").encode(),
    "separated by tabs, decimal commas": lambda t: as_csv(t, sep="\t", decimal=",").encode(),
    "taken for Windows-1252": lambda t: as_csv(t).encode("cp1252"),
    "separated by semicolons, taken for Windows-1252, decimal commas": lambda t: as_csv(
        t, sep=";", decimal=","
    ).encode("cp1252"),
    "separated by tabs, taken for UTF-16": lambda t: as_csv(t, sep="\t").encode("utf-16"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_same_cohort(tmp_path, dialect):
    table = tabular(40).rename(columns={"age": "Ålder, år"})
    settings = {"columns": {"age": "Ålder, år"}}
    wanted = read_cohort(cohort_with(tmp_path / "plain", table, as_csv(table).encode(), **settings))
    found = read_cohort(cohort_with(tmp_path / "other", table, DIALECTS[dialect](table), **settings))
    pd.testing.assert_frame_equal(found.table, wanted.table)
    assert found.fingerprint() == wanted.fingerprint()
    said = dialect if dialect != "windows lines" else ""
    assert found.read_as == (f"cohort.csv: {said}" if said else "")


def test_an_excel_workbook_is_read_by_its_values(tmp_path):
    table = tabular(40)
    wanted = read_cohort(write_cohort(tmp_path / "plain", table, covariates=KINDS))
    folder = write_cohort(tmp_path / "book", table, covariates=KINDS)
    (folder / "cohort.csv").unlink()
    with pd.ExcelWriter(folder / "cohort.xlsx") as book:
        table.to_excel(book, index=False, sheet_name="whatever")
    pd.testing.assert_frame_equal(read_cohort(folder).table, wanted.table)
    with pd.ExcelWriter(folder / "cohort.xlsx") as book:
        pd.DataFrame({"patient_id": ["nobody"]}).to_excel(book, index=False, sheet_name="notes")
        table.to_excel(book, index=False, sheet_name="cohort")
    found = read_cohort(folder)
    pd.testing.assert_frame_equal(found.table, wanted.table)
    assert found.read_as == "cohort.xlsx: sheet cohort"
    with pd.ExcelWriter(folder / "cohort.xlsx") as book:
        for name in ("a", "b"):
            table.to_excel(book, index=False, sheet_name=name)
    assert faults_of(folder) == ["cohort.xlsx: 2 sheets; call the one with the patients 'cohort', or keep it alone"]


def test_dates_error_values_and_uncomputed_formulas_in_a_workbook_are_faults(tmp_path):
    folder = write_cohort(tmp_path, tabular(20), covariates=KINDS)
    table = tabular(20)
    (folder / "cohort.csv").unlink()
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(list(table.columns))
    for row in table.itertuples(index=False):
        sheet.append([value.item() if isinstance(value, np.generic) else value for value in row])
    sheet["B2"] = pd.Timestamp("2020-01-31").to_pydatetime()
    sheet["D3"] = "=1+1"  # no program has computed it
    sheet["D4"] = "#N/A"
    sheet["G9"] = "a note in the margin"
    book.save(folder / "cohort.xlsx")
    assert faults_of(folder) == [
        "cohort.xlsx row 9: 7 fields, but the header has 5; look for a cell too many, or for a column without a name"
    ]
    sheet["G9"] = None
    book.save(folder / "cohort.xlsx")
    assert faults_of(folder) == [
        "cohort.xlsx row 2, column time_days: '2020-01-31 00:00:00'; must be days, above 0",
        "cohort.xlsx row 3, column age: empty; must be a number. If it is not known, set `missing_covariates: "
        "impute` in cohort.yaml",
        "cohort.xlsx row 4, column age: '#N/A'; must be a number. If it is not known, leave the field empty and set "
        "`missing_covariates: impute` in cohort.yaml",
    ]


def test_points_and_commas_are_not_guessed(tmp_path):
    table = tabular(20)
    mixed = as_csv(table, sep=";", decimal=",").replace(",", ".", 1)
    fault = "cohort.csv, column time_days: some numbers have a decimal comma, some a decimal point; use one of them"
    assert fault in faults_of(cohort_with(tmp_path / "a", table, mixed.encode()))
    # points where other columns have decimal commas
    table["time_days"] = [f"1{100 + i}.5" for i in range(20)]
    faults = faults_of(cohort_with(tmp_path / "b", table, as_csv(table, sep=";", decimal=",").encode()))
    assert len(faults) == 20
    assert faults[0] == (
        "cohort.csv row 2, column time_days: '1100.5'; must be days, above 0, with a decimal comma as elsewhere in "
        "this file"
    )


def test_decimal_commas_within_commas_are_read_where_they_are_quoted(tmp_path):
    table = tabular(20)
    wanted = read_cohort(write_cohort(tmp_path / "plain", table, covariates=KINDS))
    commas = table.assign(**{c: table[c].astype(str).str.replace(".", ",") for c in ("age", "time_days")})
    found = read_cohort(cohort_with(tmp_path / "c", table, as_csv(commas).encode()))
    pd.testing.assert_frame_equal(found.table, wanted.table)
    assert found.read_as == "cohort.csv: decimal commas"


@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize("separator", [",", ";"])
def test_thousands_are_not_taken_for_fractions(tmp_path, mark, separator):
    """1,100 days are 1,100 to some and 1.1 to others."""

    def years(n):
        return [f"{age:.1f}".replace(".", mark) for age in tabular(n)["age"]]

    table = tabular(20).assign(age=years(20), time_days=np.arange(20) * 150 + 200)
    table["time_days"] = [f"{day:,}".replace(",", mark) for day in table["time_days"]]
    (fault,) = faults_of(cohort_with(tmp_path / "a", table, as_csv(table, sep=separator).encode()))
    assert fault.startswith(
        f"cohort.csv, column time_days: is '1{mark}100' over a thousand, or has it three decimals?"
    )
    # of a covariate, where whole numbers are of another size
    table = tabular(20).assign(time_days=np.arange(20) + 100)
    table["age"] = [f"{n:,}".replace(",", mark) for n in np.arange(20) * 150 + 200]
    (fault,) = faults_of(cohort_with(tmp_path / "b", table, as_csv(table, sep=separator).encode()))
    assert "column age: is '1" in fault
    # three decimals alone cast no doubt on a covariate, and any other number of them settles it for times
    table = tabular(20).assign(age=[f"{60 + i}.125".replace(".", mark) for i in range(20)])
    table["time_days"] = [f"{100 + i}.{125 if i else 5}".replace(".", mark) for i in range(20)]
    found = read_cohort(cohort_with(tmp_path / "c", table, as_csv(table, sep=separator).encode()))
    assert found.table["age"].tolist() == [60.125 + i for i in range(20)]
    assert found.table["time"].tolist() == [100.5, *(100.125 + i for i in range(1, 20))]


def test_columns_that_nobody_uses_do_not_decide_how_numbers_are_read(tmp_path):
    table = tabular(20)
    wanted = read_cohort(write_cohort(tmp_path / "plain", table, covariates=KINDS))
    other = table.assign(note=["1,5", "2.5"] * 10, version="3,14")
    found = read_cohort(cohort_with(tmp_path / "other", other, as_csv(other, sep=";").encode()))
    pd.testing.assert_frame_equal(found.table, wanted.table)


def test_rows_are_numbered_as_a_spreadsheet_shows_them_whatever_is_blank(tmp_path):
    table = tabular(20).astype({"age": object})
    table.loc[10, "age"] = "old"
    lines = as_csv(table).splitlines()
    lines.insert(3, "")
    lines.insert(3, ",,,,")
    lines = ["", "  ", *lines, "", ""]
    folder = cohort_with(tmp_path / "csv", table, "\n".join(lines).encode())
    (fault,) = faults_of(folder)
    row = next(number for number, line in enumerate(lines, start=1) if "old" in line)
    assert fault == f"cohort.csv row {row}, column age: 'old'; must be a number"
    (folder / "cohort.csv").write_text("\n".join(lines).replace("old", "70"))
    found = read_cohort(folder)
    assert len(found) == 20
    assert [lines[row - 1].split(",")[0] for row in found.file_rows] == found.table["patient_id"].tolist()
    assert found.of_rows(np.array([4, 2])).file_rows == (found.file_rows[4], found.file_rows[2])
    # a workbook with empty rows
    folder = write_cohort(tmp_path / "book", table, covariates=KINDS)
    (folder / "cohort.csv").unlink()
    book = openpyxl.Workbook()
    for at, row in enumerate([list(table.columns), *table.itertuples(index=False)]):
        for column, value in enumerate(row):
            book.active.cell(2 * at + 3, column + 1, value.item() if isinstance(value, np.generic) else value)
    book.save(folder / "cohort.xlsx")
    assert faults_of(folder) == ["cohort.xlsx row 25, column age: 'old'; must be a number"]


def test_a_workbook_that_is_wrong_about_its_size_is_read_whole(tmp_path):
    """Programs that write rows one after the other may leave the size of before."""
    table = tabular(40)
    wanted = read_cohort(write_cohort(tmp_path / "plain", table, covariates=KINDS))
    folder = write_cohort(tmp_path / "book", table, covariates=KINDS)
    (folder / "cohort.csv").unlink()
    table.to_excel(tmp_path / "sound.xlsx", index=False)
    with zipfile.ZipFile(tmp_path / "sound.xlsx") as old, zipfile.ZipFile(folder / "cohort.xlsx", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("sheet1.xml"):
                assert b'<dimension ref="A1:E41"' in data
                data = data.replace(b'<dimension ref="A1:E41"', b'<dimension ref="A1:D11"')
            new.writestr(name, data)
    pd.testing.assert_frame_equal(read_cohort(folder).table, wanted.table)


def test_a_quotation_mark_that_swallows_rows_is_a_fault(tmp_path):
    lines = as_csv(tabular(20)).splitlines()
    lines[4] = '"' + lines[4]
    lines[9] = lines[9].replace(",", '",', 1)  # where it would end
    fault = "row 5: a quotation mark opens a field there and is not closed at its end; close it, or take it out"
    folder = cohort_with(tmp_path / "a", tabular(20), "\n".join(lines[:9]).encode())
    assert faults_of(folder) == [f"cohort.csv {fault}"]
    # closed, it is a patient with a very long name
    faults = faults_of(cohort_with(tmp_path / "b", tabular(20), "\n".join(lines).encode()))
    assert [fault.split(":")[0] for fault in faults] == ["cohort.csv row 5, column patient_id"]
    assert faults[0].endswith("must be one line; is a quotation mark missing or too many?")
    # in a column that nobody uses it may be a note of several lines, or rows lost: it is told
    table = tabular(20).assign(note=["a\nb" if i in (2, 3) else "" for i in range(20)])
    found = read_cohort(cohort_with(tmp_path / "c", table, as_csv(table).encode()))
    assert found.read_as == "cohort.csv: with line breaks inside rows 4 to 5"
    assert found.file_rows == tuple(range(2, 22))


def test_what_is_no_table_is_one_line(tmp_path, monkeypatch):
    table = tabular(20)
    no_text = "cohort.csv: holds something other than text; it must be CSV"
    assert faults_of(cohort_with(tmp_path / "a", table, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")) == [no_text]
    undefined = "cohort.csv: not readable (UnicodeDecodeError); it must be CSV, best comma-separated UTF-8"
    assert faults_of(cohort_with(tmp_path / "b", table, b"patient_id,\x81\x8d\n")) == [undefined]
    folder = cohort_with(tmp_path / "c", table, b"")
    (folder / "cohort.csv").unlink()
    for content in (b"PK\x03\x04 nonsense", b"no zip"):
        (folder / "cohort.xlsx").write_bytes(content)
        (fault,) = faults_of(folder)
        assert fault.startswith("cohort.xlsx: not readable (BadZipFile)")
    with zipfile.ZipFile(folder / "cohort.xlsx", "w") as packed:
        packed.writestr("hello.txt", "not a workbook")
    (fault,) = faults_of(folder)
    assert fault.startswith("cohort.xlsx: not readable (KeyError)")
    monkeypatch.setattr(text_tables, "LARGEST_WORKBOOK", 10)
    assert faults_of(folder) == ["cohort.xlsx: more than 10 bytes when unpacked; not read"]
    (folder / "cohort.csv").write_text("x")
    (fault,) = faults_of(folder)
    assert fault.endswith("holds cohort.csv and cohort.xlsx; keep one")


def test_boxes_may_have_decimal_commas_too(tmp_path):
    table = tabular(20)
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    boxes = pd.DataFrame({"patient_id": ["P000"], "x_min": [1.5], "y_min": [2.25], "x_max": [30.5], "y_max": [40.0]})
    boxes.to_csv(folder / "vertebrae.csv", index=False, sep=";", decimal=",")
    found = read_cohort(folder).vertebrae
    assert found.loc[0, ["x_min", "y_min", "x_max", "y_max"]].tolist() == [1.5, 2.25, 30.5, 40.0]
