"""Preferences between two answers, each pair asked in both orders: what a judge is asked, and what its replies say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.asking.verdict import parse_verdict
from edgetune.judging.grading.degenerate import find_degenerate, text_of
from edgetune.judging.grading.grades import EQUAL_ANSWERS, Ask, Order, Preference, Winner
from edgetune.judging.grading.prompt import PROMPT_VERSION, WINNER_FORM, references_of, winner_messages
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.rubric import Rubric

ORDERS: tuple[Order, Order] = ("candidate first", "baseline first")


@dataclass(frozen=True)
class ComparingTask:
    """Pairs of answers that judges compare in both orders; the answers are in the order of the items.

    Without asking, a degenerate answer loses to one that is not, and two degenerate or equal answers tie. `control`
    names an A/A control: its questions are asked again, and those about equal answers too, which it is about.
    """

    items: Sequence[Item]
    candidate: Sequence[Answer]
    baseline: Sequence[Answer]
    rubric: Rubric
    control: str | None = None

    def requests(self, repeats: int) -> list[JudgeRequest]:
        """What a judge is asked `repeats` times; item by item, repeats, orders."""
        shaping = {"grading": "pairwise", "prompt": PROMPT_VERSION, "rubric": self.rubric.sha256()}
        requests = []
        for item, ours, theirs in zip(self.items, self.candidate, self.baseline, strict=True):
            if item.id in self._decided:
                continue
            shared = {
                **shaping,
                "question": [[message.role, message.content] for message in item.messages],
                "references": list(references_of(item)),
            }
            for repeat in range(repeats):
                for order in ORDERS:
                    texts = text_of(ours), text_of(theirs)
                    first, second = texts if order == "candidate first" else texts[::-1]
                    identity = {**shared, "first": first, "second": second, "repeat": repeat}
                    if self.control is not None:
                        # Equal answers make both orders the same question, which a control asks twice on purpose.
                        identity |= {"control": self.control, "order": order}
                    messages = partial(winner_messages, item, first, second, self.rubric)
                    requests.append(JudgeRequest(identity, messages, WINNER_FORM))
        return requests

    def verdicts(self, judge_name: str, repeats: int, ask: Ask) -> tuple[Preference, ...]:
        """The preferences of one judge; item by item, repeats, orders."""
        replies = iter(ask(self.requests(repeats)))
        return tuple(
            self._without_asking(item.id, judge_name, repeat, order)
            if item.id in self._decided
            else read_preference(next(replies), item.id, judge_name, repeat, order)
            for item in self.items
            for repeat in range(repeats)
            for order in ORDERS
        )

    @cached_property
    def _decided(self) -> dict[str, tuple[Winner, str]]:
        """Winner and reason by item, where the judge is not asked."""
        bad = [find_degenerate(self.items, side) for side in (self.candidate, self.baseline)]
        decided: dict[str, tuple[Winner, str]] = {}
        for item, ours, theirs in zip(self.items, self.candidate, self.baseline, strict=True):
            ours_bad, theirs_bad = (side.get(item.id) for side in bad)
            if ours_bad and theirs_bad:
                reason = f"neither model answered (candidate: {ours_bad}; baseline: {theirs_bad})"
                decided[item.id] = "tie", reason
            elif self.control is None and text_of(ours).strip() == text_of(theirs).strip():
                decided[item.id] = "tie", EQUAL_ANSWERS
            elif ours_bad:
                decided[item.id] = "baseline", f"candidate: {ours_bad}"
            elif theirs_bad:
                decided[item.id] = "candidate", f"baseline: {theirs_bad}"
        return decided

    def _without_asking(self, item: str, judge_name: str, repeat: int, order: Order) -> Preference:
        winner, reason = self._decided[item]
        return Preference(item, judge_name, repeat, order, winner, f"Not asked: {reason}.", degenerate=reason)


def read_preference(reply: Reply | Failed, item: str, judge_name: str, repeat: int, order: Order) -> Preference:
    """What a reply says in this order. A failed or unreadable one is unscored."""
    if isinstance(reply, Failed):
        return Preference(item, judge_name, repeat, order, None, problem=reply.reason)
    verdict = parse_verdict(reply.text, WINNER_FORM)
    if verdict.values is None:
        return Preference(item, judge_name, repeat, order, None, verdict.reason, problem=verdict.problem)
    places: tuple[Winner, Winner] = ("candidate", "baseline")
    first, second = places if order == "candidate first" else places[::-1]
    winners: dict[str, Winner] = {"first": first, "second": second, "tie": "tie"}
    shares = reply.probabilities.get("winner", {})
    return Preference(
        item,
        judge_name,
        repeat,
        order,
        winners[str(verdict.values["winner"])],
        verdict.reason,
        probabilities={winner: shares.get(place, 0.0) for place, winner in winners.items()} if shares else {},
    )
