"""Loss and gradients of each objective are those of Transformers' own models, whatever adapter is on them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny_objectives import PROMPT_LEARNING, adapt
from support.tiny_tasks import TEMPLATE, make_tiny, save_tiny
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import TokenizedExample
from edgetune.training.objectives.adapted import base_model, has_virtual_embeddings, has_virtual_tokens
from edgetune.training.objectives.classification_head import ClassificationHead
from edgetune.training.objectives.language_model import LanguageModel
from edgetune.training.objectives.objective import Exam, Objective
from edgetune.training.objectives.seq2seq import Seq2Seq

DECODERS = {
    "llama": ("LlamaForCausalLM", {}),
    "qwen2": ("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", {}),
    "granite": ("GraniteForCausalLM", {"logits_scaling": 4.0}),
    "mistral-windowed": ("MistralForCausalLM", {"sliding_window": 6}),
    "gemma2": ("Gemma2ForCausalLM", {"sliding_window": 6}),
    "gemma3": ("Gemma3ForCausalLM", {"sliding_window": 6}),
}
PACKED = {"llama", "qwen2", "qwen3", "granite"}
ENCODER_DECODERS = {
    "t5": ("T5ForConditionalGeneration", {}),
    "flan-t5": ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}
HEADED = {
    "llama": ("LlamaForSequenceClassification", {}),
    "qwen2": ("Qwen2ForSequenceClassification", {}),
    "gemma2": ("Gemma2ForSequenceClassification", {"sliding_window": 6}),
    "bert": ("BertForSequenceClassification", {}),
    "distilbert": ("DistilBertForSequenceClassification", {}),
    "t5": ("T5ForSequenceClassification", {}),
}
LABELS = ("good", "bad", "neither")


def make(kinds: dict[str, tuple[str, dict[str, Any]]], family: str, method: str, task: str) -> tuple[nn.Module, Any]:
    """A tiny model, with every weight trained if the method is full, and its tokenizer."""
    model_class, settings = kinds[family]
    if task == "SEQ_CLS":
        settings = {**settings, "num_labels": len(LABELS)}
    model, tokenizer = make_tiny(model_class, noise=0.05, **settings)
    return (model if method == "full" else adapt(model, method, task)), tokenizer


def tokenize(*_: Any) -> Any:
    raise AssertionError("no text is read here")


def language_model(tokenizer: Any) -> LanguageModel:
    return LanguageModel(Exam("chat"), tokenizer, ChatTemplate(TEMPLATE, "<s>", "</s>"))


def seq2seq(tokenizer: Any) -> Seq2Seq:
    return Seq2Seq(Exam("summarize"), tokenizer, tokenize, tokenizer.encode)


def head(tokenizer: Any) -> ClassificationHead:
    return ClassificationHead(Exam("classify", LABELS), tokenizer, tokenize)


def conversations(shared: int = 4) -> list[TokenizedExample]:
    """Random examples that begin alike; of each the last tokens are supervised."""
    torch.manual_seed(1)
    beginning = torch.randint(10, 200, (shared,)).tolist()
    examples = []
    for own, supervised in ((9, 3), (4, 5), (12, 1), (2, 2)):
        ids = beginning + torch.randint(10, 200, (own + supervised,)).tolist()
        labels = [-100] * (shared + own) + ids[shared + own :]
        examples.append(TokenizedExample(tuple(ids), tuple(labels)))
    return examples


def pairs() -> list[TokenizedExample]:
    """Random sources and targets of different lengths, each with </s> (1) at its end."""
    torch.manual_seed(1)
    rows = [[torch.randint(3, 100, (length,)).tolist() for length in lengths] for lengths in ((9, 2), (3, 6), (12, 1))]
    return [TokenizedExample((*source, 1), (*target, 1)) for source, target in rows]


def texts(tokenizer: Any) -> list[TokenizedExample]:
    """Random texts of different lengths with the numbers of their labels."""
    torch.manual_seed(1)
    rows = [torch.randint(10, 100, (length,)).tolist() for length in (9, 3, 12, 6)]
    end = [tokenizer.eos_token_id] if tokenizer.eos_token_id == 1 else []  # T5 gives its score there
    return [TokenizedExample((*row, *end), (label,)) for row, label in zip(rows, (0, 2, 1, 2), strict=True)]


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def padded_batch(examples: Sequence[TokenizedExample], pad_token_id: int) -> dict[str, Tensor]:
    """What Transformers' models read, labels included."""
    ids = [example.input_ids for example in examples]
    return {
        "input_ids": padded(ids, pad_token_id),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded([example.labels for example in examples], -100),
    }


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compare(objective: Objective, model: nn.Module, examples: Sequence[TokenizedExample], expected: Tensor) -> None:
    """The objective's loss of `model` and its gradients are those of `expected`, a sum over the examples."""
    expected.backward()
    reference = gradients(model)
    model.zero_grad()
    objective.attach(model)
    loss = objective.loss(model, objective.collate(examples))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6)
    assert gradients(model).keys() == reference.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in reference.values())
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, reference[name], rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize("method", ["full", "lora", *PROMPT_LEARNING])
@pytest.mark.parametrize("family", DECODERS)
def test_a_decoder_learns_by_the_loss_of_transformers(family: str, method: str):
    model, tokenizer = make(DECODERS, family, method, "CAUSAL_LM")
    examples = conversations()
    counted = sum(label != -100 for example in examples for label in example.labels)
    objective = language_model(tokenizer)
    compare(objective, model, examples, model(**padded_batch(examples, 0)).loss * counted)
    packs = family in PACKED and method not in PROMPT_LEARNING
    batch = objective.collate(examples)
    assert (batch["weight"], batch["supervised"]) == (counted, counted)
    assert batch["tokens"] == sum(len(example.input_ids) for example in examples)
    assert len(batch["input_ids"]) == (1 if packs else len(examples))


