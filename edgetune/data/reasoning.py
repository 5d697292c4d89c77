"""A model's output -> its reasoning and its answer.

Reasoning models write both into one text, and each family has its own marks: <think>…</think>
(DeepSeek, Qwen, GLM, Phi), whose opening tag a chat template may have written; <seed:think> (Seed),
[THINK]…[/THINK] (Mistral), <|begin_of_thought|> (OpenThinker), <|START_THINKING|> (Cohere), <|inner_prefix|> (Apertus),
<|channel>thought…<channel|> (Gemma), ◁think▷ (Kimi), and the channels of gpt-oss
(https://cookbook.openai.com/articles/openai-harmony). Some models write <thinking>, <thought> or <reasoning> because
the prompt asks for it.

A tag marks reasoning only before the answer, or as a single unquoted closing tag if the template wrote the opening one.
An answer about such tags, in code, in quotes, in a JSON string or as a pair, keeps them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from edgetune.data.conversation import REASONING_KEYS
from edgetune.metrics.json_text import object_spans

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "scratchpad", "seed:think")
_PAIRS = (
    *((rf"<[|\s]?{name}[|\s]?>", rf"<[|\s]?/\s?{name}[|\s]?>") for name in _NAMES),
    (r"\[think\]", r"\[/think\]"),
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    (r"<\|start_thinking\|>", r"<\|end_thinking\|>"),
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    (r"<\|channel>(?:thought\b)?", r"<channel\|>"),
    ("◁think▷", "◁/think▷"),
)
"""Opening and closing marks, in any case."""

_OPENINGS = [re.compile(opening, re.IGNORECASE) for opening, _ in _PAIRS]
_CLOSINGS = [re.compile(closing, re.IGNORECASE) for _, closing in _PAIRS]
_TAG = re.compile("|".join(f"(?P<o{n}>{o})|(?P<c{n}>{c})" for n, (o, c) in enumerate(_PAIRS)), re.IGNORECASE)
_OPENED = re.compile(
    rf"(?:{'|'.join(opening for opening, _ in _PAIRS)}|<\|channel\|>analysis<\|message\|>)\s*\Z", re.IGNORECASE
)

_ANSWER_TAGS = [
    (re.compile(opening, re.IGNORECASE), re.compile(closing, re.IGNORECASE))
    for opening, closing in (
        (r"<answer>", r"</answer>"),
        (r"<response>", r"</response>"),
        (r"<\|begin_of_solution\|>", r"<\|end_of_solution\|>"),
        (r"<\|start_response\|>", r"<\|end_response\|>"),
        (r"<\|begin_of_box\|>", r"<\|end_of_box\|>"),
    )
]
"""Marks that some models put around the answer after their reasoning."""

_HEADER = re.compile(r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_BARE_CHANNELS = re.compile(
    r"\s*analysis(?=\S.*assistantfinal|(?:We|The|User|They|I|It|Let|Need|This|Okay|Just)\b[ ',.])"
    r"(.*?)(?:assistantfinal(.*))?\Z",
    re.DOTALL,
)
"""The same channels decoded without special tokens: `analysisWe …assistantfinal4`. Without an answer, the first word of
the reasoning distinguishes them from a name such as `analysisResult`."""

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})([^\n]*)$", re.MULTILINE)
_TURN = re.compile(r"\s*<(?:[|｜][^<>|｜\n]{1,40}[|｜]|s|bos)>\s*(?:(?:assistant|model)\s)?\s*")
"""The template's marks before an answer, which raw outputs may contain."""
_MOST_TURN_MARKS = 8

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“"}
_NEAR = 200
"""Characters of a line that are read on each side of a tag."""

_NAMED_BEFORE = re.compile(r"\b(?:the|an?|closing|opening|tags?|tokens?)\s\Z", re.IGNORECASE)
_NAMED_AFTER = re.compile(r" (?:tags?|tokens?|elements?|markers?)\b|[,;:?!)]|\.(?:\s|\Z)")

