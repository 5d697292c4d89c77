"""A Hugging Face tokenizer -> the vocabulary of a GGUF file, proven to give the same ids in llama.cpp."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune import console
from edgetune.errors import ModelError
from edgetune.gguf.hard_text import hard_texts
from edgetune.gguf.llama_vocabulary import LlamaVocabulary, open_vocabulary
from edgetune.weights.source import require_rows

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"
"""SentencePiece's mark for a space."""

_LIKELY_BY_PATTERN = (
    (r"\p{N}{1,3}|", ("llama-bpe", "dbrx", "smaug-bpe", "gpt-4o", "chatglm-bpe", "tekken", "superbpe")),
    (r"\p{Lu}", ("gpt-4o", "tekken", "llama4", "kimi-k2")),
    (r"\p{N}|", ("qwen2", "stablelm2", "qwen35", "tekken", "deepseek-r1-qwen")),
    ('"Digits"', ("smollm", "starcoder", "falcon")),
)
"""A piece of the pre-tokenizer's JSON -> names to try first. The proof decides; the order saves time."""

_OTHER_PRE_NAMES = (
    *("smollm", "gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "starcoder", "falcon", "mpt", "olmo", "stablelm2"),
    *("dbrx", "smaug-bpe", "command-r", "refact", "codeshell", "exaone", "exaone4", "exaone-moe", "deepseek-llm"),
    *("deepseek-coder", "deepseek-v3", "chatglm-bpe", "glm4", "jais", "jais-2", "viking", "poro-chat", "bloom"),
    *("gpt3-finnish", "superbpe", "trillion", "granite-docling", "bailingmoe", "llada-moe", "seed-coder", "hunyuan"),
    *("hunyuan-dense", "kimi-k2", "minerva-7b", "megrez", "chameleon", "grok-2", "afmoe", "minimax-m2", "solar-open"),
    *("qwen35", "kanana2", "tiny_aya", "youtu", "joyai-llm", "sarvam-moe", "falcon3", "pixtral", "lfm2", "default"),
)


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says about tokens. `model` is llama.cpp's tokenizer: gpt2 (byte-level BPE) or llama (SPM).

    tokens, types and scores have one entry per row of the embedding; rows without a token are unused. `proven_on` are
    the texts to which llama.cpp gave the tokenizer's ids.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] | None
    merges: tuple[str, ...] | None
    special_ids: dict[str, int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    chat_template: str | dict[str, str] | None
    proven_on: tuple[str, ...] = ()

    def describe(self, writer: GGUFWriter) -> None:
        """Write every tokenizer key."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(list(self.tokens))
        if self.scores is not None:
            writer.add_token_scores(list(self.scores))
        writer.add_token_types(list(self.types))
        if self.merges is not None:
            writer.add_token_merges(list(self.merges))
        for role, token_id in self.special_ids.items():
            getattr(writer, f"add_{role}_token_id")(token_id)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(self.add_space_prefix)
        if isinstance(self.chat_template, dict):
            named = [{"name": name, "template": template} for name, template in self.chat_template.items()]
            writer.add_chat_template(named)
        elif self.chat_template is not None:
            writer.add_chat_template(self.chat_template)


def build_vocabulary(
    tokenizer: PreTrainedTokenizerBase, rows: int, *, where: str, likely_pre: str | None = None
) -> Vocabulary:
    """The vocabulary for an embedding of `rows` rows. `likely_pre` is a name to try first (a GGUF base knows its own).

    Raises ModelError when the tokenizer has more tokens than the embedding has rows, is of a kind that is not
    supported, or no pre-tokenizer of llama.cpp gives its ids.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            "this tokenizer has no fast version (tokenizer.json)",
            where=where,
            remedy="save it with a newer Transformers",
        )
    settings = json.loads(backend.to_str())
    model = settings["model"]
    byte_level = "ByteLevel" in json.dumps(settings["pre_tokenizer"])
    if model["type"] != "BPE" or not (byte_level or model.get("byte_fallback")):
        raise ModelError(
            f"has a {model['type']} tokenizer, which edgetune cannot write as GGUF yet",
            where=where,
            remedy="byte-level BPE and SentencePiece BPE with byte fallback can be written",
        )
    require_rows(tokenizer, rows, where=where)
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    draft = Vocabulary(
        model="gpt2" if byte_level else "llama",
        pre="default",
        tokens=tuple(by_id.get(row, f"[PAD{row}]") for row in range(rows)),
        types=tuple(_types(tokenizer, by_id, rows, byte_level=byte_level)),
        scores=None if byte_level else tuple(_scores(by_id, model, rows)),
        merges=tuple(_merges(model)) if byte_level else None,
        special_ids=_special_ids(tokenizer, rows),
        add_bos=_adds(tokenizer, tokenizer.bos_token_id, 0),
        add_eos=_adds(tokenizer, tokenizer.eos_token_id, -1),
        add_space_prefix=False,
        chat_template=tokenizer.chat_template,
    )
    if not byte_level:
        draft = replace(draft, tokens=_with_plain_spaces(draft))
        candidates = [replace(draft, add_space_prefix=prefix) for prefix in (True, False)]
    else:
        names = _likely_names(json.dumps(settings["pre_tokenizer"]), likely_pre)
        candidates = [replace(draft, pre=name) for name in names]
    proven, closest = _first_proven(candidates, tokenizer, parity_texts(tokenizer))
    if proven is None and not byte_level:
        proven = _proven_in_chats(candidates, tokenizer, closest)
    if proven is None:
        raise ModelError(
            f"llama.cpp cannot give this tokenizer's ids (they differ on {closest[:60]!r})",
            where=where,
            remedy="a newer llama-cpp-python may know it: pip install -U llama-cpp-python",
        )
    return proven


def disagreement(vocabulary: LlamaVocabulary, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> str | None:
    """The first text to which llama.cpp and the tokenizer give different ids; None when they agree on all."""
    for text in texts:
        if vocabulary.encode(text, add_special=False) != tokenizer.encode(text, add_special_tokens=False):
            return text
    if vocabulary.encode(texts[0], add_special=True) != tokenizer.encode(texts[0]):
        return texts[0]
    return None


def parity_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Hard text of many scripts, words of the vocabulary itself, and special tokens inside text."""
    ids = range(0, len(tokenizer), max(1, len(tokenizer) // 400))
    own_words = tokenizer.decode(list(ids), skip_special_tokens=True)
    template = str(tokenizer.chat_template)
    used = [str(token) for token in tokenizer.added_tokens_decoder.values() if str(token) in template]
    special = [f"a{token}b {token}\n{token}" for token in dict.fromkeys([*tokenizer.all_special_tokens, *used])]
    return [*hard_texts(), own_words.replace("\ufffd", ""), *special]


def chat_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Conversations of one and three turns as the chat template writes them; empty without a template."""
    if tokenizer.chat_template is None:
        return []
    words = [hard_texts()[0], "Why is 2 + 2 = 4?\n\n  Say it in one word.", "你好 🙂 été", "def f(x):\n    return x"]
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate([*words, "Thanks!"])]
    parts = [turns[:1], turns[:3], turns[2:]]
    return [str(tokenizer.apply_chat_template(part, tokenize=False, add_generation_prompt=True)) for part in parts]


def _first_proven(
    candidates: Sequence[Vocabulary], tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> tuple[Vocabulary | None, str]:
    """A wrong pre-tokenizer changes ids silently, so each candidate is loaded in llama.cpp and compared.

    Returns the first that agrees on all texts, or None and a text on which they differ.
    """
    closest = ""
    written: Vocabulary | None = None
    with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
        file = Path(folder) / "vocabulary.gguf"
        for candidate in candidates:
            if written is None or replace(candidate, pre=written.pre) != written:
                _write_vocabulary_only(candidate, file)
                written = candidate
            try:
                with open_vocabulary(file, pre=candidate.pre) as vocabulary:
                    failed = disagreement(vocabulary, tokenizer, texts)
            except ModelError:
                continue  # this build of llama.cpp does not know the name
            if failed is None:
                return replace(candidate, proven_on=tuple(texts)), ""
            closest = closest or failed
    return None, closest


def _proven_in_chats(
    candidates: Sequence[Vocabulary], tokenizer: PreTrainedTokenizerBase, differs_on: str
) -> Vocabulary | None:
    """SentencePiece tokenizers of newer Transformers prefix a space by rules that llama.cpp does not have.

    What counts is then that conversations, as the chat template writes them, get the ids of training.
    """
    texts = chat_texts(tokenizer)
    proven = _first_proven(candidates, tokenizer, texts)[0] if texts else None
    if proven is not None:
        console.warn(
            f"llama.cpp and this tokenizer give different ids for some plain text ({differs_on[:40]!r}); "
            "conversations in the model's chat template get the same ids"
        )
    return proven


def _write_vocabulary_only(vocabulary: Vocabulary, file: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "llama")
    vocabulary.describe(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _likely_names(pre_tokenizer: str, likely_pre: str | None) -> list[str]:
    likely = [] if likely_pre is None else [likely_pre]
    for piece, names in _LIKELY_BY_PATTERN:
        if json.dumps(piece)[1:-1].replace('\\"', '"') in pre_tokenizer:
            likely.extend(names)
    return list(dict.fromkeys([*likely, *_OTHER_PRE_NAMES]))


def _types(tokenizer: PreTrainedTokenizerBase, by_id: dict[int, str], rows: int, *, byte_level: bool) -> Iterator[int]:
    from gguf import TokenType

    added = tokenizer.added_tokens_decoder
    for row in range(rows):
        token = by_id.get(row)
        if token is None:
            yield int(TokenType.UNUSED)
        elif not byte_level and row == tokenizer.unk_token_id:
            yield int(TokenType.UNKNOWN)
        elif row in added:
            yield int(TokenType.CONTROL if added[row].special else TokenType.USER_DEFINED)
        elif not byte_level and _BYTE_TOKEN.fullmatch(token):
            yield int(TokenType.BYTE)
        else:
            yield int(TokenType.NORMAL)


def _with_plain_spaces(draft: Vocabulary) -> tuple[str, ...]:
    """llama.cpp looks for user-defined tokens in the text before spaces become SentencePiece's mark."""
    from gguf import TokenType

    return tuple(
        token.replace(_SPACE, " ") if kind == TokenType.USER_DEFINED else token
        for token, kind in zip(draft.tokens, draft.types, strict=True)
    )


def _pairs(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _merges(model: dict[str, Any]) -> Iterator[str]:
    """ "left right" by rank; a space inside a part is written as the byte-level alphabet would."""
    for pair in _pairs(model):
        yield " ".join(part.replace(" ", chr(ord(" ") + 256)) for part in pair)


def _scores(by_id: dict[int, str], model: dict[str, Any], rows: int) -> Iterator[float]:
    """llama.cpp joins the pair whose result scores highest; the rank of its first merge gives that order."""
    first_rank: dict[str, int] = {}
    for rank, (left, right) in enumerate(_pairs(model)):
        first_rank.setdefault(left + right, rank)
    for row in range(rows):
        yield -float(first_rank.get(by_id.get(row, ""), len(first_rank)))


def _special_ids(tokenizer: PreTrainedTokenizerBase, rows: int) -> dict[str, int]:
    ids = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ("bos", "eos", "unk", "pad")}
    return {role: number for role, number in ids.items() if number is not None and number < rows}


def _adds(tokenizer: PreTrainedTokenizerBase, token_id: int | None, position: int) -> bool:
    ids = tokenizer.encode("a")
    return token_id is not None and len(ids) > 1 and ids[position] == token_id
