"""What a model answers at an evaluation: the same as for one question at a time, by plain passes of Transformers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from support.tiny_objectives import PROMPT_LEARNING, Counter, adapt
from support.tiny_tasks import BAD, GOOD, LABELS, PROMPT, TEMPLATE, TEXTS, make_tiny
from torch import Tensor, nn

from edgetune import events
from edgetune.data.example import Example, Message
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import TokenizedExample, tokenize_examples
from edgetune.metrics.samples import Sample, Samples
from edgetune.training.objectives import language_model, questions, seq2seq
from edgetune.training.objectives.adapted import base_model
from edgetune.training.objectives.classification_head import ClassificationHead
from edgetune.training.objectives.generation import Ending, GeneratedText, generate
from edgetune.training.objectives.language_model import LanguageModel
from edgetune.training.objectives.objective import Exam, Objective
from edgetune.training.objectives.packing import plain_attention
from edgetune.training.objectives.scores import score
from edgetune.training.objectives.seq2seq import Seq2Seq

DECODERS = {
    "llama": ("LlamaForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", {}),
    "granite": ("GraniteForCausalLM", {"logits_scaling": 4.0}),
    "mistral-windowed": ("MistralForCausalLM", {"sliding_window": 6}),
    "gemma2": ("Gemma2ForCausalLM", {"sliding_window": 6}),
    "gemma3": ("Gemma3ForCausalLM", {"sliding_window": 6}),
}
ADAPTED = [("llama", "lora"), *(("llama", method) for method in PROMPT_LEARNING), ("gemma2", "prefix")]
T5S = ["none", "lora", *PROMPT_LEARNING]
CHOICES = (*GOOD, *BAD, "more of the sun")


def decoder(family: str, method: str = "none", **exam: Any) -> tuple[LanguageModel, nn.Module, nn.Module, Any]:
    """An objective, the model that it is attached to, a copy of that as it was, and their tokenizer."""
    model_class, settings = DECODERS[family]
    model, tokenizer = make_tiny(model_class, noise=0.2, **settings)
    model = model if method == "none" else adapt(model, method, "CAUSAL_LM")
    plain = copy.deepcopy(model)
    objective = LanguageModel(Exam(**{"task": "classify", "labels": CHOICES, **exam}), tokenizer, template())
    objective.attach(model)
    return objective, model, plain, tokenizer


def t5(method: str, **exam: Any) -> tuple[Seq2Seq, nn.Module, nn.Module, Any]:
    model, tokenizer = make_tiny("T5ForConditionalGeneration", noise=0.3)
    model = model if method == "none" else adapt(model, method, "SEQ_2_SEQ_LM")
    plain = copy.deepcopy(model)

    def tokenize(examples: Sequence[Example]) -> Sequence[TokenizedExample]:
        return [TokenizedExample(tuple(tokenizer.encode(e.messages[0].content)), (1,)) for e in examples]

    objective = Seq2Seq(Exam(**{"task": "classify", "labels": CHOICES, **exam}), tokenizer, tokenize, tokenizer.encode)
    objective.attach(model)
    return objective, model, plain, tokenizer


def template() -> ChatTemplate:
    return ChatTemplate(TEMPLATE, "<s>", "</s>")


def examples(count: int = 8) -> list[Example]:
    """Questions of different lengths, good and bad in turns."""
    texts = [text for pair in zip(TEXTS[:12], TEXTS[12:], strict=True) for text in pair][:count]
    return [
        Example(
            messages=(Message("user", PROMPT.replace("{text}", text)), Message("assistant", label)),
            where=f"rows:{number}",
            label=label,
            references=(label,),
        )
        for number, (text, label) in enumerate(texts)
    ]


def prompt_ids(example: Example, tokenizer: Any) -> list[int]:
    prompt = template().render(example.messages[:-1], add_generation_prompt=True)
    return tokenizer.encode(prompt, add_special_tokens=False)


def logits_of(model: nn.Module, ids: Sequence[int], start: Sequence[int] | None) -> Tensor:
    """Logits after each token (tokens, vocabulary): of `ids`, or behind an encoder that reads them of `start`."""
    inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    if start is not None:
        return model(**inputs, decoder_input_ids=torch.tensor([start])).logits[0]
    return model(**inputs).logits[0][-len(ids) :]


def log_likelihoods(
    model: nn.Module, prompt: Sequence[int], answers: Sequence[Sequence[int]], *, encodes: bool
) -> list[float]:
    """Of each answer to the prompt, by a forward pass of its own."""
    scores = []
    for answer in answers:
        if encodes:
            logits = logits_of(model, prompt, [0, *answer[:-1]])
        else:
            logits = logits_of(model, [*prompt, *answer], None)[len(prompt) - 1 : -1]
        scores.append(float(logits.log_softmax(-1)[range(len(answer)), answer].sum()))
    return scores


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], list[float]]:
    """Prompts that were asked -> the log-likelihoods that the choice was made by."""
    scores: dict[tuple[int, ...], list[float]] = {}

    def record(logits: Tensor, targets: Tensor, asked: Sequence[questions.Question]) -> list[int]:
        found = questions.log_likelihoods(logits, targets, asked)
        scores.update({question.prompt: row for question, row in zip(asked, found, strict=True)})
        return likeliest(logits, targets, asked)

    likeliest = questions.likeliest
    monkeypatch.setattr(language_model, "likeliest", record)
    monkeypatch.setattr(seq2seq, "likeliest", record)
    return scores


def greedy(model: nn.Module, prompt: Sequence[int], ends: set[int], limit: int, *, encodes: bool) -> list[int]:
    """What follows the prompt, token by token, each time with a forward pass over everything."""
    written: list[int] = []
    while len(written) < limit:
        logits = logits_of(model, prompt, [0, *written]) if encodes else logits_of(model, [*prompt, *written], None)
        token = int(logits[-1].argmax())
        if token in ends:
            break
        written.append(token)
    return written


def check_choice(
    objective: Objective, model: nn.Module, expected: dict[tuple[int, ...], list[float]], seen: Any
) -> None:
    """The model chooses for each of the examples the likeliest label, and finds each as likely as expected."""
    progress = Counter()
    chosen = objective.choose(model, examples(len(expected)), progress)
    assert chosen == [CHOICES[row.index(max(row))] for row in expected.values()]
    assert progress.done == len(expected)
    for prompt, row in expected.items():
        assert seen[prompt] == pytest.approx(row, abs=1e-4)


@pytest.mark.parametrize(("family", "method"), [*((family, "none") for family in DECODERS), *ADAPTED])
@torch.no_grad()
def test_a_decoder_chooses_the_label_that_it_finds_likeliest(family: str, method: str, seen: Any):
    objective, model, plain, tokenizer = decoder(family, method)
    answers = [tokenizer.encode(f"{label}<end>", add_special_tokens=False) for label in CHOICES]
    prompts = [prompt_ids(example, tokenizer) for example in examples(4)]
    expected = {tuple(prompt): log_likelihoods(plain, prompt, answers, encodes=False) for prompt in prompts}
    check_choice(objective, model, expected, seen)


@pytest.mark.parametrize("method", T5S)
@torch.no_grad()
def test_an_encoder_decoder_chooses_the_label_that_it_finds_likeliest(method: str, seen: Any):
    objective, model, plain, tokenizer = t5(method)
    answers = [tokenizer.encode(label) for label in CHOICES]
    sources = [tokenizer.encode(example.messages[0].content) for example in examples(4)]
    expected = {tuple(source): log_likelihoods(plain, source, answers, encodes=True) for source in sources}
    check_choice(objective, model, expected, seen)


@pytest.mark.parametrize(
    "model_class",
    ["BertForSequenceClassification", "DistilBertForSequenceClassification", "LlamaForSequenceClassification",
     "T5ForSequenceClassification"],
)  # fmt: skip
@torch.no_grad()
def test_a_head_chooses_the_label_with_the_highest_score(model_class: str):
    noise = 1.0 if model_class.startswith("Bert") else 0.3
    model, tokenizer = make_tiny(model_class, noise=noise, num_labels=len(CHOICES))

    def tokenize(asked: Sequence[Example]) -> Sequence[TokenizedExample]:
        return [TokenizedExample(tuple(tokenizer.encode(e.messages[0].content)), (0,)) for e in asked]

    objective = ClassificationHead(Exam("classify", CHOICES), tokenizer, tokenize)
    objective.attach(model)
    asked = examples(24)
    alone = [int(model(torch.tensor([text.input_ids])).logits.argmax()) for text in tokenize(asked)]
    assert len(set(alone)) > 1
    assert objective.choose(model, asked, Counter()) == [CHOICES[number] for number in alone]


@pytest.mark.parametrize(("family", "method"), [*((family, "none") for family in DECODERS), *ADAPTED])
@torch.no_grad()
def test_a_decoder_writes_what_greedy_decoding_of_one_prompt_at_a_time_gives(family: str, method: str):
    objective, model, plain, tokenizer = decoder(family, method, task="summarize", labels=(), max_new_tokens=7)
    asked, progress = examples(6), Counter()
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end>")}
    expected = [greedy(plain, prompt_ids(e, tokenizer), ends, 7, encodes=False) for e in asked]
    written = objective.write(model, asked, progress)
    assert written == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]
    assert len(set(written)) > 1
    assert max(map(len, expected)) == 7
    assert progress.done == len(asked)


@torch.no_grad()
def test_a_decoder_stops_where_its_own_generation_configuration_says():
    objective, model, plain, tokenizer = decoder(
        next(iter(DECODERS)), "none", task="summarize", labels=(), max_new_tokens=7
    )
    asked = examples(6)
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end>")}
    own = greedy(plain, prompt_ids(asked[0], tokenizer), ends, 7, encodes=False)[3]
    base_model(model).generation_config.eos_token_id = [tokenizer.eos_token_id, own]
    expected = [greedy(plain, prompt_ids(e, tokenizer), {*ends, own}, 7, encodes=False) for e in asked]
    written = objective.write(model, asked, Counter())
    assert written == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]
    assert len(expected[0]) <= 3


class Scripted(nn.Module):
    """A model that generates given ids."""

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__()
        self.weight, self.ids = nn.Parameter(torch.zeros(1)), ids

    def generate(self, input_ids: torch.Tensor, **settings: Any) -> torch.Tensor:
        return torch.cat([input_ids, torch.tensor([[*self.ids]] * len(input_ids))], dim=1)


@pytest.mark.parametrize(
    ("written", "text", "marked", "ended"),
    [
        ("[THINK]the sun[/THINK]so<s>it is<end>", "the sunsoit is", "[THINK]the sun[/THINK]soit is", True),
        ("[THINK]the sun", "the sun", "[THINK]the sun", False),
        ("the sun</s>", "the sun", "the sun", True),
    ],
)
def test_special_tokens_that_set_reasoning_apart_are_kept_for_those_who_ask(
    written: str, text: str, marked: str, ended: bool
) -> None:
    tokenizer = copy.deepcopy(make_tiny("LlamaForCausalLM")[1])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<user>", "<assistant>", "<end>", "[THINK]", "[/THINK]"]})
    ids = tokenizer.encode(written, add_special_tokens=False)
    end = Ending((tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end>")))
    found = generate(Scripted(ids), [[5, 6]], tokenizer, end, len(ids), Counter())
    assert found == [GeneratedText(text, marked, ended)]


@pytest.mark.parametrize("method", T5S)
@torch.no_grad()
def test_an_encoder_decoder_writes_what_greedy_decoding_of_one_source_at_a_time_gives(method: str):
    objective, model, plain, tokenizer = t5(method, task="summarize", labels=(), max_new_tokens=7)
    asked, progress = examples(6), Counter()
    sources = [tokenizer.encode(e.messages[0].content) for e in asked]
    expected = [greedy(plain, source, {1}, 7, encodes=True) for source in sources]
    written = objective.write(model, asked, progress)
    assert written == [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]
    assert len(set(written)) > 1
    assert progress.done == len(asked)


ENDINGS = {
    "a special token": "<end>",
    "an added token that is not special": "<done>",
    "plain text": " ###\n",
    "plain text and a special token": " ###</s>",
    "the end of text": "</s>",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_answer_ends_where_the_template_ends_it(ending: str):
    chat = ChatTemplate(TEMPLATE.replace("<end>", ENDINGS[ending]), "<s>", "</s>")
    model, tokenizer = make_tiny("LlamaForCausalLM")
    tokenizer.add_tokens(["<done>"])
    model.resize_token_embeddings(len(tokenizer))
    objective = LanguageModel(Exam("summarize", max_new_tokens=30), tokenizer, chat)
    objective.attach(model)
    asked = [replace(e.with_answer("it is so"), references=("it is so",)) for e in examples(3)]

    def encode(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    teach(objective, model, tokenize_examples(asked, chat, encode, 256).examples)
    assert objective.write(model, asked, Counter()) == ["it is so"] * 3
    scores = objective.score(model, asked, Counter())
    assert scores is not None
    assert scores.values == {f"eval_{name}": 100 for name in ("rouge1", "rouge2", "rougeL", "rougeLsum")}


def teach(objective: Objective, model: nn.Module, rows: Sequence[TokenizedExample]) -> None:
    """Train until the model knows the rows by heart."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = objective.collate(rows)
    for _ in range(200):
        optimizer.zero_grad()
        loss = objective.loss(model, batch) / batch["weight"]
        loss.backward()
        optimizer.step()
        if loss < 0.02:
            return
    raise AssertionError("the model has not learned")