@pytest.mark.parametrize("method", ["full", "lora", *PROMPT_LEARNING])
@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_an_encoder_decoder_learns_by_the_loss_of_transformers(family: str, method: str):
    model, tokenizer = make(ENCODER_DECODERS, family, method, "SEQ_2_SEQ_LM")
    examples = pairs()
    counted = sum(len(example.labels) for example in examples)
    objective = seq2seq(tokenizer)
    compare(objective, model, examples, model(**padded_batch(examples, 0)).loss * counted)
    batch = objective.collate(examples)
    assert (batch["weight"], batch["supervised"]) == (counted, counted)
    assert batch["tokens"] == counted + sum(len(example.input_ids) for example in examples)


def suits(family: str, method: str) -> bool:
    """Which adapters PEFT and Transformers can put on a model with a head.

    T5 with a head reads no embeddings, and neither it nor DistilBERT takes keys and values from outside.
    """
    return method in ("full", "lora") or (family != "t5" and (family, method) != ("distilbert", "prefix"))


@pytest.mark.parametrize(
    ("family", "method"),
    [(family, method) for family in HEADED for method in ("full", "lora", *PROMPT_LEARNING) if suits(family, method)],
)
def test_a_head_learns_by_the_loss_of_transformers_for_each_text_alone(family: str, method: str):
    model, tokenizer = make(HEADED, family, method, "SEQ_CLS")
    examples = texts(tokenizer)
    alone = [model(torch.tensor([e.input_ids]), torch.ones(1, len(e.input_ids))).logits for e in examples]
    numbers = torch.tensor([example.labels[0] for example in examples])
    expected = nn.functional.cross_entropy(torch.cat(alone), numbers, reduction="sum")
    compare(head(tokenizer), model, examples, expected)


@pytest.mark.parametrize("family", HEADED)
def test_a_head_learns_by_the_loss_of_transformers_for_a_padded_batch(family: str):
    model, tokenizer = make(HEADED, family, "full", "SEQ_CLS")
    examples = texts(tokenizer)
    batch = padded_batch(examples, 0)
    batch["labels"] = batch["labels"][:, 0]
    compare(head(tokenizer), model, examples, model(**batch).loss * len(examples))


