"""How likely given continuations of a text are.

A score depends on its prefix and continuation alone, and not on what is scored beside it or before it: in a session
without flash attention, to the last bit where llama.cpp's matrix products round each row by itself (on x86, all but
some repacked formats), and to rounding elsewhere. It matters more than it seems: activations are quantized to 8 bits on
the way, which makes tenths of a nat of the last bit of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgetune.errors import UsageError
from edgetune.runtime.context import Context, log_total


@dataclass(frozen=True)
class Scorable:
    """A prefix and continuations whose likelihoods are asked for, as ids. The prefix has at least one."""

    prefix: Sequence[int]
    continuations: Sequence[Sequence[int]]

    @property
    def context_tokens(self) -> int:
        """How many tokens have to fit into the context."""
        return len(self.prefix) + max((len(continuation) - 1 for continuation in self.continuations), default=0)


def score(context: Context, question: Scorable, *, reproducible: bool = True) -> list[float]:
    """The log-probability of each continuation's tokens after the prefix, summed, in nats; 0 for an empty one.

    What the cache holds of the prefix is not read again; without `reproducible`, not even if it was read in batches
    that give other bits. Continuations that differ in their last token alone are read together. Raises UsageError when
    the prefix is empty or the question does not fit into the context.
    """
    prefix = question.prefix
    if not prefix:
        raise UsageError("the probability of a text with nothing before it is not defined", remedy="give a prefix")
    context.require_room(question.context_tokens)
    scores = [0.0] * len(question.continuations)
    read_together: dict[tuple[int, ...], list[int]] = {}
    for number, continuation in enumerate(question.continuations):
        if continuation:
            read_together.setdefault(tuple(continuation[:-1]), []).append(number)
    first = len(prefix) - 1
    for read in sorted(read_together, key=len):  # a state that is saved for the shortest serves all
        numbers = read_together[read]
        for place, logits in context.read([*prefix, *read], wanted_from=first, reproducible=reproducible):
            total = log_total(logits)
            for number in numbers:
                scores[number] += float(logits[question.continuations[number][place - first]]) - total
    return scores
