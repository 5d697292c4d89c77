"""Reads a tokenizer from its folder without importing Transformers, where the result is provably the same.

Since version 5, Transformers' tokenizer classes build the tokenizer anew from the vocabulary in tokenizer.json, with
their own normalizer and splitting. Where these are what the file says (and no other tokens are declared around it),
the file can be taken as it is. The rules are those of transformers/models/auto/tokenization_auto.py and
tokenization_utils_tokenizers.py, 5.17; tests/test_models_tokenizer.py compares with the Transformers installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.errors import ModelError
from edgetune.models.tokenizer import ROLES, ModelTokenizer, plain
from edgetune.models.tokenizer_classes import is_taken_as_it_is, special_defaults, tokenizer_class

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

_UNUSUAL = ("auto_map", "fast_tokenizer_files", "fix_mistral_regex", "split_special_tokens")
"""Settings of tokenizer_config.json that change the tokenizer in ways that only Transformers knows."""

_AGAIN = "download the model again"


def read_tokenizer_folder(folder: Path, *, where: str) -> ModelTokenizer | None:
    """The tokenizer of a folder in Hugging Face's layout; None where Transformers must be asked.

    Raises ModelError when a file is damaged.
    """
    file = folder / "tokenizer.json"
    config = _read_json(folder / "tokenizer_config.json")
    if not file.is_file() or any(config.get(key) for key in _UNUSUAL):
        return None
    model_type = _read_json(folder / "config.json").get("model_type")
    class_name = tokenizer_class(config.get("tokenizer_class"), model_type)
    if class_name is None:
        return None
    backend = _load(file)
    if "added_tokens_decoder" not in config:
        config = {**config, **_read_json(folder / "special_tokens_map.json")}
    special, further = _special_tokens(config, special_defaults(class_name), backend)
    if not is_taken_as_it_is(class_name, backend, config, special):
        return None
    declared = [*special.values(), *further]
    if not _declares_nothing_more(folder, config, declared, backend.get_added_tokens_decoder()):
        return None
    if "pad" not in special and "eos" in special:
        special["pad"] = special["eos"]
    return ModelTokenizer(plain(backend), special, _chat_template(folder, config), where, tuple(further))


def _load(file: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as problem:  # the tokenizers library raises nothing more precise
        raise ModelError(f"is damaged ({problem})", where=file, remedy=_AGAIN) from problem


def _special_tokens(
    config: Mapping[str, Any], defaults: Mapping[str, str], backend: Tokenizer
) -> tuple[dict[str, str], list[str]]:
    """Special tokens by role, and those without one. A tokenizer.json that pads names its padding token."""
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


def _declares_nothing_more(
    folder: Path, config: Mapping[str, Any], special: list[str], added: Mapping[int, AddedToken]
) -> bool:
    """True when every token that the folder declares is an added token of tokenizer.json, with the same behaviour."""
    from tokenizers import AddedToken

    texts = {token.content for token in added.values()}
    if not texts.issuperset(special):
        return False
    declared = config.get("added_tokens_decoder")
    if declared is None:
        return texts.issuperset(_read_json(folder / "added_tokens.json"))
    tokens = {int(number): AddedToken(**_behaviour(token)) for number, token in declared.items()}
    return {number: repr(token) for number, token in tokens.items()} == {
        number: repr(token) for number, token in added.items()
    }


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | dict[str, str] | None:
    """Template files go before what tokenizer_config.json says."""
    files = {file.stem: file for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        files = {"default": folder / "chat_template.jinja", **files}
    templates = {name: _read_text(file) for name, file in files.items()}
    if templates:
        return templates["default"] if list(templates) == ["default"] else templates
    said: str | list[dict[str, str]] | dict[str, str] | None = config.get("chat_template")
    if isinstance(said, list):
        return {template["name"]: template["template"] for template in said}
    return said


def _behaviour(token: Any) -> dict[str, Any]:
    return {key: value for key, value in token.items() if key != "__type"}


def _text(token: Any) -> str:
    """A special token is written as its text or as the fields of an AddedToken."""
    return str(token["content"] if isinstance(token, dict) else token)


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ModelError(f"cannot be read ({problem})", where=file, remedy=_AGAIN) from problem


def _read_json(file: Path) -> dict[str, Any]:
    """What the file says; nothing when there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(_read_text(file))
    except ValueError as problem:
        raise ModelError(f"is not readable JSON ({problem})", where=file, remedy=_AGAIN) from problem
    if not isinstance(content, dict):
        raise ModelError("holds no settings", where=file, remedy=_AGAIN)
    return content
