"""The thresholds of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.judging.calibration.figures import SetReport
from edgetune.judging.calibration.gold import GoldKind
from edgetune.judging.statistics.agreement import Agreement


@dataclass(frozen=True)
class Bars:
    """The thresholds that a judge must meet to pass, for all sets together."""

    kappa: float = 0.4
    """At least: where Landis, Koch (1977), Biometrics 33:159-174, begin to call agreement moderate. Kappa of pairs,
    quadratic kappa of grades; that it is more than chance (the interval's lower bound above 0) is asked besides."""
    consistency: float = 0.6
    """At least: the share of pairs with the same verdict in both orders."""
    length: float = 0.1
    """At most: how far from 0, to either side, the interval of the preference for length begins."""
    unscored: float = 0.05
    """At most: the share of verdicts that cannot be read."""
    items: int = 30
    """At least: scored items."""


def find_failures(report: SetReport, kind: GoldKind, bars: Bars) -> tuple[str, ...]:
    """Which bars a judge misses, in sentences. `kind` is pairs or grades."""
    figures, failures = report.figures, []
    if report.scored < bars.items:
        failures.append(f"{report.scored} scored items are too few; at least {bars.items} are needed.")
    agreement = figures.get("kappa" if kind == "pairs" else "weighted_kappa")
    if agreement is not None and agreement.interval.lower <= 0:
        failures.append(
            f"Its agreement with people may be chance: kappa {agreement.value:.2f}, interval "
            f"{agreement.interval.lower:.2f} to {agreement.interval.upper:.2f}."
        )
    elif agreement is not None and agreement.value < bars.kappa:
        failures.append(f"It agrees too little with people: kappa {agreement.value:.2f}, below {bars.kappa:g}.")
    consistency = figures.get("consistency")
    if consistency is not None and consistency.value < bars.consistency:
        failures.append(
            f"Its verdict depends on the order: the same in both on {consistency.value:.0%} of the pairs, below "
            f"{bars.consistency:.0%}."
        )
    failures += _length_failures(figures, kind, bars)
    unscored = figures.get("unscored")
    if unscored is not None and unscored.value > bars.unscored:
        failures.append(f"{unscored.value:.1%} of its verdicts cannot be read, above {bars.unscored:.0%}.")
    return tuple(failures)


def _length_failures(figures: Mapping[str, Agreement], kind: GoldKind, bars: Bars) -> list[str]:
    """The failure of a judge whose interval holds no allowed preference for length."""
    length = figures.get("length")
    if length is None:
        return []
    least = max(length.interval.lower, -length.interval.upper)
    if least <= bars.length:
        return []
    liked, other = ("longer", "shorter") if length.value > 0 else ("shorter", "longer")
    if kind == "pairs":
        found = f"it errs more often, by {abs(length.value):.2f}, where people prefer the {other} one"
    else:
        found = f"of answers that people grade alike, the {liked} get higher grades (correlation {length.value:.2f})"
    return [f"It prefers {liked} answers: {found}; at least {least:.2f}, above {bars.length:g}."]
