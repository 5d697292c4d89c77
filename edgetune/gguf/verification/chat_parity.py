"""Checks that a written file and the tokenizer of the training give the same ids for conversations.

In training, each segment of the rendered template is tokenized alone, without additional tokens. The first segment is
the prompt of the first answer, exactly as a runtime sends it. A prompt of several turns is compared as one text, as
other programs tokenize it, and in segments, as edgetune does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from edgetune import events
from edgetune.data.answer_end import find_answer_end
from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate
from edgetune.errors import DataError, RecipeError, VerificationFailed
from edgetune.gguf.llama_vocabulary import LlamaVocabulary
from edgetune.gguf.verification.conversations import ConversationReading, check_conversations, read_conversation
from edgetune.gguf.vocabularies.added_tokens import describe_tokens, differing_tokens
from edgetune.gguf.vocabularies.normalizer import find_normalizer
from edgetune.gguf.vocabularies.proof import disagreement, parity_texts
from edgetune.models.tokenizer import ModelTokenizer


def check_chats(source: str, vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer | None) -> tuple[int, int]:
    """Render and tokenize conversations with the template `source`, as in the runtime and as in training.

    Each side uses its own BOS and EOS. Without a tokenizer, only the file's side is rendered. Returns the numbers of
    rendered and refused conversations. Raises VerificationFailed if the ids differ.
    """
    special = _read_special(vocabulary)
    _require_bos(source, special, tokenizer)
    runtime = ChatTemplate(source, special.bos, special.eos)
    marks = [] if tokenizer is None else _marks(source, tokenizer)
    conversations = check_conversations(marks)
    # Effects of a normalizer are reported with the vocabulary. edgetune's runtime normalizes, as here.
    normalize = (None if tokenizer is None else find_normalizer(tokenizer)) or str
    found = [
        read_conversation(messages, runtime, lambda text: vocabulary.encode(normalize(text), add_special=False))
        for messages in conversations
    ]
    if tokenizer is not None:
        training = ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token)
        expected = [read_conversation(messages, training, tokenizer.encode) for messages in conversations]
        if found != expected:
            _judge(list(zip(conversations, found, expected, strict=True)), marks, vocabulary, tokenizer)
    _warn_of_no_end(runtime, vocabulary)
    rendered = [reading for reading in found if reading is not None]
    if not rendered:
        events.warn("the chat template renders no ordinary conversation: this file can complete text but cannot chat")
    elif special.as_served(rendered[0].text, vocabulary) != rendered[0].prompt:
        events.warn(
            "llama.cpp's own programs add a token to chats that training did not have (the tokenizer adds it, the chat "
            "template does not write it); edgetune does not add it"
        )
    return len(rendered), len(found) - len(rendered)


def render_chats(tokenizer: ModelTokenizer) -> list[str]:
    """The conversations as training renders them; empty without a chat template."""
    source = tokenizer.default_template
    if source is None:
        return []
    template = ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token)
    rendered = []
    for messages in check_conversations(()):
        with suppress(DataError, RecipeError):
            rendered.append(template.render(messages))
    return rendered


def _judge(
    read: Sequence[tuple[Sequence[Message], ConversationReading | None, ConversationReading | None]],
    marks: Sequence[str],
    vocabulary: LlamaVocabulary,
    tokenizer: ModelTokenizer,
) -> None:
    """Raise VerificationFailed for conversations with different prompts; each was `read` by llama.cpp and by training.

    Some SentencePiece tokenizers have rules for spaces next to special tokens that llama.cpp lacks, and some tokenizers
    drop white space next to some tokens (reported with the vocabulary). Then differences in messages that contain
    special tokens, or begin or end with white space, are only warnings.
    """
    exact = disagreement(vocabulary, tokenizer, parity_texts(tokenizer)) is None
    known = differing_tokens(vocabulary, tokenizer, by_flags_only=not exact)
    written = [*marks, *known]
    differing = [
        (talk, ours.text if ours else "")
        for talk, ours, theirs in read
        if (ours and ours.prompt) != (theirs and theirs.prompt)
    ]
    ordinary = [(talk, text) for talk, text in differing if not _mentions(talk, written)]
    padded = [
        talk
        for talk, text in ordinary
        if any(turn.content != turn.content.strip() for turn in talk) and any(token in text for token in known)
    ]
    unexplained = [talk for talk, _ in ordinary if talk not in padded]
    if unexplained or (differing and exact and not known):
        talk = unexplained[0] if unexplained else differing[0][0]
        words = next(message.content for message in talk if message.content.strip())
        raise VerificationFailed(f"the conversation with {words[:60]!r} has other ids in llama.cpp than in training")
    if padded:
        events.warn(
            "messages that begin or end with white space have other ids in llama.cpp than in training "
            f"({describe_tokens(known)})"
        )
    if len(differing) > len(padded):
        events.warn("conversations in which users write special tokens have other ids in llama.cpp than in training")
    if not differing and not all(ours == theirs or _mentions(talk, [*known]) for talk, ours, theirs in read):
        events.warn("answers in a conversation have other ids in llama.cpp than in training")


def _mentions(talk: Sequence[Message], tokens: Sequence[str]) -> bool:
    return any(token in turn.content for token in tokens for turn in talk)


def _warn_of_no_end(template: ChatTemplate, vocabulary: LlamaVocabulary) -> None:
    """Warn if llama.cpp does not stop at the template's end token; files of other tools may not name it."""
    end = find_answer_end(template, lambda text: vocabulary.encode(text, add_special=False), vocabulary.is_control)
    if end is not None and end.token is not None and not vocabulary.stops_at(end.token):
        events.warn(
            f"llama.cpp does not stop at the token {end.token}, with which the chat template ends an answer; edgetune "
            "stops there, but other programs continue"
        )


