"""Numbers in sentences and tables: counts, signs, intervals, missing values."""

from __future__ import annotations

import math
import re

NOT_KNOWN = "not known"
MISSING = "–"
"""What stands in a table's cell where there is no value."""


def counted(n: int, one: str, many: str | None = None) -> str:
    """A count with its noun: '1 patient', '1,204 patients'; `many` where the plural is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def be(n: int) -> str:
    """The verb before so many of something: 'is' or 'are'."""
    return "is" if n == 1 else "are"


def have(n: int) -> str:
    """The verb after so many of something: 'has' or 'have'."""
    return "has" if n == 1 else "have"


def was(n: int) -> str:
    """Likewise 'was' or 'were'."""
    return "was" if n == 1 else "were"


def number(value: float, form: str = ".3f", unknown: str = NOT_KNOWN) -> str:
    """A value in a format, with a true minus sign; `unknown` for NaN."""
    return unknown if math.isnan(value) else f"{value:{form}}".replace("-", "−")


def signed(value: float, unknown: str = NOT_KNOWN) -> str:
    """'+0.042', with a true minus sign; `unknown` for NaN."""
    return number(round(value, 3) + 0.0, "+.3f", unknown)  # + 0.0: never minus nothing


def interval(low: float, high: float, *, sign: bool = False) -> str:
    """'0.61 to 0.75', with three decimals; 'not known' where a bound is NaN."""
    form = "+.3f" if sign else ".3f"
    return NOT_KNOWN if math.isnan(low + high) else f"{number(low, form)} to {number(high, form)}"


def bracketed(value: float, low: float, high: float) -> str:
    """'0.93 [0.71, 1.15]' with two decimals, '0.93 [interval not known]', or 'not known'."""
    if math.isnan(value):
        return NOT_KNOWN
    known = math.isfinite(low) and math.isfinite(high)
    within = f"{number(low, '.2f')}, {number(high, '.2f')}" if known else f"interval {NOT_KNOWN}"
    return f"{number(value, '.2f')} [{within}]"


def first_upper(text: str) -> str:
    """The first letter raised, the rest as it is: 'MOF or ICU stay', not 'Mof or icu stay'."""
    return text[:1].upper() + text[1:]


def true_minus(text: str) -> str:
    """Hyphens before digits made minus signs."""
    return re.sub(r"(?<![\w–])-(?=\d)", "−", text)
