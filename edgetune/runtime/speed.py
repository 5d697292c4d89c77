"""Measures which of llama.cpp's settings are fastest on this machine.

Two choices depend on the processor and on how the library was compiled, and only a measurement shows the better one:

1. The extra CPU kernels repack the weights when a model is loaded, which needs time and a copy of them in memory. With
   AMX they read prompts several times as fast. Without it, they were as fast as the other kernels, or half as fast.
2. Flash attention reads a prompt faster, and generates faster with a short context; after some hundred tokens it
   generates slower than the other attention. It is slowest in a library compiled for AVX512-FP16, which processes 128
   numbers of a head at a time and the remaining ones one by one, so all of a head of 64.

A child measures both on small random models, in about two seconds of one core's time. The result is stored in the cache
folder for this processor, this build of the library and this size of the attention heads. It uses processor time, not
wall-clock time, the sides take turns, and the fastest turn counts, so that other load has little influence.

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
"""The use of a model: chat reads and generates, judging mostly reads."""

EXTRA_KERNELS_WORTH = 1.05
"""Minimum speed-up of the extra kernels: they need memory and time to load."""
EXACT_ATTENTION_WORTH = 1.2
"""Minimum speed-up of the other attention: it needs more memory for a long context, and if it is equally fast with the
measured context, it is slower with a shorter one."""

_TIMEOUT_SECONDS = 120.0
_PROMPT, _ANSWER = 512, 128
"""The tokens of a prompt and an answer by which a chat weighs reading and generation."""
_TURNS = 4
_BATCH, _WRITTEN = 256, 8
"""Tokens that are read at once, as in a session, and tokens that are generated in a turn."""

_LARGEST_HEAD = 512


@dataclass(frozen=True)
class TokenPace:
    """Seconds of processor time per token."""

    read: float
    written: float

    def of(self, use: Use) -> float:
        """Seconds for a typical prompt and answer."""
        return self.read * _PROMPT + (self.written * _ANSWER if use == "chat" else 0.0)


@dataclass(frozen=True)
class Speeds:
    """The measurements. `extra` and `plain` are with and without the extra kernels, with the same attention."""

    plain: TokenPace
    extra: TokenPace | None
    flash_attention: TokenPace
    exact_attention: TokenPace


@dataclass(frozen=True)
class Choice:
    """The settings for opening a model."""

    extra_kernels: bool
    flash_attention: bool


def quickest(head_size: int, *, use: Use, extra_kernels: bool) -> Choice:
    """The fastest settings for a model with heads of `head_size` numbers; `extra_kernels` is True if they work here.

    Without measurements these are llama.cpp's own settings, with both.
    """
    speeds = _speeds(head_size, extra_kernels=extra_kernels)
    if speeds is None:
        return Choice(extra_kernels, flash_attention=True)
    return choose(speeds, use)


def choose(speeds: Speeds, use: Use) -> Choice:
    """The fastest settings by these measurements."""
    return Choice(
        extra_kernels=speeds.extra is not None and speeds.extra.of(use) * EXTRA_KERNELS_WORTH <= speeds.plain.of(use),
        flash_attention=speeds.flash_attention.of(use) < speeds.exact_attention.of(use) * EXACT_ATTENTION_WORTH,
    )


def _speeds(head_size: int, *, extra_kernels: bool) -> Speeds | None:
    """The measurements for this machine, stored or new; None if it cannot be measured."""
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
    """The child's work. Raises ModelError if llama.cpp cannot load the models, MemoryError and similar errors."""
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
    """A model that reads arbitrary tokens, with the processor time that it needs."""

    def __init__(self, llama: Any, context: Any) -> None:
        self._llama, self._context = llama, context

    def pace(self, prompt: int) -> TokenPace:
        """Read a prompt of this length, and generate after it."""
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), False)
        return TokenPace(
            read=self._seconds(prompt, at_once=min(prompt, _BATCH)), written=self._seconds(_WRITTEN, at_once=1)
        )

    def _seconds(self, tokens: int, at_once: int) -> float:
        """Times per token."""
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
    """The model on one thread; more threads would add noise by waiting for each other."""
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
    """The fastest turn of each; the first turn is a warm-up."""
    turns = [[reader.pace(prompt) for reader in readers] for _ in range(1 + _TURNS)][1:]
    return [
        TokenPace(min(pace.read for pace in own), min(pace.written for pace in own)) for own in zip(*turns, strict=True)
    ]


def _main(arguments: Sequence[str]) -> None:
    speeds = measure(int(arguments[0]), extra_kernels="--extra-kernels" in arguments[1:])
    sys.stdout.write(json.dumps(asdict(speeds)))


if __name__ == "__main__":
    _main(sys.argv[1:])
