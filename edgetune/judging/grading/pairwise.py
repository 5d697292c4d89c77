"""Preferences between two answers, each pair asked in both orders: what one judge is asked, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from edgetune.judging.asking.request import Failed, JudgeRequest, Reply
from edgetune.judging.grading.degenerate import find_degenerate, text_of
from edgetune.judging.grading.grades import EQUAL_ANSWERS, Ask, Order, Preference, Winner
from edgetune.judging.grading.prompt import PROMPT_VERSION, WINNER_FORM, references_of, winner_messages
from edgetune.judging.grading.verdict import parse_verdict
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.rubric import Rubric

ORDERS: tuple[Order, Order] = ("candidate first", "baseline first")


@dataclass(frozen=True)
class _Pair:
    """Two answers to one item; `decided` is the winner and the reason where the judge is not asked."""

    item: Item
    candidate: str
    baseline: str
    decided: tuple[Winner, str] | None


def compare_answers(
    items: Sequence[Item],
    candidate: Sequence[Answer],
    baseline: Sequence[Answer],
    rubric: Rubric,
    judge_name: str,
    repeats: int,
    ask: Ask,
    *,
    control: str | None = None,
) -> tuple[Preference, ...]:
    """Compare two models' answers in both orders, `repeats` times; item by item, repeats, orders.

    The answers are in the order of the items. Without asking, a degenerate answer loses to one that is not, and two
    degenerate or equal answers tie. `control` names a control: its questions are asked anew, and equal answers too, as
    it is there to see what a judge makes of them.
    """
    pairs = _pair(items, candidate, baseline, asks_equal=control is not None)
    planned = _plan(pairs, repeats)
    requests = _requests(planned, rubric, control)
    replies = {
        (pair.item.id, repeat, order): reply
        for (pair, repeat, order), reply in zip(planned, ask(requests), strict=True)
    }
    return tuple(
        Preference(
            pair.item.id,
            judge_name,
            repeat,
            order,
            pair.decided[0],
            f"Not asked: {pair.decided[1]}.",
            degenerate=pair.decided[1],
        )
        if pair.decided is not None
        else read_preference(replies[pair.item.id, repeat, order], pair.item.id, judge_name, repeat, order)
        for pair in pairs
        for repeat in range(repeats)
        for order in ORDERS
    )


def pairwise_requests(
    items: Sequence[Item],
    candidate: Sequence[Answer],
    baseline: Sequence[Answer],
    rubric: Rubric,
    repeats: int,
    *,
    control: str | None = None,
) -> list[JudgeRequest]:
    """The questions that `compare_answers` asks, without asking them."""
    pairs = _pair(items, candidate, baseline, asks_equal=control is not None)
    return _requests(_plan(pairs, repeats), rubric, control)


def read_preference(reply: Reply | Failed, item: str, judge_name: str, repeat: int, order: Order) -> Preference:
    """What a reply says in this order. A failed or unreadable one is unscored."""
    if isinstance(reply, Failed):
        return Preference(item, judge_name, repeat, order, None, problem=reply.reason)
    verdict = parse_verdict(reply.text, WINNER_FORM)
    if verdict.values is None:
        return Preference(item, judge_name, repeat, order, None, verdict.reason, problem=verdict.problem)
    winners = _meanings(order)
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


def _meanings(order: Order) -> dict[str, Winner]:
    if order == "candidate first":
        return {"first": "candidate", "second": "baseline", "tie": "tie"}
    return {"first": "baseline", "second": "candidate", "tie": "tie"}


def _pair(
    items: Sequence[Item], candidate: Sequence[Answer], baseline: Sequence[Answer], *, asks_equal: bool
) -> list[_Pair]:
    bad_candidate, bad_baseline = find_degenerate(items, candidate), find_degenerate(items, baseline)
    pairs = []
    for item, ours, theirs in zip(items, candidate, baseline, strict=True):
        texts = text_of(ours), text_of(theirs)
        decided = _decide(texts, bad_candidate.get(item.id), bad_baseline.get(item.id), asks_equal=asks_equal)
        pairs.append(_Pair(item, *texts, decided))
    return pairs


def _decide(
    texts: tuple[str, str], bad_candidate: str | None, bad_baseline: str | None, *, asks_equal: bool
) -> tuple[Winner, str] | None:
    if bad_candidate is not None and bad_baseline is not None:
        return "tie", f"neither model answered (candidate: {bad_candidate}; baseline: {bad_baseline})"
    if texts[0].strip() == texts[1].strip() and not asks_equal:
        return "tie", EQUAL_ANSWERS
    if bad_candidate is not None:
        return "baseline", f"candidate: {bad_candidate}"
    if bad_baseline is not None:
        return "candidate", f"baseline: {bad_baseline}"
    return None


def _plan(pairs: Sequence[_Pair], repeats: int) -> list[tuple[_Pair, int, Order]]:
    undecided = [pair for pair in pairs if pair.decided is None]
    return [(pair, repeat, order) for pair in undecided for repeat in range(repeats) for order in ORDERS]


def _requests(planned: Sequence[tuple[_Pair, int, Order]], rubric: Rubric, control: str | None) -> list[JudgeRequest]:
    shaping = {"prompt": PROMPT_VERSION, "rubric": rubric.sha256()}
    requests = []
    for pair, repeat, order in planned:
        texts = (pair.candidate, pair.baseline) if order == "candidate first" else (pair.baseline, pair.candidate)
        identity = {
            "grading": "pairwise",
            **shaping,
            "question": [[message.role, message.content] for message in pair.item.messages],
            "references": list(references_of(pair.item)),
            "first": texts[0],
            "second": texts[1],
            "repeat": repeat,
            # Equal answers make both orders the same question, which a control means to ask twice.
            **({} if control is None else {"control": control, "order": order}),
        }
        requests.append(JudgeRequest(identity, partial(winner_messages, pair.item, *texts, rubric), WINNER_FORM))
    return requests
