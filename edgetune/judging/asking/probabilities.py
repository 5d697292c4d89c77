"""Token probabilities of a verdict -> how likely each choice of each field was.

A judge that writes 4 may have given 3 nearly the same probability. Where an endpoint returns the likeliest tokens at
each position, the tokens at a grade's position are a distribution over grades, and its mean says more than the grade
that was written (G-Eval, Liu et al. 2023, arXiv 2303.16634).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgetune.judging.asking.request import VerdictForm
from edgetune.judging.asking.verdict import parse_verdict

MIN_COVERAGE = 0.8
"""The listed tokens that are choices must hold this much of the probability, or the field is left out."""

_FRINGE = " \t\r\n\"':*`▁ĠĊ"
"""What a token may hold before the value: tokenizers put quotes, spaces and colons into one token with it, or not. The
last three are how some servers write spaces and line breaks."""

_BYTE_TOKEN = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+|bytes:(?:\\x[0-9a-fA-F]{2})+")
"""How servers write tokens that are no whole character."""


def read_probabilities(
    tokens: Sequence[Mapping[str, Any]], form: VerdictForm, text: str | None = None
) -> dict[str, dict[str, float]]:
    """For each field of the form, its choices (as text) with their shares, which sum to 1.

    `tokens` is `logprobs.content` of a chat completion: each entry has the `token` that was written, its `logprob` in
    nats, `top_logprobs`, a list of the likeliest tokens with theirs, and perhaps its `bytes`. `text` is the message's
    content, by default what the tokens come to. The value of a field is where `parse_verdict` has read it, so that no
    other naming of the field, in the reason or in reasoning, is taken for it. A field is left out when the text
    has no verdict, when the tokens are not those of the text, or when the choices among the listed tokens hold less
    than MIN_COVERAGE of the probability.
    """
    texts = [_text_of(token) for token in tokens]
    text = "".join(texts) if text is None else text
    places = parse_verdict(text, form).places
    marks = [_marks(piece) for piece in texts]
    begin = _place_in("".join(marks), _marks(text))
    if begin is None:
        return {}
    found = {}
    for name, place in places.items():
        at = _token_at(marks, begin + len(_marks(text[:place])))
        if at is None or not _marks(text[place]):
            continue
        shares = _share_out(tokens, texts, *at, [str(choice) for choice in form.fields[name]])
        if shares is not None:
            found[name] = shares
    return found


def _text_of(token: Mapping[str, Any]) -> str:
    """A token's text. A part of a character becomes a replacement character, which `_marks` leaves out."""
    text, data = str(token.get("token", "")), token.get("bytes")
    if _BYTE_TOKEN.fullmatch(text):
        return bytes(int(pair, 16) for pair in re.findall(r"x([0-9A-Fa-f]{2})", text)).decode(errors="replace")
    if isinstance(data, list) and data and all(isinstance(byte, int) and 0 <= byte < 256 for byte in data):
        return bytes(data).decode(errors="replace")
    return text


def _marks(text: str) -> str:
    """The ASCII characters of a text but for white space.

    They are the same, one by one, in a text and in its tokens, whatever a tokenizer or a server makes of spaces and of
    characters that it splits into bytes.
    """
    return re.sub(r"[^!-~]+", "", text)


def _place_in(tokens: str, text: str) -> int | None:
    """Where the text begins in what the tokens come to, which may hold reasoning before it and an end behind it.

    The last such place counts, because a draft may say the same. Some servers return only the first tokens.
    """
    begin = tokens.rfind(text)
    if begin >= 0:
        return begin
    return 0 if tokens and text.startswith(tokens) else None


def _token_at(marks: Sequence[str], start: int) -> tuple[int, int] | None:
    """The token that holds the mark of this number, and the mark's number in it."""
    for index, own in enumerate(marks):
        if start < len(own):
            return index, start
        start -= len(own)
    return None


def _before(text: str, mark: int) -> str:
    """The part of a token before its mark of this number."""
    places = [place for place, character in enumerate(text) if _marks(character)]
    return text[: places[mark]]


def _share_out(
    tokens: Sequence[Mapping[str, Any]], texts: Sequence[str], index: int, mark: int, choices: Sequence[str]
) -> dict[str, float] | None:
    """How likely each choice was at a mark of a token; where the token fits several choices, the next one decides."""
    before = _before(texts[index], mark)
    masses = dict.fromkeys(choices, 0.0)
    for text, probability in _listed(tokens[index], texts[index]).items():
        begun = _choices_begun(text, before, choices)
        if len(begun) > 1 and text == texts[index] and index + 1 < len(tokens):
            for choice, share in _shares_of_next(tokens[index + 1], texts[index + 1], text[len(before) :], begun):
                masses[choice] += probability * share
        elif len(begun) == 1:
            masses[begun[0]] += probability
    covered = math.fsum(masses.values())
    if covered < MIN_COVERAGE:
        return None
    return {choice: mass / covered for choice, mass in masses.items()}


def _listed(token: Mapping[str, Any], text: str) -> dict[str, float]:
    """The tokens that were possible at a token's position, with their probabilities; the token is among them."""
    listed: dict[str, float] = {}
    for entry in token.get("top_logprobs") or []:
        probability = _probability(entry.get("logprob"))
        if probability is not None:
            listed[_text_of(entry)] = probability
    probability = _probability(token.get("logprob"))
    if probability is not None:
        listed.setdefault(text, probability)
    return listed


def _shares_of_next(
    token: Mapping[str, Any], text: str, begun: str, choices: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Of choices that all begin with what is written (1 and 10), how likely each is by the token that follows."""
    for following, probability in _listed(token, text).items():
        digits = re.match(r"\w*", following)
        assert digits is not None
        whole = begun + digits.group()
        fitting = [choice for choice in choices if choice.casefold() == whole.casefold()]
        if fitting:
            yield fitting[0], probability


def _choices_begun(token: str, before: str, choices: Sequence[str]) -> list[str]:
    """The choices that a token at this place begins or holds whole."""
    if before and token.startswith(before):
        value = token[len(before) :]
    elif before.strip(_FRINGE):
        return []
    else:
        value = token.lstrip(_FRINGE)
    match = re.match(r"\w+", value)
    if match is None:
        return []
    word = match.group().casefold()
    ends = match.end() < len(value)
    return [
        choice for choice in choices if choice.casefold() == word or (not ends and choice.casefold().startswith(word))
    ]


def _probability(logprob: Any) -> float | None:
    if not isinstance(logprob, (int, float)) or math.isnan(logprob):
        return None
    return math.exp(min(float(logprob), 0.0))
