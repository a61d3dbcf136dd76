"""Tables as hospitals export them: CSV in several dialects and Excel workbooks, every field as text; and Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openpyxl
import pandas as pd

from fracsurv.cohort.file_names import tables_there
from fracsurv.utils.errors import UserError, format_rows, shorten

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEPARATOR_LINE = re.compile(r"\"?sep=(.)\"?[;,\t|]*(\r\n|\r|\n)", re.IGNORECASE)
"""What Excel writes and reads above the header, and does not count as a row."""
HEADER_WITHIN = 50
"""Rows among which the header is looked for, below titles and comments."""
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")
DECIMAL_POINT = re.compile(r"\s*[-+]?\d+\.\d+\s*")
MINUS = r"^[-\u2010-\u2015\u2212\ufe63\uff0d]\s*(?=[\d.,])"
"""A hyphen, dash or minus sign before a number."""
SPACED = r"[-+]?[1-9]\d{0,2}(?:([ \u00a0\u2009\u202f'\u2019])\d{3})(?:\1\d{3})*(?:[.,]\d+)?"
"""A number whose thousands are set apart by spaces or apostrophes."""
THOUSANDS = re.compile(r"\s*[-+]?[1-9]\d{0,2}[.,]\d{3}\s*")
"""What is 1,100 to some and 1.1 to others."""
APART = 10
"""Whole numbers that are in the middle so many times those with a mark cast doubt on the mark."""
LARGEST_WORKBOOK = 500_000_000
"""Bytes, unpacked; a larger one is taken for a decompression bomb."""
SHEET = "cohort"
TABLES = ("cohort.csv", "cohort.parquet", "cohort.xlsx", "cohort.tsv", "cohort.xls")
OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""How files of Office before 2007 begin, and those with a password."""


class TextTable(NamedTuple):
    """A table as its file holds it: every field is text, except in Parquet.

    The frame's index is the row of the file as a spreadsheet numbers it; blank rows are left out, but counted.
    `read_as` says in words how the file was read; `delimiter` is what parts its fields, '' where it is no CSV.
    """

    frame: pd.DataFrame
    file: str
    read_as: str
    delimiter: str = ""


def clean_name(name: object) -> str:
    """A column's name without spaces around it, with single plain ones inside, and composed letters."""
    text = str(name)
    if not text.isascii():
        text = re.sub("[\u200b\u2060\ufeff]", "", unicodedata.normalize("NFC", text))
    return " ".join(text.split())


def read_table(folder: Path, faults: list[str], names: Collection[str] = ()) -> TextTable | None:
    """A cohort's table; None, with faults appended, where there is not one that can be read. `names`: see below."""
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
        frame = frame.set_axis(np.arange(len(frame)) + 2).rename(columns=clean_name)
        if repeated := _repeated(file, frame.columns):
            faults += repeated
            return None
        table = TextTable(frame, file, "")
    else:
        table = read_text_table(folder / file, faults, names)
    if table is not None and table.frame.empty:
        faults.append(f"{file}: holds no patients")
        return None
    return table


def read_text_table(path: Path, faults: list[str], names: Collection[str] = ()) -> TextTable | None:
    """A CSV file or an Excel workbook; None, with faults appended, where it cannot be read.

    The header is the first row with several of the `names`, as `clean_name` gives them, or else the first of
    several fields; rows above it are left out, and there may be no other below. CSV: separated as a line `sep=`
    says, or by commas, semicolons, tabs or vertical bars, whichever gives the header most names and fields; UTF-8,
    UTF-16, or else Mac Roman (with the line ends of old Macs) or Windows-1252. A row may end early: spreadsheets
    leave out the empty fields at its end. It may not hold more fields than the header, even empty ones, for then it
    is not known which field belongs to which column. A quotation mark at the start of a field must be closed at its
    end, or rows would vanish into one field. Rows of empty fields and columns without a name are left out.
    """
    is_workbook = path.suffix.lower() == ".xlsx"
    try:
        data = path.read_bytes()
        is_workbook |= data.startswith(b"PK\x03\x04")
        if data.startswith(OLD_OFFICE):
            locked = "EncryptedPackage".encode("utf-16-le") in data
            what = "locked with a password" if locked else "a workbook as Excel wrote it before 2007"
            faults.append(f"{path.name}: {what}; save it as {path.stem}.xlsx{', without one' * locked}")
            return None
        return (_read_workbook if is_workbook else _read_csv)(path.name, data, names)
    except UserError as error:
        faults += error.faults
    except Exception as error:  # nearly any type, on damaged data
        what = "an Excel workbook" if is_workbook else "CSV, best comma-separated UTF-8"
        faults.append(f"{path.name}: not readable ({type(error).__name__}); it must be {what}")
    return None


