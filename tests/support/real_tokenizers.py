"""Tokenizers with their families' real vocabularies, built as tokenizer.json on the hub is.

The vocabularies are parts of packages that do other things. `make test` puts those beside the environment
(deploy/set_up.py); nothing of them is in this repository.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgetune.models.tokenizer import ModelTokenizer

VOCABULARIES = Path(os.environ.get("EDGETUNE_TEST_VOCABULARIES") or Path(sys.prefix) / "vocabularies")
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3_CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
INST_CHAT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
TEKKEN_CHAT = INST_CHAT.replace("[INST] ", "[INST]").replace(" [/INST]", "[/INST]").replace("' %} {{", "' %}{{")


def qwen2() -> ModelTokenizer:
    """Qwen2, Qwen2.5 and Qwen3: one vocabulary, split and normalizer, and with each generation more added tokens."""
    tokenizer = Tokenizer(_byte_level(_tiktoken(_file("dashscope/resources/qwen.tiktoken"))))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _split_by(QWEN2)
    tokenizer.decoder = decoders.ByteLevel()
    parts = ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end")
    vision = ("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
    code = ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")
    special = [f"<|{name}|>" for name in ("endoftext", "im_start", "im_end", *parts, *vision)]
    plain = ["<tool_call>", "</tool_call>", *(f"<|{name}|>" for name in code)]
    plain += ["<tool_response>", "</tool_response>", "<think>", "</think>"]
    tokenizer.add_special_tokens([AddedToken(content, normalized=False, special=True) for content in special])
    tokenizer.add_tokens([AddedToken(content, normalized=False) for content in plain])
    return ModelTokenizer(tokenizer, {"eos": "<|im_end|>", "pad": "<|endoftext|>"}, CHATML, "qwen")


def llama3() -> ModelTokenizer:
    """Llama 3.1 and 3.2 Instruct."""
    tokenizer = Tokenizer(_byte_level(_tiktoken(_file("llama_models/llama3/tokenizer.model")), ignore_merges=True))
    tokenizer.pre_tokenizer = _split_by(LLAMA3)
    tokenizer.decoder = decoders.ByteLevel()
    named = {
        0: "begin_of_text",
        1: "end_of_text",
        4: "finetune_right_pad_id",
        6: "start_header_id",
        7: "end_header_id",
        8: "eom_id",
        9: "eot_id",
        10: "python_tag",
    }
    reserved = iter(range(256))
    names = [named[n] if n in named else f"reserved_special_token_{next(reserved)}" for n in range(256)]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", normalized=False, special=True) for name in names])
    _begin_with(tokenizer, "<|begin_of_text|>")
    special = {"bos": "<|begin_of_text|>", "eos": "<|eot_id|>", "pad": "<|finetune_right_pad_id|>"}
    return ModelTokenizer(tokenizer, special, LLAMA3_CHAT, "llama 3")


def mistral() -> ModelTokenizer:
    """Mistral 7B v0.3: SentencePiece, as it was converted for the hub."""
    from transformers.utils.sentencepiece_model_pb2_new import ModelProto

    proto = ModelProto()
    proto.ParseFromString(_file("mistral_common/data/mistral_instruct_tokenizer_240323.model.v3").read_bytes())
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces}
    model = models.BPE(
        vocabulary, _merges_by_score(vocabulary, scores), unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    control = [piece.piece for piece in proto.pieces if piece.type in (2, 3)]  # unknown, control
    tokenizer.add_special_tokens([AddedToken(content, normalized=False, special=True) for content in control])
    _begin_with(tokenizer, "<s>")
    return ModelTokenizer(tokenizer, {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, INST_CHAT, "mistral")


def mistral_nemo() -> ModelTokenizer:
    """Mistral Nemo and later: byte-level, 1,000 special tokens in front."""
    settings = json.loads(_file("mistral_common/data/tekken_240718.json").read_text(encoding="utf-8"))
    count = settings["config"]["default_num_special_tokens"]
    size = settings["config"]["default_vocab_size"]
    tools = ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]")
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *tools, "<pad>", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"]
    special += [f"<SPECIAL_{number}>" for number in range(len(special), count)]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in settings["vocab"][: size - count]}
    tokenizer = Tokenizer(_byte_level(ranks, before=special, ignore_merges=True))
    tokenizer.pre_tokenizer = _split_by(TEKKEN)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(content, normalized=False, special=True) for content in special])
    _begin_with(tokenizer, "<s>")
    return ModelTokenizer(tokenizer, {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}, TEKKEN_CHAT, "mistral nemo")


REAL: Mapping[str, Callable[[], ModelTokenizer]] = {
    "qwen2": qwen2,
    "llama3": llama3,
    "mistral": mistral,
    "mistral-nemo": mistral_nemo,
}
"""By name. Each skips the test where its package is not installed."""


def _file(name: str) -> Path:
    file = VOCABULARIES / name
    if not file.is_file():
        package = name.partition("/")[0].replace("_", "-")
        pytest.skip(f"{package} is not in {VOCABULARIES}: run `make lint`, which sets everything up")
    return file


def _tiktoken(file: Path) -> dict[bytes, int]:
    """Lines of a token in base 64 and its rank."""
    lines = (line.split() for line in file.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def _byte_level(ranks: dict[bytes, int], *, before: list[str] | None = None, ignore_merges: bool = False) -> models.BPE:
    """A BPE over letters that stand for bytes; `before` are tokens in front of the ranks."""
    letters = _letters()
    spelled = {token: token.decode("latin-1").translate(letters) for token in ranks}
    before = before or []
    vocabulary = {content: number for number, content in enumerate(before)}
    vocabulary |= {spelled[token]: rank + len(before) for token, rank in ranks.items()}
    halves = (
        (rank, ranks[token[:cut]], ranks[token[cut:]], token[:cut], token[cut:])
        for token, rank in ranks.items()
        for cut in range(1, len(token))
        if token[:cut] in ranks and token[cut:] in ranks
    )
    merges = [(spelled[left], spelled[right]) for *_, left, right in sorted(halves)]
    return models.BPE(vocabulary, merges, ignore_merges=ignore_merges)


@cache
def _letters() -> dict[int, str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for letters from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def _merges_by_score(vocabulary: dict[str, int], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every way of joining two pieces to a third, in the order of SentencePiece, the best score first."""
    joined = [
        (-scores[piece], vocabulary[piece[:cut]], vocabulary[piece[cut:]], piece[:cut], piece[cut:])
        for piece in vocabulary
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    return [(left, right) for *_, left, right in sorted(joined)]


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), plain])


def _begin_with(tokenizer: Tokenizer, token: str) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, tokenizer.token_to_id(token))]
    )
