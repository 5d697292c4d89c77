"""Reopens a written GGUF in llama.cpp and compares it with its source model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgetune import events
from edgetune.errors import ModelError, VerificationFailed
from edgetune.gguf.checksums import require_checksums
from edgetune.gguf.llama_vocabulary import LlamaVocabulary, open_vocabulary
from edgetune.gguf.verification.chat_parity import check_chats
from edgetune.gguf.verification.trial import Trial, begin_trial
from edgetune.gguf.vocabularies.added_tokens import describe_differing, differing_tokens
from edgetune.gguf.vocabularies.byte_level import is_byte_level
from edgetune.gguf.vocabularies.normalizer import describe_normalizer, find_normalizer
from edgetune.gguf.vocabularies.proof import disagreement, parity_texts, texts_in_use
from edgetune.models.ends import answer_end
from edgetune.models.gguf_file import GgufFile
from edgetune.models.gguf_tokenizer import NORMALIZER_KEY
from edgetune.models.tokenizer import ModelTokenizer

TRIAL_BOUND_BYTES = 2**27
"""Of a larger file, an export's check computes only the leading blocks that fit: the file's pages would count as its
memory, and more blocks of the same kind prove little more."""

TEMPLATE_KEY = "tokenizer.chat_template"
_NOT_MODELS = {
    "adapter": "an adapter",
    "imatrix": "an importance matrix",
    "mmproj": "a projector",
    "vocab": "a vocabulary",
}
"""general.type -> other kinds of GGUF."""


@dataclass(frozen=True)
class Verification:
    """The passed checks of a file. `kind` is decoder, encoder or encoder-decoder."""

    tensors: int
    kind: str
    computed_blocks: int | None
    """The number of computed leading blocks; None for all."""
    texts: int
    """Texts with the tokenizer's ids."""
    conversations: int
    """Conversations that the chat template rendered, with the ids of training if there is a tokenizer."""
    refused_conversations: int
    """Conversations that the template refuses: no system message, strict alternation."""
    checksums: int | None = None
    """Tensors that are unchanged since export; None if the file has no valid checksums."""


def verify_export(file: Path, tokenizer: ModelTokenizer, texts: Sequence[str], *, name: Path) -> Verification:
    """Check a new file of the model of `tokenizer`.

    llama.cpp must open it and give the tokenizer's ids on `texts`; conversations must have the ids of training,
    including BOS and EOS; the chat template must be the tokenizer's, and llama.cpp must stop at its end of an answer;
    the first blocks must compute finite numbers (in a child process). Raises VerificationFailed, with `name` as the
    file.
    """
    try:
        opened = GgufFile(file)
        with begin_trial(opened, bound_bytes=TRIAL_BOUND_BYTES) as finish:
            reading = _check_reading(opened, tokenizer, [texts])
            trial = finish()
    except (ModelError, VerificationFailed) as problem:
        more = problem.remedy if isinstance(problem, VerificationFailed) else None
        remedy = "; ".join(filter(None, ["the file was not kept", more]))
        raise VerificationFailed(problem.what, where=name, remedy=remedy) from problem
    return _passed(opened, trial, reading)


def verify_file(file: Path, tokenizer: ModelTokenizer | None = None, texts: Sequence[str] = ()) -> Verification:
    """Check any model file with all of its blocks, and with `tokenizer` its ids on the parity texts and `texts`.

    Raises ModelError if it is not a complete GGUF model, VerificationFailed if a check fails.
    """
    opened = GgufFile(file)
    kind = opened.metadata.get("general.type")
    if kind in _NOT_MODELS:
        raise ModelError(f"is {_NOT_MODELS[kind]}, not a model", where=file, remedy="`edgetune inspect` shows it")
    sums = require_checksums(opened)
    if sums is not None and sums.rewritten:
        events.note(
            "another program has rewritten tensors of this file since its export, so the checksums do not apply"
        )
    try:
        # Native code may crash on a damaged file, so the child opens it before this process.
        with begin_trial(opened) as finish:
            trial = finish()
        choices = [] if tokenizer is None else _choices(tokenizer, texts)
        reading = _check_reading(opened, tokenizer, choices, tell=True)
    except (ModelError, VerificationFailed) as problem:
        raise VerificationFailed(problem.what, where=file, remedy="export it again") from problem
    compared = None if sums is None or sums.rewritten else sums.same
    return replace(_passed(opened, trial, reading), checksums=compared)