def decimal_mark(
    table: pd.DataFrame, names: Sequence[str], delimiter: str, place: Callable[[str], str], faults: list[str]
) -> str:
    """The decimal mark, '.' or ',', of the columns `names` that are text; doubt about it is a fault.

    Doubt: some numbers of a column have a comma, some a point; or a mark may part thousands, as in 1,100. That is so
    where three digits follow every mark of a column, and it is the times, or a comma between fields that commas part,
    or its numbers without a mark are of another size altogether (their median `APART` times the other's). `place`
    names a column for messages.
    """
    mark = "."
    for name in names:
        if name not in table or pd.api.types.is_numeric_dtype(table[name]):
            continue
        values = _plain_numbers(table[name].dropna().drop_duplicates()).to_numpy()
        commas = [value for value in values if "," in value and DECIMAL_COMMA.fullmatch(value)]
        points = [value for value in values if "." in value and DECIMAL_POINT.fullmatch(value)]
        mark = "," if commas else mark
        if commas and points:
            faults.append(f"{place(name)}: some numbers have a decimal comma, some a decimal point; use one of them")
        elif (marked := commas or points) and _may_part_thousands(
            marked, values, surely=name == "time_days" or (bool(commas) and delimiter == ",")
        ):
            faults.append(
                f"{place(name)}: is {marked[0].strip()[:20]!r} over a thousand, or has it three decimals? Every "
                "number with a mark could be either; write thousands without a mark, or other than three decimals"
            )
    return mark


def numbers(values: pd.Series, decimal: str = ".") -> pd.Series:
    """Fields as float64, NaN where one is no number. With decimal commas a point is no part of a number."""
    if not pd.api.types.is_numeric_dtype(values):
        values = _plain_numbers(values)
        if decimal == ",":
            values = values.where(~values.str.contains(".", regex=False), "").str.replace(",", ".", regex=False)
    return pd.to_numeric(values, errors="coerce").astype(float)


def event_codes(values: pd.Series) -> pd.Series:
    """Fields as numbers with either decimal mark, since 1,0 and 1.0 are the same code."""
    is_number = pd.api.types.is_numeric_dtype(values)
    return numbers(values if is_number else values.astype(str).str.replace(",", "."))


def _plain_numbers(values: pd.Series) -> pd.Series:
    """Text fields with a hyphen for every kind of minus, and without marks that surely part thousands.

    Spaces and apostrophes do, before three digits. A point or comma does where the column has it twice in a number,
    or before the other mark, and nowhere else than before three digits.
    """
    if (pd.to_numeric(values, errors="coerce").notna() | (values == "")).all():
        return values.astype(str)
    text = values.astype(str).str.strip().str.replace(MINUS, "-", regex=True)
    text = text.where(~text.str.fullmatch(SPACED), text.str.replace("[ \u00a0\u2009\u202f'\u2019]", "", regex=True))
    for mark, other in (r"\.", ","), (",", r"\."):
        groups = rf"[-+]?[1-9]\d{{0,2}}(?:{mark}\d{{3}})"
        marked = text.str.contains(mark)
        sure = text.str.fullmatch(rf"{groups}{{2,}}|{groups}+{other}\d+")
        if sure.any() and text[marked].str.fullmatch(rf"{groups}+(?:{other}\d+)?").all():
            return text.str.replace(mark, "", regex=True)
    return text


