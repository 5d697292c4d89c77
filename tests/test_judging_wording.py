"""Numbers as people read them: signs, units and digits."""

from __future__ import annotations

import math

import pytest

from edgetune.judging.gate.wording import (
    about,
    difference_text,
    margin_text,
    probability,
    range_text,
    share_text,
    size_text,
    value_range_text,
    value_text,
)
from edgetune.judging.statistics.intervals import Interval
from edgetune.metrics.units import Unit


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9111, "share", "91.1 %"),
        (34.21, "points", "34.2"),
        (4.309, "grade", "4.31 of 5"),
        (3.0, "log", "20.1"),
        (math.log(2.5), "log", "2.50"),
        (5000.0, "log", "10^2171"),
        (1234.5, "number", "1,234"),
        (0.8764, "number", "0.876"),
        (0.0, "number", "0.000"),
        (-3.14159, "number", "−3.14"),
    ],
)
def test_a_value_has_its_unit(value: float, unit: Unit, text: str) -> None:
    assert value_text(value, unit) == text


@pytest.mark.parametrize(
    ("difference", "unit", "text"),
    [
        (-0.0333, "share", "−3.3 points"),
        (0.0001, "share", "0.0 points"),
        (1.25, "points", "+1.2 points"),
        (-0.314, "grade", "−0.31 grades"),
        (-0.001, "grade", "0.00 grades"),
        (math.log(1.013), "log", "+1.3 %"),
        (math.log(0.5), "log", "−50.0 %"),
        (-12.34, "number", "−12.3"),
    ],
)
def test_a_difference_has_its_sign_and_unit(difference: float, unit: Unit, text: str) -> None:
    assert difference_text(difference, unit) == text


@pytest.mark.parametrize(
    ("unit", "bounds", "text"),
    [
        ("share", (-0.099, 0.012), "−9.9 to +1.2"),
        ("grade", (-0.5, 0.0), "−0.50 to 0.00"),
        ("log", (math.log(0.996), math.log(1.013)), "−0.4 to +1.3 %"),
        ("points", (-1.0, 2.0), "−1.0 to +2.0"),
    ],
)
def test_an_interval_of_a_difference_has_signs(unit: Unit, bounds: tuple[float, float], text: str) -> None:
    assert range_text(Interval(*bounds, 0.95), unit) == text


@pytest.mark.parametrize(
    ("unit", "bounds", "text"),
    [
        ("share", (0.834, 0.954), "83.4 to 95.4"),
        ("grade", (4.02, 4.41), "4.02 to 4.41"),
        ("log", (math.log(8), math.log(12)), "8.00 to 12.0"),
    ],
)
def test_an_interval_of_a_value_has_none(unit: Unit, bounds: tuple[float, float], text: str) -> None:
    assert value_range_text(Interval(*bounds, 0.95), unit) == text


@pytest.mark.parametrize(
    ("size", "unit", "text"),
    [
        (0.02, "share", "2 points"),
        (0.01, "share", "1 point"),
        (0.0837, "share", "8.4 points"),
        (1.0, "points", "1 point"),
        (2.5, "points", "2.5 points"),
        (0.25, "grade", "0.25 grades"),
        (math.log(1.02), "log", "2 %"),
        (0.01, "number", "0.010"),
    ],
)
def test_a_size_has_no_sign(size: float, unit: Unit, text: str) -> None:
    assert size_text(size, unit) == text


def test_p_values_and_rough_numbers_have_no_more_digits_than_they_are_worth() -> None:
    assert probability(0.03906) == "p = 0.039"
    assert probability(0.0004) == "p < 0.001"
    assert [about(count) for count in (7, 95, 123, 1234, 98765)] == ["7", "95", "130", "1,300", "99,000"]


@pytest.mark.parametrize(
    ("size", "unit", "text"),
    [
        (0.1449, "grade", "0.15 grades"),
        (0.15, "grade", "0.16 grades"),
        (0.0402, "share", "4.1 points"),
        (0.0, "share", "0.1 points"),
        (1.23, "points", "1.3 points"),
        (0.0198, "log", "2 %"),
        (0.02, "log", "2.1 %"),
        (0.0123, "number", "0.013"),
        (12.34, "number", "12.4"),
    ],
)
def test_the_smallest_margin_that_passes_is_rounded_up(size: float, unit: Unit, text: str) -> None:
    assert margin_text(size, unit) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.258, "26 %"), (0.0582, "6 %"), (0.0149, "1.5 %"), (0.00149, "0.1 %"), (0.00006, "0.01 %")]
)
def test_a_rough_share_has_one_or_two_digits(share: float, text: str) -> None:
    assert share_text(share) == text
