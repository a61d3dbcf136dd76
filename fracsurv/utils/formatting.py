"""Numbers as text: counts, signs, intervals, p-values, horizons, and what stands for missing ones."""

from __future__ import annotations

import html
import math
import re

NOT_KNOWN = "not known"
MISSING = "–"
"""What stands in a table's cell where there is no value."""
DAYS_A_YEAR = 365.25
HORIZONS_YEARS = (1, 3, 5, 8)
"""The protocol's horizons."""


def counted(n: int, one: str, many: str | None = None) -> str:
    """A count with its noun: '1 patient', '1,204 patients'; `many` where the plural is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def number(value: float, form: str = ".3f", unknown: str = NOT_KNOWN) -> str:
    """A value in a format, with a true minus sign and never minus zero; `unknown` for NaN."""
    if math.isnan(value):
        return unknown
    text = f"{value:{form}}"
    if text.startswith("-") and not text.strip("-0.,%"):
        text = "+" * form.startswith("+") + text[1:]
    return text.replace("-", "−")


def estimate_cell(
    value: float, low: float, high: float, form: str = ".3f", *, sd: float = math.nan, between: str = "\n"
) -> str:
    """A table's cell: '0.612 ± 0.010' and, on a second line, '[0.571, 0.653]'; what is NaN is left out."""
    if math.isnan(value):
        return MISSING
    spread = "" if math.isnan(sd) else f" ± {number(sd, form.removeprefix('+'))}"
    bounds = "" if math.isnan(low) else f"{between}[{number(low, form)}, {number(high, form)}]"
    return number(value, form) + spread + bounds


def format_p(p: float) -> str:
    """'p = 0.03', 'p < 0.001', or 'p not defined'."""
    if not math.isfinite(p):
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def horizon_label(horizon: float, unit: str = "days") -> str:
    """'5 years' for the protocol's horizons where times are in days; the number and its unit for any other."""
    years = {round(DAYS_A_YEAR * year): year for year in HORIZONS_YEARS} if unit == "days" else {}
    return counted(years[horizon], "year") if horizon in years else f"{horizon:g} {unit}"


def first_upper(text: str) -> str:
    """The first letter raised, the rest as it is: 'MOF or ICU stay', not 'Mof or icu stay'."""
    return text[:1].upper() + text[1:]


def true_minus(text: str) -> str:
    """Hyphens before digits made minus signs."""
    return re.sub(r"(?<![\w–])-(?=\d)", "−", text)


def plain(text: object) -> str:
    """Text from a cohort, made safe to stand in Markdown: nothing in it is markup any more."""
    return re.sub(r"([\\`*_{}\[\]#|!~$])", r"\\\1", html.escape(str(text), quote=False))
