"""A prompt with the places that a row's columns fill."""

from __future__ import annotations

import re
from collections.abc import Mapping

TEXT = "text"
"""The column that every prompt asks about, {text} in it."""


def fill_prompt(prompt: str, text: str, others: Mapping[str, str] | None = None) -> str:
    """The prompt with `text` in the place of {text}, and each of the others in the place of its {name}.

    All of them are put in at once: braces in what is filled in, and braces around any other word, are plain characters.
    """
    values = {**(others or {}), TEXT: text}
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda place: values[place[1]], prompt)


def asks_for(prompt: str | None, name: str) -> bool:
    """True when the prompt has a place for the column `name`."""
    return prompt is not None and f"{{{name}}}" in prompt
