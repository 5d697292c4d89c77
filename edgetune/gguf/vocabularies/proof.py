"""Loads a vocabulary in llama.cpp and compares the ids of hard text with the tokenizer's.

A wrong pre-tokenizer changes ids silently, so only the ids are compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate
from edgetune.errors import DataError, ModelError, RecipeError
from edgetune.gguf.hard_text import everyday_texts, hard_texts
from edgetune.gguf.llama_vocabulary import LlamaVocabulary, open_vocabulary
from edgetune.gguf.vocabularies.added_tokens import differing_tokens, has_flags
from edgetune.gguf.vocabularies.metadata import GgufVocabulary
from edgetune.gguf.vocabularies.normalizer import find_normalizer
from edgetune.models.tokenizer import ModelTokenizer

_OWN_WORDS = 400
"""The number of tokens of the vocabulary that are joined into a text."""


@dataclass(frozen=True)
class Proof:
    """A vocabulary that gives the tokenizer's ids.

    `differing` are added tokens beside which it does not, with the reasons; `misread_chat` is a rendered conversation
    with other ids (None: there is none).
    """

    vocabulary: GgufVocabulary
    differing: Mapping[str, str]
    misread_chat: str | None

    @property
    def faults(self) -> tuple[bool, int]:
        """Smaller is better."""
        return self.misread_chat is not None, len(self.differing)


def first_misread(vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer, texts: Iterable[str]) -> str | None:
    """The first text with different ids in llama.cpp and the tokenizer, without added special tokens."""
    for text in texts:
        if vocabulary.encode(text, add_special=False) != tokenizer.encode(text):
            return text
    return None


def disagreement(vocabulary: LlamaVocabulary, tokenizer: ModelTokenizer, texts: Sequence[str]) -> str | None:
    """The first text with different ids in llama.cpp and the tokenizer; None when they agree on all."""
    misread = first_misread(vocabulary, tokenizer, texts)
    if misread is not None:
        return misread
    if vocabulary.encode(texts[0], add_special=True) != tokenizer.encode(texts[0], add_special=True):
        return texts[0]
    return None


def parity_texts(tokenizer: ModelTokenizer) -> list[str]:
    """Hard text in many scripts, words of the vocabulary, and special tokens inside text.

    A normalizer that llama.cpp does not have is applied to them, except to plain ASCII.
    """
    texts = [*hard_texts(), _own_words(tokenizer), *_around_special_tokens(tokenizer)]
    normalizer = find_normalizer(tokenizer)
    return texts if normalizer is None else [text if text.isascii() else normalizer(text) for text in texts]


def texts_in_use(tokenizer: ModelTokenizer) -> tuple[list[str], str]:
    """The texts for a file that cannot agree on all of `parity_texts`, and their description.

    SentencePiece tokenizers of newer Transformers put spaces before text and after special tokens by rules that
    llama.cpp does not have. Such a file must agree on the model's input: conversations in its chat template or, without
    one, text that begins with a word. llama.cpp's WordPiece splits Korean and Indic letters differently.
    """
    if tokenizer.settings["model"]["type"] == "BPE":
        chats = chat_texts(tokenizer)
        if chats:
            return chats, "conversations in the model's chat template"
        return [text for text in everyday_texts() if not text[0].isspace()], "texts that begin with a word"
    return [*everyday_texts(), *_around_special_tokens(tokenizer)], "everyday texts in English"


def _own_words(tokenizer: ModelTokenizer) -> str:
    """Tokens from all parts of the vocabulary, joined."""
    tokens = {number: token for token, number in tokenizer.vocabulary.items()}
    words = list(range(0, len(tokens), max(1, len(tokens) // _OWN_WORDS)))
    if tokenizer.settings["model"]["type"] == "WordPiece":
        # Continuations would form one very long word, and BERT does not split words of more than 100 letters.
        words = [number for number in words if not tokens.get(number, "").startswith("##")]
    words = [number for number in words if number not in tokenizer.added]
    joined: str = tokenizer.backend.decode(words, skip_special_tokens=True)
    return joined.replace("\ufffd", "")


def _around_special_tokens(tokenizer: ModelTokenizer) -> list[str]:
    """Texts with the tokens that have a role or are in the chat template, without those that have flags.

    `differing_tokens` tries all tokens, with the vocabulary that was found.
    """
    template = str(tokenizer.chat_template)
    used = [token.content for token in tokenizer.added.values() if token.content in template]
    flagged = {token.content for token in tokenizer.added.values() if has_flags(token)}
    contents = dict.fromkeys([*tokenizer.all_special, *used])
    return [f"a{content}b {content}\n{content}" for content in contents if content not in flagged]


def chat_texts(tokenizer: ModelTokenizer) -> list[str]:
    """Rendered conversations of one and three turns; empty without a chat template."""
    if tokenizer.default_template is None:
        return []
    chat = ChatTemplate(tokenizer.default_template, tokenizer.bos_token, tokenizer.eos_token)
    words = [hard_texts()[0], "Why is 2 + 2 = 4?\n\n  Say it in one word.", "你好 🙂 été", "def f(x):\n    return x"]
    turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate([*words, "Thanks!"])]
    rendered = []
    for part in (turns[:1], turns[:3], turns[2:]):
        with suppress(DataError, RecipeError):
            rendered.append(chat.render(part, add_generation_prompt=True))
    return rendered


def first_proven(
    candidates: Iterable[GgufVocabulary],
    tokenizer: ModelTokenizer,
    texts: Sequence[str],
    *,
    by_flags_only: bool = False,
) -> tuple[Proof | None, str]:
    """The first candidate with the tokenizer's ids, or None and a text with other ids.

    Of several with different model names, it is the one with the fewest faults. Raises ModelError for tokens that
    llama.cpp cannot distinguish.
    """
    closest = ""
    best: Proof | None = None
    normalizer = find_normalizer(tokenizer)
    chats = [text if normalizer is None else normalizer(text) for text in chat_texts(tokenizer)]
    written: GgufVocabulary | None = None
    with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
        file = Path(folder) / "vocabulary.gguf"
        for candidate in candidates:
            if best is not None and candidate.model_name == best.vocabulary.model_name:
                continue
            if written is None or replace(candidate, pre=written.pre) != written:
                _require_distinct(candidate, where=tokenizer.where)
                write_vocabulary_only(candidate, file)
                written = candidate
            try:
                with open_vocabulary(file, pre=candidate.pre) as vocabulary:
                    failed = disagreement(vocabulary, tokenizer, texts)
                    if failed is not None:
                        closest = closest or failed
                        continue
                    proven = Proof(
                        replace(candidate, proven_on=tuple(texts)),
                        differing_tokens(vocabulary, tokenizer, by_flags_only=by_flags_only),
                        first_misread(vocabulary, tokenizer, chats),
                    )
            except ModelError:
                continue  # this build of llama.cpp does not know the name
            if best is None or proven.faults < best.faults:
                best = proven
            if proven.faults == (False, 0):
                break
    return best, closest


def write_vocabulary_only(vocabulary: GgufVocabulary, file: Path) -> None:
    """A GGUF without tensors."""
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "llama")
    if vocabulary.model_name is not None:
        writer.add_name(vocabulary.model_name)
    vocabulary.describe(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _require_distinct(vocabulary: GgufVocabulary, *, where: str) -> None:
    """llama.cpp ends the process when two tokens are equal, and it reads a token up to the first zero byte."""
    seen: set[str] = set()
    for token in vocabulary.tokens:
        read = token.partition("\0")[0]
        if read in seen:
            raise ModelError(
                f"llama.cpp reads two tokens of this vocabulary as {read!r}",
                where=where,
                remedy="such a vocabulary cannot be written as GGUF",
            )
        if read:
            seen.add(read)
