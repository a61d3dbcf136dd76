"""What the reference study reports, to stand beside a run's own results (`configs/published.yaml`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import yaml

from fracsurv.config import CONFIGS, TRUE_RISK

OUTCOME = "any fracture"
"""The thesis's outcome; beside a cohort with another one its figures would say nothing."""


@cache
def _content() -> dict:
    return yaml.safe_load((CONFIGS / "published.yaml").read_text(encoding="utf-8"))


def published(experiment: str, split: str, metric: str) -> tuple[float, float] | None:
    """Mean and SD over the thesis's three fold models; None where it reports none.

    Parameters
    ----------
    split : str
        'test' (Tables 4.2 and 4.3) or 'validation' (4.1 and A.2); the thesis has no external cohort.
    metric : str
        'c_index', 'auc' or 'brier' (of a horizon that the thesis does not name).
    """
    value = _content().get(split, {}).get(experiment, {}).get(metric)
    return None if value is None else (float(value[0]), float(value[1]))


def published_hyperparameters(experiment: str) -> dict[str, str | float | bool | int] | None:
    """Table A.1: `encoder, lr, cosine, epochs, batch`; None for experiments that are not the thesis's."""
    return _content()["hyperparameters"].get(experiment)


def published_summary() -> dict[str, str]:
    """Table 2.1 by covariate, with 'event' and 'time'."""
    return dict(_content()["summary"])


def thesis_order() -> list[str]:
    """The experiments in the order of Table 4.3."""
    return list(_content()["test"])


def in_thesis_order(names: Iterable[str]) -> list[str]:
    """True risk first, then the rows of Table 4.3 in its order, then any others."""
    names, order = list(names), [TRUE_RISK, *thesis_order()]
    return [name for name in order if name in names] + [name for name in names if name not in order]
