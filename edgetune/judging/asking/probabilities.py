"""Token probabilities of a verdict -> how likely each choice of each field was.

A judge that writes 4 may have been nearly as ready to write 3. Where an endpoint tells the likeliest tokens at each
place, the tokens at the place of a grade are a distribution over grades, and its mean tells more than the grade that
was written (G-Eval, Liu et al. 2023, arXiv 2303.16634).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgetune.judging.asking.request import VerdictForm

MIN_COVERAGE = 0.8
"""The listed tokens that are choices must hold this much of the probability, or the field is left out."""

_FRINGE = " \t\r\n\"':"
"""What a token may hold before the value: tokenizers put quotes, spaces and colons into one token with it, or not."""


def read_probabilities(tokens: Sequence[Mapping[str, Any]], form: VerdictForm) -> dict[str, dict[str, float]]:
    """For each field of the form, its choices (as text) with their shares, which sum to 1.

    `tokens` is `logprobs.content` of a chat completion: each entry has the `token` that was written, its `logprob` in
    nats, and `top_logprobs`, a list of the likeliest tokens with theirs. The value of a field is looked for behind the
    last place where the field is named. A field is left out when it is not found, or when the choices among the
    listed tokens hold less than MIN_COVERAGE of the probability.
    """
    texts = [str(token.get("token", "")) for token in tokens]
    whole = "".join(texts)
    found = {}
    for name, choices in form.fields.items():
        start = _start_of_value(whole, name)
        if start is None:
            continue
        index, offset = _token_at(texts, start)
        shares = _share_out(tokens[index], texts[index][:offset], [str(choice) for choice in choices])
        if shares is not None:
            found[name] = shares
    return found


def _start_of_value(text: str, name: str) -> int | None:
    """Where the first character of the field's value is, behind the last `name:` with or without quotes."""
    places = list(re.finditer(rf"(?<!\w){re.escape(name)}[\"'*]*\s*[:=][\s\"'*]*(?=\w)", text))
    return places[-1].end() if places else None


def _token_at(texts: Sequence[str], start: int) -> tuple[int, int]:
    """The token that holds the character at `start`, and that character's place in it."""
    for index, text in enumerate(texts):
        if start < len(text):
            return index, start
        start -= len(text)
    raise AssertionError("the place lies in the text")


def _share_out(token: Mapping[str, Any], before: str, choices: Sequence[str]) -> dict[str, float] | None:
    listed: dict[str, float] = {}
    for entry in [token, *(token.get("top_logprobs") or [])]:
        probability = _probability(entry.get("logprob"))
        if probability is not None:
            listed[str(entry.get("token", ""))] = probability
    masses = dict.fromkeys(choices, 0.0)
    for text, probability in listed.items():
        choice = _choice_begun(text, before, choices)
        if choice is not None:
            masses[choice] += probability
    covered = math.fsum(masses.values())
    if covered < MIN_COVERAGE:
        return None
    return {choice: mass / covered for choice, mass in masses.items()}


def _choice_begun(token: str, before: str, choices: Sequence[str]) -> str | None:
    """The only choice that a token at this place begins or holds whole; None when it is none, or could be several."""
    if before and token.startswith(before):
        value = token[len(before) :]
    elif before.strip(_FRINGE):
        return None
    else:
        value = token.lstrip(_FRINGE)
    match = re.match(r"\w+", value)
    if match is None:
        return None
    word = match.group().casefold()
    ends = match.end() < len(value)
    begun = [
        choice for choice in choices if choice.casefold() == word or (not ends and choice.casefold().startswith(word))
    ]
    return begun[0] if len(begun) == 1 else None


def _probability(logprob: Any) -> float | None:
    if not isinstance(logprob, (int, float)) or math.isnan(logprob):
        return None
    return math.exp(min(float(logprob), 0.0))