@torch.no_grad()
def test_labels_are_scored_as_scikit_learn_does():
    objective, model, *_ = decoder("llama", labels=LABELS)
    asked = examples(24)
    gold, chosen = [e.label for e in asked], objective.choose(model, asked, Counter())
    scores = objective.score(model, asked, Counter())
    assert scores is not None
    precision, recall, f1, _ = precision_recall_fscore_support(gold, chosen, average="macro", zero_division=0)
    expected = {"accuracy": accuracy_score(gold, chosen), "precision": precision, "recall": recall, "macro_f1": f1}
    assert scores.values == pytest.approx({f"eval_{name}": value for name, value in expected.items()})
    assert scores.details["confusion"] == confusion_matrix(gold, chosen, labels=LABELS).tolist()
    assert scores.details["items"] == 24
    each = precision_recall_fscore_support(gold, chosen, labels=LABELS, zero_division=0)
    for number, label in enumerate(LABELS):
        found = scores.details["per_label"][label]
        assert (found["precision"], found["recall"], found["f1"], found["support"]) == pytest.approx(
            tuple(column[number] for column in each)
        )


@torch.no_grad()
def test_further_metrics_of_an_evaluation_come_from_the_registry():
    objective, model, *_ = decoder("llama", labels=LABELS, metrics=("weighted_f1",))
    asked = examples(24)
    gold, chosen = [e.label for e in asked], objective.choose(model, asked, Counter())
    scores = objective.score(model, asked, Counter())
    assert scores is not None
    expected = precision_recall_fscore_support(gold, chosen, average="weighted", zero_division=0)[2]
    assert scores.values["eval_weighted_f1"] == scores.details["weighted_f1"] == pytest.approx(expected)
    # A metric that fails costs no training its result.
    said: list[events.Event] = []
    with events.listen(said.append):
        left = score("classify", Samples((Sample("a", gold="x", predicted="x"),), ("x", "y")), ["rougeL"])
    assert "eval_rougeL" not in left.values
    what = "metric rougeL: 1 of 1 answers have no text, such as that to a; this evaluation continues without it"
    assert said == [events.Notice("warning", what)]


