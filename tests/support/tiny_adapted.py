"""Models of two random layers of each kind that can carry an adapter, each recipe section in miniature, and a batch."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from edgetune.recipe.methods import Method

WIDTH, INNER, LAYERS, HEADS, VOCABULARY, LABELS = 32, 64, 2, 4, 96, 3

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_LLAMA = {**_SHAPE, "num_key_value_heads": 2}
_BERT = {**_SHAPE, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": WIDTH // HEADS,
    "d_ff": INNER,
    "num_layers": LAYERS,
    "num_heads": HEADS,
    "dropout_rate": 0.0,
    "classifier_dropout": 0.0,
    "decoder_start_token_id": 0,
    "initializer_factor": 0.2,
}
_DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": WIDTH,
    "hidden_dim": INNER,
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "seq_classif_dropout": 0.0,
}
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", _LLAMA),
    "llama with head": ("LlamaForSequenceClassification", _LLAMA),
    "t5": ("T5ForConditionalGeneration", _T5),
    "t5 with head": ("T5ForSequenceClassification", _T5),
    "bert with head": ("BertForSequenceClassification", _BERT),
    "roberta with head": ("RobertaForSequenceClassification", {**_BERT, "pad_token_id": 1}),
    "distilbert with head": ("DistilBertForSequenceClassification", _DISTILBERT),
}

KINDS = tuple(_MODELS)

SECTIONS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4, "alpha": 8},
    "adalora": {"init_rank": 6, "target_rank": 3},
    "ia3": {},
    "loha": {"rank": 4},
    "lokr": {"rank": 2},
    "hira": {"rank": 4},
    "shira": {"rank": 2},
    "oft": {"block_size": 8},
    "vera": {"rank": 4},
    "prefix": {"virtual_tokens": 4},
    "prompt": {"virtual_tokens": 4},
    "p-tuning": {"virtual_tokens": 4, "hidden_size": 16},
}
"""What a recipe says for each method that has a section of its own, small enough for these models."""


def section(kind: str, **fields: Any) -> Any:
    """A recipe's `method` of this type, as the schema reads it."""
    return TypeAdapter(Method).validate_python({"type": kind, **fields})


def classifies(kind: str) -> bool:
    """True for the kinds with a classification head."""
    return kind.endswith(" with head")


def build(kind: str, *, meta: bool = False, **settings: Any) -> Any:
    """A fresh model of this kind, the same weights each time; with `meta` its shapes alone."""
    import torch
    import transformers

    name, shape = _MODELS[kind]
    cls = getattr(transformers, name)
    labels = {"num_labels": LABELS} if classifies(kind) else {}
    torch.manual_seed(0)
    with torch.device("meta" if meta else "cpu"):
        return cls(cls.config_class(**{**shape, **labels, **settings})).eval()


def inputs(kind: str) -> dict[str, Any]:
    """A batch of four texts of twelve tokens as the model reads them, without labels."""
    import torch

    ids = torch.randint(3, VOCABULARY, (4, 12), generator=torch.Generator().manual_seed(7))
    ids[:, -1] = 1
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "t5":
        batch["decoder_input_ids"] = ids
    return batch


def loss_of(model: Any, kind: str) -> Any:
    """The model's own mean loss on the batch."""
    import torch

    batch = inputs(kind)
    labels = torch.tensor([0, 1, 2, 1]) if classifies(kind) else batch["input_ids"]
    if kind == "t5":
        del batch["decoder_input_ids"]
    return model(**batch, labels=labels).loss


def logits_of(model: Any, kind: str) -> Any:
    """The model's logits on the batch, without gradients, in evaluation mode."""
    import torch

    with torch.no_grad():
        return model.eval()(**inputs(kind)).logits


def train_some(model: Any, kind: str, *, steps: int = 2, learning_rate: float = 1e-3) -> None:
    """Some steps of AdamW on what is trainable."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=learning_rate)
    for _ in range(steps):
        loss_of(model, kind).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def stir(model: Any, scale: float = 0.05) -> None:
    """Move every trainable weight at random, so that nothing is zero or the identity any more."""
    import torch

    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * scale)
