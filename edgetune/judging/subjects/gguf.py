"""A GGUF file in llama.cpp on the CPU, as a model under test."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from edgetune.data.reasoning import opened_reasoning
from edgetune.errors import ModelError, NumericalError, UsageError
from edgetune.judging.subjects.answer import Answer
from edgetune.judging.subjects.written import written_answer
from edgetune.judging.suites.identity import gguf_parts, hash_gguf, versions_of
from edgetune.judging.suites.items import Item
from edgetune.judging.suites.suite import Suite
from edgetune.models.locate import PACKAGE_PREFIX, locate_model
from edgetune.runtime.classify import label_question, likeliest, require_fit, score_labels
from edgetune.runtime.perplexity import answer_likelihood, text_likelihood
from edgetune.runtime.sampling import Sampling

if TYPE_CHECKING:
    from edgetune.runtime.runnable import RunnableFile
    from edgetune.runtime.session import Session

MAGIC = b"GGUF"
SEEDS = 2**32 - 1
"""llama.cpp draws a seed of its own for the number after the last of these."""

_REMEDY = "`edgetune export` makes a GGUF file of a run or model; judge that"


def recognizes(reference: str) -> bool:
    """True for package:NAME, for names that end in .gguf, and for files that begin as GGUF files do."""
    if reference.startswith(PACKAGE_PREFIX) or reference.lower().endswith(".gguf"):
        return True
    path = Path(reference)
    return path.is_file() and _begins_as_gguf(path)


def open_gguf(reference: str, *, threads: int | None = None) -> GgufSubject:
    """The file behind a path or package:NAME. `threads` defaults to the physical cores.

    Raises ModelError when there is no such file, UsageError when it is a folder or no GGUF file, and MissingComponent
    when the package is not installed.
    """
    file = Path(reference).expanduser()
    if reference.startswith(PACKAGE_PREFIX):
        located = locate_model(reference).gguf
        assert located is not None
        file = located
    if not file.exists():
        raise ModelError("there is no such file", where=reference, remedy=_REMEDY)
    if file.is_dir():
        raise UsageError("is a folder, and this is the place of a GGUF file", where=reference, remedy=_REMEDY)
    if not _begins_as_gguf(file):
        raise UsageError("is not a GGUF file", where=reference, remedy=_REMEDY)
    return GgufSubject(reference, file, threads)


class GgufSubject:
    """Labels by likelihood, written answers and likelihoods of texts, each of which depends on its own item alone.

    The model is loaded when it is asked first, so that two that are compared need not be in memory together.
    """

    kind = "gguf"

    def __init__(self, reference: str, file: Path, threads: int | None) -> None:
        self.reference = reference
        self._file, self._threads = file, threads
        self._opened: Session | None = None
        self.size_bytes: int | None = sum(part.stat().st_size for part in gguf_parts(file))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file, which holds the tokenizer and the chat template too; of a split one, of all its parts.

        Raises ModelError when one cannot be read.
        """
        return hash_gguf(self._file)

    @property
    def runtime(self) -> Mapping[str, str]:
        """The libraries that render the prompt and compute."""
        return versions_of("llama-cpp-python", "jinja2")

    @cached_property
    def _checked(self) -> RunnableFile:
        from edgetune.runtime.probe import check_file

        return check_file(self._file)

    def check(self, items: Sequence[Item], suite: Suite) -> None:
        """Raise ModelError when the file cannot be opened, or lacks the chat template that these items need."""
        self._checked.require_language_model()
        if any(item.messages for item in items):
            _ = self._checked.chat_template

    def answers(self, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        """The answers in the order of the items.

        Raises UsageError naming the item that does not fit into the model's context, before any is asked;
        NumericalError when a likelihood is no number; ModelError as `check`.
        """
        if self._opened is None:
            self._opened = self._open()
        if suite.task == "perplexity":
            return self._measured(self._opened, items)
        if suite.task == "classify" and suite.scoring == "likelihood":
            return self._chosen(self._opened, items, suite)
        return self._written(self._opened, items, suite)

    def close(self) -> None:
        """Free the model."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _open(self) -> Session:
        from edgetune.runtime.session import Session

        return Session.open(self._checked, threads=self._threads, flash_attention=False, use="judge")

    def _chosen(self, session: Session, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        questions = [label_question(session.vocabulary, item.messages, suite.labels) for item in items]
        _make_room(session, items, [question.context_tokens for question in questions])
        for item, question in zip(items, questions, strict=True):
            started = perf_counter()
            scores = score_labels(session, question, suite.labels)
            for label, value in scores.items():
                self._require_number(value, f"the log-probability of {label!r}", item)
            yield Answer(
                item.id,
                predicted=likeliest(scores),
                log_probabilities=scores,
                seconds=perf_counter() - started,
            )

    def _written(self, session: Session, items: Sequence[Item], suite: Suite) -> Iterator[Answer]:
        vocabulary = session.vocabulary
        rendered = [vocabulary.template.render(item.messages, add_generation_prompt=True) for item in items]
        prompts = [vocabulary.tokenize(prompt) for prompt in rendered]
        settings = suite.generation
        session.context.make_room(max((len(prompt) for prompt in prompts), default=0) + settings.max_tokens)
        _make_room(session, items, [len(prompt) for prompt in prompts])
        for item, whole, prompt in zip(items, rendered, prompts, strict=True):
            # A seed of the item's own: whatever else is asked, and in which order, it is answered alike.
            seed = (settings.seed + zlib.crc32(item.id.encode("utf-8", "replace"))) % SEEDS
            sampling = Sampling(settings.temperature, top_k=0, top_p=settings.top_p, min_p=0.0, seed=seed)
            started = perf_counter()
            written = session.generate(
                prompt, sampling=sampling, max_tokens=settings.max_tokens, reproducible=True, marks=True
            )
            text = opened_reasoning(whole) + "".join(written)
            seconds = perf_counter() - started
            stats = written.stats
            yield written_answer(
                item.id,
                text,
                suite,
                generated_tokens=stats.generated_tokens,
                seconds=seconds,
                first_token_seconds=stats.time_to_first_token,
                tokens_per_second=stats.tokens_per_second,
                finish=stats.finish_reason,
            )

    def _measured(self, session: Session, items: Sequence[Item]) -> Iterator[Answer]:
        for item in items:
            started = perf_counter()
            if item.messages:
                likelihood = answer_likelihood(session, item.messages, item.text)
            else:
                likelihood = text_likelihood(session, item.text)
            self._require_number(likelihood.nats, "the likelihood", item)
            yield Answer(
                item.id,
                nll_nats=likelihood.nats,
                nll_tokens=likelihood.tokens,
                nll_bytes=likelihood.bytes,
                seconds=perf_counter() - started,
            )

    def _require_number(self, value: float, what: str, item: Item) -> None:
        if not math.isfinite(value):
            raise NumericalError(
                f"{what} at {item.where} is {value}",
                where=self.reference,
                remedy="the file's weights are damaged; export it again",
            )


def _make_room(session: Session, items: Sequence[Item], tokens: Sequence[int]) -> None:
    """Open a context in which all items fit. Raises UsageError naming one that no context of the model could hold."""
    session.context.make_room(max(tokens, default=0))
    for item, count in zip(items, tokens, strict=True):
        require_fit(session, count, where=item.where)


def _begins_as_gguf(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC
