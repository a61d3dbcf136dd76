"""Tables as people make them: titles, codes, dates, other names; read as they are meant, or refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
import yaml

from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.plausibility import implausible_values
from fracsurv.utils.errors import UserError
from tests.conftest import tabular, write_cohort

KINDS = {"age": "continuous", "smoker": "binary"}
N = 40
TABLE = tabular(N)
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
DATES = ["baseline_date", "event_date", "last_seen_date"]


def cohort(folder: Path, data: bytes | str, file: str = "cohort.csv", **settings) -> Path:
    """A cohort whose table is these bytes."""
    folder.mkdir(exist_ok=True)
    (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)
    (folder / "cohort.yaml").write_text(yaml.safe_dump({"covariates": KINDS} | settings, allow_unicode=True))
    return folder


def csv(table: pd.DataFrame = TABLE, **options) -> str:
    return table.to_csv(index=False, **options)


def read(folder: Path, wanted: pd.DataFrame = TABLE) -> str:
    """How the table was read, which must come to these values."""
    found = read_cohort(folder)
    np.testing.assert_array_equal(found.table["time"], wanted["time_days"])
    np.testing.assert_array_equal(found.table["event"], wanted["event"] == 1)
    np.testing.assert_array_equal(found.table[list(KINDS)], wanted[list(KINDS)])
    return found.read_as.partition(": ")[2]


def faults(folder: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_cohort(folder)
    return caught.value.faults


class TestFiles:
    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (csv(sep="|"), "separated by vertical bars"),
            ("sep=;\r\n" + csv(sep=";", lineterminator="\r\n"), "separated by semicolons"),
            ('\ufeff"sep=|"\n' + csv(sep="|"), "separated by vertical bars"),
            ("Study X, centre B, 2020\n# made on 2024-02-01\n\n" + csv(sep=";"),
             "separated by semicolons, the header is row 4"),
            ("# a,b,c,d,e,f,g,h\n" + csv(), "the header is row 2"),
            ("Study X,,,,\n,,,,\n" + csv(), "the header is row 3"),
            (csv(lineterminator="\r"), ""),
            (csv().encode("utf-16-le"), "taken for UTF-16"),
            (csv().encode("utf-16-be"), "taken for UTF-16"),
            (csv().replace("time_days,", "\u00a0time_days ,").replace("age", "\u200bage\u2009"), ""),
        ],
    )  # fmt: skip
    def test_every_file_gives_the_same_values(self, tmp_path, data, said):
        assert read(cohort(tmp_path, data)) == said

    def test_rows_below_a_title_are_numbered_as_a_spreadsheet_shows_them(self, tmp_path):
        table = TABLE.assign(age=["old", *TABLE["age"][1:]])
        (fault,) = faults(cohort(tmp_path, "Study\n\n" + csv(table)))
        assert fault.startswith("cohort.csv row 4, column age: 'old'")
        (fault,) = faults(cohort(tmp_path, "sep=,\n" + csv(table)))  # Excel does not show that line
        assert fault.startswith("cohort.csv row 2, column age: 'old'")

    @pytest.mark.parametrize("columns", [[*TABLE], ["patient_id", "age"], [*TABLE, "sex", "image", "split"]])
    def test_a_second_block_of_patients_is_refused(self, tmp_path, columns):
        block = csv(TABLE.assign(sex=1, image="", split="train")[columns])
        for between in ("", "\n", "Centre B\n"):
            (fault,) = faults(cohort(tmp_path, "Centre A\n" + csv() + between + block.replace("age", " Age")))
            row = 43 + bool(between)
            assert fault == f"cohort.csv row {row}: a header again, as in row 2; put all patients under one header"

    def test_a_second_block_of_boxes_is_refused(self, tmp_path):
        cohort(tmp_path, csv())
        boxes = "patient_id,x_min,y_min,x_max,y_max\nP000,1,1,5,9\n"
        (tmp_path / "vertebrae.csv").write_text(
            boxes + boxes.replace("max\n", "max,level\n").replace("9\n", "9,T4\n")
        )
        assert faults(tmp_path)[0].startswith("vertebrae.csv row 3: a header again, as in row 1")

    @pytest.mark.parametrize(("encoding", "end", "said"), [("mac_roman", "\r", "Mac Roman"), ("utf-8", "\n", "")])
    def test_letters_of_a_header_are_the_same_however_they_are_written(self, tmp_path, encoding, end, said):
        name = "Größe" if said else "Gro\u0308ße"  # one letter, or two that a screen shows as one
        data = csv(TABLE.rename(columns={"age": name}), lineterminator=end).encode(encoding)
        assert read(cohort(tmp_path, data, columns={"age": "Größe"})) == ("taken for Mac Roman" if said else "")

    @pytest.mark.parametrize(
        ("file", "data", "says"),
        [
            ("cohort.xls", OLE + bytes(600) + "Workbook".encode("utf-16-le"), "save it as cohort.xlsx"),
            ("cohort.xlsx", OLE + bytes(600) + "EncryptedPackage".encode("utf-16-le"), "locked with a password"),
            ("cohort.csv", "<html><table><tr><td>patient_id</td></tr></table></html>", "HTML"),
            ("cohort.csv", csv(sep=" "), "the header is one field, 'patient_id time_days event age smoker'"),
        ],
    )
    def test_other_files_are_named(self, tmp_path, file, data, says):
        (fault,) = faults(cohort(tmp_path, data, file))
        assert fault.startswith(f"{file}: ")
        assert says in fault

    @pytest.mark.parametrize(
        ("file", "said"), [("cohort.tsv", "separated by tabs"), ("cohort.xls", "separated by tabs")]
    )
    def test_tabs_by_other_names(self, tmp_path, file, said):
        assert read(cohort(tmp_path, csv(sep="\t"), file)) == said

    @pytest.mark.parametrize("file", ["cohort.xlsx", "cohort.csv"])
    @pytest.mark.parametrize("merged", [False, True])
    def test_a_workbook_with_a_title_or_a_merged_header(self, tmp_path, file, merged):
        cohort(tmp_path, csv())
        (tmp_path / "cohort.csv").unlink()
        book = openpyxl.Workbook()
        sheet = book.active
        sheet.title = "Cohort"
        book.create_sheet("notes").append(["hello"])
        book.create_sheet("Sheet3")
        for row in [list(TABLE.columns), *TABLE.astype(object).itertuples(index=False)]:
            sheet.append(list(row))
        sheet.insert_rows(1, 2)
        sheet["A1"] = "Study X"
        if merged:
            sheet["A2"], sheet["B2"], sheet["E2"], sheet["A3"], sheet["E3"] = (
                "patient_id",
                "Outcome",
                "smoker",
                None,
                None,
            )
            for cells in ("A2:A3", "B2:D2", "E2:E3"):
                sheet.merge_cells(cells)
        book.save(tmp_path / "cohort.xlsx")
        (tmp_path / "cohort.xlsx").rename(tmp_path / file)
        assert read(tmp_path) == "sheet Cohort, the header is row 3"


class TestNumbers:
    @pytest.mark.parametrize("space", [" ", "\u00a0", "\u202f", "\u2009", "'", "\u2019"])
    def test_thousands_set_apart(self, tmp_path, space):
        table = TABLE.assign(time_days=[f" {day:,.0f} ".replace(",", space) for day in TABLE["time_days"]])
        read(cohort(tmp_path, csv(table, sep=";")))

    @pytest.mark.parametrize("minus", "-\u2212\u2013\u2010\uff0d")
    @pytest.mark.parametrize("mark", ".,")
    def test_every_minus(self, tmp_path, minus, mark):
        below = TABLE.assign(age=(TABLE["age"] - 100).round(1), time_days=TABLE["time_days"].astype(int))
        table = below.assign(age=[f"{age:.1f}".replace("-", minus).replace(".", mark) for age in below["age"]])
        read(cohort(tmp_path, csv(table, sep=";")), below)

    @pytest.mark.parametrize(("thousand", "mark"), [(".", ","), (",", ".")])
    def test_marks_of_thousands_that_a_number_gives_away(self, tmp_path, thousand, mark):
        halves = TABLE.assign(time_days=TABLE["time_days"] + 0.5)

        def written(number):
            return f"{number:,.1f}".translate(str.maketrans(",.", thousand + mark))

        table = halves.assign(time_days=halves["time_days"].map(written), age=halves["age"].map(written))
        read(cohort(tmp_path, csv(table, sep=";")), halves)
        # of millions, no number needs another mark
        large = TABLE.assign(age=[1_234_567 + 1000 * k if k % 2 else 999 - k for k in range(N)])
        table = large.assign(age=[f"{age:,}".replace(",", thousand) for age in large["age"]])
        read(cohort(tmp_path, csv(table, sep=";")), large)
        # one that is written the other way, or that has other groups, is refused
        for odd in (f"12{mark}345{thousand}6", f"12{thousand}34", f"1{thousand}5"):
            table.loc[3, "age"] = odd
            assert any("column age" in fault for fault in faults(cohort(tmp_path, csv(table, sep=";"))))


class TestCodes:
    def test_values_give_codes_their_numbers(self, tmp_path):
        words = np.where(TABLE["smoker"] == 1, "Ja", " nein")
        table = TABLE.assign(smoker=words, event=np.where(TABLE["event"] == 1, "Fraktur", "zensiert"))
        values = {"smoker": {"ja": 1, "nein": 0}, "event": {"Fraktur": 1, "zensiert": 0}}
        assert read(cohort(tmp_path, csv(table), values=values)) == ""
        table.loc[3, "smoker"] = "vielleicht"
        (fault,) = faults(cohort(tmp_path, csv(table), values=values))
        assert fault.startswith("cohort.csv row 5, column smoker: 'vielleicht'; must be 0 or 1")
        values["smoker"]["vielleicht"] = None
        found = read_cohort(cohort(tmp_path, csv(table), values=values, missing_covariates="impute"))
        assert found.table["smoker"].isna().sum() == 1
        # whole numbers, as a spreadsheet may write them, and YAML's yes and no
        table = TABLE.assign(
            smoker=[f"{k + 1}.0" for k in TABLE["smoker"]], event=np.where(TABLE["event"], "yes", "No")
        )
        assert read(cohort(tmp_path, csv(table), values={"smoker": {1: 0, 2: 1}, "event": {True: 1, False: 0}})) == ""
        # a fraction among decimal commas
        table = TABLE.astype({"time_days": int}).assign(age=["unknown", *map("{:.1f}".format, TABLE["age"][1:])])
        data = csv(table, sep=";").replace(".", ",")
        found = read_cohort(cohort(tmp_path, data, values={"age": {"unknown": 77.5}}, missing_covariates="impute"))
        assert found.table["age"][:2].tolist() == [77.5, TABLE["age"][1]]

    @pytest.mark.parametrize(
        ("values", "place"),
        [
            ({"smokr": {"ja": 1}}, "cohort.yaml, values: 'smokr' is no covariate, nor event (is smoker meant?)"),
            ({"smoker": {"ja": "yes"}}, "cohort.yaml, values, smoker, ja: 'yes'; must be a number"),
            ({"smoker": {"JA": 0, "ja": 1}}, "cohort.yaml, values, smoker: 'ja' is given twice"),
            ({"smoker": 1}, "cohort.yaml, values, smoker: 1; must hold `name: value` lines"),
        ],
    )
    def test_faulty_values(self, tmp_path, values, place):
        (fault,) = faults(cohort(tmp_path, csv(), values=values))
        assert fault.startswith(place)

    @pytest.mark.parametrize(("yes", "no"), [("Yes", "No"), ("TRUE", "FALSE"), ("Checked", "Unchecked")])
    def test_plain_words_are_understood_and_reported(self, tmp_path, yes, no):
        table = TABLE.assign(smoker=np.where(TABLE["smoker"] == 1, yes, no)).rename(columns={"smoker": "SMK"})
        said = f"{yes.lower()} = 1 and {no.lower()} = 0 in SMK"
        assert read(cohort(tmp_path, csv(table), columns={"smoker": "SMK"})) == said
        table.loc[3, "SMK"] = "nein"
        (fault,) = faults(cohort(tmp_path, csv(table), columns={"smoker": "SMK"}))
        assert fault.startswith("cohort.csv row 5, column SMK: 'nein'")

    def test_words_beside_a_code_of_ones_own(self, tmp_path):
        table = TABLE.assign(smoker=["unbekannt", *np.where(TABLE["smoker"][1:] == 1, "Yes", "No")])
        folder = cohort(tmp_path, csv(table), values={"smoker": {"unbekannt": None}}, missing_covariates="impute")
        found = read_cohort(folder)
        assert found.read_as == "cohort.csv: yes = 1 and no = 0 in smoker"
        np.testing.assert_array_equal(found.table["smoker"], [np.nan, *TABLE["smoker"][1:]])

    def test_other_words_get_the_line_to_add(self, tmp_path):
        table = TABLE.assign(smoker=np.where(TABLE["smoker"] == 1, "w", "m"))
        fault = faults(cohort(tmp_path, csv(table)))[0]
        assert fault.startswith("cohort.csv, column smoker: holds m and w; code them as 0 and 1")
        assert "`values: {smoker: {m: 0, w: 1}}`" in fault

    @pytest.mark.parametrize("word", ["Yes", "TRUE", "checked"])
    def test_a_word_beside_a_2_is_told_as_it_stands(self, tmp_path, word):
        table = TABLE.assign(smoker=np.where(TABLE["smoker"] == 1, word, "2"))
        (fault,) = faults(cohort(tmp_path, csv(table)))
        assert fault.startswith(f"cohort.csv, column smoker: holds 2 and {word.lower()}; code them as 0 and 1")
        assert read(cohort(tmp_path, csv(table), values={"smoker": {2: 0, word: 1}})) == ""

    @pytest.mark.parametrize(("one", "zero"), [("1,0", "0,00"), ("1.00", "0.0"), ("TRUE", "False")])
    def test_events(self, tmp_path, one, zero):
        table = TABLE.assign(event=np.where(TABLE["event"] == 1, one, zero))
        read(cohort(tmp_path, csv(table, sep=";")))

    @pytest.mark.parametrize("kind", ["bool", "boolean", "Int64", "category", "object"])
    def test_booleans_in_parquet(self, tmp_path, kind):
        table = TABLE.assign(**{name: TABLE[name].astype("bool").astype(kind) for name in ("smoker", "event")})
        cohort(tmp_path, csv())
        (tmp_path / "cohort.csv").unlink()
        table.to_parquet(tmp_path / "cohort.parquet")
        read(tmp_path)


def dated(how: str = "%Y-%m-%d") -> pd.DataFrame:
    """The table with dates from which its times come; who had the event was seen no more."""
    rng = np.random.default_rng(1)
    start = pd.Series(pd.Timestamp("2010-03-15") + pd.to_timedelta(rng.integers(0, 700, N), "D"))
    end, had = start + pd.to_timedelta(TABLE["time_days"], "D"), TABLE["event"] == 1
    dates = {DATES[0]: start.dt.strftime(how), DATES[1]: end.dt.strftime(how).where(had, "")}
    dates[DATES[2]] = end.dt.strftime(how).where(~had, "")
    return TABLE.drop(columns=["time_days", "event"]).assign(**dates)


def test_columns_of_parquet_that_differ_by_spaces_are_refused(tmp_path):
    cohort(tmp_path, csv())
    (tmp_path / "cohort.csv").unlink()
    TABLE.assign(**{"age ": 1}).to_parquet(tmp_path / "cohort.parquet")
    assert faults(tmp_path) == ["cohort.parquet: 2 columns are called 'age'; which is meant?"]


class TestDates:
    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ("%Y-%m-%d", ""), ("%Y-%m-%dT08:30:00", ""), ("%d.%m.%Y", ""), ("%Y/%m/%d", ""), ("%Y%m%d", ""),
            ("%d%b%Y", ""), ("%d-%B-%Y", ""), ("%d/%m/%Y 8:30", ", day first"), ("%m/%d/%Y", ", month first"),
            ("%m-%d-%Y", ", month first"),
        ],
    )  # fmt: skip
    def test_times_come_from_dates(self, tmp_path, how, said):
        assert read(cohort(tmp_path, csv(dated(how)))) == f"times from dates{said}"

    @pytest.mark.parametrize("year", ["%y", "00%y"])
    @pytest.mark.parametrize("column", DATES)
    def test_years_of_two_digits_in_one_column_are_told_alone(self, tmp_path, column, year):
        table = dated("%d.%m.%Y").assign(**{column: dated(f"%d.%m.{year}")[column]})
        told = faults(cohort(tmp_path, csv(table)))
        words = "write the year with four digits"
        assert all(f"column {column}: " in fault and words in fault for fault in told), told

    @pytest.mark.parametrize("file", ["cohort.parquet", "cohort.xlsx"])
    def test_as_dates_of_a_program(self, tmp_path, file):
        cohort(tmp_path, csv())
        (tmp_path / "cohort.csv").unlink()
        table = dated()
        table[DATES] = table[DATES].apply(pd.to_datetime)
        table.to_parquet(tmp_path / file) if file.endswith("parquet") else table.to_excel(
            tmp_path / file, index=False
        )
        assert read(tmp_path) == "times from dates"

    def test_with_a_column_of_events_and_names_of_ones_own(self, tmp_path):
        table = dated().assign(FX=TABLE["event"])
        names = {"baseline_date": "Aufnahme", "event_date": "Fraktur", "last_seen_date": "Zuletzt"}
        columns = names | {"event": "FX"}
        read(cohort(tmp_path, csv(table.rename(columns=names)), columns=columns))
        swapped = table.rename(columns=names).assign(FX=1 - table["FX"])
        told = faults(cohort(tmp_path, csv(swapped), columns=columns))
        assert [fault.partition("column ")[2] for fault in told] == [
            "Fraktur: empty, but FX is not 0", "Fraktur: filled, but FX is 0"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "name", ["Event_Date", "event date", "eventdate", "date_of_event", "fracture_date", "died_on", None]
    )
    def test_an_event_has_a_date_under_its_own_name(self, tmp_path, name):
        table = dated().assign(event=TABLE["event"], last_seen_date="2020-12-31")
        table = table.rename(columns={"event_date": name}) if name else table.drop(columns="event_date")
        (fault,) = faults(cohort(tmp_path, csv(table)))
        assert fault.startswith("cohort.csv: no column 'event_date'")
        assert name in (None, "died_on") or f"(is {name} meant?)" in fault

    def test_a_column_of_events_nearly_named_right_is_a_fault(self, tmp_path):
        (fault,) = faults(cohort(tmp_path, csv(dated().assign(Event=TABLE["event"]))))
        assert fault == "cohort.csv: no column 'event' (for event); is 'Event' meant? Call it event"

    def test_every_fault_of_a_date_is_listed(self, tmp_path):
        table = dated()
        had, free = (np.flatnonzero(TABLE["event"] == k) for k in (1, 0))
        wanted = {}
        for row, column, value, what in [
            (had[0], 0, "2199-01-01", "'2199-01-01'; in the future"),
            (had[1], 0, "", "column baseline_date: empty; must be a date"),
            (had[2], 1, "2001-01-01", "column event_date: 2001-01-01, before baseline_date"),
            (had[3], 1, table[DATES[0]][had[3]], "the same day as baseline_date"),
            (had[4], 2, "2010-01-01", "column last_seen_date: 2010-01-01, before the event"),
            (had[5], 1, "none", "'none'; must be a date"),
            (had[6], 0, "43861", "'43861'; must be a date"),
            (had[7], 0, "1010-01-01", "before 1900"),
            (had[8], 0, "31.12.09", "write the year with four digits"),
            (free[1], 2, "2020-02-30", "there is no such day"),
            (free[2], 2, "9999-12-31", "in the future"),
            (free[3], 2, "", "last_seen_date and the date of an event: both empty"),
            (free[4], 2, "2001-01-01", "column last_seen_date: 2001-01-01, before baseline_date"),
        ]:
            table.loc[row, DATES[column]] = value
            wanted[int(row) + 2] = what
        told = faults(cohort(tmp_path, csv(table)))
        for row, what in wanted.items():
            assert any(fault.startswith(f"cohort.csv row {row},") and what in fault for fault in told), (row, told)

    def test_an_order_that_no_date_tells_is_refused(self, tmp_path):
        table = dated().assign(baseline_date="03/04/2010", last_seen_date="05/06/2015")
        table["event_date"] = table["event_date"].where(table["event_date"] == "", "05/06/2014")
        (fault,) = faults(cohort(tmp_path, csv(table)))
        assert "does 03/04/2010 begin with the day or the month?" in fault
        table.loc[0, "baseline_date"] = "31/01/2010"
        assert read_cohort(cohort(tmp_path, csv(table))).table["time"][1] == 1524 + 365  # 3 April to 5 June
        table.loc[1, "baseline_date"] = "01/31/2010"
        (fault,) = faults(cohort(tmp_path, csv(table)))
        assert "31/01/2010 has the day first, 01/31/2010 the month" in fault

    @pytest.mark.parametrize("column", DATES)
    @pytest.mark.parametrize(
        ("one", "other"), [("%Y-%m-%d", "%d/%m/%Y"), ("%d.%m.%Y", "%m/%d/%Y"), ("%d %b %Y", "%m-%d-%Y")]
    )
    def test_two_ways_of_writing_in_a_column_are_refused(self, tmp_path, column, one, other):
        table = dated(one)
        filled = np.flatnonzero(table[column] != "")
        table.loc[filled[1::2], column] = dated(other)[column][filled[1::2]]
        (fault,) = faults(cohort(tmp_path, csv(table)))
        first = " and ".join(table[column][filled[:2]])
        assert fault.startswith(f"cohort.csv, column {column}: {first} are written in different ways")
        read(cohort(tmp_path, csv(dated(one).assign(**{column: dated(other)[column]}))))  # each column in its own

    def test_dates_that_excel_left_as_text_are_refused(self, tmp_path):
        table = dated("%d/%m/%Y").astype(object)
        for name in DATES:
            cells = pd.to_datetime(table[name], format="%m/%d/%Y", errors="coerce")
            table[name] = [text if pd.isna(cell) else cell for cell, text in zip(cells, table[name], strict=True)]
        cohort(tmp_path, csv())
        (tmp_path / "cohort.csv").unlink()
        table.to_excel(tmp_path / "cohort.xlsx", index=False)
        told = faults(tmp_path)
        assert len(told) == 3
        assert all("are written in different ways" in fault for fault in told)

    def test_the_same_fault_in_every_row_is_one_line(self, tmp_path):
        told = faults(cohort(tmp_path, csv(dated("%d.%m.%y"))))
        assert len(told) == 3
        assert all("write the year with four digits" in fault for fault in told)

    def test_times_and_dates_are_not_both_taken(self, tmp_path):
        both = dated().assign(time_days=TABLE["time_days"], event=TABLE["event"])
        found = cohort(tmp_path, csv(both))
        assert read(found) == ""
        (fault,) = faults(cohort(tmp_path, csv(both), columns={"baseline_date": "baseline_date"}))
        assert fault.startswith("cohort.yaml, columns: time_days and baseline_date;")
        (fault,) = faults(cohort(tmp_path, csv(dated()), time_unit="months"))
        assert fault.startswith("cohort.yaml, time_unit: months")
        (fault,) = faults(cohort(tmp_path, csv(dated().drop(columns="last_seen_date"))))
        assert fault.startswith("cohort.csv: no column 'last_seen_date'")

    @pytest.mark.parametrize("column", ["time_days", "event", "age"])
    @pytest.mark.parametrize("how", ["%d.%m.%Y", "%Y-%m-%d 00:00:00", "%m/%d/%y", "%d %b %Y", "%Y%m%d"])
    def test_a_date_for_a_number_is_one_line(self, tmp_path, column, how):
        dates = dated(how)["baseline_date"]
        table = TABLE.assign(**{column: dates.where(TABLE["event"] == 1, "") if column == "event" else dates})
        (fault,) = faults(cohort(tmp_path, csv(table)))
        assert (
            f"column {column}: '{table[column][TABLE['event'].idxmax() if column == 'event' else 0]}'; a date"
            in fault
        )


class TestDelayedEntry:
    @pytest.mark.parametrize(
        "name",
        [
            "entry", "start", "entry_days", "tstart", "Delayed_Entry", "start time", "t.start", "left_truncation",
            "t0", "entry_time_days", "start_time_days", "entry_day", "start_day", "age_at_entry", "enrolment_days",
            "inclusion_days", "observation_start", "time_in", "days_to_enrollment", "months at study entry",
        ],
    )  # fmt: skip
    def test_is_refused_by_name(self, tmp_path, name):
        table = TABLE.rename(columns={"time_days": "stop", "event": "status"}).assign(**{name: np.arange(N) + 0.5})
        for mark in ".,":
            data = csv(table.assign(age=70).astype({"stop": int}), sep=";", decimal=mark)
            (fault,) = faults(cohort(tmp_path, data, columns={"time_days": "stop", "event": "status"}))
            assert fault.startswith(f"cohort.csv, column {name}: looks like the time from which")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("start", 0), ("start", "clinic"), ("start_date", 5), ("restart", 5), ("start_date", "2019-12-31"),
            ("baseline_days", 5), ("baseline_age", 70), ("entry_year", 2015), ("study_start_year", "2015"),
            ("entry_date", "2015-01-31"), ("entry_date", "43861"), ("entry", "20150131"), ("time_in_days", 5),
            ("treatment_start_days", 5), ("age_in_years", 70), ("inclusion", 1),
        ],
    )  # fmt: skip
    def test_other_columns_are_left_alone(self, tmp_path, name, value):
        assert read(cohort(tmp_path, csv(TABLE.assign(**{name: value})))) == ""

    @pytest.mark.parametrize("name", ["entry", "entry_date", "Enrolment date", "date_of_inclusion"])
    @pytest.mark.parametrize("how", ["%Y-%m-%d", "%d/%m/%Y", "%Y%m%d"])
    @pytest.mark.parametrize("times", [True, False])
    def test_dates_after_the_baseline_are_refused(self, tmp_path, name, how, times):
        table = dated(how).assign(**TABLE[["time_days", "event"]]) if times else dated(how)
        start = pd.to_datetime(dated()["baseline_date"])
        for days in (0, -9):  # before the radiograph
            read(cohort(tmp_path, csv(table.assign(**{name: (start + pd.Timedelta(days, "D")).dt.strftime(how)}))))
        late = (start + pd.to_timedelta(np.arange(N), "D")).dt.strftime(how)
        (fault,) = faults(cohort(tmp_path, csv(table.assign(**{name: late}))))
        assert fault.startswith(f"cohort.csv, column {name}: looks like the time from which")

    def test_a_start_date_is_no_entry(self, tmp_path):
        read(cohort(tmp_path, csv(dated().assign(start_date="2019-12-31", enrolled_by="2019-12-31"))))

    def test_under_a_name_of_ones_own(self, tmp_path):
        (fault,) = faults(cohort(tmp_path, csv(TABLE.assign(Eintritt=5)), columns={"entry_days": "Eintritt"}))
        assert "unknown name 'entry_days'" in fault
        assert "Delayed entry (left truncation) is not supported" in fault

    def test_a_column_that_is_read_is_none(self, tmp_path):
        table = TABLE.rename(columns={"age": "entry"})
        assert read(cohort(tmp_path, csv(table), columns={"age": "entry"})) == ""

    @pytest.mark.parametrize("start", [True, False])
    def test_several_rows_a_patient_are_one_line(self, tmp_path, start):
        table = pd.concat([TABLE.assign(start=0), TABLE.assign(start=100)])
        told = faults(cohort(tmp_path, csv(table if start else table.drop(columns="start"))))
        assert len(told) == 1 + start
        assert told[-1].startswith("cohort.csv, column patient_id: 40 patients have several rows")
        # two or three ids given twice are slips, and told as such
        table = TABLE.assign(patient_id=["P001", *TABLE["patient_id"][1:]])
        (fault,) = faults(cohort(tmp_path, csv(table)))
        assert "must be unique" in fault


class TestMessages:
    def test_without_a_known_name_the_columns_are_parted_as_most_rows_are(self, tmp_path):
        table = TABLE.rename(columns=dict(zip(TABLE, ["PatNr", "Tage", "Fraktur", "Alter", "Raucher"], strict=False)))
        for title in ("Register, Stand 2020, Klinik", "Register"):
            data = f"{title}{';' * (table.shape[1] - 1)}\n{csv(table, sep=';', decimal=',')}"
            told = faults(cohort(tmp_path, data))
            assert "no column 'patient_id'" in told[0], told
            assert "PatNr" in told[0], told

    def test_a_word_for_a_number_gets_the_line_for_its_code(self, tmp_path):
        (told,) = faults(cohort(tmp_path, csv(TABLE.assign(smoker="nein"))))
        assert "give words their codes in cohort.yaml, as in `values: {smoker: {nein: 0, …}}`" in told

    def test_a_file_in_a_folder_is_named_with_it(self, tmp_path):
        folder = cohort(tmp_path, csv(TABLE.assign(image=[f"{k}.png" for k in range(N)])))
        (folder / "images").mkdir()
        for k in range(N):
            (folder / "images" / f"{k}.png").write_bytes(b"")
        assert "is 'images/0.png' meant?" in faults(folder)[0]

    def test_a_missing_column_gets_its_line(self, tmp_path):
        table = TABLE.rename(columns={"time_days": "FU_days", "patient_id": "Patient-Nr", "age": "Alter"})
        first, second, third = faults(
            cohort(
                tmp_path,
                csv(table).replace("smoker\n", "smoker" + "".join(f",note {k}" for k in range(300)) + "\n", 1),
            )
        )
        assert first.startswith("cohort.csv: no column 'patient_id' (is Patient-Nr meant?); ")
        assert "`columns: {patient_id: Patient-Nr}`; there are Patient-Nr, FU_days" in first
        assert len(first) < 400
        assert second.endswith("cohort.yaml, `columns: {time_days: FU_days}`")
        assert third.startswith("cohort.csv: no column 'age'")

    def test_columns_have_the_users_names(self, tmp_path):
        table = TABLE.rename(columns={"time_days": "FU", "age": "ALTER", "event": "FX", "patient_id": "NR"})
        columns = {"time_days": "FU", "age": "ALTER", "event": "FX", "patient_id": "NR"}
        odd = table.assign(ALTER=78 * 12, FU=table["FU"] / 365.25, NR=[f"Anna Maier {k}" for k in range(N)])
        lines = implausible_values(read_cohort(cohort(tmp_path, csv(odd), columns=columns)))
        starts = (
            "column NR: 40 look like a name",
            "column ALTER: the same",
            "column ALTER, row 2: 936",
            "column FU:",
        )
        assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == list(starts)
        broken = table.assign(FX=0, BILD="")
        told = faults(cohort(tmp_path, csv(broken), columns=columns | {"image": "BILD"}))
        assert told[0].startswith("cohort.csv, column FX: no patient has an event")
        assert "column BILD: empty" in told[1]


class TestHorizons:
    def test_years_for_days_are_refused_and_months_asked_about(self, tmp_path):
        (fault,) = faults(cohort(tmp_path, csv(), horizons=[1, 3, 5]))
        assert fault.startswith("cohort.yaml, horizons: 5 days is the last, by which 0 of 40 patients had the event")
        assert "Are these years?" in fault
        (line,) = [line for line in implausible_values(read_cohort(cohort(tmp_path, csv(), horizons=[12, 36, 60])))
                   if line.startswith("cohort.yaml")]  # fmt: skip
        assert "are the horizons in months or years?" in line
        # days after an operation, in which much happens
        early = TABLE.assign(time_days=[*range(1, 21), *TABLE["time_days"][20:]], event=1)
        read(cohort(tmp_path, csv(early), horizons=[10, 29]), early)
        read(cohort(tmp_path, csv(), horizons=[365, 1826]))


def test_a_cohort_without_outcomes_needs_no_dates(tmp_path):
    table = tabular(5).drop(columns=["time_days", "event"]).assign(baseline_date="01.02.20", start=5, smoker="yes")
    found = read_cohort(write_cohort(tmp_path, table, covariates=KINDS), outcome=False)
    assert found.table["smoker"].tolist() == [1.0] * 5