def _may_part_thousands(marked: Sequence[str], values: np.ndarray, *, surely: bool) -> bool:
    if not all(THOUSANDS.fullmatch(value) for value in marked):
        return False
    if surely:
        return True
    whole = pd.to_numeric(pd.Series([value for value in values if value.strip().isdigit()]), errors="coerce")
    as_read = pd.to_numeric(pd.Series(marked).str.replace(",", "."))
    return bool(whole.median() > APART * as_read.abs().median())


def _read_csv(file: str, data: bytes, names: Collection[str]) -> TextTable:
    text, encoding = _decode(data)
    if "\0" in text:
        raise UserError(f"{file}: holds something other than text; it must be CSV")
    if text.lstrip().startswith("<"):
        raise UserError(f"{file}: holds HTML or XML, as some databases export it; save it from a spreadsheet as CSV")
    stated = SEPARATOR_LINE.match(text)
    text = text[stated.end() :] if stated else text
    delimiter = stated[1] if stated else _delimiter(text, names)
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error:
        raise UserError(
            f"{file} row {len(rows) + 1}: a quotation mark opens a field there and is not closed at its end; "
            "close it, or take it out"
        ) from None
    counts = [len(fields) if any(field.strip() for field in fields) else 0 for fields in rows]
    separators = DELIMITERS.get(delimiter, f"{delimiter!r}s")
    frame, above = _frame(file, rows, counts, separators, names)
    if len(names) > 1 and frame.shape[1] == 1:
        raise UserError(
            f"{file}: the header is one field, {shorten(frame.columns[0])}; separate the columns by "
            f"{', '.join(DELIMITERS.values())}"
        )
    several_lines = [row for row, fields in enumerate(rows, start=1) if any("\n" in f or "\r" in f for f in fields)]
    words = [f"separated by {separators}"] if delimiter != "," else []
    words += [f"taken for {encoding}"] if encoding != "UTF-8" else []
    words += [above] if above else []
    words += [f"with line breaks inside {format_rows(several_lines)}"] if several_lines else []
    return TextTable(frame, file, ", ".join(words), delimiter)


def _delimiter(text: str, names: Collection[str]) -> str:
    """What parts the fields: which gives the header most of the `names`, or else most rows most fields."""
    lines = list(islice(io.StringIO(text, newline=""), HEADER_WITHIN))

    def found(mark: str) -> tuple[int, int, int]:
        rows: list[list[str]] = []
        with suppress(csv.Error):
            rows.extend(csv.reader(lines, delimiter=mark))
        if not rows:
            return 0, 0, 0
        at = _header(rows, names)
        n_known = len(_known(rows, names)[at])
        return n_known, -at if n_known else Counter(map(len, rows)).most_common(1)[0][0], len(rows[at])

    return max(DELIMITERS, key=found)


def _known(rows: Sequence[Sequence[str]], names: Collection[str]) -> list[set[str]]:
    """Which `names` are fields of each row; a single one may be a word in a patient's row."""
    known = {name.casefold() for name in names}
    found = [known.intersection(clean_name(field).casefold() for field in row) for row in rows]
    return [each if len(each) >= min(2, len(known)) else set() for each in found]


def _header(rows: Sequence[Sequence[str]], names: Collection[str]) -> int:
    """Index of the first row with `names`, or else of the first with several filled fields, or any.

    Where the row right below holds other names, as below merged cells, that is the header.
    """
    known = _known(rows[:HEADER_WITHIN], names)
    if not any(known):
        filled = [min(sum(bool(field.strip()) for field in row), 2) for row in rows[:HEADER_WITHIN]]
        return filled.index(max(filled)) if filled else 0
    at = next(k for k, found in enumerate(known) if found)
    while any(known[at + 1 : at + 2]) and known[at].isdisjoint(known[at + 1]):
        at += 1
    return at


