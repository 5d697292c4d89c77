"""Runs and model folders as models under test: the answers are those that Transformers itself gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from support.tiny_tasks import LABELS, PROMPT, TEXTS, save_tiny, write_rows
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from edgetune.errors import UsageError
from edgetune.judging.subjects.folder import open_folder
from edgetune.judging.suites.items import read_items
from edgetune.judging.suites.suite import Suite, load_suite
from edgetune.recipe.load import load_recipe
from edgetune.runtime.labels.reading import parse_label
from edgetune.training.run import train

pytestmark = pytest.mark.usefixtures("no_plots")

QUESTIONS = ("the sun", "much rain of joy", "some cake")


def write_suite(folder: Path, task: str, rows: list[dict[str, Any]], form: str, **settings: Any) -> Suite:
    (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"source": f"{task}.jsonl", "format": form}
    (folder / f"{task}.yaml").write_text(yaml.safe_dump({"name": task, "task": task, "data": [source], **settings}))
    return load_suite(str(folder / f"{task}.yaml"))


def classify_suite(folder: Path, **settings: Any) -> Suite:
    rows = [{"text": text, "label": label} for text, label in TEXTS]
    return write_suite(folder, "classify", rows, "text-label", **{"labels": list(LABELS), "prompt": PROMPT, **settings})


def generate_suite(folder: Path, **settings: Any) -> Suite:
    return write_suite(folder, "generate", [{"prompt": text} for text in QUESTIONS], "prompt", **settings)


def answers_of(reference: Path, suite: Suite) -> list[Any]:
    items = read_items(suite)
    subject = open_folder(str(reference))
    subject.check(items, suite)
    return list(subject.answers(items, suite))


def complaint(reference: Path, suite: Suite) -> str:
    with pytest.raises(UsageError) as caught:
        answers_of(reference, suite)
    return str(caught.value)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("LlamaForCausalLM", tmp_path_factory.mktemp("models") / "llama", noise=0.3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trained runs: a decoder that answers in words with an adapter, and an encoder with a classification head."""
    folder = tmp_path_factory.mktemp("runs")
    rows = write_rows(folder / "rows.jsonl")
    runs = {}
    for name, model_class, head in (
        ("words", "LlamaForCausalLM", "lm"),
        ("head", "DistilBertForMaskedLM", "classification"),
    ):
        source = {"source": str(rows), "format": "text-label"}
        values = {
            "name": "tiny",
            "task": "classify",
            "base": {
                "model": str(save_tiny(model_class, folder / f"{name}-base", noise=0.1)),
                "dtype": "float32",
                "head": head,
            },
            "data": {"train": [source], "max_length": 64, "labels": list(LABELS), "prompt": PROMPT},
            "method": {"type": "lora", "rank": 8, "alpha": 16},
            "train": {"batch_size": 8, "epochs": 30, "learning_rate": 2e-2},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
        train(load_recipe(str(folder / f"{name}.yaml")), folder / name)
        runs[name] = folder / name
    return runs


def written_by_transformers(decoder: Path, tokenizers: Path) -> list[str]:
    """What `generate` makes of the questions, with the template of another folder, in 12 tokens."""
    model = AutoModelForCausalLM.from_pretrained(decoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tokenizers)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end>")]
    texts = []
    for question in QUESTIONS:
        asked = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        written = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=ends, pad_token_id=0)
        texts.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return texts


def test_a_decoder_writes_what_transformers_generates(tmp_path: Path, decoder: Path) -> None:
    answers = answers_of(decoder, generate_suite(tmp_path, generation={"max_tokens": 12}))
    assert [answer.text for answer in answers] == written_by_transformers(decoder, decoder)
    assert all(answer.seconds > 0 for answer in answers)


def test_a_decoder_whose_template_begins_the_reasoning_has_no_answer_before_its_end(
    tmp_path: Path, decoder: Path
) -> None:
    """As those of DeepSeek-R1's: the prompt opens what the rendered answer is without."""
    thinking = tmp_path / "thinking"
    shutil.copytree(decoder, thinking)
    template = (thinking / "chat_template.jinja").read_text()
    (thinking / "chat_template.jinja").write_text(template + "{% if add_generation_prompt %}<think>\n{% endif %}")
    answers = answers_of(thinking, generate_suite(tmp_path, generation={"max_tokens": 12}))
    assert [answer.reasoning for answer in answers] == written_by_transformers(decoder, thinking)
    assert all(answer.text == "" and answer.is_cut_off for answer in answers)


