"""How likely given continuations are: many prefixes, each with its own, in batches that share what they have in common.

The tokens that all prefixes begin with are read once. After them, prefixes and continuations are read beside each
other, as branches of one cache: the rest of a prefix once for all of its continuations, but for a few tokens at its
end. A batch is cut by its number of tokens alone, so that short texts fill it as well as long ones.

A score depends on its prefix and continuation alone, and not on what is scored beside it, before it or in another batch
(see `layout`): in a session without flash attention, to the last bit where llama.cpp's matrix products round each row
by itself (on x86, all but some repacked formats), and to rounding elsewhere. The same questions in the same order with
the same number of threads give the same bits on every run. It matters more than it seems: activations are quantized to
8 bits on the way, which makes tenths of a nat of the last bit of a sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgetune.errors import UsageError
from edgetune.runtime.layout import PADDING, Tree, lay_out, longest_layout
from edgetune.runtime.session import Entry, Session, common_beginning, log_total

GROUP_TOKENS = 192
"""About so many tokens are read beside each other. Each attends to all places of the cache, and what is not its own is
only taken out afterwards, so larger groups cost more than fuller batches save."""

_PAD = 0
"""A token that fills a place; nothing is asked of it."""


@dataclass(frozen=True)
class Scorable:
    """A prefix and continuations whose likelihoods are asked for, as ids. The prefix has at least one."""

    prefix: Sequence[int]
    continuations: Sequence[Sequence[int]]

    @property
    def context_tokens(self) -> int:
        """How many tokens have to fit into the context."""
        return len(self.prefix) + max((len(continuation) - 1 for continuation in self.continuations), default=0)


def score(
    session: Session, prefix: Sequence[int], continuations: Sequence[Sequence[int]], *, reproducible: bool = True
) -> list[float]:
    """The scores of one prefix's continuations, in nats; see `score_all`."""
    return next(score_all(session, [Scorable(prefix, continuations)], reproducible=reproducible))


def score_all(session: Session, questions: Sequence[Scorable], *, reproducible: bool = True) -> Iterator[list[float]]:
    """For each question, the log-probability of each continuation's tokens after the prefix, summed, in nats.

    Scores come in the order of the questions, some at a time; an empty continuation has 0. Without `reproducible`,
    what the cache holds is used even if it was read in batches that give other bits. Raises UsageError when a prefix is
    empty or a question does not fit into the context.
    """
    for question in questions:
        if not question.prefix:
            raise UsageError("the probability of a text with nothing before it is not defined", remedy="give a prefix")
        session.require_room(question.context_tokens)
    if not questions:
        return
    common = common_beginning([each.prefix for each in questions])
    shared = min(_shareable(question, session, common) for question in questions)
    beginning = questions[0].prefix[:shared]
    waiting: list[Tree] = []
    for question in questions:
        tree = _grow(session, question.prefix[shared:], question.continuations)
        if not session.can_branch or not _fit_together([tree], session, shared):
            yield from _score_trees(session, beginning, waiting, reproducible)
            waiting = []
            yield _score_in_parts(session, question, reproducible)
            continue
        if not _fit_together([*waiting, tree], session, shared):
            yield from _score_trees(session, beginning, waiting, reproducible)
            waiting = []
        waiting.append(tree)
    yield from _score_trees(session, beginning, waiting, reproducible)


def _shareable(question: Scorable, session: Session, common: int) -> int:
    """How many of the first `common` tokens of a prefix can be read before it branches: whole rows of lanes.

    The last token of a prefix cannot, whose logits are needed; nor the one before, for no batch may hold a token alone.
    """
    most = max(0, min(common, len(question.prefix) - 2))
    return most - most % session.lanes


def _grow(session: Session, trunk: Sequence[int], continuations: Sequence[Sequence[int]]) -> Tree:
    """The tree of a question, whose continuations share whole rows of lanes, where the model's memory can be shared."""
    rows = len(trunk) - len(trunk) % session.lanes
    return Tree.grow(trunk, continuations, shared=rows if session.can_branch else 0)


def _fit_together(trees: Sequence[Tree], session: Session, shared: int) -> bool:
    sequences = sum(tree.sequences for tree in trees)
    room = session.context_tokens - shared
    if len(trees) > 1 and sum(len(tree.tokens) for tree in trees) > GROUP_TOKENS:
        return False
    return sequences < session.sequences - 1 and longest_layout(trees, session.lanes) <= room


def _score_trees(
    session: Session, beginning: Sequence[int], trees: Sequence[Tree], reproducible: bool
) -> list[list[float]]:
    """The scores of each tree's continuations after the beginning, all read beside each other."""
    first_sequence = [1]
    for tree in trees:
        first_sequence.append(first_sequence[-1] + tree.sequences)
    places = lay_out(trees, session.lanes)
    entries: list[Entry] = []
    padded = 0
    for number, node in places:
        if (number, node) == PADDING:
            entries.append(Entry(_PAD, len(beginning) + padded, (session.sequences - 1,), False))
            padded += 1
            continue
        tree = trees[number]
        sequences = tuple(first_sequence[number] + path for path in tree.paths[node])
        entries.append(
            Entry(tree.tokens[node], len(beginning) + tree.depths[node], sequences, bool(tree.targets[node]))
        )
    scores = [[0.0] * tree.continuations for tree in trees]
    if not entries:
        return scores
    if beginning:
        session.feed(beginning, reproducible=reproducible)
    else:
        session.forget()
    for index, logits in session.branch(entries):
        number, node = places[index]
        total = log_total(logits)
        for continuation, token in trees[number].targets[node]:
            scores[number][continuation] += float(logits[token]) - total
    return scores


def _score_in_parts(session: Session, question: Scorable, reproducible: bool) -> list[float]:
    """The scores of a question whose continuations are too many for one tree, or cannot share its tokens."""
    shared = _shareable(question, session, len(question.prefix))
    beginning, trunk = question.prefix[:shared], question.prefix[shared:]
    scores: list[float] = []
    part: list[Sequence[int]] = []
    for continuation in [*question.continuations, None]:
        tree = None if continuation is None else _grow(session, trunk, [*part, continuation])
        if part and (tree is None or not _fit_together([tree], session, shared)):
            scores += _score_trees(session, beginning, [_grow(session, trunk, part)], reproducible)[0]
            part = []
        if continuation is not None:
            part.append(continuation)
    return scores
