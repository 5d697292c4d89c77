"""Prompts with placeholders for a row's columns."""

from __future__ import annotations

import re
from collections.abc import Mapping

TEXT = "text"
"""The column of the placeholder {text}, which every prompt has."""


def fill_prompt(prompt: str, text: str, others: Mapping[str, str] | None = None) -> str:
    """The prompt with `text` for {text}, and each of the others for its {name}.

    All are filled in at once: braces in the values, and braces around other words, are plain characters.
    """
    values = {**(others or {}), TEXT: text}
    names = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({names})\}}", lambda place: values[place[1]], prompt)


def asks_for(prompt: str | None, name: str) -> bool:
    """True if the prompt has a placeholder for the column `name`."""
    return prompt is not None and f"{{{name}}}" in prompt
