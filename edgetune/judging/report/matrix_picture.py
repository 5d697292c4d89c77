"""Confusion matrices as a picture, side by side."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgetune.judging.gate.wording import percent
from edgetune.judging.report.glyphs import Fonts, find_fonts
from edgetune.judging.report.matrices import MatrixPanel, shown_columns

_INK, _FAINT = "#1f2933", "#616e7c"
_ROOMY_LABELS = 8
"""Up to so many labels a cell has its full size; of more, cells shrink so that the picture stays as large."""

_CELL_INCHES, _LEAST_CELL_INCHES = 0.95, 0.4
_COUNTED_LABELS = 25
"""Up to so many labels a cell holds its count; of more, only the shade."""

_SHARED_FROM_INCHES = 0.7
"""Cells of this size hold the share, too."""

_MOST_INCHES = 40
"""Of the cells' width together: 6,400 dots, which take some 300 MB to draw."""

_NAMED_FROM_INCHES = 0.08
"""Beside smaller cells the labels would lie on each other."""

_DOTS_PER_INCH = 160
_SLANT, _SLANTED_FROM_CHARACTERS = 35, 10
_LABEL_CHARACTERS = 30
_TITLE_CHARACTERS = 11
"""To an inch, at the title's size."""


@dataclass(frozen=True)
class _Layout:
    """What all panels have in common: headings as the picture writes them, the labels first, and the cells' size."""

    columns: tuple[str, ...]
    labels: int
    cell_inches: float
    fonts: Fonts

    @property
    def unparsed(self) -> bool:
        return len(self.columns) > self.labels

    @property
    def slant(self) -> int:
        """How far the headings of the columns are turned, in degrees, so that they do not touch."""
        if self.labels > _ROOMY_LABELS:
            return 90
        return _SLANT if max(map(len, self.columns)) > _SLANTED_FROM_CHARACTERS else 0


def draw_matrices(panels: Sequence[MatrixPanel], file: Path | BinaryIO) -> None:
    """Write the panels' confusion matrices, left to right, to a PNG file.

    A cell holds its count and, where there is room, its share of the row (of the items with that true label), and is
    shaded by the share: one hue from light to dark, an order that every eye can see. All panels have the same labels;
    the unparsed column is there only if a panel needs it. Labels that no installed font can write are named or numbered
    (see `glyphs`).
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    shown = shown_columns(panels)
    fonts = find_fonts([*shown, *(panel.title for panel in panels)])
    written = [fonts.label(name, number) for number, name in enumerate(shown, start=1)]
    fitted = [_fitted(name, _LABEL_CHARACTERS) for name in written]
    # Two labels must not look alike: then both have their numbers.
    often = Counter(fitted)
    columns = tuple(name if often[name] == 1 else f"#{number}" for number, name in enumerate(fitted, start=1))
    rows = len(panels[0].metrics.labels)
    cell = max(_LEAST_CELL_INCHES, min(_CELL_INCHES, _CELL_INCHES * _ROOMY_LABELS / rows))
    cell = min(cell, _MOST_INCHES / (len(panels) * len(columns)))
    layout = _Layout(columns, rows, cell, fonts)
    longest = max(len(label) for label in columns)
    width = 0.5 + 0.09 * longest + len(panels) * (max(2.4, len(columns) * cell) + 0.45)
    height = rows * cell + 1.35 + 0.1 * math.sin(math.radians(layout.slant)) * longest
    with rc_context({"font.family": list(fonts.names)}):
        engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.05)
        figure = Figure(figsize=(width, height), layout=engine)
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw_panel(axis, panel, layout)
        axes[0].set_ylabel("true label", color=_FAINT)
        if written != list(shown) or fitted != list(columns):
            note = "[names] and #numbers stand for labels that this picture cannot write, in the suite's order"
            figure.supxlabel(note, color=_FAINT, fontsize=8)
        figure.savefig(file, format="png", dpi=_DOTS_PER_INCH, facecolor="white")


def _draw_panel(axis: Any, panel: MatrixPanel, layout: _Layout) -> None:
    import numpy as np

    metrics, columns = panel.metrics, layout.columns
    counts = np.array([row[: len(columns)] for row in metrics.confusion])
    shares = counts / np.array([max(1, label.support) for label in metrics.per_label])[:, None]
    # Squares, and not an image: that would be resampled in 8 bytes a dot.
    edges = [np.arange(size + 1) - 0.5 for size in (len(columns), layout.labels)]
    line = 2.5 * layout.cell_inches / _CELL_INCHES
    axis.pcolormesh(*edges, shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=line)
    axis.set_aspect("equal")
    axis.set(xlim=(-0.5, len(columns) - 0.5), ylim=(layout.labels - 0.5, -0.5))
    if layout.labels <= _COUNTED_LABELS:
        _write_counts(axis, counts, shares, layout)
    if layout.unparsed:
        axis.axvline(layout.labels - 0.5, color="white", linewidth=4 * line)
    axis.spines[:].set_visible(False)
    size = min(10, max(4, 22 * layout.cell_inches))
    axis.tick_params(which="both", length=0, colors=_INK, labelsize=size)
    turn = {"rotation": layout.slant, "ha": "right" if layout.slant == _SLANT else "center"}
    if layout.cell_inches >= _NAMED_FROM_INCHES:
        axis.set_xticks(range(len(columns)), [_plain(column) for column in columns], **turn)
        axis.set_yticks(range(layout.labels), [_plain(label) for label in columns[: layout.labels]])
    else:
        axis.tick_params(labelbottom=False, labelleft=False)
    axis.set_xlabel("predicted label", color=_FAINT)
    room = max(2.4, len(columns) * layout.cell_inches)
    title = _plain(_fitted(layout.fonts.text(panel.title), round(room * _TITLE_CHARACTERS)))
    axis.set_title(f"{title}\naccuracy {percent(metrics.accuracy)}", loc="left", color=_INK, fontsize=11, pad=9)


def _write_counts(axis: Any, counts: Any, shares: Any, layout: _Layout) -> None:
    """The counts that are not zero, and all of them where there are few labels."""
    few = layout.labels <= _ROOMY_LABELS
    longest = len(f"{counts.max():,}")
    size = min(14.0, 72 * layout.cell_inches / (0.7 * max(3, longest)))
    for row, column in zip(*(counts >= (0 if few else 1)).nonzero(), strict=True):
        ink = "white" if shares[row, column] > 0.65 else _INK
        weight = "bold" if row == column else "normal"
        place = {"x": column, "ha": "center", "color": ink}
        shared = layout.cell_inches >= _SHARED_FROM_INCHES and counts[row, column]
        number, above = f"{counts[row, column]:,}", 0.06 if layout.cell_inches >= _SHARED_FROM_INCHES else 0
        axis.text(y=row - above, s=number, fontsize=size, fontweight=weight, va="center", **place)
        if shared:
            share = f"{shares[row, column] * 100:.0f} %"
            axis.text(y=row + 0.2, s=share, fontsize=8, alpha=0.85, va="center", **place)


def _fitted(text: str, characters: int) -> str:
    """Text of at most so many characters, shortened in the middle, because names differ at their ends."""
    half = characters // 2
    return text if len(text) <= characters else f"{text[: characters - half - 1]}…{text[-half:]}"


def _plain(text: str) -> str:
    """Text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")