@torch.no_grad()
def test_summaries_are_scored_as_rouge_score_does():
    from rouge_score.rouge_scorer import RougeScorer

    objective, model, *_ = t5("none", task="summarize", labels=(), max_new_tokens=5)
    asked = examples(5)
    written = objective.write(model, asked, Counter())
    references = [(f"the {text} sun", "no more") for text in written]
    asked = [replace(example, references=each) for example, each in zip(asked, references, strict=True)]
    scores = objective.score(model, asked, Counter())
    assert scores is not None
    names = ("rouge1", "rouge2", "rougeL", "rougeLsum")
    scorer = RougeScorer(names, use_stemmer=True)
    each = [scorer.score_multi(texts, text) for texts, text in zip(references, written, strict=True)]
    for name in names:
        assert scores.values[f"eval_{name}"] == pytest.approx(100 * sum(one[name].fmeasure for one in each) / 5)
    assert 0 < scores.values["eval_rouge1"] < 100
    assert scores.details["items"] == 5


def test_no_more_summaries_are_written_than_asked_for():
    objective, model, *_ = t5("none", task="summarize", labels=(), max_new_tokens=3, limit=2)
    progress = Counter()
    scores = objective.score(model, examples(5), progress)
    assert scores is not None
    assert (scores.details["items"], progress.done, len(objective.exam.questions(examples(5)))) == (2, 2, 2)


