"""Planted names, numbers, dates and free text reach no file, page, notebook, log or line of a run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pandas as pd
import pydicom
import pytest
from papermill.exceptions import PapermillExecutionError

from fracsurv.config import ROOT
from fracsurv.pipeline.notebook_job import execute, without_paths
from fracsurv.simulate import simulate_cohort

HEADER = {
    "PatientName": "Zetterqvist^Ottilia",
    "PatientID": "19310705-4488",
    "PatientBirthDate": "19310705",
    "PatientAddress": "Krukmakargatan 8",
    "InstitutionName": "Norrsjukhuset Planted",
    "StudyDescription": "Fell on the stairs at her daughter's",
    "ImageComments": "plantedcomment",
    "OperatorsName": "Radiographer^Planted",
    "AccessionNumber": "ACC998877",
}
FREE_TEXT = "kv med demens, dottern Ingegerd ringer"
FILE = "ZETTERQVIST_OTTILIA_1931"
PLANTED = [*HEADER.values(), "Zetterqvist", "Ottilia", "ZETTERQVIST", FREE_TEXT, "Ingegerd", "dottern", "demens"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Simulated DICOM radiographs in whose headers, names and table people can be recognised."""
    folder = tmp_path_factory.mktemp("privacy") / "cohort"
    simulate_cohort(
        folder, patients=60, external=20, seed=8, resolution=0.125, image_format="dicom", boxes="true", progress=False
    )
    table = pd.read_csv(folder / "cohort.csv")
    for row, name in enumerate(table["image"]):
        header = pydicom.dcmread(folder / name)
        for keyword, value in HEADER.items():
            setattr(header, keyword, value)
        new = f"images/{FILE}_{row}.dcm"
        header.save_as(folder / new)
        (folder / name).unlink()
        table.loc[row, "image"] = new
    table.assign(namn="Ottilia Zetterqvist", anteckning=FREE_TEXT).to_csv(folder / "cohort.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def done(cohort, tmp_path_factory) -> tuple[Path, str]:
    """A whole run of it: its folder, and all that was printed."""
    out = tmp_path_factory.mktemp("out") / "run"
    options = ["--profile", "tiny", "--out", out, "--experiments", "cox_ph,cds_crops_if", "--cores", "1"]
    return out, fracsurv("check", cohort) + fracsurv("run", cohort, *options)


def fracsurv(*arguments: object, code: int = 0) -> str:
    """Call the command line; everything it printed."""
    program = [sys.executable, "-c", "from fracsurv.cli import main; main()"]
    result = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def contents(path: Path) -> list[bytes]:
    """A file's bytes, and what is packed in them."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        return [data, pd.read_parquet(path).to_csv().encode()]
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            return [packed.read(name) for name in packed.namelist()]
    return [data]


def found_in(data: bytes) -> list[str]:
    """The planted strings that stand there, in UTF-8 or UTF-16, in any case."""
    low, codes = data.lower(), ("utf-8", "utf-16-le", "cp1252")
    return [text for text in PLANTED if any(text.lower().encode(code) in low for code in codes)]


def paths_in(file: Path, data: bytes, cohort: Path) -> list[str]:
    """The cohort's folder, in what is passed on to others: not in the logs, which say what was called."""
    return [str(cohort)] if file.parts[0] not in ("logs", ".snakemake") and str(cohort).encode() in data else []


def test_the_search_finds_what_is_there(cohort, tmp_path):
    assert found_in((cohort / "cohort.csv").read_bytes())
    assert set(HEADER.values()) <= set(found_in(next((cohort / "images").iterdir()).read_bytes()))
    pd.DataFrame({"a": [FREE_TEXT]}).to_parquet(tmp_path / "a.parquet")
    assert any(found_in(part) for part in contents(tmp_path / "a.parquet"))


def test_a_run_keeps_and_prints_nothing_of_it(done, cohort):
    out, said = done
    files = [path for path in out.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".html", ".ipynb", ".json", ".csv", ".tex", ".parquet", ".npy", ".safetensors", ".log"} <= kinds
    leaks = {
        str(path.relative_to(out)): hits
        for path in files
        for part in contents(path)
        if (hits := found_in(part) + paths_in(path.relative_to(out), part, cohort))
    }
    assert leaks == {}
    assert found_in(said.encode()) == []


def test_whole_paths_alone_are_shortened_and_json_stays_json():
    text = json.dumps({"a": "image/png", "b": "/png", "c": "/png/x.png", "d": "/png2", "e": "C:\\png"})
    found = json.loads(without_paths(text, [Path("/png")]))
    assert found == {"a": "image/png", "b": "png", "c": "png/x.png", "d": "/png2", "e": "C:\\png"}
    folder = Path('/home/it\'s "Anna"/the "run"')
    given = {"source": f"out = {json.dumps(str(folder))}\nä = 1", "metadata": str(folder / "x.ipynb")}
    for ascii_alone in (True, False):
        found = json.loads(without_paths(json.dumps(given, ensure_ascii=ascii_alone), [folder]))
        assert found == {"source": 'out = "the \\"run\\""\nä = 1', "metadata": 'the "run"/x.ipynb'}


def test_a_picture_that_cannot_be_read_is_named_and_its_header_is_not(cohort, tmp_path):
    table = pd.read_csv(cohort / "cohort.csv").head(40)
    (tmp_path / "images").mkdir()
    for row, name in enumerate(table["image"]):
        data = (cohort / name).read_bytes()
        (tmp_path / "images" / f"{row}.dcm").write_bytes(data[: len(data) // 2] if row == 3 else data)
    table["image"] = [f"images/{row}.dcm" for row in range(len(table))]
    table.to_csv(tmp_path / "cohort.csv", index=False)
    (tmp_path / "cohort.yaml").write_bytes((cohort / "cohort.yaml").read_bytes())
    said = fracsurv("check", tmp_path, code=2)
    assert "images/3.dcm: cannot be read" in said
    assert found_in(said.encode()) == []
    summary = fracsurv("check", tmp_path, "--summary", code=2)
    assert "images" not in summary.replace("/images/", "")
    assert found_in(summary.encode()) == []


def made_notebook(path: Path, code: str) -> Path:
    parameters = nbformat.v4.new_code_cell("", metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[parameters, nbformat.v4.new_code_cell(code)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
    return path


def test_executed_and_failed_notebooks_keep_no_path_of_the_repository_of_python_or_of_home(tmp_path):
    planted = [ROOT / "fracsurv" / "a.py", Path(sys.prefix) / "lib" / "b.py", Path.home() / "notes.txt"]
    code = "import warnings\n" + "\n".join(
        f"warnings.warn_explicit('planted', UserWarning, {str(path)!r}, 3)\nprint('\\x1b[32m{path}\\x1b[0m')"
        for path in planted
    )
    source = made_notebook(tmp_path / "n.ipynb", code)
    output = tmp_path / "new" / "folder" / "n.ipynb"  # made, if it is not there
    execute(source, output, tmp_path / "c", "tiny", tmp_path / "out")
    cell = nbformat.read(output, as_version=4).cells[-1]
    said = "".join(part["text"] for part in cell.outputs)
    assert said.count("UserWarning: planted") == 3
    assert f"{ROOT.name}/fracsurv/a.py:3: UserWarning" in said
    assert "~/notes.txt:3: UserWarning" in said
    assert f"\x1b[32m{ROOT.name}/fracsurv/a.py" in said
    for folder in (ROOT, sys.prefix, Path.home(), tmp_path):
        assert str(folder) not in said
        assert str(folder) not in json.dumps(nbformat.read(output, as_version=4).metadata)
    source = made_notebook(tmp_path / "f.ipynb", f"raise OSError({str(ROOT / 'x')!r})")
    with pytest.raises(PapermillExecutionError):
        execute(source, tmp_path / "o.ipynb", tmp_path / "c", "tiny", tmp_path / "out")
    text = (tmp_path / "o.ipynb").read_text(encoding="utf-8")
    assert "OSError" in text
    assert str(ROOT) not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("raise OSError(28, 'No space left on device', 'out/x.safetensors')", "out/x.safetensors: the disk is full"),
        (None, "n.ipynb: no such notebook"),
    ],
)
def test_a_full_disk_or_a_missing_notebook_is_one_line(tmp_path, code, named):
    if code is not None:
        made_notebook(tmp_path / "n.ipynb", code)
    given = [tmp_path / "n.ipynb", tmp_path / "o.ipynb", "--cohort", tmp_path, "--profile", "tiny", "--out", tmp_path]
    program = [sys.executable, "-m", "fracsurv.pipeline.notebook_job"]
    result = subprocess.run([*program, *map(str, given)], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert named in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
