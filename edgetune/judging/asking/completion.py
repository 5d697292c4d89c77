"""What an endpoint sends back: completions and errors. Texts taken from them never hold a key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.data.reasoning import given_reasoning, is_reasoning
from edgetune.judging.asking.cost import count_tokens

MOST_CHARACTERS_OF_A_REASON = 500

_FILTERS = ("content_filter", "safety", "sensitive", "prohibited_content", "blocklist", "recitation")
"""Finish reasons of blocked answers: OpenAI's, then those that gateways pass on from other services."""

_OUT_OF_TOKENS = ("max_tokens", "max_output_tokens", "max_new_tokens", "max_length", "model_length", "token_limit")


class Unreadable(Exception):
    """A body that is not a chat completion. The text says what is wrong."""


@dataclass(frozen=True)
class Completion:
    """What a model wrote. `finish` is why it ended, in the endpoint's words; `refusal` its words when it declined.

    `reasoning` is what the endpoint gives apart from the text as the model's own reasoning, empty where it gives none.

    `logprobs` is the list of its tokens with their probabilities, empty where the endpoint gives none. `input_tokens`
    and `output_tokens` are estimates where it does not count them. `cost_usd` is over all attempts, `seconds` the time
    of the successful one.
    """

    text: str
    finish: str
    refusal: str
    logprobs: tuple[Mapping[str, Any], ...]
    input_tokens: int
    output_tokens: int
    cost_usd: float = 0.0
    seconds: float = 0.0
    reasoning: str = ""

    @property
    def filtered(self) -> bool:
        """Whether a content filter blocked the answer or a part of it."""
        return self.finish.casefold() in _FILTERS


def finish_of(reason: str) -> str:
    """One word for each finish reason, which services spell in several ways: "MAX_TOKENS" is "length", "" is "stop"."""
    said = reason.strip().lower()
    return "length" if said in _OUT_OF_TOKENS else said or "stop"


def read_completion(content: bytes, prompt_tokens: int, key: str | None) -> Completion:
    """The first choice of a chat completion; the prompt has about `prompt_tokens`.

    Raises Unreadable, whose text does not hold the key.
    """
    try:
        body = json.loads(content)
    except ValueError:
        raise Unreadable(f"the response is not JSON: {explain_error(content, key)[0] or 'nothing'}") from None
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices:
        error = f": {explain_error(content, key)[0]}" if isinstance(body, dict) and "error" in body else ""
        raise Unreadable(f"the response has no choices{error}")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise Unreadable("the response's first choice has no message")
    if choice.get("error"):
        problem = explain_error(json.dumps({"error": choice["error"]}).encode(), key)[0]
        raise Unreadable(f"the response was interrupted: {problem}")
    usage = _mapping(body.get("usage"))
    logprobs = _mapping(choice.get("logprobs")).get("content")
    text = _text_of(message.get("content"))
    return Completion(
        text=text,
        finish=finish_of(str(choice.get("finish_reason") or "")),
        refusal=str(message.get("refusal") or ""),
        logprobs=tuple(token for token in logprobs if isinstance(token, dict)) if isinstance(logprobs, list) else (),
        input_tokens=_count_of(usage.get("prompt_tokens"), prompt_tokens),
        output_tokens=_count_of(usage.get("completion_tokens"), count_tokens(text)),
        reasoning=given_reasoning(message),
    )


def explain_error(content: bytes, key: str | None) -> tuple[str, str, str]:
    """An error's message, the parameter that it names, and its code; the last two may be empty.

    The key is hidden in all three. Understands OpenAI's and Azure's {"error": {...}}, FastAPI's {"detail": ...} and
    plain text.
    """
    text = content.decode(errors="replace")
    try:
        body = json.loads(content)
    except ValueError:
        return _show(re.sub(r"<[^>]*>", " ", text), key), "", ""
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return _show(error if isinstance(error, str) else text, key), "", ""
    message = error.get("message") or error.get("detail") or text
    parameter, code = error.get("param") or "", error.get("code") or error.get("type") or ""
    inner = _mapping(error.get("innererror")).get("code") or ""  # Azure's own code stands behind a general one
    code = f"{code} {inner}" if inner and inner != code else code
    return _show(_words_of(message), key), _show(str(parameter), key), _show(str(code), key)


def error_status(content: bytes) -> int | None:
    """The HTTP status that an error inside a successful response names; 400 for an error that names none."""
    try:
        body = json.loads(content)
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    if not error:
        return None
    code = _mapping(error).get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 400


def hide_key(text: str, key: str | None) -> str:
    """The text without the key, and without what looks like one."""
    if key:
        text = text.replace(key, "[key]")
    text = re.sub(r"(?i)\bbearer\s+[^\s\"',;}]+", "Bearer [key]", text)
    return re.sub(r"\b[sp]k-[\w*.-]{4,}", "[key]", text)


def _words_of(message: Any) -> str:
    """An error's message. FastAPI's is a list of places and what is wrong there, beside the whole input: the request
    itself, which would name every parameter, is left out."""
    if isinstance(message, str):
        return message
    found = [each for each in message if isinstance(each, dict) and "msg" in each] if isinstance(message, list) else []
    places = [".".join(map(str, each["loc"])) if isinstance(each.get("loc"), list) else "" for each in found]
    told = [f"{place}: {each['msg']}".removeprefix(": ") for place, each in zip(places, found, strict=True)]
    return "; ".join(told) or json.dumps(message)


def _text_of(content: Any) -> str:
    """A message's content, which some endpoints give as a list of parts; those of reasoning are left out."""
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict) and not is_reasoning(part))
        return "".join(str(part.get("text", "")) for part in parts)
    return content if isinstance(content, str) else ""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count_of(value: Any, estimate: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else estimate


def _show(text: str, key: str | None) -> str:
    """The text on one line, without the key, and cut where it is long; in this order, or part of a key could stay."""
    text = hide_key(" ".join(text.split()), key)
    return text if len(text) <= MOST_CHARACTERS_OF_A_REASON else text[:MOST_CHARACTERS_OF_A_REASON] + "..."
