"""Tables as people have them, every field as text: CSV in several dialects, Excel workbooks; and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openpyxl
import pandas as pd

from fracsurv.cohort.settings import COLUMNS
from fracsurv.utils.errors import format_rows

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
DECIMAL_POINT = re.compile(r"\s*[-+]?\d+\.\d+\s*")
THOUSANDS = re.compile(r"\s*[-+]?[1-9]\d{0,2}[.,]\d{3}\s*")
"""What is 1,100 to some and 1.1 to others."""
APART = 10
"""Whole numbers that are in the middle so many times those with a mark cast doubt on the mark."""
LARGEST_WORKBOOK = 500_000_000
"""Bytes, unpacked; a larger one is taken for a decompression bomb."""
SHEET = "cohort"
TABLES = ("cohort.csv", "cohort.parquet", "cohort.xlsx")


class TextTable(NamedTuple):
    """A table's fields, of all but Parquet as text, and how it was read, in words.

    The frame's index is the row of the file in which a spreadsheet shows each: blank rows are counted, and left out.
    """

    frame: pd.DataFrame
    read_as: str


def read_patients(folder: Path, faults: list[str]) -> tuple[TextTable | None, str]:
    """A cohort's table and its file's name; None in the table's place, and faults, where it is not readable."""
    found = [name for name in TABLES if (folder / name).exists()]
    if len(found) != 1:
        what = f"holds {' and '.join(found)}; keep one" if found else f"holds no {TABLES[0]}"
        faults.append(f"{folder}: {what}")
        return None, TABLES[0]
    file = found[0]
    table: TextTable | None
    if file.endswith(".parquet"):
        try:
            frame = pd.read_parquet(folder / file)
        except Exception as error:  # nearly any type, on damaged data
            faults.append(f"{file}: not readable ({type(error).__name__}); it must be Parquet")
            return None, file
        table = TextTable(frame.set_axis(np.arange(len(frame)) + 2), "")
    else:
        table = read_text_table(folder / file, faults)
    if table is not None and table.frame.empty:
        faults.append(f"{file}: holds no patients")
        return None, file
    return table, file


def read_text_table(path: Path, faults: list[str]) -> TextTable | None:
    """A CSV file or an Excel workbook; None, and faults, where it is not readable or a row does not fit the header.

    CSV: separated by commas, semicolons or tabs, whichever gives the header most fields; UTF-8, UTF-16 with its
    mark, or else Windows-1252. A row may end early: spreadsheets leave out the empty fields at its end. It may not
    hold more fields than the header, even empty ones, for then it is not known which field belongs to which column. A
    quotation mark at the start of a field must be closed at its end, or rows would vanish into one field. Rows in
    which every field is empty are left out.
    """
    is_workbook = path.suffix.lower() == ".xlsx"
    try:
        return _read_workbook(path, faults) if is_workbook else _read_csv(path, faults)
    except Exception as error:  # nearly any type, on damaged data
        what = "an Excel workbook" if is_workbook else "CSV, best comma-separated UTF-8"
        faults.append(f"{path.name}: not readable ({type(error).__name__}); it must be {what}")
        return None


def renamed(
    table: pd.DataFrame,
    columns: dict[str, str],
    covariates: dict[str, str],
    file: str,
    faults: list[str],
    *,
    outcome: bool,
) -> pd.DataFrame:
    """A cohort's columns that are of use, by our names; whatever is missing or ambiguous is a fault."""
    known = [*COLUMNS, *covariates]
    faults += [
        f"cohort.yaml, columns: unknown name {name!r}; it must be a covariate, or one of {', '.join(COLUMNS)}"
        for name in columns
        if name not in known
    ]
    required = ["patient_id", *(["time_days", "event"] if outcome else []), *covariates]
    theirs: dict[str, list[str]] = {}
    for name in dict.fromkeys(known):
        theirs.setdefault(columns.get(name, name), []).append(name)
    faults += [
        f"cohort.yaml, columns: {' and '.join(names)} are all column {column!r}; each needs a column of its own"
        for column, names in theirs.items()
        if len(names) > 1
    ]
    faults += [
        f"{file}: no column {columns.get(name, name)!r} (for {name}); it has {', '.join(map(str, table.columns))}"
        for name in required
        if columns.get(name, name) not in table.columns
    ]
    chosen = {columns.get(name, name): name for name in known if columns.get(name, name) in table.columns}
    return table[list(chosen)].rename(columns=chosen)


def decimal_mark(
    table: pd.DataFrame, names: Sequence[str], called: Mapping[str, str], file: str, faults: list[str]
) -> str:
    """The decimal mark, '.' or ',', of the columns `names` that are text; doubt about it is a fault.

    Doubt: some numbers of a column have a comma, some a point; or a mark may part thousands, as in 1,100. That is so
    where three digits follow every mark of a column, and it is the times, or its numbers without a mark are of
    another size altogether (their median `APART` times the other's).
    """
    mark = "."
    for name in names:
        if name not in table or pd.api.types.is_numeric_dtype(table[name]):
            continue
        values = pd.unique(table[name].dropna().astype(str))
        commas = [value for value in values if "," in value and DECIMAL_COMMA.fullmatch(value)]
        points = [value for value in values if "." in value and DECIMAL_POINT.fullmatch(value)]
        where = f"{file}, column {called.get(name, name)}"
        mark = "," if commas else mark
        if commas and points:
            faults.append(f"{where}: some numbers have a decimal comma, some a decimal point; use one of them")
        elif (marked := commas or points) and _may_part_thousands(name, marked, values):
            faults.append(
                f"{where}: is {marked[0].strip()[:20]!r} over a thousand, or has it three decimals? Every "
                "number with a mark could be either; write thousands without a mark, or other than three decimals"
            )
    return mark


