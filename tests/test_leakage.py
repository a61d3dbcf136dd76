"""Leaks that are planted are found, and what a report says of chance, tables as files, checklist and cards."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from fracsurv.metrics import concordance_index
from fracsurv.report.tables_export import to_latex, write_table
from fracsurv.study.leakage import _shared, leak_checks, permuted_ablation
from fracsurv.study.prepare import prepare
from fracsurv.study.run import permuted
from fracsurv.utils.files import write_json
from tests.conftest import tabular, write_cohort
from tests.made_up import execute, made_up_run


def frame_of(records):
    """Records of cells by (group, column) as a table."""
    frame = pd.DataFrame([list(record.values()) for record in records])
    frame.columns = pd.MultiIndex.from_tuples(list(records[0]))
    return frame


KINDS = {"age": "continuous", "smoker": "binary"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Made up, with the tables that notebook 05 saves."""
    made = made_up_run(tmp_path_factory.mktemp("made-up"))
    with pytest.MonkeyPatch.context() as patch:
        execute("05_ablation_tables", made.cohort.folder, made.out, patch)
    return made


def verdicts(run):
    return {check.asked: (check.sound, check.found) for check in leak_checks(run)}


class TestLeaks:
    def test_a_sound_cohort_has_none(self, tiny_run):
        found = verdicts(tiny_run)
        assert set(found) == {
            "the same patient id", "the same image file, byte for byte", "the same stored pixels (crops)",
            "the same stored pixels (full)", "the same covariates, time and outcome",
        }  # fmt: skip
        assert all(sound for sound, _ in found.values())

    def test_a_model_that_judges_whom_it_was_trained_on_is_found(self, tmp_path):
        made = made_up_run(tmp_path)
        sound, found = verdicts(made)["the same patient id"]
        assert (sound, re.findall(r"\d+", found)) == (True, ["0", "4"])  # patients, models
        path = made.folder("cox_ph", 1) / "predictions.parquet"
        predictions = pd.read_parquet(path)
        twice = predictions[predictions["split"] == "train"].head(2).assign(split="test")
        pd.concat([predictions, twice, twice.head(1)]).to_parquet(path)
        sound, said = verdicts(made)["the same patient id"]
        assert not sound
        assert said.startswith("4 patients")  # three rows of people trained on, one of them twice

    def test_two_ids_for_one_woman_are_found_by_pixels_and_by_numbers(self, simulated, tmp_path):
        folder = tmp_path / "c"
        shutil.copytree(simulated, folder)
        table = pd.read_csv(folder / "cohort.csv")
        # an external woman is a training woman again: the same picture under another name, the same boxes and numbers
        first, last = table.index[0], table.index[-1]
        keep = ["patient_id", "image", "split"]
        table.loc[last, table.columns.difference(keep)] = table.loc[first, table.columns.difference(keep)]
        table.loc[first, "split"] = "train"
        shutil.copy(folder / table.loc[first, "image"], folder / table.loc[last, "image"])
        boxes = pd.read_csv(folder / "vertebrae.csv")
        ids = table.loc[[first, last], "patient_id"].tolist()
        copied = boxes[boxes["patient_id"] == ids[0]].assign(patient_id=ids[1])
        pd.concat([boxes[boxes["patient_id"] != ids[1]], copied]).to_csv(folder / "vertebrae.csv", index=False)
        table.to_csv(folder / "cohort.csv", index=False)
        made = prepare(folder, tmp_path / "r", "tiny", kinds=["crops"])
        found = verdicts(made)
        assert found["the same patient id"][0]
        assert found["the same stored pixels (full)"][0] is None  # no model was given them
        for asked, sound in (
            ("image file, byte for byte", False), ("stored pixels (crops)", False),
            ("covariates, time and outcome", None),  # may be chance
        ):  # fmt: skip
            assert found[f"the same {asked}"][0] is sound
            assert re.findall(r"\d+", found[f"the same {asked}"][1]) == ["1", "1", "0"]

    def test_two_patients_of_one_file_are_found(self, simulated, tmp_path):
        folder = tmp_path / "c"
        shutil.copytree(simulated, folder)
        table = pd.read_csv(folder / "cohort.csv")
        table.loc[table.index[-1], "image"] = table.loc[table.index[0], "image"]
        table.loc[table.index[0], "split"] = "train"
        table.to_csv(folder / "cohort.csv", index=False)
        made = prepare(folder, tmp_path / "r", "tiny")
        assert verdicts(made)["the same image file, byte for byte"][0] is False

    @pytest.mark.parametrize(
        ("splits", "sound", "counts"),
        [(("external", "external"), None, (0, 1)), (("test", "external"), None, (0, 1)),
         (("train", "external"), False, (1, 0))],
    )  # fmt: skip
    def test_who_was_met_in_training_is_a_leak_and_who_is_evaluated_twice_is_counted(
        self, tmp_path, splits, sound, counts
    ):
        table = tabular(60)
        table["age"] += np.linspace(0, 0.01, 60)
        table.loc[1, ["time_days", "event", "age", "smoker"]] = table.loc[0, ["time_days", "event", "age", "smoker"]]
        table["split"] = [*splits, "test", "external"] + [""] * 56
        made = prepare(write_cohort(tmp_path / "c", table, covariates=KINDS), tmp_path / "r", "tiny")
        found = _shared(made, made.cohort.table["age"].astype(str).tolist(), "age")
        assert found.sound == sound
        assert tuple(map(int, re.findall(r"\d+", found.found)))[1:] == counts

    def test_two_of_one_fold_are_no_leak_and_two_of_different_folds_are(self, tmp_path):
        made = prepare(write_cohort(tmp_path / "c", tabular(60), covariates=KINDS), tmp_path / "r", "tiny")
        fold = made.splits["fold"].to_numpy()
        same, other = np.flatnonzero(fold == 0)[:2], [np.flatnonzero(fold == k)[0] for k in (0, 1)]
        for rows, sound in ((same, True), (other, False)):
            alike = np.arange(60).astype(str)
            alike[rows] = "one"
            assert _shared(made, alike.tolist(), "number").sound is sound


