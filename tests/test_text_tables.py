"""Tables as hospitals have them are read as what they say, or refused; nothing is guessed wrongly in silence."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest

from fracsurv.cohort import tables
from fracsurv.cohort.cohort import read_cohort
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort

KINDS = {"age": "continuous", "smoker": "binary"}


def cohort_with(folder: Path, table: pd.DataFrame, data: bytes | None = None, **settings) -> Path:
    """A cohort whose table is written as these bytes; without any the folder has no table."""
    write_cohort(folder, table, covariates=KINDS, **settings)
    if data is None:
        (folder / "cohort.csv").unlink()
    else:
        (folder / "cohort.csv").write_bytes(data)
    return folder


def faults_of(folder: Path) -> list[str]:
    """All faults of a cohort."""
    with pytest.raises(UserError) as caught:
        read_cohort(folder)
    return caught.value.faults


def places(folder: Path) -> list[str]:
    """Where each fault is and which value it quotes: all before its semicolon."""
    return [fault.split(";")[0] for fault in faults_of(folder)]


def as_csv(table: pd.DataFrame, **options) -> str:
    """As pandas writes it."""
    return table.to_csv(index=False, **options)


def plain(folder: Path, table: pd.DataFrame) -> pd.DataFrame:
    """What is read of the table, written as pandas writes it."""
    return read_cohort(write_cohort(folder / "plain", table, covariates=KINDS)).table


def cells(row) -> list:
    """A table's row as openpyxl takes it."""
    return [value.item() if isinstance(value, np.generic) else value for value in row]


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
    folder = cohort_with(tmp_path / "book", table)
    with pd.ExcelWriter(folder / "cohort.xlsx") as book:
        table.to_excel(book, index=False, sheet_name="whatever")
    pd.testing.assert_frame_equal(read_cohort(folder).table, plain(tmp_path, table))
    with pd.ExcelWriter(folder / "cohort.xlsx") as book:
        pd.DataFrame({"patient_id": ["nobody"]}).to_excel(book, index=False, sheet_name="notes")
        table.to_excel(book, index=False, sheet_name="cohort")
    found = read_cohort(folder)
    pd.testing.assert_frame_equal(found.table, plain(tmp_path, table))
    assert found.read_as == "cohort.xlsx: sheet cohort"
    with pd.ExcelWriter(folder / "cohort.xlsx") as book:
        for name in ("a", "b"):
            table.to_excel(book, index=False, sheet_name=name)
    assert places(folder) == ["cohort.xlsx: 2 sheets"]


def test_dates_error_values_and_uncomputed_formulas_in_a_workbook_are_faults(tmp_path):
    table = tabular(20)
    folder = cohort_with(tmp_path, table)
    book = openpyxl.Workbook()
    sheet = book.active
    for row in [list(table.columns), *table.itertuples(index=False)]:
        sheet.append(cells(row))
    sheet["B2"] = pd.Timestamp("2020-01-31").to_pydatetime()
    sheet["D3"] = "=1+1"  # no program has computed it
    sheet["D4"] = "#N/A"
    sheet["G9"] = "a note in the margin"
    book.save(folder / "cohort.xlsx")
    assert places(folder) == ["cohort.xlsx row 9: 7 fields, but the header has 5"]
    sheet["G9"] = None
    book.save(folder / "cohort.xlsx")
    assert places(folder) == [
        "cohort.xlsx row 2, column time_days: '2020-01-31 00:00:00'",
        "cohort.xlsx row 3, column age: empty",
        "cohort.xlsx row 4, column age: '#N/A'",
    ]


def test_points_and_commas_are_not_guessed(tmp_path):
    table = tabular(20)
    mixed = as_csv(table, sep=";", decimal=",").replace(",", ".", 1)
    fault = "cohort.csv, column time_days: some numbers have a decimal comma, some a decimal point"
    assert fault in places(cohort_with(tmp_path / "a", table, mixed.encode()))
    # points where other columns have decimal commas
    table["time_days"] = [f"1{100 + i}.5" for i in range(20)]
    faults = faults_of(cohort_with(tmp_path / "b", table, as_csv(table, sep=";", decimal=",").encode()))
    assert len(faults) == 20
    assert faults[0].startswith("cohort.csv row 2, column time_days: '1100.5'")
    assert "decimal comma" in faults[0]


