"""Tables as people have them: broken ones, which must be refused by name, and odd ones, which are read as they are meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from tests.hostile import Case, cell, column, edited, rows, setting, table_bytes

OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)


def renamed(file: str, how: Callable[[pd.DataFrame], str]) -> Callable[[Path], None]:
    """The table in another file."""

    def change(folder: Path) -> None:
        table = pd.read_csv(folder / "cohort.csv")
        (folder / "cohort.csv").unlink()
        (folder / file).write_bytes(how(table).encode())

    return change


def book(title: str) -> Callable[[Path], None]:
    """The table as the sheet Cohort of a workbook with two, below a title."""

    def change(folder: Path) -> None:
        table = pd.read_csv(folder / "cohort.csv")
        (folder / "cohort.csv").unlink()
        with pd.ExcelWriter(folder / "cohort.xlsx") as file:
            table.to_excel(file, index=False, sheet_name="Cohort", startrow=2)
            file.sheets["Cohort"]["A1"] = title
            pd.DataFrame({"note": ["hello"]}).to_excel(file, index=False, sheet_name="notes")

    return change


def dates(**changed: str) -> Callable[[Path], None]:
    """Dates in the place of times and events, of which those of the fourth patient are changed."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        end = pd.Timestamp("2010-01-13") + pd.to_timedelta(table["time_days"], "D")
        had = table["event"] == 1
        table = table.drop(columns=["time_days", "event"]).assign(baseline_date="2010-01-13")
        table["event_date"] = end.dt.strftime("%Y-%m-%d").where(had, "")
        table["last_seen_date"] = end.dt.strftime("%Y-%m-%d")
        for name, value in changed.items():
            table.loc[3, name] = value
        return table

    return rows(change)


def dates_as(how: str) -> Callable[[Path], None]:
    """All dates written in this way."""

    def change(folder: Path) -> None:
        dates()(folder)
        names = ["baseline_date", "event_date", "last_seen_date"]
        written = lambda each: pd.to_datetime(each).dt.strftime(how).fillna("")  # noqa: E731
        rows(lambda table: table.assign(**table[names].apply(written)))(folder)

    return change


def words(name: str, one: str, zero: str) -> Callable[[Path], None]:
    """A column of 0 and 1 in words."""
    return column(name, lambda table: np.where(table[name] == 1, one, zero))


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    """One change after the other."""
    return lambda folder: [change(folder) for change in changes][-1]


CASES = [
    Case("a line sep=; above the header", edited(lambda t: "sep=;\n" + t.replace(",", ";")), "separated by semicolons", 0),
    Case("vertical bars", edited(lambda t: t.replace(",", "|")), "separated by vertical bars", 0),
    Case("tabs in cohort.tsv", renamed("cohort.tsv", lambda t: t.to_csv(index=False, sep="\t")), "cohort.tsv: separated by tabs", 0),
    Case("a title and a comment above the header", edited(lambda t: "Study X, centre B\n# made today\n\n" + t), "the header is row 4", 0),
    Case("a workbook with a title and two sheets", book("Study X"), "sheet Cohort, the header is row 3", 0),
    Case("line ends of old Macs", renamed("cohort.csv", lambda t: t.to_csv(index=False, lineterminator="\r")), "no faults", 0),
    Case("no-break spaces in header and numbers", edited(lambda t: t.replace("age", "\u00a0age ", 1).replace(",7", ",\u00a07")), "no faults", 0),
    Case("real minus signs", column("age", lambda t: [f"\u2212{a}" for a in t["age"]]), "column age, row 2: -7", 0),
    Case("thousands with points and decimal commas", edited(lambda t: t.replace(",", ";").replace("P003;", "P003;1.234,5;x")), "row 5: "),
    Case("a workbook with a password", table_bytes(OLD_OFFICE + "EncryptedPackage".encode("utf-16-le"), "cohort.xlsx"), "cohort.xlsx: locked with a password"),
    Case("a workbook of long ago", table_bytes(OLD_OFFICE + "Workbook".encode("utf-16-le"), "cohort.xls"), "before 2007; save it as cohort.xlsx"),
    Case("a web page called a table", table_bytes(b"<html><table></table></html>"), "cohort.csv: holds HTML or XML"),
    Case("columns parted by spaces", edited(lambda t: t.replace(",", " ")), "the header is one field, 'patient_id time_days"),
    Case("yes and no", words("smoker", "Yes", "No"), "yes = 1 and no = 0 in smoker", 0),
    Case("checked and yes", both(words("smoker", "Checked", "Unchecked"), cell("smoker", "yes")), "must be 0 or 1"),
    Case("words in two languages", words("smoker", "ja", "nein"), "`values: {smoker: {nein: 0, ja: 1}}`"),
    Case("codes by cohort.yaml", both(words("smoker", "ja", "nein"), setting(values={"smoker": {"Ja": 1, "Nein": 0}})), "no faults", 0),
    Case("codes of a column that is none", setting(values={"smokr": {"ja": 1}}), "cohort.yaml, values: 'smokr' is no covariate"),
    Case("a code that is a word", setting(values={"smoker": {"ja": "eins"}}), "cohort.yaml, values, smoker, ja: 'eins'; must be a number"),
    Case("events with decimals", column("event", lambda t: [f"{e},0" for e in t["event"]]), "no faults", 0),
    Case("times from dates", dates(), "times from dates", 0),
    Case("an event before the radiograph", dates(event_date="2009-12-31"), "event_date: 2009-12-31, before baseline_date 2010-01-13"),
    Case("last seen before the event", dates(event_date="2012-05-01", last_seen_date="2012-04-30"), "last_seen_date: 2012-04-30, before the event 2012-05-01"),
    Case("a day that there is not", dates(baseline_date="2009-02-29"), "row 5, column baseline_date: '2009-02-29'; there is no such day"),
    Case("a date to come", dates(last_seen_date="2999-12-31"), "column last_seen_date: '2999-12-31'; in the future"),
    Case("years of two digits", dates_as("%d.%m.%y"), "column baseline_date: '13.01.10' first; write the year with four digits"),
    Case("the month first", dates_as("%m/%d/%Y"), "times from dates, month first", 0),
    Case("the day first in one row", both(dates_as("%m/%d/%Y"), cell("baseline_date", "31/12/2009")), "the month; write them as 2020-12-31"),
    Case("neither day nor month first", both(dates_as("%d/%m/%Y"), rows(lambda t: t.assign(baseline_date="03/04/2009", event_date="05/06/2012", last_seen_date="05/06/2012"))), "No date tells"),
    Case("a date in every time", column("time_days", lambda t: "31.01.2020"), "rows 2 to 41, column time_days: '31.01.2020'; a date"),
    Case("delayed entry", column("entry_days", lambda t: t["time_days"] / 2), "column entry_days: looks like the time from which"),
    Case("intervals of a counting process", rows(lambda t: pd.concat([t.assign(tstart=0), t.assign(tstart=9)])), "40 patients have several rows"),
    Case("horizons in years", setting(horizons=[1, 3, 5]), "Are these years?"),
    Case("a column by another name", edited(lambda t: t.replace("time_days", "FU_days", 1)), "`columns: {time_days: FU_days}`"),
]  # fmt: skip