class TestPermuted:
    def test_each_row_is_held_against_its_own_permutations(self, run):
        assert permuted_ablation(run) is None  # without such a run
        other = run.out / "permuted"
        n = int((run.splits["split"] == "external").sum())
        rng = np.random.default_rng(1)
        event, time = rng.random(n) < 0.5, rng.exponential(size=n)
        rows = []
        for name, knows in (("cox_ph", 0.0), ("deepsurv", 3.0), ("true_risk", 9.0)):
            for fold in range(2):
                risk = rng.normal(size=n) - knows * time
                place = other / "experiments" / name / f"fold-{fold}"
                place.mkdir(parents=True)
                pd.DataFrame({"split": "external", "event": event, "time": time, "risk": risk}).to_parquet(
                    place / "predictions.parquet"
                )
            c_index = concordance_index(event, time, risk)
            rows.append({"experiment": name, "split": "external", "metric": "c_index", "mean": c_index})
        pd.DataFrame(rows).to_csv(other / "ablation.csv", index=False)
        # of the true outcomes, of outcomes dealt out otherwise
        for wrong in (run.cohort, permuted(run.cohort, run.profile.seed + 1)):
            write_json(other / "provenance.json", {"cohort": {"fingerprint": wrong.fingerprint()}})
            assert permuted_ablation(run) is None
        dealt = permuted(run.cohort, run.profile.seed).fingerprint()
        write_json(other / "provenance.json", {"cohort": {"fingerprint": dealt}})
        found = permuted_ablation(run).set_index("experiment")["by_chance"]
        assert found.to_dict() == {"cox_ph": True, "deepsurv": False}
        shutil.rmtree(other)