def test_decimal_commas_within_commas_are_read_where_they_are_quoted(tmp_path):
    table = tabular(20)
    commas = table.assign(**{c: table[c].astype(str).str.replace(".", ",") for c in ("age", "time_days")})
    found = read_cohort(cohort_with(tmp_path / "c", table, as_csv(commas).encode()))
    pd.testing.assert_frame_equal(found.table, plain(tmp_path, table))
    assert found.read_as == "cohort.csv: decimal commas"


@pytest.mark.parametrize("mark", [".", ","])
@pytest.mark.parametrize("separator", [",", ";"])
def test_thousands_are_not_taken_for_fractions(tmp_path, mark, separator):
    """1,100 days are 1,100 to some and 1.1 to others."""

    def years(n):
        return [f"{age:.1f}".replace(".", mark) for age in tabular(n)["age"]]

    table = tabular(20).assign(age=years(20), time_days=np.arange(20) * 150 + 200)
    table["time_days"] = [f"{day:,}".replace(",", mark) for day in table["time_days"]]
    (place,) = places(cohort_with(tmp_path / "a", table, as_csv(table, sep=separator).encode()))
    assert place.startswith(f"cohort.csv, column time_days: is '1{mark}100' over a thousand")
    # of a covariate, where whole numbers are of another size
    table = tabular(20).assign(time_days=np.arange(20) + 100)
    table["age"] = [f"{n:,}".replace(",", mark) for n in np.arange(20) * 150 + 200]
    (place,) = places(cohort_with(tmp_path / "b", table, as_csv(table, sep=separator).encode()))
    assert place.startswith("cohort.csv, column age: is '1")
    # three decimals alone cast no doubt on a covariate, unless commas part the fields, too; any other number of them
    # settles it for times
    table = tabular(20).assign(age=[f"{60 + i}.125".replace(".", mark) for i in range(20)])
    table["time_days"] = [f"{100 + i}.{125 if i else 5}".replace(".", mark) for i in range(20)]
    folder = cohort_with(tmp_path / "c", table, as_csv(table, sep=separator).encode())
    if mark == separator:
        (place,) = places(folder)
        assert place.startswith("cohort.csv, column age: is '60,125' over a thousand")
        return
    found = read_cohort(folder)
    assert found.table["age"].tolist() == [60.125 + i for i in range(20)]
    assert found.table["time"].tolist() == [100.5, *(100.125 + i for i in range(1, 20))]


def test_columns_that_are_not_read_do_not_decide_how_numbers_are_read(tmp_path):
    table = tabular(20)
    other = table.assign(note=["1,5", "2.5"] * 10, version="3,14")
    found = read_cohort(cohort_with(tmp_path / "other", other, as_csv(other, sep=";").encode()))
    pd.testing.assert_frame_equal(found.table, plain(tmp_path, table))


def test_rows_are_numbered_as_a_spreadsheet_shows_them_whatever_is_blank(tmp_path):
    table = tabular(20).astype({"age": object})
    table.loc[10, "age"] = "old"
    lines = as_csv(table).splitlines()
    lines[3:3] = [",,,,", ""]
    lines = ["", "  ", *lines, "", ""]
    folder = cohort_with(tmp_path / "csv", table, "\n".join(lines).encode())
    row = next(number for number, line in enumerate(lines, start=1) if "old" in line)
    assert places(folder) == [f"cohort.csv row {row}, column age: 'old'"]
    (folder / "cohort.csv").write_text("\n".join(lines).replace("old", "70"))
    found = read_cohort(folder)
    assert [lines[row - 1].split(",")[0] for row in found.file_rows] == table["patient_id"].tolist()
    assert found.of_rows(np.array([4, 2])).file_rows == (found.file_rows[4], found.file_rows[2])
    # a workbook with empty rows
    folder = cohort_with(tmp_path / "book", table)
    book = openpyxl.Workbook()
    for at, row in enumerate([list(table.columns), *table.itertuples(index=False)]):
        for column, value in enumerate(cells(row), start=1):
            book.active.cell(2 * at + 3, column, value)
    book.save(folder / "cohort.xlsx")
    assert places(folder) == ["cohort.xlsx row 25, column age: 'old'"]


