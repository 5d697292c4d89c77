"""What a chat template puts behind an answer, and answers that teach a model no end."""

from __future__ import annotations

import pytest

from edgetune.data.answer_end import AnswerEnd, find_answer_end
from edgetune.data.example import Example, Message
from edgetune.data.template import ALPACA, ChatTemplate
from edgetune.data.tokenize import tokenize_examples

MARKS = "~^$"
"""Letters that are special tokens here."""

TURNS = "{% for m in messages %}^{{ m.role }}:{{ m.content }}%s{% endfor %}{{ '^assistant:' if add_generation_prompt }}"


def template(after: str, source: str = TURNS) -> ChatTemplate:
    return ChatTemplate(source.replace("%s", after), bos_token="", eos_token="$")


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def is_mark(token: int) -> bool:
    return chr(token) in MARKS


def find(chat: ChatTemplate) -> AnswerEnd | None:
    return find_answer_end(chat, encode, is_mark)


@pytest.mark.parametrize(
    ("after", "text", "token"),
    [
        ("~\n", "~\n", "~"),
        ("{{ eos_token }}", "$", "$"),
        (" {{ eos_token }}", " $", "$"),
        ("\nEND\n~$", "\nEND\n~$", "~"),
        ("{{ '~' if m.role == 'assistant' }}", "~", "~"),
    ],
)
def test_the_first_special_token_behind_the_answer_ends_it(after: str, text: str, token: str) -> None:
    assert find(template(after)) == AnswerEnd(text, ord(token))


@pytest.mark.parametrize("after", ["", "\n"])
def test_without_one_the_token_that_begins_the_next_turn_is_told(after: str) -> None:
    assert find(template(after)) == AnswerEnd(after, None, next_turn=ord("^"))


def test_plain_words_behind_an_answer_are_no_end() -> None:
    plain = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{{ 'assistant:' if add_generation_prompt }}"
    )
    assert find(ChatTemplate(plain, "", "$")) == AnswerEnd("\n", None)


def test_a_template_that_wants_a_system_message_gets_one() -> None:
    strict = "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}" + TURNS
    assert find(template("~", strict)) == AnswerEnd("~", ord("~"))


def test_a_template_that_writes_other_words_than_it_was_given_tells_nothing() -> None:
    assert find(ChatTemplate("{% for m in messages %}{{ m.content | upper }}~{% endfor %}", "", "$")) is None


def test_the_shipped_alpaca_ends_its_answers_with_the_eos() -> None:
    assert find(ChatTemplate(ALPACA.read_text(encoding="utf-8"), "", "$")) == AnswerEnd("$", ord("$"))


def rows(*answers: str) -> list[Example]:
    return [
        Example((Message("user", "q"), Message("assistant", answer)), f"a.jsonl:{n}")
        for n, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("after", "unended"), [("~", 0), ("~\n\n", 0), ("$", 0), ("", 3), ("\n", 3), ("~ and more", 3)]
)
def test_answers_that_end_in_no_end_token_are_counted(after: str, unended: int) -> None:
    ends = {ord(letter) for letter in MARKS}
    data = tokenize_examples(rows("yes", "no", "a ~ within"), template(after), encode, 100, ends)
    assert data.unended == unended


def test_without_the_special_tokens_nothing_is_counted() -> None:
    assert tokenize_examples(rows("yes"), template(""), encode, 100).unended == 0


def test_an_answer_that_is_cut_is_counted_by_its_own_end() -> None:
    long = template("~")
    data = tokenize_examples(rows("yes " * 20), long, encode, 40, {ord("~")})
    assert (data.truncated, data.unended) == (1, 0)


def test_every_answer_of_a_conversation_must_end() -> None:
    last_only = template("{{ '~' if loop.last and m.role == 'assistant' }}")
    talk = (Message("user", "q"), Message("assistant", "a"), Message("user", "q"), Message("assistant", "a"))
    assert tokenize_examples([Example(talk, "a.jsonl:1")], last_only, encode, 100, {ord("~")}).unended == 0
    never_first = template("{{ '~' if loop.index > 2 }}")
    assert tokenize_examples([Example(talk, "a.jsonl:1")], never_first, encode, 100, {ord("~")}).unended == 1