@dataclass(frozen=True)
class _Special:
    """The texts of BOS and EOS in the file (empty if there is none), and whether llama.cpp adds them."""

    bos: str
    eos: str
    adds_bos: bool
    adds_eos: bool

    def as_served(self, text: str, vocabulary: LlamaVocabulary) -> list[int]:
        """The ids of a rendered chat in llama.cpp's server, which removes BOS and EOS from the text before it adds
        them."""
        text = text.removeprefix(self.bos) if self.adds_bos else text
        text = text.removesuffix(self.eos) if self.adds_eos else text
        return vocabulary.encode(text, add_special=True)


def _require_bos(source: str, special: _Special, tokenizer: ModelTokenizer | None) -> None:
    """Raise VerificationFailed for a template that writes a BOS without one in the tokenizer: llama.cpp has one."""
    if tokenizer is not None and not tokenizer.bos_token and special.bos and "bos_token" in source:
        raise VerificationFailed(
            "its chat template writes bos_token, but the tokenizer has none, so llama.cpp would write "
            f'{special.bos!r}: set "bos_token" in tokenizer_config.json, or remove it from the template'
        )


def _read_special(vocabulary: LlamaVocabulary) -> _Special:
    import llama_cpp

    handle = llama_cpp.llama_model_get_vocab(vocabulary.model)
    bos, eos = (
        "" if token < 0 else llama_cpp.llama_vocab_get_text(handle, token).decode("utf-8", "replace")
        for token in (llama_cpp.llama_vocab_bos(handle), llama_cpp.llama_vocab_eos(handle))
    )
    adds_bos, adds_eos = llama_cpp.llama_vocab_get_add_bos(handle), llama_cpp.llama_vocab_get_add_eos(handle)
    return _Special(bos, eos, adds_bos, adds_eos)


def _marks(source: str, tokenizer: ModelTokenizer) -> list[str]:
    """The special tokens that users may write: those of the template, then the others."""
    written = [token.content for token in tokenizer.added.values() if token.content in source]
    return list(dict.fromkeys([*written, *tokenizer.all_special]))
