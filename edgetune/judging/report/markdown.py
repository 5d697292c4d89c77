"""report.md: a judgement as a comment on a pull request, within GitHub's limit and without active content.

What was judged stands in tables with its markup escaped, or in fenced blocks. No text can mention a person, close an
issue or load a picture.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from edgetune import __version__
from edgetune.judging.gate.comparison import Comparison
from edgetune.judging.gate.gate import NO_VERDICT
from edgetune.judging.gate.wording import difference_text, percent, probability, range_text, size_text, value_text
from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.report.changes import (
    deciding_metrics,
    find_changes,
    preference_text,
    sides_by_item,
    worst_first,
)
from edgetune.judging.report.matrices import MatrixPanel, panels_of, shown_columns
from edgetune.judging.report.metrics_table import (
    item_value_text,
    label_rows,
    labels_to_look_at,
    metrics_headings,
    metrics_rows,
)
from edgetune.judging.report.validity import judge_figures
from edgetune.judging.results.judgement import Judgement
from edgetune.judging.statistics.quantity import ComparedMetric
from edgetune.judging.subjects.answer import Answer
from edgetune.visible_text import shortened, visible

LARGEST_CHARACTERS = 65_536
"""Of a comment on GitHub."""

_ROOM_FOR_ITEMS = 60_000
_LISTED_ROWS = 100
_LISTED_LABELS = 50
_LISTED_BLOCKS = 20
_CELL_CHARACTERS = 200
_BLOCK_CHARACTERS = 700
_REASON_CHARACTERS = 4000


def report_markdown(judgement: Judgement) -> str:
    """The judgement for people: verdict, comparisons, metrics, matrices, the judge, and the items that got worse."""
    suite, verdict = judgement.suite, judgement.verdict
    title = "Not compared" if verdict is None else verdict.outcome
    parts = [f"# {title}: {_cell(judgement.candidate.name)} on {suite.name}"]
    if verdict is None:
        parts.append(NO_VERDICT)
    else:
        parts.append(_line(verdict.reason, _REASON_CHARACTERS))
        if verdict.comparisons:
            parts.append(_comparisons(verdict.comparisons, judgement.compared))
    parts.append(_table(metrics_headings(judgement), metrics_rows(judgement)))
    parts += _labels(judgement)
    if panels := panels_of(judgement):
        parts += ["## Confusion matrices", *_matrices(panels)]
    if figures := judge_figures(judgement):
        rows = [[figure.title, figure.text, figure.limit] for figure in figures]
        parts += ["## The judge", _table(["", "", "gate"], rows)]
    parts += [f"- {_line(note)}" for note in judgement.notes[:_LISTED_BLOCKS]]
    closing = ["## What was measured", _provenance(judgement)]
    if judgement.baseline is not None:
        used = len(_joined([*parts, *closing]))
        parts += ["## Items that got worse", *_items_that_got_worse(judgement, _ROOM_FOR_ITEMS - used)]
    return _within_limit(_joined([*parts, *closing]))


def _joined(parts: Sequence[str]) -> str:
    """Parts with an empty line between, but for items of one list."""
    text = ""
    for before, part in zip(["", *parts], parts, strict=False):
        text += "" if not before else "\n" if before.startswith("- ") and part.startswith("- ") else "\n\n"
        text += part
    return text + "\n"


def _within_limit(text: str) -> str:
    """Matrices of a hundred labels do not fit. Then the end is cut, because the verdict comes first."""
    if len(text) < LARGEST_CHARACTERS:
        return text
    note = "\n\n…\n\nThe rest is in report.html and report.json.\n"
    return text[: text.rindex("\n\n", 0, LARGEST_CHARACTERS - len(note))] + note


def _comparisons(comparisons: Sequence[Comparison], compared: Mapping[str, ComparedMetric]) -> str:
    rows = [
        [
            one.title,
            one.outcome,
            "" if compared[one.metric].of_pairs else value_text(one.baseline, one.unit),
            "" if compared[one.metric].of_pairs else value_text(one.candidate, one.unit),
            difference_text(one.difference, one.unit),
            range_text(one.interval, one.unit),
            size_text(one.margin, one.unit),
            probability(one.adjusted_p),
            f"{one.test}; {one.interval_method}",
        ]
        for one in comparisons
    ]
    headings = ["", "verdict", "baseline", "candidate", "difference", "interval", "margin", "p", "method"]
    return _table(headings, rows)


def _labels(judgement: Judgement) -> list[str]:
    """The metrics of each label, folded; of very many labels those that matter most."""
    labels = dict(label_rows(judgement))
    if not labels:
        return []
    shown = list(labels) if len(labels) <= _LISTED_LABELS else labels_to_look_at(judgement, _LISTED_LABELS)
    rows = [[f"{label}: {title}", *cells] for label in shown for title, *cells in labels[label]]
    summary = f"Precision, recall and F1 of {len(labels):,} labels"
    if len(shown) < len(labels):
        summary += (
            f": the {len(shown)} {'whose F1 fell most' if judgement.baseline is not None else 'of the lowest F1'}"
        )
    table = _table(metrics_headings(judgement), rows)
    return [f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>"]


def _matrices(panels: list[MatrixPanel]) -> list[str]:
    columns = shown_columns(panels)
    parts = []
    for panel in panels:
        rows = [
            [label, *(f"{count:,}" for count in counts[: len(columns)])]
            for label, counts in zip(panel.metrics.labels, panel.metrics.confusion, strict=True)
        ]
        parts.append(f"{_cell(panel.title)} (accuracy {percent(panel.metrics.accuracy)})")
        parts.append(_table(["true \\ predicted", *columns], rows))
    return parts


def _items_that_got_worse(judgement: Judgement, room: int) -> list[str]:
    """A table for labels, a block to open for each longer answer; as many as there is room for, in characters."""
    worse = [change for change in worst_first(find_changes(judgement)) if change.status == "worse"]
    if not worse:
        return ["None: no item got worse."]
    if judgement.suite.task == "classify":
        lines = [_row(_cells_of_item(judgement, change.place)) for change in worse[:_LISTED_ROWS]]
        listed = list(_within_room(lines, room, 1))
        parts = ["\n".join([_table(["id", "where", "text", "true label", "baseline", "candidate"], []), *listed])]
    else:
        blocks = (_block(judgement, change.place) for change in worse[:_LISTED_BLOCKS])
        parts = listed = list(_within_room(blocks, room, 2))
    unlisted = len(worse) - len(listed)
    return parts if unlisted == 0 else [*parts, f"{unlisted:,} more are in report.html and report.json."]


def _within_room(texts: Iterable[str], room: int, gap: int) -> Iterator[str]:
    """The first texts, as many as there is room for, in characters, with the gap after each."""
    for text in texts:
        room -= len(text) + gap
        if room < 0:
            return
        yield text


def _cells_of_item(judgement: Judgement, place: int) -> list[str]:
    item = judgement.items[place]
    return [
        item.id,
        item.where,
        item.text,
        item.gold or "",
        *(_label(side.answers[place]) for _, side in judgement.sides),
    ]


def _label(answer: Answer) -> str:
    if answer.predicted is not None:
        return answer.predicted
    if answer.unanswered is not None:
        return f"unanswered: {answer.unanswered}"
    return "unparsed" if answer.text is None else f"unparsed: {answer.text}"


def _block(judgement: Judgement, place: int) -> str:
    item = judgement.items[place]
    compared = [preference for preference in judgement.preferences if preference.item == item.id]
    moved = [preference_text(compared)] if compared else []
    for metric in deciding_metrics(judgement):
        if not metric.of_pairs:
            sides = sides_by_item(judgement, metric)
            before, now = (item_value_text(values[place], metric) for values in sides if values)
            moved.append(f"{metric.title} {before} → {now}")
    heading = shortened(" ".join(visible(item.text).split()), 100)
    summary = _silenced(html.escape(f"{visible(item.id)}: {', '.join(moved)}: {heading}"))
    parts = [f"<details><summary>{summary}</summary>", "Asked:", _fenced(item.text)]
    for role, side in judgement.sides:
        answer = side.answers[place]
        if answer.written is not None:
            parts += [_heading(role, answer), _fenced(answer.written)]
        parts += [_said(grade) for grade in side.grades if grade.item == item.id]
    parts += [_said(preference) for preference in compared]
    return "\n\n".join([*parts, "</details>"])


def _heading(role: str, answer: Answer) -> str:
    """Whose answer follows, and facts about it that the text does not show."""
    facts = [f"after {len(answer.reasoning):,} characters of reasoning"] if answer.reasoning else []
    facts += ["cut off"] if answer.is_cut_off else []
    told = f" ({', '.join(facts)})" if facts else ""
    return f"The {role}{told}:"


def _said(verdict: Grade | Preference) -> str:
    if isinstance(verdict, Grade):
        given = ", ".join(f"{name} {score:.3g}" for name, score in (verdict.scores or {}).items())
        order = ""
    else:
        order = f" ({verdict.order})"
        given = "a tie" if verdict.winner == "tie" else f"prefers the {verdict.winner}" if verdict.winner else ""
    reason = verdict.reason if verdict.degenerate is None else f"not asked: {verdict.degenerate}"
    said = [given, verdict.problem and f"unscored: {verdict.problem}", reason]
    return f"- {_cell(verdict.judge)}{order}: {_line('; '.join(part for part in said if part))}"


def _provenance(judgement: Judgement) -> str:
    suite = judgement.suite
    lines = [f"- suite {suite.name}: {len(judgement.items):,} items, task {suite.task}"]
    for role, evaluation in judgement.sides:
        lines.append(f"- {role} {_cell(evaluation.model)}, SHA-256 `{evaluation.fingerprint}`")
    lines.append(f"- edgetune {__version__}; every answer, and the hashes of suite and data, are in report.json")
    return "\n".join(lines)


def _table(headings: list[str], rows: list[list[str]]) -> str:
    return "\n".join([_row(headings), f"| {' | '.join(['---'] * len(headings))} |", *map(_row, rows)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _fenced(text: str) -> str:
    """Text in a fenced block whose fence is longer than any run of backticks inside."""
    shown = shortened(visible(text), _BLOCK_CHARACTERS)
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{shown}\n{fence}"


def _cell(text: str) -> str:
    """Text on one line, cut to a readable length, with tables, markup and HTML escaped."""
    return _escaped(shortened(" ".join(visible(text).split()), _CELL_CHARACTERS))


def _line(text: str, characters: int = _BLOCK_CHARACTERS) -> str:
    """As a cell, but of the length of a paragraph."""
    return _escaped(shortened(" ".join(visible(text).split()), characters))


def _escaped(line: str) -> str:
    for character in "\\`*_[]|~":
        line = line.replace(character, f"\\{character}")
    return _silenced(line.replace("&", "&amp;").replace("<", "&lt;"))


def _silenced(line: str) -> str:
    """The line without mentions, references to issues and links: an invisible character breaks them."""
    return re.sub(r"([@#]|://|www\.)(?=\S)", "\\1\u2060", line)
