"""Tiny models of each kind with tokenizers of their own, and a task that they can learn in seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LABELS = ("good", "bad")
PROMPT = "Is this good or bad? {text}"
GOOD = ("sun", "joy", "cake", "love")
BAD = ("rain", "pain", "mud", "hate")
PLAIN = ("the", "a", "some", "of", "with", "much", "more", "and")

TEXTS = [
    (f"{PLAIN[i]} {mood} {PLAIN[j]} {PLAIN[(i + j) % 8]}" + " so" * (j % 3), label)
    for label, moods in zip(LABELS, (GOOD, BAD), strict=True)
    for i, mood in enumerate(moods)
    for j in (1, 4, 6)
]
"""Texts of different lengths, told apart by one word each."""

_CORPUS = [PROMPT, *LABELS, *(text for text, _ in TEXTS), "summarize: It rains."] * 4
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def write_rows(file: Path, *, summaries: bool = False) -> Path:
    """The texts as JSON lines, with their labels or with one-line summaries of them."""
    rows: list[dict[str, Any]] = [
        {"text": text, "summary": f"it is {label}"} if summaries else {"text": text, "label": label}
        for text, label in TEXTS
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def save_tiny(model_class: str, folder: Path, **settings: Any) -> Path:
    """A model of this Transformers class with random weights (seed 0) and its tokenizer."""
    import torch
    import transformers

    cls = getattr(transformers, model_class)
    family = model_class.removesuffix("ForCausalLM").removesuffix("ForMaskedLM").removesuffix("Model").lower()
    tokenizer = tiny_tokenizer("t5" if family.startswith("t5") else "bert" if "bert" in family else "decoder")
    shape: Mapping[str, Any] = _SHAPES.get(family.split("for")[0], _DECODER)
    special = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id")
        for role in ("bos", "eos", "pad")
        if getattr(tokenizer, f"{role}_token_id") is not None
    }
    torch.manual_seed(0)
    config = cls.config_class(**{"vocab_size": len(tokenizer), **special, **shape, **settings})
    cls(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer(kind: str) -> Any:
    """A tokenizer trained on the texts: for a decoder (with chat template), T5 (ends with </s>) or BERT ([CLS], [SEP])."""
    return {"decoder": _decoder_tokenizer, "t5": _t5_tokenizer, "bert": _bert_tokenizer}[kind]()


_DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
}
_SHAPES: dict[str, Mapping[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    "bert": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    },
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 256},
}


def _decoder_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<user>", "<assistant>", "<end>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        _CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=TEMPLATE,
        extra_special_tokens=["<user>", "<assistant>", "<end>"],
    )


def _t5_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    backend.train_from_iterator(
        _CORPUS, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    )
    backend.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def _bert_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(_CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