@pytest.mark.parametrize("task", ["classify", "summarize", "chat"])
@pytest.mark.parametrize("kind", ["decoder", "t5"])
def test_without_questions_there_are_no_scores(kind: str, task: str):
    objective, model, *_ = decoder("llama", task=task) if kind == "decoder" else t5("none", task=task)
    assert objective.score(model, [], Counter()) is None
    assert objective.choose(model, [], Counter()) == objective.write(model, [], Counter()) == []


def test_a_chat_is_asked_nothing():
    objective, model, *_ = decoder("llama", task="chat", labels=())
    assert objective.score(model, examples(), Counter()) is None


def test_packed_questions_compute_a_fraction_of_the_tokens_of_padded_ones():
    objective, model, *_ = decoder("llama")
    filler = " ".join(["the sun and the rain"] * 12)
    asked = [
        Example((Message("user", f"{e.messages[0].content} {filler}"), e.messages[1]), where="", label=e.label)
        for e in examples(16)
    ]
    padding = copy.copy(objective)
    padding._packs = False
    tokens = {True: 0, False: 0}
    chosen = {}
    with torch.no_grad():
        for packs in (True, False):

            def count(_: nn.Module, given: tuple[Tensor, ...], packs: bool = packs) -> None:
                tokens[packs] += given[0].numel()

            counting = model.get_input_embeddings().register_forward_pre_hook(count)
            with counting, nullcontext() if packs else plain_attention(model):
                chosen[packs] = (objective if packs else padding).choose(model, asked, Counter())
    assert chosen[True] == chosen[False]
    assert 0 < tokens[True] < tokens[False] / 2
