"""Checklists and model cards: every item is there, what a run cannot know is open, nothing hostile gets through."""

from __future__ import annotations

import re

import pytest
import yaml

from fracsurv.config import CONFIGS
from fracsurv.report.cards import OPEN, _facts, checklist, write_cards
from fracsurv.study.ablation import write_ablation
from fracsurv.study.prepare import prepare
from fracsurv.study.results import write_predictions
from tests.conftest import tabular, write_cohort
from tests.made_up import SCRIPT, made_up_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up_run(tmp_path_factory.mktemp("made-up"))


def answers(run, stem, names=("cox_ph", "deepsurv")):
    return checklist(stem, _facts(run, list(names)))[1].set_index("item")["from this run"]


def test_tripod_has_all_52_parts_of_27_items_and_leaves_open_what_a_run_cannot_know(run):
    found = answers(run, "tripod_ai")
    assert len(found) == 52
    assert {int(re.match(r"\d+", item)[0]) for item in found.index} == set(range(1, 28))
    assert (found[["1", "2", "3a", "6b", "18a", "18d", "19"]] == OPEN).all()
    events = int(run.cohort.table["event"][100:].sum())
    assert f"external 60 patients ({events} events)" in found["21"]
    assert not found.str.contains(r"[{}]|\bnan\b|None\b(?!\.| was)").any()


def test_probast_has_its_four_domains(run):
    found = checklist("probast_ai", _facts(run, ["cox_ph"]))[1]
    assert found["topic"].nunique() == 4
    assert (found["from this run"] == OPEN).any()


def test_a_real_cohort_leaves_ethics_open(tmp_path):
    kinds = {"age": "continuous", "smoker": "binary"}
    cohort = write_cohort(tmp_path / "c", tabular(90), covariates=kinds, description="a {{ strange }} one")
    made = prepare(cohort, tmp_path / "r", "tiny")
    for fold in range(2):
        write_predictions(made, "cox_ph", fold, made.cohort.table["age"].to_numpy())
    found = answers(made, "tripod_ai", ["cox_ph"])
    assert found["17"] == found["6a"] == found["16"] == OPEN
    assert "a {{ strange }} one" in found["5a"]  # text of a cohort is no template


@pytest.mark.parametrize("stem", ["tripod_ai", "probast_ai"])
def test_every_item_is_a_topic_a_question_and_at_most_an_answer(stem):
    items = yaml.safe_load((CONFIGS / f"{stem}.yaml").read_text(encoding="utf-8"))["items"]
    assert all(len(parts) in (2, 3) for parts in items.values())


def test_cards_name_the_model_and_escape_the_cohorts_text(run):
    pages = write_cards(run, write_ablation(run)[0])
    assert {path.stem for path in pages} == {"tripod_ai", "probast_ai", "cox_ph", "deepsurv"}
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert SCRIPT not in text
        assert not re.search(r"\bnan\b", text, re.I)
    text = (run.out / "pages" / "deepsurv.html").read_text(encoding="utf-8")
    assert "best.safetensors" in text
    assert "Simulated cohort" in text
