"""Reads a tokenizer from its folder without Transformers, where the result is provably the same.

For SmolLM2 this takes 0.5 s and 60 MB. AutoTokenizer, which imports torch, takes 16 s and 540 MB, and a whole export
then takes 22 s instead of 7 (two cores). The core, which does not install Transformers, has no other reader of folders.

Since version 5, most of Transformers' tokenizer classes build the tokenizer anew from the vocabulary in tokenizer.json,
with their own normalizer and splitting. Where these are what the file says, and the folder declares no other tokens,
the file can be used as it is. The rules are those of transformers/models/auto/tokenization_auto.py and
tokenization_utils_tokenizers.py, 5.17; tests/test_models_tokenizer.py compares with the installed Transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.normalizers import NFC, BertNormalizer, Replace
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Sequence, Split

from edgetune.errors import ModelError
from edgetune.models.config import read_settings
from edgetune.models.families import find_family
from edgetune.models.gguf_tokenizer import QWEN2_WORDS
from edgetune.models.tokenizer import ROLES, ModelTokenizer, plain

_UNUSUAL = ("auto_map", "fast_tokenizer_files", "fix_mistral_regex", "split_special_tokens")
"""Settings of tokenizer_config.json that change the tokenizer in ways that only Transformers knows."""

_GENERIC = "TokenizersBackend"
"""The class that uses tokenizer.json as it is. PreTrainedTokenizerFast is its older name."""


@dataclass(frozen=True)
class _Rebuild:
    """What a class builds from its settings: (normalizer, pre-tokenizer), settings of the model, special tokens.

    `around` are the roles of the tokens that it puts around a text, where it does not leave that to tokenizer.json.
    """

    parts: Callable[[Mapping[str, Any]], tuple[Any, Any]]
    model: Mapping[str, Any]
    special: Mapping[str, str]
    around: tuple[str, ...] = ()


def _byte_level(config: Mapping[str, Any], **options: bool) -> ByteLevel:
    return ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")), **options)


_MERGES_ONLY = dict.fromkeys(
    ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges", "dropout", "continuing_subword_prefix")
)
_CLASSES: Mapping[str, _Rebuild | None] = {
    _GENERIC: None,
    "GPT2Tokenizer": _Rebuild(
        lambda config: (None, _byte_level(config)),
        _MERGES_ONLY,
        dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>"),
    ),
    "Qwen2Tokenizer": _Rebuild(
        lambda config: (
            NFC(),
            Sequence([Split(Regex(QWEN2_WORDS), "isolated"), _byte_level(config, use_regex=False)]),
        ),
        _MERGES_ONLY,
        dict.fromkeys(("eos", "unk", "pad"), "<|endoftext|>"),
    ),
    "GemmaTokenizer": _Rebuild(
        lambda _: (Replace(" ", "\u2581"), Split(" ", "merged_with_previous")),
        {"fuse_unk": True, "byte_fallback": True, "ignore_merges": None, "dropout": None},
        {"unk": "<unk>", "bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "mask": "<mask>"},
    ),
    "BertTokenizer": _Rebuild(
        lambda config: (
            BertNormalizer(
                handle_chinese_chars=config.get("tokenize_chinese_chars", True),
                strip_accents=config.get("strip_accents"),
                lowercase=config.get("do_lower_case", True),
            ),
            BertPreTokenizer(),
        ),
        {"max_input_chars_per_word": 100, "continuing_subword_prefix": "##"},
        {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"},
        around=("cls", "sep"),
    ),
}


def read_tokenizer_folder(folder: Path, *, where: str) -> ModelTokenizer | None:
    """The tokenizer of a folder in Hugging Face's layout; None where Transformers must be asked.

    Raises ModelError when a file is damaged.
    """
    file = folder / "tokenizer.json"
    config = _settings(folder / "tokenizer_config.json")
    class_name = _class_name(config.get("tokenizer_class"), _settings(folder / "config.json").get("model_type"))
    if not file.is_file() or any(config.get(key) for key in _UNUSUAL) or class_name not in _CLASSES:
        return None
    rebuild = _CLASSES[class_name]
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as problem:  # the tokenizers library raises nothing more precise
        raise ModelError(f"is damaged ({problem})", where=file, remedy="download the model again") from problem
    if "added_tokens_decoder" not in config:
        config = {**config, **_settings(folder / "special_tokens_map.json")}
    special, further = _special_tokens(config, {} if rebuild is None else rebuild.special, backend)
    if rebuild is not None and not _builds_the_same(rebuild, backend, config, special):
        return None
    if not _declares_nothing_more(folder, config, [*special.values(), *further], backend):
        return None
    if "pad" not in special and "eos" in special:
        special["pad"] = special["eos"]
    return ModelTokenizer(plain(backend), special, _chat_template(folder, config), where, tuple(further))


def _class_name(named: str | None, model_type: str | None) -> str:
    """The class that Transformers uses where tokenizer_config.json and config.json say this; "" if unknown here."""
    of_family = find_family(model_type or "").tokenizer_class
    if of_family is not None or named is None:
        return of_family or ("" if model_type else _GENERIC)
    named = named.removesuffix("Fast")
    return _GENERIC if named == "PreTrainedTokenizer" else named


def _builds_the_same(
    rebuild: _Rebuild, backend: Tokenizer, config: Mapping[str, Any], special: Mapping[str, str]
) -> bool:
    """True when what the class builds gives the ids that tokenizer.json gives. `special`: special tokens by role."""
    if any((getattr(backend.model, key, None) or None) != value for key, value in rebuild.model.items()):
        return False
    if rebuild.around and backend.encode("").tokens != [special[role] for role in rebuild.around]:
        return False
    return [*map(_state, rebuild.parts(config))] == [_state(backend.normalizer), _state(backend.pre_tokenizer)]


def _state(part: Any) -> Any:
    """A part's settings, without those that only concern the offsets of tokens in the text."""
    if part is None:
        return None
    return json.loads(part.__getstate__(), object_hook=lambda found: {**found, "trim_offsets": None})


