"""Tables as people have them, every field as text: CSV in several dialects, Excel workbooks; and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import re
import zipfile
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import openpyxl
import pandas as pd

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
DECIMAL_POINT = re.compile(r"\s*[-+]?\d+\.\d+\s*")
LARGEST_WORKBOOK = 500_000_000
"""Bytes, unpacked; a larger one is taken for a decompression bomb."""
SHEET = "cohort"
TABLES = ("cohort.csv", "cohort.parquet", "cohort.xlsx")


class TextTable(NamedTuple):
    """A table's fields, of all but Parquet as text, its decimal mark ('.' or ','), and how it was read, in words."""

    frame: pd.DataFrame
    decimal: str
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
            table = TextTable(pd.read_parquet(folder / file), ".", "")
        except (ValueError, OSError) as error:
            faults.append(f"{file}: not readable ({type(error).__name__}); it must be Parquet")
            return None, file
    else:
        table = read_text_table(folder / file, faults)
    if table is not None and table.frame.empty:
        faults.append(f"{file}: holds no patients")
        return None, file
    return table, file


def read_text_table(path: Path, faults: list[str]) -> TextTable | None:
    """A CSV file or an Excel workbook; None, and faults, where it is not readable or a row does not fit the header.

    CSV: separated by commas, semicolons or tabs, whichever gives the header most fields; UTF-8, UTF-16 with its mark,
    or else Windows-1252. Where semicolons or tabs separate, numbers may have decimal commas. A row may end early:
    spreadsheets leave out the empty fields at its end. It may not hold more fields than the header, even empty ones,
    for then it is not known which field belongs to which column.
    """
    try:
        return _read_workbook(path, faults) if path.suffix.lower() == ".xlsx" else _read_csv(path, faults)
    except (ValueError, OSError, csv.Error, KeyError, zipfile.BadZipFile, SyntaxError) as error:
        what = "an Excel workbook" if path.suffix.lower() == ".xlsx" else "CSV, best comma-separated UTF-8"
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
    known = ["patient_id", "time_days", "event", "image", "split", *covariates]
    faults += [f"cohort.yaml, columns: unknown name {name!r}" for name in columns if name not in known]
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


def numbers(values: pd.Series, decimal: str = ".") -> pd.Series:
    """Fields as float64, NaN where one is no number. With decimal commas a point is no part of a number."""
    if decimal == "," and not pd.api.types.is_numeric_dtype(values):
        text = values.astype(str)
        values = text.where(~text.str.contains(".", regex=False), "").str.replace(",", ".", regex=False)
    return pd.to_numeric(values, errors="coerce").astype(float)


def _read_csv(path: Path, faults: list[str]) -> TextTable | None:
    text, encoding = _decoded(path.read_bytes())
    if "\0" in text:
        faults.append(f"{path.name}: holds something other than text; it must be CSV")
        return None
    first = next((line for line in text.split("\n") if line.strip()), "")
    delimiter = max(DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    counts = [len(fields) for fields in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)]  # 0: blank
    if not _fits(path.name, counts, DELIMITERS[delimiter], faults):
        return None
    header = next(filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)), [])
    if not _are_different(path.name, header, faults):
        return None
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, sep=delimiter)
    decimal = _decimal(frame, path.name, faults) if delimiter != "," else "."
    return TextTable(frame, decimal, _in_words(delimiter, decimal, encoding))


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
        first, *others = group
        if count > header:
            where = f"rows {first} to {others[-1]}" if others else f"row {first}"
            faults.append(
                f"{file} {where}: {count} fields, but the header has {header}; look for a {separators[:-1]} too "
                "many, or for a column without a name"
            )
    return all(count <= header for count in counts)


def _are_different(file: str, header: list[str], faults: list[str]) -> bool:
    twice = [name for name, n in Counter(header).items() if n > 1 and name]
    faults += [f"{file}: {header.count(name)} columns are called {name[:60]!r}; which is meant?" for name in twice]
    return not twice


def _decimal(frame: pd.DataFrame, file: str, faults: list[str]) -> str:
    """The mark that numbers have; a column in which some have the one and some the other is a fault."""
    commas = frame.apply(lambda column: column.map(lambda field: DECIMAL_COMMA.fullmatch(str(field)) is not None))
    points = frame.apply(lambda column: column.map(lambda field: DECIMAL_POINT.fullmatch(str(field)) is not None))
    faults += [
        f"{file}, column {name}: some numbers have a decimal comma, some a decimal point; use one of them"
        for name in frame.columns[commas.any() & points.any()]
    ]
    return "," if commas.any(axis=None) else "."


def _in_words(delimiter: str, decimal: str, encoding: str) -> str:
    words = [f"separated by {DELIMITERS[delimiter]}"] if delimiter != "," else []
    words += ["decimal commas"] if decimal == "," else []
    words += [f"taken for {encoding}"] if encoding != "UTF-8" else []
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
        rows = [[_as_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    finally:
        book.close()
    rows = [row for row in rows if any(row)]
    if not rows:
        return TextTable(pd.DataFrame(), ".", "")
    header = rows[0]
    n = max(i for i, name in enumerate(header) if name) + 1
    if not _fits(path.name, [n, *(max((i for i, cell in enumerate(row) if cell), default=0) + 1 for row in rows[1:])],
                 "cells", faults):  # fmt: skip
        return None
    if not _are_different(path.name, header[:n], faults):
        return None
    frame = pd.DataFrame([(row + [""] * n)[:n] for row in rows[1:]], columns=header[:n], dtype=str)
    return TextTable(frame, ".", f"sheet {sheet.title}" if len(names) > 1 else "")


def _as_text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # a spreadsheet knows no whole numbers
    return str(cell)
