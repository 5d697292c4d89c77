"""A GGUF opened in llama.cpp on the CPU: its vocabulary, its context, and what it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

from edgetune import events
from edgetune.cores import physical_cores
from edgetune.errors import UsageError
from edgetune.runtime import native, probe, speed
from edgetune.runtime.context import Context
from edgetune.runtime.generation import Generation, Writing
from edgetune.runtime.runnable import RunnableFile
from edgetune.runtime.speed import Use
from edgetune.runtime.vocabulary import Vocabulary

DEFAULT_CONTEXT_TOKENS = 4096
"""Models trained on 128k tokens would otherwise set gigabytes aside for a conversation that is never that long."""


@dataclass(eq=False)
class Session:
    """One model, its vocabulary and one cache of what it has read. Not for use from several threads at once."""

    vocabulary: Vocabulary
    context: Context
    extra_kernels: bool
    flash_attention: bool
    _model: Any

    @property
    def path(self) -> Path:
        """The file that is open."""
        return self.vocabulary.file.path

    @classmethod
    def open(
        cls,
        file: Path | RunnableFile,
        *,
        context_tokens: int | None = None,
        threads: int | None = None,
        flash_attention: bool | None = None,
        use: Use = "chat",
    ) -> Session:
        """Open a GGUF file, or one that `probe.check_file` has checked already.

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
        if isinstance(file, Path):
            file = probe.check_file(file)
        file.require_language_model()
        choice = speed.quickest(file.head_size, use=use, extra_kernels=file.extra_kernels)
        model = native.load_model(file.path, extra_kernels=choice.extra_kernels)
        llama = native.open_library()
        try:
            trained = llama.llama_model_n_ctx_train(model)
            wanted = context_tokens or min(trained, DEFAULT_CONTEXT_TOKENS)
            if wanted > trained:
                events.warn(f"{file.path} was trained on {trained} tokens of context; {wanted} may give poor answers")
            attention = choice.flash_attention if flash_attention is None else flash_attention
            context = Context(
                file.path, model, capacity=wanted, threads=threads or physical_cores(), flash_attention=attention
            )
            return cls(Vocabulary(file, model), context, choice.extra_kernels, attention, model)
        except BaseException:
            llama.llama_model_free(model)
            raise

    def close(self) -> None:
        """Free the model and its cache. Closing twice is fine; using a closed session is a UsageError."""
        self.context.close()
        self.vocabulary.close()
        if self._model is not None:
            native.open_library().llama_model_free(self._model)
            self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def generate(self, ids: Sequence[int], **writing: Unpack[Writing]) -> Generation:
        """Read `ids` and continue them."""
        return Generation(self.vocabulary, self.context, ids, **writing)
