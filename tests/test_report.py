"""The report and the notebooks on a run that is made up: what stands in them, and what must not."""

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import nbformat
import numpy as np
import pandas as pd
import pytest

from fracsurv import report, wording
from fracsurv.config import CONFIGS, ROOT, TRUE_RISK, load_experiments
from fracsurv.curves import KAPLAN_MEIER, follow_up_groups, metrics_over_time
from fracsurv.errors import UserError
from fracsurv.files import write_json
from fracsurv.metrics import brier_score, kaplan_meier
from fracsurv.pages import notebook_html
from fracsurv.published import published, published_alpha, published_summary, thesis_order
from fracsurv.results import write_predictions
from fracsurv.run import open_run
from fracsurv.tables import in_thesis_order, main_table, results_table, to_html, way_to_true_risk
from tests.conftest import tabular, write_cohort

SCRIPT = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def _style():
    before = dict(mpl.rcParams)
    yield
    mpl.rcParams.update(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tabular cohort with hostile labels; predictions, histories and records made up, no model trained."""
    folder = tmp_path_factory.mktemp("made-up")
    table = tabular(n=160, seed=5)
    table["split"] = ["external" if i >= 100 else "" for i in range(160)]
    table["patient_id"] = [f"<script>{i}</script>" for i in range(160)]
    labels = {"age": f"Age {SCRIPT}", "smoker": "Cost [$](x) `a` *b*"}
    cohort = write_cohort(
        folder / "cohort", table, provenance="simulated", covariates={"age": "continuous", "smoker": "binary"},
        labels=labels, description=SCRIPT,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    log_hazard = 0.3 * (table["age"].to_numpy() - 78)
    pd.DataFrame({"patient_id": table["patient_id"], "log_hazard": log_hazard}).to_parquet(cohort / "truth.parquet")
    made = open_run(cohort, folder / "out", "tiny")
    for name, noise in ((TRUE_RISK, 0.0), ("cox_ph", 0.3), ("deepsurv", 0.5)):
        for fold in range(made.profile.n_folds):
            place = made.folder(name, fold)
            write_predictions(
                made, place, fold, log_hazard + noise * rng.normal(size=160), made.key(name, fold, None)
            )
            if name == "cox_ph":
                coefficients = {"covariate": ["age", "smoker"], "log_hazard_ratio": [0.5 + 0.1 * fold, -0.1]}
                pd.DataFrame(coefficients).to_csv(place / "coefficients.csv", index=False)
            if name == "deepsurv":
                history = {"epoch": [1, 2], "train_loss": [4.0, 3.0], "train_c_index": [0.5, 0.6]}
                history |= {"validation_loss": [np.nan, 3.5], "validation_c_index": [np.nan, 0.58]}
                pd.DataFrame(history).to_csv(place / "history.csv", index=False)
                write_json(place / "fit.json", {"key": made.key(name, fold, None), "seconds": 1.5, "threads": 1})
    return made


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


def test_report_fetches_nothing_and_escapes_the_cohorts_text(page):
    assert_self_contained(page)
    assert "&lt;script&gt;" in page


def test_report_has_alt_texts_and_working_anchors(page):
    tags = Page(page).tags
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert len(images) >= 5
    assert all(len(attributes["alt"]) > 20 for attributes in images)
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    inner = [a["href"][1:] for tag, a in tags if tag == "a" and a["href"].startswith("#")]
    assert len(inner) >= 5
    assert set(inner) <= ids


def test_report_says_first_what_the_cohort_is(run, page):
    assert page.index("Simulated cohort:") < page.index(report.question(run), page.index("<body>"))
    assert "Its figures mean nothing" in page


def test_links_lead_to_files_that_are_there(run, page):
    links = [a["href"] for tag, a in Page(page).tags if tag == "a" and not a["href"].startswith("#")]
    assert set(links) == {"notebooks/01_eda.html", "provenance.json", "ablation.csv", "differences.csv"}
    assert all((run.out / link).exists() for link in links)


def test_tables_numbers_are_those_of_ablation_csv(run, page):
    table = pd.read_csv(run.out / "ablation.csv")
    first = page[page.index("<table") : page.index("</table>")]
    rows = {row[0]: row[1:] for row in Page(first).cells[2:]}
    assert set(rows) == {"True risk (simulator)", "Cox PH tabular only", "DeepSurv tabular only"}
    wanted = {
        "True risk (simulator)": TRUE_RISK,
        "Cox PH tabular only": "cox_ph",
        "DeepSurv tabular only": "deepsurv",
    }
    checked = 0
    for shown, name in wanted.items():
        columns = [(s, m) for s in ("external", "test", "validation") for m in ("c_index", "auc", "brier")]
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
    assert [fit["experiment"] for fit in facts["fits"]] == ["deepsurv"] * 2
    assert facts["packages"]["torch"].startswith("2.")
    assert facts["profile"]["name"] == "tiny"


def test_report_without_results_is_a_users_mistake(tmp_path, run):
    empty = open_run(run.cohort.folder, tmp_path / "empty", "tiny")
    with pytest.raises(UserError, match="no experiment is finished"):
        report.write_report(empty)


def test_report_of_one_experiment_alone(tmp_path, run):
    one = open_run(run.cohort.folder, tmp_path / "one", "tiny")
    for fold in range(2):
        risk = run.cohort.table["age"].to_numpy()
        write_predictions(one, one.folder("cox_ph", fold), fold, risk, one.key("cox_ph", fold, None))
    text = report.write_report(one).read_text(encoding="utf-8")
    assert_self_contained(text)
    assert "Not run: true_risk, deepsurv." in text
    for fold in range(2):  # a table from before another experiment was finished is made anew
        write_predictions(one, one.folder("deepsurv", fold), fold, -risk, one.key("deepsurv", fold, None))
    assert set(report.read_ablation(one)[0]["experiment"]) == {"cox_ph", "deepsurv"}


def test_notebook_page_is_sanitised_folded_and_self_contained():
    notebook = nbformat.v4.new_notebook(cells=[hostile_cell()])
    text = notebook_html(notebook, "name")
    assert_self_contained(text)
    assert "<details" in text
    assert "<td>1&lt;script&gt;" in text


def differences(low, high):
    rows = [("deepsurv", "external", "c_index", np.nan, (low + high) / 2, low, high)]
    return pd.DataFrame(
        rows, columns=["experiment", "split", "metric", "horizon_days", "difference", "ci_low", "ci_high"]
    )


def c_index_rows(**means):
    return pd.DataFrame(
        [
            {"experiment": n, "split": "external", "metric": "c_index", "mean": m, "n_patients": 60}
            for n, m in means.items()
        ]
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.05, "patients, DeepSurv ranks patients better than"),
        (-0.05, -0.01, "patients, DeepSurv ranks patients worse than"),
        (-0.01, 0.03, "do not tell whether"),
        (0.0, 0.03, "do not tell whether"),
    ],
)
def test_an_interval_with_zero_is_no_gain(run, low, high, words):
    said = wording.answer_for(run, c_index_rows(cox_ph=0.6, deepsurv=0.62), differences(low, high), "deepsurv")
    assert words in said
    assert "0.620 for DeepSurv, 0.600 for Cox PH" in said
    assert wording.signed((low + high) / 2) in said


def test_answer_names_what_is_missing(run):
    none = differences(0, 0).iloc[:0]
    assert "cox_ph is not among" in wording.answer_for(run, c_index_rows(deepsurv=0.6), none, "deepsurv")
    assert "no radiographs" in wording.answer(run, c_index_rows(cox_ph=0.6), none)


def test_way_to_true_risk():
    # by hand: from 0.60 to 0.75 is 0.15; 0.66 went 0.06 of it
    table = c_index_rows(true_risk=0.75, cox_ph=0.60, deepsurv=0.66)
    assert dict(way_to_true_risk(table, "external").round(6)) == {"true_risk": 1, "cox_ph": 0, "deepsurv": 0.4}
    assert way_to_true_risk(table[1:], "external").empty


def test_not_reported_names_the_horizons_that_follow_up_does_not_reach(run):
    rows = [
        {"experiment": "cox_ph", "split": "test", "metric": m, "horizon_days": d}
        for m in ("auc", "brier")
        for d in (365.0, 1096.0)
    ]
    assert wording.not_reported(run, pd.DataFrame(rows)) == [
        "AUC and Brier score at 5 years, 8 years are not reported on test: follow-up ends before."
    ]


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


def test_published_covers_every_experiment_of_the_protocol():
    assert set(thesis_order()) == set(load_experiments())
    assert in_thesis_order(["cox_ph", "mine", TRUE_RISK, "cds_full"]) == [TRUE_RISK, "cds_full", "cox_ph", "mine"]
    assert "note" not in (CONFIGS / "published.yaml").read_text()  # a file with a note would be listed as a profile


def test_results_table_keeps_published_values_in_columns_of_their_own(run, page):
    table, found = report.read_ablation(run)
    shown = results_table(run, table, found, "test")
    groups = list(dict.fromkeys(group for group, _ in shown.columns))
    thesis = "thesis, test (Tables 4.2, 4.3): private SUPERB cohort, not comparable"
    assert groups == ["", "this run, test (simulated)", thesis]
    assert not any("thesis" in g for g, _ in results_table(run, table, found, "external").columns)
    cox = shown[shown["", "model"] == "Cox PH"].iloc[0]
    assert cox["this run, test (simulated)", "ΔC from Cox PH"] == "–"
    assert cox["this run, test (simulated)", "way to true risk"] == "0 %"
    assert len(main_table(run, table)) == 3


def test_another_outcome_has_no_published_values_and_is_escaped(tmp_path):
    settings = {"covariates": {"age": "continuous", "smoker": "binary"}, "outcome": f"a fall {SCRIPT}"}
    other = open_run(write_cohort(tmp_path / "c", tabular(), **settings), tmp_path / "out", "tiny")
    for fold in range(2):
        risk = other.cohort.table["age"].to_numpy()
        write_predictions(other, other.folder("cox_ph", fold), fold, risk, other.key("cox_ph", fold, None))
    text = report.write_report(other).read_text(encoding="utf-8")
    assert_self_contained(text)
    assert "thesis" not in text
    assert "when predicting a fall &lt;script&gt;" in text


def test_to_html_escapes_and_groups():
    frame = pd.DataFrame([["a<b", "1\n[0, 2]"]], columns=pd.MultiIndex.from_tuples([("", "x"), ("g & h", "y")]))
    made = to_html(frame, "cap<tion")
    assert "a&lt;b" in made
    assert "1<br><small>[0, 2]</small>" in made
    assert '<th colspan="1" scope="colgroup">g &amp; h</th>' in made
    assert "cap&lt;tion" in made


def test_plain_text_cannot_be_markup():
    assert wording.plain("[a](b) <i> *c* $x$") == r"\[a\](b) &lt;i&gt; \*c\* \$x\$"


def test_groups_without_prior_fracture_and_without_binary_covariates(tmp_path):
    table = tabular()
    both = open_run(write_cohort(tmp_path / "a", table, covariates={"age": "continuous", "smoker": "binary"}),
                    tmp_path / "o", "tiny").cohort  # fmt: skip
    assert follow_up_groups(both)[0] == "smoker"
    one = open_run(
        write_cohort(tmp_path / "b", table, covariates={"age": "continuous"}), tmp_path / "p", "tiny"
    ).cohort
    name, group, labels = follow_up_groups(one)
    assert (name, group.sum()) == ("age", int((table["age"] > table["age"].median()).sum()))
    assert labels[0].startswith("Age, years: at most")


@pytest.mark.parametrize("stem", ["01_eda_kaplan_meier", "03_baselines", "05_ablation_tables"])
def test_notebooks_run_on_a_cohort_without_images(run, page, stem, monkeypatch):
    shown = []
    monkeypatch.setattr("fracsurv.notebook.display", lambda data, **_: shown.append(data))
    monkeypatch.chdir(ROOT / "notebooks")
    notebook = nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4)
    names = {}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, stem, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"cohort": str(run.cohort.folder), "out": str(run.out)}
    texts = [s.data for s in shown if hasattr(s, "data")]
    assert sum(isinstance(s, dict) and "image/png" in s for s in shown) >= 2
    assert texts[0].startswith("> Simulated cohort")
    assert not any("<script>" in text for text in texts)


def test_committed_notebooks_carry_no_paths_and_stay_small():
    paths = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert len(paths) == 5
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert len(text) < 1_000_000
        notebook = nbformat.reads(text, as_version=4)
        tagged = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
        assert len(tagged) == 1
        assert notebook.cells[notebook.cells.index(tagged[0]) - 1].source.startswith("| parameter | default")
        outputs = json.dumps(
            [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" not in str(o)[:200]]
        )
        assert str(Path.home()) + "/" not in outputs
        assert str(ROOT) not in outputs
        assert "site-packages" not in outputs
        assert "Warning" not in outputs
        # nbval takes the marker only where it stands alone in its line
        marked = [c.source.splitlines()[0] for c in notebook.cells if "NBVAL" in c.source]
        assert set(marked) <= {"# NBVAL_IGNORE_OUTPUT"}


def test_provenance_names_the_commit_if_there_is_one():
    from fracsurv.provenance import commit

    found = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert (commit() or "").removesuffix("+changes") == (found.stdout.strip() if found.returncode == 0 else "")
