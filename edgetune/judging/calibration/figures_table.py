"""A calibration for the terminal: every figure with its interval, and whether the judge passed."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgetune.judging.calibration.calibrate import Calibration
from edgetune.judging.calibration.figures import TITLES, SetReport
from edgetune.judging.calibration.length_preference import FEWEST_PAIRS

_OF_EACH_SET = ("accuracy", "kappa", "weighted_kappa", "consistency")
"""What is shown of every set by itself, where there are several."""


def render_calibration(calibration: Calibration) -> RenderableType:
    """All figures over all sets, the main ones of each set, then whether the judge passed."""
    parts: list[RenderableType] = [_all_figures(calibration)]
    if len(calibration.sets) > 1:
        parts.append(_by_set(calibration))
    if calibration.passed:
        parts.append(Text.assemble((" PASSED ", "bold black on green"), "  The judge meets every requirement."))
    else:
        reasons = " ".join(calibration.failures)
        parts.append(Text.assemble((" FAILED ", "bold white on magenta"), f"  {reasons}"))
    return Group(*parts)


def _all_figures(calibration: Calibration) -> RenderableType:
    report = calibration.together
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(f"{calibration.judge}, {calibration.grading}, rubric {calibration.rubric}"))
    table.add_column("")
    table.add_column("95 % interval")
    table.add_row("items with a verdict", f"{report.scored} of {report.items}", "")
    for name, title in TITLES.items():
        if name in report.figures:
            interval = report.figures[name].interval
            table.add_row(title, _value(report, name), f"{interval.lower:.2f} to {interval.upper:.2f}")
        elif name == "length":
            table.add_row(title, "not known", f"it needs {FEWEST_PAIRS} pairs where people prefer each length")
    return table


def _by_set(calibration: Calibration) -> RenderableType:
    names = [name for name in _OF_EACH_SET if name in calibration.together.figures]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "items", *(name.replace("_", " ") for name in names)):
        table.add_column(heading)
    for report in calibration.sets:
        table.add_row(Text(report.name), str(report.items), *(_value(report, name) for name in names))
    return table


def _value(report: SetReport, name: str) -> str:
    figure = report.figures.get(name)
    return "" if figure is None else f"{figure.value:.2f}"
