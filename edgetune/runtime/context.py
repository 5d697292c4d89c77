"""llama.cpp's context: batches of tokens in, logits out, and the cache of what was read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.errors import ModelError, NumericalError, UsageError
from edgetune.runtime import native
from edgetune.runtime.interrupt import deferred_interrupt

BATCH_TOKENS = 256
"""Tokens read at once. However a text is cut into batches of 2 tokens and more, it gets the same bits; a token alone is
computed in another way, with other rounding, which can change a log-probability by up to 0.5 nats."""
OUTPUTS = 48
"""So many tokens of one batch can have logits; llama.cpp sets memory aside for them."""

_READ, _SAVED = 0, 1
"""The sequences of the cache: what was read, and a state of it to return to."""
_ABORTED = 2
"""llama_decode's status after its abort callback has said stop."""


class Context:
    """One cache of what a model has read. Not for use from several threads at once.

    The cache holds the tokens read last, and whatever is asked next shares the common beginning. `_cached` never claims
    more than the cache holds, so an interrupt between two tokens leaves both usable. A model whose memory is a state
    (Mamba, RWKV and hybrids of them) cannot go back by some tokens, so its state is saved where it may have to return.
    """

    def __init__(self, path: Path, model: Any, *, capacity: int, threads: int, flash_attention: bool) -> None:
        """`path` is named in errors. Raises ModelError when the cache of `capacity` tokens does not fit into memory."""
        self._llama = llama = native.open_library()
        self._path, self._model, self._threads, self._flash_attention = path, model, threads, flash_attention
        self._vocabulary_size: int = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self._keeps_state = bool(llama.llama_model_is_recurrent(model) or llama.llama_model_is_hybrid(model))
        self._batch = llama.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._pointer: Any = None
        self.texts = 0
        """How many texts it was given. `append` continues the last one."""
        self._make(capacity)

    def _make(self, capacity: int) -> None:
        self._pointer = native.create_context(
            self._model,
            context_tokens=capacity,
            batch_tokens=BATCH_TOKENS,
            outputs=OUTPUTS,
            threads=self._threads,
            sequences=2 if self._keeps_state else 1,
            flash_attention=self._flash_attention,
        )
        self.capacity = capacity
        """How many tokens it holds."""
        self._memory = self._llama.llama_get_memory(self.pointer)
        self._cached: list[int] = []
        self._reproducible_tokens = 0
        """So many of the cached tokens were read in batches that always give the same bits."""
        self._saved_tokens = 0

    @property
    def pointer(self) -> Any:
        """llama.cpp's own context. Raises UsageError when the model is closed."""
        return native.require_open(self._pointer, self._path)

    def close(self) -> None:
        """Free the cache. Closing twice is fine; using a closed context is a UsageError."""
        if self._pointer is not None:
            self._llama.llama_batch_free(self._batch)
            self._llama.llama_free(self._pointer)
            self._pointer = None

    @property
    def is_full(self) -> bool:
        """True when no further token fits."""
        return len(self._cached) >= self.capacity

    def make_room(self, tokens: int) -> None:
        """Make room for texts of `tokens`, at most what the model was trained on; a larger cache starts empty.

        Raises ModelError when the cache does not fit into memory.
        """
        former = self.pointer
        wanted = min(tokens, self._llama.llama_model_n_ctx_train(self._model))
        if wanted > self.capacity:
            self._make(wanted)
            self._llama.llama_free(former)

    def require_room(self, count: int) -> None:
        """Raise UsageError when there are no tokens to read, or more than the context holds."""
        native.require_open(self._pointer, self._path)
        if count < 1:
            raise UsageError("there is nothing to read", remedy="give at least one token")
        if count > self.capacity:
            raise UsageError(
                f"the text has {count} tokens, the context holds {self.capacity}",
                remedy="shorten it, or open the model with a larger context",
            )

    def forget(self) -> None:
        """Empty the cache."""
        self._forget_after(0)

    def feed(self, ids: Sequence[int], *, reproducible: bool = False) -> int:
        """Bring the cache to hold exactly `ids`, with the logits after the last one at hand.

        Returns how many of them were there already. With `reproducible`, the logits depend on `ids` alone and not on
        what was read before: to the last bit without flash attention, to rounding with it. Raises UsageError when they
        do not fit into the context.
        """
        last = len(ids) - 1
        kept = self._keep_common(ids, last, reproducible=reproducible)
        for _ in self._read_on(ids, kept, last, reproducible=reproducible):
            pass
        return kept

    def read(
        self, ids: Sequence[int], *, wanted_from: int = 0, reproducible: bool = True
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same, and give the number and the logits, (vocabulary,), of those ids from `wanted_from` on.

        Logits are of what follows the id, in memory that the next ones overwrite.
        """
        kept = self._keep_common(ids, wanted_from, reproducible=reproducible)
        for start, end in self._read_on(ids, kept, wanted_from, reproducible=reproducible):
            for place in range(max(start, wanted_from), end):
                yield place, self.logits(place - start)

    def append(self, token: int) -> None:
        """Read one more token, with the logits after it at hand."""
        self._decode([token], len(self._cached), len(self._cached))
        self._cached.append(token)

    def logits(self, index: int = -1) -> NDArray[np.float32]:
        """The logits of token `index` of the batch that was read last, in memory that the next batch overwrites.

        Raises NumericalError when one is not finite: a sampler would still choose a token, and that would pass for one.
        """
        pointer = self._llama.llama_get_logits_ith(self.pointer, index)
        logits = np.ctypeslib.as_array(pointer, shape=(self._vocabulary_size,))
        if not np.isfinite(logits).all():  # about 20 µs, of the 8,000 that a small model takes for a token
            raise NumericalError(
                "what it computes is not finite (NaN or infinite): the file is damaged",
                where=self._path,
                remedy="export or download it again; `edgetune verify` checks a file",
            )
        return logits

    def log_probabilities(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """The log-probabilities of every next token after each of `ids`, shape (len(ids), vocabulary), in nats.

        Raises UsageError when they do not fit into the context.
        """
        rows = np.empty((len(ids), self._vocabulary_size), np.float32)
        for index, logits in self.read(ids):
            rows[index] = logits - np.float32(log_total(logits))
        return rows

    def _keep_common(self, ids: Sequence[int], wanted_from: int, *, reproducible: bool) -> int:
        """Forget what the cache does not share with the ids before `wanted_from`. Returns how many tokens stay.

        At least two tokens are left to be read: the logits are those of a batch, whatever was in the cache.
        """
        self.require_room(len(ids))
        self.texts += 1
        most = max(0, min(wanted_from, len(ids) - 2))
        if reproducible:
            most = min(most, self._reproducible_tokens)
        return self._forget_after(common_beginning([self._cached, ids[:most]]))

    def _forget_after(self, count: int) -> int:
        """Keep the first `count` tokens of the cache, or as many of them as can be kept. Returns how many."""
        llama, memory = self._llama, self._memory
        if not llama.llama_memory_seq_rm(memory, _READ, count, -1):
            if not 0 < self._saved_tokens <= count:
                llama.llama_memory_clear(memory, False)
                self._saved_tokens = 0
            else:
                llama.llama_memory_seq_rm(memory, _READ, -1, -1)
                llama.llama_memory_seq_cp(memory, _SAVED, _READ, -1, -1)
            count = self._saved_tokens
        del self._cached[count:]
        self._reproducible_tokens = min(count, self._reproducible_tokens)
        return count

    def _read_on(
        self, ids: Sequence[int], kept: int, wanted_from: int, *, reproducible: bool
    ) -> Iterator[tuple[int, int]]:
        """Read what follows the first `kept` ids, and give where each batch begins and ends once it is read."""
        cuts = _cut(kept, len(ids), wanted_from)
        saved = min(wanted_from, len(ids) - 2)
        if self._keeps_state and saved - kept >= 2:
            cuts = [*_cut(kept, saved, saved), *_cut(saved, len(ids), wanted_from)]
        for start, end in itertools.pairwise([*cuts, len(ids)]):
            self._decode(ids[start:end], start, wanted_from)
            self._cached.extend(ids[start:end])
            if reproducible:
                self._reproducible_tokens = len(self._cached)
            if self._keeps_state and end == saved:
                self._llama.llama_memory_seq_rm(self._memory, _SAVED, -1, -1)
                self._llama.llama_memory_seq_cp(self._memory, _READ, _SAVED, -1, -1)
                self._saved_tokens = saved
            yield start, end

    def _decode(self, ids: Sequence[int], start: int, wanted_from: int) -> None:
        """Read a batch that begins at position `start`. Ctrl-C stops it. Raises ModelError when llama.cpp cannot."""
        pointer, batch = self.pointer, self._batch
        batch.n_tokens = len(ids)
        for index, token in enumerate(ids):
            batch.token[index] = token
            batch.pos[index] = start + index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = _READ
            batch.logits[index] = start + index >= wanted_from
        if len(ids) == 1:
            status = self._llama.llama_decode(pointer, batch)
        else:
            with deferred_interrupt() as stop:
                should_stop = self._llama.ggml_abort_callback(lambda _data: stop.is_set)
                self._llama.llama_set_abort_callback(pointer, should_stop, None)
                try:
                    status = self._llama.llama_decode(pointer, batch)
                finally:
                    self._llama.llama_set_abort_callback(pointer, self._llama.ggml_abort_callback(), None)
        if status == _ABORTED:
            raise KeyboardInterrupt
        if status:
            raise ModelError(f"llama.cpp cannot decode ({native.last_error()}, status {status})", where=self._path)


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


def _cut(start: int, end: int, wanted_from: int) -> list[int]:
    """Where batches of a text begin. The last one holds no token alone, unless there is no other."""
    cuts = [start]
    while (following := min(cuts[-1] + BATCH_TOKENS, max(cuts[-1], wanted_from) + OUTPUTS)) < end:
        cuts.append(following)
    if end - cuts[-1] == 1 and len(cuts) > 1:
        cuts[-1] -= 1
    return cuts
