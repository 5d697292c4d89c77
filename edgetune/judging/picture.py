"""Confusion matrices as a picture, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgetune.judging.confusion import Panel, shown_columns
from edgetune.judging.wording import percent
from edgetune.metrics.classification import UNPARSED

_INK, _FAINT = "#1f2933", "#616e7c"
_CELL_INCHES = 0.95
_SLANTED_FROM_CHARACTERS = 10
_TITLE_CHARACTERS = 10.5
"""Above one cell, at the title's size."""


def draw_matrices(panels: Sequence[Panel], file: Path) -> None:
    """Write the panels' confusion matrices, left to right, to a PNG file.

    A cell holds its count and its share of the row (of the items with that true label), and is shaded by the share: one
    hue from light to dark, an order that every eye can see. All panels have the same labels; the unparsed column is
    there only if a panel needs it.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = shown_columns(panels)
    longest = max(len(label) for label in columns)
    rows = len(panels[0].metrics.labels)
    width = 0.5 + 0.09 * longest + len(panels) * (len(columns) * _CELL_INCHES + 0.45)
    height = rows * _CELL_INCHES + 1.35 + (0.06 * longest if longest > _SLANTED_FROM_CHARACTERS else 0)
    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.05)
    figure = Figure(figsize=(width, height), layout=layout)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        _draw_panel(axis, panel, columns)
    axes[0].set_ylabel("true label", color=_FAINT)
    figure.savefig(file, format="png", dpi=160, facecolor="white")


def _draw_panel(axis: Any, panel: Panel, columns: Sequence[str]) -> None:
    import numpy as np

    labels = panel.metrics.labels
    counts = np.array([row[: len(columns)] for row in panel.metrics.confusion])
    shares = counts / np.array([max(1, label.support) for label in panel.metrics.per_label])[:, None]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for row, column in np.ndindex(counts.shape):
        ink = "white" if shares[row, column] > 0.65 else _INK
        weight = "bold" if row == column else "normal"
        place = {"x": column, "ha": "center", "va": "center", "color": ink}
        axis.text(y=row - 0.06, s=str(counts[row, column]), fontsize=14, fontweight=weight, **place)
        if counts[row, column]:
            axis.text(y=row + 0.2, s=f"{shares[row, column] * 100:.0f} %", fontsize=8, alpha=0.85, **place)
    axis.set_xticks(np.arange(len(columns)) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(labels)) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=2.5)
    if UNPARSED in columns[len(labels) :]:
        axis.axvline(len(labels) - 0.5, color="white", linewidth=10)
    axis.spines[:].set_visible(False)
    axis.tick_params(which="both", length=0, colors=_INK, labelsize=10)
    slanted = max(len(column) for column in columns) > _SLANTED_FROM_CHARACTERS
    turn = {"rotation": 35, "ha": "right"} if slanted else {}
    axis.set_xticks(range(len(columns)), [_plain(column) for column in columns], **turn)
    axis.set_yticks(range(len(labels)), [_plain(label) for label in labels])
    axis.set_xlabel("predicted label", color=_FAINT)
    title = _plain(_fitted(panel.title, round(len(columns) * _TITLE_CHARACTERS)))
    accuracy = percent(panel.metrics.accuracy)
    axis.set_title(f"{title}\naccuracy {accuracy}", loc="left", color=_INK, fontsize=11, pad=9)


def _fitted(text: str, characters: int) -> str:
    """Text of at most so many characters; what is too much goes from the middle, for names differ at their ends."""
    half = characters // 2
    return text if len(text) <= characters else f"{text[: characters - half - 1]}…{text[-half:]}"


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula, and no half of a surrogate pair, which a file name can hold."""
    return text.encode("utf-8", "replace").decode().replace("$", r"\$")