def _decode(data: bytes) -> tuple[str, str]:
    """The text, and the name of its encoding."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16"), "UTF-16"
    for first, codec in (1, "utf-16-le"), (0, "utf-16-be"):
        if len(data) > 3 and not data[first:64:2].strip(b"\0"):
            return data.decode(codec), "UTF-16"
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        old_mac = b"\r" in data and b"\n" not in data
        return (data.decode("mac_roman"), "Mac Roman") if old_mac else (data.decode("cp1252"), "Windows-1252")


def _read_workbook(file: str, data: bytes, names: Collection[str]) -> TextTable:
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        if sum(part.file_size for part in packed.infolist()) > LARGEST_WORKBOOK:
            raise UserError(f"{file}: more than {LARGEST_WORKBOOK:,} bytes when unpacked; not read")
    # values, not formulas: of a formula what the spreadsheet computed last
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    try:
        sheets = [sheet for sheet in book.worksheets if any(map(any, sheet.iter_rows(values_only=True)))]
        sheets = sheets or book.worksheets
        called = [sheet for sheet in sheets if sheet.title.strip().casefold() == SHEET]
        if len(called) != 1 and len(sheets) > 1:
            raise UserError(
                f"{file}: {len(sheets)} sheets; call the one with the patients {SHEET!r}, or keep it alone"
            )
        sheet = (called or sheets)[0]
        sheet.reset_dimensions()  # what the file says of its own size may be wrong, and rows beyond it would be lost
        rows = [[_as_text(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    finally:
        book.close()
    # cells up to the last filled one
    counts = [max((i for i, cell in enumerate(row, start=1) if cell.strip()), default=0) for row in rows]
    frame, above = _frame(file, rows, counts, "cells", names)
    words = [f"sheet {sheet.title}" if len(sheets) > 1 else "", above]
    return TextTable(frame, file, ", ".join(filter(None, words)))


def _as_text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():  # a spreadsheet knows no whole numbers
        cell = int(cell)
    return "" if cell is None else str(cell)


def _repeated(file: str, header: Collection[str]) -> list[str]:
    """Names that several columns have, each a fault."""
    several = [(name, n) for name, n in Counter(header).items() if n > 1 and name]
    return [f"{file}: {n} columns are called {shorten(name)}; which is meant?" for name, n in several]


def _frame(
    file: str, rows: list[list[str]], counts: list[int], separators: str, names: Collection[str]
) -> tuple[pd.DataFrame, str]:
    """The rows below the header, each as long as it, and where the header is, if rows above it are left out.

    `counts` has each row's fields, 0 = blank. A column without a name has that of a cell above, merged with its own.
    """
    filled = [row for row, count in enumerate(counts) if count]
    if not filled:
        raise UserError(f"{file}: the file is empty")
    at = _header(rows, names)
    header = [clean_name(name) for name in rows[at][: counts[at]]]
    for row in rows[:at]:
        for k, name in enumerate(map(clean_name, row)):
            if name in names and name not in header and not any(header[k : k + 1]):
                header += [""] * (k + 1 - len(header))
                header[k] = name
    n = len(header)
    if again := [at + 2 + k for k, found in enumerate(_known(rows[at + 1 :], names)) if len(found) > 1]:
        raise UserError(
            f"{file} {format_rows(again)}: a header again, as in row {at + 1}; put all patients under one header"
        )
    faults = [
        f"{file} {format_rows(list(group))}: {count} fields, but the header has {n}; look for a {separators[:-1]} "
        "too many, or for a column without a name"
        for count, group in groupby(range(at + 2, len(counts) + 1), key=lambda row: counts[row - 1]) if count > n
    ]  # fmt: skip
    faults += _repeated(file, header)
    if faults:
        raise UserError(faults)
    below = [row for row in filled if row > at]
    fields = [(rows[row] + [""] * n)[:n] for row in below]
    frame = pd.DataFrame(fields, columns=header, dtype=str, index=np.array(below, dtype=int) + 1)
    return frame.loc[:, [bool(name) for name in header]], f"the header is row {at + 1}" if filled[0] < at else ""
