"""Tables as hospitals export them: CSV in several dialects and Excel workbooks, every field as text; and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openpyxl
import pandas as pd

from fracsurv.cohort.file_names import tables_there
from fracsurv.utils.errors import UserError, format_rows, shorten

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
    """A table as its file holds it: every field is text, except in Parquet.

    The frame's index is the row of the file as a spreadsheet numbers it; blank rows are left out, but counted.
    `read_as` says in words how the file was read.
    """

    frame: pd.DataFrame
    file: str
    read_as: str


def read_table(folder: Path, faults: list[str]) -> TextTable | None:
    """A cohort's table; None, with faults appended, where there is not one that can be read."""
    found = [name for name in TABLES if (folder / name).exists()]
    if len(found) != 1:
        none = f"holds no {TABLES[0]}{tables_there(folder, TABLES)}"
        what = f"holds {' and '.join(found)}; keep one" if found else none
        faults.append(f"{folder}: {what}")
        return None
    file = found[0]
    table: TextTable | None
    if file.endswith(".parquet"):
        try:
            frame = pd.read_parquet(folder / file)
        except Exception as error:  # nearly any type, on damaged data
            faults.append(f"{file}: not readable ({type(error).__name__}); it must be Parquet")
            return None
        table = TextTable(frame.set_axis(np.arange(len(frame)) + 2), file, "")
    else:
        table = read_text_table(folder / file, faults)
    if table is not None and table.frame.empty:
        faults.append(f"{file}: holds no patients")
        return None
    return table


def read_text_table(path: Path, faults: list[str]) -> TextTable | None:
    """A CSV file or an Excel workbook; None, with faults appended, where it cannot be read.

    CSV: separated by commas, semicolons or tabs, whichever gives the header most fields; UTF-8, UTF-16 with its
    mark, or else Windows-1252. A row may end early: spreadsheets leave out the empty fields at its end. It may not
    hold more fields than the header, even empty ones, for then it is not known which field belongs to which column. A
    quotation mark at the start of a field must be closed at its end, or rows would vanish into one field. Rows of
    empty fields and columns without a name are left out.
    """
    is_workbook = path.suffix.lower() == ".xlsx"
    try:
        return _read_workbook(path) if is_workbook else _read_csv(path)
    except UserError as error:
        faults += error.faults
    except Exception as error:  # nearly any type, on damaged data
        what = "an Excel workbook" if is_workbook else "CSV, best comma-separated UTF-8"
        faults.append(f"{path.name}: not readable ({type(error).__name__}); it must be {what}")
    return None


def decimal_mark(table: pd.DataFrame, names: Sequence[str], place: Callable[[str], str], faults: list[str]) -> str:
    """The decimal mark, '.' or ',', of the columns `names` that are text; doubt about it is a fault.

    Doubt: some numbers of a column have a comma, some a point; or a mark may part thousands, as in 1,100. That is so
    where three digits follow every mark of a column, and it is the times, or its numbers without a mark are of
    another size altogether (their median `APART` times the other's). `place` names a column for messages.
    """
    mark = "."
    for name in names:
        if name not in table or pd.api.types.is_numeric_dtype(table[name]):
            continue
        values = pd.unique(table[name].dropna().astype(str))
        commas = [value for value in values if "," in value and DECIMAL_COMMA.fullmatch(value)]
        points = [value for value in values if "." in value and DECIMAL_POINT.fullmatch(value)]
        mark = "," if commas else mark
        if commas and points:
            faults.append(f"{place(name)}: some numbers have a decimal comma, some a decimal point; use one of them")
        elif (marked := commas or points) and _may_part_thousands(name, marked, values):
            faults.append(
                f"{place(name)}: is {marked[0].strip()[:20]!r} over a thousand, or has it three decimals? Every "
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


def _read_csv(path: Path) -> TextTable:
    text, encoding = _decode(path.read_bytes())
    if "\0" in text:
        raise UserError(f"{path.name}: holds something other than text; it must be CSV")
    first = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        raise UserError(
            f"{path.name} row {len(rows) + 1}: a quotation mark opens a field there and is not closed at its end; "
            "close it, or take it out"
        ) from None
    counts = [len(fields) if any(field.strip() for field in fields) else 0 for fields in rows]
    frame = _frame(path.name, rows, counts, DELIMITERS[delimiter])
    several_lines = [row for row, fields in enumerate(rows, start=1) if any("\n" in f or "\r" in f for f in fields)]
    words = [f"separated by {DELIMITERS[delimiter]}"] if delimiter != "," else []
    words += [f"taken for {encoding}"] if encoding != "UTF-8" else []
    words += [f"with line breaks inside {format_rows(several_lines)}"] if several_lines else []
    return TextTable(frame, path.name, ", ".join(words))


def _decode(data: bytes) -> tuple[str, str]:
    """The text, and the name of its encoding."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16"), "UTF-16"
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return data.decode("cp1252"), "Windows-1252"


def _read_workbook(path: Path) -> TextTable:
    with zipfile.ZipFile(path) as packed:
        if sum(part.file_size for part in packed.infolist()) > LARGEST_WORKBOOK:
            raise UserError(f"{path.name}: more than {LARGEST_WORKBOOK:,} bytes when unpacked; not read")
    # values, not formulas: of a formula what the spreadsheet computed last
    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        names = [sheet.title for sheet in book.worksheets]
        if len(names) > 1 and SHEET not in names:
            raise UserError(
                f"{path.name}: {len(names)} sheets; call the one with the patients {SHEET!r}, or keep it alone"
            )
        sheet = book[SHEET] if SHEET in names else book.worksheets[0]
        sheet.reset_dimensions()  # what the file says of its own size may be wrong, and rows beyond it would be lost
        rows = [[_as_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    finally:
        book.close()
    # cells up to the last filled one
    counts = [max((i for i, cell in enumerate(row, start=1) if cell.strip()), default=0) for row in rows]
    frame = _frame(path.name, rows, counts, "cells")
    return TextTable(frame, path.name, f"sheet {sheet.title}" if len(names) > 1 else "")


def _as_text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():  # a spreadsheet knows no whole numbers
        cell = int(cell)
    return "" if cell is None else str(cell)


def _frame(file: str, rows: list[list[str]], counts: list[int], separators: str) -> pd.DataFrame:
    """The rows below the header, each as long as the header; `counts` has each row's fields, 0 = blank."""
    filled = [row for row, count in enumerate(counts) if count]
    if not filled:
        raise UserError(f"{file}: the file is empty")
    n = counts[filled[0]]
    header = rows[filled[0]][:n]
    faults = [
        f"{file} {format_rows(list(group))}: {count} fields, but the header has {n}; look for a {separators[:-1]} "
        "too many, or for a column without a name"
        for count, group in groupby(range(1, len(counts) + 1), key=lambda row: counts[row - 1]) if count > n
    ]  # fmt: skip
    repeated = [name for name, times in Counter(header).items() if times > 1 and name.strip()]
    faults += [
        f"{file}: {header.count(name)} columns are called {shorten(name)}; which is meant?" for name in repeated
    ]
    if faults:
        raise UserError(faults)
    fields = [(rows[row] + [""] * n)[:n] for row in filled[1:]]
    frame = pd.DataFrame(fields, columns=header, dtype=str, index=np.array(filled[1:], dtype=int) + 1)
    return frame.loc[:, [bool(name.strip()) for name in header]]
