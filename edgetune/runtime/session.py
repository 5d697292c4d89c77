"""A GGUF opened in llama.cpp on the CPU: tokens in and out, generation, and the probabilities of given answers."""

from __future__ import annotations

import codecs
import ctypes
import itertools
import time
import unicodedata
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from edgetune import events
from edgetune.cores import physical_cores
from edgetune.data.answer_end import find_answer_end
from edgetune.data.reasoning import CHANNEL_MARKS, REASONING_MARKS
from edgetune.data.template import ChatTemplate
from edgetune.errors import ModelError, NumericalError, UsageError
from edgetune.models.gguf_file import GgufFile
from edgetune.models.gguf_tokenizer import NORMALIZER_KEY, unicode_form
from edgetune.runtime import native, probe, speed
from edgetune.runtime.grammar import TokenSampler
from edgetune.runtime.interrupt import deferred_interrupt
from edgetune.runtime.sampling import Sampling, build_chain
from edgetune.runtime.speed import Use

DEFAULT_CONTEXT_TOKENS = 4096
"""Models trained on 128k tokens would otherwise set gigabytes aside for a conversation that is never that long."""
BATCH_TOKENS = 256
"""Tokens read at once. However a text is cut into batches of 2 tokens and more, it gets the same bits; a token alone is
computed in another way, with other rounding, which can change a log-probability by up to 0.5 nats."""
OUTPUTS = 48
"""So many tokens of one batch can have logits; llama.cpp sets memory aside for them."""
SEQUENCES = OUTPUTS
"""The one that is generated, and the texts that are read beside each other. They share one cache, so more of them take
no more memory, but llama.cpp wants an output for each."""
STATES = 16
"""The same for models whose memory is a state of fixed size, of which each sequence has its own."""

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


class Entry(NamedTuple):
    """One token of a batch. It belongs to all of its sequences, and follows what each of them holds."""

    token: int
    position: int
    sequences: tuple[int, ...]
    wants_logits: bool


