"""What `fracsurv check` warns of: possible, yet odd."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from fracsurv.cli import app
from fracsurv.cohort.boxes import BOX_COLUMNS
from fracsurv.cohort.cohort import read_cohort
from fracsurv.cohort.plausibility import implausible_values, split_faults
from fracsurv.images.plausibility import implausible_radiographs
from fracsurv.images.radiographs import read_patient_radiograph, read_radiograph, resize, with_slots
from fracsurv.images.store import ImageStore, build_store
from fracsurv.metrics import mean_weight
from fracsurv.simulate import simulate_cohort
from fracsurv.study.leakage import grey_scale_warning
from fracsurv.study.prepare import prepare
from fracsurv.utils.errors import UserError
from tests.conftest import write_cohort

KINDS = {"age": "continuous", "bmi": "continuous", "t_score": "continuous", "ferritin": "continuous",
         "smoker": "binary"}  # fmt: skip


def sound(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    time = rng.integers(30, 3000, n)
    return pd.DataFrame(
        {
            "patient_id": [f"W{i:04d}" for i in range(n)],
            "time_days": time,
            "event": rng.random(n) < 0.4,
            "age": rng.normal(78, 2, n).round(1),
            "bmi": rng.normal(26, 4, n).round(1),
            "t_score": rng.normal(-1.5, 1, n).round(1),
            "ferritin": rng.lognormal(4, 0.5, n).round(1),
            "smoker": (rng.random(n) < 0.1).astype(int),
        }
    )


def odd(folder, table, **settings) -> list[str]:
    return implausible_values(read_cohort(write_cohort(folder, table, covariates=KINDS, **settings)))


def test_nothing_is_said_of_a_sound_table(tmp_path):
    assert odd(tmp_path / "days", sound()) == []
    months = sound().assign(time_days=lambda table: (table["time_days"] / 30.4).clip(0.1))
    assert odd(tmp_path / "months", months, time_unit="months", horizons=[12, 36]) == []


def test_factors_by_another_name_are_told(tmp_path):
    table = sound().drop(columns="ferritin").rename(columns={"age": "Age", "t_score": "tscore"})
    table.insert(0, "weight (kg)", 60.0)  # a unit is no hint
    table = table.assign(hip=1.0)
    (told,) = implausible_values(read_cohort(write_cohort(tmp_path / "a", table)))
    assert "Age (is age meant?), tscore (is t_score meant?), weight (kg) and 1 more" in told
    assert "age, prior_fracture, parental_hip_fracture, glucocorticoids" in told
    # who says which ones are covariates has chosen
    chosen = write_cohort(tmp_path / "b", table, covariates={"bmi": "continuous", "smoker": "binary"})
    assert implausible_values(read_cohort(chosen)) == []


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("bmi", 2.6, "2.6; expected 12 to 70 kg/m²; a decimal point too far left (26)?"),
        ("bmi", 263, "263; expected 12 to 70 kg/m²; a lost decimal point (26.3)?"),
        ("bmi", 999, "999; expected 12 to 70 kg/m²; a code for a missing value?"),
        ("bmi", 5000, "5000; expected 12 to 70 kg/m²"),
        ("age", 28490, "28490; expected 18 to 110 years; in days (78)?"),
        ("age", 936, "936; expected 18 to 110 years; in months (78)?"),
        ("t_score", -25, "-25; expected -7 to 6 standard deviations; a lost decimal point (-2.5)?"),
        ("t_score", 25, "25; expected -7 to 6 standard deviations; a lost decimal point (2.5)?"),
        ("ferritin", -99, "a code for a missing value?"),
        ("ferritin", 40000, "40000; half of all lie between"),
        ("patient_id", "Anna Berg", "a name or a personal number"),
        ("patient_id", "Berg, Anna", "a name or a personal number"),
        ("patient_id", "19410203-1234", "a name or a personal number"),
    ],
)  # fmt: skip
def test_a_value_is_told_with_its_place_and_what_it_may_be(tmp_path, column, value, told):
    table = sound()
    table[column] = table[column].astype(object)
    table.loc[5, column] = value
    (line,) = odd(tmp_path, table)
    assert line.startswith(f"column {column}")
    assert "row 7" in line
    assert told in line
    assert not any(private in line for private in ("Berg", "1941"))


def test_many_rows_are_told_in_one_line(tmp_path):
    (line,) = odd(tmp_path, sound().assign(bmi=lambda table: table["bmi"].mask(table.index < 50, 2.6)))
    assert line.startswith("column bmi, row 2: 2.6, row 3: 2.6, row 4: 2.6 and 47 more;")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.assign(time_days=t["time_days"] / 365.25), "are these years?"),
        (lambda t: t.assign(time_days=t["time_days"] / 30.4), "are these months?"),
        (lambda t: t.assign(time_days=t["time_days"] * 24), "in hours?"),
        (lambda t: t.assign(event=np.arange(200) % 10 > 0), "90 % are 1; are 0 and 1 swapped?"),
        (lambda t: t.assign(event=np.arange(200) % 10 == 0), "20 events for 5 covariates"),
        (lambda t: t.assign(smoker=t["event"].astype(int)), "every patient with an event has 1"),
        (lambda t: t.assign(ferritin=4000 - t["time_days"]), "almost perfectly by itself (C-index 1.000)"),
        (lambda t: t.assign(ferritin=t["time_days"]), "almost perfectly by itself (C-index 0.000)"),
        (lambda t: t.assign(t_score=-t["t_score"] + 1), "was the minus lost?"),
        (lambda t: t.assign(smoker=0), "column smoker: the same for everybody"),
        (lambda t: pd.concat([t, t.iloc[[3]].assign(patient_id="W9999")]), "rows 5, 202: alike in every covariate"),
        (lambda t: pd.concat([t, t.iloc[[3]].assign(patient_id="W9999", time_days=5000, event=True, age=77.7)]),
         "column time_days, row 202: 5000; events, though nobody without one was followed beyond"),
    ],
)  # fmt: skip
def test_a_column_is_told_of(tmp_path, change, told):
    (line,) = odd(tmp_path, change(sound()))
    assert told in line


@pytest.mark.parametrize(
    ("column", "held"), [("smoker", (1, 2)), ("event", ("no", "yes")), ("smoker", ("nej", "ja"))]
)
def test_another_coding_is_named_beside_its_faults(tmp_path, column, held):
    table = sound(20)
    table[column] = [held[i % 2] for i in range(20)]
    with pytest.raises(UserError) as caught:
        odd(tmp_path, table)
    assert caught.value.faults[0].startswith(f"cohort.csv, column {column}: holds {held[0]} and {held[1]};")


def test_times_too_coarse_for_the_weights_are_told(tmp_path):
    """Whole years: events and censorings share them. The weights' mean is that of their definition."""
    table = sound()
    years = table.assign(time_days=np.ceil(table["time_days"] / 365.25))
    settings = {"time_unit": "years", "horizons": [5]}
    (line,) = (line for line in odd(tmp_path / "a", years, **settings) if "inverse-censoring" in line)
    event, time = years["event"].to_numpy() == 1, years["time_days"].to_numpy()
    free = {t: np.prod([1 - (~event & (time == s)).sum() / ((time >= s).sum() - (event & (time == s)).sum())
                        for s in np.unique(time[~event]) if s <= t]) for t in (1.0, 2.0, 3.0, 4.0, 5.0)}  # fmt: skip
    weights = [1 / free[min(t, 5.0)] if t > 5 or e else 0.0 for e, t in zip(event, time, strict=True)]
    assert mean_weight(event, time, 5.0) == pytest.approx(np.mean(weights), rel=1e-12)
    assert f"average {np.mean(weights):.2f}, not 1, by 5 years" in line
    assert mean_weight(event, table["time_days"], 1096.0) == pytest.approx(1, abs=1e-9)
    assert np.isnan(mean_weight(event, time, 99.0))


