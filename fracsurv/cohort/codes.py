"""Codes and words in a table as numbers: by `values` of cohort.yaml, or plain yes and no."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd

from fracsurv.cohort.checks import Columns
from fracsurv.cohort.settings import CohortSettings
from fracsurv.cohort.tables import DECIMAL_COMMA, clean_name
from fracsurv.utils.errors import closest, shorten

WORDS = (("no", "yes"), ("false", "true"), ("unchecked", "checked"))
"""What is 0 and 1 without asking."""


def coded(
    table: pd.DataFrame, columns: Columns, settings: CohortSettings, faults: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The table with numbers for codes and words, and in words which ones nobody asked for.

    Codes are those of `values` in cohort.yaml. In a binary covariate that holds `WORDS` of one pair alone, these are
    0 and 1; in `event` true and false, since yes and no may be said of another question.
    """
    table, known = table.copy(), ["event", *columns.covariates]
    for name, codes in settings.values.items():  # noqa: PD011  (no frame)
        if name not in known:
            faults.append(
                f"cohort.yaml, values: {shorten(name)} is no covariate, nor event{closest(str(name), known)}"
            )
        elif name in table:
            table[name] = _by_codes(table[name], codes, f"cohort.yaml, values, {name}", faults)
    found: dict[tuple[str, str], list[str]] = {}
    binary = [name for name, kind in columns.covariates.items() if kind == "binary"]
    for name in ["event", *binary]:
        if name not in table or pd.api.types.is_numeric_dtype(table[name]):
            continue
        table[name] = table[name].astype(object)
        text = _all_plain(table[name])
        pairs = [pair for pair in WORDS if text.isin(pair).any()]
        alone = {*text} - {""} != {*pairs[0][1:], "2"} if pairs else False  # the word for 1 and 2 are other codes
        if len(pairs) == 1 and alone and not (name == "event" and pairs[0] != WORDS[1]):
            table[name] = table[name].where(~text.isin(pairs[0]), text.map(dict(zip(pairs[0], "01", strict=True))))
            found.setdefault(pairs[0], []).append(columns.theirs(name))
    return table, [f"{yes} = 1 and {no} = 0 in {', '.join(names)}" for (no, yes), names in found.items()]


def _by_codes(values: pd.Series, codes: dict[object, float | None], where: str, faults: list[str]) -> pd.Series:
    """The column with the numbers that the codes stand for (None: missing), whatever their capitals."""
    numbers: dict[str, float] = {}
    for code, number in codes.items():
        for text in _spellings(code):
            value = np.nan if number is None else number
            if numbers.setdefault(text, value) not in (value, number):
                faults.append(f"{where}: {shorten(code)} is given twice, by other capitals")
    values = values.astype(object)
    text = _all_plain(values)
    found = text.map(numbers)
    if (text.isin(numbers) | (text == "")).all():
        return found
    mark = "," if values.astype(str).str.fullmatch(DECIMAL_COMMA).any() else "."
    written = found.map("{:.15g}".format).replace("nan", "").str.replace(".", mark, regex=False)
    return values.where(~text.isin(numbers), written)


def _spellings(code: object) -> list[str]:
    """What a key of YAML may stand for: it takes yes, no, on and off for true and false."""
    if isinstance(code, bool):
        return ["true", "yes", "on"] if code else ["false", "no", "off"]
    return [_plain(code)]


def _all_plain(values: pd.Series) -> pd.Series:
    """`_plain` of each field, of which many are alike."""
    which, fields = pd.factorize(values, use_na_sentinel=False)
    return pd.Series(np.array([*map(_plain, fields), ""], dtype=object)[which], values.index)


def _plain(value: object) -> str:
    """A field or code without capitals; a number in one way of writing it, 1 for 1.0 and 1,00."""
    text = "" if value is None or value is pd.NA or value != value else clean_name(value).casefold()
    with suppress(ValueError):
        return f"{float(text.replace(',', '.')):.15g}"
    return text
