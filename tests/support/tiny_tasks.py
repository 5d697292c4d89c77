"""Tiny models of each kind with tokenizers of their own, and a task that they can learn in seconds.

The tokenizers know the task's words; other words they spell, so that any text can be told from any other.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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
_WORDS = sorted({word.lower() for text in _CORPUS for word in text.split() if word.isalpha()})
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
    """A model of this Transformers class with random weights (seed 0) and its tokenizer, as a folder."""
    model, tokenizer = make_tiny(model_class, **settings)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tiny(model_class: str, *, noise: float = 0.0, **settings: Any) -> tuple[Any, Any]:
    """A model of this Transformers class with random weights (seed 0) in evaluation mode, and its tokenizer.

    `settings` are those of its configuration; `noise` (standard deviation) makes weights, and so answers, wilder.
    """
    import torch
    import transformers

    cls = getattr(transformers, model_class)
    family = model_class.partition("For")[0].lower()
    tokenizer = tiny_tokenizer("t5" if family == "t5" else "bert" if "bert" in family else "decoder")
    special = {
        f"{role}_token_id": getattr(tokenizer, f"{role}_token_id")
        for role in ("bos", "eos", "pad")
        if getattr(tokenizer, f"{role}_token_id") is not None
    }
    torch.manual_seed(0)
    shape = _SHAPES.get(family, _DECODER)
    model = cls(cls.config_class(**{"vocab_size": len(tokenizer), **special, **shape, **settings})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model, tokenizer


def tiny_tokenizer(kind: str) -> Any:
    """For a decoder (bytes, with a chat template), for T5 (texts end with </s>) or for BERT ([CLS] … [SEP])."""
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
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -6.0)]
    pieces += [(f"▁{word}", -2.0) for word in _WORDS]
    pieces += [(sign, -6.0) for sign in string.ascii_letters + string.digits + string.punctuation + "\n"]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def _bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    signs = string.ascii_lowercase + string.digits
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *signs, *string.punctuation, *(f"##{s}" for s in signs)]
    pieces += [word for word in _WORDS if word not in pieces]
    return BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
