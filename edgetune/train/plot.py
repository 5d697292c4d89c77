"""The loss curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgetune.outputs import staged_file


def plot_loss(rows: list[dict[str, Any]], target: Path, *, title: str) -> None:
    """Draw training loss per step, its moving average and the evaluation losses of metrics.jsonl into a PNG."""
    from matplotlib.figure import Figure

    train = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    evaluation = [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]
    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    steps, losses = zip(*train, strict=True)
    axes.plot(steps, losses, color="#9db8d2", linewidth=1, label="training")
    axes.plot(steps, _smooth(losses), color="#1f5a91", linewidth=2, label="training, smoothed")
    if evaluation:
        axes.plot(*zip(*evaluation, strict=True), "o-", color="#d1792b", label="evaluation")
    axes.set(xlabel="optimizer updates", ylabel="loss, nats per supervised token", title=title)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False)
    with staged_file(target, force=True) as staged:
        figure.savefig(staged, format="png")


def _smooth(values: tuple[float, ...], weight: float = 0.9) -> list[float]:
    """Exponential moving average without the bias of its start (Kingma and Ba 2015, section 3)."""
    smoothed, average = [], 0.0
    for number, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        smoothed.append(average / (1 - weight**number))
    return smoothed
