"""Which of llama.cpp's ways to compute is quickest on this machine, found out by measurement.

Two choices depend on the processor, on how the library was compiled, and on nothing that can be read off either:

1. The extra CPU kernels repack the weights when a model is loaded, which takes time and a copy of them in memory. With
   AMX they read prompts several times as fast. Without it, they have been as fast as the others, or half as fast.
2. Flash attention reads a prompt quicker, and writes quicker near its beginning; after some hundred tokens it writes
   slower than the other way. Worst is a library that was compiled for AVX512-FP16: it takes the numbers of a head 128
   at a time and those that are left over one by one, so that a head of 64 is all left over.

A child measures both on small random models, in about two seconds of one core's time, and the answer is remembered in
the cache folder for this processor, this build of the library and this size of the attention heads. Times are of the
processor, not of the clock, the sides take turns, and the quickest turn counts, so that a busy machine does not decide.

Run as a module, this file is the child: `python -m edgetune.runtime.speed HEAD_SIZE [--extra-kernels]`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgetune.runtime import probe
from edgetune.runtime.tiny_model import VOCABULARY_SIZE, Shape, write_tiny_model

Use = Literal["chat", "judge"]
"""What a model is opened for: chat reads and writes, judging mostly reads."""

EXTRA_KERNELS_WORTH = 1.05
"""How many times quicker the extra kernels must be to be taken: they cost memory and time to load."""
EXACT_ATTENTION_WORTH = 1.2
"""How many times quicker the other attention must be to be taken: it needs more memory for a long context, and where it
is as quick with the context that is measured, it is slower with a shorter one."""

_TIMEOUT_SECONDS = 120.0
_PROMPT, _ANSWER = 512, 128
"""The tokens of a prompt and its answer by which reading and writing are weighed against each other in a chat."""
_TURNS = 4
_BATCH, _WRITTEN = 256, 8
"""Tokens that are read at once, as a session does, and that are written in a turn."""

_LARGEST_HEAD = 512


@dataclass(frozen=True)
class TokenPace:
    """Seconds of processor time by token."""

    read: float
    written: float

    def of(self, use: Use) -> float:
        """Seconds of a typical piece of work."""
        return self.read * _PROMPT + (self.written * _ANSWER if use == "chat" else 0.0)


@dataclass(frozen=True)
class Speeds:
    """What was measured. `extra` and `plain` are with and without the extra kernels, attention apart."""

    plain: TokenPace
    extra: TokenPace | None
    flash_attention: TokenPace
    exact_attention: TokenPace


@dataclass(frozen=True)
class Choice:
    """How a model is to be opened."""

    extra_kernels: bool
    flash_attention: bool


def quickest(head_size: int, *, use: Use, extra_kernels: bool) -> Choice:
    """The quickest way to run a model with heads of `head_size` numbers; `extra_kernels` says whether they run here.

    Where nothing can be measured, it is llama.cpp's own choice, with both.
    """
    speeds = _speeds(head_size, extra_kernels=extra_kernels)
    if speeds is None:
        return Choice(extra_kernels, flash_attention=True)
    return choose(speeds, use)


def choose(speeds: Speeds, use: Use) -> Choice:
    """What these measurements say."""
    return Choice(
        extra_kernels=speeds.extra is not None and speeds.extra.of(use) * EXTRA_KERNELS_WORTH <= speeds.plain.of(use),
        flash_attention=speeds.flash_attention.of(use) < speeds.exact_attention.of(use) * EXACT_ATTENTION_WORTH,
    )


def _speeds(head_size: int, *, extra_kernels: bool) -> Speeds | None:
    """The measurements for this machine, remembered or taken now; None where they cannot be taken."""
    if not 0 < head_size <= _LARGEST_HEAD or head_size % 4:
        return None
    identity = [str(head_size), str(extra_kernels), *probe.machine_identity()]
    record = probe.record_of("speed", identity)
    known = probe.recall(record)
    if known is None:
        command = [sys.executable, "-P", "-m", "edgetune.runtime.speed", str(head_size)]
        outcome = probe.run_in_child([*command, *["--extra-kernels"] * extra_kernels], timeout_seconds=_TIMEOUT_SECONDS)
        known = json.loads(outcome.output) if outcome.survived else {"failed": outcome.how}
        if outcome.survived or outcome.crashed:
            probe.remember(record, known)
    try:
        kernels = TokenPace(**known["plain"]), TokenPace(**known["extra"]) if extra_kernels else None
        return Speeds(*kernels, TokenPace(**known["flash_attention"]), TokenPace(**known["exact_attention"]))
    except (KeyError, TypeError):
        return None


def measure(head_size: int, *, extra_kernels: bool) -> Speeds:
    """What the child does. Raises ModelError when llama.cpp cannot load the models, MemoryError and the like."""
    with tempfile.TemporaryDirectory(prefix="edgetune-speed-") as folder:
        matrices, heads = Path(folder) / "matrices.gguf", Path(folder) / "heads.gguf"
        write_tiny_model(
            matrices,
            Shape(
                width=1024, feed_forward=2816, layers=2, heads=16, key_value_heads=4, context_tokens=2048,
                types=["Q4_K"],
            ),
        )  # fmt: skip
        write_tiny_model(
            heads,
            Shape(
                width=8 * head_size, feed_forward=32, layers=2, heads=8, key_value_heads=4, context_tokens=2048,
                types=["Q8_0"],
            ),
        )  # fmt: skip
        with _opened(matrices, extra_kernels=False) as plain, _opened(matrices, extra_kernels=extra_kernels) as extra:
            kernels = _take_turns([plain, extra] if extra_kernels else [plain], prompt=_BATCH // 2)
        with _opened(heads, flash_attention=True) as flash, _opened(heads, flash_attention=False) as exact:
            attention = _take_turns([flash, exact], prompt=_PROMPT)
    return Speeds(kernels[0], kernels[1] if extra_kernels else None, *attention)


class _Reader:
    """A model that reads tokens of no meaning, and how long its processor takes."""

    def __init__(self, llama: Any, context: Any) -> None:
        self._llama, self._context = llama, context

    def pace(self, prompt: int) -> TokenPace:
        """Read a prompt of so many tokens, and write after it."""
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), False)
        return TokenPace(
            read=self._seconds(prompt, at_once=min(prompt, _BATCH)), written=self._seconds(_WRITTEN, at_once=1)
        )

    def _seconds(self, tokens: int, at_once: int) -> float:
        """By token."""
        started = time.process_time()
        for _ in range(tokens // at_once):
            self._decode(at_once)
        return (time.process_time() - started) / tokens

    def _decode(self, count: int) -> None:
        ids = (self._llama.llama_token * count)(*[number % VOCABULARY_SIZE for number in range(count)])
        if self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(ids, count)):
            raise RuntimeError("llama.cpp does not decode")


@contextmanager
def _opened(model: Path, *, extra_kernels: bool = False, flash_attention: bool = True) -> Iterator[_Reader]:
    """The model on one thread: several would only add the noise of waiting for each other."""
    from edgetune.runtime import native

    llama = native.open_library()
    loaded = native.load_model(model, extra_kernels=extra_kernels)
    context = native.create_context(
        loaded,
        context_tokens=_PROMPT + _WRITTEN,
        batch_tokens=_BATCH,
        outputs=1,
        threads=1,
        flash_attention=flash_attention,
    )
    try:
        yield _Reader(llama, context)
    finally:
        llama.llama_free(context)
        llama.llama_model_free(loaded)


def _take_turns(readers: Sequence[_Reader], *, prompt: int) -> list[TokenPace]:
    """The quickest turn of each; the first turn warms up."""
    turns = [[reader.pace(prompt) for reader in readers] for _ in range(1 + _TURNS)][1:]
    return [
        TokenPace(min(pace.read for pace in own), min(pace.written for pace in own)) for own in zip(*turns, strict=True)
    ]


def _main(arguments: Sequence[str]) -> None:
    speeds = measure(int(arguments[0]), extra_kernels="--extra-kernels" in arguments[1:])
    sys.stdout.write(json.dumps(asdict(speeds)))


if __name__ == "__main__":
    _main(sys.argv[1:])