class Session:
    """One model and one cache of what it has read. Not for use from several threads at once.

    The cache holds the tokens read last, and whatever is asked next shares the common beginning. `_cached` never claims
    more than the cache holds, so an interrupt between two tokens leaves both usable.
    """

    def __init__(
        self,
        path: Path,
        model: Any,
        *,
        context_tokens: int,
        threads: int,
        extra_kernels: bool,
        flash_attention: bool,
    ) -> None:
        self._llama = native.open_library()
        self._model = model
        self._vocabulary = self._llama.llama_model_get_vocab(model)
        self.sequences = SEQUENCES if self.can_branch else STATES
        self._threads, self.flash_attention = threads, flash_attention
        self._context = self._create_context(context_tokens)
        self._memory = self._llama.llama_get_memory(self._context)
        self._batch = self._llama.llama_batch_init(BATCH_TOKENS, 0, self.sequences)
        self._cached: list[int] = []
        self._reproducible_tokens = 0
        """So many of the cached tokens were read in batches that always give the same bits."""
        self.path = path
        self.context_tokens = context_tokens
        self.extra_kernels = extra_kernels
        self.vocabulary_size: int = self._llama.llama_vocab_n_tokens(self._vocabulary)
        self.last_stats: GenerationStats | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        context_tokens: int | None = None,
        threads: int | None = None,
        flash_attention: bool | None = None,
        use: Use = "chat",
    ) -> Session:
        """Open a GGUF file.

        `threads` defaults to the physical cores, `context_tokens` to the context that was trained, at most 4096.
        Without `flash_attention`, attention is summed in single precision: log-probabilities are those of
        llama-cpp-python's high-level API, and do not depend on how a text was cut into batches. By default it is on
        where it does not cost time, which is measured once (see `speed`), as are the kernels that are quickest for
        this `use`.
        Raises ModelError when the file is missing, no GGUF, truncated, of an architecture that llama.cpp does not know,
        or crashes it; UsageError for a context or thread count that cannot be.
        """
        if context_tokens is not None and context_tokens < 1:
            raise UsageError(f"the context is {context_tokens} tokens; it must be at least 1")
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}; it must be at least 1")
        extra_kernels = probe.check_file(path)
        choice = speed.quickest(_head_size(path), use=use, extra_kernels=extra_kernels)
        model = native.load_model(path, extra_kernels=choice.extra_kernels)
        llama = native.open_library()
        try:
            if not llama.llama_model_has_decoder(model):
                raise ModelError("is an encoder, which cannot write text", where=path, remedy="choose a language model")
            if llama.llama_vocab_type(llama.llama_model_get_vocab(model)) == _NO_VOCABULARY:
                raise ModelError("has no vocabulary, so it cannot read text", where=path, remedy="export it again")
            trained = llama.llama_model_n_ctx_train(model)
            wanted = context_tokens or min(trained, DEFAULT_CONTEXT_TOKENS)
            if wanted > trained:
                events.warn(f"{path} was trained on {trained} tokens of context; {wanted} may give poor answers")
            threads = threads or physical_cores()
            return cls(
                path,
                model,
                context_tokens=wanted,
                threads=threads,
                extra_kernels=choice.extra_kernels,
                flash_attention=choice.flash_attention if flash_attention is None else flash_attention,
            )
        except BaseException:
            llama.llama_model_free(model)
            raise

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

    def make_room(self, tokens: int) -> None:
        """See to it that texts of `tokens` fit, as far as the model was trained on so many; what was read is forgotten.

        Raises ModelError when the cache does not fit into memory.
        """
        wanted = min(tokens, self._llama.llama_model_n_ctx_train(self._model))
        if wanted <= self.context_tokens:
            return
        context = self._create_context(wanted)
        self._llama.llama_free(self._context)
        self._context, self.context_tokens = context, wanted
        self._memory = self._llama.llama_get_memory(context)
        self._cached, self._reproducible_tokens = [], 0

    def require_room(self, count: int) -> None:
        """Raise UsageError when there are no tokens to read, or more than the context holds."""
        if self._context is None:
            raise ValueError("this session is closed")
        if count < 1:
            raise UsageError("there is nothing to read", remedy="give at least one token")
        if count > self.context_tokens:
            raise UsageError(
                f"the text has {count} tokens, the context holds {self.context_tokens}",
                remedy="shorten it, or open the model with a larger context",
            )

    def forget(self) -> None:
        """Empty the cache."""
        self._forget_after(0)

    @cached_property
    def can_branch(self) -> bool:
        """True where texts can be read beside each other that share a beginning, token by token.

        A model whose memory is a state (Mamba, RWKV and hybrids of them) cannot share it so.
        """
        llama, model = self._llama, self._model
        return not (llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model))

    @cached_property
    def lanes(self) -> int:
        """Texts that are read beside each other get the same bits when they begin a multiple of this apart."""
        return native.attention_lanes()

    @cached_property
    def beginning(self) -> list[int]:
        """What stands before a plain text: the beginning-of-text token where the vocabulary asks for one."""
        bos = self._llama.llama_vocab_bos(self._vocabulary)
        return [bos] if self._llama.llama_vocab_get_add_bos(self._vocabulary) and bos >= 0 else []

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

    @cached_property
    def ends(self) -> frozenset[int]:
        """What ends an answer beside the tokens at which llama.cpp stops: the control token behind the template's.

        Files of other tools may not say that it does, and llama.cpp would write on without a word that can be seen.
        """
        if "tokenizer.chat_template" not in self.metadata:
            return frozenset()
        end = find_answer_end(self.template, self.tokenize, self._is_control)
        return frozenset() if end is None or end.token is None else frozenset({end.token})

    @cached_property
    def reasoning_marks(self) -> frozenset[int]:
        """The control tokens of this vocabulary with which its model sets reasoning apart from the answer."""
        marks = {mark: self.tokenize(mark) for mark in (*REASONING_MARKS, *CHANNEL_MARKS)}
        found = {mark: ids[0] for mark, ids in marks.items() if len(ids) == 1 and self._is_control(ids[0])}
        channels = CHANNEL_MARKS[0] in found
        return frozenset(token for mark, token in found.items() if channels or mark in REASONING_MARKS)

    def tokenize(self, text: str, *, parse_special: bool = True) -> list[int]:
        """The ids of `text`. Nothing is added: a chat template has the beginning-of-text token where it belongs.

        With `parse_special`, the texts of special tokens become these tokens, as in Transformers. The text is brought
        into the Unicode form that the model's tokenizer brings it into, where the file says so: llama.cpp has none.
        """
        form = unicode_form(self.metadata.get(NORMALIZER_KEY))
        if form is not None:
            text = unicodedata.normalize(form, text)
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
        what was read before: to the last bit without flash attention, to rounding with it. Raises UsageError when they
        do not fit into the context.
        """
        self.require_room(len(ids))
        # The last two are read again: the logits are those of a batch, whatever was in the cache.
        most = max(0, len(ids) - 2)
        kept = self._keep_common(ids, most=min(most, self._reproducible_tokens) if reproducible else most)
        self._reproducible_tokens = min(kept, self._reproducible_tokens)
        cuts = _cut(kept, len(ids), BATCH_TOKENS)
        with deferred_interrupt() as stop:
            stop_if_wished = self._llama.ggml_abort_callback(lambda _data: stop.is_set)
            self._llama.llama_set_abort_callback(self._context, stop_if_wished, None)
            try:
                for start, end in itertools.pairwise([*cuts, len(ids)]):
                    part = ids[start:end]
                    last = len(ids) - 1 - start
                    if not self._decode([Entry(token, start + i, (0,), i == last) for i, token in enumerate(part)]):
                        break
                    self._cached.extend(part)
                    if reproducible:
                        self._reproducible_tokens = len(self._cached)
            finally:
                self._llama.llama_set_abort_callback(self._context, self._llama.ggml_abort_callback(), None)
        return kept

    def generate(
        self,
        ids: Sequence[int],
        *,
        sampling: Sampling,
        max_tokens: int,
        reproducible: bool = False,
        grammar: str | None = None,
        marks: bool = False,
    ) -> Generator[str, None, None]:
        """Read `ids` and write on, piece by piece, until the model ends, `max_tokens`, or the end of the context.

        Pieces are whole characters. With `reproducible`, what is written does not depend on what was read before. With
        `grammar` (GBNF), only texts that fit its `root` are written. With `marks`, the control tokens that set
        reasoning apart are in the pieces (see `data.reasoning`); others never are. Afterwards, and also when the caller
        stops early, `last_stats` holds what it took. Raises UsageError when the prompt does not fit into the context,
        NumericalError when what the model computes is not finite.
        """
        llama, context, vocabulary = self._llama, self._context, self._vocabulary
        ends = self.ends
        shown = self.reasoning_marks if marks else frozenset()
        started = time.perf_counter()
        generated: list[int] = []
        reason: FinishReason = "interrupted"
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        cached = 0
        first_at: float | None = None
        prompt_seconds = decode_seconds = 0.0
        sampler = TokenSampler(build_chain(sampling, self.vocabulary_size, ids), grammar, vocabulary)
        try:
            cached = self.feed(ids, reproducible=reproducible)
            prompt_seconds = time.perf_counter() - started
            while True:
                resumed = time.perf_counter()
                if generated:
                    if len(self._cached) >= self.context_tokens:
                        reason = "context"
                        break
                    self._decode([Entry(generated[-1], len(self._cached), (0,), True)])
                    self._cached.append(generated[-1])
                self._logits_at(-1)
                token = sampler.sample(context)
                now = time.perf_counter()
                if first_at is None:
                    first_at = now
                else:
                    decode_seconds += now - resumed
                if llama.llama_vocab_is_eog(vocabulary, token) or token in ends:
                    reason = "stop"
                    break
                generated.append(token)
                if text := decoder.decode(self._piece(token, special=token in shown)):
                    yield text
                if len(generated) >= max_tokens:
                    reason = "length"
                    break
            if text := decoder.decode(b"", final=True):
                yield text
        finally:
            sampler.free()
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

    def branch(self, entries: Sequence[Entry]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Read texts that go on from what the cache holds, beside each other, and forget them at the end.

        Sequences are counted from 1, and each is read in the order of its positions. Gives, for each entry that wants
        them, its number and the logits after it, (vocabulary,), in memory that the next ones overwrite. To the last
        bit, they depend on the cache, the texts of the entry's sequences, and these texts' places among all entries
        modulo `lanes`, when there are 2 entries or more and no flash attention.
        """
        for sequence in sorted({sequence for entry in entries for sequence in entry.sequences}):
            self._llama.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
        try:
            for start, end in itertools.pairwise([*_cut_by_outputs(entries), len(entries)]):
                part = entries[start:end]
                self._decode(part)
                for index, entry in enumerate(part):
                    if entry.wants_logits:
                        yield start + index, self._logits_at(index)
        finally:
            self._llama.llama_memory_seq_keep(self._memory, 0)

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The log-probabilities of every next token after each of `ids`, shape (len(ids), vocabulary), in nats.

        Raises UsageError when they do not fit into the context.
        """
        rows = np.empty((len(ids), self.vocabulary_size), np.float32)
        for index, logits in self.read(ids):
            rows[index] = logits - np.float32(log_total(logits))
        return rows

    def read(self, ids: Sequence[int], *, wanted_from: int = 0) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Read `ids` from the start, and give the number and the logits, (vocabulary,), of those from `wanted_from` on.

        Logits are of what follows the id. They depend on `ids` alone, to the last bit, and lie in memory that the next
        ones overwrite. Raises UsageError when the ids do not fit into the context.
        """
        self.require_room(len(ids))
        self._forget_after(0)
        for start, end in itertools.pairwise([*_cut(0, len(ids), OUTPUTS), len(ids)]):
            part = ids[start:end]
            entries = [Entry(token, start + i, (0,), start + i >= wanted_from) for i, token in enumerate(part)]
            self._decode(entries)
            self._cached.extend(part)
            self._reproducible_tokens = len(self._cached)
            for index, entry in enumerate(entries):
                if entry.wants_logits:
                    yield entry.position, self._logits_at(index)

    def _create_context(self, context_tokens: int) -> Any:
        return native.create_context(
            self._model,
            context_tokens=context_tokens,
            batch_tokens=BATCH_TOKENS,
            outputs=OUTPUTS,
            sequences=self.sequences,
            threads=self._threads,
            flash_attention=self.flash_attention,
        )

    def _keep_common(self, ids: Sequence[int], most: int) -> int:
        """Forget what the cache does not share with the first `most` of `ids`. Returns how many tokens stay."""
        return self._forget_after(common_beginning([self._cached, ids[:most]]))

    def _forget_after(self, count: int) -> int:
        """Keep the first `count` tokens of the cache; none where the model's memory cannot be cut. Returns how many."""
        self._llama.llama_memory_seq_keep(self._memory, 0)
        if not self._llama.llama_memory_seq_rm(self._memory, 0, count, -1):
            self._llama.llama_memory_clear(self._memory, False)
            count = 0
        del self._cached[count:]
        self._reproducible_tokens = min(count, self._reproducible_tokens)
        return count

    def _decode(self, entries: Sequence[Entry]) -> bool:
        """Read a batch; False when it was aborted. Raises ModelError when llama.cpp cannot."""
        batch = self._batch
        batch.n_tokens = len(entries)
        for index, (token, position, sequences, wants_logits) in enumerate(entries):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = len(sequences)
            for place, sequence in enumerate(sequences):
                batch.seq_id[index][place] = sequence
            batch.logits[index] = wants_logits
        status = self._llama.llama_decode(self._context, batch)
        if status not in (0, _ABORTED):
            raise ModelError(f"llama.cpp cannot decode ({native.last_error()}, status {status})", where=self.path)
        return status == 0

    def _logits_at(self, index: int) -> NDArray[np.float32]:
        """The logits of the batch's token `index`, the last one's for -1, in memory that the next batch overwrites.

        Raises NumericalError when one is not finite: a sampler would still choose a token, and that would pass for one.
        """
        pointer = self._llama.llama_get_logits_ith(self._context, index)
        logits = np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))
        if not np.isfinite(logits).all():  # about 20 µs, of the 8,000 that a small model takes for a token
            raise NumericalError(
                "what it computes is not finite (NaN or infinite): the file is damaged",
                where=self.path,
                remedy="export or download it again; `edgetune verify` checks a file",
            )
        return logits

    def _piece(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            length = self._llama.llama_token_to_piece(self._vocabulary, token, buffer, room, 0, special)
            if length >= 0:
                return buffer.raw[:length]
            room = -length

    def _is_control(self, token: int) -> bool:
        return bool(self._llama.llama_vocab_is_control(self._vocabulary, token))

    def _token_text(self, token: int) -> str:
        """A special token as a template writes it; empty where the model has none."""
        return "" if token < 0 else self._llama.llama_vocab_get_text(self._vocabulary, token).decode("utf-8", "replace")

    def _text_at(self, read: Callable[..., int], index: int) -> str:
        """A text of the metadata, through one of llama.cpp's functions that fill a buffer."""
        length = read(self._model, index, ctypes.create_string_buffer(1), 1)
        buffer = ctypes.create_string_buffer(length + 1)
        read(self._model, index, buffer, length + 1)
        return buffer.value.decode("utf-8", "replace")


def _head_size(path: Path) -> int:
    """How many numbers an attention head has; 0 where the file does not say it, or not for all layers alike."""
    metadata = GgufFile(path).metadata
    name = metadata.get("general.architecture")
    heads, width = metadata.get(f"{name}.attention.head_count"), metadata.get(f"{name}.embedding_length")
    stated = metadata.get(f"{name}.attention.key_length")
    if isinstance(stated, int):
        return stated
    return width // heads if isinstance(heads, int) and isinstance(width, int) and heads > 0 else 0


def log_total(logits: NDArray[np.float32]) -> float:
    """The logarithm of the sum of all exponentials: a logit less this is a log-probability in nats."""
    largest = float(logits.max())
    return largest + float(np.log(np.exp(logits - np.float32(largest)).sum(dtype=np.float64)))


def common_beginning(texts: Sequence[Sequence[int]]) -> int:
    """How many ids all texts begin with alike."""
    count = 0
    for ids in zip(*texts, strict=False):
        if any(token != ids[0] for token in ids):
            break
        count += 1
    return count


def _cut(start: int, end: int, size: int) -> list[int]:
    """Where batches of a text begin. The last one holds no token alone, unless there is no other."""
    cuts = list(range(start, end, size))
    if end - cuts[-1] == 1 and len(cuts) > 1:
        cuts[-1] -= 1
    return cuts


def _cut_by_outputs(entries: Sequence[Entry]) -> list[int]:
    """The same for entries of which only so many in one batch can have logits."""
    cuts, outputs = [0], 0
    for index, entry in enumerate(entries):
        if index - cuts[-1] == BATCH_TOKENS or outputs + entry.wants_logits > OUTPUTS:
            cuts.append(index)
            outputs = 0
        outputs += entry.wants_logits
    if len(entries) - cuts[-1] == 1 and len(cuts) > 1:
        cuts[-1] -= 1
    return cuts
