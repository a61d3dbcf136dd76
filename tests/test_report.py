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
from fracsurv.pipeline.pipeline import format_table
from fracsurv.report import answers, findings, report, wording
from fracsurv.report.html import notebook_html
from fracsurv.report.tables import (
    further_metrics,
    in_thesis_order,
    results_table,
    way_to_true_risk,
)
from fracsurv.report.tables_export import to_html
from fracsurv.study.ablation import ablation
from fracsurv.study.prepare import prepare
from fracsurv.study.protocol import evaluated_split, fit_records, headline_horizon
from fracsurv.study.provenance import commit
from fracsurv.study.results import write_predictions
from fracsurv.study.thesis_results import published, published_alpha, published_summary, thesis_order
from fracsurv.study.time_dependent import KAPLAN_MEIER, follow_up_groups, metrics_over_time
from fracsurv.utils.errors import UserError
from fracsurv.utils.files import write_json
from fracsurv.utils.formatting import signed
from tests.conftest import tabular, write_cohort
from tests.made_up import SCRIPT, execute, made_up_baselines, made_up_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


@pytest.fixture(scope="module")
def page(run):
    """index.html, its notebooks folder holding one hostile notebook."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell("# 01 Who?"), hostile_cell()]
    (run.out / "notebooks").mkdir(parents=True)
    nbformat.write(notebook, run.out / "notebooks" / "01_eda.ipynb")
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
    notebook = notebook_html(nbformat.v4.new_notebook(cells=[hostile_cell()]), "name")
    assert_self_contained(notebook)
    assert "<td>1&lt;script&gt;" in notebook
    assert page.index("Simulated cohort:") < page.index(report.question(run), page.index("<body>"))
    tags = Page(page).tags
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) >= 5
    assert all(len(attributes["alt"]) > 20 for attributes in images)
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    inner = [a["href"][1:] for tag, a in tags if tag == "a" and a["href"].startswith("#")]
    assert len(inner) >= 5
    assert set(inner) <= ids


def test_links_lead_to_files_that_are_there(run, page):
    links = [a["href"] for tag, a in Page(page).tags if tag == "a" and not a["href"].startswith("#")]
    tables = ["all_experiments", "results_external", "results_test", "results_validation", "further_metrics"]
    tables += ["subgroups", "leak_checks", "cohort", "hyperparameters"]
    assert set(links) == {
        "notebooks/01_eda.html", "provenance.json", "ablation.csv", "differences.csv",
        "pages/tripod_ai.html", "pages/cox_ph.html", "pages/deepsurv.html",
        *(f"tables/{name}.{kind}" for name in tables for kind in ("csv", "tex")),
    }  # fmt: skip
    assert all((run.out / link).exists() for link in links)


def test_tables_numbers_are_those_of_ablation_csv(run, page):
    table = pd.read_csv(run.out / "ablation.csv")
    first = page[page.index("<table") : page.index("</table>")]
    rows = {row[0]: row[1:] for row in Page(first).cells[2:]}
    wanted = {
        "True risk (simulator)": TRUE_RISK,
        "Cox PH tabular only": "cox_ph",
        "DeepSurv tabular only": "deepsurv",
    }
    assert set(rows) == set(wanted)
    columns = [(s, m) for s in ("external", "test", "validation") for m in ("c_index", "auc", "brier")]
    checked = 0
    for shown, name in wanted.items():
        for (split, metric), cell in zip(columns, rows[shown], strict=False):
            at = (table["experiment"] == name) & (table["split"] == split) & (table["metric"] == metric)
            if metric != "c_index":
                at &= table["horizon_days"] == 1826
            row = table[at].iloc[0]
            assert cell == f"{row['mean']:.3f} ± {row['sd']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
            checked += 1
    assert checked == 27
    assert rows["Cox PH tabular only"][-1] == "0.63 ± 0.00"  # thesis, Table 4.3
    assert rows["True risk (simulator)"][-1] == "–"


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
    assert "commit abc; torch 1.0, 1.1" in page
    assert [fit["experiment"] for fit in facts["fits"]] == ["deepsurv"] * 2
    assert facts["packages"]["torch"].startswith("2.")
    assert facts["profile"]["name"] == "tiny"
    found = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert (commit() or "").removesuffix("+changes") == (found.stdout.strip() if found.returncode == 0 else "")


@pytest.mark.parametrize("name", ["cox_ph", TRUE_RISK])
def test_report_of_no_row_is_refused_and_of_one_row_written(tmp_path, run, name):
    one = prepare(run.cohort.folder, tmp_path / "one", "tiny")
    with pytest.raises(UserError, match="no experiment is finished"):
        report.write_report(one)
    for fold in range(2):
        write_predictions(one, name, fold, run.cohort.table["age"].to_numpy())
    text = report.write_report(one).read_text(encoding="utf-8")
    assert_self_contained(text)
    assert ", ".join(other for other in one.runnable() if other != name) in text  # those that were not run
    for fold in range(2):  # a table from before another experiment was finished is made anew
        write_predictions(one, "deepsurv", fold, -run.cohort.table["age"].to_numpy())
    assert set(report.read_ablation(one)[0]["experiment"]) == {name, "deepsurv"}


@pytest.mark.parametrize("n_external", [40, 4])  # of four, most draws hold no pair that could be compared
def test_a_cohort_with_fixed_training_and_external_patients_alone(tmp_path, monkeypatch, n_external):
    table = tabular(n=80 + n_external, seed=5).assign(split=["train"] * 80 + ["external"] * n_external)
    if n_external == 4:
        table.loc[80:, ["event", "time_days"]] = [[1, 300], [0, 250], [0, 400], [0, 200]]
    folder = write_cohort(tmp_path / "c", table, covariates={"age": "continuous"})
    made = prepare(folder, tmp_path / "out", "tiny")
    made_up_baselines(made, np.random.default_rng(1))
    text = report.write_report(made).read_text(encoding="utf-8")
    assert n_external > 4 or "Without an interval: " in text
    assert not (made.out / "tables" / "results_test.csv").exists()
    shown = execute("03_baselines", folder, tmp_path / "out", monkeypatch)
    assert any(f"external ({n_external} patients)" in s.data for s in shown if hasattr(s, "data"))


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


@pytest.mark.parametrize("cox", [ABOVE, AROUND, BELOW])
@pytest.mark.parametrize("deep", [ABOVE, AROUND, (0.0, 0.03), BELOW, None])
def test_the_radiograph_adds_only_if_both_models_without_it_are_beaten(run, cox, deep):
    intervals = {"cox_ph": cox} | ({"deepsurv": deep} if deep else {})
    rows, found = c_index_rows(cox_ph=0.6, deepsurv=0.61, cds_crops_if=0.64), differences("cds_crops_if", **intervals)
    said = answers.row_answer(run, rows, found, "cds_crops_if")
    assert ("patients, the radiograph adds to" in said) == (cox == deep == ABOVE)
    assert answers.adds(found, "external") == (cox == deep == ABOVE)
    assert signed(sum(cox) / 2) in said
    without_image = answers.row_answer(run, rows, differences("deepsurv", cox_ph=cox), "deepsurv")
    assert "radiograph" not in without_image


def test_way_to_true_risk_is_a_share_where_noise_cannot_have_made_it(run):
    # by hand: from 0.60 to 0.75 is 0.15; 0.66 went 0.06 of it
    table, found = c_index_rows(true_risk=0.75, cox_ph=0.60, deepsurv=0.66), differences(TRUE_RISK, cox_ph=ABOVE)
    way = way_to_true_risk(run, table, found, "external")
    assert dict(way.round(6)) == {"true_risk": 1, "cox_ph": 0, "deepsurv": 0.4}
    assert "40 %" in findings.furthest(run, table.assign(n_patients=300), found)
    assert findings.furthest(run, table.assign(n_patients=299), found) == ""
    assert way_to_true_risk(run, table[1:], found, "external").empty
    assert way_to_true_risk(run, table, found.assign(split="test"), "external").empty
    permuted = replace(run, profile=replace(run.profile, permute_outcomes=True))
    assert way_to_true_risk(permuted, table, found, "external").empty
    for unsure in ({"cox_ph": AROUND}, {"cox_ph": (0.0, 0.03)}, {"deepsurv": ABOVE}):
        assert way_to_true_risk(run, table, differences(TRUE_RISK, **unsure), "external").empty


@pytest.mark.parametrize("n_test", [2, 6])
def test_what_is_not_known_is_never_printed_as_nan(tmp_path, n_test):
    table = tabular(60, 3)
    table["split"] = np.where(np.arange(60) < n_test, "test", "train")
    table.loc[table["split"] == "test", ["time_days", "event"]] = [2900, 0]
    table.loc[0, ["time_days", "event"]] = [500, 1]
    kinds = {"age": "continuous", "smoker": "binary"}
    made = prepare(write_cohort(tmp_path / "c", table, covariates=kinds), tmp_path / "out", "tiny")
    for fold in range(made.profile.n_folds):
        write_predictions(made, "cox_ph", fold, 0.1 * made.cohort.table["age"].to_numpy())
        write_json(made.folder("cox_ph", fold) / "fit.json", {"key": made.key("cox_ph", fold, None)})
    found = report.read_ablation(made)[0]
    path = report.write_report(made)
    pages = [path, *(made.out / "pages").glob("*.html"), *(made.out / "tables").glob("*.*")]
    for file in pages:
        text = re.sub(r"base64,[^\"]*", "", file.read_text(encoding="utf-8"))
        assert not re.search(r"\bnan\b", text, re.I), file
    assert "nan" not in format_table(found, "made up").lower()
    said = findings.calibration(made, found, "test", ["cox_ph"])
    shown = [] if said is None else [text.get_text() for axes in said.figure.axes for text in axes.texts]
    assert not re.search(r"\bnan\b", " ".join(shown))


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
    assert published_alpha("vit_crops_alpha") == 0.9
    assert published_alpha("cds_crops_if") is None
    assert published_summary()["bmi"] == "26.3 ± 4.4"
    assert set(thesis_order()) == {name for name, row in load_experiments().items() if not row.morphometry}
    assert in_thesis_order(["cox_ph", "mine", TRUE_RISK, "cds_full"]) == [TRUE_RISK, "cds_full", "cox_ph", "mine"]


def test_tables_have_a_column_for_each_reference_and_keep_published_values_apart(run, page):
    table, found = report.read_ablation(run)
    shown = {split: results_table(run, table, found, split) for split in ("external", "test", "validation")}
    for split, each in shown.items():
        assert any("thesis" in group for group, _ in each.columns) == (split != "external")
        assert any("ΔC" in name for _, name in each.columns) == (split != "validation")  # epochs were chosen there
    external = shown["external"].set_index(("", "model")).xs("this run, external (simulated)", axis=1)
    gains = found.query("experiment == 'true_risk' and split == 'external' and metric == 'c_index'")
    for reference, title in (("cox_ph", "Cox PH"), ("deepsurv", "DeepSurv")):
        gain = gains.loc[gains["reference"] == reference, "difference"].item()
        assert external.loc["True risk (simulator)", f"ΔC from {title}"].startswith(signed(gain) + "\n")
        assert external.loc[title, f"ΔC from {title}"] == "–"
    cox = table.query("experiment == 'cox_ph' and split == 'test'").set_index("metric")["mean"]
    further = further_metrics(run, table).set_index(("", "model"))
    group = next(group for group, _ in further.columns if group.startswith("test"))
    columns = {"c_index_ipcw": "Uno's C", "mean_auc": "mean AUC", "integrated_brier": "integrated Brier score"}
    for metric, column in columns.items():
        assert further.loc["Cox PH\ntabular only", (group, column)].startswith(f"{cox[metric]:.3f} ±")


def test_a_table_of_other_fold_models_is_made_anew(run, page):
    before, record = report.read_ablation(run)[0], run.out / "ablation.json"
    marked = before.assign(mean=0.123)
    marked.to_csv(run.out / "ablation.csv", index=False)
    assert (report.read_ablation(run)[0]["mean"] == 0.123).all()  # same fold models: taken as it is
    made_from = json.loads(record.read_text())
    assert len(made_from["experiments"]["deepsurv"]) == 2
    made_from["experiments"]["deepsurv"][1] = "of another setting"
    record.write_text(json.dumps(made_from))
    pd.testing.assert_frame_equal(report.read_ablation(run)[0], before)
    marked.to_csv(run.out / "ablation.csv", index=False)
    more = replace(run, profile=replace(run.profile, bootstrap_draws=run.profile.bootstrap_draws + 30))
    assert (report.read_ablation(more)[0]["mean"] != 0.123).all()  # another number of draws
    record.unlink()
    marked.to_csv(run.out / "ablation.csv", index=False)
    pd.testing.assert_frame_equal(report.read_ablation(run)[0], before)


def test_another_outcome_has_no_published_values_and_is_escaped(tmp_path):
    settings = {"covariates": {"age": "continuous", "smoker": "binary"}, "outcome": f"a fall {SCRIPT}"}
    other = prepare(write_cohort(tmp_path / "c", tabular(), **settings), tmp_path / "out", "tiny")
    for fold in range(2):
        write_predictions(other, "cox_ph", fold, other.cohort.table["age"].to_numpy())
    text = report.write_report(other).read_text(encoding="utf-8")
    assert_self_contained(text)
    assert "thesis" not in text
    assert "a fall &lt;script&gt;" in text
    frame = pd.DataFrame([["a<b", "1\n[0, 2]"]], columns=pd.MultiIndex.from_tuples([("", "x"), ("g & h", "y")]))
    made = to_html(frame, "cap<tion")
    for shown in ("a&lt;b", "1<br><small>[0, 2]</small>", ">g &amp; h</th>", "cap&lt;tion"):
        assert shown in made
    assert wording.plain("[a](b) <i> *c* $x$") == r"\[a\](b) &lt;i&gt; \*c\* \$x\$"


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


def sections(page):
    """The page's sections by id, without pictures."""
    parts = re.split(r'<section aria-labelledby="([^"]+)">', re.sub(r'src="data[^"]*"', "", page))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_external_patients_without_events_leave_the_test_patients_judged(tmp_path):
    def change(table):
        table["split"] = np.repeat(["train", "test", "external"], [80, 40, 40])
        table.loc[table["split"] == "external", "event"] = 0

    run = made_up_run(tmp_path, change=change)
    page = report.write_report(run).read_text(encoding="utf-8")
    table, differences = report.read_ablation(run)
    assert "external" in set(table["split"])  # it has Brier scores
    assert evaluated_split(table) == "test"
    parts = sections(page)
    for part in ("time", "calibration", "decision", "groups", "subgroups"):
        assert "test patients" in parts[part]
        assert "external" not in parts[part]
    assert "40 external patients (0 events)" in parts["results"]
    forest = findings.forest(run, table, differences)
    assert [axes.get_title(loc="left") for axes in forest.figure.axes] == ["test (n = 40)"]
    brier = table.query("metric == 'brier' and split == 'external' and experiment == 'cox_ph'")
    assert f"{brier.loc[brier['horizon_days'] == 1826, 'mean'].item():.3f}" in parts["results"]


def test_without_any_event_held_out_what_needs_none_is_shown(tmp_path):
    def change(table):
        table["split"] = np.repeat(["train", "test", "external"], [100, 30, 30])
        table.loc[100:, "event"] = 0

    run = made_up_run(tmp_path, change=change)
    page = report.write_report(run).read_text(encoding="utf-8")
    table, _ = report.read_ablation(run)
    assert headline_horizon(table, "external") == 1826
    parts = sections(page)
    assert "30 test patients (0 events)" in parts["results"]
    assert "30 external patients (0 events)" in parts["results"]
    assert "0.0\N{NO-BREAK SPACE}%" in parts["decision"]
    assert not re.search(r"\bnan\b", "".join(parts.values()), re.I)
