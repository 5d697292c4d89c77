"""Figures on the judges: whether they can be trusted here, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.judging.asking.cost import Costs
from edgetune.judging.gate.wording import percent
from edgetune.judging.grading.grades import Grade, Preference
from edgetune.judging.grading.summaries import Share, order_consistency, unscored_share
from edgetune.judging.results.judgement import Judgement


@dataclass(frozen=True)
class Figure:
    """One line: what it is, what was found, what the gate asks for (empty where it asks for nothing), and whether that
    is missed."""

    title: str
    text: str
    limit: str = ""
    missed: bool = False


def was_judged(judgement: Judgement) -> bool:
    """True where the result includes verdicts of a judge."""
    return bool(judgement.judges or judgement.preferences or all_grades(judgement))


def all_grades(judgement: Judgement) -> tuple[Grade, ...]:
    return tuple(grade for _, side in judgement.sides for grade in side.grades)


def judge_figures(judgement: Judgement) -> list[Figure]:
    """The figures, the most important first; none where no judge was asked."""
    if not was_judged(judgement):
        return []
    gate, costs = judgement.suite.gate, judgement.costs
    grades, preferences = all_grades(judgement), judgement.preferences
    figures = [Figure("judge" if len(judgement.judges) == 1 else "panel", ", ".join(judgement.judges))]
    verdicts: list[Grade | Preference] = [*grades, *preferences]
    unscored = unscored_share(verdicts)
    limit = f"the gate allows at most {gate.max_unscored * 100:g} %"
    missed = unscored.share is not None and unscored.share > gate.max_unscored
    figures.append(Figure("unscored verdicts", _share_text(unscored), limit, missed))
    if preferences:
        agreed = order_consistency(preferences)
        limit = f"the gate requires at least {gate.min_consistency * 100:g} %"
        missed = agreed.share is not None and agreed.share < gate.min_consistency
        figures.append(Figure("both orders agree", _share_text(agreed), limit, missed))
    spared = sum(verdict.degenerate is not None for verdict in verdicts)
    figures.append(Figure("decided without asking the judge", f"{spared:,} of {len(verdicts):,} verdicts"))
    if expected := sum(grade.expected for grade in grades):
        figures.append(Figure("grades from token probabilities", f"{expected:,} of {len(grades):,}"))
    return [
        *figures,
        Figure("cost", _money(costs)),
        Figure("verdicts asked for", f"{costs.asked:,}, and {costs.cached:,} from the cache"),
        Figure("tokens", f"{costs.input_tokens:,} read, {costs.output_tokens:,} written"),
        Figure("time", f"{costs.seconds:,.1f} s"),
    ]


def cost_text(costs: Costs) -> str:
    """What the judges cost, in one line."""
    return (
        f"{costs.asked:,} verdicts asked for, {costs.cached:,} from the cache; {costs.input_tokens:,} tokens read, "
        f"{costs.output_tokens:,} written; {costs.seconds:,.1f} s; {_money(costs)}"
    )


def _money(costs: Costs) -> str:
    if costs.usd is None:
        return "price unknown"
    return f"${costs.usd:,.2f}" if costs.usd == 0 or costs.usd >= 0.01 else f"${costs.usd:.4f}"


def _share_text(share: Share) -> str:
    return "none" if share.share is None else f"{percent(share.share)} ({share.count:,} of {share.of:,})"