@pytest.fixture
def has_image(simulated, tmp_path):
    """A copy of the simulated cohort whose radiographs a test may change."""
    folder = tmp_path / "cohort"
    shutil.copytree(simulated, folder)
    return folder


def image_of(folder, row):
    return folder / pd.read_csv(folder / "cohort.csv")["image"].iloc[row]


def change(folder, row, how):
    path = image_of(folder, row)
    array = np.array(Image.open(path))
    Image.fromarray(np.ascontiguousarray(how(array)).astype(array.dtype)).save(path)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (lambda a: a[:, ::-1], "better mirrored;"),
        (lambda a: a[::-1], "better upside down;"),
        (lambda a: a.max() - a, "better inverted (bone dark);"),
        (lambda a: a.max() - a[:, ::-1], "better mirrored and inverted (bone dark);"),
        (lambda a: np.full_like(a, 7), "all pixels alike"),
        (lambda a: a[: a.shape[0] // 3], "times as high as wide"),
        (lambda a: a[::30, ::30], "no vertebra can be seen"),
    ],
)
def test_a_turned_or_lost_radiograph_is_told(has_image, how, told):
    for row in (4, 9, 11, 20):
        change(has_image, row, how)
    (has_image / "vertebrae.csv").unlink()  # of pictures as they were
    lines = implausible_radiographs(read_cohort(has_image))
    assert any(told in line for line in lines)
    assert all("rows 6, 11, 13 and 1 more" in line for line in lines)  # and nobody else