def test_a_workbook_that_is_wrong_about_its_size_is_read_whole(tmp_path):
    """Programs that write rows one after the other may leave the size of before."""
    table = tabular(40)
    folder = cohort_with(tmp_path / "book", table)
    table.to_excel(tmp_path / "sound.xlsx", index=False)
    with zipfile.ZipFile(tmp_path / "sound.xlsx") as old, zipfile.ZipFile(folder / "cohort.xlsx", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("sheet1.xml"):
                assert b'<dimension ref="A1:E41"' in data
                data = data.replace(b'<dimension ref="A1:E41"', b'<dimension ref="A1:D11"')
            new.writestr(name, data)
    pd.testing.assert_frame_equal(read_cohort(folder).table, plain(tmp_path, table))


def test_a_quotation_mark_that_swallows_rows_is_a_fault(tmp_path):
    lines = as_csv(tabular(20)).splitlines()
    lines[4] = '"' + lines[4]
    lines[9] = lines[9].replace(",", '",', 1)  # where it would end
    (fault,) = faults_of(cohort_with(tmp_path / "a", tabular(20), "\n".join(lines[:9]).encode()))
    assert fault.startswith("cohort.csv row 5: a quotation mark")
    # closed, it is a patient with a very long name
    (fault,) = faults_of(cohort_with(tmp_path / "b", tabular(20), "\n".join(lines).encode()))
    assert fault.startswith("cohort.csv row 5, column patient_id")
    # in a column that is not read it may be a note of several lines, or rows lost: it is reported
    table = tabular(20).assign(note=["a\nb" if i in (2, 3) else "" for i in range(20)])
    found = read_cohort(cohort_with(tmp_path / "c", table, as_csv(table).encode()))
    assert found.read_as == "cohort.csv: with line breaks inside rows 4 to 5"
    assert found.file_rows == tuple(range(2, 22))


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"patient_id,\x81\x8d\n"])
def test_bytes_that_are_no_text_are_one_fault(tmp_path, data):
    (fault,) = faults_of(cohort_with(tmp_path, tabular(20), data))
    assert fault.startswith("cohort.csv: ")


def test_what_is_no_workbook_is_one_fault(tmp_path, monkeypatch):
    folder = cohort_with(tmp_path, tabular(20))
    for content in (b"PK\x03\x04 nonsense", b"no zip"):
        (folder / "cohort.xlsx").write_bytes(content)
        assert places(folder) == ["cohort.xlsx: not readable (BadZipFile)"]
    with zipfile.ZipFile(folder / "cohort.xlsx", "w") as packed:
        packed.writestr("hello.txt", "not a workbook")
    assert places(folder) == ["cohort.xlsx: not readable (KeyError)"]
    monkeypatch.setattr(tables, "LARGEST_WORKBOOK", 10)
    assert places(folder) == ["cohort.xlsx: more than 10 bytes when unpacked"]
    (folder / "cohort.csv").write_text("x")
    assert "cohort.csv and cohort.xlsx" in places(folder)[0]


def test_boxes_may_have_decimal_commas_too(tmp_path):
    table = tabular(20)
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    boxes = pd.DataFrame({"patient_id": ["P000"], "x_min": [1.5], "y_min": [2.25], "x_max": [30.5], "y_max": [40.0]})
    boxes.to_csv(folder / "vertebrae.csv", index=False, sep=";", decimal=",")
    found = read_cohort(folder).vertebrae
    assert found.loc[0, ["x_min", "y_min", "x_max", "y_max"]].tolist() == [1.5, 2.25, 30.5, 40.0]
