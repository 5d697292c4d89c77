"""Two models' answers to the same questions, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.data.example import Message
from edgetune.judging.results.evaluate import ask_subject
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.registry import open_subject
from edgetune.judging.suites.items import Item, read_items
from edgetune.judging.suites.suite import Suite

if TYPE_CHECKING:
    from rich.console import RenderableType

_TWO_COLUMNS_FROM = 100
"""Characters."""


@dataclass(frozen=True)
class SideBySide:
    """One question and what both models made of it."""

    item: Item
    first: Answer
    second: Answer

    @property
    def equal(self) -> bool:
        """True where both wrote the same, or chose the same label."""
        return self.texts[0] == self.texts[1]

    @property
    def texts(self) -> tuple[str, str]:
        """The two answers as they are shown: the text, the label, or the likelihood per token."""
        return _shown(self.first), _shown(self.second)


def questions_of(prompts: Sequence[str], suite: Suite, limit: int | None) -> tuple[Item, ...]:
    """The prompts as items, or the first items of the suite where there are none."""
    if not prompts:
        return read_items(suite)[:limit]
    system = suite.generation.system
    before = () if system is None else (Message("system", system),)
    return tuple(
        Item(id=str(number), where=f"prompt {number}", text=prompt, messages=(*before, Message("user", prompt)))
        for number, prompt in enumerate(prompts, start=1)
    )


def show_side_by_side(
    suite: Suite, items: Sequence[Item], first: str, second: str, *, threads: int | None = None
) -> tuple[SideBySide, ...]:
    """Ask two models the same items. Raises ModelError, UsageError and what a kind of model raises."""
    answers = []
    for reference in (first, second):
        with open_subject(reference, threads=threads) as subject:
            subject.check(items, suite)
            answers.append(ask_subject(suite, items, subject, None))
    return tuple(SideBySide(item, a, b) for item, a, b in zip(items, *answers, strict=True))


def _shown(answer: Answer) -> str:
    if answer.is_empty and answer.reasoning:
        return f"(no answer after {len(answer.reasoning):,} characters of reasoning)"
    if answer.written is not None:
        return answer.written
    if answer.nll_nats is not None and answer.nll_tokens:
        return f"{answer.nll_nats / answer.nll_tokens:.3f} nats per token"
    return answer.predicted or "unparsed"


def render_side_by_side(shown: Sequence[SideBySide], names: tuple[str, str], width: int) -> RenderableType:
    """The questions in their order: two columns from 100 characters on, one answer above the other below that."""
    from rich.console import Group
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for pair in shown:
        parts += [
            Rule(Text(f"{pair.item.id}", style="bold"), align="left"),
            Text(pair.item.text, style="bold"),
            Text(""),
        ]
        if pair.equal:
            parts += [Text("both", style="dim"), Text(pair.texts[0]), Text("")]
            continue
        table = Table.grid(padding=(0, 3), expand=True)
        if width >= _TWO_COLUMNS_FROM:
            table.add_column(ratio=1)
            table.add_column(ratio=1)
            table.add_row(*(Text(name, style="dim") for name in names))
            table.add_row(*(Text(text) for text in pair.texts))
        else:
            for name, text in zip(names, pair.texts, strict=True):
                table.add_row(Text(name, style="dim"))
                table.add_row(Text(f"{text}\n"))
        parts += [table, Text("")]
    same = sum(pair.equal for pair in shown)
    count = "1 question" if len(shown) == 1 else f"{len(shown):,} questions"
    parts.append(Text(f"{count}; the same answer to {same:,} of them", style="dim"))
    return Group(*parts)
