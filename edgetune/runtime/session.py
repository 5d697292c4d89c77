"""A GGUF opened in llama.cpp on the CPU: tokens in and out, generation, and the probabilities of given answers."""

from __future__ import annotations

import codecs
import ctypes
import itertools
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from edgetune import console
from edgetune.cores import physical_cores
from edgetune.data.template import ChatTemplate
from edgetune.errors import ModelError, UsageError
from edgetune.runtime import native, probe
from edgetune.runtime.interrupt import deferred_interrupt
from edgetune.runtime.sampling import Sampling, build_chain

DEFAULT_CONTEXT_TOKENS = 4096
"""Models trained on 128k tokens would otherwise set gigabytes aside for a conversation that is never that long."""
BATCH_TOKENS = 512
REPRODUCIBLE_BATCH_TOKENS = 48
"""llama.cpp computes attention for batches of 64 tokens and more in another way, with other rounding: the same text
read in other batches gave log-probabilities that differed by up to 0.5 nats. Below that, the bits are the same however
the text is cut and whatever was in the cache; reading is 10 to 30 % slower."""
SEQUENCES = 16
"""The one that is generated, and the answers that are scored beside each other."""

_ABORTED = 2
"""llama_decode's status after its abort callback has said stop."""
_NO_VOCABULARY = 0
"""llama_vocab_type of a file without a tokenizer; llama.cpp aborts when it is asked to tokenize for it."""

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


class _Entry(NamedTuple):
    """One token of a batch."""

    token: int
    position: int
    sequence: int
    wants_logits: bool