def _choices(tokenizer: ModelTokenizer, texts: Sequence[str]) -> list[Sequence[str]]:
    """Text sets on one of which the file must have the tokenizer's ids, the strictest first."""
    normalize = find_normalizer(tokenizer) or str
    choices: list[Sequence[str]] = [[*parity_texts(tokenizer), *map(normalize, texts)]]
    if not is_byte_level(tokenizer.settings):
        choices.append(texts_in_use(tokenizer)[0])
    return choices


@dataclass(frozen=True)
class _Reading:
    """How many texts and conversations were compared."""

    texts: int = 0
    rendered: int = 0
    refused: int = 0


def _passed(file: GgufFile, trial: Trial, reading: _Reading) -> Verification:
    return Verification(len(file.tensors), trial.kind, trial.blocks, reading.texts, reading.rendered, reading.refused)


def _check_reading(
    file: GgufFile, tokenizer: ModelTokenizer | None, choices: Sequence[Sequence[str]], *, tell: bool = False
) -> _Reading:
    """Check everything about text. The ids must be the tokenizer's on all texts of one of the `choices`.

    With `tell`, warn about other differences.
    """
    if file.metadata.get("tokenizer.ggml.model") in (None, "no_vocab"):
        raise VerificationFailed("has no vocabulary")
    with open_vocabulary(file.path) as vocabulary:
        compared = 0
        if tokenizer is not None:
            _check_special_tokens(file, tokenizer)
            _check_end(vocabulary, tokenizer)
            compared = _check_texts(vocabulary, tokenizer, choices)
            if tell:
                _tell_differences(file, vocabulary, tokenizer)
            if file.metadata.get(TEMPLATE_KEY) != tokenizer.default_template:
                raise VerificationFailed("the chat template in the file is not the tokenizer's")
        source = file.metadata.get(TEMPLATE_KEY)
        chats = (0, 0) if source is None else check_chats(source, vocabulary, tokenizer)
        return _Reading(compared, *chats)


def _check_special_tokens(file: GgufFile, tokenizer: ModelTokenizer) -> None:
    for role in ("bos", "eos"):
        expected, found = tokenizer.token_id(role), file.metadata.get(f"tokenizer.ggml.{role}_token_id")
        if expected is not None and found != expected:
            raise VerificationFailed(f"its {role.upper()} is the token {found}, but the tokenizer's is {expected}")


def _check_end(vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer) -> None:
    """llama.cpp must stop at the token that ended an answer in training."""
    end = answer_end(tokenizer)
    if end is not None and end.token is not None and not vocabulary.stops_at(end.token):
        raise VerificationFailed(
            f"llama.cpp does not stop at the token {end.token}, with which the chat template ends an answer "
            f"({end.text[:40]!r})",
            remedy="end answers with the tokenizer's EOS in the template, and train again with it",
        )


def _tell_differences(file: GgufFile, vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer) -> None:
    """Warn about the tokenizer's normalizer and about tokens that llama.cpp reads differently."""
    normalizer = find_normalizer(tokenizer)
    if normalizer is not None:
        recorded = normalizer.form is not None and file.metadata.get(NORMALIZER_KEY) == normalizer.form
        events.warn(describe_normalizer(normalizer, recorded=recorded))
    exact = disagreement(vocabulary, tokenizer, parity_texts(tokenizer)) is None
    differing = differing_tokens(vocabulary, tokenizer, by_flags_only=not exact)
    if differing:
        events.warn(describe_differing(differing))


def _check_texts(vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer, choices: Sequence[Sequence[str]]) -> int:
    """The number of compared texts. As in an export, equal ids on ordinary texts are enough."""
    differs_on = ""
    for texts in choices:
        failed = disagreement(vocabulary, tokenizer, texts)
        if failed is None:
            if differs_on:
                events.warn(f"llama.cpp and the tokenizer give different ids for some text ({differs_on[:40]!r})")
            return len(texts)
        differs_on = differs_on or failed
    raise VerificationFailed(f"llama.cpp and the tokenizer give different ids for {differs_on[:60]!r}")
