"""Broken and malicious cohorts, each a sound one with one thing changed, and what a user must be told of it."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pydicom
import yaml
from PIL import Image
from pydicom.uid import JPEGLosslessSV1

from tests.conftest import tabular
from tests.test_radiographs import SIXTEEN, write_dicom

N = 40
SETTINGS = {"covariates": {"age": "continuous", "smoker": "binary"}, "provenance": "simulated"}


class Case(NamedTuple):
    """What is changed in a sound cohort's folder, part of what is said, and the exit code."""

    name: str
    change: Callable[[Path], None]
    says: str
    code: int = 2


def sound(folder: Path) -> Path:
    """A small cohort with radiographs and boxes in which nothing is wrong."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    table = tabular(N)
    table["image"] = [f"images/{k}.png" for k in range(N)]
    for name in table["image"]:
        Image.fromarray(rng.integers(0, 60000, (160, 90), dtype=np.uint16)).save(folder / name)
    table.to_csv(folder / "cohort.csv", index=False)
    write_settings(folder)
    truth = pd.DataFrame({"patient_id": table["patient_id"], "log_hazard": rng.normal(size=N)})
    truth.to_parquet(folder / "truth.parquet")
    boxes = [(p, 20, 10 + 9 * k, 50, 18 + 9 * k) for p in table["patient_id"] for k in range(13)]
    pd.DataFrame(boxes, columns=["patient_id", "x_min", "y_min", "x_max", "y_max"]).to_csv(
        folder / "vertebrae.csv", index=False
    )
    return folder


def write_settings(folder: Path, **settings: object) -> None:
    """`cohort.yaml` with these besides."""
    (folder / "cohort.yaml").write_text(yaml.safe_dump(SETTINGS | {"resolution": 0.1} | settings), encoding="utf-8")


# how a cohort is changed


def cell(column: str, value: object, *rows: int) -> Callable[[Path], None]:
    """Put a value into the table."""

    def change(folder: Path) -> None:
        table = pd.read_csv(folder / "cohort.csv", dtype=str)
        table.loc[list(rows) or [3], column] = value
        table.to_csv(folder / "cohort.csv", index=False)

    return change


def column(name: str, values: Callable[[pd.DataFrame], object]) -> Callable[[Path], None]:
    """Make a whole column anew."""

    def change(folder: Path) -> None:
        table = pd.read_csv(folder / "cohort.csv")
        table[name] = values(table)
        table.to_csv(folder / "cohort.csv", index=False)

    return change


def called(name: str) -> Callable[[Path], None]:
    """Give a patient another id, in every file."""

    def change(folder: Path) -> None:
        for file in ("cohort.csv", "vertebrae.csv"):
            rows(lambda table: table.replace({"patient_id": {"P003": name}}), file)(folder)
        truth(lambda table: table.replace({"patient_id": {"P003": name}}))(folder)

    return change


def table_bytes(data: bytes, file: str = "cohort.csv") -> Callable[[Path], None]:
    """Write a file of the cohort as it stands here; another table in its place."""

    def change(folder: Path) -> None:
        if file.startswith("cohort.") and not file.endswith("yaml"):
            (folder / "cohort.csv").unlink()
        (folder / file).write_bytes(data)

    return change


def edited(how: Callable[[str], str], file: str = "cohort.csv") -> Callable[[Path], None]:
    """Change a file's text."""

    def change(folder: Path) -> None:
        (folder / file).write_text(how((folder / file).read_text()))

    return change


def rows(how: Callable[[pd.DataFrame], pd.DataFrame], file: str = "cohort.csv") -> Callable[[Path], None]:
    """Change a table."""

    def change(folder: Path) -> None:
        how(pd.read_csv(folder / file)).to_csv(folder / file, index=False)

    return change


