"""How likely given continuations are: many prefixes, each with its own, in batches that share what they have in common.

The tokens that all prefixes begin with are read once. After them, prefixes and continuations are read beside each
other, as branches of one cache: the rest of a prefix once for all of its continuations, and what these begin with alike
once too. A batch is cut by its number of tokens alone, so that short texts fill it as well as long ones.

A score depends on its prefix and continuation alone, and not on what is scored beside it. For models that llama.cpp
runs with flash attention (nearly all) and matrix products that round each row for itself (all but some repacked
formats), that holds to the last bit; for the others, to rounding. The same questions in the same order with the same
number of threads give the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from edgetune.errors import UsageError
from edgetune.runtime.session import Entry, Session, common_beginning, log_total


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
    shared = min(common_beginning([each.prefix for each in questions]), *map(_shareable, questions))
    beginning = questions[0].prefix[:shared]
    waiting: list[_Tree] = []
    for question in questions:
        tree = _Tree.grow(question.prefix[shared:], question.continuations)
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


@dataclass
class _Tree:
    """What is read after a beginning for one question: tokens in an order in which each follows its parent.

    `depths` counts from the end of the beginning. `paths` are the sequences that a token belongs to, from 0 on, and
    `targets` the continuations, by number, that go on with some token after it.
    """

    continuations: int
    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)
    targets: list[list[tuple[int, int]]] = field(default_factory=list)
    sequences: int = 0

    @classmethod
    def grow(cls, trunk: Sequence[int], continuations: Sequence[Sequence[int]], *, share: bool = True) -> _Tree:
        """The tree of all continuations on one trunk. Without `share`, each has tokens of its own all the way."""
        tree = cls(len(continuations))
        children: dict[Hashable, int] = {}
        for number, continuation in enumerate(continuations):
            if continuation:
                tree._add(number, trunk, continuation, children, None if share else number)
        return tree

    def _add(
        self,
        number: int,
        trunk: Sequence[int],
        continuation: Sequence[int],
        children: dict[Hashable, int],
        owner: int | None,
    ) -> None:
        node, path, known = -1, [], len(self.tokens)
        for depth, token in enumerate([*trunk, *continuation[:-1]]):
            node = children.setdefault((node, token, owner), len(self.tokens))
            if node == len(self.tokens):
                self.tokens.append(token)
                self.depths.append(depth)
                self.paths.append([])
                self.targets.append([])
            path.append(node)
            if depth >= len(trunk) - 1:
                self.targets[node].append((number, continuation[depth - len(trunk) + 1]))
        if len(self.tokens) > known:
            for each in path:
                self.paths[each].append(self.sequences)
            self.sequences += 1


def _shareable(question: Scorable) -> int:
    """How much of a prefix can be read before it branches.

    Its last token cannot, whose logits are needed; nor can the one before, for no batch may hold a token alone.
    """
    return max(0, len(question.prefix) - 2)


def _fit_together(trees: Sequence[_Tree], session: Session, shared: int) -> bool:
    sequences = sum(tree.sequences for tree in trees)
    tokens = sum(len(tree.tokens) for tree in trees)
    return sequences < session.sequences and shared + tokens <= session.context_tokens


def _score_trees(
    session: Session, beginning: Sequence[int], trees: Sequence[_Tree], reproducible: bool
) -> list[list[float]]:
    """The scores of each tree's continuations after the beginning, all read beside each other."""
    entries: list[Entry] = []
    origins: list[tuple[int, int]] = []
    sequence = 1
    for number, tree in enumerate(trees):
        for node, token in enumerate(tree.tokens):
            sequences = tuple(sequence + path for path in tree.paths[node])
            entries.append(Entry(token, len(beginning) + tree.depths[node], sequences, bool(tree.targets[node])))
            origins.append((number, node))
        sequence += tree.sequences
    scores = [[0.0] * tree.continuations for tree in trees]
    if entries:
        if beginning:
            session.feed(beginning, reproducible=reproducible)
        else:
            session.forget()
        for index, logits in session.branch(entries):
            number, node = origins[index]
            total = log_total(logits)
            for continuation, token in trees[number].targets[node]:
                scores[number][continuation] += float(logits[token]) - total
    return scores


def _score_in_parts(session: Session, question: Scorable, reproducible: bool) -> list[float]:
    """The scores of a question whose continuations are too many for one tree, or cannot share its tokens."""
    shared = _shareable(question)
    beginning, trunk = question.prefix[:shared], question.prefix[shared:]
    scores: list[float] = []
    part: list[Sequence[int]] = []
    for continuation in [*question.continuations, None]:
        tree = None if continuation is None else _Tree.grow(trunk, [*part, continuation], share=session.can_branch)
        if part and (tree is None or not _fit_together([tree], session, shared)):
            scores += _score_trees(
                session, beginning, [_Tree.grow(trunk, part, share=session.can_branch)], reproducible
            )[0]
            part = []
        if continuation is not None:
            part.append(continuation)
    return scores