class Session:
    """One model and one cache of what it has read. Not for use from several threads at once.

    The cache holds the tokens read last, and whatever is asked next shares the common beginning. `_cached` never claims
    more than the cache holds, so an interrupt between two tokens leaves both usable.
    """

    def __init__(self, path: Path, model: Any, context: Any, *, context_tokens: int, extra_kernels: bool) -> None:
        self._llama = native.open_library()
        self._model, self._context = model, context
        self._memory = self._llama.llama_get_memory(context)
        self._vocabulary = self._llama.llama_model_get_vocab(model)
        self._batch = self._llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._cached: list[int] = []
        self._cached_reproducibly = True
        self.path = path
        self.context_tokens = context_tokens
        self.extra_kernels = extra_kernels
        self.vocabulary_size: int = self._llama.llama_vocab_n_tokens(self._vocabulary)
        self.last_stats: GenerationStats | None = None

    @classmethod
    def open(cls, path: Path, *, context_tokens: int | None = None, threads: int | None = None) -> Session:
        """Open a GGUF file.

        `threads` defaults to the physical cores, `context_tokens` to the context that was trained, at most 4096.
        Raises ModelError when the file is missing, no GGUF, truncated, of an architecture that llama.cpp does not know,
        or crashes it; UsageError for a context or thread count that cannot be.
        """
        if context_tokens is not None and context_tokens < 1:
            raise UsageError(f"the context is {context_tokens} tokens; it must be at least 1")
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1")
        extra_kernels = probe.check_file(path)
        model = native.load_model(path, extra_kernels=extra_kernels)
        llama = native.open_library()
        try:
            if not llama.llama_model_has_decoder(model):
                raise ModelError("is an encoder, which cannot write text", where=path, remedy="choose a language model")
            if llama.llama_vocab_type(llama.llama_model_get_vocab(model)) == _NO_VOCABULARY:
                raise ModelError("has no vocabulary, so it cannot read text", where=path, remedy="export it again")
            trained = llama.llama_model_n_ctx_train(model)
            wanted = context_tokens or min(trained, DEFAULT_CONTEXT_TOKENS)
            if wanted > trained:
                console.warn(f"{path} was trained on {trained} tokens of context; {wanted} may give poor answers")
            context = native.create_context(
                model,
                context_tokens=wanted,
                batch_tokens=BATCH_TOKENS,
                outputs=REPRODUCIBLE_BATCH_TOKENS,
                sequences=SEQUENCES,
                threads=threads or physical_cores(),
            )
        except BaseException:
            llama.llama_model_free(model)
            raise
        return cls(path, model, context, context_tokens=wanted, extra_kernels=extra_kernels)

    def close(self) -> None:
        """Free the model and its cache. Closing twice is fine; using a closed session is not."""
        if self._context is not None:
            self._llama.llama_batch_free(self._batch)
            self._llama.llama_free(self._context)
            self._llama.llama_model_free(self._model)
            self._context = self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The GGUF's metadata as text, arrays left out."""
        count = self._llama.llama_model_meta_count(self._model)
        keys = (self._text_at(self._llama.llama_model_meta_key_by_index, index) for index in range(count))
        return {
            key: self._text_at(self._llama.llama_model_meta_val_str_by_index, index) for index, key in enumerate(keys)
        }

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template that the file carries. Raises ModelError when it has none."""
        source = self.metadata.get("tokenizer.chat_template")
        if not source:
            raise ModelError(
                "has no chat template, so it cannot chat or classify",
                where=self.path,
                remedy="export it again from a model whose tokenizer has one (a fine-tuned or instruct model)",
            )
        bos, eos = self._llama.llama_vocab_bos(self._vocabulary), self._llama.llama_vocab_eos(self._vocabulary)
        return ChatTemplate(source, bos_token=self._token_text(bos), eos_token=self._token_text(eos))

    def tokenize(self, text: str, *, parse_special: bool = True) -> list[int]:
        """The ids of `text`. Nothing is added: a chat template has the beginning-of-text token where it belongs.

        With `parse_special`, the texts of special tokens become these tokens, as in Transformers.
        """
        encoded = text.encode("utf-8", "replace")
        room = len(encoded) + 8
        ids = (self._llama.llama_token * room)()
        count = self._llama.llama_tokenize(self._vocabulary, encoded, len(encoded), ids, room, False, parse_special)
        if count < 0:
            room = -count
            ids = (self._llama.llama_token * room)()
            count = self._llama.llama_tokenize(self._vocabulary, encoded, len(encoded), ids, room, False, parse_special)
        return ids[:count]

    def detokenize(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of `ids`; without `special`, control tokens are left out. Bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self._piece(token, special=special) for token in ids).decode("utf-8", "replace")

    def feed(self, ids: Sequence[int], *, reproducible: bool = False) -> int:
        """Bring the cache to hold exactly `ids`, with the logits after the last one at hand.

        Returns how many of them were there already. With `reproducible`, the logits depend on `ids` alone and not on
        what was read before, to the last bit. Raises UsageError when they do not fit into the context.
        """
        self._require_room(len(ids))
        if reproducible and not self._cached_reproducibly:
            self._forget_after(0)
        kept = self._keep_common(ids)
        self._cached_reproducibly = reproducible or (self._cached_reproducibly and len(ids) - kept == 1)
        step = REPRODUCIBLE_BATCH_TOKENS if reproducible else BATCH_TOKENS
        with deferred_interrupt() as stop:
            stop_if_wished = self._llama.ggml_abort_callback(lambda _data: stop.is_set)
            self._llama.llama_set_abort_callback(self._context, stop_if_wished, None)
            try:
                for start in range(kept, len(ids), step):
                    part = ids[start : start + step]
                    last = len(ids) - 1 - start
                    if not self._decode([_Entry(token, start + i, 0, i == last) for i, token in enumerate(part)]):
                        break
                    self._cached.extend(part)
            finally:
                self._llama.llama_set_abort_callback(self._context, self._llama.ggml_abort_callback(), None)
        return kept

    def generate(self, ids: Sequence[int], *, sampling: Sampling, max_tokens: int) -> Generator[str, None, None]:
        """Read `ids` and write on, piece by piece, until the model ends, `max_tokens`, or the end of the context.

        Pieces are whole characters. Afterwards, and also when the caller stops early, `last_stats` holds what it took.
        Raises UsageError when the prompt does not fit into the context.
        """
        llama, context, vocabulary = self._llama, self._context, self._vocabulary
        started = time.perf_counter()
        generated: list[int] = []
        reason: FinishReason = "interrupted"
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        cached = 0
        first_at: float | None = None
        prompt_seconds = decode_seconds = 0.0
        chain = build_chain(sampling, self.vocabulary_size, ids)
        try:
            cached = self.feed(ids)
            prompt_seconds = time.perf_counter() - started
            while True:
                resumed = time.perf_counter()
                if generated:
                    if len(self._cached) >= self.context_tokens:
                        reason = "context"
                        break
                    self._decode([_Entry(generated[-1], len(self._cached), 0, True)])
                    self._cached.append(generated[-1])
                token = llama.llama_sampler_sample(chain, context, -1)
                now = time.perf_counter()
                if first_at is None:
                    first_at = now
                else:
                    decode_seconds += now - resumed
                if llama.llama_vocab_is_eog(vocabulary, token):
                    reason = "stop"
                    break
                generated.append(token)
                if text := decoder.decode(self._piece(token, special=False)):
                    yield text
                if len(generated) >= max_tokens:
                    reason = "length"
                    break
            if text := decoder.decode(b"", final=True):
                yield text
        finally:
            llama.llama_sampler_free(chain)
            timed = len(generated) - (reason != "stop")
            self.last_stats = GenerationStats(
                prompt_tokens=len(ids),
                cached_tokens=cached,
                generated_tokens=len(generated),
                prompt_seconds=prompt_seconds,
                decode_seconds=decode_seconds,
                time_to_first_token=(first_at or time.perf_counter()) - started,
                tokens_per_second=timed / decode_seconds if timed > 0 and decode_seconds else 0.0,
                finish_reason=reason,
                token_ids=tuple(generated),
            )

    def score(self, prefix: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        """For each continuation, the log-probability of its tokens after `prefix`, summed, in nats.

        The prefix is read once, and what it shares with the cache is not read again. The continuations are read beside
        each other, as sequences that share the prefix. A score depends on the prefix and its continuation alone, to the
        last bit. Raises UsageError when the prefix is empty or the longest continuation does not fit into the context.
        """
        if not prefix:
            raise UsageError("the probability of a text with nothing before it is not defined", remedy="give a prefix")
        self._require_room(len(prefix) + max((len(continuation) - 1 for continuation in continuations), default=0))
        self.feed(prefix, reproducible=True)
        after_prefix = _log_softmax(self._logits_at(-1))
        scores = [float(after_prefix[continuation[0]]) if continuation else 0.0 for continuation in continuations]
        waiting = [number for number, continuation in enumerate(continuations) if len(continuation) > 1]
        while waiting:
            group = self._first_that_fit(waiting, continuations, room=self.context_tokens - len(prefix))
            for number, score in zip(group, self._score_rest([continuations[number] for number in group]), strict=True):
                scores[number] += score
            waiting = waiting[len(group) :]
        return scores

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The log-probabilities of every next token after each of `ids`, shape (len(ids), vocabulary), in nats.

        Raises UsageError when they do not fit into the context.
        """
        self._require_room(len(ids))
        self._forget_after(0)
        self._cached_reproducibly = True
        rows = np.empty((len(ids), self.vocabulary_size), np.float32)
        for start in range(0, len(ids), REPRODUCIBLE_BATCH_TOKENS):
            part = ids[start : start + REPRODUCIBLE_BATCH_TOKENS]
            self._decode([_Entry(token, start + index, 0, True) for index, token in enumerate(part)])
            self._cached.extend(part)
            for index in range(len(part)):
                rows[start + index] = _log_softmax(self._logits_at(index))
        return rows

    def _score_rest(self, continuations: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of all tokens but the first of each continuation, after what the cache holds."""
        start = len(self._cached)
        entries = []
        targets = []
        for sequence, continuation in enumerate(continuations, start=1):
            self._llama.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
            for index, (token, following) in enumerate(itertools.pairwise(continuation)):
                entries.append(_Entry(token, start + index, sequence, True))
                targets.append((sequence - 1, following))
        scores = [0.0] * len(continuations)
        try:
            for first in range(0, len(entries), REPRODUCIBLE_BATCH_TOKENS):
                part = entries[first : first + REPRODUCIBLE_BATCH_TOKENS]
                self._decode(part)
                for index, (number, following) in enumerate(targets[first : first + len(part)]):
                    scores[number] += float(_log_softmax(self._logits_at(index))[following])
        finally:
            self._llama.llama_memory_seq_keep(self._memory, 0)
        return scores

    @staticmethod
    def _first_that_fit(waiting: Sequence[int], continuations: Sequence[Sequence[int]], *, room: int) -> list[int]:
        """The first of the waiting continuations that can be read together: enough sequences, enough cache."""
        group: list[int] = []
        for number in waiting[: SEQUENCES - 1]:
            room -= len(continuations[number]) - 1
            if room < 0:
                break
            group.append(number)
        return group

    def _require_room(self, count: int) -> None:
        if self._context is None:
            raise ValueError("this session is closed")
        if count < 1:
            raise UsageError("there is nothing to read", remedy="give at least one token")
        if count > self.context_tokens:
            raise UsageError(
                f"the text has {count} tokens, the context holds {self.context_tokens}",
                remedy="shorten it, or open the model with a larger context",
            )

    def _keep_common(self, ids: Sequence[int]) -> int:
        """Forget what the cache does not share with `ids`, and the last token, whose logits are needed again."""
        shared = 0
        for cached, wanted in zip(self._cached, ids[:-1], strict=False):
            if cached != wanted:
                break
            shared += 1
        return self._forget_after(shared)

    def _forget_after(self, count: int) -> int:
        """Keep the first `count` tokens of the cache; none where the model's memory cannot be cut. Returns how many."""
        self._llama.llama_memory_seq_keep(self._memory, 0)
        if not self._llama.llama_memory_seq_rm(self._memory, 0, count, -1):
            self._llama.llama_memory_clear(self._memory, False)
            count = 0
        del self._cached[count:]
        return count

    def _decode(self, entries: Sequence[_Entry]) -> bool:
        """Read a batch; False when it was aborted. Raises ModelError when llama.cpp cannot."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for index, (token, position, sequence, wants_logits) in enumerate(entries):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = wants_logits
        status = self._llama.llama_decode(self._context, batch)
        if status not in (0, _ABORTED):
            raise ModelError(f"llama.cpp cannot decode ({native.last_error()}, status {status})", where=self.path)
        return status == 0

    def _logits_at(self, index: int) -> NDArray[np.float32]:
        """The logits of the batch's token `index`, in memory that the next batch overwrites."""
        pointer = self._llama.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))

    def _piece(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self._llama.llama_token_to_piece(self._vocabulary, token, buffer, room, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def _token_text(self, token: int) -> str:
        """A special token as a template writes it; empty where the model has none."""
        return "" if token < 0 else self._llama.llama_vocab_get_text(self._vocabulary, token).decode("utf-8", "replace")

    def _text_at(self, read: Callable[..., int], index: int) -> str:
        """A text of the metadata, through one of llama.cpp's functions that fill a buffer."""
        length = read(self._model, index, ctypes.create_string_buffer(1), 1)
        buffer = ctypes.create_string_buffer(length + 1)
        read(self._model, index, buffer, length + 1)
        return buffer.value.decode("utf-8", "replace")


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities in nats, in double precision."""
    shifted = logits.astype(np.float64) - float(logits.max())
    return shifted - np.log(np.exp(shifted).sum())
