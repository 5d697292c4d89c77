"""Conversations with tools: rendered as Transformers renders them, learned as inference sees them, none swallowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.data.conversation import Unread
from edgetune.data.example import Example, Message
from edgetune.data.formats import to_example
from edgetune.data.load import load_data
from edgetune.data.read import Row
from edgetune.data.template import ChatTemplate
from edgetune.data.tokenize import TokenizedExample, tokenize_examples
from edgetune.errors import DataError
from edgetune.recipe.data import Data, DataSource

BOS, EOS = "<s>", "</s>"
Turn = dict[str, Any]

WEATHER: Turn = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city, in °C.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL: Turn = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2]}}}
ASKED: Turn = {"role": "user", "content": "Is it warm in Zürich?"}
CALLS: Turn = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT: Turn = {"role": "tool", "name": "get_weather", "tool_call_id": "a1", "content": '{"celsius": 21}'}
ANSWER: Turn = {"role": "assistant", "content": "It has 21 degrees."}
TALK = [ASKED, CALLS, RESULT, ANSWER]

STYLES = ["qwen2_5", "qwen3", "llama3_1", "llama3_2", "qwen3_instruct_2507", "glm4moe", "gptoss", "lfm2"]
"""Templates of real models, as TRL carries them."""


def real_template(style: str) -> str:
    trl = pytest.importorskip("trl")
    return (Path(trl.__file__).parent / "chat_templates" / f"{style}.jinja").read_text(encoding="utf-8")


def chat(style: str) -> ChatTemplate:
    return ChatTemplate(real_template(style), bos_token=BOS, eos_token=EOS)


def read(values: dict[str, Any], form: str = "messages", unread: Unread | None = None) -> Example:
    source = DataSource(source="rows.jsonl", format=form)
    example = to_example(Row("rows.jsonl:7", values), source, Data(train=[source]), unread)
    assert example is not None
    return example


def refusal(values: dict[str, Any], form: str = "messages") -> str:
    with pytest.raises(DataError) as caught:
        read(values, form)
    assert str(caught.value).startswith("rows.jsonl:7: ")
    return str(caught.value)


def transformers_rendering(style: str, turns: list[Turn], tools: list[Turn] | None, *, generate: bool = False) -> str:
    reference = pytest.importorskip("transformers.utils.chat_template_utils")
    rendered, _ = reference.render_jinja_template(
        [turns],
        tools=tools,
        chat_template=real_template(style),
        add_generation_prompt=generate,
        bos_token=BOS,
        eos_token=EOS,
    )
    return str(rendered[0])


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def learned(tokenized: TokenizedExample) -> str:
    return "".join(chr(label) for label in tokenized.labels if label != -100)


def text_of(tokenized: TokenizedExample) -> str:
    return "".join(map(chr, tokenized.input_ids))


PARTS = [("user", ["Is it warm ", "in Zürich?"]), ("assistant", ["It has ", "21 degrees."])]

CONVERSATIONS: dict[str, list[Turn]] = {
    "content empty": TALK,
    "content null": [ASKED, {**CALLS, "content": None}, RESULT, ANSWER],
    "content absent": [ASKED, {"role": "assistant", "tool_calls": [CALL]}, RESULT, ANSWER],
    "ends with the call": [ASKED, CALLS],
    "system": [{"role": "system", "content": "Be brief."}, *TALK],
    "reasoning": [ASKED, {**CALLS, "reasoning_content": "Look it up."}, RESULT, {**ANSWER, "reasoning_content": "21."}],
    "thinking": [ASKED, {**ANSWER, "thinking": "21."}],
    "asks again": [*TALK, {"role": "user", "content": "And there?"}, CALLS, RESULT, ANSWER],
}


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("style", STYLES)
def test_tools_calls_and_reasoning_are_rendered_as_transformers_renders_them(style: str, name: str) -> None:
    turns, tools = CONVERSATIONS[name], [WEATHER]
    example = read({"messages": turns, "tools": tools})
    try:
        expected = transformers_rendering(style, turns, tools)
    except Exception:  # whatever a template raises
        with pytest.raises(DataError):
            chat(style).render(example.messages, tools=example.tools)
        return
    assert chat(style).render(example.messages, tools=example.tools) == expected
    asked = turns.index(ASKED) + 1
    prompt = transformers_rendering(style, turns[:asked], tools, generate=True)
    assert chat(style).render(example.messages[:asked], tools=example.tools, add_generation_prompt=True) == prompt


@pytest.mark.parametrize("given", [json.dumps([WEATHER]), [json.dumps(WEATHER)], [WEATHER]])
def test_tools_may_be_a_list_or_its_json(given: object) -> None:
    assert read({"messages": TALK, "tools": given}).tools == (WEATHER,)


@pytest.mark.parametrize("given", [None, "", [], "[]"])
def test_no_tools_are_none_for_the_template(given: object) -> None:
    example = read({"messages": [ASKED, ANSWER], "tools": given})
    assert chat("llama3_1").render(example.messages, tools=example.tools) == transformers_rendering(
        "llama3_1", [ASKED, ANSWER], None
    )


@pytest.mark.parametrize("style", ["qwen2_5", "qwen3", "llama3_1", "glm4moe"])
def test_every_answer_is_learned_once_right_behind_the_prompt_that_inference_sends(style: str) -> None:
    example = read({"messages": TALK, "tools": [WEATHER]})
    data = tokenize_examples([example], chat(style), encode, 4096)
    answers = [learned(tokenized) for tokenized in data.examples]
    for turn in (1, 3):
        prompt = transformers_rendering(style, TALK[:turn], [WEATHER], generate=True)
        whole = transformers_rendering(style, TALK[: turn + 1], [WEATHER])
        assert whole.startswith(prompt)
        assert sum(whole[len(prompt) :] in answer for answer in answers) == 1
    assert sum(map(len, answers)) == sum(
        len(transformers_rendering(style, TALK[: turn + 1], [WEATHER]))
        - len(transformers_rendering(style, TALK[:turn], [WEATHER], generate=True))
        for turn in (1, 3)
    )
    assert not data.omitted


def test_answers_that_the_template_writes_otherwise_later_are_learned_in_a_copy_that_ends_there() -> None:
    """Qwen3 puts an empty thought before the last answer only."""
    example = read({"messages": TALK, "tools": [WEATHER]})
    data = tokenize_examples([example], chat("qwen3"), encode, 4096)
    assert [text_of(tokenized) for tokenized in data.examples] == [
        transformers_rendering("qwen3", TALK, [WEATHER]),
        transformers_rendering("qwen3", TALK[:2], [WEATHER]),
    ]
    assert learned(data.examples[1]).startswith("<think>\n\n</think>\n\n<tool_call>")
    assert data.reread == 1
    assert "1 earlier answer" in data.notes[0]


def test_weight_0_is_read_and_not_learned() -> None:
    turns = [ASKED, {**ANSWER, "content": "No idea.", "weight": 0}, ASKED, {**ANSWER, "weight": 1}]
    example = read({"messages": turns})
    (tokenized,) = tokenize_examples([example], chat("qwen2_5"), encode, 4096).examples
    assert learned(tokenized) == "It has 21 degrees.<|im_end|>\n"
    plain = [{key: value for key, value in turn.items() if key != "weight"} for turn in turns]
    assert text_of(tokenized) == transformers_rendering("qwen2_5", plain, None)


def test_a_last_answer_of_weight_0_leaves_the_others_to_learn() -> None:
    for style in ("qwen2_5", "qwen3"):
        example = read({"messages": [ASKED, CALLS, RESULT, {**ANSWER, "weight": 0}], "tools": [WEATHER]})
        data = tokenize_examples([example], chat(style), encode, 4096)
        (answer,) = [learned(tokenized) for tokenized in data.examples]
        assert '"city": "Zürich"' in answer
        assert "21 degrees" not in answer


@pytest.mark.parametrize("weight", [0.5, 2, -1, "0"])
def test_a_weight_that_is_neither_0_nor_1_is_refused(weight: object) -> None:
    assert "weight" in refusal({"messages": [ASKED, {**ANSWER, "weight": weight}]})


def test_conversations_of_weight_0_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"messages": [ASKED, {**ANSWER, "weight": weight}]} for weight in (1, 0, 1)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load_data(Data(train=[DataSource(source=str(path), format="messages")]), "chat")
    assert [example.where for example in loaded.train] == [f"{path}:1", f"{path}:3"]
    assert loaded.train_sources[0].left_out == (f"{path}:2",)
    with pytest.raises(DataError, match="every answer in all 1 rows has weight 0"):
        load_data(Data(train=[DataSource(source=str(path), split="[1:2]", format="messages")]), "chat")


def test_smollm2s_template_would_learn_an_empty_answer_for_a_call_and_is_refused(smollm2_tokenizer) -> None:
    template = ChatTemplate(smollm2_tokenizer.chat_template, bos_token="", eos_token="")
    for content in ({"content": ""}, {"content": None}, {}):
        call = {"role": "assistant", "tool_calls": [CALL], **content}
        example = read({"messages": [ASKED, call, RESULT, ANSWER], "tools": [WEATHER]})
        with pytest.raises(DataError, match=r"rows\.jsonl:7: the chat template leaves out the call of get_weather"):
            tokenize_examples([example], template, encode, 4096)


def test_what_smollm2s_template_leaves_out_beside_an_answer_is_told(smollm2_tokenizer) -> None:
    template = ChatTemplate(smollm2_tokenizer.chat_template, bos_token="", eos_token="")
    example = read({"messages": [ASKED, {**ANSWER, "reasoning_content": "Hm."}], "tools": [WEATHER]})
    data = tokenize_examples([example, example], template, encode, 4096)
    assert data.omitted == {"leaves out the tools": 2, "leaves out reasoning_content of the assistant": 2}
    assert data.warnings[0] == "the chat template leaves out the tools (2 conversations)"


def test_how_deepseeks_template_wants_calls_is_told() -> None:
    function = {"name": "get_weather", "arguments": '{"city": "Zürich"}'}
    as_text: Turn = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    for call, words in [
        ({**as_text, "tool_calls": [CALL]}, "reads the arguments of tool calls only as text; write them as text"),
        ({**as_text, "content": ""}, "call of get_weather in turn 2.*only if the content is null"),
    ]:
        with pytest.raises(DataError, match=words):
            tokenize_examples(
                [read({"messages": [ASKED, call, RESULT, ANSWER]})], chat("deepseek_r1_distill"), encode, 99
            )
    example = read({"messages": [ASKED, as_text, RESULT, ANSWER]})
    assert chat("deepseek_r1_distill").render(example.messages) == transformers_rendering(
        "deepseek_r1_distill", [ASKED, as_text, RESULT, ANSWER], None
    )


def test_a_template_that_skips_the_results_of_tools_is_refused() -> None:
    example = read({"messages": [ASKED, {**ANSWER, "content": "calling"}, RESULT, ANSWER]})
    with pytest.raises(DataError, match=r"leaves out turn 3 \(tool\)"):
        tokenize_examples([example], chat("phi3"), encode, 4096)


def test_words_beside_a_call_that_llama_3_1_leaves_out_are_told() -> None:
    example = read({"messages": [ASKED, {**CALLS, "content": "Let me look."}, RESULT, ANSWER], "tools": [WEATHER]})
    data = tokenize_examples([example], chat("llama3_1"), encode, 4096)
    assert data.omitted == {"leaves out the text beside a tool call": 1}


def test_arguments_given_as_text_that_a_template_quotes_again_are_told() -> None:
    function = {"name": "get_weather", "arguments": '{"city": "Zürich"}'}
    turns = [ASKED, {**CALLS, "tool_calls": [{"type": "function", "function": function}]}, RESULT, ANSWER]
    example = read({"messages": turns, "tools": [WEATHER]})
    quoted = tokenize_examples([example], chat("qwen2_5"), encode, 4096)
    assert text_of(quoted.examples[0]) == transformers_rendering("qwen2_5", turns, [WEATHER])
    assert any("backslash before each quote" in text for text in quoted.warnings)
    assert not tokenize_examples([example], chat("qwen3"), encode, 4096).omitted


def test_a_rows_system_text_comes_first() -> None:
    for form, row in {
        "messages": {"messages": [ASKED, ANSWER]},
        "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        "alpaca": {"instruction": "Hi", "output": "Ho"},
        "prompt-completion": {"prompt": "Hi", "completion": "Ho"},
    }.items():
        assert read({**row, "system": "Be brief."}, form).messages[0] == Message("system", "Be brief.")
        assert read({**row, "system": ""}, form).messages[0].role == "user"


def test_a_rows_system_text_beside_another_system_message_is_refused() -> None:
    turns = [{"role": "system", "content": "Be long."}, ASKED, ANSWER]
    assert "column system and the conversation" in refusal({"messages": turns, "system": "Be brief."})
    assert read({"messages": turns, "system": "Be long."}).messages[0] == Message("system", "Be long.")


@pytest.mark.parametrize("written", [list, json.dumps])
def test_alpacas_history_is_what_was_said_before(written: Callable[[Any], Any]) -> None:
    row = {"instruction": "And 4?", "output": "9", "history": written([["Add 2 and 3.", "5"]]), "system": "Add."}
    assert read(row, "alpaca").messages == (
        Message("system", "Add."),
        Message("user", "Add 2 and 3."),
        Message("assistant", "5"),
        Message("user", "And 4?"),
        Message("assistant", "9"),
    )
    assert "history must hold pairs" in refusal({"instruction": "a", "output": "b", "history": ["c"]}, "alpaca")


def test_sharegpts_function_calls_and_observations_are_calls_and_results() -> None:
    turns = [
        {"from": "human", "value": ASKED["content"]},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "observation", "value": RESULT["content"]},
        {"from": "gpt", "value": ANSWER["content"]},
    ]
    example = read({"conversations": turns, "tools": json.dumps([WEATHER])}, "sharegpt")
    same = [ASKED, CALLS, {"role": "tool", "content": RESULT["content"]}, ANSWER]
    assert chat("qwen3").render(example.messages, tools=example.tools) == transformers_rendering(
        "qwen3", same, [WEATHER]
    )
    assert "not valid JSON" in refusal(
        {"conversations": [turns[0], {"from": "function_call", "value": "look"}]}, "sharegpt"
    )


def test_the_older_function_call_is_a_tool_call() -> None:
    old = [ASKED, {"role": "assistant", "content": None, "function_call": CALL["function"]}]
    example = read({"messages": old, "functions": [WEATHER["function"]]})
    assert (example.messages[1].tool_calls, example.tools) == ([CALL], (WEATHER,))


def test_trls_prompts_and_completions_of_turns_teach_the_completion_only() -> None:
    row = {"prompt": [ASKED, CALLS, RESULT], "completion": [ANSWER], "tools": [WEATHER]}
    example = read(row, "prompt-completion")
    (tokenized,) = tokenize_examples([example], chat("qwen2_5"), encode, 4096).examples
    assert text_of(tokenized) == transformers_rendering("qwen2_5", TALK, [WEATHER])
    assert learned(tokenized) == "It has 21 degrees.<|im_end|>\n"
    assert "prompt, turn 1" in refusal({**row, "prompt": [{"role": "user", "content": 1}]}, "prompt-completion")


@pytest.mark.parametrize("style", ["gemma3", "idefics3", "qwen3_5_think", "qwen2_5_vl"])
def test_parts_of_text_are_handed_to_templates_that_read_them(style: str) -> None:
    turns = [{"role": role, "content": [{"type": "text", "text": text} for text in texts]} for role, texts in PARTS]
    example = read({"messages": turns})
    assert chat(style).render(example.messages) == transformers_rendering(style, turns, None)


@pytest.mark.parametrize("style", ["qwen2_5", "qwen3", "llama3_1", "phi3"])
def test_parts_of_text_are_one_text_for_other_templates(style: str) -> None:
    turns = [{"role": role, "content": [{"type": "text", "text": text} for text in texts]} for role, texts in PARTS]
    example = read({"messages": turns})
    assert example.messages[0].content == "Is it warm in Zürich?"
    whole = [{"role": role, "content": "".join(texts)} for role, texts in PARTS]
    assert chat(style).render(example.messages) == transformers_rendering(style, whole, None)
    assert tokenize_examples([example], chat(style), encode, 4096).examples


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER], "part 1"),
        ([{**ASKED, "images": ["a.png"]}, ANSWER], "images"),
        ([{"role": "user", "content": "Hi", "tool_calls": [CALL]}, ANSWER], "only the assistant calls tools"),
        ([ASKED, {"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}], "invalid tool call"),
        ([ASKED, {"role": "assistant", "tool_calls": "look it up"}], "not valid JSON"),
        ([ASKED, {"role": "assistant", "content": None}], "must hold text"),
        ([ASKED, {"role": "assistant"}], "must have role and content"),
        ([ASKED, {**ANSWER, "reasoning_content": ["a"]}], "reasoning_content must hold text"),
    ],
)
def test_what_changes_the_meaning_and_cannot_be_read_is_refused(turns: list[Turn], words: str) -> None:
    assert words in refusal({"messages": turns})


@pytest.mark.parametrize("tools", ["get_weather", 7, [7], {"name": "x"}])
def test_tools_that_are_no_list_of_schemas_are_refused(tools: object) -> None:
    assert "tools" in refusal({"messages": TALK, "tools": tools})


def test_a_row_with_pictures_is_refused() -> None:
    assert "the row has images" in refusal({"messages": [ASKED, ANSWER], "images": ["a.png"]})
    assert read({"messages": [ASKED, ANSWER], "images": []})


def test_data_check_names_what_conversations_hold_and_what_is_not_read(
    edgetune_command: Callable[..., Any], tmp_path: Path
) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {**ASKED, "mood": "good"},
        *TALK[1:3],
        {**ANSWER, "thinking": "21"},
    ]
    ignored = {"messages": [ASKED, {**ANSWER, "weight": 0}, ASKED, ANSWER], "score": 3}
    rows = [{"messages": turns, "tools": [WEATHER]}, ignored]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "tools",
        "task": "chat",
        "base": str(tmp_path / "nowhere"),
        "data": {"train": [{"source": "rows.jsonl", "format": "messages"}]},
        "method": {"type": "lora"},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    seen = edgetune_command("data", "check", tmp_path / "recipe.yaml")
    assert seen.exit_code == 0, seen.stderr
    assert "train: rows.jsonl: not read (number of values): messages[].mood (1), score (1)" in (seen.stdout)
    document = json.loads(edgetune_command("data", "check", tmp_path / "recipe.yaml", "--json").stdout)
    assert document["train"]["parts"] == {
        "system messages": 1,
        "conversations with tools": 1,
        "turns that call tools": 1,
        "results of tools": 1,
        "turns with reasoning": 1,
        "answers of weight 0, which are not learned": 1,
    }
    assert all(part in seen.stdout for part in document["train"]["parts"])


def test_what_is_not_read_is_counted_by_name() -> None:
    unread = Unread()
    turns = [{**ASKED, "mood": "good", "weight": 1, "name": "Ann"}, {**ANSWER, "tool_calls": None, "refusal": None}]
    read({"messages": turns, "score": 3, "note": ""}, unread=unread)
    assert unread == {"messages[].mood": 1, "score": 1}


def test_what_arrow_fills_in_is_taken_out_again(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    search = {"type": "function", "function": {"name": "search", "arguments": {"words": "warm"}}}
    rows = [
        {"messages": TALK, "tools": [WEATHER]},
        {"messages": [ASKED, {**CALLS, "tool_calls": [search]}], "tools": None},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    source = DataSource(source=str(tmp_path / "a.parquet"), format="messages")
    first, second = load_data(Data(train=[source]), "chat").train
    assert chat("llama3_1").render(first.messages, tools=first.tools) == transformers_rendering(
        "llama3_1", TALK, [WEATHER]
    )
    assert second.messages[1].tool_calls == [search]
    assert second.tools == ()


def test_one_message_names_the_first_fault_and_where_the_others_are(tmp_path: Path) -> None:
    good, bad = {"messages": [ASKED, ANSWER]}, {"messages": [ASKED]}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [good, bad, good, bad, bad]))
    source = DataSource(source=str(path), format="messages")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .*\(2 more rows have faults: rows\.jsonl:4, rows\.jsonl:5\)"):
        load_data(Data(train=[source]), "chat")


def test_a_suite_refuses_tools_that_it_would_not_give_to_models(tmp_path: Path) -> None:
    from edgetune.judging.suites.items import read_items
    from edgetune.judging.suites.suite import Suite, SuiteSource

    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": TALK}) + "\n")
    suite = Suite(name="tools", task="generate", data=[SuiteSource(source=str(path), format="messages")])
    with pytest.raises(DataError, match=r"rows\.jsonl:1: this conversation has tools"):
        read_items(suite)
    path.write_text(json.dumps({"prompt": "Hi", "completion": "Ho", "system": "Be brief."}) + "\n")
    suite = Suite(name="system", task="generate", data=[SuiteSource(source=str(path), format="prompt-completion")])
    assert [message.role for message in read_items(suite)[0].messages] == ["system", "user"]
