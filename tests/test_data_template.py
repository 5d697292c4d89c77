"""Chat templates: rendered as Transformers renders them, and cut into what is supervised and what is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.data.example import Message
from edgetune.data.template import ChatTemplate, Segment, load_template
from edgetune.errors import DataError, RecipeError

BOS, EOS = "<s>", "</s>"

CHATML = """{% for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

LLAMA_3 = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "\\n\\n" + system + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content']|trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

GEMMA = """{{ bos_token }}
{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}
{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""

QWEN = """{%- if tools %}
    {{- raise_exception('no tools here') }}
{%- elif messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- continue %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{% set shown = message.content %}{{ shown + '<|im_end|>\\n' }}{% endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

JSON_STYLE = """{{ bos_token }}{% for message in messages %}
{{ {'who': message.role, 'said': message.content} | tojson }}{{ eos_token if message.role == 'assistant' }}
{% endfor %}"""

FORGETFUL = """{%- for message in messages %}
    {%- if message.role == 'user' %}{{- 'U:' + message.content + ';' }}
    {%- elif loop.last %}{{- 'A:' + message.content + ';' }}
    {%- else %}{{- 'A:' + message.content.split('</think>')[-1] + ';' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- 'A:' }}{%- endif %}"""

ALPACA = load_template("alpaca", tokenizer_template=None, bos_token=BOS, eos_token=EOS).source

STYLES = {
    "chatml": CHATML,
    "llama-3": LLAMA_3,
    "gemma": GEMMA,
    "qwen": QWEN,
    "json": JSON_STYLE,
    "forgetful": FORGETFUL,
    "alpaca": ALPACA,
}


def chat(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token=BOS, eos_token=EOS)


def talk(*contents: str, system: str | None = None) -> list[Message]:
    """A conversation of these contents, user and assistant in turn."""
    turns = [Message(("user", "assistant")[number % 2], content) for number, content in enumerate(contents)]
    return turns if system is None else [Message("system", system), *turns]


def plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


HARD_TEXTS = [
    "",
    "two\n\nlines ",
    "日本語 🙂",
    "<b>&'\"</b>",
    "{{ 7 * 7 }} {% raw %}",
    "<|im_end|>",
    "\u0085\u2028 \ttabs",
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_rendering_equals_transformers(style: str, add_generation_prompt: bool) -> None:
    reference = pytest.importorskip("transformers.utils.chat_template_utils")
    conversations = [talk("Hi", text, text, "Bye") for text in HARD_TEXTS] + [talk(text) for text in HARD_TEXTS]
    if style != "gemma":
        conversations += [talk("Hi", text, system=text) for text in HARD_TEXTS]
    expected, _ = reference.render_jinja_template(
        [plain(messages) for messages in conversations],
        chat_template=STYLES[style],
        add_generation_prompt=add_generation_prompt,
        bos_token=BOS,
        eos_token=EOS,
    )
    template = chat(STYLES[style])
    rendered = [template.render(messages, add_generation_prompt=add_generation_prompt) for messages in conversations]
    assert rendered == expected


def test_rendering_equals_smollm2s_own_tokenizer(smollm2_tokenizer) -> None:
    template = load_template(
        "chat",
        tokenizer_template=smollm2_tokenizer.chat_template,
        bos_token=smollm2_tokenizer.bos_token,
        eos_token=smollm2_tokenizer.eos_token,
    )
    for text in HARD_TEXTS:
        for messages in (talk("Hi", text), talk(text, "yes", "and?", text), talk(text, system="Be brief."), talk(text)):
            for generate in (False, True):
                expected = smollm2_tokenizer.apply_chat_template(
                    plain(messages), tokenize=False, add_generation_prompt=generate
                )
                assert template.render(messages, add_generation_prompt=generate) == expected


contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(
    style=st.sampled_from(["chatml", "llama-3", "gemma", "qwen", "alpaca"]),
    turns=st.lists(st.tuples(contents, contents), min_size=1, max_size=3),
    system=st.none() | contents,
)
def test_segments_join_to_the_rendering_and_supervise_every_answer(
    style: str, turns: list[tuple[str, str]], system: str | None
) -> None:
    messages = talk(*(text for turn in turns for text in turn), system=None if style == "gemma" else system)
    template = chat(STYLES[style])
    segments = template.segments(messages)
    assert "".join(segment.text for segment in segments) == template.render(messages)
    answers = [segment.text for segment in segments if segment.supervised]
    assert len(answers) == len(turns)
    for (_, content), answer in zip(turns, answers, strict=True):
        assert answer.startswith(content.strip() if style in ("llama-3", "gemma") else content)


@pytest.mark.parametrize("style", ["chatml", "llama-3", "gemma", "qwen", "alpaca"])
def test_what_precedes_an_answer_is_exactly_the_prompt_that_inference_sends(style: str) -> None:
    messages = talk("Hi", "Hello", "How are you?", "Well.")
    template = chat(STYLES[style])
    segments = template.segments(messages)
    assert [segment.supervised for segment in segments] == [False, True, False, True]
    assert segments[0].text == template.render(messages[:1], add_generation_prompt=True)
    assert "".join(segment.text for segment in segments[:3]) == template.render(
        messages[:3], add_generation_prompt=True
    )


def test_the_end_of_turn_is_supervised_and_the_generation_prompt_is_not() -> None:
    assert chat(CHATML).segments(talk("Hi", "Hello")) == (
        Segment("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", supervised=False),
        Segment("Hello<|im_end|>\n", supervised=True),
    )


def test_a_conversation_that_ends_with_the_user_has_an_unsupervised_end() -> None:
    segments = chat(CHATML).segments(talk("Hi", "Hello", "Bye"))
    assert segments[-1] == Segment("<|im_start|>user\nBye<|im_end|>\n", supervised=False)
    assert chat(CHATML).segments(talk("Hi")) == (Segment("<|im_start|>user\nHi<|im_end|>\n", supervised=False),)


def test_a_template_that_rewrites_earlier_turns_supervises_the_last_one_only() -> None:
    segments = chat(FORGETFUL).segments(talk("a", "hm</think>b", "and then, after that?", "oh</think>d"))
    assert segments == (
        Segment("U:a;A:b;U:and then, after that?;A:", supervised=False),
        Segment("oh</think>d;", supervised=True),
    )


@pytest.mark.parametrize(
    "source",
    [
        "{% for message in messages %}{{ message.content }};{% endfor %}{{ '<think>' if add_generation_prompt }}",
        "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}",
        "{{ messages | length }}",
    ],
    ids=["prompt that the answer does not follow", "answers left out", "not text"],
)
def test_a_template_without_a_place_for_the_answer_cannot_train(source: str) -> None:
    with pytest.raises(DataError, match=r"cannot be used for training.*set data\.template to alpaca"):
        chat(source).segments(talk("Hi", "Hello, what can I do for you?"))


def test_alpaca_reads_as_published() -> None:
    template = load_template("alpaca", tokenizer_template=None, bos_token=BOS, eos_token=EOS)
    assert template.render(talk("Add 2 and 3.", "5", "And 4?", "9")) == (
        "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nAdd 2 and 3.\n\n### Response:\n5</s>"
        "\n\n### Instruction:\nAnd 4?\n\n### Response:\n9</s>"
    )
    assert template.render(talk("Hi", system="Be brief.")) == "<s>Be brief.\n\n### Instruction:\nHi"
    assert template.segments(talk("Hi", "Hello"))[-1] == Segment("Hello</s>", supervised=True)
    with pytest.raises(DataError, match="no place for a tool message"):
        template.render([Message("user", "Hi"), Message("tool", "{}")])


def test_a_template_that_refuses_a_conversation_says_why() -> None:
    with pytest.raises(DataError, match=r"refuses this conversation.*System role not supported"):
        chat(GEMMA).render(talk("Hi", system="Be brief."))
    with pytest.raises(DataError, match="roles must alternate"):
        chat(GEMMA).segments([Message("user", "Hi"), Message("user", "there"), Message("assistant", "Hello")])


@pytest.mark.parametrize(
    "source",
    ["{{ messages[0].content + 5 }}", "{{ nothing.at.all }}", "{{ 1 / 0 }}", "{{ ''.__class__.__mro__ }}{{ ''.x.y }}"],
)
def test_a_template_that_fails_gives_no_traceback(source: str) -> None:
    with pytest.raises(DataError, match="refuses this conversation"):
        chat(source).render(talk("Hi"))


def test_a_jinja_file_is_a_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(CHATML)
    template = load_template(str(path), tokenizer_template=None, bos_token="", eos_token="")
    assert template == ChatTemplate(CHATML, "", "")


def test_a_base_without_a_chat_template_asks_for_another() -> None:
    with pytest.raises(
        RecipeError, match=r"data\.template: the base has no chat template; set data\.template to alpaca"
    ):
        load_template("chat", tokenizer_template=None, bos_token=BOS, eos_token=EOS)


def test_a_missing_template_file_is_named() -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.jinja: there is no such template file; .*chat, alpaca"):
        load_template("nowhere.jinja", tokenizer_template=CHATML, bos_token=BOS, eos_token=EOS)


def test_a_template_with_a_syntax_error_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.jinja"
    path.write_text("{{ bos_token }}\n{% for message in messages %}\n{% endif %}\n")
    with pytest.raises(RecipeError, match=r"broken\.jinja:3: this is not a valid Jinja template"):
        load_template(str(path), tokenizer_template=None, bos_token=BOS, eos_token=EOS)
    with pytest.raises(RecipeError, match="the base's chat template:1: this is not a valid Jinja template"):
        load_template("chat", tokenizer_template="{% if %}", bos_token=BOS, eos_token=EOS)
    with pytest.raises(RecipeError, match="not a valid Jinja template"):
        chat("{{ messages").render(talk("Hi"))