def test_an_encoder_decoder_writes_what_transformers_generates(tmp_path: Path) -> None:
    folder = save_tiny("T5ForConditionalGeneration", tmp_path / "t5", noise=0.3)
    rows = [{"text": text, "summary": "sun"} for text, _ in TEXTS[:3]]
    suite = write_suite(
        tmp_path, "summarize", rows, "text-summary", prompt="summarize: {text}", generation={"max_tokens": 16}
    )
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for answer, (text, _) in zip(answers_of(folder, suite), TEXTS, strict=False):
        ids = tokenizer(f"summarize: {text}", return_tensors="pt").input_ids
        written = model.generate(ids, max_new_tokens=16, do_sample=False)
        assert answer.text == tokenizer.decode(written[0], skip_special_tokens=True).strip()


@pytest.mark.parametrize("conversation", [False, True])
@pytest.mark.parametrize("length", [20, 700])
def test_a_texts_likelihood_is_that_of_transformers(
    tmp_path: Path, decoder: Path, conversation: bool, length: int
) -> None:
    words = " ".join(["sun rain joy mud cake"] * length)[: length * 5]
    row = {"prompt": "say it", "completion": words} if conversation else {"text": words}
    suite = write_suite(tmp_path, "perplexity", [row], "prompt-completion" if conversation else "text")
    answer = answers_of(decoder, suite)[0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(decoder).eval(), AutoTokenizer.from_pretrained(decoder)
    before = tokenizer("<user> say it<end><assistant> ", add_special_tokens=False).input_ids if conversation else []
    ids = before + tokenizer(words + "<end>" * conversation, add_special_tokens=False).input_ids
    assert answer.nll_tokens == len(ids) - (len(before) or 1)
    assert answer.nll_bytes == len(words)
    # The model reads 256 tokens at once; behind that, every token has at least 128 before it.
    expected, done = 0.0, len(before) or 1
    while done < len(ids):
        start = 0 if len(ids) <= 256 else max(0, done - 128)
        stop = min(len(ids), start + 256)
        with torch.no_grad():
            logits = model(torch.tensor([ids[start:stop]])).logits[0].log_softmax(-1)
        expected -= sum(float(logits[place - 1 - start, ids[place]]) for place in range(done, stop))
        done = stop
    assert answer.nll_nats == pytest.approx(expected, rel=1e-4)


def test_a_run_chooses_the_label_that_its_adapter_finds_likeliest(tmp_path: Path, runs: dict[str, Path]) -> None:
    base = AutoModelForCausalLM.from_pretrained(runs["words"].parent / "words-base")
    model = PeftModel.from_pretrained(base, runs["words"] / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(runs["words"] / "adapter")

    def likelihood(text: str, label: str) -> float:
        prompt = tokenizer(f"<user> {PROMPT.format(text=text)}<end><assistant> ", add_special_tokens=False).input_ids
        answer = tokenizer(f"{label}<end>", add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return sum(float(logits[len(prompt) - 1 + place, token]) for place, token in enumerate(answer))

    expected = [max(LABELS, key=lambda label: likelihood(text, label)) for text, _ in TEXTS]
    answers = answers_of(runs["words"], classify_suite(tmp_path))
    assert [answer.predicted for answer in answers] == expected
    assert len(set(expected)) == 2


def test_a_label_is_read_from_what_a_run_writes(tmp_path: Path, runs: dict[str, Path]) -> None:
    answers = answers_of(runs["words"], classify_suite(tmp_path, scoring="generate", generation={"max_tokens": 8}))
    assert all(answer.text is not None for answer in answers)
    assert [answer.predicted for answer in answers] == [parse_label(str(answer.text), LABELS) for answer in answers]


def test_a_run_with_a_head_classifies_and_does_not_write(tmp_path: Path, runs: dict[str, Path]) -> None:
    answers = answers_of(runs["head"], classify_suite(tmp_path))
    assert sum(a.predicted == label for a, (_, label) in zip(answers, TEXTS, strict=True)) / len(TEXTS) > 0.9
    assert "classification head" in complaint(runs["head"], generate_suite(tmp_path))
    assert "has the labels good, bad" in complaint(runs["head"], classify_suite(tmp_path, labels=["good", "bad", "so"]))


def test_two_runs_on_one_base_have_fingerprints_of_their_own(runs: dict[str, Path], tmp_path: Path) -> None:
    run, base = open_folder(str(runs["words"])), open_folder(str(runs["words"].parent / "words-base"))
    assert (run.kind, base.kind) == ("run", "folder")
    assert run.fingerprint != base.fingerprint


def test_what_a_folder_cannot_do_is_refused_before_it_is_loaded(tmp_path: Path, decoder: Path) -> None:
    encoder = save_tiny("BertForMaskedLM", tmp_path / "bert")
    assert "encoder without a classification head" in complaint(encoder, classify_suite(tmp_path))
    message = complaint(decoder, generate_suite(tmp_path, generation={"temperature": 0.7}))
    assert "greedily" in message
    assert "generation.temperature" in message
