"""What a model says to itself is told from its answer in every family's marks; an answer about marks is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.data.reasoning import blank_reasoning, closed_reasoning, opened_reasoning, split_reasoning

HARMONY = (
    "<|channel|>analysis<|message|>We add.\n2 + 2<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>"
)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>\nhm\n</think>\n\nParis", "hm", "Paris"),
        ("<think>hm</think>Paris", "hm", "Paris"),
        ("  \n<THINK>hm</Think>\nParis\n", "hm", "Paris"),
        ("hm, it is\n</think>\n\nParis", "hm, it is", "Paris"),
        ("perhaps Rome</think>Paris", "perhaps Rome", "Paris"),
        ("perhaps Rome.</think> Paris", "perhaps Rome.", "Paris"),
        ("perhaps Rome </think> Paris", "perhaps Rome", "Paris"),
        ("</think>\n\nParis", "", "Paris"),
        ("<think>\n\n</think>\n\nParis", "", "Paris"),
        ("<think>a</think>\n<think>b</think>\nParis", "a\n\nb", "Paris"),
        ("a\n</think>\n<think>b</think>Paris", "a\n\nb", "Paris"),
        ("<think>I must write `</think>` later.\n</think>\nParis", "I must write `</think>` later.", "Paris"),
        ('<think>They say "</think>" here.</think>Paris', 'They say "</think>" here.', "Paris"),
        ("<think>a</thinking>Paris", "a", "Paris"),
        ("<thinking>hm</thinking>\nParis", "hm", "Paris"),
        ("<thought>hm</thought>\nParis", "hm", "Paris"),
        ("<reasoning>hm</reasoning>Paris", "hm", "Paris"),
        ("<|im_start|>assistant\n<think>hm</think>Paris", "hm", "Paris"),
        ("<|think|>hm<|/think|>Paris", "hm", "Paris"),
        ("<seed:think>hm<seed:cot_budget_reflect>so much</seed:cot_budget_reflect></seed:think>Paris", None, "Paris"),
        ("[THINK]hm[/THINK]Paris", "hm", "Paris"),
        ("hm[/THINK]Paris", "hm", "Paris"),
        ("<|begin_of_thought|>hm<|end_of_thought|>\n\n<|begin_of_solution|>Paris<|end_of_solution|>", "hm", "Paris"),
        ("<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Paris<|END_RESPONSE|>", "hm", "Paris"),
        ("<|inner_prefix|>hm<|inner_suffix|>Paris", "hm", "Paris"),
        ("<|channel>thought\nhm<channel|>Paris", "hm", "Paris"),
        ("<|channel>thought<channel|>Paris", "", "Paris"),
        ("◁think▷hm◁/think▷Paris", "hm", "Paris"),
        ("<think>hm</think><answer> Paris </answer>", "hm", "Paris"),
        ("<think>hm</think><answer>Par", "hm", "Par"),
        ("<think>hm</think>\n<answer><|begin_of_box|>Paris<|end_of_box|></answer>", "hm", "Paris"),
        (HARMONY, "We add.\n2 + 2", "It is 4."),
        (HARMONY.replace("<|end|>", "").replace("<|return|>", ""), "We add.\n2 + 2", "It is 4."),
        (f"<|start|>assistant{HARMONY}", "We add.\n2 + 2", "It is 4."),
        (HARMONY.removeprefix("<|channel|>analysis<|message|>"), "We add.\n2 + 2", "It is 4."),
        ("<|channel|>final<|message|>Paris", "", "Paris"),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f "
            '<|constrain|>json<|message|>{"x": 1}<|call|><|start|>assistant<|channel|>final<|message|>Paris',
            'a\n\n{"x": 1}',
            "Paris",
        ),
        ("analysisWe think of Rome.assistantfinalParis", "We think of Rome.", "Paris"),
    ],
)
def test_reasoning_is_told_from_the_answer_in_the_marks_of_every_family(
    text: str, reasoning: str | None, answer: str
) -> None:
    split = split_reasoning(text)
    assert split.answer == answer
    assert split.complete
    assert text[split.start :].startswith(split.answer)
    if reasoning is not None:
        assert split.reasoning == reasoning


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nParis, or",
        "[THINK]Paris, or",
        "<thinking>Paris, or",
        "<|channel|>analysis<|message|>Paris, or",
        "<|channel|>analysis<|message|>Paris, or<|end|>",
        "<|channel|>analysis<|message|>Paris, or<|end|><|start|>assistant",
        "<think>a</think><think>Paris, or",
        "analysisWe need Paris, or",
        '<think>\n{"correctness": 1}',
    ],
)
def test_a_text_that_ended_inside_its_reasoning_has_no_answer(text: str) -> None:
    split = split_reasoning(text)
    assert (split.answer, split.complete) == ("", False)
    assert split.reasoning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  Paris \n",
        "Put it between <think> and </think>, as in <think>so</think>.",
        "`<think>` opens it and `</think>` closes it.",
        "`</think>` closes it.",
        'It ends with "</think>" and nothing else.',
        "To close it, write </think>.",
        "The </think> tag closes what the model says to itself.",
        "<think> tags hold what the model says to itself.",
        "An example:\n```\n<think>\nhm\n</think>\nParis\n```\nThat is all.",
        "An example:\n```html\nhm\n</think>\nParis\n```\nThat is all.",
        "It looks like this:\n<think>\nhm\n</think>\nParis",
        '{"reason": "It left </think> in its text.", "correctness": 4}',
        '```json\n{"html": "<b>x</b>\\n</think>\\ny", "n": 1}\n```',
        "<p>An <b>HTML</b> page with <thought>s</thought></p>",
        "analysis of the data: finally, it rises.",
        "analysisResult = compute()",
        "The format is <|channel|>final<|message|> says the manual"[:27],
        "In `<|channel|>final<|message|>x` the answer begins.",
        "<|im_start|>assistant\nParis",
        "a < b and c > d; [think] about it",
    ],
)
def test_an_answer_about_such_marks_stays_as_it_is(text: str) -> None:
    split = split_reasoning(text)
    assert (split.reasoning, split.answer, split.complete, split.start) == (None, text, True, 0)
    assert blank_reasoning(text) == text or "<think>" in text or "<thought>" in text


def test_what_an_endpoint_gives_apart_comes_first() -> None:
    assert split_reasoning("Paris", "hm\n").reasoning == "hm"
    assert split_reasoning("Paris", "hm").answer == "Paris"
    both = split_reasoning("<think>so</think>Paris", "hm")
    assert (both.reasoning, both.answer) == ("hm\n\nso", "Paris")
    assert split_reasoning("Paris", " \n").reasoning is None


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('<think>{"a": 1}</think>{"a": 5}', '{"a": 5}'),
        ('{"a": 1}</think>{"a": 5}', '{"a": 5}'),
        ('Well. <think>{"a": 1}</think> So: {"a": 5}', 'Well.  So: {"a": 5}'),
        ('Well.\n<think>{"a": 1}', "Well.\n"),
        ('{"b": "<think>", "a": 5} and {"b": "</think>"}', '{"b": "<think>", "a": 5} and {"b": "</think>"}'),
        ('<think>{"a": 1}', ""),
    ],
)
def test_blanked_reasoning_leaves_every_place_where_it_was(text: str, left: str) -> None:
    blank = blank_reasoning(text)
    assert len(blank) == len(text)
    assert "".join(blank.split()) == "".join(left.split())
    assert all(new in (old, " ") for new, old in zip(blank, text, strict=True))


@pytest.mark.parametrize(
    ("end", "opening", "closing"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\n", "</think>"),
        ("[/INST][THINK]", "[THINK]", "[/THINK]"),
        ("<seed:think>", "<seed:think>", "</seed:think>"),
        ("<|start|>assistant<|channel|>analysis<|message|>", "<|channel|>analysis<|message|>", "final<|message|>"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "", ""),
        ("<|im_start|>assistant\n", "", ""),
    ],
)
def test_a_prompt_that_opens_reasoning_says_so(end: str, opening: str, closing: str) -> None:
    prompt = f"<|im_start|>user\nWhat is <think>?<|im_end|>\n{end}"
    assert opened_reasoning(prompt) == opening
    assert closing in closed_reasoning(prompt)
    assert bool(closed_reasoning(prompt)) == bool(opening)
    if opening:
        assert split_reasoning(opened_reasoning(prompt) + "Paris, or").complete is False
        assert split_reasoning(opening + "hm" + closed_reasoning(prompt) + "Paris").answer == "Paris"


def test_a_prompt_of_channels_is_led_to_the_answer() -> None:
    prompt = "<|start|>user<|message|>Where?<|end|><|start|>assistant"
    assert opened_reasoning(prompt) == ""
    assert split_reasoning(closed_reasoning(prompt) + "Paris").answer == "Paris"


PIECES = st.sampled_from(
    (
        *("<think>", "</think>", "[THINK]", "[/THINK]", "`", "```", '"', "\n", " ", "word", '{"a": 1}', "{", "<|end|>"),
        *("<|channel|>final<|message|>", "<|channel|>analysis<|message|>", "<answer>", "</answer>", "é", "analysisA"),
    )
)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_text_has_its_two_parts(text: str) -> None:
    split = split_reasoning(text)
    assert text[split.start : split.start + len(split.answer)] == split.answer
    assert split.complete or not split.answer
    assert len(blank_reasoning(text)) == len(text)


@pytest.mark.parametrize("piece", ["<think>", "<|x|>", "`</think>`", "```a\n<think>\n", '{"a":[', '{"a": "</think>"} '])
def test_no_text_is_slow_to_split(piece: str) -> None:
    assert len(blank_reasoning(piece * (100_000 // len(piece)) + "a")) > 90_000
