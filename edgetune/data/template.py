"""Renders chat templates, for training and for the runtime.

Rendering equals Transformers' `apply_chat_template`: the same sandbox, tags, filters and functions
(https://huggingface.co/docs/transformers/chat_templating), so a model gets the same text in llama.cpp as in training.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgetune.data.example import Message
from edgetune.errors import DataError, RecipeError

ALPACA = Path(__file__).parent / "templates" / "alpaca.jinja"

_OTHER_TEMPLATE = "set data.template to alpaca or to a Jinja file"


@dataclass(frozen=True)
class Segment:
    """A part of a rendered conversation; the model learns to write it if it is `supervised`."""

    text: str
    supervised: bool


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja chat template and the texts of the special tokens that it may use (empty if the model has none)."""

    source: str
    bos_token: str
    eos_token: str

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[dict[str, Any]] = (),
        add_generation_prompt: bool = False,
    ) -> str:
        """The conversation as one text with special tokens written out.

        `tools` are JSON schemas of functions. With `add_generation_prompt` the text ends where the assistant's next
        answer begins. Raises DataError if the template refuses these messages or fails, and RecipeError if it is not
        valid Jinja.
        """
        template = _compile(self.source)
        in_parts = any(message.parts for message in messages) and _reads_parts(self.source)
        try:
            return template.render(
                messages=[message.as_dict(in_parts=in_parts) for message in messages],
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
        except Exception as problem:  # a template is a program, so any exception is possible
            reason = " ".join(str(problem).split())
            raise DataError(f"the chat template refuses this conversation ({reason})") from problem

    def segments(self, messages: Sequence[Message], *, tools: Sequence[dict[str, Any]] = ()) -> tuple[Segment, ...]:
        """The rendering as supervised and unsupervised parts, in order; joined they equal `render(messages)`.

        Every assistant turn is supervised, from the end of its generation prompt to the end of its end-of-turn markup,
        except those of weight 0 and those that the template writes differently when later turns follow (without their
        reasoning, for instance). Raises DataError if the last answer does not begin with the prompt of inference.
        """
        turns = _answers(messages)
        whole = self.render(messages, tools=tools)
        spans = self._answer_spans(messages, whole, turns, tools)
        if turns and turns[-1] not in spans:
            raise _no_place_for_the_answer()
        return _cut(whole, list(spans.values()))

    def readings(
        self, messages: Sequence[Message], *, tools: Sequence[dict[str, Any]] = ()
    ) -> tuple[tuple[Segment, ...], ...]:
        """Segments of one or more renderings that contain every supervised answer exactly once, as inference writes it.

        The first rendering is the whole conversation. Answers that the template writes differently when later turns
        follow (Qwen3 drops their reasoning) are supervised in renderings that end with them; most templates have none.
        Raises DataError if the conversation with an answer does not begin with the prompt of that answer.
        """
        left = _answers(messages)
        if not left:
            return (self.segments(messages, tools=tools),)
        readings: list[tuple[Segment, ...]] = []
        end = len(messages)
        while left:
            part = messages[:end]
            whole = self.render(part, tools=tools)
            spans = self._answer_spans(part, whole, left, tools)
            if spans:
                readings.append(_cut(whole, list(spans.values())))
            if left[-1] not in spans and end == left[-1] + 1:
                raise _no_place_for_the_answer()
            left = [turn for turn in left if turn not in spans]
            end = left[-1] + 1 if left else 0
        return tuple(readings)

    def split_answer(
        self, messages: Sequence[Message], answer: str, *, tools: Sequence[dict[str, Any]] = ()
    ) -> tuple[tuple[str, ...], str]:
        """An assistant's answer to these messages: the texts before it, and that of it with its end-of-turn markup."""
        segments = self.segments([*messages, Message("assistant", answer)], tools=tools)
        last = max(index for index, segment in enumerate(segments) if segment.supervised)
        return tuple(segment.text for segment in segments[:last]), segments[last].text

    def _answer_spans(
        self, messages: Sequence[Message], whole: str, turns: Sequence[int], tools: Sequence[dict[str, Any]]
    ) -> dict[int, tuple[int, int]]:
        """Start and end in `whole` of those turns whose prompt and answer occur there unchanged."""
        spans: dict[int, tuple[int, int]] = {}
        done = 0
        for turn in turns:
            prompt = self.render(messages[:turn], tools=tools, add_generation_prompt=True)
            answered = whole if turn + 1 == len(messages) else self.render(messages[: turn + 1], tools=tools)
            if whole.startswith(answered) and answered.startswith(prompt) and done <= len(prompt) < len(answered):
                done = len(answered)
                spans[turn] = (len(prompt), done)
        return spans


def load_template(name: str, *, tokenizer_template: str | None, bos_token: str, eos_token: str) -> ChatTemplate:
    """The template of a recipe's `data.template`: chat (the tokenizer's own), alpaca, or a Jinja file.

    Raises RecipeError if the base has no chat template, the file cannot be read, or it is not valid Jinja.
    """
    if name == "chat":
        if tokenizer_template is None:
            raise RecipeError("the base has no chat template", where="data.template", remedy=_OTHER_TEMPLATE)
        source, where = tokenizer_template, "the base's chat template"
    else:
        path = ALPACA if name == "alpaca" else Path(name)
        source, where = _read_template(path), str(path)
    _compile(source, where)
    return ChatTemplate(source, bos_token, eos_token)


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            "there is no such template file",
            where=path,
            remedy="data.template is chat, alpaca or the path of a Jinja file",
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        raise RecipeError(f"this template file cannot be read ({problem})", where=path) from None


def _answers(messages: Sequence[Message]) -> list[int]:
    """The numbers of the supervised turns."""
    return [number for number, message in enumerate(messages) if message.role == "assistant" and message.supervised]


def _no_place_for_the_answer() -> DataError:
    return DataError(
        "the chat template cannot be used for training: the conversation with an answer does not begin with the "
        "prompt of that answer",
        remedy=_OTHER_TEMPLATE,
    )


def _cut(whole: str, spans: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    done = 0
    for start, end in spans:
        segments += [Segment(whole[done:start], supervised=False), Segment(whole[start:end], supervised=True)]
        done = end
    segments.append(Segment(whole[done:], supervised=False))
    return tuple(segment for segment in segments if segment.text)


@lru_cache(maxsize=32)
def _compile(source: str, where: str = "the chat template") -> jinja2.Template:
    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as problem:
        raise RecipeError(
            f"this is not a valid Jinja template ({problem.message})", where=f"{where}:{problem.lineno}"
        ) from None


@lru_cache(maxsize=32)
def _reads_parts(source: str) -> bool:
    """True for a template that supports contents in parts and does not print the list itself."""
    parts = [{"type": "text", "text": "edgetune"}]
    try:
        rendered = _compile(source).render(
            messages=[{"role": "user", "content": parts}], tools=None, documents=None, bos_token="", eos_token=""
        )
    except Exception:  # as above
        return False
    return "edgetune" in rendered and str(parts) not in rendered and json.dumps(parts) not in rendered


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}`, which marks the assistant's text.

    The marks are not used, but the body must render in its own scope, as in Transformers.
    """

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_render_body"), [], [], body).set_lineno(line)

    def _render_body(self, caller: Macro) -> str:
        return caller()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as in the models' training: Jinja's own filter would escape HTML and non-ASCII letters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
