"""A classification head may be trained in another type than its base computes in, and the loss stays what it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.tiny_adapted import section
from support.tiny_tasks import TEXTS, make_tiny

from edgetune.data.tokenize import TokenizedExample
from edgetune.models.adapters import add_adapter
from edgetune.training.objectives.classification_head import ClassificationHead
from edgetune.training.objectives.objective import Exam

LABELS = ("good", "bad", "neither")
_SIZES = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Bert": {},
    "DistilBert": {},
    "T5": {},
    "Roberta": _SIZES,
    "ModernBert": {**_SIZES, "pad_token_id": 0},
}


@pytest.mark.parametrize(("base", "head"), [("bfloat16", "float32"), ("float16", "float32"), ("float32", "bfloat16")])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_of_another_type_than_its_base_gives_the_loss_of_one_type(family: str, base: str, head: str):
    plain, tokenizer = make_tiny(
        f"{family}ForSequenceClassification", noise=0.05, num_labels=len(LABELS), **FAMILIES[family]
    )
    model = add_adapter(plain, section("lora", targets="all-linear"), base="x", classifies=True)
    objective = ClassificationHead(Exam("classify", LABELS), tokenizer, lambda _: [])
    texts = [TokenizedExample(tuple(tokenizer.encode(text)), (n % 3,)) for n, (text, _) in enumerate(TEXTS[:5])]
    objective.attach(model)
    batch = objective.collate(texts)
    expected = objective.loss(model, batch).item()

    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, head if parameter.requires_grad else base))
    loss = objective.loss(model, batch)
    loss.backward()

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=2e-2)
    trained = [p for name, p in model.named_parameters() if p.requires_grad and "modules_to_save" in name]
    assert trained
    assert all(p.grad is not None and p.grad.any() for p in trained)
