"""A GGUF file's vocabulary -> a Hugging Face tokenizer that gives llama.cpp's ids.

Transformers 5.17 splits every byte-level vocabulary of a Llama by GPT-2's rule, whatever tokenizer.ggml.pre says. A
model would be trained on other tokens than those that it was made with and runs with. tests/test_models_gguf.py proves
the rules here equal to llama.cpp's on hard text; a vocabulary that needs another rule is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from edgetune.errors import ModelError
from edgetune.models.gguf_file import GgufFile
from edgetune.models.tokenizer import ModelTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerBase

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_WORDS = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

NORMALIZER_KEY = "edgetune.normalizer"
"""The key of the Unicode form to which edgetune normalizes text for this file, because llama.cpp does not."""
UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
"""Python's unicodedata and the tokenizers library call them by the same names."""
_FORMS: dict[str, UnicodeForm] = {form: form for form in get_args(UnicodeForm)}

_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Transformers' name of a special token -> GGUF's."""


@dataclass(frozen=True)
class _Splitting:
    """The meaning of a tokenizer.ggml.pre in llama.cpp (src/llama-vocab.cpp).

    `whole_words_first`: a word that is a token stays whole, even where no merge leads to it. `adds_bos` is the default
    for files without tokenizer.ggml.add_bos_token.
    """

    pre_tokenizer: Callable[[], PreTokenizer]
    whole_words_first: bool = False
    adds_bos: bool = False


def _gpt2() -> PreTokenizer:
    from tokenizers.pre_tokenizers import ByteLevel

    return ByteLevel(add_prefix_space=False)


def _smollm() -> PreTokenizer:
    from tokenizers.pre_tokenizers import Digits, Sequence

    return Sequence([Digits(individual_digits=True), _gpt2()])


def _by_pattern(pattern: str) -> PreTokenizer:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    return Sequence([Split(Regex(pattern), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


_SPLITTINGS = {
    "gpt-2": _Splitting(_gpt2),
    "llama-bpe": _Splitting(lambda: _by_pattern(_LLAMA3), whole_words_first=True, adds_bos=True),
    "qwen2": _Splitting(lambda: _by_pattern(QWEN2_WORDS)),
    "smollm": _Splitting(_smollm),
}


def unicode_form(named: str | None) -> UnicodeForm | None:
    """The Unicode form with this name; None where there is none."""
    return None if named is None else _FORMS.get(named)


def open_gguf_tokenizer(file: GgufFile, *, where: str) -> ModelTokenizer | None:
    """The file's tokenizer with its special tokens and chat template; None where only Transformers can read it.

    Raises ModelError when there is none, when it is damaged, and when it splits text by a rule that is unknown here.
    """
    from tokenizers import normalizers
    from tokenizers.processors import TemplateProcessing

    tokens = _tokens(file)
    if file.metadata.get("tokenizer.ggml.model") != "gpt2":
        return None
    special = _special_tokens(file, tokens)
    splitting = _splitting(file)
    backend = _assemble(file, tokens, splitting, special)
    form = unicode_form(file.metadata.get(NORMALIZER_KEY))
    backend.normalizer = None if form is None else getattr(normalizers, form)()
    bos, eos = (special.get(role) if adds else None for role, adds in _adds(file, splitting).items())
    backend.post_processor = TemplateProcessing(
        single=[token for token in (bos, "$A", eos) if token],
        special_tokens=[(token, backend.token_to_id(token)) for token in (bos, eos) if token],
    )
    if "pad" not in special and "eos" in special:
        special["pad"] = special["eos"]
    return ModelTokenizer(backend, special, file.metadata.get("tokenizer.chat_template"), where)


def gguf_tokenizer(file: GgufFile) -> PreTrainedTokenizerBase:
    """The same as Transformers' object, for training. Raises ModelError as `open_gguf_tokenizer` does."""
    from transformers import PreTrainedTokenizerFast

    light = open_gguf_tokenizer(file, where=str(file.path))
    if light is None:
        return _as_transformers_reads_it(file, _special_tokens(file, _tokens(file)))
    adds = _adds(file, _splitting(file))
    return PreTrainedTokenizerFast(
        tokenizer_object=light.backend,
        chat_template=light.chat_template,
        add_bos_token=adds["bos"],
        add_eos_token=adds["eos"],
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in light.special.items()},
    )


def _tokens(file: GgufFile) -> list[str]:
    tokens = file.array("tokenizer.ggml.tokens")
    if not tokens:
        raise ModelError("has no vocabulary, so it cannot tokenize text", where=file.path, remedy="export it again")
    return tokens


def _splitting(file: GgufFile) -> _Splitting:
    name = file.metadata.get("tokenizer.ggml.pre")
    if name not in _SPLITTINGS:
        raise ModelError(
            f"splits text into words by llama.cpp's rule {name!r}, and edgetune knows {', '.join(_SPLITTINGS)}",
            where=file.path,
            remedy="use the Hugging Face model that it was made from (base.model in a recipe, --base for an adapter)",
        )
    return _SPLITTINGS[name]


def _adds(file: GgufFile, splitting: _Splitting) -> dict[str, bool]:
    """Which special tokens are added to a text."""
    return {
        "bos": bool(file.metadata.get("tokenizer.ggml.add_bos_token", splitting.adds_bos)),
        "eos": bool(file.metadata.get("tokenizer.ggml.add_eos_token", False)),
    }


def _assemble(file: GgufFile, tokens: list[str], splitting: _Splitting, special: dict[str, str]) -> Tokenizer:
    from gguf import TokenType
    from tokenizers import AddedToken, Tokenizer, decoders
    from tokenizers.models import BPE

    kinds = file.array("tokenizer.ggml.token_type") or [TokenType.NORMAL] * len(tokens)
    typed = list(zip(tokens, kinds, strict=False))
    vocabulary = {token: row for row, (token, kind) in enumerate(typed) if kind != TokenType.UNUSED}
    merges = [tuple(merge.split(" ", 1)) for merge in file.array("tokenizer.ggml.merges") or ()]
    try:
        model = BPE(vocab=vocabulary, merges=merges, ignore_merges=splitting.whole_words_first)
    except Exception as problem:  # the tokenizers library raises nothing more precise
        raise ModelError(
            f"has a damaged vocabulary ({problem})", where=file.path, remedy="download or export it again"
        ) from problem
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = splitting.pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in typed if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, kind in typed if kind == TokenType.USER_DEFINED])
    # A file may give its special tokens the type of ordinary ones; in Transformers their role makes them special.
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    tokenizer.add_special_tokens([token for token in dict.fromkeys(special.values()) if token not in added])
    return tokenizer


def _as_transformers_reads_it(file: GgufFile, special: dict[str, str]) -> PreTrainedTokenizerBase:
    """Transformers' tokenizer with corrected special tokens: it uses the BOS as the EOS."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(file.path.parent, gguf_file=file.path.name)
    for role, token in special.items():
        setattr(tokenizer, f"{role}_token", token)
    return tokenizer


def _special_tokens(file: GgufFile, tokens: list[str]) -> dict[str, str]:
    """The special tokens that the file names, by role."""
    special = {}
    for role, key in _ROLES.items():
        number = file.metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is None:
            continue
        if not 0 <= number < len(tokens):
            raise ModelError(
                f"names the token {number} as {key}, but has only {len(tokens)} tokens",
                where=file.path,
                remedy="download or export it again",
            )
        special[role] = tokens[number]
    return special
