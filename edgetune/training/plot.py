"""Plots what a run logged: losses, the evaluation's metrics, gradient norm and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from edgetune.outputs import staged_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RAW, SMOOTH, EVALUATION = "#a9bfd6", "#1f5a91", "#d1792b"
FEW = 25
"""Up to so many values are drawn as dots; more are smoothed over a 25th of them."""

METRIC_COLORS = ("#2f7d5b", "#8a5fa8", "#c04d4d", "#7a6a3a", "#3d7f94", "#9a6b8f")


def plot_training(rows: list[dict[str, Any]], target: Path, *, title: str) -> None:
    """Draw the rows of metrics.jsonl into a PNG: a panel for the losses, and one for each other kind of value."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [(_draw_losses, 3.0)]
    if _metrics(rows):
        panels.append((_draw_metrics, 1.8))
    if any("grad_norm" in row for row in rows):
        panels.append((_draw_optimizer, 1.5))
    heights = [height for _, height in panels]
    figure = Figure(figsize=(7.5, 1.0 + sum(heights)), dpi=130, layout="constrained")
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (draw, _) in zip(grid, panels, strict=True):
        draw(axes, rows)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    grid[0].set_title(title, loc="left", fontweight="bold")
    grid[-1].set_xlabel("optimizer updates")
    grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.align_ylabels(grid)
    with staged_file(target, force=True) as staged:
        figure.savefig(staged, format="png")


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average over about a 25th of the values, at least one, without the bias of its start.

    Kingma and Ba 2015, section 3.
    """
    weight = 1 - 1 / max(len(values) / FEW, 1.0)
    smoothed, average = [], 0.0
    for number, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        smoothed.append(average / (1 - weight**number))
    return smoothed


def _series(rows: list[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values; of two values of one step the later one."""
    found = {row["step"]: row[key] for row in rows if row.get(key) is not None}
    return list(found), list(found.values())


def _draw_losses(axes: Axes, rows: list[dict[str, Any]]) -> None:
    from matplotlib.patheffects import withStroke

    steps, losses = _series(rows, "loss")
    _draw_noisy(axes, steps, losses, label="training")
    steps, evaluated = _series(rows, "eval_loss")
    if steps:
        axes.plot(steps, evaluated, "o-", color=EVALUATION, markersize=4, label="evaluation")
    if len(steps) > 2:
        best = min(range(len(steps)), key=evaluated.__getitem__)
        axes.plot(steps[best], evaluated[best], "o", color=EVALUATION, markersize=9, markerfacecolor="none")
        axes.annotate(
            f"{evaluated[best]:.3g}",
            (steps[best], evaluated[best]),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=EVALUATION,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.set_ylabel("loss, nats")
    axes.set_ylim(0, max([_ceiling(losses), *(1.08 * loss for loss in evaluated)]))
    axes.legend(frameon=False, ncols=3, loc="upper right")


def _draw_noisy(axes: Axes, steps: list[int], values: list[float], *, label: str = "") -> None:
    """Noisy values, and their smoothed curve where there are enough of them."""
    few = len(values) <= FEW
    axes.plot(steps, values, "o-" if few else "-", color=SMOOTH if few else RAW, markersize=3, linewidth=1, label=label)
    if not few:
        axes.plot(steps, smooth(values), color=SMOOTH, linewidth=2, label=f"{label}, smoothed")


def _ceiling(values: list[float]) -> float:
    """The upper end of an axis from 0: above the curve, but a single spike must not flatten the rest."""
    if len(values) <= FEW:
        return 1.08 * max([*values, 1e-9])
    usual = sorted(values)[len(values) * 98 // 100 - 1]
    courses = [median(values[max(place - 2, 0) : place + 3]) for place in range(len(values))]
    return 1.08 * max(values[0], usual, *courses, 1e-9)


def _metrics(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({key for row in rows for key in row if key.startswith("eval_") and key != "eval_loss"})


def _draw_metrics(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for number, name in enumerate(_metrics(rows)):
        steps, values = _series(rows, name)
        color = METRIC_COLORS[number % len(METRIC_COLORS)]
        axes.plot(steps, values, "o-", color=color, markersize=4, label=name.removeprefix("eval_").replace("_", " "))
    axes.set_ylabel("evaluation")
    axes.margins(y=0.15)
    axes.legend(frameon=False, ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")


def _draw_optimizer(axes: Axes, rows: list[dict[str, Any]]) -> None:
    steps, norms = _series(rows, "grad_norm")
    _draw_noisy(axes, steps, norms)
    axes.set_ylabel("gradient norm", color=SMOOTH)
    axes.set_ylim(0, _ceiling(norms))
    rates = axes.twinx()
    steps, learning_rates = _series(rows, "learning_rate")
    style = "--" if len(steps) > 1 else "o"
    rates.plot(steps, learning_rates, style, color=METRIC_COLORS[0], linewidth=1.5, markersize=3)
    rates.set_ylabel("learning rate", color=METRIC_COLORS[0])
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    rates.spines[["top", "left"]].set_visible(False)
