"""The report of a made-up run: its numbers, its files, what it must escape, and what it must not fetch."""

import json
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest

from fracsurv.cohort.cohort import read_cohort
from fracsurv.config import ROOT, TRUE_RISK, load_experiments
from fracsurv.metrics import brier_score, kaplan_meier
from fracsurv.pipeline.notebook_job import execute as execute_notebook
from fracsurv.pipeline.pipeline import format_table
from fracsurv.report import report
from fracsurv.report.tables_export import as_text, to_html, write_table
from fracsurv.study.ablation import ablation, read_ablation, way_to_true_risk
from fracsurv.study.prepare import prepare
from fracsurv.study.protocol import evaluated_split, fit_records, headline_horizon, split_counts
from fracsurv.study.provenance import commit
from fracsurv.study.results import write_predictions
from fracsurv.study.thesis_results import in_thesis_order, published, published_summary, thesis_order
from fracsurv.study.time_dependent import KAPLAN_MEIER, follow_up_groups, metrics_over_time
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import write_json
from fracsurv.utils.formatting import plain
from tests.conftest import tabular, write_cohort
from tests.made_up import SCRIPT, execute, made_up_baselines, made_up_run, run_cell, texts_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


@pytest.fixture(scope="module")
def page(run):
    """index.html, its notebooks folder holding one hostile notebook beside notebook 05."""
    notebooks = run.out / "notebooks"
    execute_notebook(ROOT / "notebooks" / "05_ablation_tables.ipynb", notebooks / "05_ablation_tables.ipynb",
                     cohort=run.cohort.folder, profile="tiny", out=run.out)  # fmt: skip
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# 01 Who?"), hostile_cell()]
    nbformat.write(notebook, notebooks / "01_eda.ipynb")
    path = report.write_report(run)
    assert path == run.out / "index.html"
    return path.read_text(encoding="utf-8")


def hostile_cell():
    outputs = [
        nbformat.v4.new_output("display_data", data={"text/markdown": f"said {SCRIPT} <img src='http://x/y.png'>"}),
        nbformat.v4.new_output("display_data", data={"text/html": f"<table><tr><td>1{SCRIPT}</td></tr></table>"}),
    ]
    return nbformat.v4.new_code_cell("a = 1", outputs=outputs, execution_count=1)