def test_pictures_with_boxes_that_are_turned_upright_are_told(has_image):
    for row, turn in ((4, 3), (9, 4), (11, 1)):
        path = image_of(has_image, row)
        pixels = np.array(Image.open(path))
        exif = Image.Exif()
        exif[274] = turn
        lying = {1: pixels, 3: pixels[::-1, ::-1], 4: pixels[::-1]}[turn]
        Image.fromarray(np.ascontiguousarray(lying)).save(path, exif=exif)
    assert implausible_radiographs(read_cohort(has_image)) == [
        "2 radiographs are turned upright by their EXIF orientation; boxes in vertebrae.csv must be in the upright "
        "picture's pixels"
    ]
    (has_image / "vertebrae.csv").unlink()
    assert implausible_radiographs(read_cohort(has_image)) == []


def test_another_grey_scale_is_told_by_check_and_report(has_image, tmp_path):
    """Eight bits among twelve in sixteen, as two hospitals send them."""
    run = prepare(has_image, tmp_path / "before", "tiny", kinds=["full"])
    assert grey_scale_warning(run) == ""
    for row in (4, 9):
        path = image_of(has_image, row)
        Image.fromarray((np.array(Image.open(path)) // 16).astype(np.uint8)).save(path)
    (line,) = implausible_radiographs(read_cohort(has_image))
    assert line.startswith("column image, rows 6, 11: the brightest pixel has ")
    assert "8 bits" in line
    run = prepare(has_image, tmp_path / "after", "tiny", kinds=["full"])
    assert f"2 of {len(run.cohort)} radiographs" in grey_scale_warning(run)
    assert grey_scale_warning(replace(run, profile=replace(run.profile, normalise="patient"))) == ""


def test_the_same_pixels_are_told_in_another_file_format_too(has_image):
    table = pd.read_csv(has_image / "cohort.csv")
    copy = "images/copy.tif"
    Image.open(image_of(has_image, 2)).save(has_image / copy)
    table.loc[7, "image"] = copy
    table.to_csv(has_image / "cohort.csv", index=False)
    (line,) = implausible_radiographs(read_cohort(has_image))
    assert line.startswith("column image, rows 4, 9: the same pixels under several ids")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_radiograph_that_cannot_be_read_is_told(has_image, workers):
    for row in (0, 30):
        path = image_of(has_image, row)
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError) as caught:
        implausible_radiographs(read_cohort(has_image), workers=workers)
    assert len(caught.value.faults) == 2


@pytest.fixture
def hospital(tmp_path):
    """Thirty simulated patients with DICOM radiographs, and how to change a header."""
    folder = tmp_path / "hospital"
    simulate_cohort(folder, patients=30, seed=4, resolution=0.125, image_format="dicom", progress=False)

    def set_header(rows, **values):
        names = pd.read_csv(folder / "cohort.csv")["image"]
        for row in rows:
            header = pydicom.dcmread(folder / names[row])
            for name, value in values.items():
                if isinstance(value, pydicom.DataElement):
                    header.add(value)
                else:
                    setattr(header, name, value)
            header.save_as(folder / names[row])

    return folder, set_header


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"ViewPosition": "AP"}, "a frontal view"),
        ({"BurnedInAnnotation": "YES"}, "text is burnt into the picture"),
        ({"PixelSpacing": ["9.5", "9.5"]}, "9.5 mm a pixel"),
        ({"PatientID": "1234", "PatientName": "Berg^Anna"}, "the same person by their headers"),
    ],
)
def test_what_headers_say_is_told_without_their_text(hospital, values, told):
    folder, set_header = hospital
    set_header([4, 9], **values)
    (line,) = implausible_radiographs(read_cohort(folder))
    assert line.startswith("column image, rows 6, 11: ")
    assert told in line
    assert not any(private in line for private in ("Berg", "1234"))


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_pixels_beyond_the_headers_bits_are_told_as_they_are_in_the_file(hospital, photometric):
    folder, set_header = hospital
    set_header(range(30), PhotometricInterpretation=photometric)
    set_header([4, 9], BitsStored=11, HighBit=10)
    inside = pydicom.dcmread(folder / pd.read_csv(folder / "cohort.csv")["image"][4])
    inside = np.frombuffer(inside.PixelData, "<u2")  # pydicom's own array is cut to the header's bits
    (line,) = implausible_radiographs(read_cohort(folder))
    assert line.startswith(
        f"column image, rows 6, 11: a pixel of {inside.max():,}, and at most 2,047 by its header; "
    )
    assert "; they are read as they are" in line


