"""A T5 and a DistilBERT of two random layers with tokenizers made here, in the manner of tests/tiny_models.py."""

from __future__ import annotations

import string
from pathlib import Path

from edgetune.models.load import quiet_libraries

_PUNCTUATION = string.punctuation + "\n"


def save_tiny_t5(folder: Path) -> Path:
    """A FLAN-T5 (gated feed-forward, output layer of its own) whose tokenizer spells words letter by letter."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    quiet_libraries()
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(sign, -3.0) for sign in string.ascii_letters + string.digits + _PUNCTUATION]
    tokenizer = T5Tokenizer(vocab=pieces, extra_ids=0)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=128,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_distilbert(folder: Path) -> Path:
    """A DistilBERT without a classification head, as it is pretrained; its tokenizer spells words letter by letter."""
    import torch
    from transformers import BertTokenizer, DistilBertConfig, DistilBertForMaskedLM

    quiet_libraries()
    signs = string.ascii_lowercase + string.digits
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *signs,
        *string.punctuation,
        *(f"##{sign}" for sign in signs),
    ]
    tokenizer = BertTokenizer(vocab={piece: number for number, piece in enumerate(pieces)})
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(pieces), dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=128
    )
    DistilBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