def workbook(how: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The table as an Excel workbook with damaged bytes."""

    def change(folder: Path) -> None:
        pd.read_csv(folder / "cohort.csv").to_excel(folder / "cohort.xlsx", index=False)
        (folder / "cohort.csv").unlink()
        (folder / "cohort.xlsx").write_bytes(how((folder / "cohort.xlsx").read_bytes()))

    return change


WORKBOOKS: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "packed in a way that does not exist": lambda data: data.replace(b"PK\x01\x02\x14\x03\x14\0\0\0\x08\0", b"PK\x01\x02\x14\x03\x14\0\0\0\x63\0"),
    "locked": lambda data: data.replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\x01\0"),
    "turned over inside": lambda data: data[:200] + bytes(255 - byte for byte in data[200:900]) + data[900:],
}  # fmt: skip


def setting(**settings: object) -> Callable[[Path], None]:
    """Change `cohort.yaml`."""
    return lambda folder: write_settings(folder, **settings)


def picture(write: Callable[[Path], object], name: str = "images/3.png") -> Callable[[Path], None]:
    """Put another file in the place of a radiograph, by a name of its own if it is no PNG."""

    def change(folder: Path) -> None:
        (folder / "images/3.png").unlink()
        write(folder / name)
        cell("image", name)(folder)

    return change


def damaged(path: Path, write: Callable[[Path], object]) -> None:
    """Half of a file."""
    write(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has this size; there is next to nothing in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


def dicom_with(**values: object) -> Callable[[Path], None]:
    """A DICOM file with other header values."""

    def write(path: Path) -> None:
        header = pydicom.dcmread(write_dicom(path, SIXTEEN))
        for name, value in values.items():
            setattr(header, name, value)
        header.save_as(path)

    return picture(write, "images/x.dcm")


def lossless_nonsense(path: Path) -> None:
    """A DICOM file whose compressed picture is none."""
    header = pydicom.dcmread(write_dicom(path, SIXTEEN))
    header.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    header.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x08\0\0\0" + b"\xff\xd8\xff\xc3nons"
    header["PixelData"].VR, header["PixelData"].is_undefined_length = "OB", True
    header.save_as(path)


def big_workbook(folder: Path) -> None:
    """A workbook of half a megabyte that is half a gigabyte when unpacked."""
    (folder / "cohort.csv").unlink()
    file = zipfile.ZipFile(folder / "cohort.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with file as packed, packed.open("xl/worksheets/sheet1.xml", "w") as sheet:
        for _ in range(501):
            sheet.write(b" " * 1_000_000)


def link(to: str) -> Callable[[Path], object]:
    """A symbolic link."""
    return lambda path: path.symlink_to(to)


def parquet(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """The table as Parquet."""

    def write(folder: Path) -> None:
        change(pd.read_csv(folder / "cohort.csv")).to_parquet(folder / "cohort.parquet")
        (folder / "cohort.csv").unlink()

    return write


def truth(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    """Another truth."""
    return lambda folder: change(pd.read_parquet(folder / "truth.parquet")).to_parquet(folder / "truth.parquet")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

TABLES = [
    Case("no table", lambda f: (f / "cohort.csv").unlink(), "holds no cohort.csv"),
    Case("empty table file", table_bytes(b""), "cohort.csv: the file is empty"),
    Case("a header and no patients", edited(lambda t: t.splitlines()[0] + "\n"), "holds no patients"),
    Case("a picture called cohort.csv", table_bytes(png_of(9, 9)), "holds something other than text"),
    Case("bytes of no encoding", table_bytes(b"patient_id,\x81\x8d\n"), "cohort.csv: not readable"),
    Case("two tables", lambda f: (f / "cohort.parquet").write_bytes(b""), "holds cohort.csv and cohort.parquet; keep one"),
    Case("text called Parquet", table_bytes(b"hello", "cohort.parquet"), "it must be Parquet"),
    Case("text called Excel", table_bytes(b"hello", "cohort.xlsx"), "it must be an Excel workbook"),
    Case("a decompression bomb called Excel", big_workbook, "bytes when unpacked; not read"),
    Case("a field too many", edited(lambda t: t.replace("P003,", "P003,,")), "but the header has"),
    Case("a quote that is never closed", edited(lambda t: t.replace("P003", '"P003')), "row 5: a quotation mark opens a field there"),
    Case("a quote that swallows rows", edited(lambda t: t.replace("P003", '"P003').replace("P007", 'P007"')), "column patient_id: "),
    Case("thousands with a point", column("time_days", lambda t: [f"{int(d) + 900:,}".replace(",", ".") for d in t["time_days"]]), "over a thousand, or has it three decimals?"),
    *(Case(f"a damaged workbook, {what}", workbook(how), "it must be an Excel workbook") for what, how in WORKBOOKS.items()),
    Case("two columns of one name", edited(lambda t: t.replace("image", "age", 1)), "2 columns are called 'age'"),
    Case("decimal points and commas", edited(lambda t: t.replace(",", ";").replace("7.", "7,")), "use one of them"),
    Case("no patient_id", edited(lambda t: t.replace("patient_id", "id", 1)), "no column 'patient_id'"),
    Case("no event", edited(lambda t: t.replace("event", "status", 1)), "no column 'event'"),
    Case("a field of a million characters", cell("patient_id", "x" * 1_000_000), "cohort.csv row 5"),
    Case("a covariate that is not there", setting(covariates={"age": "continuous", "bmi": "continuous"}), "no column 'bmi'"),
    Case("durations in Parquet", parquet(lambda t: t.assign(time_days=pd.to_timedelta(t["time_days"], "D"))), "no dates or durations"),
    Case("dates in Parquet", parquet(lambda t: t.assign(age=pd.Timestamp("1940-01-01"))), "no dates or durations"),
    Case("lists in Parquet", parquet(lambda t: t.assign(age=[[1, 2]] * N)), "column age"),
]  # fmt: skip
VALUES = [
    Case("the same id twice", cell("patient_id", "P004"), "must be unique"),
    Case("an empty id", cell("patient_id", ""), "column patient_id: empty; must be given"),
    Case("time missing", cell("time_days", ""), "column time_days: empty"),
    Case("time not a number", cell("time_days", "nan"), "must be days, above 0"),
    Case("time infinite", cell("time_days", "inf"), "must be days, above 0"),
    Case("time negative", cell("time_days", "-5"), "'-5'; must be days, above 0"),
    Case("time zero", cell("time_days", "0"), "must be days, above 0"),
    Case("time a date", cell("time_days", "2020-01-31"), "must be days, above 0"),
    Case("time beyond all numbers", cell("time_days", "1e400"), "must be days, above 0"),
    Case("event 2", cell("event", "2"), "must be 1 (fracture) or 0 (censored)"),
    Case("event coded 1 and 2", column("event", lambda t: t["event"] + 1), "code them as 0 and 1"),
    Case("event yes and no", column("event", lambda t: np.where(t["event"] == 1, "yes", "no")), "code them as 0 and 1"),
    Case("no events", column("event", lambda t: 0), "no patient has an event"),
    Case("a binary covariate of one half", cell("smoker", "0.5"), "column smoker: '0.5'; must be 0 or 1"),
    Case("a covariate in words", cell("age", "old"), "column age: 'old'; must be a number"),
    Case("a covariate missing", cell("age", ""), "column age: empty; must be a number"),
    Case("a covariate infinite", cell("age", "-inf"), "must be a number"),
    Case("a covariate in hexadecimal", cell("age", "0x4E"), "must be a number"),
    Case("a split of another name", column("split", lambda t: "training"), "must be empty or one of"),
    Case("HTML for a number", cell("age", "<script>alert(1)</script>"), "must be a number"),
    Case("a formula for a number", cell("age", "=1+1"), "must be a number"),
    Case("escape codes for a number", cell("age", "\x1b[31mred\x1b[0m"), "must be a number"),
    Case("hundreds of faults", column("age", lambda t: [f"x{k}" for k in range(N)]), f"{N} faults"),
]  # fmt: skip
SETTINGS_CASES = [
    Case("settings that are no YAML", table_bytes(b"a: [1\nb: }", "cohort.yaml"), "not readable as YAML"),
    Case("settings that are no text", table_bytes(b"\xff\xfe\0\0\xd8", "cohort.yaml"), "not readable as YAML"),
    Case("settings that are a list", table_bytes(b"- a\n- b\n", "cohort.yaml"), "must hold `name: value` lines"),
    Case("settings that would run a program", table_bytes(b"a: !!python/object/apply:os.system ['touch /tmp/owned']", "cohort.yaml"), "not readable as YAML"),
    Case("a billion laughs", table_bytes(LAUGHS.encode(), "cohort.yaml"), "cohort.yaml: unknown setting 'a'"),
    Case("an unknown setting", setting(colour="red"), "cohort.yaml: unknown setting 'colour'"),
    Case("a key given twice", edited(lambda t: t + "\nprovenance: real\n", "cohort.yaml"), "'provenance': given twice"),
    Case("a provenance of another name", setting(provenance="fake"), "cohort.yaml, provenance: 'fake'"),
    Case("covariates in a list", setting(covariates=["age"]), "must hold `name: value` lines"),
    Case("a kind of another name", setting(covariates={"age": "number", "smoker": "binary"}), "cohort.yaml, covariates, age: 'number'"),
    Case("a covariate called event", setting(covariates={"event": "binary"}), "the name is taken"),
    Case("two names for one column", setting(columns={"time_days": "age"}), "each needs a column of its own"),
    Case("a column for nothing", setting(columns={"height": "age"}), "unknown name 'height'"),
    Case("two covariates of one label", setting(labels={"age": "X", "smoker": "X"}), "both are called 'X'"),
    Case("horizons that go back", setting(horizons=[900, 300]), "each later than the one before"),
    Case("horizons in words", setting(horizons="five years"), "cohort.yaml, horizons: 'five years'"),
    Case("resolution 0", setting(resolution=0), "cohort.yaml, resolution: 0; must be above 0"),
    Case("resolution beyond all numbers", edited(lambda t: t + "\nresolution: 1" + "0" * 400 + "\n", "cohort.yaml"), "cohort.yaml, resolution: 1000"),
    Case("settings as deep as a well", table_bytes(b"description: " + b"[" * 20_000, "cohort.yaml"), "not readable as YAML"),
    Case("resolution not a number", setting(resolution=float("nan")), "cohort.yaml, resolution: nan"),
    Case("a unit as long as a novel", setting(time_unit="d" * 1000), "at most 30 characters"),
    Case("a description that is a table", setting(description={"a": 1}), "must be text"),
    Case("values as wished", setting(dicom_values="nice"), "cohort.yaml, dicom_values: 'nice'"),
]  # fmt: skip
PICTURES = [
    Case("a picture that is not there", cell("image", "images/none.png"), "no such file in the cohort folder"),
    Case("a picture above the folder", cell("image", "../../../etc/passwd"), "must not leave the cohort folder"),
    Case("a picture by its whole path", cell("image", "/etc/passwd"), "must not leave the cohort folder"),
    Case("a link out of the folder", picture(link("/etc/passwd"), "images/l.png"), "must not leave the cohort folder"),
    Case("a link in a circle", picture(link("round.png"), "images/round.png"), "cohort.csv row 5, column image"),
    Case("a picture in the way of another system", cell("image", "..\\..\\windows\\x.png"), "no such file"),
    Case("a picture whose name holds a zero byte", edited(lambda t: t.replace("images/3.png", "images/3\\0.png")), "no such file"),
    Case("a folder for a picture", picture(lambda p: p.mkdir(), "images/folder"), "no such file in the cohort folder"),
    Case("nobody with a picture, all left out", lambda f: (setting(missing_images="exclude")(f), column("image", lambda t: "")(f)), "column image: empty for every patient"),
    Case("nobody with a picture, all masked", lambda f: (setting(missing_images="mask")(f), column("image", lambda t: "")(f)), "column image: empty for every patient"),
    Case("some without a picture", cell("image", ""), "give every patient an image"),
    Case("an empty picture", picture(lambda p: p.write_bytes(b"")), "the file is empty"),
    Case("text called PNG", picture(lambda p: p.write_text("hello")), "cannot be read as a radiograph"),
    Case("half a PNG", picture(lambda p: damaged(p, Image.fromarray(SIXTEEN).save)), "cannot be read as a radiograph"),
    Case("half a JPEG", picture(lambda p: damaged(p, Image.fromarray((SIXTEEN >> 8).astype(np.uint8)).save), "images/h.jpg"), "cannot be read"),
    Case("half a DICOM", picture(lambda p: damaged(p, lambda q: write_dicom(q, SIXTEEN)), "images/h.dcm"), "cannot be read"),
    Case("a PNG of 20,000 by 20,000", picture(lambda p: p.write_bytes(png_of(20_000, 20_000))), "100,000,000 pixels; not read"),
    Case("a PNG of 2 billion by 2 billion", picture(lambda p: p.write_bytes(png_of(2**31 - 1, 2**31 - 1))), "pixels"),
    Case("a DICOM of 60,000 by 60,000", dicom_with(Rows=60_000, Columns=60_000), "at most 100,000,000 are read"),
    Case("a DICOM of more than its pixels", dicom_with(Rows=900), "cannot be read as a radiograph"),
    Case("a DICOM of other bits", dicom_with(BitsAllocated=32), "cannot be read as a radiograph"),
    Case("a DICOM of two frames", dicom_with(NumberOfFrames=2), "2 frames"),
    Case("a DICOM in colour", dicom_with(PhotometricInterpretation="RGB"), "colour DICOM"),
    Case("a compressed DICOM of nonsense", picture(lossless_nonsense, "images/n.dcm"), "images/n.dcm"),
    Case("a TIFF of two pages", picture(lambda p: Image.fromarray(SIXTEEN).save(p, save_all=True, append_images=[Image.fromarray(SIXTEEN)]), "images/t.tif"), "2 frames"),
    Case("a TIFF of fractions", picture(lambda p: Image.fromarray(SIXTEEN.astype(np.float32)).save(p), "images/f.tif"), "expected 8- or 16-bit greyscale"),
    Case("a vector drawing", picture(lambda p: p.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "images/s.svg"), "cannot be read"),
]  # fmt: skip
BOXES = [
    Case("boxes of nobody", rows(lambda t: t.assign(patient_id="X"), "vertebrae.csv"), "not a patient of the cohort"),
    Case("a box upside down", rows(lambda t: t.rename(columns={"y_min": "y_max", "y_max": "y_min"}), "vertebrae.csv"), "x_min < x_max and y_min < y_max"),
    Case("a box in words", edited(lambda t: t.replace(",20,", ",left,", 1), "vertebrae.csv"), "a box needs four numbers"),
    Case("an infinite box", edited(lambda t: t.replace(",50,", ",inf,", 1), "vertebrae.csv"), "a box needs four numbers"),
    Case("boxes without a column", rows(lambda t: t.drop(columns="x_max"), "vertebrae.csv"), "no column x_max"),
    Case("an empty file of boxes", table_bytes(b"", "vertebrae.csv"), "vertebrae.csv: the file is empty"),
    Case("boxes in the pixels of another picture", edited(lambda t: t.replace(",50,", ",5000,"), "vertebrae.csv"), "are they in other pixels?"),
    Case("half of the keypoints", rows(lambda t: t.assign(x1=1.0, y1=2.0), "vertebrae.csv"), "give all or none"),
    Case("corrections off the picture", table_bytes(b"patient_id,x_min,y_min,x_max,y_max\nP003,900,900,950,950\n", "vertebrae_corrections.csv"), "less than half"),
    Case("a truth of nobody", truth(lambda t: t.assign(patient_id="X")), "truth.parquet: no row for"),
    Case("a truth in words", truth(lambda t: t.assign(log_hazard="high")), "truth.parquet"),
    Case("a truth without numbers", truth(lambda t: t.drop(columns="log_hazard")), "truth.parquet: no column log_hazard"),
    Case("a truth that is text", table_bytes(b"hello", "truth.parquet"), "truth.parquet: not readable"),
]  # fmt: skip
ODD = [
    Case("one event", column("event", lambda t: (np.arange(N) == 5).astype(int)), "cohort: 1 training patients with an event"),
    Case("all events at one time", column("time_days", lambda t: np.where(t["event"] == 1, 500, t["time_days"])), "no faults", 0),
    Case("a constant covariate", column("age", lambda t: 70), "column age: the same for everybody", 0),
    Case("a covariate that separates", column("smoker", lambda t: t["event"]), "every patient with an event has 1", 0),
    Case("a covariate made from the time", column("age", lambda t: -t["time_days"]), "ranks the times almost perfectly", 0),
    Case("a covariate as large as can be", cell("age", "1e308"), "column age: '1e308'; must be a number"),
    Case("HTML for an id", called("<img src=x onerror=alert(1)>"), "no faults", 0),
    Case("a formula for an id", called("=cmd|' /C calc'!A0"), "no faults", 0),
    Case("a path for an id", called("../../etc"), "no faults", 0),
    Case("a picture of one pixel", picture(lambda p: Image.fromarray(SIXTEEN[:1, :1]).save(p)), "are they in other pixels?"),
    Case("one picture for two", cell("image", "images/4.png"), "the same pixels under several ids", 0),
    Case("every picture black", lambda f: [Image.fromarray(np.zeros((160, 90), np.uint16)).save(f / f"images/{k}.png") for k in range(N)], "all pixels alike", 0),
]  # fmt: skip
CASES = [*TABLES, *VALUES, *SETTINGS_CASES, *PICTURES, *BOXES, *ODD]
