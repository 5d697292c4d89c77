"""An evaluation in the middle of a training leaves no trace: the model, its settings and the random numbers stay."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from support.tiny_objectives import Counter
from support.tiny_tasks import TEMPLATE, TEXTS, make_tiny
from torch import Tensor, nn

from edgetune.data.example import Example, Message
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import TokenizedExample
from edgetune.training.objectives.classification_head import ClassificationHead
from edgetune.training.objectives.language_model import LanguageModel
from edgetune.training.objectives.objective import Exam, Objective
from edgetune.training.objectives.rest import at_rest
from edgetune.training.objectives.seq2seq import Seq2Seq

EXAMPLES = [
    Example((Message("user", text), Message("assistant", label)), where="", label=label, references=(label,))
    for text, label in TEXTS[10:14]
]


def build(kind: str, task: str) -> tuple[Objective, nn.Module, Any]:
    """An objective, a model with a noisy adapter that it is attached to, and a batch."""
    exam = Exam(task, ("good", "bad") if task == "classify" else (), max_new_tokens=4)
    ids = [tuple(range(10, 20)), tuple(range(20, 25))]
    if kind in ("t5", "t5-head"):
        model, tokenizer = make_tiny("T5ForConditionalGeneration" if kind == "t5" else "T5ForSequenceClassification")
        targets, task_type = ["q", "v"], "SEQ_2_SEQ_LM" if kind == "t5" else "SEQ_CLS"
    else:
        model, tokenizer = make_tiny("Gemma2ForCausalLM" if kind == "gemma2" else "LlamaForCausalLM")
        targets, task_type = ["q_proj", "v_proj"], "CAUSAL_LM"

    def tokenize(examples: Any) -> list[TokenizedExample]:
        return [TokenizedExample(tuple(tokenizer.encode(e.messages[0].content)), (0,)) for e in examples]

    objective: Objective
    if kind == "t5":
        objective = Seq2Seq(exam, tokenizer, tokenize, tokenizer.encode)
        batch = [TokenizedExample((*row, 1), (*row[:3], 1)) for row in ids]
    elif kind == "t5-head":
        objective = ClassificationHead(exam, tokenizer, tokenize)
        batch = [TokenizedExample((*row, 1), (0,)) for row in ids]
    else:
        objective = LanguageModel(exam, tokenizer, ChatTemplate(TEMPLATE, "<s>", "</s>"))
        batch = [TokenizedExample(row, (*([-100] * 3), *row[3:])) for row in ids]
    if kind == "prefix":
        model = get_peft_model(model, PrefixTuningConfig(task_type=task_type, num_virtual_tokens=3))
    else:
        if kind == "checkpointing":
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
            model.config.use_cache = False
        model = get_peft_model(model, LoraConfig(task_type=task_type, target_modules=targets, lora_dropout=0.3))
    model.train()
    objective.attach(model)
    return objective, model, objective.collate(batch)


def one_step(objective: Objective, model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Gradients of the batch, with the dropout that the random numbers say; none are left on the model."""
    loss = objective.loss(model, batch)
    loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {**found, "loss": loss.detach()}


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        *((kind, "classify") for kind in ("llama", "checkpointing", "gemma2", "prefix", "t5", "t5-head")),
        *((kind, "summarize") for kind in ("llama", "checkpointing", "gemma2", "prefix", "t5")),
    ],
)
def test_training_goes_on_as_if_nothing_had_been_asked(kind: str, task: str):
    objective, model, batch = build(kind, task)
    base = model.get_base_model()
    base.get_input_embeddings().eval()  # a module in another mode than the rest
    torch.manual_seed(7)
    expected = one_step(objective, model, batch)

    torch.manual_seed(7)
    before = state_of(model)
    scores = objective.score(model, EXAMPLES, Counter())
    assert scores is not None
    after = state_of(model)
    assert after == before
    found = one_step(objective, model, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything of a model and of the random number generators that an evaluation might change, as plain values."""
    base = model.get_base_model()
    return {
        "training": [module.training for module in model.modules()],
        "learns": [parameter.requires_grad for parameter in model.parameters()],
        "weights": [parameter.detach().double().sum().item() for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules()],
        "config": copy.deepcopy(base.config.to_dict()),
        "generation": base.generation_config.to_dict() if getattr(base, "generation_config", None) else None,
        "attention": base.config._attn_implementation,
        "checkpointing": base.is_gradient_checkpointing,
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
    }


def test_random_numbers_are_used_and_given_back_even_after_a_failure():
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    before = torch.get_rng_state()

    def fail() -> None:
        with at_rest(model):
            assert not model.training
            assert not torch.is_grad_enabled()
            torch.rand(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert all(module.training for module in model.modules())
