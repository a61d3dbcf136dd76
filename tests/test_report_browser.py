"""The report as headless Chromium shows it: nothing asked of anybody, no complaint, nothing wider than the window."""

from __future__ import annotations

import nbformat
import pandas as pd
import pytest

from fracsurv import report
from tests.browser import CHROMIUM, browser
from tests.made_up import made_up_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
WIDTHS = [1280, 390]
TOO_WIDE = """[...document.querySelectorAll('main *')]
  .filter(e => !e.closest('.wide') && e.getBoundingClientRect().right > window.innerWidth + 1)
  .map(e => e.outerHTML.slice(0, 80))"""
UNREADABLE = """[...document.querySelectorAll('img')].filter(i => !i.complete || !i.naturalWidth || !i.alt).length"""
DEAD_ANCHORS = """[...document.querySelectorAll('a[href^="#"]')]
  .filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.hash)"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = made_up_run(tmp_path_factory.mktemp("made-up"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01 Who?\n\n$x^2$ and `code`")])
    (made.out / "notebooks").mkdir(parents=True)
    nbformat.write(notebook, made.out / "notebooks" / "01_eda.ipynb")
    report.write_report(made)
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("file", ["index.html", "pages/cox_ph.html", "pages/tripod_ai.html", "notebooks/01_eda.html"])
def test_page_stands_alone_and_fits(run, page, file, width):
    page.open(run.out / file, width)
    asked = [url for url in page.requests if not url.startswith("data:")]
    assert asked == [(run.out / file).resolve().as_uri()]
    assert page.complaints == []
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(TOO_WIDE) == []
    assert page.run(UNREADABLE) == 0
    assert page.run(DEAD_ANCHORS) == []


def test_the_harness_sees_what_it_looks_for(page, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<main><a href='#nowhere'>x</a><p style='width:3000px'>wide</p><img src='data:,'>"
        "<script src='http://127.0.0.1:9/x.js'></script><script>undefined.x</script></main>"
    )
    page.open(bad, 1280)
    assert any("127.0.0.1:9" in url for url in page.requests)
    assert len(page.complaints) >= 2
    assert page.run("document.documentElement.scrollWidth") > 1280
    assert len(page.run(TOO_WIDE)) == 1
    assert page.run(UNREADABLE) == 1
    assert page.run(DEAD_ANCHORS) == ["#nowhere"]


def test_every_link_of_the_navigation_moves_the_page(run, page):
    page.open(run.out / "index.html", 1280)
    hashes = page.run("[...document.querySelectorAll('nav a')].map(a => a.hash)")
    assert len(hashes) > 8
    for target in hashes:
        page.run(f"document.querySelector('nav a[href=\"{target}\"]').click()")
        top = page.run(f"document.getElementById('{target[1:]}').getBoundingClientRect().top")
        at_end = page.run("Math.abs(scrollY + innerHeight - document.documentElement.scrollHeight) < 2")
        assert at_end or abs(top) < 60, target


def test_everything_can_be_reached_by_keyboard(run, page):
    page.open(run.out / "index.html", 390)
    # what scrolls sideways takes the focus, and so do links and folded parts; nothing else has to
    assert page.run("[...document.querySelectorAll('.wide')].every(e => e.tabIndex === 0)")
    assert page.run("[...document.querySelectorAll('a, summary')].every(e => e.tabIndex === 0)")


def test_tables_numbers_as_shown_are_those_of_ablation_csv(run, page):
    page.open(run.out / "index.html", 1280)
    rows = page.run(
        "[...document.querySelector('#results').closest('section').querySelectorAll('tbody tr')]"
        ".map(r => [...r.children].map(c => c.innerText))"
    )
    table = pd.read_csv(run.out / "ablation.csv")
    names = {"True risk (simulator)": "true_risk", "Cox PH": "cox_ph", "DeepSurv": "deepsurv"}
    checked = 0
    for first, *cells in rows:
        name = names[first.split("\n")[0]]
        columns = [(s, m) for s in ("external", "test", "validation") for m in ("c_index", "auc", "brier")]
        for (split, metric), cell in zip(columns, cells, strict=False):
            at = (table["experiment"] == name) & (table["split"] == split) & (table["metric"] == metric)
            row = table[at & ((metric == "c_index") | (table["horizon_days"] == 1826))].iloc[0]
            mean, _, rest = cell.partition(" ± ")
            assert float(mean) == round(row["mean"], 3)
            assert rest.startswith(f"{row['sd']:.3f}")
            checked += 1
    assert checked == 27


def test_it_prints_on_paper(run, page):
    page.open(run.out / "index.html", 1280)
    found = page.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
    assert len(found["data"]) > 50_000
    assert page.complaints == []
