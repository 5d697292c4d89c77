"""What a refused request means: the form is wrong, the prompt is, or neither.

Endpoints refuse the same thing with different statuses and words. A parameter that is not allowed may cause 400, 403,
404, 422, 500 or 501; a prompt that a filter blocks 400 or 403.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edgetune.errors import EdgetuneError

Feature = Literal["form", "alternatives", "limit", "sampling"]
"""What dialects differ in: the form of the answer, token probabilities, the name of the token limit, and the sampling
parameters."""

Cause = Literal["filter", "length", "form"]
"""Why other prompts would be accepted: a filter blocks this one, it is too long, or its answer missed the form."""

_NAMES: dict[Feature, re.Pattern[str]] = {
    "alternatives": re.compile(r"log[ _-]?prob"),
    "form": re.compile(r"response[ _-]?format|json[ _-]?(?:schema|object|mode)|structured[ _-]?output"),
    "limit": re.compile(r"max_?(?:completion_?|output_?|new_?)?tokens"),
    "sampling": re.compile(r"(?<![a-z])(?:temperature|top_?p(?![a-z])|seed(?![a-z]))"),
}
"""How an error names each feature, in lower case."""

_CAUSES: dict[Cause, re.Pattern[str]] = {
    "length": re.compile(
        r"context[ _](?:length|window|size)|maximum context|(?:prompt|input|request) (?:is )?too (?:long|large)"
        r"|too many (?:input |prompt )?tokens|request_too_large|string_above_max_length"
    ),
    "filter": re.compile(
        r"content[ _]?(?:filter|policy|management)|responsibleaipolicy|moderation|(?:was|been|is) flagged"
        r"|prohibited[ _]content|safety (?:system|filter|setting|polic)|(?:usage|safety) polic"
        r"|data[ _]?inspection|inappropriate content|sensitive (?:content|information|words)|guardrail"
    ),
    "form": re.compile(r"json_validate_failed"),
}

ADVICE: dict[Cause, str] = {
    "filter": "check what the endpoint's content filter allows, or use other items",
    "length": "lower max_tokens, shorten the items, or serve the model with a longer context",
    "form": "write structured: text into the judge's file",
}
"""What to do where every prompt is refused for this cause."""


@dataclass(eq=False)
class Refused(Exception):
    """The endpoint does not accept the request in this form.

    `named` are the features that the refusal names. `cause` is set where other prompts would be accepted. `last` is the
    error to raise where no other form helps. `for_good` is False where a server failed, which may pass.
    """

    reason: str
    named: tuple[Feature, ...] = ()
    cause: Cause | None = None
    last: EdgetuneError | None = None
    for_good: bool = True

    def __str__(self) -> str:
        return self.reason


def named_features(said: str, status: int) -> tuple[Feature, ...]:
    """The features that an error's words name, in the order in which they may be weakened.

    A busy or failing gateway (502 and up) says little about them; only unmistakable words count there.
    """
    said = said.casefold()
    known = [feature for feature, name in _NAMES.items() if name.search(said)]
    if status > 501:
        known = [feature for feature in known if feature in ("alternatives", "form")]
    return tuple(known)


def names_parameters(said: str) -> bool:
    """Whether an error speaks of parameters without naming one; those in a URL's query are not meant."""
    return "parameter" in said.casefold().replace("query parameter", "")


def find_cause(said: str, status: int) -> Cause | None:
    """Why this prompt is refused where others would be accepted; None where the words do not say."""
    if status == 413:
        return "length"
    said = said.casefold()
    if status == 429:  # "too many tokens" is about a minute there, "request too large" about the request
        return "length" if "request too large" in said else None
    found = next((cause for cause, words in _CAUSES.items() if words.search(said)), None)
    # A filter that is out of order fails with a server's status, and may work again.
    return None if found == "filter" and status >= 500 else found