class Page(HTMLParser):
    """Tags with their attributes, anchors' ids, and the texts of table cells."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self._row = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self._row = []

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._row is not None:
            self.cells[-1].append(" ".join(self._row))
            self._row = None

    def handle_data(self, data):
        if self._row is not None and data.strip():
            self._row.append(data.strip())


def assert_self_contained(text):
    found = Page(text)
    assert "script" not in {tag for tag, _ in found.tags}
    assert not {"iframe", "object", "embed", "link"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        for name in ("src", "srcset", "data", "poster"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    css = "".join(re.findall(r"<style[^>]*>(.*?)</style>", text, re.S))
    assert "url(" not in css
    assert "@import" not in css


def test_report_is_one_file_that_escapes_the_cohorts_text(run, page):
    assert_self_contained(page)
    assert "&lt;script&gt;" in page
    other = (run.out / "notebooks" / "01_eda.html").read_text(encoding="utf-8")
    assert_self_contained(other)
    assert "<td>1&lt;script&gt;" in other
    tags = Page(page).tags
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) >= 5
    assert all(len(attributes["alt"]) > 20 for attributes in images)
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    inner = [a["href"][1:] for tag, a in tags if tag == "a" and a["href"].startswith("#")]
    assert len(inner) >= 5
    assert set(inner) <= ids


def test_a_page_opens_with_the_provenance_and_hides_what_is_for_the_notebook(page):
    body = page[page.index("<body") :]
    assert body.index("Simulated cohort:") < body.index("<img")
    assert "| parameter |" not in body
    assert "papermill" not in body
    assert body.count("celltag_answer") == 1


def test_links_lead_to_files_that_are_there(run, page):
    links = [a["href"] for tag, a in Page(page).tags if tag == "a" and not a["href"].startswith("#")]
    assert {"notebooks/01_eda.html", "pages/tripod_ai.html", "pages/probast_ai.html", "pages/cox_ph.html"} <= set(
        links
    )
    assert all((run.out / link).exists() for link in links)


def test_tables_numbers_are_those_of_ablation_csv(run, page):
    table = pd.read_csv(run.out / "ablation.csv")
    first = page[page.index("<table") : page.index("</table>")]
    rows = {row[0]: row[1:] for row in Page(first).cells[1:]}
    wanted = {"True risk (simulator)": TRUE_RISK, "Cox PH": "cox_ph", "DeepSurv": "deepsurv"}
    assert set(rows) == set(wanted)
    checked = 0
    for shown, name in wanted.items():
        for metric, cell in zip(("c_index", "auc", "brier"), rows[shown], strict=False):
            at = (table["experiment"] == name) & (table["split"] == "external") & (table["metric"] == metric)
            if metric != "c_index":
                at &= table["horizon_days"] == 1826
            row = table[at].iloc[0]
            assert cell == f"{row['mean']:.3f} ± {row['sd']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            checked += 1
    assert checked == 9
    files = {path.name for path in (run.out / "tables").iterdir()}
    assert {
        f"results_{split}.{kind}" for split in ("external", "test", "validation") for kind in ("csv", "tex")
    } <= files


def test_provenance_record(run, page):
    facts = json.loads((run.out / "provenance.json").read_text())
    assert facts["cohort"]["fingerprint"] == run.cohort.fingerprint()
    assert facts["cohort"]["provenance"] == "simulated"
    counts = {row["split"]: (row["patients"], row["events"]) for row in facts["cohort"]["splits"]}
    event = run.cohort.table["event"].to_numpy()
    assert counts["external"] == (60, int(event[100:].sum()))
    assert counts["train"][0] + counts["test"][0] == 100
    assert facts["fit_seconds_total"] == 3.0
    assert facts["fits_made_with"] == {"torch": ["1.0", "1.1"], "fracsurv": [], "commit": ["abc"]}
    assert [fit["experiment"] for fit in facts["fits"]] == ["deepsurv"] * 2
    assert facts["packages"]["torch"].startswith("2.")
    assert facts["profile"]["name"] == "tiny"
    found = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert (commit() or "").removesuffix("+changes") == (found.stdout.strip() if found.returncode == 0 else "")


def test_a_report_needs_notebook_05_and_a_finished_experiment(tmp_path, run):
    one = prepare(run.cohort.folder, tmp_path / "one", "tiny")
    with pytest.raises(UserError, match="no experiment is finished"):
        report.write_report(one)
    for fold in range(2):
        write_predictions(one, "cox_ph", fold, run.cohort.table["age"].to_numpy())
    with pytest.raises(UserError, match="05_ablation_tables"):
        report.write_report(one)


def test_pages_that_a_report_has_no_more_are_removed(run, page):
    former = [run.out / "notebooks" / "04_fusion_training_gone.html", run.out / "pages" / "gone.html"]
    for path in former:
        path.write_text("of a report before")
    report.write_report(run)
    assert not any(path.exists() for path in former)
    assert (run.out / "notebooks" / "01_eda.html").exists()


@pytest.mark.parametrize("name", ["cox_ph", TRUE_RISK])
def test_one_row_alone_is_shown_and_the_others_are_named(tmp_path, run, name, monkeypatch):
    one = prepare(run.cohort.folder, tmp_path / "one", "tiny")
    for fold in range(2):
        write_predictions(one, name, fold, run.cohort.table["age"].to_numpy())
    texts = texts_of(execute("05_ablation_tables", run.cohort.folder, one.out, monkeypatch))
    assert ", ".join(other for other in one.runnable() if other != name) in " ".join(texts)
    assert "**This run does not answer the question" in " ".join(texts)
    for fold in range(2):  # a table from before another experiment was finished is made anew
        write_predictions(one, "deepsurv", fold, -run.cohort.table["age"].to_numpy())
    assert set(read_ablation(one)[0]["experiment"]) == {name, "deepsurv"}


@pytest.mark.parametrize("n_external", [40, 4])  # of four, most draws hold no pair that could be compared
def test_a_cohort_with_fixed_training_and_external_patients_alone(tmp_path, monkeypatch, n_external):
    table = tabular(n=80 + n_external, seed=5).assign(split=["train"] * 80 + ["external"] * n_external)
    if n_external == 4:
        table.loc[80:, ["event", "time_days"]] = [[1, 300], [0, 250], [0, 400], [0, 200]]
    folder = write_cohort(tmp_path / "c", table, covariates={"age": "continuous"})
    made = prepare(folder, tmp_path / "out", "tiny")
    made_up_baselines(made, np.random.default_rng(1))
    texts = " ".join(texts_of(execute("05_ablation_tables", folder, made.out, monkeypatch)))
    assert f"{n_external} external patients" in texts
    assert not re.search(r"\bnan\b", texts, re.I)
    assert not (made.out / "tables" / "results_test.csv").exists()


def test_records_are_of_the_profiles_values_of_alpha(tmp_path, run):
    made = replace(run, out=tmp_path)
    name, (first, *_) = "cds_crops_alpha", run.profile.alphas
    for alpha in (first, 0.123):  # 0.123: of a profile before this one
        for fold in range(2):
            write_json(made.folder(name, fold, alpha) / "fit.json", {"alpha": alpha, "seconds": 2.0})
    for fold in range(2):  # a copy of the chosen α's record
        write_json(made.folder(name, fold) / "fit.json", {"alpha": first, "seconds": 2.0})
    found = fit_records(made, [name])
    assert [(fit["alpha"], fit["fold"], fit["seconds"]) for fit in found] == [(first, 0, 2), (first, 1, 2)]


def differences(name, **intervals):
    """Differences in C of one experiment on external patients, by reference."""
    rows = [
        (name, reference, "external", "c_index", np.nan, (low + high) / 2, low, high)
        for reference, (low, high) in intervals.items()
    ]
    columns = ["experiment", "reference", "split", "metric", "horizon_days", "difference", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def c_index_rows(**means):
    rows = [(name, "external", "c_index", mean, 60) for name, mean in means.items()]
    return pd.DataFrame(rows, columns=["experiment", "split", "metric", "mean", "n_patients"])


ABOVE, AROUND, BELOW = (0.01, 0.05), (-0.01, 0.03), (-0.05, -0.01)


def verdict(cox, deep):
    """What the cell of notebook 05 that holds the rule makes of the two intervals."""
    notebook = nbformat.read(ROOT / "notebooks" / "05_ablation_tables.ipynb", as_version=4)
    (cell,) = [each for each in notebook.cells if "rule" in each.metadata.get("tags", [])]
    low, high = np.array([cox, deep or (np.nan, np.nan)]).T
    return run_cell(cell.source, {"low": low, "high": high, "np": np, "Markdown": str})


@pytest.mark.parametrize("cox", [ABOVE, AROUND, BELOW])
@pytest.mark.parametrize("deep", [ABOVE, AROUND, (0.0, 0.03), BELOW, None])
def test_the_radiograph_adds_only_if_both_models_without_it_are_beaten(cox, deep):
    said = verdict(cox, deep)
    assert ("The radiograph adds" in said) == (cox == deep == ABOVE)
    assert ("does not answer" in said) == (deep is None)
    nothing = deep is not None and BELOW in (cox, deep)
    assert ("Nothing shows" in said) == nothing


def test_way_to_true_risk_is_a_share_where_noise_cannot_have_made_it():
    # by hand: from 0.60 to 0.75 is 0.15; 0.66 went 0.06 of it
    table, found = c_index_rows(true_risk=0.75, cox_ph=0.60, deepsurv=0.66), differences(TRUE_RISK, cox_ph=ABOVE)
    way = way_to_true_risk(table, found, "external")
    assert dict(way.round(6)) == {"true_risk": 1, "cox_ph": 0, "deepsurv": 0.4}
    assert way_to_true_risk(table, found.assign(split="test"), "external").empty
    for unsure in ({"cox_ph": AROUND}, {"cox_ph": (0.0, 0.03)}, {"deepsurv": ABOVE}):
        assert way_to_true_risk(table, differences(TRUE_RISK, **unsure), "external").empty


@pytest.mark.parametrize("n_test", [2, 6])
def test_what_is_not_known_is_never_printed_as_nan(tmp_path, n_test, monkeypatch):
    table = tabular(60, 3)
    table["split"] = np.where(np.arange(60) < n_test, "test", "train")
    table.loc[table["split"] == "test", ["time_days", "event"]] = [2900, 0]
    table.loc[0, ["time_days", "event"]] = [500, 1]
    kinds = {"age": "continuous", "smoker": "binary"}
    folder = write_cohort(tmp_path / "c", table, covariates=kinds)
    made = prepare(folder, tmp_path / "out", "tiny")
    for fold in range(made.profile.n_folds):
        write_predictions(made, "cox_ph", fold, 0.1 * made.cohort.table["age"].to_numpy())
        write_json(made.folder("cox_ph", fold) / "fit.json", {"key": made.key("cox_ph", fold, None)})
    for text in texts_of(execute("05_ablation_tables", folder, made.out, monkeypatch)):
        assert not re.search(r"\bnan\b", text, re.I), text
    printed = format_table(read_ablation(made)[0], "made up", split_counts(made))
    assert "nan" not in printed.lower()
    lines = {words[0]: words[1:] for words in map(str.split, printed.splitlines())}
    n_events = int(table["event"][:n_test].sum())
    assert lines["patients"][-1] == str(n_test)
    assert lines["events"][-1] == str(n_events)
    assert f"test: {n_events} event, fewer than 30: too few to tell models apart" in printed


def test_kaplan_meier_reference_of_the_brier_score(run):
    days = 1826.0
    curves = metrics_over_time(run, ["cox_ph"], "external", days)
    last = curves[(curves["experiment"] == KAPLAN_MEIER) & (curves["time"] == days)]["value"].item()
    table, expected = run.cohort.table, []
    for fold in range(2):
        train, at = (table.iloc[run.rows(fold)[split]] for split in ("train", "external"))
        times, surv = kaplan_meier(train["event"], train["time"])
        same = np.full(len(at), surv[times <= days][-1])
        expected.append(brier_score(train["event"], train["time"], at["event"], at["time"], same, [days])[0])
    assert last == pytest.approx(np.mean(expected), rel=1e-12)


def test_published_values_spot_checked():
    # Tables 4.3, A.2, 4.1 and 2.1 of the thesis, read again by eye
    assert published("cds_crops_if", "test", "c_index") == (0.69, 0.04)
    assert published("cds_full_lf", "test", "brier") == (0.19, 0.05)
    assert published("vit_crops_alpha", "validation", "auc") == (0.57, 0.03)
    assert published("cox_ph", "validation", "brier") == (0.20, 0.01)
    assert published("cox_ph", "external", "c_index") is None
    assert published(TRUE_RISK, "test", "c_index") is None
    assert published_summary()["bmi"] == "26.3 ± 4.4"
    assert set(thesis_order()) == {name for name, row in load_experiments().items() if not row.morphometry}
    assert in_thesis_order(["cox_ph", "mine", TRUE_RISK, "cds_full"]) == [TRUE_RISK, "cds_full", "cox_ph", "mine"]


def test_a_table_of_other_fold_models_is_made_anew(run, page):
    before, record = read_ablation(run)[0], run.out / "ablation.json"
    marked = before.assign(mean=0.123)
    marked.to_csv(run.out / "ablation.csv", index=False)
    assert (read_ablation(run)[0]["mean"] == 0.123).all()  # same fold models: taken as it is
    made_from = json.loads(record.read_text())
    assert len(made_from["experiments"]["deepsurv"]) == 2
    made_from["experiments"]["deepsurv"][1] = "of another setting"
    record.write_text(json.dumps(made_from))
    pd.testing.assert_frame_equal(read_ablation(run)[0], before)
    marked.to_csv(run.out / "ablation.csv", index=False)
    more = replace(run, profile=replace(run.profile, bootstrap_draws=run.profile.bootstrap_draws + 30))
    assert (read_ablation(more)[0]["mean"] != 0.123).all()  # another number of draws
    record.unlink()
    marked.to_csv(run.out / "ablation.csv", index=False)
    pd.testing.assert_frame_equal(read_ablation(run)[0], before)


def test_another_outcome_has_no_published_values_and_is_escaped(tmp_path, monkeypatch):
    settings = {"covariates": {"age": "continuous", "smoker": "binary"}, "outcome": f"a fall {SCRIPT}"}
    folder = write_cohort(tmp_path / "c", tabular(), **settings)
    other = prepare(folder, tmp_path / "out", "tiny")
    for fold in range(2):
        write_predictions(other, "cox_ph", fold, other.cohort.table["age"].to_numpy())
    text = " ".join(texts_of(execute("05_ablation_tables", folder, other.out, monkeypatch)))
    assert "thesis" not in text
    assert "<script>" not in text
    assert "a fall &lt;script&gt;" in text
    frame = pd.DataFrame([["a<b", "1\n[0, 2]"]], columns=pd.MultiIndex.from_tuples([("", "x"), ("g & h", "y")]))
    made = to_html(frame, "cap<tion")
    for shown in ("a&lt;b", "1<br><small>[0, 2]</small>", ">g &amp; h</th>", "cap&lt;tion"):
        assert shown in made
    assert plain("[a](b) <i> *c* $x$") == r"\[a\](b) &lt;i&gt; \*c\* \$x\$"


def test_a_table_is_shown_rounded_and_saved_as_it_is(tmp_path):
    frame = pd.DataFrame({"n": [1200, 3], "c": [-0.12345, np.nan], "text": ["a", "=1+1"], "yes": [True, False]},
                         index=pd.Index(["x", "y"], name="row"))  # fmt: skip
    shown = as_text(frame)
    assert shown.to_numpy().tolist() == [["x", "1,200", "−0.123", "a", "yes"], ["y", "3", "–", "=1+1", "no"]]
    write_table(frame, shown, "caption", tmp_path / "t")
    assert (tmp_path / "t.csv").read_text() == "row,n,c,text,yes\nx,1200,-0.12345,a,True\ny,3,,'=1+1,False\n"
    assert "1,200 & $-$0.123 & a & yes" in (tmp_path / "t.tex").read_text()


def test_groups_without_prior_fracture_and_without_binary_covariates(tmp_path):
    table = tabular()
    both = write_cohort(tmp_path / "a", table, covariates={"age": "continuous", "smoker": "binary"})
    assert follow_up_groups(read_cohort(both))[0] == "smoker"
    one = read_cohort(write_cohort(tmp_path / "b", table, covariates={"age": "continuous"}))
    name, group, labels = follow_up_groups(one)
    assert (name, group.sum()) == ("age", int((table["age"] > table["age"].median()).sum()))
    assert labels[0].startswith("Age")


def test_some_rows_alone_have_no_adjusted_p(run):
    """Notebooks of one row are held against fewer others than the report is."""
    _, some = ablation(run, ["cox_ph", "deepsurv"], progress=False)
    assert some["p"].notna().any()
    assert some["p_holm"].isna().all()
    assert set(some["reference"]) == {"cox_ph", "deepsurv"}


def test_external_patients_without_events_leave_the_test_patients_evaluated(tmp_path, monkeypatch):
    def change(table):
        table["split"] = np.repeat(["train", "test", "external"], [80, 40, 40])
        table.loc[table["split"] == "external", "event"] = 0

    run = made_up_run(tmp_path, change=change)
    texts = texts_of(execute("05_ablation_tables", run.cohort.folder, run.out, monkeypatch))
    table, _ = read_ablation(run)
    assert "external" in set(table["split"])  # it has Brier scores
    assert evaluated_split(table) == "test"
    assert "40 test patients" in " ".join(texts)
    results = pd.read_csv(run.out / "tables" / "results_external.csv")
    brier = table.query("metric == 'brier' and split == 'external' and experiment == 'cox_ph'")
    value = brier.loc[brier["horizon_days"] == 1826, "mean"].item()
    assert results.set_index("model").loc["Cox PH"].str.contains(f"{value:.3f}").any()


def test_without_any_event_held_out_what_needs_none_is_shown(tmp_path, monkeypatch):
    def change(table):
        table["split"] = np.repeat(["train", "test", "external"], [100, 30, 30])
        table.loc[100:, "event"] = 0

    run = made_up_run(tmp_path, change=change)
    texts = texts_of(execute("05_ablation_tables", run.cohort.folder, run.out, monkeypatch))
    assert headline_horizon(read_ablation(run)[0], "external") == 1826
    assert "there is no C-index" in " ".join(texts)
    assert not any(re.search(r"\bnan\b", text, re.I) for text in texts)