class TestTableFiles:
    frame = frame_of(
        [
            {("", "model"): "A & B_1\nwith 100 %", ("ours, α ± Δ", "C"): "0.6 ± 0.1\n[−0.1, +0.2]"},
            {("", "model"): "=HYPERLINK(1)", ("ours, α ± Δ", "C"): "–"},
        ]
    )

    def test_latex_is_ascii_and_every_row_has_its_cells(self):
        text = to_latex(self.frame, "A {caption} with 5 % and ✓")
        assert "\\\\ [" not in text  # LaTeX would take what is in brackets for a length
        assert text.isascii()
        text_without = text.replace(r"\\{}", "")
        assert text_without.count("{") - text_without.count(r"\{") == text_without.count("}") - text_without.count(
            r"\}"
        )
        body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
        assert body[0] == (
            r"\shortstack[l]{A \& B\_1 \\{} with 100 \%} & \shortstack[l]{0.6 $\pm$ 0.1 \\{} [$-$0.1, +0.2]} \\"
        )
        assert r" & ours, $\alpha$ $\pm$ $\Delta$ \\" in text

    def test_latex_breaks_words_and_makes_wide_numbers_smaller(self):
        words = to_latex(frame_of([{("", "n"): "1", ("", "says"): "a < b | c\n" + "word " * 30}]), "caption")
        assert words.count(r"\arraybackslash}p{") == 2
        assert r"a \textless{} b \textbar{} c\newline word" in words
        shares = [float(share) for share in re.findall(r"p\{([\d.]+)\\linewidth\}", words)]
        assert shares[1] > 5 * shares[0]
        assert sum(shares) < 0.95
        numbers = to_latex(frame_of([{("", f"c{i}"): "0.123 ± 0.456" for i in range(9)}]), "caption")
        assert r"\resizebox{\linewidth}{!}{%" in numbers
        assert "p{" not in numbers
        assert r"\resizebox" not in to_latex(self.frame, "caption")

    def test_csv_holds_the_cells_and_no_formula(self, tmp_path):
        write_table(self.frame, self.frame, "caption", tmp_path / "t")
        found = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
        assert found.columns.tolist() == ["model", "ours, α ± Δ: C"]
        assert found.iloc[0].tolist() == ["A & B_1 with 100 %", "0.6 ± 0.1 [−0.1, +0.2]"]
        assert found.iloc[1, 0] == "'=HYPERLINK(1)"

    @pytest.mark.parametrize(
        ("cell", "written"),
        [("", ""), ("+0.019 [−0.1, +0.2] p = 1.00", None), ("-2.5", None), ("–", None), ("@x", "'@x"),
         ("+1+2", "'+1+2"), ("-2+3+cmd|' /C calc'!D2", "'-2+3+cmd|' /C calc'!D2")],
    )  # fmt: skip
    def test_numbers_and_empty_cells_stay_as_they_are(self, tmp_path, cell, written):
        frame = frame_of([{("", cell or "name"): cell, ("", "b"): "x"}])
        write_table(frame, frame, "caption", tmp_path / "t")
        found = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, dtype=str)
        wanted = cell if written is None else written
        assert found.iloc[0, 0] == wanted
        assert found.columns[0] == (wanted or "name")

    def test_every_table_of_a_report_can_be_set(self, run):
        files = sorted((run.out / "tables").glob("*.tex"))
        assert len(files) >= 5
        for path in files:
            text = path.read_text(encoding="utf-8")
            if short := re.search(r"\\begin\{tabular\}\{(l+)\}", text):
                columns, end = len(short[1]), text.index(r"\bottomrule")
                rows = text[text.index(r"\midrule") : end].splitlines()[1:]
            else:
                columns = text[: text.index(r"\caption")].count(r"\arraybackslash}p{")
                rows = text[text.index(r"\endlastfoot") : text.index(r"\end{longtable}")].splitlines()[1:]
            assert rows
            for line in rows:
                cells = re.sub(r"\\shortstack\[l\]\{.*?\}(?= [&\\])", "x", line).replace(r"\&", "")
                assert cells.count(" & ") == columns - 1, (path.name, line)
            assert "simulated cohort" in text


def test_what_was_not_looked_at_has_no_verdict(simulated, tmp_path):
    made = prepare(simulated, tmp_path / "r", "tiny", kinds=["crops"])
    found = {check.asked: check for check in leak_checks(made)}
    assert not found["the same stored pixels (full)"].looked
    assert found["the same stored pixels (crops)"].sound is True