def test_windowed_radiographs_are_read_as_displayed_wherever_they_are_read(hospital, tmp_path):
    folder, set_header = hospital
    set_header(range(30), WindowCenter="1500", WindowWidth="800")
    plain = read_cohort(folder)
    settings = folder / "cohort.yaml"
    settings.write_text(settings.read_text() + "dicom_values: windowed\n")
    windowed = read_cohort(folder)
    assert windowed.image_fingerprint() != plain.image_fingerprint()
    name, pixels = windowed.table["image"].iloc[0], []
    for cohort in (plain, windowed):
        wanted = read_radiograph(folder / name, windowed=cohort is windowed)
        np.testing.assert_array_equal(read_patient_radiograph(cohort, name), wanted)
        # in one folder: the second is another store
        full = ImageStore.open(build_store(cohort, tmp_path / "store", scale=0.125, progress=False)).full
        np.testing.assert_array_equal(full[0], resize(wanted, full.shape[1:]))
        pixels.append(wanted)
    assert not np.array_equal(*pixels)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"PixelSpacing": "0.2"},
        {"PixelSpacing": ["0", "0"]},
        {"PixelSpacing": pydicom.DataElement("PixelSpacing", "LO", "Berg Anna")},
        {"PatientID": "ANON"},  # one number for everybody is nobody's
    ],
)
def test_nothing_is_said_of_headers_that_say_nothing(hospital, values):
    folder, set_header = hospital
    set_header(range(30) if "PatientID" in values else [4], **values)
    assert implausible_radiographs(read_cohort(folder)) == []


def test_a_resolution_that_was_forgotten_is_told(has_image):
    assert implausible_radiographs(read_cohort(has_image)) == []
    settings = (has_image / "cohort.yaml").read_text()
    (has_image / "cohort.yaml").write_text("".join(
        line for line in settings.splitlines(keepends=True) if not line.startswith("resolution")
    ))  # fmt: skip
    (line,) = implausible_radiographs(read_cohort(has_image))
    assert line.startswith("cohort.yaml, resolution: 1 makes the radiographs ")


@pytest.mark.parametrize("factor", [2 / 3, 1.5])
def test_a_resolution_that_pixel_spacing_contradicts_is_told(hospital, factor):
    folder, set_header = hospital
    settings = (folder / "cohort.yaml").read_text()
    assert "resolution: 0.125\n" in settings
    (folder / "cohort.yaml").write_text(settings.replace("0.125", f"{0.125 * factor:.4g}"))
    (line,) = implausible_radiographs(read_cohort(folder))
    assert line.startswith(f"cohort.yaml, resolution: {0.125 * factor:.4g} but 2.6 mm a pixel by DICOM headers")
    assert line.endswith("; 0.13?")
    set_header(range(30), PixelSpacing=[f"{2.6 / factor:.3f}"] * 2)
    assert implausible_radiographs(read_cohort(folder)) == []


