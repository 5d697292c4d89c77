"""Which class Transformers 5.17 gives a tokenizer folder, and when that class leaves tokenizer.json as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.models.families import find_family

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_AS_IT_IS = "TokenizersBackend"
"""The class that takes tokenizer.json as it is; PreTrainedTokenizerFast is its older name."""

_END_OF_TEXT = "<|endoftext|>"

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Rebuild:
    """What a class builds around the vocabulary: (normalizer, pre-tokenizer), settings of the model, special tokens.

    `around` are the roles of the tokens that it puts around a text, where it does not leave that to tokenizer.json.
    """

    parts: Callable[[Mapping[str, Any]], tuple[Any, Any]]
    model: Mapping[str, Any]
    special: Mapping[str, str]
    around: tuple[str, str] | None = None


def _gpt2(config: Mapping[str, Any]) -> tuple[Any, Any]:
    from tokenizers.pre_tokenizers import ByteLevel

    return None, ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))


def _qwen2(config: Mapping[str, Any]) -> tuple[Any, Any]:
    from tokenizers import Regex
    from tokenizers.normalizers import NFC
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    spaces = bool(config.get("add_prefix_space", False))
    words = Split(Regex(_QWEN2_WORDS), "isolated")
    return NFC(), Sequence([words, ByteLevel(add_prefix_space=spaces, use_regex=False)])


def _gemma(_config: Mapping[str, Any]) -> tuple[Any, Any]:
    from tokenizers.normalizers import Replace
    from tokenizers.pre_tokenizers import Split

    return Replace(" ", "\u2581"), Split(" ", "merged_with_previous")


def _bert(config: Mapping[str, Any]) -> tuple[Any, Any]:
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer = BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    return normalizer, BertPreTokenizer()


_MERGES_ONLY = dict.fromkeys(
    ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges", "dropout", "continuing_subword_prefix")
)

_REBUILDS = {
    "GPT2Tokenizer": _Rebuild(_gpt2, _MERGES_ONLY, dict.fromkeys(("bos", "eos", "unk"), _END_OF_TEXT)),
    "Qwen2Tokenizer": _Rebuild(_qwen2, _MERGES_ONLY, dict.fromkeys(("eos", "unk", "pad"), _END_OF_TEXT)),
    "GemmaTokenizer": _Rebuild(
        _gemma,
        {"fuse_unk": True, "byte_fallback": True, "ignore_merges": None, "dropout": None},
        {"unk": "<unk>", "bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "mask": "<mask>"},
    ),
    "BertTokenizer": _Rebuild(
        _bert,
        {"max_input_chars_per_word": 100, "continuing_subword_prefix": "##"},
        {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
        around=("cls", "sep"),
    ),
}


def tokenizer_class(named: str | None, model_type: str | None) -> str | None:
    """The class for a folder whose tokenizer_config.json and config.json say this; None where it is not known here."""
    of_family = find_family(model_type or "").tokenizer_class
    if of_family is not None and (named is not None or of_family == _AS_IT_IS):
        return of_family
    if named is None:
        return None if model_type else _AS_IT_IS
    named = named.removesuffix("Fast")
    return _AS_IT_IS if named in (_AS_IT_IS, "PreTrainedTokenizer") else named


def special_defaults(class_name: str) -> Mapping[str, str]:
    """The special tokens that the class assumes where the folder is silent."""
    return _REBUILDS[class_name].special if class_name in _REBUILDS else {}


def is_taken_as_it_is(
    class_name: str, backend: Tokenizer, config: Mapping[str, Any], special: Mapping[str, str]
) -> bool:
    """True when what the class would build from tokenizer.json gives the ids that tokenizer.json gives.

    `special` are the special tokens by role.
    """
    if class_name == _AS_IT_IS:
        return True
    if class_name not in _REBUILDS:
        return False
    rebuild = _REBUILDS[class_name]
    if any((getattr(backend.model, key, None) or None) != value for key, value in rebuild.model.items()):
        return False
    if rebuild.around is not None and backend.encode("").tokens != [special[role] for role in rebuild.around]:
        return False
    normalizer, pre_tokenizer = rebuild.parts(config)
    return _state(backend.normalizer) == _state(normalizer) and _state(backend.pre_tokenizer) == _state(pre_tokenizer)


def _state(part: Any) -> Any:
    """A part's settings, without what only concerns the offsets of tokens in the text."""
    if part is None:
        return None
    return json.loads(part.__getstate__(), object_hook=lambda found: {**found, "trim_offsets": None})