def _special_tokens(
    config: Mapping[str, Any], defaults: Mapping[str, str], backend: Tokenizer
) -> tuple[dict[str, str], list[str]]:
    """Special tokens by role, and those without a role. A tokenizer.json that pads names its padding token."""
    named = {role: config.get(f"{role}_token", defaults.get(role)) for role in ROLES}
    if backend.padding is not None and "pad_token" not in config:
        named["pad"] = backend.padding["pad_token"]
    further = config.get("extra_special_tokens", config.get("additional_special_tokens")) or []
    if isinstance(further, dict):
        further = list(further.values())
    model_specific = [
        value
        for key, value in config.items()
        if key.endswith("_token") and key.removesuffix("_token") not in ROLES and isinstance(value, str)
    ]
    special = {role: _text(token) for role, token in named.items() if token is not None}
    return special, [_text(token) for token in [*model_specific, *further]]


def _declares_nothing_more(folder: Path, config: Mapping[str, Any], special: list[str], backend: Tokenizer) -> bool:
    """True when every token that the folder declares is an added token of tokenizer.json, with the same behaviour."""
    added = backend.get_added_tokens_decoder()
    texts = {token.content for token in added.values()}
    if not texts.issuperset(special):
        return False
    declared = config.get("added_tokens_decoder")
    if declared is None:
        return texts.issuperset(_settings(folder / "added_tokens.json"))
    tokens = {
        int(number): AddedToken(**{key: value for key, value in token.items() if key != "__type"})
        for number, token in declared.items()
    }
    return {number: repr(token) for number, token in tokens.items()} == {
        number: repr(token) for number, token in added.items()
    }


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | dict[str, str] | None:
    """The folder's template files; where there are none, what tokenizer_config.json says."""
    files = {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files = {"default": folder / "chat_template.jinja", **files}
    templates = {}
    for name, file in files.items():
        try:
            templates[name] = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise ModelError(f"cannot be read ({problem})", where=file, remedy="download the model again") from problem
    if templates:
        return templates["default"] if list(templates) == ["default"] else templates
    said: str | list[dict[str, str]] | dict[str, str] | None = config.get("chat_template")
    if isinstance(said, list):
        return {template["name"]: template["template"] for template in said}
    return said


def _text(token: Any) -> str:
    """A special token is written as its text or as the fields of an AddedToken."""
    return str(token["content"] if isinstance(token, dict) else token)


def _settings(file: Path) -> dict[str, Any]:
    """What the file says; nothing when there is no such file."""
    return read_settings(file) if file.is_file() else {}
