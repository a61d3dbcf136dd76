"""The report as headless Chromium shows it: nothing asked of anybody, no complaint, nothing wider than the window."""

from __future__ import annotations

import base64
import re

import nbformat
import pytest
import yaml

from fracsurv.config import ROOT
from fracsurv.pipeline.notebook_job import execute
from fracsurv.report import report
from fracsurv.study.prepare import prepare
from fracsurv.study.results import write_predictions
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


def reported(made):
    """The run with notebook 05 executed, one more notebook, and its report."""
    notebooks = made.out / "notebooks"
    execute(ROOT / "notebooks" / "05_ablation_tables.ipynb", notebooks / "05_ablation_tables.ipynb",
            cohort=made.cohort.folder, profile="tiny", out=made.out)  # fmt: skip
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# 01 Who?\n\n$x^2$ and `code`")])
    nbformat.write(notebook, notebooks / "01_eda.ipynb")
    report.write_report(made)
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return reported(made_up_run(tmp_path_factory.mktemp("made-up")))


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


def test_every_heading_in_the_contents_moves_the_page(run, page):
    page.open(run.out / "index.html", 1280)
    page.run("document.querySelector('.menu').open = true")
    hashes = page.run("[...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    hashes = [target for target in hashes if target.startswith("#")]
    assert len(hashes) > 6
    for target in hashes:
        page.run(f"document.querySelector('nav a[href=\"{target}\"]').click()")
        top = page.run(f"document.getElementById(decodeURI('{target[1:]}')).getBoundingClientRect().top")
        at_end = page.run("Math.abs(scrollY + innerHeight - document.documentElement.scrollHeight) < 2")
        assert at_end or abs(top) < 60, target


def test_code_is_hidden_until_it_is_asked_for(run, page):
    page.open(run.out / "index.html", 1280)
    shown = "[...document.querySelectorAll('.input')].filter(e => e.checkVisibility()).length"
    assert page.run(shown) == 0
    page.run("document.querySelector('#code').click()")
    assert page.run(shown) > 10


def test_everything_can_be_reached_by_keyboard(run, page):
    """What scrolls sideways takes the focus and has a name; the first stop leads to the content."""
    page.open(run.out / "index.html", 1280)
    assert page.run("[...document.querySelectorAll('.wide, a, summary, input')].every(e => e.tabIndex === 0)")
    names = page.run("[...document.querySelectorAll('.wide')].map(e => e.getAttribute('aria-label'))")
    assert len(set(names)) == len(names) > 10
    assert page.run("document.querySelector('a').hash") == "#content"
    assert page.run("document.querySelector('a').getBoundingClientRect().right") < 0  # seen only with the focus
    page.ask("Emulation.setFocusEmulationEnabled", enabled=True)
    page.run("document.querySelector('a').focus()")
    assert page.run("document.querySelector('a').getBoundingClientRect().left") >= 0


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_word_of_the_cohorts_does_not_widen_the_page(page, tmp_path, width):
    made = made_up_run(tmp_path)
    settings = yaml.safe_load((made.cohort.folder / "cohort.yaml").read_text())
    settings |= {"description": "d" * 300, "outcome": "o" * 200}
    (made.cohort.folder / "cohort.yaml").write_text(yaml.safe_dump(settings))
    made = prepare(made.cohort.folder, made.out, "tiny")
    for name in ("true_risk", "cox_ph"):
        for fold in range(made.profile.n_folds):
            write_predictions(made, name, fold, made.cohort.table["age"].to_numpy())
    reported(made)
    for file in ("index.html", "pages/cox_ph.html", "pages/tripod_ai.html"):
        page.open(made.out / file, width)
        assert page.run("document.documentElement.scrollWidth") <= width, file
        assert page.run(TOO_WIDE) == [], file


def test_on_paper_it_is_short_and_nothing_is_cut(run, page):
    page.open(run.out / "index.html", 1280)
    page.ask("Emulation.setEmulatedMedia", media="print")
    try:
        assert (
            page.run("[...document.querySelectorAll('.input, .menu, #code')].some(e => e.checkVisibility())") is False
        )
        assert page.run("getComputedStyle(document.querySelector('.wide')).overflowX") == "visible"
    finally:
        page.ask("Emulation.setEmulatedMedia", media="")
    found = page.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
    sheets = len(re.findall(rb"/Type\s*/Page[^s]", base64.b64decode(found["data"])))
    assert 3 < sheets <= 12
    assert page.complaints == []