@pytest.mark.parametrize("family", HEADED)
def test_class_weights_are_those_of_torchs_weighted_cross_entropy(family: str):
    model, tokenizer = make(HEADED, family, "full", "SEQ_CLS")
    examples = texts(tokenizer)
    counts = torch.tensor([1, 1, 2])
    weights = len(examples) / (len(LABELS) * counts)
    weighted = [replace(example, weight=float(weights[example.labels[0]])) for example in examples]
    objective = head(tokenizer)
    objective.attach(model)
    batch = objective.collate(weighted)
    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    expected = nn.CrossEntropyLoss(weight=weights)(logits, batch["labels"])
    assert (objective.loss(model, batch) / batch["weight"]).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
def test_the_weight_of_an_example_counts_for_each_of_its_tokens(family: str):
    if family == "t5":
        model, tokenizer = make(ENCODER_DECODERS, family, "full", "SEQ_2_SEQ_LM")
        examples, objective = pairs(), seq2seq(tokenizer)
    else:
        model, tokenizer = make(DECODERS, family, "full", "CAUSAL_LM")
        examples, objective = conversations(), language_model(tokenizer)
    weights = (0.5, 2.0, 1.25, 1.0)
    weighted = [replace(example, weight=weight) for example, weight in zip(examples, weights, strict=False)]
    total, count = torch.zeros(()), 0.0
    for example in weighted:
        supervised = sum(label != -100 for label in example.labels)
        total = total + example.weight * supervised * model(**padded_batch([example], 0)).loss
        count += example.weight * supervised
    compare(objective, model, weighted, total)
    assert objective.collate(weighted)["weight"] == pytest.approx(count)


@pytest.mark.parametrize("pad_token", ["<pad>", "</s>", "<user>"])
@pytest.mark.parametrize("method", ["full", *PROMPT_LEARNING])
def test_the_pad_token_changes_no_score_of_a_decoder_with_a_head(method: str, pad_token: str):
    model, tokenizer = make(HEADED, "llama", method, "SEQ_CLS")
    examples = texts(tokenizer)
    expected = torch.cat([model(torch.tensor([e.input_ids]), torch.ones(1, len(e.input_ids))).logits for e in examples])
    tokenizer.pad_token = pad_token
    objective = head(tokenizer)
    objective.attach(model)
    torch.testing.assert_close(objective._logits(model, objective.collate(examples)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["head", "seq2seq", "language model"])
def test_a_batch_is_as_wide_as_its_longest_example(kind: str):
    family = {"head": "bert", "seq2seq": "t5", "language model": "gemma2"}[kind]
    kinds = {"head": HEADED, "seq2seq": ENCODER_DECODERS, "language model": DECODERS}[kind]
    model, tokenizer = make(kinds, family, "full", "SEQ_CLS" if kind == "head" else "other")
    objective = {"head": head, "seq2seq": seq2seq, "language model": language_model}[kind](tokenizer)
    objective.attach(model)
    examples = {"head": texts(tokenizer), "seq2seq": pairs(), "language model": conversations()}[kind]
    for batch in (examples, examples[:2], examples[1:2]):
        longest = max(len(example.input_ids) for example in batch)
        assert objective.collate(batch)["input_ids"].shape == (len(batch), longest)


def test_the_targets_of_a_batch_are_as_wide_as_the_longest_target():
    _, tokenizer = make(ENCODER_DECODERS, "t5", "full", "SEQ_2_SEQ_LM")
    assert seq2seq(tokenizer).collate(pairs()[:1])["labels"].shape == (1, 3)
    assert seq2seq(tokenizer).collate(pairs())["labels"].shape == (3, 7)


def test_examples_share_no_prompt_where_dropout_would_share_its_noise():
    model, tokenizer = make_tiny("LlamaForCausalLM")
    shared = []
    for dropout in (0.0, 0.1):
        adapted = get_peft_model(
            copy.deepcopy(model), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], lora_dropout=dropout)
        )
        objective = language_model(tokenizer)
        objective.attach(adapted)
        shared.append(objective.collate(conversations(shared=4))["layout"].shared)
    assert shared == [4, 0]