REASONING_MARKS = (
    *("<think>", "</think>", "<thinking>", "</thinking>", "<seed:think>", "</seed:think>", "[THINK]", "[/THINK]"),
    *("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>"),
    *("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    *("<|inner_prefix|>", "<|inner_suffix|>", "<|channel>", "<channel|>", "◁think▷", "◁/think▷"),
)
CHANNEL_MARKS = ("<|channel|>", "<|start|>", "<|message|>", "<|constrain|>", "<|end|>")
"""Special tokens that separate reasoning from the answer and must be decoded. The first of the channels' marks shows
that a vocabulary has channels; the others have other meanings in other vocabularies."""


@dataclass(frozen=True)
class Split:
    """The two parts of a text.

    `reasoning` is None without reasoning, and empty if the marks are empty. `answer` begins at `start` of the text.
    With reasoning it is stripped of white space; without reasoning it is the whole text, unchanged. `complete` is False
    if the text ended inside the reasoning: then there is no answer.
    """

    reasoning: str | None
    answer: str
    complete: bool = True
    start: int = 0


def given_reasoning(message: Mapping[str, Any]) -> str:
    """A message's separate reasoning: under one of the usual names, as text or in parts."""
    given = next((message[key] for key in REASONING_KEYS if message.get(key)), None)
    content = message.get("content", message.get("parts"))
    if given is None and isinstance(content, list):
        given = [part for part in content if isinstance(part, dict) and is_reasoning(part)]
    return _flattened(given)


def is_reasoning(part: Mapping[str, Any]) -> bool:
    """True for a part of type `thinking` (Mistral, Anthropic) or `reasoning`, or with `thought` (Gemini)."""
    return str(part.get("type", "")).startswith(("thinking", "reasoning")) or part.get("thought") is True


def _flattened(value: Any) -> str:
    """The text of a text, of a part, or of a list of either."""
    if isinstance(value, list):
        return "".join(map(_flattened, value))
    if isinstance(value, dict):
        return _flattened(next((value[key] for key in ("text", "content", *REASONING_KEYS) if value.get(key)), None))
    return value if isinstance(value, str) else ""


def split_reasoning(text: str, given: str = "") -> Split:
    """The reasoning and the answer of a model's output. Never raises.

    `given` is separate reasoning of an endpoint (`reasoning_content`); it comes first. Only text before the answer
    counts as reasoning.
    """
    split = _split_channels(text) or _split_tags(text)
    if not given.strip():
        return split
    reasoning = "\n\n".join(part for part in (given.strip(), split.reasoning) if part)
    return Split(reasoning, split.answer, split.complete, split.start)


def blank_reasoning(text: str) -> str:
    """The text with a space for every character of reasoning, also between tags in the middle of the text.

    Used to find verdicts anywhere in a judge's text: drafts are removed, and all positions stay the same. Tags inside
    JSON objects, code and quotes are content.
    """
    split = split_reasoning(text)
    end = split.start + len(split.answer)
    kept = [(split.start, end)]
    opened: dict[str, re.Match[str]] = {}
    for tag in _TAG.finditer(text, split.start, end):
        if _is_quoted(text, tag) or _is_in_object(text, tag):
            continue
        family = str(tag.lastgroup)
        if family[0] == "o":
            opened.setdefault(family[1:], tag)
        elif (opening := opened.pop(family[1:], None)) is not None:
            kept = [*kept[:-1], (kept[-1][0], opening.start()), (tag.end(), end)]
    for opening in opened.values():
        if _begins_line(text, opening) and opening.start() >= kept[-1][0]:  # cut off inside
            kept[-1] = (kept[-1][0], opening.start())
    blank = [" "] * len(text)
    for start, stop in kept:
        blank[start:stop] = text[start:stop]
    return "".join(blank)


def opened_reasoning(prompt: str) -> str:
    """The mark that opens reasoning at the end of a rendered prompt, or an empty text.

    Put it before the model's output to complete the marks.
    """
    match = _OPENED.search(prompt)
    return "" if match is None else match.group()


def closed_reasoning(prompt: str) -> str:
    """Text to append to a prompt so that the answer follows without reasoning: it closes opened reasoning, or selects
    the channel of answers. Empty for most prompts."""
    if prompt.rstrip().endswith("<|start|>assistant"):
        return "<|channel|>final<|message|>"
    opening = opened_reasoning(prompt).strip()
    if not opening:
        return ""
    if opening.startswith("<|channel|>"):
        return "<|end|><|start|>assistant<|channel|>final<|message|>"
    marks = [mark for mark in REASONING_MARKS if mark.lower() == opening.lower()]
    closing = REASONING_MARKS[REASONING_MARKS.index(marks[0]) + 1] if marks else f"</{opening.strip('<>')}>"
    return f"\n{closing}\n\n"


def _split_channels(text: str) -> Split | None:
    """gpt-oss: the last message of channel final is the answer; everything before it is reasoning."""
    bare = _BARE_CHANNELS.match(text)
    if bare is not None:
        return _parts(text, [bare[1]], bare.start(2) if bare[2] is not None else None, len(text))
    headers = [
        header for header in _HEADER.finditer(text) if not _is_quoted(text, header) and not _in_fence(text, header)
    ]
    final = [header for header in headers if header[1] == "final"]
    if not headers or not (final or text[: headers[0].start()].strip() in ("", "<|start|>assistant")):
        return None
    spans = [(header, _message_end(text, header.end())) for header in headers]
    if not final:
        return _parts(text, [text[header.end() : end] for header, end in spans], None, len(text))
    told = [text[: headers[0].start()]]
    told += [text[header.end() : end] for header, end in spans if header is not final[-1]]
    return _parts(
        text, [_CHANNEL_END.sub("", part) for part in told], final[-1].end(), _message_end(text, final[-1].end())
    )


def _message_end(text: str, start: int) -> int:
    end = _CHANNEL_END.search(text, start)
    return len(text) if end is None else end.start()


def _split_tags(text: str) -> Split:
    reasons: list[str] = []
    end = 0
    while True:
        opening = _leading(text, end)
        if opening is None and not reasons and (closing := _lone_closing(text)) is not None:
            reasons.append(text[: closing.start()])
        elif opening is None:
            break
        else:
            family, mark = opening
            closing = _closing_of(text, family, mark.end())
            reasons.append(text[mark.end() : len(text) if closing is None else closing.start()])
        if closing is None:
            return _parts(text, reasons, None, len(text))
        end = closing.end()
    return _parts(text, reasons, end, len(text)) if reasons else Split(None, text)


def _parts(text: str, reasons: list[str], start: int | None, end: int) -> Split:
    """`start` and `end` enclose the answer and the marks around it; `start` is None if the text ended before it."""
    reasoning = "\n\n".join(part.strip() for part in reasons if part.strip())
    if start is None:
        return Split(reasoning, "", complete=False, start=len(text))
    answer = text[start:end]
    for opening, closing in _ANSWER_TAGS:
        begun = opening.match(answer.lstrip())
        closings = list(closing.finditer(answer))
        if begun is not None and (not closings or not answer[closings[0].end() :].strip()):
            start += len(answer) - len(answer.lstrip()) + begun.end()
            end = start + len(text[start:end].rstrip()) if not closings else end - (len(answer) - closings[0].start())
            answer = text[start:end]
    start += len(answer) - len(answer.lstrip())
    return Split(reasoning, answer.strip(), start=start)


def _leading(text: str, start: int) -> tuple[int, re.Match[str]] | None:
    """The opening mark at `start`, after white space and turn marks, and its family."""
    for _ in range(_MOST_TURN_MARKS):
        while start < len(text) and text[start].isspace():
            start += 1
        for family, pattern in enumerate(_OPENINGS):
            mark = pattern.match(text, start)
            if mark is not None and not _NAMED_AFTER.match(text, mark.end()):
                return family, mark
        turn = _TURN.match(text, start)
        if turn is None:
            return None
        start = turn.end()
    return None


def _closing_of(text: str, family: int, start: int) -> re.Match[str] | None:
    """The closing mark: the first unquoted one, else the first one, else one of another family."""
    own = _CLOSINGS[family].finditer(text, start)
    first = next(own, None)
    if first is None:
        tags = (tag for tag in _TAG.finditer(text, start) if str(tag.lastgroup).startswith("c"))
        return next((tag for tag in tags if not _is_quoted(text, tag)), None)
    return first if not _is_quoted(text, first) else next((tag for tag in own if not _is_quoted(text, tag)), first)


def _lone_closing(text: str) -> re.Match[str] | None:
    """The closing mark of reasoning that the chat template has opened: the first one outside of an answer."""
    opened: dict[str, list[re.Match[str]]] = {}
    for tag in _TAG.finditer(text):
        if _is_quoted(text, tag) or _in_fence(text, tag):
            continue
        family = str(tag.lastgroup)
        alone = _begins_line(text, tag) and _ends_line(text, tag)
        if family[0] == "o":
            opened.setdefault(family[1:], []).append(tag)
            continue
        before = opened.get(family[1:])
        if before:
            opening = before.pop()
            # A tag that a sentence mentions has no closing tag on its own line.
            if not alone or _begins_line(text, opening):
                continue
        if (alone or not _is_named(text, tag)) and not _is_in_object(text, tag):
            return tag
    return None


def _is_quoted(text: str, tag: re.Match[str]) -> bool:
    """True for a tag in inline code or between quotation marks."""
    before, after = _line_before(text, tag), _line_after(text, tag)
    if before.count("`") % 2 and "`" in after:
        return True
    return bool(before and after) and _QUOTES.get(before[-1]) == after[0]


def _is_named(text: str, tag: re.Match[str]) -> bool:
    """True if a sentence mentions the tag: "the </think> tag", "write </think>."."""
    return bool(_NAMED_BEFORE.search(_line_before(text, tag)) or _NAMED_AFTER.match(_line_after(text, tag)))


def _begins_line(text: str, tag: re.Match[str]) -> bool:
    return not _line_before(text, tag).strip()


def _ends_line(text: str, tag: re.Match[str]) -> bool:
    return not _line_after(text, tag).strip()


def _line_before(text: str, tag: re.Match[str]) -> str:
    return text[max(0, tag.start() - _NEAR) : tag.start()].rpartition("\n")[2]


def _line_after(text: str, tag: re.Match[str]) -> str:
    return text[tag.end() : tag.end() + _NEAR].partition("\n")[0]


def _in_fence(text: str, tag: re.Match[str]) -> bool:
    return _lies_in(_fences(text), tag)


def _is_in_object(text: str, tag: re.Match[str]) -> bool:
    """True for a tag inside a JSON object, where it can only be part of a string."""
    return _lies_in(object_spans(text), tag)


def _lies_in(spans: Sequence[tuple[int, int]], tag: re.Match[str]) -> bool:
    place = bisect_right(spans, (tag.start(), 0)) - 1
    return place >= 0 and spans[place][0] < tag.start() < spans[place][1]


@lru_cache(maxsize=4)
def _fences(text: str) -> tuple[tuple[int, int], ...]:
    """Start and end of all closed code blocks (CommonMark, section 4.5), in order."""
    found = []
    opening: re.Match[str] | None = None
    for line in _FENCE.finditer(text):
        if opening is None:
            opening = line
        elif line[1].startswith(opening[1]) and not line[2].strip():
            found.append((opening.start(), line.end()))
            opening = None
    return tuple(found)
