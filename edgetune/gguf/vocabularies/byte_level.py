"""Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM): merges, and llama.cpp's rule for splitting text into words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from edgetune.gguf.vocabularies.metadata import GgufVocabulary, draft
from edgetune.gguf.vocabularies.model_names import fitting_names
from edgetune.models.tokenizer import ModelTokenizer

_LIKELY_BY_PATTERN = (
    (r"\p{N}{1,3}|", ("llama-bpe", "dbrx", "smaug-bpe", "gpt-4o", "chatglm-bpe", "tekken", "superbpe")),
    (r"\p{Lu}", ("gpt-4o", "tekken", "tiny_aya", "granite-embed-multi-97m", "llama4", "kimi-k2")),
    (r"\p{N}|", ("qwen2", "stablelm2", "qwen35", "tekken", "deepseek-r1-qwen")),
    ('"Digits"', ("smollm", "starcoder", "falcon")),
)
"""Part of the pre-tokenizer's JSON -> names to try first. The proof decides; the order saves time."""

_OTHER_PRE_NAMES = (
    *("smollm", "gpt-2", "llama-bpe", "qwen2", "gpt-4o", "tekken", "starcoder", "falcon", "mpt", "olmo", "stablelm2"),
    *("dbrx", "smaug-bpe", "command-r", "refact", "codeshell", "exaone", "exaone4", "exaone-moe", "deepseek-llm"),
    *("deepseek-coder", "deepseek-v3", "chatglm-bpe", "glm4", "jais", "jais-2", "viking", "poro-chat", "bloom"),
    *("gpt3-finnish", "superbpe", "trillion", "granite-docling", "bailingmoe", "llada-moe", "seed-coder", "hunyuan"),
    *("hunyuan-dense", "kimi-k2", "minerva-7b", "megrez", "chameleon", "grok-2", "afmoe", "minimax-m2", "solar-open"),
    *("qwen35", "kanana2", "tiny_aya", "youtu", "joyai-llm", "sarvam-moe", "falcon3", "pixtral", "lfm2", "minicpm5"),
    *("granite-embed-multi-97m", "spark2_5", "ufakzeka", "laguna", "mellum2", "default"),
)


def is_byte_level(settings: dict[str, Any]) -> bool:
    """True for a BPE whose letters represent bytes; `settings` is tokenizer.json."""
    return settings["model"]["type"] == "BPE" and "ByteLevel" in json.dumps(settings["pre_tokenizer"])


def byte_level_candidates(tokenizer: ModelTokenizer, rows: int, *, likely_pre: str | None) -> Iterator[GgufVocabulary]:
    """The vocabulary with every pre-tokenizer name of llama.cpp, the likely ones first."""
    merges = tuple(_merges(tokenizer.settings["model"]["merges"]))
    plain = replace(draft(tokenizer, rows, model="gpt2"), merges=merges)
    names = _names(json.dumps(tokenizer.settings["pre_tokenizer"]), likely_pre)
    for model_name in fitting_names(tokenizer):
        for name in names:
            yield replace(plain, pre=name, model_name=model_name)


def _names(pre_tokenizer: str, likely_pre: str | None) -> list[str]:
    likely = [] if likely_pre is None else [likely_pre]
    for piece, names in _LIKELY_BY_PATTERN:
        if json.dumps(piece)[1:-1].replace('\\"', '"') in pre_tokenizer:
            likely.extend(names)
    return list(dict.fromkeys([*likely, *_OTHER_PRE_NAMES]))


def _merges(pairs: list[list[str]]) -> Iterator[str]:
    """ "left right" by rank; a space inside a part is written in the byte-level alphabet."""
    encoded_space = chr(ord(" ") + 256)
    for left, right in pairs:
        yield f"{left.replace(' ', encoded_space)} {right.replace(' ', encoded_space)}"