def test_compiled_layers_serve_batches_of_every_layout():
    from torch._dynamo.testing import CompileCounter

    model, tokenizer = make(DECODERS, "llama", "full", "CAUSAL_LM")
    objective = language_model(tokenizer)
    objective.attach(model)
    batches = [objective.collate(conversations()[:count]) for count in (2, 3, 4)]
    expected = [objective.loss(model, batch).item() for batch in batches]
    counter = CompileCounter()
    for layer in model.model.layers:
        layer.compile(backend=counter, dynamic=True)
    found, compiled = [], []
    for batch in batches:
        found.append(objective.loss(model, batch).item())
        compiled.append(counter.frame_count)
    assert found == pytest.approx(expected, rel=1e-6)
    assert 0 < compiled[0] == compiled[-1]


@pytest.mark.parametrize("family", ["llama", "gemma2", "t5"])
def test_in_bfloat16_the_loss_is_that_of_transformers_to_its_precision(family: str):
    if family == "t5":
        model, tokenizer = make(ENCODER_DECODERS, family, "lora", "SEQ_2_SEQ_LM")
        examples, objective = pairs(), seq2seq(tokenizer)
    else:
        model, tokenizer = make(DECODERS, family, "lora", "CAUSAL_LM")
        examples, objective = conversations(), language_model(tokenizer)
    exact = model(**padded_batch(examples, 0)).loss.item()
    model.to(torch.bfloat16)
    theirs = model(**padded_batch(examples, 0)).loss.item()
    objective.attach(model)
    batch = objective.collate(examples)
    ours = (objective.loss(model, batch) / batch["weight"]).item()
    assert ours == pytest.approx(exact, rel=5e-3)
    assert ours == pytest.approx(theirs, rel=5e-3)


@pytest.mark.parametrize("family", ["llama", "t5", "bert"])
def test_on_an_nf4_base_loss_and_gradients_are_those_of_transformers(tmp_path: Path, family: str):
    from peft import prepare_model_for_kbit_training

    from edgetune.models.load import load_model
    from edgetune.models.locate import locate_model

    classes = {"llama": "LlamaForCausalLM", "t5": "T5ForConditionalGeneration", "bert": "BertForPreTraining"}
    folder = save_tiny(classes[family], tmp_path / "base")
    labels = LABELS if family == "bert" else None
    base = load_model(locate_model(str(folder)), dtype=torch.float32, quantize="nf4", labels=labels)
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    task = {"llama": "CAUSAL_LM", "t5": "SEQ_2_SEQ_LM", "bert": "SEQ_CLS"}[family]
    torch.manual_seed(0)
    model = adapt(base, "lora", task)
    assert any("4bit" in type(module).__name__.lower() for module in model.modules())
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    objective = {"llama": language_model, "t5": seq2seq, "bert": head}[family](tokenizer)
    examples = {"llama": conversations, "t5": pairs, "bert": lambda: texts(tokenizer)}[family]()
    batch = padded_batch(examples, 0)
    if family == "bert":
        batch["labels"] = batch["labels"][:, 0]
    counted = int((batch["labels"] != -100).sum())
    compare(objective, model, examples, model(**batch).loss * counted)


@pytest.mark.parametrize("method", PROMPT_LEARNING)
def test_an_adapter_is_known_behind_ddp(method: str):
    model, _ = make(DECODERS, "llama", method, "CAUSAL_LM")
    wrapped = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = model
    assert has_virtual_tokens(wrapped)
    assert has_virtual_embeddings(wrapped) == (method != "prefix")
    assert base_model(wrapped) is model.get_base_model()