def numbers(values: pd.Series, decimal: str = ".") -> pd.Series:
    """Fields as float64, NaN where one is no number. With decimal commas a point is no part of a number."""
    if decimal == "," and not pd.api.types.is_numeric_dtype(values):
        text = values.astype(str)
        values = text.where(~text.str.contains(".", regex=False), "").str.replace(",", ".", regex=False)
    return pd.to_numeric(values, errors="coerce").astype(float)


def _may_part_thousands(name: str, marked: Sequence[str], values: np.ndarray) -> bool:
    if not all(THOUSANDS.fullmatch(value) for value in marked):
        return False
    if name == "time_days":
        return True
    whole = pd.to_numeric(pd.Series([value for value in values if value.strip().isdigit()]), errors="coerce")
    as_read = pd.to_numeric(pd.Series(marked).str.replace(",", "."))
    return bool(whole.median() > APART * as_read.abs().median())


def _read_csv(path: Path, faults: list[str]) -> TextTable | None:
    text, encoding = _decoded(path.read_bytes())
    if "\0" in text:
        faults.append(f"{path.name}: holds something other than text; it must be CSV")
        return None
    first = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    counts = []  # fields of each row; 0: blank
    broken = []  # rows that go over several lines
    header: list[str] = []
    try:
        for fields in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            counts.append(len(fields) if any(field.strip() for field in fields) else 0)
            header = header or (fields if counts[-1] else [])
            if any("\n" in field or "\r" in field for field in fields):
                broken.append(len(counts))
    except csv.Error:
        faults.append(
            f"{path.name} row {len(counts) + 1}: a quotation mark opens a field there and is not closed at its end; "
            "close it, or take it out"
        )
        return None
    if not header:
        faults.append(f"{path.name}: the file is empty")
        return None
    if not _fits(path.name, counts, DELIMITERS[delimiter], faults) or not _are_different(path.name, header, faults):
        return None
    blank = np.array(counts) == 0
    start = int(blank.argmin())
    frame = pd.read_csv(
        io.StringIO(text), dtype=str, keep_default_na=False, sep=delimiter, skiprows=start, skip_blank_lines=False,
        index_col=False,
    )  # fmt: skip
    if len(frame) != len(counts) - start - 1:
        raise ValueError("two readers do not find the same rows")
    frame = frame.set_axis(np.arange(len(frame)) + start + 2)[~blank[start + 1 :]].fillna("")
    return TextTable(frame, _in_words(delimiter, encoding, broken))


def _decoded(data: bytes) -> tuple[str, str]:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16"), "UTF-16"
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("cp1252"), "Windows-1252"


def _fits(file: str, counts: list[int], separators: str, faults: list[str]) -> bool:
    header = next((count for count in counts if count), 0)
    rows = range(1, len(counts) + 1)
    for count, group in groupby(rows, key=lambda row: counts[row - 1]):
        if count > header:
            faults.append(
                f"{file} {format_rows(list(group))}: {count} fields, but the header has {header}; look for a "
                f"{separators[:-1]} too many, or for a column without a name"
            )
    return all(count <= header for count in counts)


def _are_different(file: str, header: list[str], faults: list[str]) -> bool:
    twice = [name for name, n in Counter(header).items() if n > 1 and name]
    faults += [f"{file}: {header.count(name)} columns are called {name[:60]!r}; which is meant?" for name in twice]
    return not twice


def _in_words(delimiter: str, encoding: str, broken: Sequence[int]) -> str:
    words = [f"separated by {DELIMITERS[delimiter]}"] if delimiter != "," else []
    words += [f"taken for {encoding}"] if encoding != "UTF-8" else []
    words += [f"with line breaks inside {format_rows(broken)}"] if broken else []
    return ", ".join(words)


def _read_workbook(path: Path, faults: list[str]) -> TextTable | None:
    with zipfile.ZipFile(path) as packed:
        if sum(part.file_size for part in packed.infolist()) > LARGEST_WORKBOOK:
            faults.append(f"{path.name}: more than {LARGEST_WORKBOOK:,} bytes when unpacked; not read")
            return None
    # values, not formulas: of a formula what the spreadsheet computed last
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        names = [sheet.title for sheet in book.worksheets]
        if len(names) > 1 and SHEET not in names:
            faults.append(
                f"{path.name}: {len(names)} sheets; call the one with the patients {SHEET!r}, or keep it alone"
            )
            return None
        sheet = book[SHEET] if SHEET in names else book.worksheets[0]
        sheet.reset_dimensions()  # what the file says of its own size may be wrong, and rows beyond it would be lost
        rows = [[_as_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    finally:
        book.close()
    # of each row so many cells as go up to its last that holds something
    counts = [max((i for i, cell in enumerate(row) if cell.strip()), default=-1) + 1 for row in rows]
    kept = [row for row, count in enumerate(counts) if count]
    if not kept:
        return TextTable(pd.DataFrame(), "")
    n, header = counts[kept[0]], rows[kept[0]][: counts[kept[0]]]
    if not _fits(path.name, counts, "cells", faults) or not _are_different(path.name, header, faults):
        return None
    fields = [(rows[row] + [""] * n)[:n] for row in kept[1:]]
    frame = pd.DataFrame(fields, columns=header, dtype=str, index=np.array(kept[1:], dtype=int) + 1)
    return TextTable(frame, f"sheet {sheet.title}" if len(names) > 1 else "")


def _as_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # a spreadsheet knows no whole numbers
    return str(cell)
