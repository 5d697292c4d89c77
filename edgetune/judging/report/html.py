"""report.html: one file that holds everything, asks no network, and shows what was judged as text only.

What a model, a judge or a data set wrote reaches the page in two ways: through a template that escapes every value,
and as one block of JSON that the page's script puts in as text nodes. A content security policy allows this page's own
style and script by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from edgetune import __version__
from edgetune.judging.gate.comparison import Comparison, Outcome
from edgetune.judging.gate.explanation import explain
from edgetune.judging.gate.gate import NO_VERDICT
from edgetune.judging.gate.wording import difference_text, percent, probability, value_text
from edgetune.judging.report.interval_picture import IntervalPicture, draw_intervals
from edgetune.judging.report.matrices import MatrixPanel, panels_of, shown_columns
from edgetune.judging.report.metrics_table import label_rows, metrics_headings, metrics_rows
from edgetune.judging.report.page_data import data_block, page_items
from edgetune.judging.report.validity import judge_figures
from edgetune.judging.results.judgement import Judgement
from edgetune.judging.statistics.quantity import ComparedMetric
from edgetune.visible_text import visible

_ASSETS = Path(__file__).parent / "assets"
_SHADES = 10

MEANINGS = {
    Outcome.PASS: "The candidate may replace the baseline.",
    Outcome.REGRESSION: "The candidate is worse than the baseline by the margin or more. Chance does not explain it.",
    Outcome.INCONCLUSIVE: "These items cannot tell whether the candidate is worse.",
    Outcome.JUDGE_INVALID: "The judge's verdicts cannot be trusted here, so there is no verdict.",
}
"""Each outcome in a sentence, for someone who meets the gate for the first time."""


def report_html(judgement: Judgement) -> str:
    """The whole page. Items beyond the first few thousand, and the ends of very long texts, are in report.json only."""
    style, script = _asset("page.css"), _asset("page.js")
    items = page_items(judgement)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.jinja").render(
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        data=Markup(data_block(items)),
        judgement=judgement,
        version=__version__,
        created=judgement.created.replace("T", " ").replace("+00:00", " UTC"),
        tone="none" if judgement.verdict is None else judgement.verdict.outcome.name.lower(),
        title="Not compared" if judgement.verdict is None else judgement.verdict.outcome,
        meaning=NO_VERDICT if judgement.verdict is None else MEANINGS[judgement.verdict.outcome],
        verdict=judgement.verdict,
        reasons=_reasons(judgement),
        comparisons=_comparison_views(judgement),
        confidence=f"{judgement.confidence * 100:g} %",
        headings=metrics_headings(judgement),
        rows=metrics_rows(judgement),
        label_rows=label_rows(judgement),
        matrices=_matrices(panels_of(judgement)),
        figures=judge_figures(judgement),
        shown_items=len(items["items"]),
        details=[(name, str(value)) for name, value in judgement.details.items()],
    )


@dataclass(frozen=True)
class _ComparisonView:
    """One comparison as the template shows it. The explanation is empty where it stands beside the verdict."""

    title: str
    outcome: Outcome
    picture: IntervalPicture
    before_after: str
    facts: str
    explanation: str

    @property
    def tone(self) -> str:
        return self.outcome.name.lower()


def _reasons(judgement: Judgement) -> list[str]:
    """The text beside the verdict: the reason, or of several metrics those that decide."""
    verdict = judgement.verdict
    if verdict is None or verdict.outcome is Outcome.JUDGE_INVALID:
        return []
    if len(verdict.comparisons) == 1 or all(comparison.equal for comparison in verdict.comparisons):
        return [verdict.reason]
    if verdict.outcome is Outcome.PASS:
        return []
    return [explain(comparison) for comparison in verdict.comparisons if comparison.outcome is verdict.outcome]


def _comparison_views(judgement: Judgement) -> list[_ComparisonView]:
    comparisons = () if judgement.verdict is None else judgement.verdict.comparisons
    told = _reasons(judgement)
    return [
        _ComparisonView(
            title=comparison.title,
            outcome=comparison.outcome,
            picture=picture,
            before_after=_before_after(comparison, judgement.compared[comparison.metric]),
            facts=_facts(comparison, len(comparisons)),
            explanation="" if explain(comparison) in told else explain(comparison),
        )
        for comparison, picture in zip(comparisons, draw_intervals(comparisons), strict=True)
    ]


def _before_after(comparison: Comparison, metric: ComparedMetric) -> str:
    if metric.of_pairs:
        return f"net {difference_text(comparison.difference, comparison.unit)}"
    return f"{value_text(comparison.baseline, comparison.unit)} → {value_text(comparison.candidate, comparison.unit)}"


def _facts(comparison: Comparison, several: int) -> str:
    parts = [f"{comparison.items:,} items"]
    if comparison.clusters is not None:
        parts[0] += f" in {comparison.clusters:,} clusters"
    if comparison.gained is not None and comparison.lost is not None:
        parts.append(f"{comparison.gained:,} better, {comparison.lost:,} worse")
    tested = f"{comparison.test}: {probability(comparison.p_value)}"
    if comparison.adjusted_p != comparison.p_value:
        tested += f", {probability(comparison.adjusted_p)} with Holm's correction for {several} metrics"
    return "; ".join([*parts, tested, f"interval: {comparison.interval_method}"])


def _matrices(panels: list[MatrixPanel]) -> list[dict[str, Any]]:
    """Each matrix with the shade of every cell, from 0 to 10: its share of the items with that true label."""
    columns = shown_columns(panels) if panels else ()
    return [
        {
            "title": panel.title,
            "accuracy": percent(panel.metrics.accuracy),
            "columns": columns,
            "labels": len(panel.metrics.labels),
            "rows": [
                {
                    "label": label,
                    "cells": [
                        {
                            "count": f"{count:,}",
                            "share": f"{100 * count / max(1, of_label.support):.0f} %",
                            "shade": round(_SHADES * count / max(1, of_label.support)),
                            "right": place == column,
                        }
                        for column, count in enumerate(counts[: len(columns)])
                    ],
                }
                for place, (label, counts, of_label) in enumerate(
                    zip(panel.metrics.labels, panel.metrics.confusion, panel.metrics.per_label, strict=True)
                )
            ],
        }
        for panel in panels
    ]


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _shown(value: Any) -> Any:
    """Every value that the template puts in: text is made visible; it is escaped afterwards."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
