"""Numbers as text: signs, intervals, missing values, p-values, horizons."""

import math

import pytest

from fracsurv.utils.formatting import (
    counted,
    estimate_cell,
    format_p,
    horizon_label,
    number,
    true_minus,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (counted(0, "event"), "0 events"),
        (counted(1, "event"), "1 event"),
        (counted(1204, "event"), "1,204 events"),
        (counted(3, "box", "boxes"), "3 boxes"),
        (number(-0.5, ".2f"), "−0.50"),
        (number(-0.0004), "0.000"),
        (number(NAN), "not known"),
        (estimate_cell(0.612, 0.571, 0.653, sd=0.01), "0.612 ± 0.010\n[0.571, 0.653]"),
        (estimate_cell(0.02, -0.01, 0.05, "+.3f"), "+0.020\n[−0.010, +0.050]"),
        (estimate_cell(0.6, NAN, NAN), "0.600"),
        (estimate_cell(NAN, 0.1, 0.2), "–"),
        (true_minus("from -0.1 to 3-4"), "from −0.1 to 3-4"),
        (format_p(0.0004), "p < 0.001"),
        (format_p(0.0312), "p = 0.031"),
        (format_p(0.4567), "p = 0.46"),
        (format_p(NAN), "p not defined"),
        (horizon_label(365), "1 year"),
        (horizon_label(1826), "5 years"),
        (horizon_label(730.5), "730.5 days"),
        (horizon_label(1826, "months"), "1826 months"),  # of another unit never years
        (horizon_label(0.3333, "months"), "0.3333 months"),
    ],
)
def test_numbers_as_text(found, text):
    assert found == text
