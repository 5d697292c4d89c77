"""One text that a model writes: its pieces as they come, and what it took."""

from __future__ import annotations

import codecs
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Required, TypedDict

from edgetune.errors import UsageError
from edgetune.runtime.context import Context, log_total
from edgetune.runtime.grammar import TokenSampler
from edgetune.runtime.sampling import Sampling, build_chain
from edgetune.runtime.vocabulary import Vocabulary

FinishReason = Literal["stop", "length", "context", "interrupted"]


@dataclass(frozen=True)
class GenerationStats:
    """What one answer took. `finish_reason` is interrupted when the caller stopped reading before the end."""

    prompt_tokens: int
    cached_tokens: int
    """Of the prompt's tokens, those that were still in the cache and not computed again."""
    generated_tokens: int
    prompt_seconds: float
    decode_seconds: float
    """From the first token to the last, the caller's own time between tokens not counted."""
    time_to_first_token: float
    """Seconds from the call to the first token."""
    tokens_per_second: float
    """Tokens after the first over decode_seconds; 0 for an answer of one token."""
    finish_reason: FinishReason
    token_ids: tuple[int, ...]
    """The generated ids, without the one that ended the answer."""


class TokenLogprob(NamedTuple):
    """A generated token, and its log-probability in nats: the model's own, before sampling options and grammar."""

    token: str
    logprob: float


class Writing(TypedDict, total=False):
    """How a text is written: the keyword arguments of `Generation`."""

    sampling: Required[Sampling]
    max_tokens: Required[int]
    reproducible: bool
    """What is written does not depend on what was read before."""
    grammar: str | None
    """In GBNF: only texts that fit its `root` are written."""
    marks: bool
    """The control tokens that set reasoning apart are in the pieces (see `data.reasoning`); others never are."""
    stop: Sequence[str]
    """The text ends before the first of these."""
    logprobs: bool
    """Keep the log-probability of every token."""


@dataclass
class _Progress:
    """What a generation has come to.

    Its generator refers to this and not to the generation: without a cycle, both are freed at once.
    """

    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    decode_seconds: float = 0.0
    first_seconds: float = 0.0
    finish_reason: FinishReason = "interrupted"
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)


class Generation(Iterator[str]):
    """The pieces of a text, each of whole characters, and its statistics.

    The model writes while the pieces are read. Whoever stops reading early closes it (contextlib.closing).
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        context: Context,
        ids: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        reproducible: bool = False,
        grammar: str | None = None,
        marks: bool = False,
        stop: Sequence[str] = (),
        logprobs: bool = False,
    ) -> None:
        """Read `ids` and continue them until the model ends, `max_tokens`, a text of `stop`, or the end of the context.

        See `Writing`. Raises UsageError for a `max_tokens` below 1. Reading the pieces raises UsageError when the
        prompt does not fit into the context, and NumericalError when what the model computes is not finite.
        """
        require_max_tokens(max_tokens)
        self.prompt_tokens = len(ids)
        self._progress = _Progress()
        tokens = _write(
            self._progress,
            vocabulary,
            context,
            ids,
            sampling=sampling,
            max_tokens=max_tokens,
            reproducible=reproducible,
            grammar=grammar,
            shown=vocabulary.reasoning_marks if marks else frozenset(),
            logprobs=logprobs,
        )
        self._pieces = _until(tokens, stop, self._progress)

    def __next__(self) -> str:
        piece = next(self._pieces)
        self._progress.pieces.append(piece)
        return piece

    def close(self) -> None:
        """Stop writing."""
        self._pieces.close()

    @property
    def text(self) -> str:
        """What was read so far."""
        return "".join(self._progress.pieces)

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...]:
        """The tokens so far; none where they were not asked for."""
        return tuple(self._progress.logprobs)

    @property
    def is_answer(self) -> bool:
        """True once there is something to keep: a piece of text, or a regular end without any."""
        return bool(self._progress.pieces) or self._progress.finish_reason != "interrupted"

    @property
    def stats(self) -> GenerationStats:
        """What it took so far."""
        done = self._progress
        count = len(done.token_ids)
        timed = count - (done.finish_reason != "stop")
        return GenerationStats(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=done.cached_tokens,
            generated_tokens=count,
            prompt_seconds=done.prompt_seconds,
            decode_seconds=done.decode_seconds,
            time_to_first_token=done.first_seconds,
            tokens_per_second=timed / done.decode_seconds if timed > 0 and done.decode_seconds else 0.0,
            finish_reason=done.finish_reason,
            token_ids=tuple(done.token_ids),
        )


def require_max_tokens(count: int) -> None:
    """Raise UsageError for a length below 1."""
    if count < 1:
        raise UsageError(f"max_tokens is {count}; it must be at least 1")


def _write(
    done: _Progress,
    vocabulary: Vocabulary,
    context: Context,
    ids: Sequence[int],
    *,
    sampling: Sampling,
    max_tokens: int,
    reproducible: bool,
    grammar: str | None,
    shown: frozenset[int],
    logprobs: bool,
) -> Generator[str, None, None]:
    """The texts of the tokens. Those of `shown` are shown although they are control tokens."""
    started = time.perf_counter()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    sampler = TokenSampler(build_chain(sampling, vocabulary.size, ids), grammar, vocabulary.pointer)
    try:
        done.cached_tokens = context.feed(ids, reproducible=reproducible)
        done.prompt_seconds = time.perf_counter() - started
        text_number = context.texts
        while True:
            resumed = time.perf_counter()
            if context.texts != text_number:
                raise UsageError(
                    "the model has read something else since the last piece of this answer",
                    remedy="finish one answer before you ask for the next, or open the model twice",
                )
            if done.token_ids:
                if context.is_full:
                    done.finish_reason = "context"
                    break
                context.append(done.token_ids[-1])
            logits = context.logits()
            token = sampler.sample(context.pointer)
            now = time.perf_counter()
            if not done.first_seconds:
                done.first_seconds = now - started
            else:
                done.decode_seconds += now - resumed
            if vocabulary.ends(token):
                done.finish_reason = "stop"
                break
            done.token_ids.append(token)
            if logprobs:
                text = vocabulary.detokenize([token])
                done.logprobs.append(TokenLogprob(text, float(logits[token]) - log_total(logits)))
            if text := decoder.decode(vocabulary.piece(token, special=token in shown)):
                yield text
            if len(done.token_ids) >= max_tokens:
                done.finish_reason = "length"
                break
        if text := decoder.decode(b"", final=True):
            yield text
    finally:
        sampler.free()


def _until(pieces: Generator[str, None, None], stop: Sequence[str], done: _Progress) -> Generator[str, None, None]:
    """The pieces up to the first text of `stop`, which is left out. What may begin one waits for the next piece."""
    waiting = ""
    try:
        for piece in pieces:
            waiting += piece
            found = [place for text in stop if (place := waiting.find(text)) >= 0]
            if found:
                done.finish_reason = "stop"
                waiting = waiting[: min(found)]
                break
            kept = max((_overlap(waiting, text) for text in stop), default=0)
            ready, waiting = waiting[: len(waiting) - kept], waiting[len(waiting) - kept :]
            if ready:
                yield ready
        if waiting:
            yield waiting
    finally:
        pieces.close()


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