def test_boxes_beside_their_radiographs_are_faults_wherever_they_are_used(has_image, tmp_path):
    cohort = read_cohort(has_image)
    boxes = cohort.vertebrae.copy()
    patient = cohort.table["patient_id"].iloc[3]
    boxes.loc[boxes["patient_id"] == patient, BOX_COLUMNS] *= 8  # in the pixels of the original
    boxes.to_csv(has_image / "vertebrae.csv", index=False)
    wrong = read_cohort(has_image)
    with pytest.raises(UserError, match=r"vertebrae\.csv: boxes of which less than half .* in 1 of .* \(row 5 of"):
        implausible_radiographs(wrong)
    with pytest.raises(UserError, match=f"boxes of patient {patient}: less than half"):
        build_store(with_slots(wrong), tmp_path / "store", scale=0.125, progress=False)


def test_patients_without_boxes_are_counted(has_image):
    boxes = read_cohort(has_image).vertebrae
    kept = boxes[boxes["patient_id"].isin(boxes["patient_id"].unique()[:2])]
    kept.to_csv(has_image / "vertebrae.csv", index=False)
    (line,) = implausible_radiographs(read_cohort(has_image))
    assert re.match(r"vertebrae\.csv: no box for \d+ of \d+ patients \(rows 4 to \d+ of", line)


def test_unreadable_radiographs_are_told_beside_the_tables_faults(has_image):
    table = pd.read_csv(has_image / "cohort.csv").astype({"age": object})
    table.loc[4, "age"] = "old"
    table.to_csv(has_image / "cohort.csv", index=False)
    image_of(has_image, 7).write_bytes(b"no picture")
    faults = CliRunner().invoke(app, ["check", str(has_image)]).exception.faults
    assert [fault.split(":")[0] for fault in faults] == ["cohort.csv row 6, column age", table["image"][7]]


def test_without_outcomes_the_rest_is_checked(tmp_path):
    table = sound().drop(columns=["time_days", "event"])
    table.loc[3, "bmi"] = 263
    folder = write_cohort(tmp_path, table, covariates=KINDS)
    assert isinstance(CliRunner().invoke(app, ["check", str(folder)]).exception, UserError)
    result = CliRunner().invoke(app, ["check", str(folder), "--no-outcome"])
    assert result.exit_code == 0, result.output
    assert "row 5: 263" in result.output
    assert "nan" not in result.output


def test_events_that_last_longer_than_the_rest_may_be_swapped(tmp_path):
    table = sound()
    table["time_days"] = np.where(table["event"], table["time_days"] // 2 + 1, table["time_days"])
    assert odd(tmp_path / "a", table) == []
    found = odd(tmp_path / "b", table.assign(event=1 - table["event"].astype(int)))
    assert found[-1].endswith("are 0 and 1 swapped? 1 = any fracture")


@pytest.mark.parametrize("values", [lambda x: x * 1e7, lambda x: x + 1e5])
def test_what_is_called_normalised_and_is_not_is_told(tmp_path, values):
    table = sound().assign(ferritin=lambda table: values((table["ferritin"] - 60) / 30))
    given = {**KINDS, "ferritin": "normalised"}
    told = implausible_values(read_cohort(write_cohort(tmp_path, table, covariates=given)))
    (line,) = [each for each in told if "`normalised`" in each]
    assert "column ferritin: `normalised`, yet its mean is" in line
    assert "Make it `continuous` in cohort.yaml" in line


def test_too_few_events_for_a_run_are_refused_by_check(tmp_path):
    folder = write_cohort(tmp_path, sound().assign(event=lambda table: np.arange(len(table)) < 2), covariates=KINDS)
    why = "cohort: 2 training patients with an event; 3 folds need at least 3"
    assert split_faults(read_cohort(folder)) == [why]
    with pytest.raises(UserError, match="2 training patients with an event"):
        CliRunner().invoke(app, ["check", str(folder)], catch_exceptions=False)
    assert split_faults(read_cohort(write_cohort(tmp_path / "enough", sound(), covariates=KINDS))) == []
