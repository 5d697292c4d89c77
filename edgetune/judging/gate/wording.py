"""How numbers are written for people: the same in the terminal, in reports and in pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from edgetune.judging.statistics.intervals import Interval
from edgetune.metrics.units import Unit


def percent(share: float) -> str:
    """0.911 -> `91.1 %`."""
    return f"{share * 100:.1f} %"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign: -0.033 -> `−3.3`."""
    return _signed(difference * 100, 1)


def probability(p: float) -> str:
    """A p-value -> `p = 0.039`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def about(count: int) -> str:
    """A rough number, rounded up to two digits: 1234 -> `1,300`."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def megabytes(size_bytes: int) -> str:
    """91762336 -> `91.8 MB`."""
    return f"{size_bytes / 1e6:.1f} MB"


def commonest(reasons: Iterable[str]) -> str:
    """The most frequent reasons, as many as a sentence can hold."""
    counted = Counter(reason.rstrip(".") for reason in reasons).most_common()
    told = "; ".join(f"{reason} ({count})" if len(counted) > 1 else reason for reason, count in counted[:3])
    return told if len(counted) <= 3 else f"{told}; and others"


def value_text(value: float, unit: Unit) -> str:
    """A metric's value: share 0.911 -> `91.1 %`, points -> `34.2`, grade -> `4.31 of 5`, log 3 -> `20.09`."""
    match unit:
        case "share":
            return percent(value)
        case "points":
            return f"{value:.1f}"
        case "grade":
            return f"{value:.2f} of 5"
        case "log":
            return _exponential_text(value)
        case "number":
            return _number_text(value)


def value_range_text(interval: Interval, unit: Unit) -> str:
    """An interval of a metric's value, without its unit: share -> `83.4 to 95.4`, grade -> `4.02 to 4.41`."""
    lower, upper = (value_text(bound, unit) for bound in (interval.lower, interval.upper))
    ending = {"share": " %", "grade": " of 5"}.get(unit, "")
    return f"{lower.removesuffix(ending)} to {upper.removesuffix(ending)}"


def difference_text(difference: float, unit: Unit) -> str:
    """A difference with its sign and unit.

    share -0.033 -> `−3.3 points`, points -1.2 -> `−1.2 points`, grade -> `−0.31 grades`, log 0.0129 -> `+1.3 %`, number
    -> `−12.3`.
    """
    return _bare_difference(difference, unit) + _ENDINGS[unit]


def range_text(interval: Interval, unit: Unit) -> str:
    """An interval of a difference, without its unit but for percent: `−9.9 to +1.2`, `−0.4 to +1.3 %`."""
    ending = " %" if unit == "log" else ""
    return f"{_bare_difference(interval.lower, unit)} to {_bare_difference(interval.upper, unit)}{ending}"


def size_text(size: float, unit: Unit) -> str:
    """A size without a sign: share 0.02 -> `2 points`, grade 0.25 -> `0.25 grades`, log 0.0198 -> `2 %`."""
    return _shown_size(_shown(size, unit), unit)


def margin_text(size: float, unit: Unit) -> str:
    """`size_text` of the next larger size that can be written so: a margin that lies above `size` as it stands there.

    grade 0.1449 -> `0.15 grades`, share 0.02 -> `2.1 points`, log 0.02 -> `2.1 %`.
    """
    shown = _shown(size, unit)
    step = 10 ** _decimals(shown, unit)
    # Rounding errors aside, the smallest number of so many decimals that is larger.
    return _shown_size((math.floor(round(shown * step, 6)) + 1) / step, unit)


def share_text(share: float) -> str:
    """A rough share, in whole percent from 2 on: 0.0582 -> `6 %`, 0.0149 -> `1.5 %`."""
    return f"{share * 100:.{0 if share >= 0.02 else 1 if share >= 0.001 else 2}f} %"


_ENDINGS: dict[Unit, str] = {"share": " points", "points": " points", "grade": " grades", "log": " %", "number": ""}


def _shown(value: float, unit: Unit) -> float:
    """A difference or a size as the number that people read: shares in points, differences of logarithms in percent of
    the smaller or larger value (0.0198 -> 2)."""
    if unit == "share":
        return value * 100
    return 100 * math.expm1(min(value, 300.0)) if unit == "log" else value


def _decimals(shown: float, unit: Unit) -> int:
    """Of a number, three digits that count from 0.001 up, and none behind the point from 100 up."""
    if unit == "number":
        return 3 if abs(shown) < 1 else 2 if abs(shown) < 10 else 1 if abs(shown) < 100 else 0
    return 2 if unit == "grade" else 1


def _shown_size(shown: float, unit: Unit) -> str:
    text = f"{shown:,.{_decimals(shown, unit)}f}"
    if unit not in ("grade", "number"):
        text = text.removesuffix(".0")
    return text + (_ENDINGS[unit].removesuffix("s") if text == "1" else _ENDINGS[unit])


def _bare_difference(difference: float, unit: Unit) -> str:
    shown = _shown(difference, unit)
    return _signed(shown, _decimals(shown, unit))


def _signed(value: float, decimals: int) -> str:
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return f"−{text}" if value < 0 else f"+{text}"


def _number_text(value: float) -> str:
    text = f"{abs(value):,.{_decimals(value, 'number')}f}"
    return f"−{text}" if value < 0 and float(text.replace(",", "")) else text


def _exponential_text(logarithm: float) -> str:
    try:
        return _number_text(math.exp(logarithm))
    except OverflowError:
        return f"10^{logarithm / math.log(10):.0f}"
